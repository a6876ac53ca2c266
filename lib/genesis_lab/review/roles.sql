-- Who may do what in the review store: the boundary is the login of the database, not what a notebook says.
-- Run by genesis review init-db in one transaction, again and again without harm. Roles belong to the whole server.
--
--   viewer ⊂ developer, viewer ⊂ qa_analyst ⊂ qa_lead, viewer ⊂ admin; ingest stands apart.
--
-- Who acts is session_user everywhere: current_user is the owner inside SECURITY DEFINER, and SET ROLE changes it.

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['owner', 'viewer', 'developer', 'qa_analyst', 'qa_lead', 'admin', 'ingest'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'review_' || role) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', 'review_' || role);
        END IF;
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'review_' || role AND (rolcanlogin OR rolsuper)) THEN
            RAISE EXCEPTION 'role review_% can log in or is a superuser: it must be a group only', role;
        END IF;
    END LOOP;
    -- Whoever installs this acts as the owner until it is done; a superuser need not be a member for that.
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        EXECUTE format('GRANT review_owner TO %I', current_user);
    END IF;
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO review_ingest', current_database());
END $$;

GRANT review_viewer TO review_developer, review_qa_analyst, review_admin;
GRANT review_qa_analyst TO review_qa_lead;
GRANT review_viewer, review_developer, review_qa_analyst, review_qa_lead, review_admin, review_ingest
    TO review_owner WITH ADMIN OPTION;

CREATE SCHEMA IF NOT EXISTS review AUTHORIZATION review_owner;
SET LOCAL ROLE review_owner;
REVOKE ALL ON SCHEMA review FROM PUBLIC;
GRANT USAGE ON SCHEMA review TO review_viewer, review_ingest;
SET LOCAL search_path = review, pg_temp;

-- :tables (made by SQLAlchemy, see store.py)

DO $$
DECLARE
    written text;
BEGIN
    FOREACH written IN ARRAY ARRAY['annotations', 'cases', 'tags', 'notes', 'flags', 'filters', 'activity'] LOOP
        EXECUTE format('ALTER TABLE %I ALTER author SET DEFAULT session_user', written);
        EXECUTE format('ALTER TABLE %I ALTER created_at SET DEFAULT extract(epoch FROM clock_timestamp())', written);
    END LOOP;
END $$;

REVOKE ALL ON ALL TABLES IN SCHEMA review FROM PUBLIC, review_viewer, review_developer, review_qa_analyst, review_qa_lead,
    review_admin, review_ingest;

GRANT SELECT ON sources, ingests, messages, sessions, ingest_errors, annotations, cases, tags, notes, flags, filters,
    audit, activity TO review_viewer;
GRANT INSERT (name, filter), DELETE ON filters TO review_viewer;
GRANT INSERT (person, action, message, seconds) ON activity TO review_viewer;
GRANT INSERT (text, intent, entities, min_confidence, message), DELETE ON cases TO review_developer, review_qa_lead;
GRANT INSERT (text, intent, entities, min_confidence, message) ON cases TO review_qa_analyst;
GRANT INSERT (message, intent, entities, note), UPDATE (intent, entities, note) ON annotations TO review_qa_analyst;
GRANT INSERT (message, session, tag), DELETE ON tags TO review_qa_analyst;
GRANT INSERT (message, session, note), DELETE ON notes TO review_qa_analyst;
GRANT INSERT (message, session, reason), DELETE ON flags TO review_qa_analyst;
GRANT SELECT, INSERT, UPDATE ON sources, ingests, messages, sessions, ingest_errors TO review_ingest;
GRANT DELETE ON sessions TO review_ingest;
GRANT SELECT ON forgotten TO review_ingest;

-- Labels: one's own pending ones and all that are decided; leads see all, since they decide.
ALTER TABLE annotations ENABLE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS seen ON annotations;
CREATE POLICY seen ON annotations FOR SELECT TO review_viewer
    USING (status <> 'pending' OR author = session_user OR pg_has_role(session_user, 'review_qa_lead', 'MEMBER'));
DROP POLICY IF EXISTS made ON annotations;
CREATE POLICY made ON annotations FOR INSERT TO review_qa_analyst
    WITH CHECK (author = session_user AND status = 'pending');
DROP POLICY IF EXISTS changed ON annotations;
CREATE POLICY changed ON annotations FOR UPDATE TO review_qa_analyst
    USING (author = session_user AND status = 'pending') WITH CHECK (author = session_user AND status = 'pending');

-- Remarks: everyone sees them, their author takes them away.
DO $$
DECLARE
    remark text;
BEGIN
    FOREACH remark IN ARRAY ARRAY['tags', 'notes', 'flags', 'filters'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', remark);
        EXECUTE format('DROP POLICY IF EXISTS seen ON %I', remark);
        EXECUTE format('CREATE POLICY seen ON %I FOR SELECT USING (true)', remark);
        EXECUTE format('DROP POLICY IF EXISTS made ON %I', remark);
        EXECUTE format('CREATE POLICY made ON %I FOR INSERT WITH CHECK (author = session_user)', remark);
        EXECUTE format('DROP POLICY IF EXISTS removed ON %I', remark);
        EXECUTE format('CREATE POLICY removed ON %I FOR DELETE USING (author = session_user)', remark);
    END LOOP;
END $$;

-- The audit: only triggers and functions of the owner write to it, each row chained to the one before.
CREATE OR REPLACE FUNCTION append_audit(what text, about text, holds text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = review, pg_temp AS $$
DECLARE
    before audit;
    number_ int;
    at_ text := to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
    content_ text := encode(sha256(convert_to(holds, 'UTF8')), 'hex');
    link text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('review.audit'));
    SELECT * INTO before FROM audit ORDER BY number DESC LIMIT 1;
    number_ := coalesce(before.number, 0) + 1;
    link := concat_ws('|', number_, at_, session_user, what, about, content_, coalesce(before.hash, ''));
    INSERT INTO audit (number, at, who, action, subject, content, previous, hash)
    VALUES (number_, at_, session_user, what, about, content_, coalesce(before.hash, ''),
            encode(sha256(convert_to(link, 'UTF8')), 'hex'));
END $$;

CREATE OR REPLACE FUNCTION audit_annotation() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = review, pg_temp AS $$
BEGIN
    PERFORM append_audit(
        CASE WHEN TG_OP = 'INSERT' THEN 'annotated'
             WHEN NEW.status <> OLD.status THEN NEW.status
             WHEN NEW.exported_at IS DISTINCT FROM OLD.exported_at THEN 'exported'
             ELSE 'changed' END,
        format('annotation %s version %s', NEW.id, NEW.version), NEW::text);
    RETURN NULL;
END $$;
DROP TRIGGER IF EXISTS audited ON annotations;
CREATE TRIGGER audited AFTER INSERT OR UPDATE ON annotations FOR EACH ROW EXECUTE FUNCTION audit_annotation();

CREATE OR REPLACE FUNCTION next_version() RETURNS trigger LANGUAGE plpgsql SET search_path = review, pg_temp AS $$
BEGIN
    NEW.version := OLD.version + 1;
    RETURN NEW;
END $$;
DROP TRIGGER IF EXISTS versioned ON annotations;
CREATE TRIGGER versioned BEFORE UPDATE OF intent, entities, note ON annotations FOR EACH ROW EXECUTE FUNCTION next_version();

CREATE OR REPLACE FUNCTION refuse_audit() RETURNS trigger LANGUAGE plpgsql SET search_path = review, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'the audit only grows: % is refused', lower(TG_OP);
END $$;
DROP TRIGGER IF EXISTS kept ON audit;
CREATE TRIGGER kept BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION refuse_audit();
DROP TRIGGER IF EXISTS kept_whole ON audit;
CREATE TRIGGER kept_whole BEFORE TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit();
ALTER TABLE audit ENABLE ALWAYS TRIGGER kept;
ALTER TABLE audit ENABLE ALWAYS TRIGGER kept_whole;

CREATE OR REPLACE FUNCTION decide(annotation int, seen int, verdict text, why text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = review, pg_temp AS $$
DECLARE
    found_ annotations;
BEGIN
    IF pg_has_role(session_user, 'review_admin', 'MEMBER') THEN
        RAISE EXCEPTION '% is an admin: an admin approves nothing', session_user;
    ELSIF verdict IS NULL OR verdict NOT IN ('approved', 'rejected') THEN
        RAISE EXCEPTION 'a decision is approved or rejected, got %', verdict;
    ELSIF verdict = 'rejected' AND coalesce(trim(why), '') = '' THEN
        RAISE EXCEPTION 'a rejection needs a reason';
    END IF;
    SELECT * INTO found_ FROM annotations WHERE id = annotation FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no annotation %', annotation;
    ELSIF found_.status <> 'pending' THEN
        RAISE EXCEPTION 'annotation % was % by %: look at it again', annotation, found_.status, found_.decided_by;
    ELSIF found_.author = session_user THEN
        RAISE EXCEPTION 'annotation % is by %, who can not decide on it', annotation, session_user;
    ELSIF found_.version IS DISTINCT FROM seen THEN
        RAISE EXCEPTION 'annotation % is at version %, what was seen is version %: look at it again', annotation,
            found_.version, seen;
    END IF;
    UPDATE annotations SET status = verdict, reason = nullif(trim(why), ''), decided_by = session_user,
        decided_at = extract(epoch FROM clock_timestamp()) WHERE id = annotation;
END $$;

CREATE OR REPLACE FUNCTION mark_exported(ids int[]) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = review, pg_temp AS $$
DECLARE
    n int;
BEGIN
    UPDATE annotations SET exported_at = extract(epoch FROM clock_timestamp())
    WHERE id = ANY(ids) AND status = 'approved' AND exported_at IS NULL;
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END $$;

-- What store.py does on SQLite, here for those who may not write to the tables.
CREATE OR REPLACE FUNCTION forget(senders text[], tombstone text, upto double precision) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = review, pg_temp AS $$
DECLARE
    run int;
    n int;
    theirs text[];
BEGIN
    SELECT array_agg(key) INTO theirs FROM messages
    WHERE raw IS NOT NULL AND (senders IS NULL OR sender = ANY(senders))
        AND (timestamp <= upto OR (timestamp IS NULL AND senders IS NOT NULL));
    IF theirs IS NOT NULL THEN
        INSERT INTO ingests (source, started_at, finished_at, report)
        SELECT source, extract(epoch FROM clock_timestamp()), extract(epoch FROM clock_timestamp()), '{"forgotten": true}'
        FROM messages WHERE key = ANY(theirs) GROUP BY source;
        SELECT max(id) INTO run FROM ingests;
        UPDATE notes SET note = ''
        WHERE message = ANY(theirs) OR session IN (SELECT session FROM messages WHERE key = ANY(theirs));
        UPDATE flags SET reason = NULL
        WHERE message = ANY(theirs) OR session IN (SELECT session FROM messages WHERE key = ANY(theirs));
        UPDATE messages SET text = NULL, raw = NULL, entities = NULL, gold_entities = NULL, events = NULL, ingest = run
        WHERE key = ANY(theirs);
        UPDATE annotations SET entities = NULL, note = NULL WHERE message = ANY(theirs);
        UPDATE cases SET text = '', entities = NULL WHERE message = ANY(theirs);
    END IF;
    n := coalesce(array_length(theirs, 1), 0);
    UPDATE sessions SET opening = NULL
    WHERE (senders IS NULL OR sender = ANY(senders)) AND started_at <= upto AND opening IS NOT NULL;
    IF tombstone IS NOT NULL THEN
        INSERT INTO forgotten (sender, until) VALUES (tombstone, upto)
        ON CONFLICT (sender) DO UPDATE SET until = excluded.until;
    END IF;
    IF n > 0 OR tombstone IS NOT NULL THEN
        PERFORM append_audit('forgotten', n || ' messages', coalesce(array_to_string(senders, ','), upto::text));
    END IF;
    RETURN n;
END $$;

CREATE OR REPLACE FUNCTION set_role(login text, role text, given boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = review, pg_temp AS $$
DECLARE
    group_ text := 'review_' || role;
    by_ text;
BEGIN
    IF role IS NULL OR role NOT IN ('viewer', 'developer', 'qa_analyst', 'qa_lead', 'admin', 'ingest') THEN
        RAISE EXCEPTION 'a role is viewer, developer, qa_analyst, qa_lead, admin or ingest, got %', role;
    ELSIF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = login AND rolcanlogin) THEN
        RAISE EXCEPTION 'there is no login %: an administrator of the server makes it, with CREATE ROLE % LOGIN', login, quote_ident(coalesce(login, ''));
    ELSIF login = session_user THEN
        RAISE EXCEPTION 'nobody changes their own roles';
    ELSIF given AND role = 'admin' AND pg_has_role(login, 'review_qa_lead', 'MEMBER') OR
          given AND role = 'qa_lead' AND pg_has_role(login, 'review_admin', 'MEMBER') THEN
        RAISE EXCEPTION '% can not be qa_lead and admin at once: an admin approves nothing', login;
    END IF;
    IF given THEN
        EXECUTE format('GRANT %I TO %I', group_, login);
    ELSE
        EXECUTE format('REVOKE %I FROM %I', group_, login);
        -- From PostgreSQL 16 on another grantor's grant stays, with a mere warning.
        SELECT string_agg(grantor::regrole::text, ', ') INTO by_ FROM pg_auth_members
        WHERE roleid = group_::regrole AND member = quote_ident(login)::regrole;
        IF by_ IS NOT NULL THEN
            RAISE EXCEPTION '% still is %: that was granted by %, who must revoke it', login, role, by_;
        END IF;
    END IF;
    PERFORM append_audit(CASE WHEN given THEN 'granted' ELSE 'revoked' END, format('role %s of %s', role, login), '');
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA review FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decide(int, int, text, text) TO review_qa_lead;
GRANT EXECUTE ON FUNCTION mark_exported(int[]) TO review_developer, review_qa_lead;
GRANT EXECUTE ON FUNCTION forget(text[], text, double precision) TO review_admin, review_ingest;
GRANT EXECUTE ON FUNCTION set_role(text, text, boolean) TO review_admin;

RESET ROLE;
DO $$
BEGIN
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        EXECUTE format('REVOKE review_owner FROM %I', current_user);
    END IF;
END $$;

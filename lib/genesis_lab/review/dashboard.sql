-- The questions of the dashboard, each under its name, for DuckDB. Times are seconds since 1970 in UTC; days and hours are of the
-- variable `zone`. A share is given as {hits, n}; its interval is computed by whoever asks.
--: said
SET enable_progress_bar = false;
CREATE TEMP TABLE said AS
SELECT key, session, timestamp, typed, intent, confidence, fallback, coalesce(model, 'unknown model') AS model, position,
  moment::DATE AS day, isodow(moment) - 1 AS weekday, hour(moment) AS hour
FROM (SELECT *, timezone(getvariable('zone'), to_timestamp(timestamp)) AS moment FROM messages
  WHERE timestamp >= getvariable('since') AND timestamp < getvariable('until'))
--: active
CREATE TEMP TABLE active AS SELECT session, arg_max(model, timestamp) AS model, bool_or(typed AND NOT fallback) AS understood
FROM said GROUP BY session HAVING bool_or(typed)
--: told
CREATE TEMP TABLE heard AS SELECT session, -1 AS position, '' AS said, events AS raw FROM openings SEMI JOIN active USING (session)
UNION ALL SELECT session, position, CASE WHEN fallback THEN 'intent nlu_fallback' ELSE coalesce('intent ' || intent, '') END,
  CASE WHEN getvariable('slots') THEN events ELSE actions END FROM messages SEMI JOIN active USING (session);
CREATE TEMP TABLE told AS SELECT said, raw, row_number() OVER () AS id, list_transform(list_prepend(said, CASE WHEN getvariable('slots')
  THEN list_transform(from_json(raw, '[{"action": "VARCHAR", "slot": "VARCHAR", "value": "JSON"}]'),
    lambda e: coalesce('action ' || e.action, CASE WHEN e.value::VARCHAR <> 'null' THEN 'slot ' ELSE 'unset ' END || e.slot, ''))
  ELSE list_transform(from_json(raw, '["VARCHAR"]'), lambda one: 'action ' || one) END),
  lambda one: CASE WHEN one IN getvariable('names') OR split_part(one, '/', 1) IN getvariable('names') THEN one ELSE '' END) AS told
FROM (SELECT DISTINCT said, raw FROM heard)
--: told alike
SELECT flatten(list_transform(ids, lambda one: told[one])) AS told, sessions FROM (
  SELECT ids, list(session) AS sessions FROM (
    SELECT session, list(first ORDER BY position) AS ids FROM heard JOIN (
      SELECT said, raw, min(id) OVER (PARTITION BY told) AS first FROM told) USING (said, raw) GROUP BY session) GROUP BY ids),
  (SELECT list(told ORDER BY id) AS told FROM told)
--: counted
CREATE TEMP TABLE counted AS SELECT active.*, verdict, string_split(met, chr(10)) AS met,
  coalesce(verdict = 'success', list_contains(string_split(met, chr(10)), getvariable('resolved'))) AS resolved
FROM active JOIN outcomes USING (session) LEFT JOIN "verdicts of people" USING (session)
--: cards
SELECT count(DISTINCT session) AS conversations, count(*) AS messages, count(DISTINCT intent) AS intents,
  {'estimate': avg(confidence), 'n': count(confidence), 'models': count(DISTINCT model)} AS confidence,
  {'hits': count(*) FILTER (fallback), 'n': count(*)} AS fallback,
  count(*) FILTER ((fallback OR key IN (SELECT key FROM flagged) OR session IN (SELECT key FROM flagged)) AND status IS NULL) AS pending,
  count(*) FILTER (status = 'pending') AS waiting
FROM said LEFT JOIN labels USING (key) WHERE typed
--: top
SELECT intent, count(*) AS messages, {'hits': count(*), 'n': (SELECT count(*) FROM said WHERE typed)} AS share
FROM said WHERE typed AND intent IS NOT NULL GROUP BY intent ORDER BY messages DESC, intent
--: unsure
SELECT intent, count(confidence) AS messages, avg(confidence) AS confidence,
  {'hits': count(*) FILTER (confidence < getvariable('low')), 'n': count(confidence)} AS share
FROM said WHERE typed AND intent IS NOT NULL GROUP BY intent
HAVING bool_or(confidence < getvariable('low')) ORDER BY avg((confidence < getvariable('low'))::INT) DESC, intent
--: confused
SELECT intent, second AS other, intent || ' / ' || second AS pair, count(*) AS messages FROM (
  SELECT intent, confidence, json_extract_string(ranking, '$[1].name') AS second,
    TRY_CAST(json_extract_string(ranking, '$[1].confidence') AS DOUBLE) AS next
  FROM messages WHERE typed AND timestamp >= getvariable('since') AND timestamp < getvariable('until'))
WHERE confidence - next < getvariable('margin') GROUP BY ALL ORDER BY messages DESC, intent, other
--: days
SELECT strftime(days.day, '%Y-%m-%d') AS day, count(*) FILTER (typed) AS messages, count(DISTINCT session) FILTER (typed) AS conversations,
  count(*) FILTER (typed AND fallback) AS fallback
FROM (SELECT unnest(range(getvariable('first')::DATE, getvariable('last')::DATE + INTERVAL 1 DAY, INTERVAL 1 DAY)) AS day) AS days
LEFT JOIN said ON said.day = days.day GROUP BY days.day ORDER BY days.day
--: hours
SELECT weekday, hour, ['Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun'][weekday + 1] AS day, printf('%02d', hour) AS "from", count(*) AS messages
FROM said WHERE typed GROUP BY ALL ORDER BY weekday, hour
--: deploys
SELECT coalesce(model, 'unknown model') AS model, strftime(timezone(getvariable('zone'), to_timestamp(min(timestamp))), '%Y-%m-%d') AS day
FROM messages GROUP BY 1 HAVING min(timestamp) >= getvariable('since') AND min(timestamp) < getvariable('until') ORDER BY min(timestamp)
--: funnel
SELECT step, n, {'hits': n, 'n': started} AS share FROM (
  SELECT unnest(['started', 'understood', 'resolved']) AS step, unnest(reached) AS n, reached[1] AS started FROM (
    SELECT [count(*), count(*) FILTER (understood), count(*) FILTER (understood AND resolved)] AS reached FROM counted))
--: verdicts
SELECT count(*) FILTER (verdict = 'success') AS success, count(*) FILTER (verdict = 'fail') AS fail, count(*) - count(verdict) AS unknown,
  {'hits': count(*) FILTER (verdict = 'success'), 'n': count(verdict)} AS share
FROM counted
--: markers
SELECT marker, count(*) AS conversations, {'hits': count(*), 'n': (SELECT count(*) FROM counted)} AS share
FROM (SELECT unnest(met) AS marker FROM counted) WHERE marker <> '' GROUP BY marker ORDER BY conversations DESC, marker
--: histogram
SELECT model, printf('%.2f', least(floor(confidence * 20), 19) / 20) AS "from", count(*) AS messages
FROM said JOIN (SELECT model, min(timestamp) AS since FROM said GROUP BY model) USING (model)
WHERE typed AND confidence IS NOT NULL GROUP BY model, since, 2 ORDER BY since, 2
--: models
SELECT model, coalesce(conversations, 0) AS conversations, messages, {'estimate': confidence, 'n': sure} AS confidence,
  {'hits': fallback, 'n': messages} AS fallback, {'hits': coalesce(understood, 0), 'n': coalesce(conversations, 0)} AS understood,
  {'hits': coalesce(resolved, 0), 'n': coalesce(conversations, 0)} AS resolved, {'hits': coalesce(success, 0), 'n': coalesce(judged, 0)} AS success
FROM (SELECT model, count(*) AS messages, count(*) FILTER (fallback) AS fallback, avg(confidence) AS confidence, count(confidence) AS sure,
    min(timestamp) AS since
  FROM said WHERE typed GROUP BY model)
LEFT JOIN (SELECT model, count(*) AS conversations, count(*) FILTER (resolved) AS resolved, count(*) FILTER (understood) AS understood,
    count(*) FILTER (verdict = 'success') AS success, count(verdict) AS judged
  FROM counted GROUP BY model) USING (model)
ORDER BY since
--: trained
CREATE TEMP TABLE trained AS SELECT DISTINCT strip_accents(lower(trim(text))) AS text FROM taught
--: each
CREATE OR REPLACE TEMP MACRO several(given) AS list_sort(list_distinct(given));
CREATE TEMP TABLE followed AS SELECT events, several(list_transform(told, lambda e: e.action)) AS actions,
  several(list_transform(told, lambda e: e.slot)) AS slots, several(list_transform(told, lambda e: e.policy)) AS policies
FROM (SELECT events, from_json(events, '[{"action": "VARCHAR", "policy": "VARCHAR", "slot": "VARCHAR"}]') AS told FROM (SELECT DISTINCT events FROM messages));
CREATE TEMP TABLE each AS SELECT said.*, m.text, m.sender, m.source, coalesce(m.channel, '') AS channel, m.undone, actions, slots, policies,
  ['Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun'][weekday + 1] || ' ' || printf('%02d', hour) AS moment,
  CASE WHEN m.entities = '[]' THEN [] ELSE several(list_transform(from_json(m.entities, '[{"entity": "VARCHAR"}]'), lambda e: e.entity)) END AS entities,
  CASE WHEN typed AND confidence < getvariable('low') THEN intent END AS unsure,
  CASE WHEN typed AND confidence - TRY_CAST(json_extract_string(ranking, '$[1].confidence') AS DOUBLE) < getvariable('margin')
    THEN intent || ' / ' || json_extract_string(ranking, '$[1].name') END AS confused,
  CASE WHEN NOT getvariable('trained') OR NOT typed THEN NULL
    WHEN strip_accents(lower(trim(m.text))) IN (SELECT text FROM trained) THEN 'no' ELSE 'yes' END AS fresh,
  coalesce(status, 'no label') AS review
FROM said JOIN (SELECT key, text, sender, source, channel, undone, entities, ranking, events FROM messages) AS m USING (key)
  JOIN followed ON followed.events IS NOT DISTINCT FROM m.events LEFT JOIN labels USING (key) WHERE said.session IN (SELECT session FROM counted)
--: messages
CREATE TEMP TABLE shown AS SELECT key AS "_key", coalesce(text, '(deleted)') AS "_text", text AS "_search", session AS "_session",
  intent, round(confidence, 3) AS confidence, [day] AS day, CASE WHEN fallback THEN 'yes' ELSE 'no' END AS fallback, model, moment AS "weekday and hour", actions AS action, slots AS slot,
  entities AS entity, policies AS policy, channel, source, sender, length(text) AS characters, review, unsure AS "unsure of", confused,
  fresh AS "not in the training data", CASE WHEN undone THEN 'yes' ELSE 'no' END AS undone
FROM each WHERE typed ORDER BY timestamp DESC, session, position DESC
--: conversations
CREATE TEMP TABLE shown AS SELECT session AS "_key", coalesce(first(text ORDER BY position) FILTER (typed), '(deleted)') AS "_text",
  string_agg(text, ' · ' ORDER BY position) FILTER (typed) AS "_search", session AS "_session",
  several(list(intent) FILTER (typed)) AS intent, several(list(day)) AS day, round(min(confidence) FILTER (typed), 3) AS "lowest confidence",
  CASE WHEN any_value(understood AND resolved) THEN ['started', 'understood', 'resolved']
    WHEN any_value(understood) THEN ['started', 'understood'] ELSE ['started'] END AS reached, any_value(met) AS marker,
  coalesce(any_value(verdict), 'unknown') AS verdict, any_value(counted.model) AS model,
  count(*) FILTER (typed) AS messages, round((max(timestamp) - min(timestamp)) / 60, 1) AS minutes,
  CASE WHEN bool_or(fallback) THEN 'yes' ELSE 'no' END AS fallback, several(list(moment) FILTER (typed)) AS "weekday and hour",
  several(flatten(list(actions))) AS action, several(flatten(list(slots))) AS slot, several(flatten(list(entities))) AS entity,
  several(flatten(list(policies))) AS policy, min(channel) AS channel, min(source) AS source, min(sender) AS sender,
  several(list(review) FILTER (typed)) AS review, several(list(unsure)) AS "unsure of", several(list(confused)) AS confused,
  several(list(each.model || ' ' || printf('%.2f', least(floor(confidence * 20), 19) / 20)) FILTER (typed AND confidence IS NOT NULL)) AS "model and confidence",
  max(fresh) AS "not in the training data", CASE WHEN bool_or(undone) THEN 'yes' ELSE 'no' END AS undone
FROM each JOIN counted USING (session) GROUP BY session ORDER BY max(timestamp) DESC, session
-- What people said, asked of the store
--: labels
SELECT message AS key, status FROM annotations WHERE id IN (SELECT max(id) FROM annotations GROUP BY message)
--: flagged
SELECT coalesce(message, session) AS key FROM flags
--: verdicts of people
SELECT session, tag AS verdict FROM tags WHERE id IN (
  SELECT max(id) FROM tags WHERE tag IN ('success', 'fail') AND session IS NOT NULL GROUP BY session)
--: openings
SELECT key AS session, opening AS events FROM sessions
--: remarks
SELECT session, message, tag AS said, 'tags' AS place, id, author, created_at FROM tags
UNION ALL SELECT session, message, 'note', 'notes', id, author, created_at FROM notes
UNION ALL SELECT session, message, 'flag', 'flags', id, author, created_at FROM flags
UNION ALL SELECT NULL, message, 'case', 'cases', id, author, created_at FROM cases
ORDER BY created_at, id

-- The questions of the dashboard, each under its name, for DuckDB. Times are seconds since 1970 in UTC; days and hours are of the
-- variable `zone`. A share is given as {hits, n}; its interval is computed by whoever asks.
--: steps
CREATE TEMP MACRO followed(events) AS from_json(events, '[{"action": "VARCHAR", "policy": "VARCHAR", "slot": "VARCHAR", "value": "JSON"}]');
CREATE TEMP MACRO steps(followed) AS list_transform(followed, lambda e: coalesce('action ' || e.action,
  CASE WHEN e.value::VARCHAR <> 'null' THEN 'slot ' ELSE 'unset ' END || e.slot, ''));
CREATE TEMP MACRO joined(given) AS nullif(array_to_string(given, chr(31)), '');
CREATE TEMP MACRO several(given) AS list_sort(list_distinct(given));
CREATE TEMP MACRO parted(given) AS coalesce(several(string_split(given, chr(31))), []);
CREATE TEMP MACRO folded(given) AS strip_accents(lower(given));
CREATE TEMP MACRO twentieth(confidence) AS '0.' || lpad((least(floor(confidence * 20), 19) * 5)::INTEGER::VARCHAR, 2, '0')
--: copied
SELECT * EXCLUDE (opening, did), json_extract_string(ranking, '$[1].name') AS other,
  confidence - TRY_CAST(json_extract_string(ranking, '$[1].confidence') AS DOUBLE) AS margin, twentieth(confidence) AS twentieth,
  joined(list_concat(coalesce(steps(followed(opening)), []), [CASE WHEN fallback THEN 'intent nlu_fallback' ELSE coalesce('intent ' || intent, '') END],
    coalesce(steps(did), list_transform(from_json(actions, '["VARCHAR"]'), lambda one: 'action ' || one), []))) AS told,
  joined(list_filter(list_transform(did, lambda e: e.action), lambda one: one <> 'action_listen')) AS did,
  joined(list_transform(did, lambda e: e.slot)) AS slots, joined(list_transform(did, lambda e: e.policy)) AS policies,
  joined(list_transform(from_json(entities, '[{"entity": "VARCHAR"}]'), lambda e: e.entity)) AS found, folded(text) AS folded
FROM (SELECT *, followed(events) AS did FROM part)
--: period
CREATE TEMP VIEW period AS SELECT * EXCLUDE (moment, told, actions, events, ranking, entities, gold_entities) REPLACE (coalesce(model, 'unknown model') AS model, coalesce(channel, '') AS channel),
  moment::DATE AS day, isodow(moment) - 1 AS weekday, hour(moment) AS hour
FROM (SELECT *, timezone(getvariable('zone'), to_timestamp(timestamp)) AS moment FROM messages
  WHERE timestamp >= getvariable('since') AND timestamp < getvariable('until'))
--: active
CREATE TEMP TABLE active AS SELECT session, max(timestamp) AS ended, arg_max(model, timestamp) AS model, bool_or(typed AND NOT fallback) AS understood
FROM said GROUP BY session HAVING bool_or(typed)
--: told
CREATE TEMP TABLE heard AS SELECT session, position, told FROM messages SEMI JOIN active USING (session);
CREATE TEMP TABLE turns AS SELECT told, row_number() OVER () AS id, list_transform(string_split(told, chr(31)),
  lambda one: CASE WHEN one IN getvariable('names') OR split_part(one, '/', 1) IN getvariable('names') THEN one ELSE '' END) AS kept
FROM (SELECT DISTINCT told FROM heard);
CREATE TEMP TABLE alike AS SELECT row_number() OVER () AS id, ids, list(session) AS sessions FROM (
  SELECT session, list(first ORDER BY position) AS ids FROM heard JOIN (
    SELECT told, min(id) OVER (PARTITION BY kept) AS first FROM turns) USING (told) GROUP BY session) GROUP BY ids
--: told alike
SELECT alike.id, flatten(list_transform(ids, lambda one: kept[one])) FROM alike, (SELECT list(kept ORDER BY id) AS kept FROM turns)
--: counted
CREATE TEMP TABLE counted AS SELECT active.*, verdict, met, coalesce(verdict = 'success', list_contains(met, getvariable('resolved'))) AS resolved
FROM active JOIN (SELECT unnest(sessions) AS session, coalesce(string_split(nullif(met, ''), chr(10)), []) AS met
    FROM alike JOIN outcomes ON alike.id = outcomes.id::BIGINT) USING (session)
  LEFT JOIN verdicts USING (session)
--: cards
SELECT (SELECT count(*) FROM active) AS conversations, count(*) AS messages, count(DISTINCT intent) AS intents,
  {'estimate': avg(confidence), 'n': count(confidence), 'models': count(DISTINCT model)} AS confidence,
  {'hits': count(*) FILTER (fallback), 'n': count(*)} AS fallback,
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
SELECT intent, other, intent || ' / ' || other AS pair, count(*) AS messages
FROM said WHERE typed AND margin < getvariable('margin') GROUP BY ALL ORDER BY messages DESC, intent, other
--: days
SELECT strftime(days.day, '%Y-%m-%d') AS day, count(*) FILTER (typed) AS messages, count(DISTINCT session) FILTER (typed) AS conversations,
  count(*) FILTER (typed AND fallback) AS fallback
FROM (SELECT unnest(range(getvariable('first')::DATE, getvariable('last')::DATE + INTERVAL 1 DAY, INTERVAL 1 DAY)) AS day) AS days
LEFT JOIN said ON said.day = days.day GROUP BY days.day ORDER BY days.day
--: hours
SELECT weekday, hour, ['Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun'][weekday + 1] AS day, lpad(hour::VARCHAR, 2, '0') AS "from", count(*) AS messages
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
FROM (SELECT unnest(met) AS marker FROM counted) GROUP BY marker ORDER BY conversations DESC, marker
--: histogram
SELECT model, twentieth AS "from", messages FROM (
  SELECT model, twentieth, min(min(timestamp)) OVER (PARTITION BY model) AS since, count(*) AS messages
  FROM said WHERE typed AND twentieth IS NOT NULL GROUP BY model, twentieth)
ORDER BY since, 2
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
CREATE TEMP TABLE trained AS SELECT DISTINCT trim(folded(text)) AS text FROM taught
--: each
CREATE TEMP VIEW each AS SELECT said.*, ['Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun'][weekday + 1] || ' ' || lpad(hour::VARCHAR, 2, '0') AS moment,
  CASE WHEN typed AND confidence < getvariable('low') THEN intent END AS unsure,
  CASE WHEN typed AND margin < getvariable('margin') THEN intent || ' / ' || other END AS confused,
  CASE WHEN NOT getvariable('trained') OR NOT typed THEN NULL
    WHEN trim(folded) IN (SELECT text FROM trained) THEN 'no' ELSE 'yes' END AS fresh,
  coalesce(status, 'no label') AS review
FROM said SEMI JOIN active USING (session) LEFT JOIN labels USING (key)
--: messages
CREATE TEMP TABLE shown AS SELECT key AS "_key", n AS "_row", coalesce(text, '(deleted)') AS "_text", folded AS "_search", session AS "_session",
  intent, round(confidence, 3) AS confidence, [day] AS day, CASE WHEN fallback THEN 'yes' ELSE 'no' END AS fallback, model, moment AS "weekday and hour", parted(did) AS action, parted(slots) AS slot,
  parted(found) AS entity, parted(policies) AS policy, channel, source, sender, length(text) AS characters, review, unsure AS "unsure of", confused,
  fresh AS "not in the training data", CASE WHEN undone THEN 'yes' ELSE 'no' END AS undone
FROM each JOIN (SELECT key, row_number() OVER (ORDER BY timestamp DESC, session, position DESC) - 1 AS n
  FROM said SEMI JOIN active USING (session) WHERE typed) USING (key)
--: conversations
CREATE TEMP TABLE shown AS SELECT session AS "_key", n AS "_row", coalesce(text, '(deleted)') AS "_text",
  words AS "_search", texts AS "_texts", session AS "_session", several(intent) AS intent, several(day) AS day, "lowest confidence",
  ['started', 'understood', 'resolved'][:1 + understood::INT + (understood AND resolved)::INT] AS reached, met AS marker,
  coalesce(verdict, 'unknown') AS verdict, model, messages, round((until - since) / 60, 1) AS minutes,
  CASE WHEN fallback THEN 'yes' ELSE 'no' END AS fallback, several(moment) AS "weekday and hour",
  parted(did) AS action, parted(slots) AS slot, parted(found) AS entity, parted(policies) AS policy, channel, source, sender,
  several(review) AS review, several(unsure) AS "unsure of", several(confused) AS confused, several(sure) AS "model and confidence",
  fresh AS "not in the training data", CASE WHEN undone THEN 'yes' ELSE 'no' END AS undone
FROM (SELECT session, first(text ORDER BY position) FILTER (typed) AS text, string_agg(folded, ' ') FILTER (typed) AS words,
    array_to_string(list(text ORDER BY position) FILTER (typed AND getvariable('whole')), ' · ') AS texts,
    list(intent) FILTER (typed) AS intent, list(day) AS day, round(min(confidence) FILTER (typed), 3) AS "lowest confidence",
    count(*) FILTER (typed) AS messages, min(timestamp) AS since, max(timestamp) AS until, bool_or(fallback) AS fallback,
    list(moment) FILTER (typed) AS moment, string_agg(did, chr(31)) AS did, string_agg(slots, chr(31)) AS slots,
    string_agg(found, chr(31)) AS found, string_agg(policies, chr(31)) AS policies, min(channel) AS channel, min(source) AS source,
    min(sender) AS sender, list(review) FILTER (typed) AS review, list(unsure) FILTER (unsure IS NOT NULL) AS unsure,
    list(confused) FILTER (confused IS NOT NULL) AS confused, list(model || ' ' || twentieth) FILTER (typed AND twentieth IS NOT NULL) AS sure,
    max(fresh) AS fresh, bool_or(undone) AS undone FROM each GROUP BY session)
  JOIN (SELECT *, row_number() OVER (ORDER BY ended DESC, session) - 1 AS n FROM counted) USING (session)
-- What people said, asked of the store
--: labels of people
SELECT message AS key, status FROM annotations WHERE id IN (SELECT max(id) FROM annotations GROUP BY message)
--: verdicts of people
SELECT session, tag AS verdict FROM tags WHERE id IN (
  SELECT max(id) FROM tags WHERE tag IN ('success', 'fail') AND session IS NOT NULL GROUP BY session)
--: remarks
SELECT session, message, tag AS said, 'tags' AS place, id, author, created_at FROM tags
UNION ALL SELECT session, message, 'note', 'notes', id, author, created_at FROM notes
UNION ALL SELECT session, message, 'flag', 'flags', id, author, created_at FROM flags
UNION ALL SELECT NULL, message, 'case', 'cases', id, author, created_at FROM cases
ORDER BY created_at, id

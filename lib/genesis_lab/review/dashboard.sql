-- The questions of the dashboard, each under its name, for DuckDB. Times are seconds since 1970 in UTC; `day` and `hour` are of the zone.
--: said
CREATE TEMP TABLE said AS
SELECT key, session, timestamp, typed, intent, confidence, fallback, coalesce(model, 'unknown model') AS model, position, ranking,
  strftime(moment, '%Y-%m-%d') AS day, isodow(moment) - 1 AS weekday, hour(moment) AS hour
FROM (SELECT *, timezone($zone, to_timestamp(timestamp)) AS moment FROM messages WHERE timestamp >= $since AND timestamp < $until)
--: active
CREATE TEMP TABLE active AS SELECT session, arg_max(model, timestamp) AS model, bool_or(typed AND NOT fallback) AS understood
FROM said GROUP BY session HAVING bool_or(typed)
--: counted
CREATE TEMP TABLE counted AS SELECT active.*, verdict, coalesce(verdict = 'success', outcomes.{resolved}) AS resolved
FROM active JOIN outcomes USING (session) LEFT JOIN verdicts USING (session)
--: cards
SELECT count(*) AS messages, count(*) FILTER (fallback) AS fallback, count(DISTINCT intent) AS intents, avg(confidence) AS confidence,
  count(confidence) AS sure, count(DISTINCT session) AS conversations, count(DISTINCT model) AS models,
  count(*) FILTER ((fallback OR key IN (SELECT key FROM flagged)) AND key NOT IN (SELECT key FROM looked_at)) AS pending,
  count(*) FILTER (key IN (SELECT key FROM waiting)) AS waiting
FROM said WHERE typed
--: intents
SELECT intent, count(*) AS messages, count(confidence) AS n, avg(confidence) AS confidence,
  count(*) FILTER (confidence < $low) AS unsure, count(*) FILTER (fallback) AS fallback
FROM said WHERE typed AND intent IS NOT NULL GROUP BY intent ORDER BY messages DESC, intent
--: days
SELECT strftime(days.day, '%Y-%m-%d') AS day, count(*) FILTER (typed) AS messages, count(DISTINCT session) FILTER (typed) AS conversations,
  count(*) FILTER (typed AND fallback) AS fallback
FROM (SELECT unnest(range($since::DATE, $until::DATE + INTERVAL 1 DAY, INTERVAL 1 DAY)) AS day) AS days
LEFT JOIN said ON said.day = strftime(days.day, '%Y-%m-%d') GROUP BY days.day ORDER BY days.day
--: hours
SELECT weekday, hour, count(*) AS messages FROM said WHERE typed GROUP BY ALL ORDER BY weekday, hour
--: deploys
SELECT coalesce(model, 'unknown model') AS model, strftime(timezone($zone, to_timestamp(min(timestamp))), '%Y-%m-%d') AS day
FROM messages GROUP BY 1 ORDER BY min(timestamp)
--: funnel
SELECT count(*) AS started, count(*) FILTER (understood) AS understood, count(*) FILTER (understood AND resolved) AS resolved,
  count(*) FILTER (verdict = 'success') AS success, count(*) FILTER (verdict = 'fail') AS fail
FROM counted
--: histogram
SELECT model, sum(n)::BIGINT AS n, sum(total) / sum(n) AS mean, list({'from': bin / 20, 'messages': n} ORDER BY bin) AS bins
FROM (SELECT model, least(floor(confidence * 20), 19) AS bin, count(*) AS n, sum(confidence) AS total, min(timestamp) AS since
  FROM said WHERE typed AND confidence IS NOT NULL GROUP BY ALL)
GROUP BY model ORDER BY min(since)
--: confused
SELECT intent, second AS other, count(*) AS messages FROM (
  SELECT intent, confidence, json_extract_string(ranking, '$[1].name') AS second,
    TRY_CAST(json_extract_string(ranking, '$[1].confidence') AS DOUBLE) AS next
  FROM said WHERE typed)
WHERE confidence - next < $margin GROUP BY ALL ORDER BY messages DESC, intent, other
--: models
SELECT model, coalesce(conversations, 0) AS conversations, messages, confidence, sure, coalesce(understood, 0) AS understood,
  coalesce(resolved, 0) AS resolved, fallback, coalesce(success, 0) AS success, coalesce(judged, 0) AS judged
FROM (SELECT model, count(*) AS messages, count(*) FILTER (fallback) AS fallback, avg(confidence) AS confidence, count(confidence) AS sure,
    min(timestamp) AS since
  FROM said WHERE typed GROUP BY model)
LEFT JOIN (SELECT model, count(*) AS conversations, count(*) FILTER (resolved) AS resolved, count(*) FILTER (understood) AS understood,
    count(*) FILTER (verdict = 'success') AS success, count(verdict) AS judged
  FROM counted GROUP BY model) USING (model)
ORDER BY since

-- cache_fetch: what a query's value becomes, in which transaction it is stored, and what is refused. Waiting for one
-- another takes several sessions, and is tested with a driver.
SET search_path = enough, public;
SELECT cache_clear();
CREATE TABLE runs (query text);
CREATE FUNCTION ran(query text) RETURNS bigint LANGUAGE sql AS $$ SELECT cache_incr('ran ' || query) $$;
CREATE VIEW stored AS SELECT k AS key, cache_get(k) AS value FROM unnest(ARRAY['a', 'b']) AS k;

-- A value of any type, as to_jsonb() has it; the second call runs nothing.
SELECT cache_fetch('int', '1 minute', 'SELECT ran(''int'')'), cache_fetch('int', '1 minute', 'SELECT ran(''int'')'), cache_get('int');
SELECT pg_typeof(cache_fetch('text', NULL, 'SELECT ''"quoted"''')), cache_get('text');
SELECT cache_fetch('json', NULL, 'SELECT ''{"b": 1, "a": 2.50}''::json');
SELECT cache_fetch('jsonb', NULL, 'SELECT jsonb_agg(i ORDER BY i) FROM generate_series(1, 3) AS i');
SELECT cache_fetch('row', NULL, 'SELECT t FROM (SELECT 1 AS id, ''x'' AS name) AS t');
SELECT cache_fetch('array', NULL, 'SELECT ARRAY[1, NULL]');
SELECT cache_fetch('instant', NULL, 'SELECT timestamp ''2020-01-02 03:04:05''');
SELECT cache_fetch('long', NULL, 'SELECT string_agg(md5(i::text), '''' ORDER BY i) FROM generate_series(1, 1000) AS i') = to_jsonb(string_agg(md5(i::text), '' ORDER BY i)) AS whole FROM generate_series(1, 1000) AS i;
-- Nothing, too, is a value, and is found the next time.
SELECT cache_fetch('none', NULL, 'SELECT 1 WHERE ran(''none'') = 0'), cache_fetch('none', NULL, 'SELECT 1 WHERE ran(''none'') = 0'), cache_get('ran none');
SELECT cache_fetch('null', NULL, 'SELECT NULL::int'), cache_get('null') = 'null' AS cached;
-- The arguments are $1, which may be NULL or not be used.
SELECT cache_fetch('args', NULL, 'SELECT $1->>''name''', '{"name": "ada"}'), cache_fetch('no args', NULL, 'SELECT $1 IS NULL');
-- Expiry, tags, and values that are kept past their time.
SELECT cache_expires_at('int') BETWEEN now() + '50 seconds' AND now() + '70 seconds' AS in_a_minute, cache_expires_at('text');
SELECT cache_fetch('kept', '1 minute', 'SELECT 1', stale_for => '1 hour', tags => ARRAY['t']), cache_expires_at('kept') < now() + '70 seconds' AS in_a_minute;
SELECT cache_invalidate('t');
SELECT cache_get('kept'), cache_fetch('kept', '1 minute', 'SELECT 2', stale_for => '1 hour');
SELECT cache_fetch('brief', '1 microsecond', 'SELECT 1', stale_for => '1 hour');
SELECT cache_get('brief'), cache_exists('brief'), cache_expires_at('brief');
SELECT cache_fetch('brief', '1 microsecond', 'SELECT 2', stale_for => '1 hour') AS nobody_else_computes;
SELECT cache_set('brief', '3'), cache_fetch('brief', '1 microsecond', 'SELECT 4', stale_for => '1 hour');

-- Stored at once where the transaction hasn't written, and then also if it rolls back.
BEGIN;
SELECT cache_fetch('a', NULL, 'SELECT 1');
ROLLBACK;
SELECT * FROM stored;
BEGIN READ ONLY;
SELECT cache_fetch('b', NULL, 'SELECT 1');
COMMIT;
SELECT * FROM stored;
-- Where it has written, the value is its own until it commits: before the call, or by the query, or in the cache.
SELECT cache_mdelete(ARRAY['a', 'b']);
BEGIN;
INSERT INTO runs VALUES ('uncommitted');
SELECT cache_fetch('a', NULL, 'SELECT query FROM runs'), cache_fetch('b', NULL, 'INSERT INTO runs VALUES (''b'') RETURNING query', stale_for => '1 hour');
SELECT * FROM stored;
SAVEPOINT s;
SELECT cache_fetch('c', NULL, 'SELECT 1'), cache_get('c');
ROLLBACK TO s;
SELECT cache_get('c');
ROLLBACK;
SELECT * FROM stored;
BEGIN;
SELECT cache_set('a', '1'), cache_delete('b');
SELECT cache_fetch('a', NULL, 'SELECT 2'), cache_fetch('b', NULL, 'SELECT 2');
COMMIT;
SELECT * FROM stored;
SELECT cache_fetch('counted', '1 minute', 'INSERT INTO runs VALUES (''counted'') RETURNING query', stale_for => '1 hour'), cache_fetch('counted', '1 minute', 'INSERT INTO runs VALUES (''counted'') RETURNING query');
SELECT *, cache_get('counted') FROM runs;
-- An error leaves nothing behind, not even a turn.
DO $$ BEGIN PERFORM cache_fetch('failed', NULL, 'SELECT 1 / 0'); EXCEPTION WHEN division_by_zero THEN RAISE NOTICE 'caught'; END $$;
SELECT cache_get('failed'), cache_fetch('failed', NULL, 'SELECT 1');
SELECT count(*) AS turns FROM pg_locks WHERE locktype = 'advisory';

-- Other keys may be fetched within, and the own one not.
SELECT cache_fetch('outer', NULL, 'SELECT cache_fetch(''inner'', NULL, ''SELECT 7'')'), cache_get('inner');
SELECT cache_fetch('self', NULL, 'SELECT cache_fetch(''self'', NULL, ''SELECT 7'')');
SELECT cache_fetch('self', NULL, 'SELECT cache_fetch(''other'', NULL, ''SELECT cache_fetch(''''self'''', NULL, ''''SELECT 7'''')'')');
SELECT cache_fetch('self', NULL, 'SELECT 8');

-- As the caller.
CREATE ROLE enough_fetcher;
GRANT USAGE ON SCHEMA enough TO enough_fetcher;
SET ROLE enough_fetcher;
SELECT cache_fetch('denied', NULL, 'SELECT count(*) FROM runs');
SELECT cache_fetch('role', NULL, 'SELECT current_user');
RESET ROLE;
DROP OWNED BY enough_fetcher;
DROP ROLE enough_fetcher;

-- What isn't a query for one value.
SELECT cache_fetch('bad', NULL, 'SELECT 1, 2');
SELECT cache_fetch('bad', NULL, 'SELECT');
SELECT cache_fetch('bad', NULL, 'SELECT generate_series(1, 2)');
SELECT cache_fetch('bad', NULL, 'CREATE TABLE made_by_a_query ()');
SELECT cache_fetch('bad', NULL, 'COMMIT');
SELECT cache_fetch('bad', NULL, '');
SELECT cache_fetch('bad', NULL, 'SELECT $2');
SELECT length(cache_fetch('bad', NULL, 'SELECT repeat(''x'', 1024 * 1024)')::text), cache_exists('bad');
SELECT cache_fetch('bad', NULL, 'SELECT 1', stale_for => '-1 second');
SELECT cache_set_bytes('bytes', 'x'), cache_fetch('bytes', NULL, 'SELECT 1');
SELECT cache_fetch('bytes', NULL, 'SELECT 1') FROM (SELECT cache_set_bytes('bytes', 'x')) AS set;
SELECT to_regclass('made_by_a_query'), cache_get('bad');

DROP VIEW stored;
DROP TABLE runs;
DROP FUNCTION ran(text);

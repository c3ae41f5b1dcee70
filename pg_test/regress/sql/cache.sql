-- The cache in one session: what each function returns, transactions and savepoints, limits and bad input.
SET search_path = enough, public;

CREATE TEMP TABLE at_start AS SELECT * FROM cache_stats();

-- What a statement fails with.
CREATE FUNCTION said(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    message text;
    hint text;
BEGIN
    EXECUTE statement;
    RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
    RETURN format('%s %s / %s', SQLSTATE, message, hint);
END
$$;

-- Values come back as they are.
SELECT cache_get('k') IS NULL AS miss;
SELECT cache_set('k', '{"a": [1, 2.50, "x", null, true], "b": {}}');
SELECT cache_get('k');
SELECT cache_set('null', 'null'), cache_get('null'), cache_get('null') IS NULL AS is_null;
SELECT cache_set('', '"the empty key"'), cache_set('ключ 🔑', '"🔓"'), cache_get(''), cache_get('ключ 🔑'), cache_get('ключ');
SELECT count(*) AS kept FROM generate_series(1, 300) len
 WHERE cache_set('len', to_jsonb(repeat('x', len))) AND cache_get('len') = to_jsonb(repeat('x', len));
-- A value from a table, compressed and out of line.
CREATE TABLE documents (document jsonb);
INSERT INTO documents SELECT jsonb_agg(md5(i::text)) FROM generate_series(1, 20000) i;
INSERT INTO documents SELECT to_jsonb(repeat('compresses well ', 50000));
SELECT bool_and(cache_set('document', document) AND cache_get('document') = document) AS same,
       min(octet_length(document::text)) > 700000 AS large
  FROM documents;
SELECT cache_get('document') = (SELECT document FROM documents WHERE jsonb_typeof(document) = 'string') AS same_after_commit;

-- Deleting.
SELECT cache_delete('k'), cache_delete('k'), cache_get('k');
SELECT cache_exists('null'), cache_exists('k');

-- Modes.
SELECT cache_set('m', '1', mode => 'if_present'), cache_get('m');
SELECT cache_set('m', '2', mode => 'if_absent'), cache_get('m');
SELECT cache_set('m', '3', mode => 'if_absent'), cache_get('m');
SELECT cache_set('m', '4', mode => 'if_present'), cache_get('m');
SELECT cache_set('m', '5', mode => 'always'), cache_get('m');
-- What an uncommitted delete has removed is absent for its own transaction, and the order of the two stays.
BEGIN;
SELECT cache_delete('m'), cache_set('m', '6', mode => 'if_present'), cache_set('m', '7', mode => 'if_absent'),
       cache_set('m', '8', mode => 'if_absent'), cache_get('m');
ROLLBACK;
SELECT cache_get('m');
-- if_absent decides at once: a rollback does not undo it.
BEGIN;
SELECT cache_set('at once', '1', mode => 'if_absent');
ROLLBACK;
SELECT cache_get('at once');

-- Expiry.
SELECT cache_expires_at('nothing') IS NULL AS none, cache_expires_at('m');
SELECT cache_set('t', '1', ttl => '1 hour'),
       cache_expires_at('t') BETWEEN clock_timestamp() + '59 minutes' AND clock_timestamp() + '61 minutes' AS in_an_hour;
SELECT cache_expires_at('t') BETWEEN clock_timestamp() + '59 minutes' AND clock_timestamp() + '61 minutes' AS in_an_hour;
SELECT cache_set('t', '2'), cache_expires_at('t');
SELECT cache_set('t', '3', ttl => '1 month'), cache_expires_at('t') - clock_timestamp() <= '30 days' AS thirty_days;
SELECT cache_set('t', '4', keep_ttl => true), cache_expires_at('t') - clock_timestamp() > '29 days' AS kept;
SELECT cache_set('t', '5', ttl => '1 day', keep_ttl => true), cache_expires_at('t') - clock_timestamp() > '29 days' AS kept;
SELECT cache_set('new', '5', ttl => '1 day', keep_ttl => true), cache_expires_at('new') - clock_timestamp() <= '1 day' AS its_own;
SELECT cache_set('brief', '1', ttl => '1 microsecond');
SELECT pg_sleep(0.001);
SELECT cache_get('brief'), cache_exists('brief'), cache_expires_at('brief'), cache_delete('brief'),
       cache_touch('brief', '1 hour'), cache_take('brief'), cache_set('brief', '2', mode => 'if_present'),
       cache_set('brief', '3', mode => 'if_absent');
BEGIN;
SELECT cache_set('brief', '4', ttl => '1 microsecond');
SELECT pg_sleep(0.001);
SELECT cache_get('brief'), cache_exists('brief'), cache_set('brief', '5', mode => 'if_present');
COMMIT;
SELECT cache_get('brief');
SELECT cache_touch('t', NULL), cache_expires_at('t');
SELECT cache_expires_at('t');
SELECT cache_touch('t', '1 hour'), cache_expires_at('t') - clock_timestamp() <= '1 hour' AS an_hour;
SELECT cache_expires_at('t') - clock_timestamp() <= '1 hour' AS an_hour;
SELECT cache_touch('t', '1 microsecond'), pg_sleep(0.001);
SELECT cache_get('t'), cache_touch('t', '1 hour');

-- Transactions.
SELECT cache_mset('{"a": 1, "b": 2, "c": 3}', ttl => '1 day');
BEGIN;
SELECT cache_set('a', '"new"'), cache_delete('b'), cache_touch('c', NULL), cache_set('d', '"new"');
SELECT cache_get('a'), cache_get('b'), cache_expires_at('c'), cache_get('d');
ROLLBACK;
SELECT cache_get('a'), cache_get('b'), cache_expires_at('c') < 'infinity' AS expires, cache_get('d');
BEGIN;
SELECT cache_set('a', '"new"'), cache_delete('b'), cache_touch('c', NULL), cache_set('d', '"new"');
COMMIT;
SELECT cache_get('a'), cache_get('b'), cache_expires_at('c'), cache_get('d');
-- An error rolls back, too.
SELECT cache_set('a', '"lost"'), 1 / 0;
SELECT cache_get('a');

-- Savepoints.
BEGIN;
SELECT cache_set('a', '1');
SAVEPOINT s;
SELECT cache_set('a', '2'), cache_delete('d'), cache_set('e', '2');
SAVEPOINT t;
SELECT cache_set('a', '3'), cache_set('d', '3'), cache_touch('e', '1 day');
SELECT cache_get('a'), cache_get('d'), cache_get('e'), cache_expires_at('e') < 'infinity' AS expires;
ROLLBACK TO t;
SELECT cache_get('a'), cache_get('d'), cache_get('e'), cache_expires_at('e') < 'infinity' AS expires;
SELECT cache_set('e', '4');
RELEASE t;
RELEASE s;
SELECT cache_get('a'), cache_get('d'), cache_get('e');
SAVEPOINT s;
SELECT cache_set('a', '5'), cache_take('e');
ROLLBACK TO s;
COMMIT;
SELECT cache_get('a'), cache_get('d'), cache_get('e');
-- Blocks with an exception handler, more of them than a short log holds.
DO $$
BEGIN
    FOR i IN 1 .. 40 LOOP
        BEGIN
            PERFORM cache_set('loop ' || i % 20, to_jsonb(i));
            IF i > 30 THEN
                RAISE EXCEPTION 'undone';
            END IF;
        EXCEPTION WHEN raise_exception THEN
            NULL;
        END;
    END LOOP;
    ASSERT cache_get('loop 10') = '30' AND cache_get('loop 11') = '11';
END
$$;
SELECT jsonb_agg(cache_get('loop ' || i) ORDER BY i) FROM generate_series(0, 19) i;
BEGIN;
SELECT cache_set('p', '1');
PREPARE TRANSACTION 'cache';
SELECT cache_get('p');
COMMIT PREPARED 'cache';
SELECT cache_get('p');
BEGIN;
SELECT cache_get('a');
PREPARE TRANSACTION 'cache';
ROLLBACK PREPARED 'cache';

-- Clearing.
BEGIN;
SELECT cache_set('before', '1');
SELECT cache_clear();
SELECT cache_get('a'), cache_get('before'), cache_touch('a', NULL), cache_set('after', '1');
ROLLBACK;
SELECT cache_get('a'), cache_get('before'), cache_get('after');
BEGIN;
SELECT cache_set('before', '1'), cache_set('between', '1');
SELECT cache_clear();
SAVEPOINT s;
SELECT cache_set('between', '2'), cache_set('after', '1');
SELECT cache_clear();
SELECT cache_get('between'), cache_get('after');
ROLLBACK TO s;
SELECT cache_set('between', '3');
COMMIT;
SELECT cache_get('a'), cache_get('before'), cache_get('between'), cache_get('after');
SELECT cache_delete('between');
SELECT count(*) > 0 AS cleaned FROM maintain();
SELECT after.entries - at_start.entries AS entries, after.bytes_used - at_start.bytes_used AS bytes_used
  FROM at_start, cache_stats() after;

-- Several keys.
SELECT cache_mset('{"x": 1, "y": [1, {"z": "deep"}], "z": null, "t": true, "n": -1.25e-10, "s": "", "o": {}}');
SELECT * FROM cache_mget('{x,y,nothing,z,t,n,s,o,x}');
SELECT count(*) FROM cache_mget('{}');
SELECT cache_mset('{}'), cache_mdelete('{}'), cache_mdelete('{x,nothing,y,x}'), cache_mget('{x}');
-- Every member of a large object is found where it is.
WITH object AS (
    SELECT jsonb_object_agg('key ' || i, CASE i % 6
               WHEN 0 THEN to_jsonb(i) WHEN 1 THEN to_jsonb(repeat('y', i)) WHEN 2 THEN to_jsonb(i % 4 = 0)
               WHEN 3 THEN 'null' WHEN 4 THEN jsonb_build_array(i, 'a', i / 7.0)
               ELSE jsonb_build_object('i', i, 'nested', jsonb_build_object('deep', md5(i::text))) END) AS entries
      FROM generate_series(1, 500) i
), stored AS MATERIALIZED (SELECT cache_mset(entries), entries FROM object)
SELECT cache_mset, count(*) FILTER (WHERE got.value = stored.entries -> got.key AND got.value::text = (stored.entries -> got.key)::text) AS same
  FROM stored, cache_mget((SELECT array_agg('key ' || i) FROM generate_series(1, 500) i)) got
 GROUP BY cache_mset;
SELECT cache_mdelete((SELECT array_agg('key ' || i) FROM generate_series(1, 600) i));

-- Taking.
SELECT cache_set('token', '"once"');
SELECT cache_take('token'), cache_take('token'), cache_get('token');
BEGIN;
SELECT cache_set('token', '"own"'), cache_take('token'), cache_take('token');
COMMIT;
SELECT cache_get('token');

-- Counting.
SELECT cache_incr('n1'), cache_incr('n1'), cache_incr('n1', 40), cache_incr('n1', -2), cache_get('n1') = '40' AS is_jsonb;
SELECT n, cache_set('n2', to_jsonb(n)) AND cache_incr('n2', 0) = n AS read, cache_get('n2') = to_jsonb(n) AND cache_get('n2')::text = n::text AS written
  FROM unnest('{0, 1, -1, 9999, 10000, 10001, -99990000, 100000000, 123456789012345678, 9223372036854775807, -9223372036854775808}'::bigint[]) n;
SELECT cache_delete('n2');
SELECT n, cache_incr('n2', n) = n AS made, cache_get('n2') = to_jsonb(n) AS same, jsonb_build_array(cache_get('n2')) = jsonb_build_array(n) AS nested, cache_delete('n2')
  FROM unnest('{0, 1, -1, 9999, 10000, -99990000, 100000000, 123456789012345678, 9223372036854775807, -9223372036854775808}'::bigint[]) n;
SELECT cache_incr('n3', ttl => '1 hour'), cache_incr('n3', ttl => '1 day'), cache_expires_at('n3') - clock_timestamp() <= '1 hour' AS of_the_first;
SELECT cache_set('n4', '12.0'), cache_incr('n4') AS own;
SELECT cache_set('n4', '1e3');
SELECT cache_incr('n4') AS committed, cache_get('n4');
BEGIN;
SELECT cache_incr('n1'), cache_set('n3', '100'), cache_incr('n3'), cache_delete('n4'), cache_incr('n4');
ROLLBACK;
SELECT cache_get('n1'), cache_get('n3'), cache_get('n4');

-- Tags.
SELECT cache_set('post 1', '1', tags => '{posts, "author 1"}'), cache_set('post 2', '2', tags => '{posts, "author 2"}'),
       cache_set('user 1', '1', tags => '{"author 1"}'), cache_set('other', '1', tags => '{}'),
       cache_mset('{"feed 1": 1, "feed 2": 2}', tags => '{feeds}'), cache_set_bytes('image', '\x01', tags => '{images}');
SELECT cache_invalidate('author 1'), cache_invalidate('nobody');
SELECT cache_get('post 1'), cache_get('post 2'), cache_get('user 1'), cache_get('other'), cache_exists('image');
SELECT cache_set('post 1', '"again"', tags => '{posts, "author 1"}'), cache_invalidate('feeds'), cache_invalidate('images');
SELECT cache_get('post 1'), cache_get('feed 1'), cache_get('feed 2'), cache_exists('image');
-- In a transaction, with savepoints.
BEGIN;
SELECT cache_set('post 3', '3', tags => '{posts}');
SELECT cache_invalidate('posts');
SELECT cache_get('post 1'), cache_get('post 3'), cache_exists('post 2'), cache_take('post 2'), cache_delete('post 1'), cache_get('other');
SELECT cache_set('post 4', '4', tags => '{posts}'), cache_set('post 3', '"later"', tags => '{posts}'), cache_set('post 2', '"if absent"', mode => 'if_absent');
SAVEPOINT s;
SELECT cache_invalidate('posts');
SELECT cache_get('post 3'), cache_get('post 4'), cache_get('post 2');
ROLLBACK TO s;
SELECT cache_get('post 3'), cache_get('post 4'), cache_get('post 2');
ROLLBACK;
SELECT cache_get('post 1'), cache_get('post 2'), cache_get('post 3'), cache_get('post 4');
BEGIN;
SELECT cache_set('post 2', '"hidden"', tags => '{posts}'), cache_set('post 3', '3', tags => '{posts}');
SELECT cache_invalidate('posts');
SELECT cache_set('post 4', '4', tags => '{posts}');
COMMIT;
SELECT cache_get('post 1'), cache_get('post 2'), cache_get('post 3'), cache_get('post 4');
-- What changes a value in its place leaves it its tags.
SELECT cache_set('tagged', '1', tags => '{t}');
SELECT cache_incr('tagged'), cache_touch('tagged', '1 hour');
SELECT cache_compare_and_set('tagged', '2', '3');
SELECT cache_get('tagged'), cache_invalidate('t');
SELECT cache_get('tagged'), cache_set('tagged', '1', tags => '{t}'), cache_incr('tagged'), cache_touch('tagged', NULL), cache_compare_and_set('tagged', '2', '3');
SELECT cache_get('tagged'), cache_invalidate('t'), cache_get('tagged');
SELECT cache_get('tagged');
SELECT cache_set('eight', '1', tags => '{1,2,3,4,5,6,7,8}'), cache_invalidate('7'), cache_get('eight');
SELECT cache_mdelete('{post 4, eight, other}');

-- Tables that invalidate tags.
CREATE SCHEMA shop;
CREATE TABLE shop."Orders" (id int PRIMARY KEY, amount int);
SELECT cache_tag_table('shop."Orders"'), cache_tag_table('shop."Orders"', $$it's sales$$), cache_tag_table('shop."Orders"');
SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'shop."Orders"'::regclass AND NOT tgisinternal ORDER BY 1;
CREATE FUNCTION fill() RETURNS void LANGUAGE sql AS $$
    SELECT enough.cache_set('orders', '1', tags => '{Orders}'), enough.cache_set('sales', '1', tags => ARRAY['it''s sales']), enough.cache_set('rest', '1', tags => '{rest}');
$$;
CREATE FUNCTION filled() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(key, ' ') FROM enough.cache_mget('{orders, sales, rest}') WHERE value IS NOT NULL;
$$;
SELECT fill();
SELECT filled();
INSERT INTO shop."Orders" VALUES (1, 10), (2, 20);
SELECT filled(), fill();
UPDATE shop."Orders" SET amount = 11 WHERE id = 1;
SELECT filled(), fill();
DELETE FROM shop."Orders" WHERE id = 1;
SELECT filled(), fill();
TRUNCATE shop."Orders";
SELECT filled(), fill();
BEGIN;
INSERT INTO shop."Orders" VALUES (3, 30);
SELECT filled();
ROLLBACK;
SELECT filled();
SELECT cache_untag_table('shop."Orders"'), cache_untag_table('shop."Orders"');
INSERT INTO shop."Orders" VALUES (4, 40);
SELECT filled();
CREATE VIEW shop.seen AS SELECT 1 AS one;
SELECT left(said($$SELECT cache_tag_table('pg_class')$$), 5), left(said($$SELECT cache_tag_table('shop.seen')$$), 5);
SET client_min_messages = warning;
DROP SCHEMA shop CASCADE;
RESET client_min_messages;
SELECT cache_mdelete('{orders, sales, rest}');

-- Comparing.
SELECT cache_compare_and_set('cas', '1', '2'), cache_exists('cas');
SELECT cache_set('cas', '{"a": 1.0, "b": [true]}');
SELECT cache_compare_and_set('cas', '{"a": 1.5, "b": [true]}', '2'), cache_compare_and_set('cas', '{"a": 1.0}', '2'),
       cache_compare_and_set('cas', '[]', '2'), cache_get('cas');
SELECT cache_compare_and_set('cas', '{"b": [true], "a": 1.00}', '2', '1 hour'), cache_get('cas'), cache_expires_at('cas') < 'infinity' AS expires;
SELECT cache_compare_and_set('cas', '2', '3'), cache_compare_and_set('cas', '2', '4'), cache_get('cas'), cache_expires_at('cas');
BEGIN;
SELECT cache_compare_and_set('cas', '3', '"at once"');
SELECT cache_set('cas', '"own"'), cache_compare_and_set('cas', '"at once"', '0'), cache_compare_and_set('cas', '"own"', '"mine"'), cache_get('cas');
SELECT cache_delete('cas'), cache_compare_and_set('cas', '"mine"', '0'), cache_compare_and_set('cas', '"at once"', '0');
ROLLBACK;
SELECT cache_get('cas');
SELECT cache_set_bytes('cas', '\x00'), cache_compare_and_set('cas', '0', '1');
SELECT cache_compare_and_set('cas', '0', '1');

-- A hit may move the expiry.
SELECT cache_set('session', '"s"', ttl => '1 hour');
SELECT cache_get('session'), cache_expires_at('session') - clock_timestamp() <= '1 hour' AS stays;
SELECT cache_get('session', slide_ttl => '1 day'), cache_expires_at('session') - clock_timestamp() > '23 hours' AS moved;
SELECT cache_get('nothing', slide_ttl => '1 day'), cache_exists('nothing');
SELECT cache_set('session', '"s"'), cache_get('session', slide_ttl => '1 day'), cache_expires_at('session') - clock_timestamp() <= '1 day' AS own_moved;
SELECT cache_touch('session', NULL);
SELECT cache_get('session', slide_ttl => '1 hour'), cache_expires_at('session') - clock_timestamp() <= '1 hour' AS shortened;

-- Bytes.
SELECT cache_set_bytes('bytes', '\x00ff10', ttl => '1 hour'), cache_set_bytes('empty', '');
SELECT cache_get_bytes('bytes'), cache_get_bytes('empty'), cache_get_bytes('nothing'),
       cache_expires_at('bytes') < 'infinity' AS expires;
SELECT cache_set('bytes', '"json now"'), cache_get('bytes');

-- In a read-only transaction.
BEGIN READ ONLY;
SELECT cache_set('read only', '1'), cache_delete('bytes'), cache_get('empty2'), cache_touch('s', '1 hour');
COMMIT;
SELECT cache_get('read only'), cache_exists('bytes');

-- The counters.
SELECT count(*) > 0 AS cleaned FROM maintain();
CREATE TEMP TABLE before AS SELECT * FROM cache_stats();
SELECT cache_set('counted', '1'), cache_set('counted too', '2');
SELECT cache_get('counted'), cache_get('counted'), cache_get('uncounted');
SELECT cache_delete('counted'), cache_delete('uncounted');
SELECT cache_set('brief', '1', ttl => '1 microsecond');
SELECT pg_sleep(0.1);
-- Looking at them changes nothing: what has expired is there until somebody needs its memory, or maintain() comes by.
SELECT entries - (SELECT entries FROM before) AS entries, expirations - (SELECT expirations FROM before) AS expirations FROM cache_stats();
SELECT entries - (SELECT entries FROM before) AS entries, expirations - (SELECT expirations FROM before) AS expirations FROM cache_stats();
SELECT count(*) > 0 AS cleaned FROM maintain();
SELECT after.entries - before.entries AS entries, after.hits - before.hits AS hits, after.misses - before.misses AS misses,
       after.sets - before.sets AS sets, after.deletes - before.deletes AS deletes,
       after.evictions - before.evictions AS evictions, after.expirations - before.expirations AS expirations
  FROM before, cache_stats() after;

-- A full cache takes every set, within its memory.
DO $$
BEGIN
    FOR i IN 1 .. 20000 LOOP
        ASSERT cache_set('full ' || i, to_jsonb(repeat('v', 2000)));
        IF i % 10 = 0 THEN
            COMMIT;
        END IF;
    END LOOP;
END
$$;
SELECT count(*) > 5000 AS many, bool_or(value <> to_jsonb(repeat('v', 2000))) AS wrong, max(number) = 20000 AS newest
  FROM (SELECT number, cache_get('full ' || number) AS value FROM generate_series(1, 20000) number) entries
 WHERE value IS NOT NULL;
SELECT evictions > 10000 AS evicted, bytes_used <= bytes_max AS within, bytes_max < 16 * 1024 * 1024 AS capped FROM cache_stats();
-- Even what one transaction writes may be more than the memory holds.
SELECT count(*) FILTER (WHERE cache_set('huge ' || i, (SELECT document FROM documents LIMIT 1))) AS set FROM generate_series(1, 40) i;
SELECT count(*) BETWEEN 8 AND 20 AS some, bool_or(value <> (SELECT document FROM documents LIMIT 1)) AS wrong, max(number) = 40 AS newest
  FROM (SELECT number, cache_get('huge ' || number) AS value FROM generate_series(1, 40) number) entries
 WHERE value IS NOT NULL;
SELECT cache_clear();

-- Another database has entries of its own.
SELECT cache_set('k', '"of the first"');
SELECT current_database() AS first \gset
CREATE DATABASE regress_cache_other;
\c regress_cache_other
CREATE EXTENSION pg_enough;
SELECT enough.cache_get('k'), enough.cache_delete('k');
SELECT enough.cache_set('k', '"of the other"');
SELECT enough.cache_clear();
\c :first
SET search_path = enough, public;
DROP DATABASE regress_cache_other;
SELECT cache_get('k');

-- NULL means the default where there is one.
SELECT cache_set('nil', '1', NULL, NULL, NULL, NULL), cache_incr('nil', NULL, NULL), cache_fetch('nulls', NULL, 'SELECT 1', NULL, NULL, NULL, NULL),
       cache_expires_at('nil'), cache_mset('{"nil2": 1}', NULL, NULL), cache_set_bytes('nil bytes', 'b', NULL, NULL);
-- One that holds bytes doesn't keep the others from their caller.
SELECT * FROM cache_mget('{nil,nil bytes,nothing,nil2}');
BEGIN;
SELECT cache_set_bytes('nil2', 'b');
SELECT * FROM cache_mget('{nil,nil bytes,nothing,nil2}');
ROLLBACK;
SELECT cache_mdelete('{nil,nulls,nil2,nil bytes}');

-- Bad input: what it says, and that it changes nothing.
SELECT cache_set_bytes('b', 'b'), cache_set('half', '0.5'), cache_set('largest number', '9223372036854775807'), cache_set('larger', '1e20');
CREATE TEMP TABLE before_bad AS SELECT entries, sets, deletes, cache_get('k') AS k FROM cache_stats();
\pset format unaligned
\pset tuples_only on
SELECT statement || E'\n    ' || replace(said(statement), repeat('k', 513), '…') FROM (VALUES
    ('SELECT cache_get(NULL)'),
    ('SELECT cache_get(repeat(''k'', 513))'),
    ('SELECT cache_get(''b'')'),
    ('SELECT cache_get(''k'', ''0'')'),
    ('SELECT cache_get(''k'', ''-1 day'')'),
    ('SELECT cache_compare_and_set(NULL, ''1'', ''1'')'),
    ('SELECT cache_compare_and_set(''k'', NULL, ''1'')'),
    ('SELECT cache_compare_and_set(''k'', ''1'', NULL)'),
    ('SELECT cache_compare_and_set(repeat(''k'', 513), ''1'', ''1'')'),
    ('SELECT cache_compare_and_set(''k'', ''"of the first"'', to_jsonb(repeat(''v'', 1024 * 1024)))'),
    ('SELECT cache_compare_and_set(''k'', ''"of the first"'', ''1'', ''-1 s'')'),
    ('SELECT cache_incr(NULL)'),
    ('SELECT cache_incr(''k'')'),
    ('SELECT cache_incr(''b'')'),
    ('SELECT cache_incr(''half'')'),
    ('SELECT cache_incr(''largest number'')'),
    ('SELECT cache_incr(''larger'', -1)'),
    ('SELECT cache_incr(''largest number'', ttl => ''0'')'),
    ('SELECT cache_incr(repeat(''k'', 513))'),
    ('SELECT cache_take(NULL)'),
    ('SELECT cache_exists(NULL)'),
    ('SELECT cache_expires_at(NULL)'),
    ('SELECT cache_expires_at(repeat(''ключ'', 65))'),
    ('SELECT cache_delete(NULL)'),
    ('SELECT cache_delete(repeat(''k'', 513))'),
    ('SELECT cache_set(NULL, ''1'')'),
    ('SELECT cache_set(''k'', NULL)'),
    ('SELECT cache_set(repeat(''k'', 513), ''1'')'),
    ('SELECT cache_set(''k'', to_jsonb(repeat(''v'', 1024 * 1024)))'),
    ('SELECT cache_set(''k'', ''1'', ttl => ''0'')'),
    ('SELECT cache_set(''k'', ''1'', ttl => ''-1 second'')'),
    ('SELECT cache_set(''k'', ''1'', ttl => ''178000000 years'')'),
    ('SELECT cache_set(''k'', ''1'', ttl => ''292270 years'')'),
    ('SELECT cache_set(''k'', ''1'', mode => ''sometimes'')'),
    ('SELECT cache_set(''b'', ''1'', mode => ''if_absent'', ttl => ''-1 hour'')'),
    ('SELECT cache_set(''k'', ''1'', tags => ARRAY[''a'', NULL])'),
    ('SELECT cache_set(''k'', ''1'', tags => ''{1,2,3,4,5,6,7,8,9}'')'),
    ('SELECT cache_set(''k'', ''1'', tags => ARRAY[repeat(''t'', 129)])'),
    ('SELECT cache_set_bytes(''k'', ''1'', tags => ARRAY[repeat(''t'', 129)])'),
    ('SELECT cache_mset(''{"k": 1}'', tags => ARRAY[repeat(''t'', 129)])'),
    ('SELECT cache_tag_table(NULL)'),
    ('SELECT cache_tag_table(''pg_class'', ''row:{nope}'')'),
    ('SELECT cache_tag_table(''pg_class'', ''row:{relname'')'),
    ('SELECT cache_tag_table(''pg_class'', repeat(''t'', 129))'),
    ('SELECT cache_tag_table(4294967295::oid::regclass)'),
    ('SELECT cache_untag_table(NULL)'),
    ('SELECT cache_invalidate(NULL)'),
    ('SELECT cache_invalidate(repeat(''t'', 129))'),
    ('SELECT cache_touch(NULL, ''1 hour'')'),
    ('SELECT cache_touch(''k'', ''0'')'),
    ('SELECT cache_touch(''k'', ''-1 month'')'),
    ('SELECT cache_set_bytes(''k'', NULL)'),
    ('SELECT cache_set_bytes(NULL, ''1'')'),
    ('SELECT cache_set_bytes(''k'', convert_to(repeat(''v'', 1024 * 1024 + 1), ''UTF8''))'),
    ('SELECT cache_set_bytes(''k'', ''1'', ''0'')'),
    ('SELECT cache_get_bytes(NULL)'),
    ('SELECT cache_get_bytes(''k'')'),
    ('SELECT cache_mget(NULL)'),
    ('SELECT cache_mget(ARRAY[''k'', ''k'', NULL])'),
    ('SELECT cache_mget(ARRAY[''k'', NULL])'),
    ('SELECT cache_mget(ARRAY[''k'', repeat(''k'', 513)])'),
    ('SELECT cache_mget(ARRAY[''k'', ''b''])'),
    ('SELECT cache_mdelete(NULL)'),
    ('SELECT cache_mdelete(ARRAY[''k'', NULL])'),
    ('SELECT cache_mdelete(ARRAY[''k'', repeat(''k'', 513)])'),
    ('SELECT cache_mset(NULL)'),
    ('SELECT cache_mset(''[1]'')'),
    ('SELECT cache_mset(''null'')'),
    ('SELECT cache_mset(jsonb_build_object(''k'', 1, repeat(''k'', 513), 1))'),
    ('SELECT cache_mset(jsonb_build_object(''k'', 1, ''z'', repeat(''v'', 1024 * 1024)))'),
    ('SELECT cache_mset(''{"k": 1}'', ''0'')')
) AS bad (statement);
\pset format aligned
\pset tuples_only off
SELECT after.entries = b.entries AS same_entries, after.sets = b.sets AS same_sets, after.deletes = b.deletes AS same_deletes, cache_get('k') = b.k AS same_k
  FROM before_bad b, cache_stats() after;
-- At the limits.
SELECT cache_set(repeat('k', 512), '1'), cache_get(repeat('k', 512)),
       cache_set_bytes('largest', convert_to(repeat('v', 1024 * 1024), 'UTF8')), octet_length(cache_get_bytes('largest'));
SELECT octet_length(cache_get_bytes('largest'));

-- Every function says what it does, and which kind it is.
SELECT proname FROM pg_proc
 WHERE pronamespace = 'enough'::regnamespace AND proname LIKE 'cache\_%'
   AND (obj_description(oid, 'pg_proc') IS NULL OR provolatile <> 'v' OR proparallel <> 'u' OR proisstrict OR proargnames IS NULL AND pronargs > 0);

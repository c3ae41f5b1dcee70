-- Bytes, as good as jsonb; and what depends on what is there.
SET search_path = enough, public;
SET timezone = 'UTC';

-- Modes and expiries.
SELECT cache_set_bytes('a', '\x01', mode => 'if_present'), cache_set_bytes('a', '\x02', mode => 'if_absent', ttl => '1 hour'),
       cache_set_bytes('a', '\x03', mode => 'if_absent'), cache_get_bytes('a');
SELECT cache_set_bytes('a', '\x04', mode => 'if_present', keep_ttl => true), cache_get_bytes('a');
SELECT cache_expires_at('a') - now() BETWEEN '59 minutes' AND '1 hour' AS kept;
SELECT cache_get_bytes('a', slide_ttl => '2 hours');
SELECT cache_expires_at('a') - now() BETWEEN '119 minutes' AND '2 hours' AS moved;
BEGIN;
SELECT cache_set_bytes('own', '\x05', '1 minute'), cache_get_bytes('own', '3 hours');
SELECT cache_expires_at('own') - now() BETWEEN '179 minutes' AND '181 minutes' AS moved;
ROLLBACK;
-- A jsonb is none of theirs, and its expiry stays.
SELECT cache_set('j', '1', '1 hour');
\set ON_ERROR_STOP off
SELECT cache_get_bytes('j', '5 hours');
SELECT cache_take_bytes('j');
SELECT cache_expires_at('j') - now() < '2 hours' AS stays, cache_get('j');

-- Several.
SELECT cache_mset_bytes(ARRAY['x', 'y', 'x', 'e'], ARRAY['\x01', '\x02', '\x03', '']::bytea[], '1 hour', ARRAY['t']);
SELECT * FROM cache_mget_bytes(ARRAY['x', 'j', 'y', 'nothing', 'e', 'x']);
SELECT * FROM cache_mget(ARRAY['x', 'j']);
SELECT cache_mset_bytes('{}', '{}'), (SELECT count(*) FROM cache_mget_bytes('{}'));
SELECT cache_invalidate('t');
SELECT * FROM cache_mget_bytes(ARRAY['x', 'e']);
BEGIN;
SELECT cache_mset_bytes(ARRAY['x'], ARRAY[convert_to(repeat('v', 100000), 'UTF8')]);
SELECT key, octet_length(value) FROM cache_mget_bytes(ARRAY['x', 'j', 'y']);
ROLLBACK;
SELECT cache_exists('x');

-- Taken, once.
SELECT cache_take_bytes('a'), cache_take_bytes('a'), cache_take_bytes('nothing');
BEGIN;
SELECT cache_set_bytes('own', '\x06'), cache_take_bytes('own'), cache_exists('own');
COMMIT;
SELECT cache_exists('own');

-- Compare and set: bytes by their bytes, which two equal numbers needn't share.
SELECT cache_set_bytes('c', '\x0102', '1 hour', ARRAY['t']);
SELECT cache_compare_and_set_bytes('c', '\x01', '\x03'), cache_compare_and_set_bytes('c', '\x0102', '\x03'), cache_get_bytes('c'), cache_expires_at('c');
SELECT cache_compare_and_set('c', '3', '4'), cache_compare_and_set_bytes('j', '\x31', '\x32'), cache_compare_and_set_bytes('nothing', '', '');
SELECT cache_invalidate('t'), cache_exists('c');

-- Compare and delete.
SELECT cache_mset('{"lock": {"owner": "me", "n": 1.0}, "other": [1]}');
SELECT cache_delete_if('lock', '{"owner": "you"}'), cache_delete_if('lock', '{"n": 1.00, "owner": "me"}'), cache_delete_if('lock', '{"n": 1, "owner": "me"}'), cache_exists('lock');
SELECT cache_set_bytes('b', '1'), cache_delete_if('b', '1'), cache_delete_if('nothing', 'null');
BEGIN;
SELECT cache_delete_if('other', '[1]'), cache_exists('other');
ROLLBACK;
SELECT cache_exists('other') AS a_rollback_does_not_bring_it_back;
BEGIN;
SELECT cache_set('own', '1'), cache_delete_if('own', '2'), cache_delete_if('own', '1'), cache_get('own'), cache_delete_if('own', '1');
ROLLBACK;

-- Merging: the test cases of RFC 7396, appendix A.
SELECT original, patch, result, cache_set('m', original), cache_merge('m', patch), cache_get('m') IS NOT DISTINCT FROM result AS right
  FROM (VALUES
    ('{"a":"b"}'::jsonb, '{"a":"c"}'::jsonb, '{"a":"c"}'::jsonb), ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'), ('{"a":"b"}', '{"a":null}', '{}'),
    ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'), ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'), ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
    ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'), ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
    ('["a","b"]', '["c","d"]', '["c","d"]'), ('{"a":"b"}', '["c"]', '["c"]'), ('{"a":"foo"}', 'null', 'null'), ('{"a":"foo"}', '"bar"', '"bar"'),
    ('{"e":null}', '{"a":1}', '{"e":null,"a":1}'), ('[1,2]', '{"a":"b","c":null}', '{"a":"b"}'), ('{}', '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
    ('{"a":{"b":{"c":[1,{"d":null}]}},"z":1.50}', '{"a":{"b":{"e":{"f":null,"g":[null]}}}}', '{"a":{"b":{"c":[1,{"d":null}],"e":{"g":[null]}}},"z":1.50}')
  ) AS cases (original, patch, result);
SELECT cache_merge('new', '{"a": {"b": null, "c": 1}}', '1 hour'), cache_get('new');
SELECT cache_expires_at('new') - now() BETWEEN '59 minutes' AND '1 hour' AS its_own;
SELECT cache_merge('new', '{"d": 2}'), cache_expires_at('new') - now() BETWEEN '59 minutes' AND '1 hour' AS kept;
SELECT cache_merge('new', '{"d": null}', '2 hours'), cache_expires_at('new') - now() > '119 minutes' AS moved;
SELECT cache_set('tagged', '{}', tags => ARRAY['t']), cache_merge('tagged', '{"a": 1}');
SELECT cache_invalidate('t'), cache_exists('tagged');
SELECT cache_merge('b', '{}');
SELECT cache_merge('new', jsonb_build_object('large', repeat('x', 1100000)));
SELECT cache_get('new'), cache_get_bytes('b');
BEGIN;
SELECT cache_set('own', '{"a": 1}', '1 hour'), cache_merge('own', '{"b": 2}'), cache_expires_at('own') < 'infinity' AS kept;
SELECT cache_delete('new'), cache_merge('new', '{"only": "this"}');
ROLLBACK;
SELECT cache_exists('own'), cache_get('new');
-- A key of many members, and one nested deep.
SELECT cache_merge('wide', (SELECT jsonb_object_agg('k' || i, i) FROM generate_series(1, 1000) AS i)) -> 'k777';
SELECT cache_merge('wide', (SELECT jsonb_object_agg('k' || i, CASE WHEN i % 2 = 0 THEN 'null'::jsonb ELSE to_jsonb(-i) END) FROM generate_series(1, 1000) AS i)) -> 'k777';
SELECT count(*) FROM jsonb_object_keys(cache_get('wide'));
SELECT left(cache_merge('deep', (repeat('{"a":', 1000) || '1' || repeat('}', 1000))::jsonb)::text, 20);

-- Counting only what is there.
SELECT cache_incr('count', mode => 'if_present'), cache_exists('count'), cache_incr('count'), cache_incr('count', 5, mode => 'if_present');
BEGIN;
SELECT cache_delete('count'), cache_incr('count', mode => 'if_present'), cache_set('count', '10'), cache_incr('count', -1, mode => 'if_present');
ROLLBACK;
SELECT cache_get('count');

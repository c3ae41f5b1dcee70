-- A key-value store in plain tables. The statements run as the caller, so the table's privileges are the space's.
--
-- All are VOLATILE, so that in READ COMMITTED each call sees what is committed by then, and PARALLEL UNSAFE, because they run
-- statements of their own. All are CALLED ON NULL INPUT: NULL stands for the default of an argument that has one, else it is an
-- error that names the argument.

CREATE FUNCTION enough._kv_fence() RETURNS xid8
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_kv_fence';
COMMENT ON FUNCTION enough._kv_fence() IS
'The number that the next transaction gets that writes. The default of the column fence of each space.';

CREATE FUNCTION enough._kv_version(sequence regclass) RETURNS bigint
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_kv_version';
COMMENT ON FUNCTION enough._kv_version(regclass) IS
'Gives the transaction a number and draws a version. The default of the column version of each space.';

CREATE FUNCTION enough._kv_changed() RETURNS trigger
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_kv_changed';
COMMENT ON FUNCTION enough._kv_changed() IS
'Wakes the sessions that watch a space when its changes are committed, and leaves a row without a value of what is deleted by hand. For the triggers that kv_create() makes.';

CREATE FUNCTION enough._kv_keep() RETURNS trigger
LANGUAGE plpgsql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.past := (array_prepend(ROW(OLD.version, OLD.value, OLD.updated_at)::enough.kv_change, OLD.past))[1:TG_ARGV[0]::int];
    RETURN NEW;
END $$;
COMMENT ON FUNCTION enough._kv_keep() IS
'Keeps the version that a row of a space had before. For the trigger that kv_create() makes where the space has a history.';

CREATE FUNCTION enough._kv_merged(target jsonb, patch jsonb) RETURNS jsonb
LANGUAGE c IMMUTABLE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_kv_merged';
COMMENT ON FUNCTION enough._kv_merged(jsonb, jsonb) IS
'A patch merged into a value as RFC 7396 (JSON Merge Patch) has it, for kv_merge().';

-- SECURITY DEFINER: a role that may update a space needs no other right for that. It draws from the sequence of its own table alone.
CREATE FUNCTION enough._kv_stamp() RETURNS trigger
LANGUAGE plpgsql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.version := enough._kv_version(pg_get_serial_sequence(format('%I.%I', TG_TABLE_SCHEMA, TG_TABLE_NAME), 'version'));
    NEW.fence := enough._kv_fence();
    NEW.updated_at := clock_timestamp();
    RETURN NEW;
END $$;
COMMENT ON FUNCTION enough._kv_stamp() IS
'Gives a row of a space that is changed by hand a version of its own. For the triggers that kv_create() makes.';

CREATE FUNCTION enough._kv_copies() RETURNS trigger
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_kv_copies';
COMMENT ON FUNCTION enough._kv_copies() IS
'Ends what lies in memory of a row of a space that is changed or deleted. For the triggers that kv_create() makes.';

CREATE FUNCTION enough.kv_create(
    space text, indexed boolean DEFAULT false, unlogged boolean DEFAULT false, history int DEFAULT 0,
    if_not_exists boolean DEFAULT false) RETURNS boolean
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_kv_create';
COMMENT ON FUNCTION enough.kv_create(text, boolean, boolean, integer, boolean) IS
'Creates a space for keys: a table enough.kv_<space>, owned by the caller, whose privileges are the space''s.
space: 1 to 48 letters, digits, ''_'', ''.'' or ''-'', the first a letter or ''_''. indexed: with a GIN index for kv_find(). unlogged: writes no WAL; a crash empties it. history: how many versions of each key it keeps beside the current one, 0 to 100, in the key''s row. if_not_exists: returns false where the space is there, instead of failing.
Returns true. The space default comes with the extension. In each row value is NULL where the key was deleted, which it remembers for a day.
Fails with 42710 (exists), 22023 (not a name, out of range), 22004 (NULL), 25006 (read-only), 42501 without CREATE on the schema enough.';

CREATE FUNCTION enough.kv_drop(space text, if_exists boolean DEFAULT false) RETURNS boolean
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_kv_drop';
COMMENT ON FUNCTION enough.kv_drop(text, boolean) IS
'Drops a space with all its entries.
if_exists: returns false where there is none, instead of failing.
Returns true. The space default is part of the extension, and can''t be dropped.
Fails with 42704 (no such space), 2BP01 (the space default, or what else depends on it), 22023 (not a name), 22004 (NULL), 25006 (read-only), 42501 for a role that isn''t the owner.';

CREATE FUNCTION enough.kv_spaces(
    OUT space text, OUT indexed boolean, OUT unlogged boolean, OUT history int, OUT bytes bigint, OUT owner text) RETURNS SETOF record
LANGUAGE sql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
    SELECT substr(c.relname, 4),
           EXISTS (SELECT FROM pg_index AS i JOIN pg_class AS x ON x.oid = i.indexrelid JOIN pg_am AS a ON a.oid = x.relam
                    WHERE i.indrelid = c.oid AND a.amname = 'gin'),
           c.relpersistence = 'u',
           coalesce((SELECT split_part(encode(t.tgargs, 'escape'), E'\\000', 1)::int FROM pg_trigger AS t
                      WHERE t.tgrelid = c.oid AND t.tgfoid = 'enough._kv_keep()'::regprocedure), 0),
           pg_total_relation_size(c.oid), pg_get_userbyid(c.relowner)::text
      FROM pg_class AS c
     WHERE c.relnamespace = 'enough'::regnamespace AND c.relkind = 'r' AND starts_with(c.relname::text, 'kv_')
       AND has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE')
     ORDER BY 1
$$;
COMMENT ON FUNCTION enough.kv_spaces() IS
'Lists the spaces on whose table the role has any privilege.
Returns a row each: its name, whether it has an index for kv_find(), whether a crash empties it, how many versions of a key it keeps beside the current one, the bytes of its table with indexes, and its owner.
Fails with nothing of its own.';

CREATE FUNCTION enough.kv_set(
    key text, value jsonb, ttl interval DEFAULT NULL, if_version bigint DEFAULT NULL, space text DEFAULT 'default') RETURNS bigint
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_kv_set';
COMMENT ON FUNCTION enough.kv_set(text, jsonb, interval, bigint, text) IS
'Sets a key to a value, with the transaction: durable when it commits, undone by a rollback.
key: 1 to 512 bytes. value: any jsonb. ttl: 1 ms to 100 years, from now on; NULL: for ever. if_version: only where this is the entry''s version; 0: only where there is no entry. space: where.
Returns the new version, greater than any that the key has had; NULL, and changes nothing, where if_version isn''t the entry''s version. Waits for a transaction that has written the key. Needs INSERT, UPDATE and SELECT on the table.
Fails with 42704 (no such space), 22004 (NULL), 22023 (out of range, an empty key), 54000 (key too long), 25006 (read-only), 55000 (the space''s sequence was altered to give several versions at once; the hint mends it), 40001 (changed concurrently, above READ COMMITTED), 42501.';

CREATE FUNCTION enough.kv_get(key text, space text DEFAULT 'default') RETURNS jsonb
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_kv_get';
COMMENT ON FUNCTION enough.kv_get(text, text) IS
'Gets the value of a key, as a SELECT of the caller''s own would see it; from memory where it was read before and not changed since.
key: 1 to 512 bytes. space: where.
Returns NULL where there is no entry, or it has expired. Memory is that of the cache. The table is read above READ COMMITTED, by a transaction that has written something, by a role with rights on some columns alone, where the table has row security, tables that inherit from it or its trigger kv_copies no more, and on a standby. Works in read-only transactions and on a standby. Needs SELECT on the table.
Fails with 42704 (no such space), 22004 (NULL), 22023 (an empty key), 54000 (key too long), 42501.';

CREATE FUNCTION enough.kv_entry(key text, space text DEFAULT 'default') RETURNS TABLE (
    value jsonb, version bigint, updated_at timestamptz, expires_at timestamptz)
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'enough_kv_entry';
COMMENT ON FUNCTION enough.kv_entry(text, text) IS
'Gets the entry of a key: the value, the version for if_version of kv_set() and kv_delete(), when it was set and when it is over.
key: 1 to 512 bytes. space: where.
Returns no row where there is no entry; expires_at is NULL where it is never over. Needs SELECT on the table.
Fails with 42704 (no such space), 22004 (NULL), 22023 (an empty key), 54000 (key too long), 42501.';

CREATE FUNCTION enough.kv_has(key text, space text DEFAULT 'default') RETURNS boolean
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_kv_has';
COMMENT ON FUNCTION enough.kv_has(text, text) IS
'Says whether a key has an entry.
key: 1 to 512 bytes. space: where.
Returns false where it has none, or it has expired. Needs SELECT on the table.
Fails with 42704 (no such space), 22004 (NULL), 22023 (an empty key), 54000 (key too long), 42501.';

CREATE FUNCTION enough.kv_mget(keys text[], space text DEFAULT 'default') RETURNS TABLE (key text, value jsonb, version bigint)
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'enough_kv_mget';
COMMENT ON FUNCTION enough.kv_mget(text[], text) IS
'Gets the entries of several keys, all as of one moment.
keys: each 1 to 512 bytes; none for NULL. space: where.
Returns a row a key that has an entry, in the order of the keys. Needs SELECT on the table.
Fails with 42704 (no such space), 22004 (NULL element), 22023 (an empty key), 54000 (key too long), 42501.';

CREATE FUNCTION enough.kv_mset(entries jsonb, ttl interval DEFAULT NULL, space text DEFAULT 'default') RETURNS int
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_kv_mset';
COMMENT ON FUNCTION enough.kv_mset(jsonb, interval, text) IS
'Sets several keys: the members of an object. All or none, in the order of the keys, so that two calls never deadlock.
entries: an object; its members'' names are keys of 1 to 512 bytes. ttl: as of kv_set(), of all. space: where.
Returns how many. Needs INSERT, UPDATE and SELECT on the table.
Fails with 42704 (no such space), 22004 (NULL), 22023 (not an object, out of range), 54000 (key too long), 25006 (read-only), 55000 (as of kv_set()), 40001 (changed concurrently, above READ COMMITTED), 42501.';

CREATE FUNCTION enough.kv_delete(key text, if_version bigint DEFAULT NULL, space text DEFAULT 'default') RETURNS boolean
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_kv_delete';
COMMENT ON FUNCTION enough.kv_delete(text, bigint, text) IS
'Deletes a key. Its row stays for a day without a value, then maintain() removes it. So does what DELETE deletes by hand.
key: 1 to 512 bytes. if_version: only where this is the entry''s version. space: where.
Returns whether there was an entry, with that version. Needs UPDATE and SELECT on the table.
Fails with 42704 (no such space), 22004 (NULL), 22023 (out of range, an empty key), 54000 (key too long), 25006 (read-only), 55000 (as of kv_set()), 40001 (changed concurrently, above READ COMMITTED), 42501.';

CREATE FUNCTION enough.kv_keys(
    prefix text DEFAULT '', after text DEFAULT NULL, max int DEFAULT 1000, space text DEFAULT 'default') RETURNS SETOF text
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 1000 AS 'MODULE_PATHNAME', 'enough_kv_keys';
COMMENT ON FUNCTION enough.kv_keys(text, text, int, text) IS
'Lists keys by what they begin with, in byte order, by the index.
prefix: empty for all. after: goes on behind that key, for the next page. max: 1 to 10,000. space: where.
Returns those that have an entry. Needs SELECT on the table.
Fails with 42704 (no such space), 22023 (out of range), 42501.';

CREATE FUNCTION enough.kv_incr(key text, by bigint DEFAULT 1, space text DEFAULT 'default') RETURNS bigint
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_kv_incr';
COMMENT ON FUNCTION enough.kv_incr(text, bigint, text) IS
'Adds to the whole number that a key has, atomically; a key without an entry counts as 0. What is left of its ttl stays.
key: 1 to 512 bytes. by: how much, may be negative. space: where.
Returns the sum. Needs INSERT, UPDATE and SELECT on the table.
Fails with 42704 (no such space), 22004 (NULL), 22023 (an empty key, a value that is no whole number, a sum that doesn''t fit a bigint), 54000 (key too long), 25006 (read-only), 55000 (as of kv_set()), 40001 (changed concurrently, above READ COMMITTED), 42501.';

CREATE FUNCTION enough.kv_merge(key text, patch jsonb, space text DEFAULT 'default') RETURNS jsonb
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_kv_merge';
COMMENT ON FUNCTION enough.kv_merge(text, jsonb, text) IS
'Merges a patch into the value of a key as RFC 7396 (JSON Merge Patch) has it, atomically: members replace, null removes. What is left of its ttl stays.
key: 1 to 512 bytes. patch: an object; anything else replaces the value. space: where.
Returns the new value. Needs INSERT, UPDATE and SELECT on the table.
Fails with 42704 (no such space), 22004 (NULL), 22023 (an empty key), 54000 (key too long), 25006 (read-only), 55000 (as of kv_set()), 40001 (changed concurrently, above READ COMMITTED), 42501.';

CREATE FUNCTION enough.kv_find(
    matching jsonb, after text DEFAULT NULL, max int DEFAULT 100, space text DEFAULT 'default')
RETURNS TABLE (key text, value jsonb, version bigint)
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'enough_kv_find';
COMMENT ON FUNCTION enough.kv_find(jsonb, text, int, text) IS
'Finds documents: the entries whose value contains another one, as by @>. By the GIN index of a space that is indexed, else it looks at all.
matching: what they must contain. after: goes on behind that key, for the next page. max: 1 to 10,000. space: where.
Returns a row each, in the byte order of their keys. Needs SELECT on the table.
Fails with 42704 (no such space), 22004 (NULL), 22023 (out of range), 42501.';

CREATE FUNCTION enough.kv_watch(
    prefix text DEFAULT '', since bigint DEFAULT 0, wait interval DEFAULT '0', space text DEFAULT 'default')
RETURNS TABLE (key text, value jsonb, version bigint, deleted boolean)
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'enough_kv_watch';
COMMENT ON FUNCTION enough.kv_watch(text, bigint, interval, text) IS
'Tells what has changed after a version, in the order of the versions, and waits for it. A caller that passes the greatest version of the answer as since of the next call misses nothing, whatever commits when.
prefix: what the keys begin with; empty for all. since: the greatest version that was seen; 0 for all that is there. wait: for how long where there is nothing yet, 0 to 1 hour; without polling. space: where.
Returns a row for each key that has changed, with its newest change, or for each change that is still kept where the space has a history; deleted where it has no entry any more. At most 1000 rows, the rest with the next call; all where since is 0. A last row whose key is NULL says up to which version there is nothing more: of other keys, or of what is gone. A change is told when every transaction has ended that has written to the space before it. An entry that expires is told when maintain() ends it. Sees what is committed, at every isolation level. On a standby it looks once a second. Needs SELECT on the table.
Fails with 42704 (no such space), 22023 (out of range), 55000 (since is older than what is remembered of keys that were deleted, a day, or than a TRUNCATE; or ahead of all versions: begin anew with since => 0), 55P03 (lock_timeout), 40P01 (deadlock), 42501.';

CREATE FUNCTION enough.kv_history(key text, space text DEFAULT 'default') RETURNS TABLE (
    version bigint, value jsonb, updated_at timestamptz, deleted boolean)
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'enough_kv_history';
COMMENT ON FUNCTION enough.kv_history(text, text) IS
'Lists the versions of a key that are kept: the current one, and as many of before as the space''s history.
key: 1 to 512 bytes. space: where.
Returns a row each, the newest first; value is NULL and deleted is true where the key had no entry. No row where it never had one, or was deleted more than a day ago. Needs SELECT on the table.
Fails with 42704 (no such space), 22004 (NULL), 22023 (an empty key), 54000 (key too long), 42501.';

SELECT enough.kv_create('default');
SELECT pg_catalog.pg_extension_config_dump('enough.kv_default', '');
SELECT pg_catalog.pg_extension_config_dump('enough.k_default_versions', '');

-- The cache. What a call of these functions does lies in shared memory alone, so none of them needs a table, and all of
-- them work on a hot standby and in a read-only transaction.
--
-- All are VOLATILE, because their results change within a statement, and PARALLEL UNSAFE, because a parallel worker
-- knows nothing of what its leader's transaction has written. All are CALLED ON NULL INPUT: NULL means the default where an
-- argument has one, and is an error that names it where it has none.

CREATE FUNCTION enough.cache_set(key text, value jsonb, ttl interval DEFAULT NULL, mode text DEFAULT 'always',
                                 tags text[] DEFAULT NULL, keep_ttl boolean DEFAULT false) RETURNS boolean
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_set';
COMMENT ON FUNCTION enough.cache_set(text, jsonb, interval, text, text[], boolean) IS
'Caches a value under a key.
ttl: how long the entry lives; NULL: until it is evicted. On a standby it has to be given, and lives for enough.cache_standby_ttl at most: nobody tells that server what the primary removes. mode: ''always''; ''if_present'': only where the key is there; ''if_absent'': only where it is not. tags: at most 8, by which cache_invalidate() finds the entry. keep_ttl: an entry that is there keeps its expiry, and ttl is for a new one.
Returns true where the value was, or at commit will be, stored. Shows in its own transaction at once, to others when that commits, and never if it rolls back. With ''if_absent'' it is decided and stored at once, atomically among sessions, and stays when the transaction rolls back; but where this transaction itself has removed the key, it waits for the commit as that does.
Never puts back what was computed before a removal: where another transaction has removed the key, or one of the tags, and committed after this one began, the value is refused and counted in cache_stats(). With ''if_absent'' the answer then is false, and a second try in a READ COMMITTED transaction counts as computed after the first.
Fails with 22004 for a NULL key, value or tag among others, and on a standby for a NULL ttl, 22023 for another mode or a ttl that is not positive and finite, 54000 for a key of more than 512 bytes, a value above enough.cache_max_value, more than 8 tags or one of more than 128 bytes.';

CREATE FUNCTION enough.cache_get(key text, slide_ttl interval DEFAULT NULL) RETURNS jsonb
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_get';
COMMENT ON FUNCTION enough.cache_get(text, interval) IS
'Returns the value cached under a key.
slide_ttl: a hit also moves the expiry, to that long from now, at once: for sessions that end when they are idle; NULL: it stays.
NULL where there is none or it has expired; a cached JSON null is ''null''::jsonb. Sees what its own transaction has written.
Fails with 22004 for a NULL key, 54000 for a key of more than 512 bytes, 22023 where the entry was written by cache_set_bytes() or slide_ttl is not positive and finite.';

CREATE FUNCTION enough.cache_mget(keys text[]) RETURNS TABLE (key text, value jsonb)
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_mget';
COMMENT ON FUNCTION enough.cache_mget(text[]) IS
'Returns the values cached under several keys.
One row for each key asked for, in that order, with a NULL value on a miss, and where the entry was written by cache_set_bytes(). None for NULL, which is what array_agg() makes of no rows.
Fails with 22004 for a NULL among the keys, 54000 for a key of more than 512 bytes.';

CREATE FUNCTION enough.cache_mset(entries jsonb, ttl interval DEFAULT NULL, tags text[] DEFAULT NULL) RETURNS integer
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_mset';
COMMENT ON FUNCTION enough.cache_mset(jsonb, interval, text[]) IS
'Caches each member of a JSON object under its name.
ttl: how long the entries live; NULL: until they are evicted. tags: at most 8, by which cache_invalidate() finds them.
Returns their number. Shows when cache_set() would, is refused as it is, and fails as it does, with nothing written; 22023 where entries is not an object.';

CREATE FUNCTION enough.cache_delete(key text) RETURNS boolean
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_delete';
COMMENT ON FUNCTION enough.cache_delete(text) IS
'Removes the entry under a key.
Returns true where there was one. Shows in its own transaction at once, to others when that commits, and never if it rolls back. What another session stores under the key until then is removed, too, and what a transaction computes that began before is refused.
Fails with 22004 for a NULL key, 54000 for a key of more than 512 bytes.';

CREATE FUNCTION enough.cache_mdelete(keys text[]) RETURNS integer
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_mdelete';
COMMENT ON FUNCTION enough.cache_mdelete(text[]) IS
'Removes the entries under several keys.
Returns how many there were. Shows when cache_delete() would, and fails as it does, with nothing removed; 22004 for a NULL among the keys.';

CREATE FUNCTION enough.cache_take(key text) RETURNS jsonb
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_take';
COMMENT ON FUNCTION enough.cache_take(text) IS
'Returns the value cached under a key and removes it.
NULL where there is none. Of several sessions that ask at once, one gets it: it is removed at once, and a rollback does not bring it back. A value that this transaction itself has set is removed when it commits. What a transaction computes that began before that commit is refused.
Fails as cache_get() does.';

CREATE FUNCTION enough.cache_exists(key text) RETURNS boolean
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_exists';
COMMENT ON FUNCTION enough.cache_exists(text) IS
'Returns whether there is an entry under a key.
Fails with 22004 for a NULL key, 54000 for a key of more than 512 bytes.';

CREATE FUNCTION enough.cache_expires_at(key text) RETURNS timestamptz
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_expires_at';
COMMENT ON FUNCTION enough.cache_expires_at(text) IS
'Returns when the entry under a key expires.
NULL where there is no entry; ''infinity'' for one that never expires.
Fails with 22004 for a NULL key, 54000 for a key of more than 512 bytes.';

CREATE FUNCTION enough.cache_touch(key text, ttl interval) RETURNS boolean
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_touch';
COMMENT ON FUNCTION enough.cache_touch(text, interval) IS
'Changes when the entry under a key expires.
ttl: how long from now; NULL: it never expires.
Returns true where there is an entry. Shows in its own transaction at once, to others when that commits, and never if it rolls back.
Fails with 22004 for a NULL key, and on a standby for a NULL ttl, 22023 for a ttl that is not positive and finite, 54000 for a key of more than 512 bytes.';

CREATE FUNCTION enough.cache_compare_and_set(key text, expected jsonb, value jsonb, ttl interval DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_compare_and_set';
COMMENT ON FUNCTION enough.cache_compare_and_set(text, jsonb, jsonb, interval) IS
'Puts a value in the place of one that equals the expected one.
ttl: how long the new entry lives; NULL: until it is evicted. The tags stay.
Returns true where it did, false where there is another value or none, or where cache_set() would be refused. It is decided and stored at once, atomically among sessions, and stays when the transaction rolls back; but where this transaction itself has set the key, the new value waits for the commit as that does.
Fails with 22004 for a NULL key, expected or value, and on a standby for a NULL ttl, 22023 for a ttl that is not positive and finite, 54000 for a key of more than 512 bytes or a value above enough.cache_max_value.';

CREATE FUNCTION enough.cache_delete_if(key text, expected jsonb) RETURNS boolean
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_delete_if';
COMMENT ON FUNCTION enough.cache_delete_if(text, jsonb) IS
'Removes an entry whose value equals the expected one.
Returns true where it did, false where there is another value or none. It is decided and removed at once, atomically among sessions, and a rollback does not bring it back; but a value that this transaction itself has set is removed when it commits. What a transaction computes that began before that commit is refused.
Fails with 22004 for a NULL key or expected, 54000 for a key of more than 512 bytes.';

CREATE FUNCTION enough.cache_merge(key text, patch jsonb, ttl interval DEFAULT NULL) RETURNS jsonb
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_merge';
COMMENT ON FUNCTION enough.cache_merge(text, jsonb, interval) IS
'Merges a patch into the value cached under a key, as RFC 7396 (JSON Merge Patch) says.
patch: its members replace those of their name, objects are merged member by member, and null removes; what is no object takes the whole value''s place. A value that is not there, or no object, counts as an empty one. ttl: how long the entry lives from now on; NULL: one that is there keeps its expiry, a new one lives until it is evicted. The tags stay.
Returns the new value; NULL where cache_set() would be refused. It is decided and stored at once, atomically among sessions, so no member is lost, and it stays when the transaction rolls back; but what this transaction itself has set or removed is changed when it commits.
Fails with 22004 for a NULL key or patch, and on a standby for a new entry without a ttl, 22023 for a ttl that is not positive and finite or where the entry was written by cache_set_bytes(), 54000 for a key of more than 512 bytes, or a patch above enough.cache_max_value or a value that becomes so.';

CREATE FUNCTION enough.cache_incr(key text, by bigint DEFAULT 1, ttl interval DEFAULT NULL, mode text DEFAULT 'always') RETURNS bigint
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_incr';
COMMENT ON FUNCTION enough.cache_incr(text, bigint, interval, text) IS
'Adds to the number cached under a key; one that is not there counts as 0.
by: may be negative. ttl: how long an entry that this call creates lives; one that is there keeps its expiry. mode: ''always''; ''if_present'': only where the key is there.
Returns the new number; NULL where it is not there and mode is ''if_present''. It is decided and stored at once, atomically among sessions, so no count is lost, and it stays when the transaction rolls back; but what this transaction itself has set or removed is changed when it commits.
Fails with 22004 for a NULL key, and on a standby for a NULL ttl where it may create the entry, 22023 for another mode, where the entry is not a whole number, the sum does not fit a bigint or the ttl is not positive and finite, 54000 for a key of more than 512 bytes.';

CREATE FUNCTION enough.cache_set_bytes(key text, value bytea, ttl interval DEFAULT NULL, tags text[] DEFAULT NULL,
                                       mode text DEFAULT 'always', keep_ttl boolean DEFAULT false) RETURNS boolean
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_set_bytes';
COMMENT ON FUNCTION enough.cache_set_bytes(text, bytea, interval, text[], text, boolean) IS
'Caches bytes under a key, in place of whatever is there.
ttl, tags, mode and keep_ttl: as for cache_set().
Returns true where the bytes were, or at commit will be, stored. Shows when cache_set() would, is refused as it is, and fails as it does.';

CREATE FUNCTION enough.cache_get_bytes(key text, slide_ttl interval DEFAULT NULL) RETURNS bytea
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_get_bytes';
COMMENT ON FUNCTION enough.cache_get_bytes(text, interval) IS
'Returns the bytes cached under a key.
slide_ttl: as for cache_get().
NULL where there are none or they have expired.
Fails as cache_get() does; with 22023 where the entry was written by cache_set().';

CREATE FUNCTION enough.cache_mget_bytes(keys text[]) RETURNS TABLE (key text, value bytea)
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_mget_bytes';
COMMENT ON FUNCTION enough.cache_mget_bytes(text[]) IS
'Returns the bytes cached under several keys.
One row for each key asked for, in that order, with a NULL value on a miss, and where the entry was written by cache_set().
Fails as cache_mget() does.';

CREATE FUNCTION enough.cache_mset_bytes(keys text[], "values" bytea[], ttl interval DEFAULT NULL, tags text[] DEFAULT NULL) RETURNS integer
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_mset_bytes';
COMMENT ON FUNCTION enough.cache_mset_bytes(text[], bytea[], interval, text[]) IS
'Caches bytes under several keys.
values: one for each key, in the same order; of a key that is there twice the last one stays. ttl and tags: as for cache_mset().
Returns the number of keys. Shows when cache_set() would, is refused as it is, and fails as it does, with nothing written; 22023 where there are not as many values as keys.';

CREATE FUNCTION enough.cache_take_bytes(key text) RETURNS bytea
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_take_bytes';
COMMENT ON FUNCTION enough.cache_take_bytes(text) IS
'Returns the bytes cached under a key and removes them.
NULL where there are none. Removed when cache_take() would remove a value.
Fails as cache_get_bytes() does.';

CREATE FUNCTION enough.cache_compare_and_set_bytes(key text, expected bytea, value bytea, ttl interval DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_compare_and_set_bytes';
COMMENT ON FUNCTION enough.cache_compare_and_set_bytes(text, bytea, bytea, interval) IS
'Puts bytes in the place of those that equal the expected ones.
ttl: how long the new entry lives; NULL: until it is evicted. The tags stay.
Returns true where it did, false where there is something else or nothing, or where cache_set() would be refused. Decided, stored and failing as cache_compare_and_set().';

CREATE FUNCTION enough.cache_fetch(key text, ttl interval, query text, args jsonb DEFAULT NULL, stale_for interval DEFAULT '0',
                            tags text[] DEFAULT NULL, stale_if_error interval DEFAULT '0') RETURNS jsonb
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_fetch';
COMMENT ON FUNCTION enough.cache_fetch(text, interval, text, jsonb, interval, text[], interval) IS
'Returns the value cached under a key, or else runs a query and caches its one value.
ttl: how long the value lives from then on; NULL: until it is evicted. query: returns at most one row of one column; run as the caller, with its privileges, search_path and transaction; what is not jsonb becomes it as to_jsonb() does it, and no row, or NULL, becomes a JSON null, which is cached as well. args: what $1 is in the query. stale_for: while one session computes the value anew, others get the expired one for up to that long after its end, instead of waiting; not where they compute another value of it. tags: at most 8, by which cache_invalidate() finds the entry; the tags of the tables that are read come to them. stale_if_error: where the query fails, the expired value is returned for up to that long after its end, with the error as a WARNING; then the query runs in a savepoint, and is not tried again for a second. A cancel, a timeout and an assertion are not caught.
Concurrent calls for a key run the query once; the others wait for it, as for a lock (in pg_locks an advisory one with objsubid 25966). If it fails, is cancelled or its session ends, the next of them runs its own query; the error is that caller''s. The value is stored at once and stays when the transaction rolls back; but in a transaction that has written it is stored at the commit, since it may be made of rows that others do not see. One that had written before the call makes nobody wait; where the query itself writes, others wait for that commit. A value is not stored where its key, or a tag, was removed since the query began, or where it is above enough.cache_max_value, which is counted as fetch_uncached in cache_stats(), and for ten seconds nobody waits for it; the caller gets it nevertheless. On a standby ttl has to be given, and a value is kept for enough.cache_standby_ttl at most.
The entry has by itself the tags of every table of cache_tag_table() that the query''s plan names, through views and partitions, or that of a statement in a function that it calls; of a tag with columns the one that goes with every change, ''user:{id}'' as it stands. It has the tags of each entry, too, that the query gets from the cache by this function, cache_get(), cache_mget() or their like for bytes. Where that makes more than 8 different tags, the value is not stored, and counted as fetch_uncached. Not seen is what runs in a parallel worker, what a function reads without the executor, what lies behind a materialized view or a foreign table, and that an entry which the query has got is over, or replaced or removed by its key.
Everybody who may call cache_get() can read what is cached, whatever the query needed privileges for.
Fails with what the query fails with; 22004 for a NULL key, query or tag among others, and on a standby for a NULL ttl; 22023 for a query that returns several rows or columns or no result, or needs its own key, for a ttl that is not positive and finite, a stale_for or stale_if_error that is negative or infinite, or where the entry was written by cache_set_bytes(); 54000 for a key of more than 512 bytes, more than 8 tags or one of more than 128 bytes; 40P01 where sessions wait for one another in a circle.';

CREATE FUNCTION enough.cache_invalidate(tag text) RETURNS void
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_invalidate';
COMMENT ON FUNCTION enough.cache_invalidate(text) IS
'Removes all entries with a tag.
In a time that does not depend on their number; their memory returns as it is needed, or by maintain(). Shows in its own transaction at once, to others when that commits, and never if it rolls back. What another session stores with the tag until then is removed, too, and what a transaction computes that began before is refused.
Fails with 22004 for a NULL tag, 54000 for one of more than 128 bytes.';

CREATE FUNCTION enough.cache_keys(prefix text, after text DEFAULT NULL, max integer DEFAULT 1000)
RETURNS TABLE (key text, bytes bigint, expires_at timestamptz)
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_keys';
COMMENT ON FUNCTION enough.cache_keys(text, text, integer) IS
'Lists keys of the cache that begin with a prefix.
prefix: taken literally; the empty one is of all keys. after: only keys behind this one, such as the last one of the call before; NULL: from the start. max: how many at most, up to 10000.
One row for each key, in the order of their bytes (collation "C"): bytes, the size of its value; expires_at, ''infinity'' where it never expires. Sees what its own transaction has written. What is there during the whole call is listed, and once; what comes or goes meanwhile may be. Looks at the whole cache, a little under each lock: for people and for cleaning up, not for each request.
For operators, see grant_to().
Fails with 42501 for others; 55000 where enough.cache_keep_keys is off, the default; then the cache does not know the text of its keys. What was stored before it was on is not listed. Fails with 22004 for a NULL prefix, 22023 for another max, 54000 for a prefix of more than 512 bytes.';
REVOKE ALL ON FUNCTION enough.cache_keys(text, text, integer) FROM PUBLIC;

CREATE FUNCTION enough.cache_delete_prefix(prefix text) RETURNS bigint
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_delete_prefix';
COMMENT ON FUNCTION enough.cache_delete_prefix(text) IS
'Removes the entries whose keys begin with a prefix.
prefix: taken literally; the empty one is of all keys.
Returns how many there were. Removes each as cache_delete() does: shows in its own transaction at once, to others when that commits, and never if it rolls back. Of a key that is not there yet it knows nothing: what is stored under it later stays. cache_invalidate() has no such gap, and does not look at the whole cache.
For operators, see grant_to(). Fails as cache_keys() does.';
REVOKE ALL ON FUNCTION enough.cache_delete_prefix(text) FROM PUBLIC;

CREATE FUNCTION enough.cache_clear() RETURNS void
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_clear';
COMMENT ON FUNCTION enough.cache_clear() IS
'Removes all entries of this database.
In a time that does not depend on their number; their memory returns as it is needed, or by maintain(). Shows in its own transaction at once, to others when that commits, and never if it rolls back. What a transaction stores that began before the commit is refused.
For operators, see grant_to(). Fails with 42501 for others.';
-- It makes everybody's cache cold.
REVOKE ALL ON FUNCTION enough.cache_clear() FROM PUBLIC;

-- A role that fires a trigger needs no right on its function, nor on what that does, so it must not be PL/pgSQL, which would.
CREATE FUNCTION enough.cache_invalidate_by_trigger() RETURNS trigger
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_invalidate_by_trigger';
COMMENT ON FUNCTION enough.cache_invalidate_by_trigger() IS
'Removes all entries with the tag that is the trigger''s argument, or that it makes of the row.
For the triggers that cache_tag_table() makes. A role that writes the table needs no right on it. Fails with 55000 where the shared memory is not available.';

CREATE FUNCTION enough.cache_tag_table(tbl regclass, tag text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $$
DECLARE
    own_name text := (SELECT c.relname FROM pg_class c WHERE c.oid = tbl);
    chosen text := coalesce(tag, replace(replace(own_name, '{', '{{'), '}', '}}'));
    rest text := replace(replace(chosen, '{{', ''), '}}', '');
    named text[] := ARRAY(SELECT m[1] FROM regexp_matches(rest, '\{([^{}]*)\}', 'g') AS m);
    missing text;
    trigger text := 'enough_cache_tag_' || left(md5(chosen), 16);
    by_row boolean := cardinality(named) > 0;
    part boolean;
    elsewhere boolean;
BEGIN
    IF tbl IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
            MESSAGE = 'argument "tbl" must not be NULL', HINT = 'Pass the name of a table.';
    ELSIF own_name IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object',
            MESSAGE = format('table with OID %s does not exist', tbl::oid), HINT = 'Pass the name of a table.';
    ELSIF octet_length(chosen) > 128 THEN
        RAISE EXCEPTION USING ERRCODE = 'program_limit_exceeded',
            MESSAGE = format('cache tag is too large: %s, where at most 128 is allowed', octet_length(chosen)),
            HINT = 'Limits are in bytes. Use a shorter tag.';
    ELSIF regexp_replace(rest, '\{[^{}]+\}', '', 'g') ~ '[{}]' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('invalid value for argument "tag": "%s"', chosen),
            HINT = 'Put the name of a column between braces, as in ''user:{id}''; write a brace itself twice.';
    END IF;
    -- Before the catalogs are read: any other session that changes the table''s triggers, or drops it, is done then.
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', tbl);
    -- Citus' list of its tables: also one that it has only added to its metadata has its rows in a shard, where no such trigger fires.
    IF to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL THEN
        EXECUTE 'SELECT EXISTS (SELECT FROM pg_catalog.pg_dist_partition d WHERE d.logicalrelid = $1)' INTO elsewhere USING tbl;
        IF elsewhere THEN
            RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
                MESSAGE = format('table "%s" has its rows in shards, which a trigger of this table would not be told of', own_name),
                HINT = 'Call cache_invalidate() on every node where the table is written, or give the entries a ttl.';
        END IF;
    END IF;
    SELECT n INTO missing FROM unnest(named) AS n
     WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = tbl AND a.attname = n AND a.attnum > 0 AND NOT a.attisdropped)
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_column',
            MESSAGE = format('column "%s" of table "%s" does not exist', missing, own_name),
            HINT = 'Put the name of a column between the braces of the tag, as it is in the catalog.';
    END IF;
    -- What is written to the whole fires none of a part's triggers for statements.
    part := EXISTS (SELECT FROM pg_class c WHERE c.oid = tbl AND c.relkind = 'p')
         OR EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = tbl);
    -- Fires whatever session_replication_role is. Where rows have tags of their own, only TRUNCATE is not told row by row.
    EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER %s ON %s FOR EACH STATEMENT EXECUTE FUNCTION enough.cache_invalidate_by_trigger(%L)',
                   trigger, CASE WHEN by_row THEN 'TRUNCATE' ELSE 'INSERT OR UPDATE OR DELETE OR TRUNCATE' END, tbl, chosen);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', tbl, trigger);
    -- Replication applies rows, and fires row triggers alone. What is written to a partition itself fires those that it has
    -- from the whole table, which are row triggers, too. A partition that has this one from there keeps it.
    trigger := trigger || '_row';
    IF NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = tbl AND t.tgname = trigger AND t.tgparentid <> 0) THEN
        EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION enough.cache_invalidate_by_trigger(%L)',
                       trigger, tbl, chosen);
        EXECUTE format('ALTER TABLE %s ENABLE %s TRIGGER %I', tbl, CASE WHEN by_row OR part THEN 'ALWAYS' ELSE 'REPLICA' END, trigger);
    END IF;
    -- What is computed from rows as they were before is refused from here on: the triggers have told nobody of later changes.
    BEGIN
        PERFORM enough.cache_invalidate(CASE WHEN by_row THEN chosen ELSE replace(replace(chosen, '{{', '{'), '}}', '}') END);
    EXCEPTION WHEN object_not_in_prerequisite_state THEN
        NULL; -- Without its memory there is no cache.
    END;
END $$;
COMMENT ON FUNCTION enough.cache_tag_table(regclass, text) IS
'Makes every INSERT, UPDATE, DELETE and TRUNCATE on a table remove all cache entries with a tag.
tag: the table''s own name, without its schema, if NULL. With names of columns between braces, as in ''user:{id}'', it is a tag for each row: a change of a row removes the entries with the tag that is made of the row as it was and as it is now (a column as its text, NULL as an empty one); the tag ''user:{id}'' itself goes with every change, and TRUNCATE removes all entries that have any tag, as does a change after a column was renamed. A brace itself is written twice. A table may have several tags.
Returns nothing. Makes triggers, so it takes the ownership of the table. They fire for every role that writes, without any right on this schema, also where replication applies rows or session_replication_role is replica, and for what is written to a partition itself. Not told are TRUNCATE, ATTACH, DETACH and DROP of a single partition, and what a standby does not run: see enough.cache_standby_ttl. They run once a statement; once a row where the tag names columns, where the table is partitioned, a partition or a child, and where replication applies it. Tagging removes the entries that have the tag; others that were cached before do not get it. A child or partition is told of what is written to its parent if it was one when it was tagged; a parent by inheritance is not told of what is written to a child, which has to be tagged itself. A transaction that removes more tags than the cache can keep apart (some hundreds to a megabyte of its memory) removes all entries that have any.
Fails with 22004 for a NULL table, 22023 for a brace alone, 42703 for a name that is no column''s, 54000 for a tag of more than 128 bytes, 42501 where the table is another''s, 42809 for what can have no such trigger, 0A000 for a table that Citus keeps in shards, 42P01 where the table is dropped meanwhile, 25006 in a read-only transaction or on a standby.';

CREATE FUNCTION enough.cache_untag_table(tbl regclass) RETURNS void
LANGUAGE plpgsql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $$
DECLARE
    name text;
BEGIN
    IF tbl IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
            MESSAGE = 'argument "tbl" must not be NULL', HINT = 'Pass the name of a table.';
    ELSIF NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = tbl AND t.tgfoid = 'enough.cache_invalidate_by_trigger()'::regprocedure) THEN
        RETURN;
    END IF;
    -- As in cache_tag_table().
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', tbl);
    FOR name IN
        SELECT t.tgname FROM pg_trigger t
         WHERE t.tgrelid = tbl AND t.tgfoid = 'enough.cache_invalidate_by_trigger()'::regprocedure AND t.tgparentid = 0
    LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS %I ON %s', name, tbl);
    END LOOP;
END $$;
COMMENT ON FUNCTION enough.cache_untag_table(regclass) IS
'Undoes cache_tag_table(), for all tags of a table.
Returns nothing, also where there is nothing to undo. What a partition has from the whole table stays. Entries with the tags stay, and no change ends them any more.
Fails with 22004 for a NULL table, 42501 for a table that is not the caller''s, 42P01 where the table is dropped meanwhile, 25006 in a read-only transaction or on a standby.';

CREATE FUNCTION enough.cache_stats(OUT entries bigint, OUT bytes_used bigint, OUT bytes_max bigint, OUT hits bigint,
                            OUT misses bigint, OUT sets bigint, OUT deletes bigint, OUT evictions bigint,
                            OUT expirations bigint, OUT stale_fills_refused bigint, OUT fetch_waits bigint,
                            OUT fetch_uncached bigint) RETURNS record
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_stats';
COMMENT ON FUNCTION enough.cache_stats() IS
'Returns what the cache of this server holds and has done since its memory was made, in all databases. Copies of entries of the key-value store lie in the same memory, and count as well.
entries and bytes_used: now, heads of entries included, and with what has expired, been cleared or been invalidated and whose memory nobody has needed yet (maintain() frees it); bytes_max: what could be used; hits and misses: of reads of committed entries; sets: values stored; deletes: entries removed by their key; evictions: entries that gave way to others; expirations: entries removed because they had expired, been cleared or been invalidated; stale_fills_refused: values not stored because they may have been computed before their key or tag was removed; fetch_waits: calls of cache_fetch() that waited for the value that another computed; fetch_uncached: values that it returned without storing them, because they were too large.
Looks at a few counters, however much the cache holds, and changes nothing. May be called by members of pg_monitor.';
REVOKE ALL ON FUNCTION enough.cache_stats() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION enough.cache_stats() TO pg_monitor;

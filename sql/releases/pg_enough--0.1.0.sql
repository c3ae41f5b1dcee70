-- CREATE EXTENSION has made the schema already, as the control file says.

COMMENT ON SCHEMA @extschema@ IS 'message queue, cache and rate limiter of pg_enough';
GRANT USAGE ON SCHEMA @extschema@ TO PUBLIC;

-- The cache. What a call of these functions does lies in shared memory alone, so none of them needs a table, and all of
-- them work on a hot standby and in a read-only transaction.
--
-- All are VOLATILE, because their results change within a statement, and PARALLEL UNSAFE, because a parallel worker
-- knows nothing of what its leader's transaction has written. All are CALLED ON NULL INPUT: NULL is an error that names
-- the argument, or means a default.

CREATE FUNCTION enough.cache_set(key text, value jsonb, ttl interval DEFAULT NULL, mode text DEFAULT 'always',
                                 tags text[] DEFAULT NULL, keep_ttl boolean DEFAULT false) RETURNS boolean
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_set';
COMMENT ON FUNCTION enough.cache_set(text, jsonb, interval, text, text[], boolean) IS
'Caches a value under a key.
ttl: how long the entry lives; NULL: until it is evicted. mode: ''always''; ''if_present'': only where the key is there; ''if_absent'': only where it is not. tags: at most 8, by which cache_invalidate() finds the entry. keep_ttl: an entry that is there keeps its expiry, and ttl is for a new one.
Returns true where the value was, or at commit will be, stored. Shows in its own transaction at once, to others when that commits, and never if it rolls back. With ''if_absent'' it is decided and stored at once, atomically among sessions, and stays when the transaction rolls back; but where this transaction itself has removed the key, it waits for the commit as that does.
Never puts back what was computed before a removal: where another transaction has removed the key, or one of the tags, and committed after this one began, the value is refused and counted in cache_stats(). With ''if_absent'' the answer then is false, and a second try in a READ COMMITTED transaction counts as computed after the first.
Fails with 22004 for a NULL key, value, mode, keep_ttl or tag among others, 22023 for another mode or a ttl that is not positive and finite, 54000 for a key of more than 512 bytes, a value above enough.cache_max_value, more than 8 tags or one of more than 128 bytes.';

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
One row for each key asked for, in that order, with a NULL value on a miss.
Fails as cache_get() does, and with 22004 for a NULL among the keys.';

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
Fails with 22004 for a NULL key, 22023 for a ttl that is not positive and finite, 54000 for a key of more than 512 bytes.';

CREATE FUNCTION enough.cache_compare_and_set(key text, expected jsonb, value jsonb, ttl interval DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_compare_and_set';
COMMENT ON FUNCTION enough.cache_compare_and_set(text, jsonb, jsonb, interval) IS
'Puts a value in the place of one that equals the expected one.
ttl: how long the new entry lives; NULL: until it is evicted. The tags stay.
Returns true where it did, false where there is another value or none, or where cache_set() would be refused. It is decided and stored at once, atomically among sessions, and stays when the transaction rolls back; but where this transaction itself has set the key, the new value waits for the commit as that does.
Fails with 22004 for a NULL key, expected or value, 22023 for a ttl that is not positive and finite, 54000 for a key of more than 512 bytes or a value above enough.cache_max_value.';

CREATE FUNCTION enough.cache_incr(key text, by bigint DEFAULT 1, ttl interval DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_incr';
COMMENT ON FUNCTION enough.cache_incr(text, bigint, interval) IS
'Adds to the number cached under a key; one that is not there counts as 0.
by: may be negative. ttl: how long an entry that this call creates lives; one that is there keeps its expiry.
Returns the new number. It is decided and stored at once, atomically among sessions, so no count is lost, and it stays when the transaction rolls back; but what this transaction itself has set or removed is changed when it commits.
Fails with 22004 for a NULL key or by, 22023 where the entry is not a whole number, the sum does not fit a bigint or the ttl is not positive and finite, 54000 for a key of more than 512 bytes.';

CREATE FUNCTION enough.cache_set_bytes(key text, value bytea, ttl interval DEFAULT NULL, tags text[] DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_set_bytes';
COMMENT ON FUNCTION enough.cache_set_bytes(text, bytea, interval, text[]) IS
'Caches bytes under a key, in place of whatever is there.
ttl: how long the entry lives; NULL: until it is evicted. tags: at most 8, by which cache_invalidate() finds the entry.
Returns true. Shows when cache_set() would, is refused as it is, and fails as it does.';

CREATE FUNCTION enough.cache_get_bytes(key text) RETURNS bytea
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_get_bytes';
COMMENT ON FUNCTION enough.cache_get_bytes(text) IS
'Returns the bytes cached under a key.
NULL where there are none or they have expired.
Fails as cache_get() does; with 22023 where the entry was written by cache_set().';

CREATE FUNCTION enough.cache_fetch(key text, ttl interval, query text, args jsonb DEFAULT NULL, stale_for interval DEFAULT '0',
                            tags text[] DEFAULT NULL) RETURNS jsonb
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_fetch';
COMMENT ON FUNCTION enough.cache_fetch(text, interval, text, jsonb, interval, text[]) IS
'Returns the value cached under a key, or else runs a query and caches its one value.
ttl: how long the value lives from then on; NULL: until it is evicted. query: returns at most one row of one column; run as the caller, with its privileges, search_path and transaction; what is not jsonb becomes it as to_jsonb() does it, and no row, or NULL, becomes a JSON null, which is cached as well. args: what $1 is in the query. stale_for: while one session computes the value anew, others get the expired one for up to that long after its end, instead of waiting. tags: at most 8, by which cache_invalidate() finds the entry.
Concurrent calls for a key run the query once; the others wait for it, as for a lock (in pg_locks an advisory one with objsubid 25966). If it fails, is cancelled or its session ends, the next of them runs its own query; the error is that caller''s. The value is stored at once and stays when the transaction rolls back; but in a transaction that has written it is stored at the commit, since it may be made of rows that others do not see. One that had written before the call makes nobody wait; where the query itself writes, others wait for that commit. A value is not stored where its key, or a tag, was removed since the query began; the caller gets it nevertheless.
Everybody who may call cache_get() can read what is cached, whatever the query needed privileges for.
Fails with what the query fails with; 22004 for a NULL key, query, stale_for or tag among others; 22023 for a query that returns several rows or columns or no result, or needs its own key, for a ttl that is not positive and finite, a stale_for that is negative or infinite, or where the entry was written by cache_set_bytes(); 54000 for a key of more than 512 bytes, a value above enough.cache_max_value, more than 8 tags or one of more than 128 bytes; 40P01 where sessions wait for one another in a circle.';

CREATE FUNCTION enough.cache_invalidate(tag text) RETURNS void
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_invalidate';
COMMENT ON FUNCTION enough.cache_invalidate(text) IS
'Removes all entries with a tag.
In a time that does not depend on their number; their memory returns as it is needed, or by maintain(). Shows in its own transaction at once, to others when that commits, and never if it rolls back. What another session stores with the tag until then is removed, too, and what a transaction computes that began before is refused.
Fails with 22004 for a NULL tag, 54000 for one of more than 128 bytes.';

CREATE FUNCTION enough.cache_clear() RETURNS void
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_clear';
COMMENT ON FUNCTION enough.cache_clear() IS
'Removes all entries of this database.
In a time that does not depend on their number; their memory returns as it is needed, or by maintain(). Shows in its own transaction at once, to others when that commits, and never if it rolls back. What a transaction stores that began before the commit is refused.';

-- A trigger function can't be given a tag as an argument, so it finds it in TG_ARGV.
CREATE FUNCTION enough.cache_invalidate_by_trigger() RETURNS trigger
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
BEGIN
    PERFORM enough.cache_invalidate(TG_ARGV[0]);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION enough.cache_invalidate_by_trigger() IS
'Removes all entries with the tag that is the trigger''s argument.
For triggers that run once a statement; cache_tag_table() makes them. Fails as cache_invalidate() does.';

CREATE FUNCTION enough.cache_tag_table(tbl regclass, tag text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    own_name text := (SELECT c.relname FROM pg_class c WHERE c.oid = tbl);
    chosen text := coalesce(tag, own_name);
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
    END IF;
    EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s '
                   'FOR EACH STATEMENT EXECUTE FUNCTION enough.cache_invalidate_by_trigger(%L)',
                   'enough_cache_tag_' || left(md5(chosen), 16), tbl, chosen);
END $$;
COMMENT ON FUNCTION enough.cache_tag_table(regclass, text) IS
'Makes every INSERT, UPDATE, DELETE and TRUNCATE on a table remove all cache entries with a tag.
tag: the table''s own name, without its schema, if NULL. A table may have several.
Returns nothing. Makes a trigger that runs once a statement, so it takes the right to create triggers on the table; what is changed in a partition itself runs the partition''s triggers, not those of its parent.
Fails with 22004 for a NULL table, 54000 for a tag of more than 128 bytes, 42501 without the right, 42809 for what can have no such trigger, 25006 in a read-only transaction or on a standby.';

CREATE FUNCTION enough.cache_untag_table(tbl regclass) RETURNS void
LANGUAGE plpgsql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name text;
BEGIN
    IF tbl IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
            MESSAGE = 'argument "tbl" must not be NULL', HINT = 'Pass the name of a table.';
    END IF;
    FOR name IN
        SELECT t.tgname FROM pg_trigger t
         WHERE t.tgrelid = tbl AND t.tgfoid = 'enough.cache_invalidate_by_trigger()'::regprocedure
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', name, tbl);
    END LOOP;
END $$;
COMMENT ON FUNCTION enough.cache_untag_table(regclass) IS
'Undoes cache_tag_table(), for all tags of a table.
Returns nothing, also where there is nothing to undo.
Fails with 22004 for a NULL table, 42501 for a table that is not the caller''s, 25006 in a read-only transaction or on a standby.';

CREATE FUNCTION enough.cache_stats(OUT entries bigint, OUT bytes_used bigint, OUT bytes_max bigint, OUT hits bigint,
                            OUT misses bigint, OUT sets bigint, OUT deletes bigint, OUT evictions bigint,
                            OUT expirations bigint, OUT stale_fills_refused bigint, OUT fetch_waits bigint) RETURNS record
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_cache_stats';
COMMENT ON FUNCTION enough.cache_stats() IS
'Returns what the cache of this server holds and has done since its memory was made, in all databases.
entries and bytes_used: now, heads of entries included; bytes_max: what could be used; hits and misses: of reads of committed entries; sets: values stored; deletes: entries removed by their key; evictions: entries that gave way to others; expirations: entries removed because they had expired, been cleared or been invalidated; stale_fills_refused: values not stored because they may have been computed before their key or tag was removed; fetch_waits: calls of cache_fetch() that waited for the value that another computed.
May be called by members of pg_monitor.';
REVOKE ALL ON FUNCTION enough.cache_stats() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION enough.cache_stats() TO pg_monitor;

-- Rate limits. Their state is in the server's shared memory, not in tables: nothing here writes a row, so all of it
-- works in read-only transactions and on standbys, and what was consumed stays consumed when the caller rolls back.
--
-- All are VOLATILE, because their results change within a statement, and PARALLEL UNSAFE, because they change shared
-- state. All are CALLED ON NULL INPUT: NULL is an error that names the argument, or means a default.

CREATE FUNCTION enough.rate_limit(
    key text, max_requests integer, period interval, cost integer DEFAULT 1,
    algorithm text DEFAULT 'sliding_window', burst integer DEFAULT NULL,
    OUT allowed boolean, OUT remaining bigint, OUT retry_after interval, OUT reset_after interval) RETURNS record
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_rate_limit';
COMMENT ON FUNCTION enough.rate_limit(text, integer, interval, integer, text, integer) IS
'Consumes cost of what a key is allowed, max_requests per period, or nothing where less is left.
key: up to 512 bytes. max_requests: 1 to 10^9. period: 1 ms to 366 days. cost: 0 to 10^9; 0 consumes nothing and answers as rate_limit_peek(). algorithm: ''sliding_window'', ''fixed_window'' or ''token_bucket''. burst: the capacity of a token bucket, 1 to 10^9; NULL: max_requests. What was consumed is counted by key, algorithm and period; max_requests and burst may differ from call to call and apply to all that was consumed so far.
Returns one row. allowed. remaining: how many more of cost 1 would be allowed now. retry_after: how long until the same call would be allowed; 0 where it was, NULL where it never can be because cost is above the capacity. reset_after: how long until the key is as good as new. A denied call consumes nothing; what an allowed one has consumed stays consumed when its transaction rolls back.
Fails with 22004 for a NULL key, max_requests, period, cost or algorithm, 22023 for an argument out of range, another algorithm, or a burst without a token bucket, 54000 for a key of more than 512 bytes.';

CREATE FUNCTION enough.rate_limit_peek(
    key text, max_requests integer, period interval, algorithm text DEFAULT 'sliding_window', burst integer DEFAULT NULL,
    OUT allowed boolean, OUT remaining bigint, OUT retry_after interval, OUT reset_after interval) RETURNS record
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_rate_limit_peek';
COMMENT ON FUNCTION enough.rate_limit_peek(text, integer, interval, text, integer) IS
'Tells what rate_limit() with a cost of 1 would find, and consumes nothing.
Arguments as of rate_limit().
Returns one row: allowed and retry_after as that call would return them; remaining and reset_after as they are without it.
Fails as rate_limit() does.';

CREATE FUNCTION enough.rate_limit_refund(
    key text, max_requests integer, period interval, amount integer DEFAULT 1,
    algorithm text DEFAULT 'sliding_window', burst integer DEFAULT NULL,
    OUT allowed boolean, OUT remaining bigint, OUT retry_after interval, OUT reset_after interval) RETURNS record
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_rate_limit_refund';
COMMENT ON FUNCTION enough.rate_limit_refund(text, integer, interval, integer, text, integer) IS
'Gives back what a key has consumed, say because the work it was consumed for has failed.
amount: 0 to 10^9; where less was consumed and still counts, all of that. The others as of rate_limit(). A sliding window takes it from its current bucket first.
Returns one row as rate_limit_peek() then would. It is not undone by a rollback.
Fails as rate_limit() does.';

CREATE FUNCTION enough.rate_limit_up_to(
    key text, max_requests integer, period interval, cost integer DEFAULT 1,
    algorithm text DEFAULT 'sliding_window', burst integer DEFAULT NULL,
    OUT granted integer, OUT allowed boolean, OUT remaining bigint, OUT retry_after interval, OUT reset_after interval) RETURNS record
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_rate_limit_up_to';
COMMENT ON FUNCTION enough.rate_limit_up_to(text, integer, interval, integer, text, integer) IS
'Consumes as much of cost as a key is still allowed.
Arguments as of rate_limit().
Returns one row. granted: how much was consumed, 0 to cost. allowed: whether that is all of cost. retry_after: how long until all of cost would be granted at once, nothing else consuming. The others as of rate_limit().
Fails as rate_limit() does.';

CREATE FUNCTION enough.rate_limit_all(
    keys text[], max_requests integer[], periods interval[], cost integer DEFAULT 1,
    algorithm text DEFAULT 'sliding_window',
    OUT key text, OUT allowed boolean, OUT remaining bigint, OUT retry_after interval, OUT reset_after interval)
RETURNS SETOF record
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 3 AS 'MODULE_PATHNAME', 'enough_rate_limit_all';
COMMENT ON FUNCTION enough.rate_limit_all(text[], integer[], interval[], integer, text) IS
'Consumes cost of what each of several keys is allowed, or nothing of any where one has less left.
keys: up to 100, of up to 512 bytes each; max_requests and periods: one for each key. A key may come several times, with several periods, say. cost and algorithm: as of rate_limit(), the same for all.
Returns a row a key, in the order of keys. allowed: whether each of them has consumed cost; the same in all rows. The others as of rate_limit(); where nothing was consumed, retry_after is how long until that key would no longer be in the way, 0 for those that are not, and the longest of them is how long to wait. A cost of 0 consumes nothing and answers as a peek.
Fails as rate_limit() does, and with 22004 for a NULL in an array, 22023 for arrays of different lengths or two max_requests for the same key and period, 54000 for more than 100 keys.';

CREATE FUNCTION enough.rate_limit_reset(key text) RETURNS boolean
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_rate_limit_reset';
COMMENT ON FUNCTION enough.rate_limit_reset(text) IS
'Forgets all that a key has consumed, under every algorithm and period.
key: up to 512 bytes.
Returns true where there was something to forget. It is not undone by a rollback.
Fails with 22004 for a NULL key, 54000 for one of more than 512 bytes.';

CREATE FUNCTION enough.rate_limit_stats(
    OUT keys bigint, OUT bytes_used bigint, OUT bytes_max bigint, OUT allowed bigint, OUT denied bigint,
    OUT evictions bigint, OUT evictions_of_active bigint) RETURNS record
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_rate_limit_stats';
COMMENT ON FUNCTION enough.rate_limit_stats() IS
'Returns what the rate limiter of this server holds and has done since its memory was made, in all databases.
keys: states now, one per key, algorithm and period, those included that are as good as new and will be removed by maintain() or when room is needed; bytes_used: by them; bytes_max: by enough.rate_limit_memory; allowed and denied: calls that consumed something, and calls that got nothing; evictions: states that gave way to others; evictions_of_active: those of them that were not as good as new.
May be called by members of pg_monitor.';
REVOKE ALL ON FUNCTION enough.rate_limit_stats() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION enough.rate_limit_stats() TO pg_monitor;

-- In PL/pgSQL, because PT429 isn't among the SQLSTATEs that a Rust function can raise; what it costs over rate_limit()
-- is a microsecond. Without a search_path of its own, which would cost another: every name is qualified.
CREATE FUNCTION enough.rate_limit_enforce(
    key text, max_requests integer, period interval, cost integer DEFAULT 1,
    algorithm text DEFAULT 'sliding_window', burst integer DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS $$
DECLARE
    answer record;
BEGIN
    SELECT * INTO STRICT answer FROM enough.rate_limit($1, $2, $3, $4, $5, $6);
    IF answer.allowed THEN
        RETURN;
    ELSIF answer.retry_after IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'PT429',
            MESSAGE = pg_catalog.format('rate limit of key "%s" exceeded: %s is more than can ever be had at once', $1, $4),
            DETAIL = 'never',
            HINT = 'Ask for less at a time.';
    ELSE
        RAISE EXCEPTION USING ERRCODE = 'PT429',
            MESSAGE = pg_catalog.format('rate limit of key "%s" exceeded: %s left of %s per %s', $1, answer.remaining, $2, $3),
            DETAIL = EXTRACT(epoch FROM answer.retry_after)::pg_catalog.text,
            HINT = 'Retry after as many seconds as the detail says.';
    END IF;
END $$;
COMMENT ON FUNCTION enough.rate_limit_enforce(text, integer, interval, integer, text, integer) IS
'Consumes cost of what a key is allowed, or raises an error where less is left.
Arguments as of rate_limit().
Returns nothing. The count survives the rollback that the error causes.
Fails with PT429, which PostgREST turns into HTTP 429, where the limit is exceeded: DETAIL is retry_after in seconds, or never where cost is above the capacity. Otherwise as rate_limit() does.';

CREATE TABLE enough.rate_limit_policy (
    name         text PRIMARY KEY,
    max_requests integer NOT NULL,
    period       interval NOT NULL,
    algorithm    text NOT NULL,
    burst        integer,
    shadow       boolean NOT NULL
);
COMMENT ON TABLE enough.rate_limit_policy IS
'The policies of rate_limit_by(). Written by rate_limit_policy_set() and rate_limit_policy_drop(); burst NULL is max_requests.';
-- Whoever calls rate_limit_by() has to read its policy; who may write one is for the owner to grant.
GRANT SELECT ON enough.rate_limit_policy TO PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('enough.rate_limit_policy', '');

CREATE FUNCTION enough.rate_limit_policy_set(
    name text, max_requests integer, period interval, algorithm text DEFAULT 'sliding_window',
    burst integer DEFAULT NULL, shadow boolean DEFAULT false) RETURNS void
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_rate_limit_policy_set';
COMMENT ON FUNCTION enough.rate_limit_policy_set(text, integer, interval, text, integer, boolean) IS
'Defines a policy of rate_limit_by(), or changes it; calls find it so from the commit on, and apply it to what was consumed so far.
name: 1 to 63 bytes. max_requests, period, algorithm and burst: as of rate_limit(). shadow: the policy allows everything and is counted as if it did not, to see in rate_limit_stats() and in remaining what it would do.
Returns nothing. Needs INSERT and UPDATE on enough.rate_limit_policy, which the extension''s owner may grant.
Fails with 22004 for NULL but in burst, 22023 as rate_limit() does or for a malformed name, 25006 in a read-only transaction or on a standby, 42501 without the privileges.';

CREATE FUNCTION enough.rate_limit_policy_drop(name text) RETURNS boolean
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_rate_limit_policy_drop';
COMMENT ON FUNCTION enough.rate_limit_policy_drop(text) IS
'Removes a policy of rate_limit_by().
Returns true where there was one. Needs DELETE on enough.rate_limit_policy, which the extension''s owner may grant. What was consumed under it is forgotten with time; until then a policy defined anew under that name finds it.
Fails with 22004 for a NULL name, 22023 for a malformed one, 25006 in a read-only transaction or on a standby, 42501 without the privilege.';

CREATE FUNCTION enough.rate_limit_by(
    policy text, key text, cost integer DEFAULT 1,
    OUT allowed boolean, OUT remaining bigint, OUT retry_after interval, OUT reset_after interval) RETURNS record
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_rate_limit_by';
COMMENT ON FUNCTION enough.rate_limit_by(text, text, integer) IS
'Consumes cost of what a policy allows a key, or nothing where less is left.
policy: as defined by rate_limit_policy_set(). key and cost: as of rate_limit(). A policy''s keys are its own: what is consumed of the same key under another policy, or by rate_limit(), does not count here, and rate_limit_reset() does not touch it.
Returns one row as rate_limit() does; under a policy in shadow mode, allowed is always true and retry_after 0.
Fails with 42704 where there is no such policy, otherwise as rate_limit() does.';

CREATE FUNCTION enough.rate_limit_headers(
    key text, max_requests integer, period interval, algorithm text DEFAULT 'sliding_window', burst integer DEFAULT NULL)
RETURNS jsonb
LANGUAGE sql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
BEGIN ATOMIC
    -- A token bucket of another capacity is, in the terms of the fields, that quota in the time that refills it.
    SELECT pg_catalog.jsonb_build_object(
        'RateLimit', pg_catalog.format('"default";r=%s;t=%s', found.remaining,
            pg_catalog.ceil(EXTRACT(epoch FROM found.reset_after))),
        'RateLimit-Policy', pg_catalog.format('"default";q=%s;w=%s', COALESCE($5, $2),
            pg_catalog.ceil(EXTRACT(epoch FROM $3) OPERATOR(pg_catalog.*) COALESCE($5, $2)::numeric OPERATOR(pg_catalog./) NULLIF($2, 0)::numeric)))
    FROM enough.rate_limit_peek($1, $2, $3, $4, $5) AS found;
END;
COMMENT ON FUNCTION enough.rate_limit_headers(text, integer, interval, text, integer) IS
'Tells how a key stands in the fields RateLimit and RateLimit-Policy of HTTP (IETF draft-ietf-httpapi-ratelimit-headers), and consumes nothing.
Arguments as of rate_limit_peek().
Returns an object with the two fields. r: how many more of cost 1 would be allowed now; t: seconds until the key is as good as new; q: the quota, max_requests or the burst of a token bucket; w: the seconds it is for. Seconds are rounded up.
Fails as rate_limit() does.';

-- The queue. Each queue has two plain tables of its own, q_<name> and a_<name>, made by queue_create and owned by its
-- caller; they are not members of the extension, so that pg_dump treats them like any table.

CREATE TABLE enough.queue (
    name               text PRIMARY KEY,
    created_at         timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    visibility_timeout interval NOT NULL,
    max_attempts       int NOT NULL,
    retry_backoff      interval NOT NULL,
    retry_backoff_max  interval NOT NULL,
    max_in_flight      int,
    max_rate           int,
    rate_period        interval NOT NULL,
    archive_for        interval,
    paused             boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE enough.queue IS
'The queues of this database and their options. Written by queue_create, queue_alter, queue_pause, queue_resume and queue_drop. NULL is no limit (archive_for: keeps the archive for ever); max_attempts 0 is no limit.';
-- Whoever may use a queue has to know its options; payloads are in its own tables.
GRANT SELECT ON enough.queue TO PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('enough.queue', '');

CREATE TYPE enough.queue_message AS (
    msg_id       bigint,
    attempts     int,
    enqueued_at  timestamptz,
    leased_until timestamptz,
    lease        bigint,
    priority     smallint,
    group_key    text,
    headers      jsonb,
    message      jsonb
);
COMMENT ON TYPE enough.queue_message IS
'A message as queue_read, queue_pop and queue_peek return it. attempts counts this delivery: 1 the first time. lease is the number that fences queue_delete, queue_archive, queue_fail and queue_extend; NULL, like leased_until, where the message is deleted already.';

CREATE FUNCTION enough.queue_create(
    name text,
    visibility_timeout interval DEFAULT '30 seconds',
    max_attempts int DEFAULT 10,
    retry_backoff interval DEFAULT '1 second',
    retry_backoff_max interval DEFAULT '1 hour',
    max_in_flight int DEFAULT NULL,
    max_rate int DEFAULT NULL,
    rate_period interval DEFAULT '1 second',
    archive_for interval DEFAULT '7 days',
    unlogged boolean DEFAULT false,
    if_not_exists boolean DEFAULT false
) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_create';
COMMENT ON FUNCTION enough.queue_create IS
'Creates a queue: the tables enough."q_<name>" and enough."a_<name>", owned by the caller.
Returns true, or false where it exists and if_not_exists is true. A message that is read is leased for visibility_timeout (1 ms to 366 days); after max_attempts deliveries it moves to the archive as dead. A delivery whose transaction is rolled back rests for retry_backoff x 2^(attempts-1), +/-10 %, at most retry_backoff_max. max_in_flight: at most so many are leased at the same time, NULL or 0 for no limit. max_rate: at most so many are delivered in a rate_period (1 ms to 366 days), NULL or 0 for no limit. archive_for: how long the archive is kept, NULL or 0 for ever. unlogged: faster, emptied by a crash. A name is 1 to 48 letters, digits, _ . or -, the first a letter or _. Needs CREATE on the schema enough.
Fails with 42710 (exists), 22023 (name or option out of range), 42501.';

CREATE FUNCTION enough.queue_drop(name text, if_exists boolean DEFAULT false) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_drop';
COMMENT ON FUNCTION enough.queue_drop IS
'Drops a queue with its messages and its archive.
Returns true, or false where there is none and if_exists is true. Needs to own the table.
Fails with 42704 (no such queue), 42501.';

CREATE FUNCTION enough.queue_alter(
    name text,
    visibility_timeout interval DEFAULT NULL,
    max_attempts int DEFAULT NULL,
    retry_backoff interval DEFAULT NULL,
    retry_backoff_max interval DEFAULT NULL,
    max_in_flight int DEFAULT NULL,
    max_rate int DEFAULT NULL,
    rate_period interval DEFAULT NULL,
    archive_for interval DEFAULT NULL,
    unlogged boolean DEFAULT NULL
) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_alter';
COMMENT ON FUNCTION enough.queue_alter IS
'Changes options of a queue; every session goes by them when the transaction commits.
Returns nothing. The options are those of queue_create; NULL leaves one as it is; 0 is no limit for max_attempts, max_in_flight, max_rate and archive_for. unlogged rewrites the tables. Needs to own the table.
Fails with 42704 (no such queue), 22004 (NULL name), 22023 (out of range), 25006 (read-only), 42501.';

CREATE FUNCTION enough.queue_pause(name text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_pause';
COMMENT ON FUNCTION enough.queue_pause IS
'Pauses a queue: when the transaction commits, reads return nothing. Sends go on, and what is leased can be finished.
Returns nothing. Needs to own the table.
Fails with 42704 (no such queue), 22004 (NULL), 25006 (read-only), 42501.';

CREATE FUNCTION enough.queue_resume(name text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_resume';
COMMENT ON FUNCTION enough.queue_resume IS
'Lets a paused queue go on: when the transaction commits, waiting readers get what is ready.
Returns nothing. Needs to own the table.
Fails with 42704 (no such queue), 22004 (NULL), 25006 (read-only), 42501.';

CREATE FUNCTION enough.queue_purge(name text) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_purge';
COMMENT ON FUNCTION enough.queue_purge IS
'Deletes all live messages of a queue, leased and delayed ones too; the archive stays.
Returns how many went. Needs SELECT and DELETE on the table.
Fails with 42704 (no such queue), 22004 (NULL), 25006 (read-only), 40001 (changed concurrently, above READ COMMITTED), 42501.';

CREATE FUNCTION enough.queue_list() RETURNS TABLE (
    name text,
    created_at timestamptz,
    visibility_timeout interval,
    max_attempts int,
    retry_backoff interval,
    retry_backoff_max interval,
    max_in_flight int,
    max_rate int,
    rate_period interval,
    archive_for interval,
    unlogged boolean,
    paused boolean
)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 10
BEGIN ATOMIC
    SELECT q.name, q.created_at, q.visibility_timeout, q.max_attempts, q.retry_backoff, q.retry_backoff_max,
           q.max_in_flight, q.max_rate, q.rate_period, q.archive_for, c.relpersistence OPERATOR(pg_catalog.=) 'u', q.paused
      FROM enough.queue AS q
      JOIN pg_catalog.pg_class AS c
        ON c.relname OPERATOR(pg_catalog.=) ('q_'::pg_catalog.text OPERATOR(pg_catalog.||) q.name)::pg_catalog.name
       AND c.relnamespace OPERATOR(pg_catalog.=) (SELECT n.oid FROM pg_catalog.pg_namespace AS n WHERE n.nspname OPERATOR(pg_catalog.=) 'enough')
     ORDER BY q.name;
END;
COMMENT ON FUNCTION enough.queue_list IS
'Lists the queues of this database with their options.
Returns a row a queue; NULL (of max_attempts: 0) is no limit. Whoever may use the schema may call it.';

CREATE FUNCTION enough.queue_send(
    queue text,
    message jsonb,
    delay interval DEFAULT '0',
    priority int DEFAULT 0,
    group_key text DEFAULT NULL,
    dedup_key text DEFAULT NULL,
    headers jsonb DEFAULT NULL,
    deliver_at timestamptz DEFAULT NULL
) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_send';
COMMENT ON FUNCTION enough.queue_send IS
'Sends a message; readers see it when the transaction commits.
Returns its msg_id. Not delivered before delay (0 to 10 years) is over, or before deliver_at; only one of the two may be given. priority: 0 to 9, higher first. group_key: messages of a group are delivered one after the other. dedup_key: where a live message has it, that one''s msg_id is returned and nothing stored; waits for a transaction that is sending or finishing it. Both at most 512 bytes. headers: a second payload, for the consumer''s own use. Needs INSERT on the table.
Fails with 42704 (no such queue), 22004 (NULL), 22023 (out of range), 54000 (key too long), 25006 (read-only), 40001 (dedup_key sent concurrently, above READ COMMITTED), 42501.';

CREATE FUNCTION enough.queue_send_batch(
    queue text,
    messages jsonb[],
    delay interval DEFAULT '0',
    priority int DEFAULT 0,
    group_keys text[] DEFAULT NULL,
    dedup_keys text[] DEFAULT NULL,
    headers jsonb[] DEFAULT NULL,
    deliver_at timestamptz DEFAULT NULL
) RETURNS SETOF bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_send_batch';
COMMENT ON FUNCTION enough.queue_send_batch IS
'Sends 1 to 10,000 messages.
Returns their msg_ids in input order. group_keys, dedup_keys, headers: one element a message. The other arguments and errors are those of queue_send; 54000 for a larger batch.';

CREATE FUNCTION enough.queue_read(
    queue text,
    qty int DEFAULT 1,
    visibility_timeout interval DEFAULT NULL,
    wait interval DEFAULT '0'
) RETURNS SETOF enough.queue_message
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 10 AS 'MODULE_PATHNAME', 'enough_queue_read';
COMMENT ON FUNCTION enough.queue_read IS
'Leases up to qty (1 to 10,000) ready messages to the caller and returns them; writes nothing on a first delivery, unless leases nearly fill enough.queue_memory: then they are written to the messages'' rows, and fewer messages than are ready may be returned.
For visibility_timeout (NULL: the queue''s own) nobody else gets them; then, or when the transaction is rolled back, they are delivered again. Where none is ready, waits up to wait (0 to 1 hour) for the first. Needs SELECT and DELETE on the table.
Fails with 42704 (no such queue), 22004 (NULL), 22023 (out of range), 25006 (standby), 54000 (enough.queue_memory is full of leases, and they can''t be written to rows), 42501.';

CREATE FUNCTION enough.queue_pop(queue text, qty int DEFAULT 1, wait interval DEFAULT '0')
RETURNS SETOF enough.queue_message
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 10 AS 'MODULE_PATHNAME', 'enough_queue_pop';
COMMENT ON FUNCTION enough.queue_pop IS
'Reads and deletes up to qty messages in one: they are gone when the transaction commits, and delivered again when it is rolled back. lease and leased_until are NULL. The other arguments and errors are those of queue_read; 25006 also in a read-only transaction.';

CREATE FUNCTION enough.queue_peek(queue text, qty int DEFAULT 10, state text DEFAULT 'ready')
RETURNS SETOF enough.queue_message
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 10 AS 'MODULE_PATHNAME', 'enough_queue_peek';
COMMENT ON FUNCTION enough.queue_peek IS
'Shows up to qty (1 to 10,000) messages in a state without taking them: ready (the next to be read first), leased, delayed, done or dead (the last to end first).
Returns them as queue_read does, but attempts counts deliveries so far, and counts none. lease and leased_until are NULL where none runs. Needs SELECT on the table.
Fails with 42704 (no such queue), 22004 (NULL), 22023 (out of range), 42501.';

CREATE FUNCTION enough.queue_delete(queue text, msg_id bigint, lease bigint DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_delete';
COMMENT ON FUNCTION enough.queue_delete IS
'Deletes a message: it is done.
Returns false where there is none, or where lease is given and isn''t the current one. Until the transaction ends nobody else gets the message; a rollback leaves it as it was. Needs SELECT and DELETE on the table.
Fails with 42704 (no such queue), 22004 (NULL), 25006 (read-only), 40001 (changed concurrently, above READ COMMITTED), 42501.';

CREATE FUNCTION enough.queue_delete_batch(queue text, msg_ids bigint[]) RETURNS SETOF bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_delete_batch';
COMMENT ON FUNCTION enough.queue_delete_batch IS
'Deletes 1 to 10,000 messages.
Returns the msg_ids of those that were there. Errors are those of queue_delete; 54000 for a larger batch.';

CREATE FUNCTION enough.queue_archive(queue text, msg_id bigint, result jsonb DEFAULT NULL, lease bigint DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_archive';
COMMENT ON FUNCTION enough.queue_archive IS
'Moves a message to the archive: it is done, and kept there, with what came of it, for archive_for.
Returns false where there is none, or where lease is given and isn''t the current one. Until the transaction ends nobody else gets the message; a rollback leaves it as it was. Needs SELECT and DELETE on the table.
Fails with 42704 (no such queue), 22004 (NULL), 25006 (read-only), 40001 (changed concurrently, above READ COMMITTED), 42501.';

CREATE FUNCTION enough.queue_archive_batch(queue text, msg_ids bigint[]) RETURNS SETOF bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_archive_batch';
COMMENT ON FUNCTION enough.queue_archive_batch IS
'Moves 1 to 10,000 messages to the archive: they are done.
Returns the msg_ids of those that were there. Errors are those of queue_archive; 22023 for an empty batch, 54000 for a larger one.';

CREATE FUNCTION enough.queue_extend(queue text, msg_id bigint, visibility_timeout interval, lease bigint DEFAULT NULL)
RETURNS timestamptz
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_extend';
COMMENT ON FUNCTION enough.queue_extend IS
'The heartbeat: lets a lease end visibility_timeout (0 to 366 days) from now; 0 gives the message back at once.
Takes effect at once, also where the transaction is rolled back. Returns when the lease ends, or NULL where the message isn''t leased, or not by that lease. Needs SELECT and DELETE on the table.
Fails with 42704 (no such queue), 22004 (NULL), 22023 (out of range), 42501.';

CREATE FUNCTION enough.queue_fail(
    queue text,
    msg_id bigint,
    error text DEFAULT NULL,
    retry_in interval DEFAULT NULL,
    lease bigint DEFAULT NULL
) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_fail';
COMMENT ON FUNCTION enough.queue_fail IS
'Says that a delivery has failed, and why: the message rests for retry_in (0 to 10 years; NULL: retry_backoff x 2^(attempts-1), +/-10 %, at most retry_backoff_max) and is delivered again, or is dead after max_attempts deliveries. The rest, the attempts and the error are durable.
Returns ''retry'' or ''dead'', or NULL where there is no such message, or where lease is given and isn''t the current one. Until the transaction ends nobody else gets the message; a rollback leaves it as it was. Needs SELECT and DELETE on the table.
Fails with 42704 (no such queue), 22004 (NULL), 22023 (out of range), 25006 (read-only), 40001 (changed concurrently, above READ COMMITTED), 42501.';

CREATE FUNCTION enough.queue_status(queue text, msg_id bigint) RETURNS TABLE (
    state text,
    attempts int,
    deliver_at timestamptz,
    leased_until timestamptz,
    finished_at timestamptz,
    error text,
    result jsonb
)
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 1 AS 'MODULE_PATHNAME', 'enough_queue_status';
COMMENT ON FUNCTION enough.queue_status IS
'Says how a message stands: ready, leased, delayed (until deliver_at), done or dead.
Returns one row, or none where the message was deleted or never was. attempts: deliveries so far; error: why the last one failed. A message that an open transaction is finishing is leased. Needs SELECT on the table.
Fails with 42704 (no such queue), 22004 (NULL), 42501.';

CREATE FUNCTION enough.queue_dead(queue text, qty int DEFAULT 100) RETURNS TABLE (
    msg_id bigint,
    attempts int,
    error text,
    died_at timestamptz,
    headers jsonb,
    message jsonb
)
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 100 AS 'MODULE_PATHNAME', 'enough_queue_dead';
COMMENT ON FUNCTION enough.queue_dead IS
'Shows up to qty (1 to 10,000) dead letters, those that died last first.
Returns a row a message. Needs SELECT on the queue''s table.
Fails with 42704 (no such queue), 22004 (NULL), 22023 (out of range), 42501.';

CREATE FUNCTION enough.queue_redrive(queue text, msg_ids bigint[] DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_redrive';
COMMENT ON FUNCTION enough.queue_redrive IS
'Moves dead letters back to the queue, ready when the transaction commits: those of msg_ids (1 to 10,000), or all. They keep their msg_id and their last error, and have no attempts behind them.
Returns how many went. One whose dedup_key a live message has stays dead. Needs SELECT and DELETE on the table.
Fails with 42704 (no such queue), 22004 (NULL element), 22023 (empty array), 54000 (too many), 25006 (read-only), 40001 (changed concurrently, above READ COMMITTED), 42501.';

CREATE FUNCTION enough.queue_grant(queue text, role regrole, what text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_grant';
COMMENT ON FUNCTION enough.queue_grant IS
'Lets a role use a queue: send (INSERT on its table), consume (SELECT and DELETE), observe (SELECT) or all of it.
Returns nothing. Needs the right to grant those privileges on the table.
Fails with 42704 (no such queue or role), 22004 (NULL), 22023 (what is none of these), 25006 (read-only), 42501.';

CREATE FUNCTION enough.queue_revoke(queue text, role regrole, what text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_revoke';
COMMENT ON FUNCTION enough.queue_revoke IS
'Takes from a role what queue_grant gives: send, consume, observe or all. SELECT is part of consume and of observe, so taking one takes the other.
Returns nothing. Needs the right to grant those privileges on the table.
Fails with 42704 (no such queue or role), 22004 (NULL), 22023 (what is none of these), 25006 (read-only), 42501.';

CREATE FUNCTION enough.queue_schedule(
    name text,
    schedule text,
    queue text,
    message jsonb,
    delay interval DEFAULT '0',
    priority int DEFAULT 0,
    group_key text DEFAULT NULL,
    dedup_key text DEFAULT NULL,
    headers jsonb DEFAULT NULL
) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_schedule';
COMMENT ON FUNCTION enough.queue_schedule IS
'Lets pg_cron send a message by that schedule, as the calling role; replaces the caller''s schedule of that name.
Returns the job''s number. A name is what a queue''s may be. The other arguments are those of queue_send: a dedup_key keeps a message from being sent while the last one lives. Needs INSERT on the table.
Fails with 55000 where pg_cron is not in this database, 42704 (no such queue), 22004 (NULL), 22023 (out of range, or no schedule), 54000 (key too long), 42501.';

CREATE FUNCTION enough.queue_unschedule(name text) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_unschedule';
COMMENT ON FUNCTION enough.queue_unschedule IS
'Ends what queue_schedule began.
Returns whether there was such a schedule that the role may end.
Fails with 55000 where pg_cron is not in this database, 22004 (NULL), 22023 (no name).';

CREATE FUNCTION enough.queue_schedules() RETURNS TABLE (
    name text,
    schedule text,
    queue text,
    command text,
    active boolean,
    last_run timestamptz,
    last_status text
)
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 10 AS 'MODULE_PATHNAME', 'enough_queue_schedules';
COMMENT ON FUNCTION enough.queue_schedules IS
'Lists what queue_schedule has made in this database, as far as the role may see it.
Returns a row a schedule: the statement that pg_cron runs, when it ran last, and what came of it (succeeded, failed, running); NULL where it has not run.
Fails with 55000 where pg_cron is not in this database, 42501 (no right to see its jobs).';

CREATE TYPE enough.queue_statistics AS (
    queue           text,
    ready           bigint,
    leased          bigint,
    delayed         bigint,
    dead            bigint,
    archived        bigint,
    oldest_ready    interval,
    sent_total      bigint,
    delivered_total bigint,
    finished_total  bigint,
    failed_total    bigint,
    paused          boolean
);
COMMENT ON TYPE enough.queue_statistics IS
'What a queue holds and has seen, as queue_stats returns it. (A type, because a result column may not be called like an argument.)';

CREATE FUNCTION enough.queue_stats(queue text DEFAULT NULL) RETURNS SETOF enough.queue_statistics
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 10 AS 'MODULE_PATHNAME', 'enough_queue_stats';
COMMENT ON FUNCTION enough.queue_stats IS
'What queues hold (ready, leased, delayed, dead, archived, age of the oldest ready message) and have seen since the server''s last start (sent, delivered, finished, failed: by queue_fail or because the lease ran out).
NULL: every queue that the role may see. Costs the same at ten messages and at ten million, but for the first call after a start, which counts. Leases that are in the messages'' rows, because enough.queue_memory was full, count as delayed. Needs SELECT on the table.
Fails with 42704 (no such queue), 42501.';

-- Maintenance: what time asks for and no call has done yet.

CREATE FUNCTION enough.maintain(
    max_duration interval DEFAULT '10 seconds',
    OUT task text,
    OUT items bigint,
    OUT elapsed interval,
    OUT note text
) RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 5 AS 'MODULE_PATHNAME', 'enough_maintain';
COMMENT ON FUNCTION enough.maintain IS
'Does what time asks for: finds messages that got into a queue''s table by COPY, restore or replication, removes archive rows past archive_for, forgets queues whose tables are gone, frees expired cache entries and rate limits.
Stops after max_duration. Returns a row a task: what it did, how many items, how long, and a note where it did not come to its end. Safe at any time, many at once; blocks no send and no read. Acts on what the calling role may see.
Fails with 22004 (NULL), 22023 (negative).';

CREATE FUNCTION enough.maintenance_schedule(schedule text DEFAULT '* * * * *') RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_maintenance_schedule';
COMMENT ON FUNCTION enough.maintenance_schedule IS
'Lets pg_cron run enough.maintain() in this database by that schedule, as the calling role; replaces the schedule of an earlier call.
Returns the job''s number.
Fails with 55000 where pg_cron is not in this database (the HINT has the line for the system''s cron), 22004 (NULL), 22023 (empty).';

CREATE FUNCTION enough.maintenance_unschedule() RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_maintenance_unschedule';
COMMENT ON FUNCTION enough.maintenance_unschedule IS
'Ends what maintenance_schedule began.
Returns whether there was a job.
Fails with 55000 where pg_cron is not in this database.';

CREATE FUNCTION enough.status(OUT item text, OUT value text) RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 12 AS 'MODULE_PATHNAME', 'enough_status';
COMMENT ON FUNCTION enough.status IS
'Says how pg_enough is: its version, how the shared memory was found and how large and old it is, its partitions and how often one was found damaged and emptied, and warnings.
No payloads.
Fails with 55000 where there is no shared memory.';


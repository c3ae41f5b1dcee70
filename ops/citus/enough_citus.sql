-- pg_enough on Citus: the functions by their own names, each on the node of its key or queue.
-- Written by `cargo xtask reference`; docs/scaling.md says how it is used, and what it doesn't promise.
-- To be run on the coordinator, in a database with the extensions citus and pg_enough; again after pg_enough was updated:
-- the slots, and so the places of keys, stay.

\set ON_ERROR_STOP on
BEGIN;
SET LOCAL client_min_messages = warning;
SET LOCAL citus.multi_shard_modify_mode = 'sequential';
SET LOCAL citus.enable_schema_based_sharding = off;
-- With a copy of a slot on another node, what a call does would be done there as well, or instead.
SET LOCAL citus.shard_replication_factor = 1;
CREATE SCHEMA IF NOT EXISTS enough_citus;
GRANT USAGE ON SCHEMA enough_citus TO PUBLIC;

-- A key belongs to a slot, and a slot to the node that has its row. No row is ever marked: an UPDATE of the marked ones tells
-- Citus that the transaction writes there, so that it commits in two phases where it writes on another node, too.
CREATE TABLE IF NOT EXISTS enough_citus.node (slot integer PRIMARY KEY, mark boolean NOT NULL DEFAULT false CHECK (NOT mark));
SELECT create_distributed_table('enough_citus.node', 'slot', colocate_with => 'none', shard_count => 32)
WHERE NOT EXISTS (SELECT FROM pg_dist_partition AS p WHERE p.logicalrelid = 'enough_citus.node'::regclass);
INSERT INTO enough_citus.node (slot) SELECT generate_series(0, 255) ON CONFLICT (slot) DO NOTHING;
GRANT SELECT, UPDATE ON enough_citus.node TO PUBLIC;

-- What an older version of this has made.
DO $$
DECLARE
    one record;
BEGIN
    FOR one IN SELECT p.oid::regprocedure AS name FROM pg_proc AS p WHERE p.pronamespace = 'enough_citus'::regnamespace LOOP
        EXECUTE format('DROP FUNCTION %s', one.name);
    END LOOP;
    FOR one IN SELECT c.relname AS name FROM pg_class AS c WHERE c.relnamespace = 'enough_citus'::regnamespace AND c.relkind = 'c' LOOP
        EXECUTE format('DROP TYPE enough_citus.%I', one.name);
    END LOOP;
END $$;

-- NULL goes to some node, which says what is wrong with it.
CREATE FUNCTION enough_citus._slot(key text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT coalesce(hashtext($1), 0) & 255';

-- A slot of each node that has any.
CREATE FUNCTION enough_citus._slots() RETURNS TABLE(slot integer, node integer)
LANGUAGE sql STABLE AS $$
SELECT min(n), p.groupid
FROM generate_series(0, 255) AS n
JOIN pg_dist_placement AS p ON p.shardid = get_shard_id_for_distribution_column('enough_citus.node', n)
GROUP BY p.groupid
ORDER BY p.groupid
$$;

-- The node on which a key is: a client that is connected to it needs no hop.
CREATE FUNCTION enough_citus.where_is(key text, OUT node_name text, OUT node_port integer)
LANGUAGE sql STABLE AS $$
SELECT n.nodename, n.nodeport
FROM pg_dist_placement AS p
JOIN pg_dist_node AS n ON n.groupid = p.groupid AND n.noderole = 'primary'
WHERE p.shardid = get_shard_id_for_distribution_column('enough_citus.node', enough_citus._slot($1))
$$;

-- Makes this transaction commit in two phases: for a message that is sent to a queue of the session's own node, by the
-- extension's own function, and rows that are written on one other.
CREATE FUNCTION enough_citus.two_phase() RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _here constant integer := (SELECT l.groupid FROM pg_dist_local_group AS l);
    _slots integer[] := ARRAY(SELECT s.slot FROM enough_citus._slots() AS s WHERE s.node = _here);
    _slot integer;
BEGIN
    -- What is written here is enough; elsewhere it takes two nodes, since for one Citus sees no need.
    IF _slots = '{}' THEN
        _slots := ARRAY(SELECT s.slot FROM enough_citus._slots() AS s LIMIT 2);
        IF cardinality(_slots) < 2 THEN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = 'one node alone has slots, and it is another',
                HINT = 'Send to a queue by enough_citus.queue_send().';
        END IF;
    END IF;
    FOREACH _slot IN ARRAY _slots LOOP
        UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    END LOOP;
END $$;

CREATE FUNCTION enough_citus.cache_set(key text, value jsonb, ttl interval DEFAULT NULL::interval, mode text DEFAULT 'always'::text, tags text[] DEFAULT NULL::text[], keep_ttl boolean DEFAULT false) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer boolean;
BEGIN
    SELECT enough.cache_set($1, $2, $3, $4, $5, $6) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.cache_get(key text, slide_ttl interval DEFAULT NULL::interval) RETURNS jsonb
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer jsonb;
BEGIN
    SELECT enough.cache_get($1, $2) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.cache_delete(key text) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer boolean;
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    SELECT enough.cache_delete($1) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.cache_take(key text) RETURNS jsonb
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer jsonb;
BEGIN
    SELECT enough.cache_take($1) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.cache_exists(key text) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer boolean;
BEGIN
    SELECT enough.cache_exists($1) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.cache_expires_at(key text) RETURNS timestamp with time zone
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer timestamp with time zone;
BEGIN
    SELECT enough.cache_expires_at($1) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.cache_touch(key text, ttl interval) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer boolean;
BEGIN
    SELECT enough.cache_touch($1, $2) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.cache_compare_and_set(key text, expected jsonb, value jsonb, ttl interval DEFAULT NULL::interval) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer boolean;
BEGIN
    SELECT enough.cache_compare_and_set($1, $2, $3, $4) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.cache_delete_if(key text, expected jsonb) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer boolean;
BEGIN
    SELECT enough.cache_delete_if($1, $2) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.cache_merge(key text, patch jsonb, ttl interval DEFAULT NULL::interval) RETURNS jsonb
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer jsonb;
BEGIN
    SELECT enough.cache_merge($1, $2, $3) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.cache_incr(key text, by bigint DEFAULT 1, ttl interval DEFAULT NULL::interval, mode text DEFAULT 'always'::text) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer bigint;
BEGIN
    SELECT enough.cache_incr($1, $2, $3, $4) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.cache_set_bytes(key text, value bytea, ttl interval DEFAULT NULL::interval, tags text[] DEFAULT NULL::text[], mode text DEFAULT 'always'::text, keep_ttl boolean DEFAULT false) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer boolean;
BEGIN
    SELECT enough.cache_set_bytes($1, $2, $3, $4, $5, $6) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.cache_get_bytes(key text, slide_ttl interval DEFAULT NULL::interval) RETURNS bytea
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer bytea;
BEGIN
    SELECT enough.cache_get_bytes($1, $2) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.cache_take_bytes(key text) RETURNS bytea
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer bytea;
BEGIN
    SELECT enough.cache_take_bytes($1) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.cache_compare_and_set_bytes(key text, expected bytea, value bytea, ttl interval DEFAULT NULL::interval) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer boolean;
BEGIN
    SELECT enough.cache_compare_and_set_bytes($1, $2, $3, $4) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.cache_invalidate(tag text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot integer;
BEGIN
    FOR _slot IN SELECT s.slot FROM enough_citus._slots() AS s LOOP
        UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
        PERFORM enough.cache_invalidate($1) FROM enough_citus.node WHERE node.slot = _slot;
    END LOOP;
END $$;

CREATE FUNCTION enough_citus.cache_delete_prefix(prefix text) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot integer;
    _answer bigint;
    _all bigint := 0;
BEGIN
    FOR _slot IN SELECT s.slot FROM enough_citus._slots() AS s LOOP
        SELECT enough.cache_delete_prefix($1) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
        _all := coalesce(_all + _answer, _all);
    END LOOP;
    RETURN _all;
END $$;

CREATE FUNCTION enough_citus.cache_clear() RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot integer;
BEGIN
    FOR _slot IN SELECT s.slot FROM enough_citus._slots() AS s LOOP
        UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
        PERFORM enough.cache_clear() FROM enough_citus.node WHERE node.slot = _slot;
    END LOOP;
END $$;

CREATE FUNCTION enough_citus.cache_stats(OUT entries bigint, OUT bytes_used bigint, OUT bytes_max bigint, OUT hits bigint, OUT misses bigint, OUT sets bigint, OUT deletes bigint, OUT evictions bigint, OUT expirations bigint, OUT stale_fills_refused bigint, OUT fetch_waits bigint, OUT fetch_uncached bigint) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot integer;
BEGIN
    FOR _slot IN SELECT s.slot FROM enough_citus._slots() AS s LOOP
        RETURN QUERY SELECT _answers.* FROM enough_citus.node, enough.cache_stats() AS _answers WHERE node.slot = _slot;
    END LOOP;
END $$;

CREATE FUNCTION enough_citus.rate_limit(key text, max_requests integer, period interval, cost integer DEFAULT 1, algorithm text DEFAULT 'sliding_window'::text, burst integer DEFAULT NULL::integer, OUT allowed boolean, OUT remaining bigint, OUT retry_after interval, OUT reset_after interval) RETURNS record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
BEGIN
    SELECT _answers.* INTO STRICT allowed, remaining, retry_after, reset_after FROM enough_citus.node, enough.rate_limit($1, $2, $3, $4, $5, $6) AS _answers WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.rate_limit_peek(key text, max_requests integer, period interval, algorithm text DEFAULT 'sliding_window'::text, burst integer DEFAULT NULL::integer, OUT allowed boolean, OUT remaining bigint, OUT retry_after interval, OUT reset_after interval) RETURNS record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
BEGIN
    SELECT _answers.* INTO STRICT allowed, remaining, retry_after, reset_after FROM enough_citus.node, enough.rate_limit_peek($1, $2, $3, $4, $5) AS _answers WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.rate_limit_refund(key text, max_requests integer, period interval, amount integer DEFAULT 1, algorithm text DEFAULT 'sliding_window'::text, burst integer DEFAULT NULL::integer, OUT allowed boolean, OUT remaining bigint, OUT retry_after interval, OUT reset_after interval) RETURNS record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
BEGIN
    SELECT _answers.* INTO STRICT allowed, remaining, retry_after, reset_after FROM enough_citus.node, enough.rate_limit_refund($1, $2, $3, $4, $5, $6) AS _answers WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.rate_limit_up_to(key text, max_requests integer, period interval, cost integer DEFAULT 1, algorithm text DEFAULT 'sliding_window'::text, burst integer DEFAULT NULL::integer, OUT granted integer, OUT allowed boolean, OUT remaining bigint, OUT retry_after interval, OUT reset_after interval) RETURNS record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
BEGIN
    SELECT _answers.* INTO STRICT granted, allowed, remaining, retry_after, reset_after FROM enough_citus.node, enough.rate_limit_up_to($1, $2, $3, $4, $5, $6) AS _answers WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.rate_limit_reset(key text) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer boolean;
BEGIN
    SELECT enough.rate_limit_reset($1) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.rate_limit_block(key text, duration interval) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
BEGIN
    PERFORM enough.rate_limit_block($1, $2) FROM enough_citus.node WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.rate_limit_unblock(key text) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer boolean;
BEGIN
    SELECT enough.rate_limit_unblock($1) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.rate_limit_reserve(key text, max_requests integer, period interval, cost integer DEFAULT 1, burst integer DEFAULT NULL::integer, max_wait interval DEFAULT '00:01:00'::interval) RETURNS interval
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer interval;
BEGIN
    SELECT enough.rate_limit_reserve($1, $2, $3, $4, $5, $6) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE TYPE enough_citus.rate_limit_stats_row AS (policy text, allowed bigint, denied bigint, would_have_denied bigint, keys bigint, bytes_used bigint, bytes_max bigint, evictions bigint, evictions_of_active bigint, evictions_of_exhausted bigint);

CREATE FUNCTION enough_citus.rate_limit_stats(policy text DEFAULT NULL::text) RETURNS SETOF enough_citus.rate_limit_stats_row
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot integer;
BEGIN
    FOR _slot IN SELECT s.slot FROM enough_citus._slots() AS s LOOP
        RETURN QUERY SELECT _answers.* FROM enough_citus.node, enough.rate_limit_stats($1) AS _answers WHERE node.slot = _slot;
    END LOOP;
END $$;

CREATE FUNCTION enough_citus.rate_limit_enforce(key text, max_requests integer, period interval, cost integer DEFAULT 1, algorithm text DEFAULT 'sliding_window'::text, burst integer DEFAULT NULL::integer, postgrest boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
BEGIN
    PERFORM enough.rate_limit_enforce($1, $2, $3, $4, $5, $6, $7) FROM enough_citus.node WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.rate_limit_policy_set(name text, max_requests integer, period interval, algorithm text DEFAULT 'sliding_window'::text, burst integer DEFAULT NULL::integer, shadow boolean DEFAULT false, calendar text DEFAULT NULL::text, time_zone text DEFAULT 'UTC'::text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot integer;
BEGIN
    FOR _slot IN SELECT s.slot FROM enough_citus._slots() AS s LOOP
        UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
        PERFORM enough.rate_limit_policy_set($1, $2, $3, $4, $5, $6, $7, $8) FROM enough_citus.node WHERE node.slot = _slot;
    END LOOP;
END $$;

CREATE FUNCTION enough_citus.rate_limit_policy_add(name text, max_requests integer, period interval, algorithm text DEFAULT 'sliding_window'::text, burst integer DEFAULT NULL::integer, calendar text DEFAULT NULL::text, time_zone text DEFAULT 'UTC'::text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot integer;
BEGIN
    FOR _slot IN SELECT s.slot FROM enough_citus._slots() AS s LOOP
        UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
        PERFORM enough.rate_limit_policy_add($1, $2, $3, $4, $5, $6, $7) FROM enough_citus.node WHERE node.slot = _slot;
    END LOOP;
END $$;

CREATE FUNCTION enough_citus.rate_limit_policy_override(name text, key text, max_requests integer) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot integer;
BEGIN
    FOR _slot IN SELECT s.slot FROM enough_citus._slots() AS s LOOP
        UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
        PERFORM enough.rate_limit_policy_override($1, $2, $3) FROM enough_citus.node WHERE node.slot = _slot;
    END LOOP;
END $$;

CREATE FUNCTION enough_citus.rate_limit_policy_override_drop(name text, key text) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot integer;
    _answer boolean;
    _all boolean := false;
BEGIN
    FOR _slot IN SELECT s.slot FROM enough_citus._slots() AS s LOOP
        UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
        SELECT enough.rate_limit_policy_override_drop($1, $2) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
        _all := coalesce(_all OR _answer, _all);
    END LOOP;
    RETURN _all;
END $$;

CREATE FUNCTION enough_citus.rate_limit_policy_drop(name text) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot integer;
    _answer boolean;
    _all boolean := false;
BEGIN
    FOR _slot IN SELECT s.slot FROM enough_citus._slots() AS s LOOP
        UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
        SELECT enough.rate_limit_policy_drop($1) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
        _all := coalesce(_all OR _answer, _all);
    END LOOP;
    RETURN _all;
END $$;

CREATE FUNCTION enough_citus.rate_limit_policies(OUT name text, OUT rule integer, OUT max_requests integer, OUT period interval, OUT algorithm text, OUT burst integer, OUT calendar text, OUT time_zone text, OUT shadow boolean, OUT overrides bigint) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := 0;
BEGIN
    RETURN QUERY SELECT _answers.* FROM enough_citus.node, enough.rate_limit_policies() AS _answers WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.rate_limit_by(policy text, key text, cost integer DEFAULT 1, OUT allowed boolean, OUT remaining bigint, OUT retry_after interval, OUT reset_after interval) RETURNS record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($2);
BEGIN
    SELECT _answers.* INTO STRICT allowed, remaining, retry_after, reset_after FROM enough_citus.node, enough.rate_limit_by($1, $2, $3) AS _answers WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.rate_limit_enforce_by(policy text, key text, cost integer DEFAULT 1, postgrest boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($2);
BEGIN
    PERFORM enough.rate_limit_enforce_by($1, $2, $3, $4) FROM enough_citus.node WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.rate_limit_headers(key text, max_requests integer, period interval, algorithm text DEFAULT 'sliding_window'::text, burst integer DEFAULT NULL::integer) RETURNS jsonb
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer jsonb;
BEGIN
    SELECT enough.rate_limit_headers($1, $2, $3, $4, $5) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.rate_limit_headers_by(policy text, key text) RETURNS jsonb
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($2);
    _answer jsonb;
BEGIN
    SELECT enough.rate_limit_headers_by($1, $2) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.semaphore_acquire(name text, max_holders integer DEFAULT 1, ttl interval DEFAULT '00:00:30'::interval, wait interval DEFAULT '00:00:00'::interval) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer bigint;
BEGIN
    SELECT enough.semaphore_acquire($1, $2, $3, $4) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.semaphore_extend(name text, token bigint, ttl interval) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer boolean;
BEGIN
    SELECT enough.semaphore_extend($1, $2, $3) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.semaphore_release(name text, token bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer boolean;
BEGIN
    SELECT enough.semaphore_release($1, $2) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE TYPE enough_citus.semaphore_holders_row AS (name text, token bigint, pid integer, since timestamp with time zone, expires_at timestamp with time zone);

CREATE FUNCTION enough_citus.semaphore_holders(name text DEFAULT NULL::text) RETURNS SETOF enough_citus.semaphore_holders_row
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot integer;
BEGIN
    FOR _slot IN SELECT enough_citus._slot($1) WHERE $1 IS NOT NULL UNION ALL SELECT s.slot FROM enough_citus._slots() AS s WHERE $1 IS NULL LOOP
        RETURN QUERY SELECT _answers.* FROM enough_citus.node, enough.semaphore_holders($1) AS _answers WHERE node.slot = _slot;
    END LOOP;
END $$;

CREATE FUNCTION enough_citus.semaphore_stats(OUT names bigint, OUT holders bigint, OUT waiters bigint, OUT bytes_used bigint, OUT bytes_max bigint, OUT acquired bigint, OUT denied bigint, OUT expired bigint) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot integer;
BEGIN
    FOR _slot IN SELECT s.slot FROM enough_citus._slots() AS s LOOP
        RETURN QUERY SELECT _answers.* FROM enough_citus.node, enough.semaphore_stats() AS _answers WHERE node.slot = _slot;
    END LOOP;
END $$;

CREATE FUNCTION enough_citus.kv_create(space text, indexed boolean DEFAULT false, unlogged boolean DEFAULT false, history integer DEFAULT 0, if_not_exists boolean DEFAULT false) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot integer;
    _answer boolean;
    _all boolean := false;
BEGIN
    FOR _slot IN SELECT s.slot FROM enough_citus._slots() AS s LOOP
        UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
        SELECT enough.kv_create($1, $2, $3, $4, $5) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
        _all := coalesce(_all OR _answer, _all);
    END LOOP;
    RETURN _all;
END $$;

CREATE FUNCTION enough_citus.kv_drop(space text, if_exists boolean DEFAULT false) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot integer;
    _answer boolean;
    _all boolean := false;
BEGIN
    FOR _slot IN SELECT s.slot FROM enough_citus._slots() AS s LOOP
        UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
        SELECT enough.kv_drop($1, $2) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
        _all := coalesce(_all OR _answer, _all);
    END LOOP;
    RETURN _all;
END $$;

CREATE FUNCTION enough_citus.kv_spaces(OUT space text, OUT indexed boolean, OUT unlogged boolean, OUT history integer, OUT bytes bigint, OUT owner text) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := 0;
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    RETURN QUERY SELECT _answers.* FROM enough_citus.node, enough.kv_spaces() AS _answers WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.kv_set(key text, value jsonb, ttl interval DEFAULT NULL::interval, if_version bigint DEFAULT NULL::bigint, space text DEFAULT 'default'::text) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer bigint;
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    SELECT enough.kv_set($1, $2, $3, $4, $5) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.kv_get(key text, space text DEFAULT 'default'::text) RETURNS jsonb
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer jsonb;
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    SELECT enough.kv_get($1, $2) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.kv_entry(key text, space text DEFAULT 'default'::text) RETURNS TABLE(value jsonb, version bigint, updated_at timestamp with time zone, expires_at timestamp with time zone)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    RETURN QUERY SELECT _answers.* FROM enough_citus.node, enough.kv_entry($1, $2) AS _answers WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.kv_has(key text, space text DEFAULT 'default'::text) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer boolean;
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    SELECT enough.kv_has($1, $2) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.kv_delete(key text, if_version bigint DEFAULT NULL::bigint, space text DEFAULT 'default'::text) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer boolean;
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    SELECT enough.kv_delete($1, $2, $3) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.kv_incr(key text, by bigint DEFAULT 1, space text DEFAULT 'default'::text) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer bigint;
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    SELECT enough.kv_incr($1, $2, $3) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.kv_merge(key text, patch jsonb, space text DEFAULT 'default'::text) RETURNS jsonb
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer jsonb;
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    SELECT enough.kv_merge($1, $2, $3) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.kv_history(key text, space text DEFAULT 'default'::text) RETURNS TABLE(version bigint, value jsonb, updated_at timestamp with time zone, deleted boolean)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    RETURN QUERY SELECT _answers.* FROM enough_citus.node, enough.kv_history($1, $2) AS _answers WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.queue_create(name text, visibility_timeout interval DEFAULT '00:00:30'::interval, max_attempts integer DEFAULT 10, retry_backoff interval DEFAULT '00:00:01'::interval, retry_backoff_max interval DEFAULT '01:00:00'::interval, max_in_flight integer DEFAULT NULL::integer, max_rate integer DEFAULT NULL::integer, rate_period interval DEFAULT '00:00:01'::interval, archive_for interval DEFAULT '7 days'::interval, unlogged boolean DEFAULT false, if_not_exists boolean DEFAULT false, durable_attempts boolean DEFAULT false, ack text DEFAULT 'durable'::text, group_limit integer DEFAULT 1, dead_letter_queue text DEFAULT NULL::text, notify boolean DEFAULT false, dedup text DEFAULT 'live'::text, dedup_for interval DEFAULT '00:05:00'::interval, group_rate integer DEFAULT NULL::integer, group_rate_period interval DEFAULT '00:00:01'::interval) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer boolean;
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    SELECT enough.queue_create($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.queue_drop(name text, if_exists boolean DEFAULT false) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer boolean;
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    SELECT enough.queue_drop($1, $2) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.queue_alter(name text, visibility_timeout interval DEFAULT NULL::interval, max_attempts integer DEFAULT NULL::integer, retry_backoff interval DEFAULT NULL::interval, retry_backoff_max interval DEFAULT NULL::interval, max_in_flight integer DEFAULT NULL::integer, max_rate integer DEFAULT NULL::integer, rate_period interval DEFAULT NULL::interval, archive_for interval DEFAULT NULL::interval, unlogged boolean DEFAULT NULL::boolean, durable_attempts boolean DEFAULT NULL::boolean, ack text DEFAULT NULL::text, group_limit integer DEFAULT NULL::integer, dead_letter_queue text DEFAULT NULL::text, notify boolean DEFAULT NULL::boolean, dedup text DEFAULT NULL::text, dedup_for interval DEFAULT NULL::interval, group_rate integer DEFAULT NULL::integer, group_rate_period interval DEFAULT NULL::interval) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    PERFORM enough.queue_alter($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19) FROM enough_citus.node WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.queue_pause(name text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    PERFORM enough.queue_pause($1) FROM enough_citus.node WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.queue_resume(name text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    PERFORM enough.queue_resume($1) FROM enough_citus.node WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.queue_purge(name text) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer bigint;
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    SELECT enough.queue_purge($1) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.queue_list() RETURNS TABLE(name text, created_at timestamp with time zone, visibility_timeout interval, max_attempts integer, retry_backoff interval, retry_backoff_max interval, max_in_flight integer, max_rate integer, rate_period interval, archive_for interval, unlogged boolean, paused boolean, durable_attempts boolean, ack text, group_limit integer, dead_letter_queue text, notify boolean, dedup text, dedup_for interval, group_rate integer, group_rate_period interval)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot integer;
BEGIN
    FOR _slot IN SELECT s.slot FROM enough_citus._slots() AS s LOOP
        RETURN QUERY SELECT _answers.* FROM enough_citus.node, enough.queue_list() AS _answers WHERE node.slot = _slot;
    END LOOP;
END $$;

CREATE FUNCTION enough_citus.queue_send(queue text, message jsonb, delay interval DEFAULT '00:00:00'::interval, priority integer DEFAULT 0, group_key text DEFAULT NULL::text, dedup_key text DEFAULT NULL::text, headers jsonb DEFAULT NULL::jsonb, deliver_at timestamp with time zone DEFAULT NULL::timestamp with time zone, expires_in interval DEFAULT NULL::interval, max_attempts integer DEFAULT NULL::integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer bigint;
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    SELECT enough.queue_send($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.queue_send_batch(queue text, messages jsonb[], delay interval DEFAULT '00:00:00'::interval, priority integer DEFAULT 0, group_keys text[] DEFAULT NULL::text[], dedup_keys text[] DEFAULT NULL::text[], headers jsonb[] DEFAULT NULL::jsonb[], deliver_at timestamp with time zone DEFAULT NULL::timestamp with time zone, priorities integer[] DEFAULT NULL::integer[], delays interval[] DEFAULT NULL::interval[], expires_in interval DEFAULT NULL::interval, max_attempts integer DEFAULT NULL::integer) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    RETURN QUERY SELECT _answers.* FROM enough_citus.node, enough.queue_send_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) AS _answers WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.queue_send_unique(queue text, message jsonb, dedup_key text, on_conflict text DEFAULT 'keep'::text, delay interval DEFAULT '00:00:00'::interval, priority integer DEFAULT 0, group_key text DEFAULT NULL::text, headers jsonb DEFAULT NULL::jsonb, deliver_at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS TABLE(msg_id bigint, outcome text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    RETURN QUERY SELECT _answers.* FROM enough_citus.node, enough.queue_send_unique($1, $2, $3, $4, $5, $6, $7, $8, $9) AS _answers WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.queue_read(queue text, qty integer DEFAULT 1, visibility_timeout interval DEFAULT NULL::interval, wait interval DEFAULT '00:00:00'::interval, whole_groups boolean DEFAULT false) RETURNS SETOF enough.queue_message
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
BEGIN
    RETURN QUERY SELECT _answers.* FROM enough_citus.node, enough.queue_read($1, $2, $3, $4, $5) AS _answers WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.queue_read_these(queue text, msg_ids bigint[], visibility_timeout interval DEFAULT NULL::interval) RETURNS SETOF enough.queue_message
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
BEGIN
    RETURN QUERY SELECT _answers.* FROM enough_citus.node, enough.queue_read_these($1, $2, $3) AS _answers WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.queue_read_own(queue text, qty integer DEFAULT 1, visibility_timeout interval DEFAULT NULL::interval, msg_ids bigint[] DEFAULT NULL::bigint[]) RETURNS SETOF enough.queue_message
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
BEGIN
    RETURN QUERY SELECT _answers.* FROM enough_citus.node, enough.queue_read_own($1, $2, $3, $4) AS _answers WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.queue_pop(queue text, qty integer DEFAULT 1, wait interval DEFAULT '00:00:00'::interval) RETURNS SETOF enough.queue_message
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    RETURN QUERY SELECT _answers.* FROM enough_citus.node, enough.queue_pop($1, $2, $3) AS _answers WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.queue_peek(queue text, qty integer DEFAULT 10, state text DEFAULT 'ready'::text, after bigint DEFAULT NULL::bigint, matching jsonb DEFAULT NULL::jsonb, group_key text DEFAULT NULL::text) RETURNS SETOF enough.queue_message
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
BEGIN
    RETURN QUERY SELECT _answers.* FROM enough_citus.node, enough.queue_peek($1, $2, $3, $4, $5, $6) AS _answers WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.queue_delete(queue text, msg_id bigint, lease bigint DEFAULT NULL::bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer boolean;
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    SELECT enough.queue_delete($1, $2, $3) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.queue_delete_batch(queue text, msg_ids bigint[], leases bigint[] DEFAULT NULL::bigint[]) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    RETURN QUERY SELECT _answers.* FROM enough_citus.node, enough.queue_delete_batch($1, $2, $3) AS _answers WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.queue_archive(queue text, msg_id bigint, result jsonb DEFAULT NULL::jsonb, lease bigint DEFAULT NULL::bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer boolean;
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    SELECT enough.queue_archive($1, $2, $3, $4) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.queue_archive_batch(queue text, msg_ids bigint[], leases bigint[] DEFAULT NULL::bigint[], results jsonb[] DEFAULT NULL::jsonb[]) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    RETURN QUERY SELECT _answers.* FROM enough_citus.node, enough.queue_archive_batch($1, $2, $3, $4) AS _answers WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.queue_extend(queue text, msg_id bigint, visibility_timeout interval, lease bigint DEFAULT NULL::bigint) RETURNS timestamp with time zone
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer timestamp with time zone;
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    SELECT enough.queue_extend($1, $2, $3, $4) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.queue_extend_batch(queue text, msg_ids bigint[], leases bigint[] DEFAULT NULL::bigint[], visibility_timeout interval DEFAULT NULL::interval) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    RETURN QUERY SELECT _answers.* FROM enough_citus.node, enough.queue_extend_batch($1, $2, $3, $4) AS _answers WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.queue_fail(queue text, msg_id bigint, error text DEFAULT NULL::text, retry_in interval DEFAULT NULL::interval, lease bigint DEFAULT NULL::bigint, dead boolean DEFAULT false) RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer text;
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    SELECT enough.queue_fail($1, $2, $3, $4, $5, $6) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.queue_fail_batch(queue text, msg_ids bigint[], leases bigint[] DEFAULT NULL::bigint[], error text DEFAULT NULL::text, retry_in interval DEFAULT NULL::interval, dead boolean DEFAULT false) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    RETURN QUERY SELECT _answers.* FROM enough_citus.node, enough.queue_fail_batch($1, $2, $3, $4, $5, $6) AS _answers WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.queue_release(queue text, msg_id bigint, delay interval DEFAULT '00:00:00'::interval, lease bigint DEFAULT NULL::bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer boolean;
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    SELECT enough.queue_release($1, $2, $3, $4) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.queue_release_batch(queue text, msg_ids bigint[], leases bigint[] DEFAULT NULL::bigint[], delay interval DEFAULT '00:00:00'::interval) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    RETURN QUERY SELECT _answers.* FROM enough_citus.node, enough.queue_release_batch($1, $2, $3, $4) AS _answers WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.queue_reschedule(queue text, msg_ids bigint[], deliver_at timestamp with time zone) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    RETURN QUERY SELECT _answers.* FROM enough_citus.node, enough.queue_reschedule($1, $2, $3) AS _answers WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.queue_attempts(queue text, msg_id bigint) RETURNS integer
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer integer;
BEGIN
    SELECT enough.queue_attempts($1, $2) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.queue_visible_at(queue text, msg_id bigint) RETURNS timestamp with time zone
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer timestamp with time zone;
BEGIN
    SELECT enough.queue_visible_at($1, $2) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.queue_status(queue text, msg_id bigint) RETURNS TABLE(state text, attempts integer, deliver_at timestamp with time zone, leased_until timestamp with time zone, finished_at timestamp with time zone, error text, result jsonb)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
BEGIN
    RETURN QUERY SELECT _answers.* FROM enough_citus.node, enough.queue_status($1, $2) AS _answers WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.queue_result(queue text, msg_id bigint, wait interval DEFAULT '00:00:00'::interval) RETURNS TABLE(state text, result jsonb, error text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
BEGIN
    RETURN QUERY SELECT _answers.* FROM enough_citus.node, enough.queue_result($1, $2, $3) AS _answers WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.queue_dead(queue text, qty integer DEFAULT 100) RETURNS TABLE(msg_id bigint, attempts integer, error text, died_at timestamp with time zone, headers jsonb, message jsonb)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
BEGIN
    RETURN QUERY SELECT _answers.* FROM enough_citus.node, enough.queue_dead($1, $2) AS _answers WHERE node.slot = _slot;
END $$;

CREATE FUNCTION enough_citus.queue_redrive(queue text, msg_ids bigint[] DEFAULT NULL::bigint[], to_queue text DEFAULT NULL::text, died_before timestamp with time zone DEFAULT NULL::timestamp with time zone, matching jsonb DEFAULT NULL::jsonb, max integer DEFAULT NULL::integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot constant integer := enough_citus._slot($1);
    _answer bigint;
BEGIN
    UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    SELECT enough.queue_redrive($1, $2, $3, $4, $5, $6) INTO STRICT _answer FROM enough_citus.node WHERE node.slot = _slot;
    RETURN _answer;
END $$;

CREATE FUNCTION enough_citus.queue_stats(queue text DEFAULT NULL::text) RETURNS SETOF enough.queue_statistics
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot integer;
BEGIN
    FOR _slot IN SELECT enough_citus._slot($1) WHERE $1 IS NOT NULL UNION ALL SELECT s.slot FROM enough_citus._slots() AS s WHERE $1 IS NULL LOOP
        RETURN QUERY SELECT _answers.* FROM enough_citus.node, enough.queue_stats($1) AS _answers WHERE node.slot = _slot;
    END LOOP;
END $$;

CREATE FUNCTION enough_citus.maintain(max_duration interval DEFAULT '00:00:10'::interval, OUT task text, OUT items bigint, OUT elapsed interval, OUT note text) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot integer;
BEGIN
    FOR _slot IN SELECT s.slot FROM enough_citus._slots() AS s LOOP
        RETURN QUERY SELECT _answers.* FROM enough_citus.node, enough.maintain($1) AS _answers WHERE node.slot = _slot;
    END LOOP;
END $$;

CREATE FUNCTION enough_citus.status(OUT item text, OUT value text) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _slot integer;
BEGIN
    FOR _slot IN SELECT s.slot FROM enough_citus._slots() AS s LOOP
        RETURN QUERY SELECT _answers.* FROM enough_citus.node, enough.status() AS _answers WHERE node.slot = _slot;
    END LOOP;
END $$;

-- Not here:
--   cache_mget: its keys are on several nodes: call the function for one key, or this where the rows are
--   cache_mset: an object can't be cut in parts: use cache_set(), or cache_mset_bytes()
--   cache_mdelete: its keys are on several nodes: call the function for one key, or this where the rows are
--   cache_mget_bytes: its keys are on several nodes: call the function for one key, or this where the rows are
--   cache_mset_bytes: its keys are on several nodes: call the function for one key, or this where the rows are
--   cache_fetch: its query would run on the server of the key, which needn't have the tables
--   cache_keys: it goes on after a key, which is on one server: call it on each
--   cache_tag_table: it is about roles or tables of the server itself: call it there
--   cache_untag_table: it is about roles or tables of the server itself: call it there
--   rate_limit_all: its keys are counted all or none, which several servers can't do
--   kv_mget: its keys are on several nodes: call the function for one key, or this where the rows are
--   kv_mset: an object can't be cut in parts: use kv_set()
--   kv_keys: it goes on after a key, which is on one server: call it on each
--   kv_find: it goes on after a key, which is on one server: call it on each
--   kv_watch: versions are each server's own: call it on each
--   queue_rename: the new name may belong to another server, and the messages stay
--   queue_read_any: it is about several queues, which may be on several servers
--   queue_grant: it is about roles or tables of the server itself: call it there
--   queue_revoke: it is about roles or tables of the server itself: call it there
--   queue_schedule: a job is of the server that runs it: make it there
--   queue_unschedule: a job is of the server that runs it: make it there
--   queue_schedules: a job is of the server that runs it: make it there
--   topic_subscribe: it is about several queues, which may be on several servers
--   topic_unsubscribe: it is about several queues, which may be on several servers
--   topic_subscriptions: it is about several queues, which may be on several servers
--   topic_publish: it is about several queues, which may be on several servers
--   queue_send_on: it is about roles or tables of the server itself: call it there
--   queue_send_off: it is about roles or tables of the server itself: call it there
--   queue_work: it commits, which only the server of its queue can do: call it there
--   queue_import_pgmq: it is about roles or tables of the server itself: call it there
--   maintenance_schedule: a job is of the server that runs it: make it there
--   maintenance_unschedule: a job is of the server that runs it: make it there
--   grant_to: it is about roles or tables of the server itself: call it there
--   revoke_from: it is about roles or tables of the server itself: call it there

COMMIT;

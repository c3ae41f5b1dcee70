-- pg_enough through PL/Proxy: the functions by their own names, each on the partition of its key or queue.
-- Written by `cargo xtask reference`; docs/scaling.md says how it is used, and what it doesn't promise.

\set ON_ERROR_STOP on
BEGIN;
CREATE SCHEMA enough;

CREATE FUNCTION enough._partition(key text) RETURNS integer
LANGUAGE sql IMMUTABLE AS 'SELECT coalesce(hashtext($1), 0)';

CREATE FUNCTION enough._partitions(key text) RETURNS SETOF integer
LANGUAGE sql STABLE AS $$
SELECT hashtext($1) WHERE $1 IS NOT NULL
UNION ALL
SELECT n::integer - 1
FROM generate_series(1, (SELECT count(*) FROM pg_foreign_server s, unnest(s.srvoptions) AS o
                         WHERE s.srvname = 'enough' AND o ~ '^p?[0-9]+=')) AS n
WHERE $1 IS NULL
$$;

CREATE TYPE enough.kv_change AS (version bigint, value jsonb, updated_at timestamp with time zone);

CREATE TYPE enough.queue_message AS (msg_id bigint, attempts integer, enqueued_at timestamp with time zone, leased_until timestamp with time zone, lease bigint, priority smallint, group_key text, headers jsonb, message jsonb);

CREATE TYPE enough.queue_statistics AS (queue text, ready bigint, leased bigint, delayed bigint, dead bigint, archived bigint, oldest_ready interval, sent_total bigint, delivered_total bigint, finished_total bigint, failed_total bigint, paused boolean, wait_p50 interval, wait_p99 interval, run_p50 interval, run_p99 interval, oldest_lease interval);

CREATE FUNCTION enough.cache_set(key text, value jsonb, ttl interval DEFAULT NULL::interval, mode text DEFAULT 'always'::text, tags text[] DEFAULT NULL::text[], keep_ttl boolean DEFAULT false) RETURNS boolean
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.cache_get(key text, slide_ttl interval DEFAULT NULL::interval) RETURNS jsonb
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.cache_mget(keys text[]) RETURNS TABLE(key text, value jsonb)
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; SPLIT $1; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.cache_delete(key text) RETURNS boolean
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough._each_cache_mdelete(keys text[]) RETURNS SETOF integer
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; SPLIT $1; RUN ON enough._partition($1); SELECT * FROM enough.cache_mdelete($1); $$;
CREATE FUNCTION enough.cache_mdelete(keys text[]) RETURNS integer
LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$ SELECT coalesce(sum(answer), 0)::integer FROM enough._each_cache_mdelete($1) AS answer $$;

CREATE FUNCTION enough.cache_take(key text) RETURNS jsonb
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.cache_exists(key text) RETURNS boolean
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.cache_expires_at(key text) RETURNS timestamp with time zone
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.cache_touch(key text, ttl interval) RETURNS boolean
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.cache_compare_and_set(key text, expected jsonb, value jsonb, ttl interval DEFAULT NULL::interval) RETURNS boolean
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.cache_delete_if(key text, expected jsonb) RETURNS boolean
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.cache_merge(key text, patch jsonb, ttl interval DEFAULT NULL::interval) RETURNS jsonb
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.cache_incr(key text, by bigint DEFAULT 1, ttl interval DEFAULT NULL::interval, mode text DEFAULT 'always'::text) RETURNS bigint
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.cache_set_bytes(key text, value bytea, ttl interval DEFAULT NULL::interval, tags text[] DEFAULT NULL::text[], mode text DEFAULT 'always'::text, keep_ttl boolean DEFAULT false) RETURNS boolean
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.cache_get_bytes(key text, slide_ttl interval DEFAULT NULL::interval) RETURNS bytea
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.cache_mget_bytes(keys text[]) RETURNS TABLE(key text, value bytea)
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; SPLIT $1; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough._each_cache_mset_bytes(keys text[], "values" bytea[], ttl interval DEFAULT NULL::interval, tags text[] DEFAULT NULL::text[]) RETURNS SETOF integer
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; SPLIT $1, $2; RUN ON enough._partition($1); SELECT * FROM enough.cache_mset_bytes($1, $2, $3, $4); $$;
CREATE FUNCTION enough.cache_mset_bytes(keys text[], "values" bytea[], ttl interval DEFAULT NULL::interval, tags text[] DEFAULT NULL::text[]) RETURNS integer
LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$ SELECT coalesce(sum(answer), 0)::integer FROM enough._each_cache_mset_bytes($1, $2, $3, $4) AS answer $$;

CREATE FUNCTION enough.cache_take_bytes(key text) RETURNS bytea
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.cache_compare_and_set_bytes(key text, expected bytea, value bytea, ttl interval DEFAULT NULL::interval) RETURNS boolean
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough._each_cache_invalidate(tag text) RETURNS SETOF integer
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON ALL; SELECT 1 FROM enough.cache_invalidate($1); $$;
CREATE FUNCTION enough.cache_invalidate(tag text) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$ SELECT count(*) FROM enough._each_cache_invalidate($1) AS answer $$;

CREATE FUNCTION enough._each_cache_delete_prefix(prefix text) RETURNS SETOF bigint
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON ALL; SELECT * FROM enough.cache_delete_prefix($1); $$;
REVOKE ALL ON FUNCTION enough._each_cache_delete_prefix(prefix text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION enough._each_cache_delete_prefix(prefix text) TO pg_database_owner;
CREATE FUNCTION enough.cache_delete_prefix(prefix text) RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$ SELECT coalesce(sum(answer), 0)::bigint FROM enough._each_cache_delete_prefix($1) AS answer $$;
REVOKE ALL ON FUNCTION enough.cache_delete_prefix(prefix text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION enough.cache_delete_prefix(prefix text) TO pg_database_owner;

CREATE FUNCTION enough._each_cache_clear() RETURNS SETOF integer
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON ALL; SELECT 1 FROM enough.cache_clear(); $$;
REVOKE ALL ON FUNCTION enough._each_cache_clear() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION enough._each_cache_clear() TO pg_database_owner;
CREATE FUNCTION enough.cache_clear() RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$ SELECT count(*) FROM enough._each_cache_clear() AS answer $$;
REVOKE ALL ON FUNCTION enough.cache_clear() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION enough.cache_clear() TO pg_database_owner;

CREATE FUNCTION enough.cache_stats(OUT entries bigint, OUT bytes_used bigint, OUT bytes_max bigint, OUT hits bigint, OUT misses bigint, OUT sets bigint, OUT deletes bigint, OUT evictions bigint, OUT expirations bigint, OUT stale_fills_refused bigint, OUT fetch_waits bigint, OUT fetch_uncached bigint) RETURNS SETOF record
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON ALL; $$;
REVOKE ALL ON FUNCTION enough.cache_stats(OUT entries bigint, OUT bytes_used bigint, OUT bytes_max bigint, OUT hits bigint, OUT misses bigint, OUT sets bigint, OUT deletes bigint, OUT evictions bigint, OUT expirations bigint, OUT stale_fills_refused bigint, OUT fetch_waits bigint, OUT fetch_uncached bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION enough.cache_stats(OUT entries bigint, OUT bytes_used bigint, OUT bytes_max bigint, OUT hits bigint, OUT misses bigint, OUT sets bigint, OUT deletes bigint, OUT evictions bigint, OUT expirations bigint, OUT stale_fills_refused bigint, OUT fetch_waits bigint, OUT fetch_uncached bigint) TO pg_database_owner;
GRANT EXECUTE ON FUNCTION enough.cache_stats(OUT entries bigint, OUT bytes_used bigint, OUT bytes_max bigint, OUT hits bigint, OUT misses bigint, OUT sets bigint, OUT deletes bigint, OUT evictions bigint, OUT expirations bigint, OUT stale_fills_refused bigint, OUT fetch_waits bigint, OUT fetch_uncached bigint) TO pg_monitor;

CREATE FUNCTION enough.rate_limit(key text, max_requests integer, period interval, cost integer DEFAULT 1, algorithm text DEFAULT 'sliding_window'::text, burst integer DEFAULT NULL::integer, OUT allowed boolean, OUT remaining bigint, OUT retry_after interval, OUT reset_after interval) RETURNS record
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.rate_limit_peek(key text, max_requests integer, period interval, algorithm text DEFAULT 'sliding_window'::text, burst integer DEFAULT NULL::integer, OUT allowed boolean, OUT remaining bigint, OUT retry_after interval, OUT reset_after interval) RETURNS record
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.rate_limit_refund(key text, max_requests integer, period interval, amount integer DEFAULT 1, algorithm text DEFAULT 'sliding_window'::text, burst integer DEFAULT NULL::integer, OUT allowed boolean, OUT remaining bigint, OUT retry_after interval, OUT reset_after interval) RETURNS record
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;
REVOKE ALL ON FUNCTION enough.rate_limit_refund(key text, max_requests integer, period interval, amount integer, algorithm text, burst integer, OUT allowed boolean, OUT remaining bigint, OUT retry_after interval, OUT reset_after interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION enough.rate_limit_refund(key text, max_requests integer, period interval, amount integer, algorithm text, burst integer, OUT allowed boolean, OUT remaining bigint, OUT retry_after interval, OUT reset_after interval) TO pg_database_owner;

CREATE FUNCTION enough.rate_limit_up_to(key text, max_requests integer, period interval, cost integer DEFAULT 1, algorithm text DEFAULT 'sliding_window'::text, burst integer DEFAULT NULL::integer, OUT granted integer, OUT allowed boolean, OUT remaining bigint, OUT retry_after interval, OUT reset_after interval) RETURNS record
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.rate_limit_reset(key text) RETURNS boolean
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;
REVOKE ALL ON FUNCTION enough.rate_limit_reset(key text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION enough.rate_limit_reset(key text) TO pg_database_owner;

CREATE FUNCTION enough.rate_limit_block(key text, duration interval) RETURNS void
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;
REVOKE ALL ON FUNCTION enough.rate_limit_block(key text, duration interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION enough.rate_limit_block(key text, duration interval) TO pg_database_owner;

CREATE FUNCTION enough.rate_limit_unblock(key text) RETURNS boolean
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;
REVOKE ALL ON FUNCTION enough.rate_limit_unblock(key text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION enough.rate_limit_unblock(key text) TO pg_database_owner;

CREATE FUNCTION enough.rate_limit_reserve(key text, max_requests integer, period interval, cost integer DEFAULT 1, burst integer DEFAULT NULL::integer, max_wait interval DEFAULT '00:01:00'::interval) RETURNS interval
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.rate_limit_stats(policy text DEFAULT NULL::text, OUT policy text, OUT allowed bigint, OUT denied bigint, OUT would_have_denied bigint, OUT keys bigint, OUT bytes_used bigint, OUT bytes_max bigint, OUT evictions bigint, OUT evictions_of_active bigint, OUT evictions_of_exhausted bigint) RETURNS SETOF record
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON ALL; $$;
REVOKE ALL ON FUNCTION enough.rate_limit_stats(policy text, OUT policy text, OUT allowed bigint, OUT denied bigint, OUT would_have_denied bigint, OUT keys bigint, OUT bytes_used bigint, OUT bytes_max bigint, OUT evictions bigint, OUT evictions_of_active bigint, OUT evictions_of_exhausted bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION enough.rate_limit_stats(policy text, OUT policy text, OUT allowed bigint, OUT denied bigint, OUT would_have_denied bigint, OUT keys bigint, OUT bytes_used bigint, OUT bytes_max bigint, OUT evictions bigint, OUT evictions_of_active bigint, OUT evictions_of_exhausted bigint) TO pg_database_owner;
GRANT EXECUTE ON FUNCTION enough.rate_limit_stats(policy text, OUT policy text, OUT allowed bigint, OUT denied bigint, OUT would_have_denied bigint, OUT keys bigint, OUT bytes_used bigint, OUT bytes_max bigint, OUT evictions bigint, OUT evictions_of_active bigint, OUT evictions_of_exhausted bigint) TO pg_monitor;

CREATE FUNCTION enough.rate_limit_enforce(key text, max_requests integer, period interval, cost integer DEFAULT 1, algorithm text DEFAULT 'sliding_window'::text, burst integer DEFAULT NULL::integer, postgrest boolean DEFAULT false) RETURNS void
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough._each_rate_limit_policy_set(name text, max_requests integer, period interval, algorithm text DEFAULT 'sliding_window'::text, burst integer DEFAULT NULL::integer, shadow boolean DEFAULT false, calendar text DEFAULT NULL::text, time_zone text DEFAULT 'UTC'::text) RETURNS SETOF integer
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON ALL; SELECT 1 FROM enough.rate_limit_policy_set($1, $2, $3, $4, $5, $6, $7, $8); $$;
CREATE FUNCTION enough.rate_limit_policy_set(name text, max_requests integer, period interval, algorithm text DEFAULT 'sliding_window'::text, burst integer DEFAULT NULL::integer, shadow boolean DEFAULT false, calendar text DEFAULT NULL::text, time_zone text DEFAULT 'UTC'::text) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$ SELECT count(*) FROM enough._each_rate_limit_policy_set($1, $2, $3, $4, $5, $6, $7, $8) AS answer $$;

CREATE FUNCTION enough._each_rate_limit_policy_add(name text, max_requests integer, period interval, algorithm text DEFAULT 'sliding_window'::text, burst integer DEFAULT NULL::integer, calendar text DEFAULT NULL::text, time_zone text DEFAULT 'UTC'::text) RETURNS SETOF integer
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON ALL; SELECT 1 FROM enough.rate_limit_policy_add($1, $2, $3, $4, $5, $6, $7); $$;
CREATE FUNCTION enough.rate_limit_policy_add(name text, max_requests integer, period interval, algorithm text DEFAULT 'sliding_window'::text, burst integer DEFAULT NULL::integer, calendar text DEFAULT NULL::text, time_zone text DEFAULT 'UTC'::text) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$ SELECT count(*) FROM enough._each_rate_limit_policy_add($1, $2, $3, $4, $5, $6, $7) AS answer $$;

CREATE FUNCTION enough._each_rate_limit_policy_override(name text, key text, max_requests integer) RETURNS SETOF integer
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON ALL; SELECT 1 FROM enough.rate_limit_policy_override($1, $2, $3); $$;
CREATE FUNCTION enough.rate_limit_policy_override(name text, key text, max_requests integer) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$ SELECT count(*) FROM enough._each_rate_limit_policy_override($1, $2, $3) AS answer $$;

CREATE FUNCTION enough._each_rate_limit_policy_override_drop(name text, key text) RETURNS SETOF boolean
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON ALL; SELECT * FROM enough.rate_limit_policy_override_drop($1, $2); $$;
CREATE FUNCTION enough.rate_limit_policy_override_drop(name text, key text) RETURNS boolean
LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$ SELECT coalesce(bool_or(answer), false) FROM enough._each_rate_limit_policy_override_drop($1, $2) AS answer $$;

CREATE FUNCTION enough._each_rate_limit_policy_drop(name text) RETURNS SETOF boolean
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON ALL; SELECT * FROM enough.rate_limit_policy_drop($1); $$;
CREATE FUNCTION enough.rate_limit_policy_drop(name text) RETURNS boolean
LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$ SELECT coalesce(bool_or(answer), false) FROM enough._each_rate_limit_policy_drop($1) AS answer $$;

CREATE FUNCTION enough.rate_limit_policies(OUT name text, OUT rule integer, OUT max_requests integer, OUT period interval, OUT algorithm text, OUT burst integer, OUT calendar text, OUT time_zone text, OUT shadow boolean, OUT overrides bigint) RETURNS SETOF record
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON ANY; $$;

CREATE FUNCTION enough.rate_limit_by(policy text, key text, cost integer DEFAULT 1, OUT allowed boolean, OUT remaining bigint, OUT retry_after interval, OUT reset_after interval) RETURNS record
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($2); $$;

CREATE FUNCTION enough.rate_limit_enforce_by(policy text, key text, cost integer DEFAULT 1, postgrest boolean DEFAULT false) RETURNS void
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($2); $$;

CREATE FUNCTION enough.rate_limit_headers(key text, max_requests integer, period interval, algorithm text DEFAULT 'sliding_window'::text, burst integer DEFAULT NULL::integer) RETURNS jsonb
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.rate_limit_headers_by(policy text, key text) RETURNS jsonb
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($2); $$;

CREATE FUNCTION enough.semaphore_acquire(name text, max_holders integer DEFAULT 1, ttl interval DEFAULT '00:00:30'::interval, wait interval DEFAULT '00:00:00'::interval) RETURNS bigint
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.semaphore_extend(name text, token bigint, ttl interval) RETURNS boolean
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.semaphore_release(name text, token bigint) RETURNS boolean
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.semaphore_holders(name text DEFAULT NULL::text, OUT name text, OUT token bigint, OUT pid integer, OUT since timestamp with time zone, OUT expires_at timestamp with time zone) RETURNS SETOF record
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partitions($1); $$;

CREATE FUNCTION enough.semaphore_stats(OUT names bigint, OUT holders bigint, OUT waiters bigint, OUT bytes_used bigint, OUT bytes_max bigint, OUT acquired bigint, OUT denied bigint, OUT expired bigint) RETURNS SETOF record
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON ALL; $$;
REVOKE ALL ON FUNCTION enough.semaphore_stats(OUT names bigint, OUT holders bigint, OUT waiters bigint, OUT bytes_used bigint, OUT bytes_max bigint, OUT acquired bigint, OUT denied bigint, OUT expired bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION enough.semaphore_stats(OUT names bigint, OUT holders bigint, OUT waiters bigint, OUT bytes_used bigint, OUT bytes_max bigint, OUT acquired bigint, OUT denied bigint, OUT expired bigint) TO pg_database_owner;
GRANT EXECUTE ON FUNCTION enough.semaphore_stats(OUT names bigint, OUT holders bigint, OUT waiters bigint, OUT bytes_used bigint, OUT bytes_max bigint, OUT acquired bigint, OUT denied bigint, OUT expired bigint) TO pg_monitor;

CREATE FUNCTION enough._each_kv_create(space text, indexed boolean DEFAULT false, unlogged boolean DEFAULT false, history integer DEFAULT 0, if_not_exists boolean DEFAULT false) RETURNS SETOF boolean
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON ALL; SELECT * FROM enough.kv_create($1, $2, $3, $4, $5); $$;
CREATE FUNCTION enough.kv_create(space text, indexed boolean DEFAULT false, unlogged boolean DEFAULT false, history integer DEFAULT 0, if_not_exists boolean DEFAULT false) RETURNS boolean
LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$ SELECT coalesce(bool_or(answer), false) FROM enough._each_kv_create($1, $2, $3, $4, $5) AS answer $$;

CREATE FUNCTION enough._each_kv_drop(space text, if_exists boolean DEFAULT false) RETURNS SETOF boolean
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON ALL; SELECT * FROM enough.kv_drop($1, $2); $$;
CREATE FUNCTION enough.kv_drop(space text, if_exists boolean DEFAULT false) RETURNS boolean
LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$ SELECT coalesce(bool_or(answer), false) FROM enough._each_kv_drop($1, $2) AS answer $$;

CREATE FUNCTION enough.kv_spaces(OUT space text, OUT indexed boolean, OUT unlogged boolean, OUT history integer, OUT bytes bigint, OUT owner text) RETURNS SETOF record
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON ANY; $$;

CREATE FUNCTION enough.kv_set(key text, value jsonb, ttl interval DEFAULT NULL::interval, if_version bigint DEFAULT NULL::bigint, space text DEFAULT 'default'::text) RETURNS bigint
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.kv_get(key text, space text DEFAULT 'default'::text) RETURNS jsonb
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.kv_entry(key text, space text DEFAULT 'default'::text) RETURNS TABLE(value jsonb, version bigint, updated_at timestamp with time zone, expires_at timestamp with time zone)
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.kv_has(key text, space text DEFAULT 'default'::text) RETURNS boolean
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.kv_mget(keys text[], space text DEFAULT 'default'::text) RETURNS TABLE(key text, value jsonb, version bigint)
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; SPLIT $1; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.kv_delete(key text, if_version bigint DEFAULT NULL::bigint, space text DEFAULT 'default'::text) RETURNS boolean
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.kv_incr(key text, by bigint DEFAULT 1, space text DEFAULT 'default'::text) RETURNS bigint
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.kv_merge(key text, patch jsonb, space text DEFAULT 'default'::text) RETURNS jsonb
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.kv_history(key text, space text DEFAULT 'default'::text) RETURNS TABLE(version bigint, value jsonb, updated_at timestamp with time zone, deleted boolean)
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_create(name text, visibility_timeout interval DEFAULT '00:00:30'::interval, max_attempts integer DEFAULT 10, retry_backoff interval DEFAULT '00:00:01'::interval, retry_backoff_max interval DEFAULT '01:00:00'::interval, max_in_flight integer DEFAULT NULL::integer, max_rate integer DEFAULT NULL::integer, rate_period interval DEFAULT '00:00:01'::interval, archive_for interval DEFAULT '7 days'::interval, unlogged boolean DEFAULT false, if_not_exists boolean DEFAULT false, durable_attempts boolean DEFAULT false, ack text DEFAULT 'durable'::text, group_limit integer DEFAULT 1, dead_letter_queue text DEFAULT NULL::text, notify boolean DEFAULT false, dedup text DEFAULT 'live'::text, dedup_for interval DEFAULT '00:05:00'::interval, group_rate integer DEFAULT NULL::integer, group_rate_period interval DEFAULT '00:00:01'::interval) RETURNS boolean
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_drop(name text, if_exists boolean DEFAULT false) RETURNS boolean
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_alter(name text, visibility_timeout interval DEFAULT NULL::interval, max_attempts integer DEFAULT NULL::integer, retry_backoff interval DEFAULT NULL::interval, retry_backoff_max interval DEFAULT NULL::interval, max_in_flight integer DEFAULT NULL::integer, max_rate integer DEFAULT NULL::integer, rate_period interval DEFAULT NULL::interval, archive_for interval DEFAULT NULL::interval, unlogged boolean DEFAULT NULL::boolean, durable_attempts boolean DEFAULT NULL::boolean, ack text DEFAULT NULL::text, group_limit integer DEFAULT NULL::integer, dead_letter_queue text DEFAULT NULL::text, notify boolean DEFAULT NULL::boolean, dedup text DEFAULT NULL::text, dedup_for interval DEFAULT NULL::interval, group_rate integer DEFAULT NULL::integer, group_rate_period interval DEFAULT NULL::interval) RETURNS void
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_pause(name text) RETURNS void
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_resume(name text) RETURNS void
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_purge(name text) RETURNS bigint
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_list() RETURNS TABLE(name text, created_at timestamp with time zone, visibility_timeout interval, max_attempts integer, retry_backoff interval, retry_backoff_max interval, max_in_flight integer, max_rate integer, rate_period interval, archive_for interval, unlogged boolean, paused boolean, durable_attempts boolean, ack text, group_limit integer, dead_letter_queue text, notify boolean, dedup text, dedup_for interval, group_rate integer, group_rate_period interval)
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON ALL; $$;

CREATE FUNCTION enough.queue_send(queue text, message jsonb, delay interval DEFAULT '00:00:00'::interval, priority integer DEFAULT 0, group_key text DEFAULT NULL::text, dedup_key text DEFAULT NULL::text, headers jsonb DEFAULT NULL::jsonb, deliver_at timestamp with time zone DEFAULT NULL::timestamp with time zone, expires_in interval DEFAULT NULL::interval, max_attempts integer DEFAULT NULL::integer) RETURNS bigint
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_send_batch(queue text, messages jsonb[], delay interval DEFAULT '00:00:00'::interval, priority integer DEFAULT 0, group_keys text[] DEFAULT NULL::text[], dedup_keys text[] DEFAULT NULL::text[], headers jsonb[] DEFAULT NULL::jsonb[], deliver_at timestamp with time zone DEFAULT NULL::timestamp with time zone, priorities integer[] DEFAULT NULL::integer[], delays interval[] DEFAULT NULL::interval[], expires_in interval DEFAULT NULL::interval, max_attempts integer DEFAULT NULL::integer) RETURNS SETOF bigint
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_send_unique(queue text, message jsonb, dedup_key text, on_conflict text DEFAULT 'keep'::text, delay interval DEFAULT '00:00:00'::interval, priority integer DEFAULT 0, group_key text DEFAULT NULL::text, headers jsonb DEFAULT NULL::jsonb, deliver_at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS TABLE(msg_id bigint, outcome text)
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_read(queue text, qty integer DEFAULT 1, visibility_timeout interval DEFAULT NULL::interval, wait interval DEFAULT '00:00:00'::interval, whole_groups boolean DEFAULT false) RETURNS SETOF enough.queue_message
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_read_these(queue text, msg_ids bigint[], visibility_timeout interval DEFAULT NULL::interval) RETURNS SETOF enough.queue_message
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_pop(queue text, qty integer DEFAULT 1, wait interval DEFAULT '00:00:00'::interval) RETURNS SETOF enough.queue_message
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_peek(queue text, qty integer DEFAULT 10, state text DEFAULT 'ready'::text, after bigint DEFAULT NULL::bigint, matching jsonb DEFAULT NULL::jsonb, group_key text DEFAULT NULL::text) RETURNS SETOF enough.queue_message
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_delete(queue text, msg_id bigint, lease bigint DEFAULT NULL::bigint) RETURNS boolean
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_delete_batch(queue text, msg_ids bigint[], leases bigint[] DEFAULT NULL::bigint[]) RETURNS SETOF bigint
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_archive(queue text, msg_id bigint, result jsonb DEFAULT NULL::jsonb, lease bigint DEFAULT NULL::bigint) RETURNS boolean
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_archive_batch(queue text, msg_ids bigint[], leases bigint[] DEFAULT NULL::bigint[], results jsonb[] DEFAULT NULL::jsonb[]) RETURNS SETOF bigint
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_extend(queue text, msg_id bigint, visibility_timeout interval, lease bigint DEFAULT NULL::bigint) RETURNS timestamp with time zone
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_extend_batch(queue text, msg_ids bigint[], leases bigint[] DEFAULT NULL::bigint[], visibility_timeout interval DEFAULT NULL::interval) RETURNS SETOF bigint
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_fail(queue text, msg_id bigint, error text DEFAULT NULL::text, retry_in interval DEFAULT NULL::interval, lease bigint DEFAULT NULL::bigint, dead boolean DEFAULT false) RETURNS text
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_fail_batch(queue text, msg_ids bigint[], leases bigint[] DEFAULT NULL::bigint[], error text DEFAULT NULL::text, retry_in interval DEFAULT NULL::interval, dead boolean DEFAULT false) RETURNS SETOF bigint
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_release(queue text, msg_id bigint, delay interval DEFAULT '00:00:00'::interval, lease bigint DEFAULT NULL::bigint) RETURNS boolean
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_release_batch(queue text, msg_ids bigint[], leases bigint[] DEFAULT NULL::bigint[], delay interval DEFAULT '00:00:00'::interval) RETURNS SETOF bigint
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_reschedule(queue text, msg_ids bigint[], deliver_at timestamp with time zone) RETURNS SETOF bigint
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_attempts(queue text, msg_id bigint) RETURNS integer
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_visible_at(queue text, msg_id bigint) RETURNS timestamp with time zone
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_status(queue text, msg_id bigint) RETURNS TABLE(state text, attempts integer, deliver_at timestamp with time zone, leased_until timestamp with time zone, finished_at timestamp with time zone, error text, result jsonb)
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_result(queue text, msg_id bigint, wait interval DEFAULT '00:00:00'::interval) RETURNS TABLE(state text, result jsonb, error text)
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_dead(queue text, qty integer DEFAULT 100) RETURNS TABLE(msg_id bigint, attempts integer, error text, died_at timestamp with time zone, headers jsonb, message jsonb)
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_redrive(queue text, msg_ids bigint[] DEFAULT NULL::bigint[], to_queue text DEFAULT NULL::text, died_before timestamp with time zone DEFAULT NULL::timestamp with time zone, matching jsonb DEFAULT NULL::jsonb, max integer DEFAULT NULL::integer) RETURNS bigint
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partition($1); $$;

CREATE FUNCTION enough.queue_stats(queue text DEFAULT NULL::text) RETURNS SETOF enough.queue_statistics
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON enough._partitions($1); $$;

CREATE FUNCTION enough.maintain(max_duration interval DEFAULT '00:00:10'::interval, OUT task text, OUT items bigint, OUT elapsed interval, OUT note text) RETURNS SETOF record
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON ALL; $$;

CREATE FUNCTION enough.status(OUT item text, OUT value text) RETURNS SETOF record
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; RUN ON ALL; $$;

-- Not here:
--   cache_mset: an object can't be cut in parts: use cache_set(), or cache_mset_bytes()
--   cache_fetch: its query would run on the server of the key, which needn't have the tables
--   cache_keys: it goes on after a key, which is on one server: call it on each
--   cache_tag_table: it is about roles or tables of the server itself: call it there
--   cache_untag_table: it is about roles or tables of the server itself: call it there
--   rate_limit_all: its keys are counted all or none, which several servers can't do
--   kv_mset: an object can't be cut in parts: use kv_set()
--   kv_keys: it goes on after a key, which is on one server: call it on each
--   kv_find: it goes on after a key, which is on one server: call it on each
--   kv_watch: versions are each server's own: call it on each
--   queue_rename: the new name may belong to another server, and the messages stay
--   queue_read_own: no transaction is longer than a call: it would find nothing
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

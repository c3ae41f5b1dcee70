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
For operators, see grant_to(), and functions that are SECURITY DEFINER: whom a limit holds back must not undo it. Fails as rate_limit() does, and with 42501 for others.';
REVOKE ALL ON FUNCTION enough.rate_limit_refund(text, integer, interval, integer, text, integer) FROM PUBLIC;

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
For operators, see grant_to(), and functions that are SECURITY DEFINER: whom a limit holds back must not undo it. Fails with 22004 for a NULL key, 54000 for one of more than 512 bytes, 42501 for others.';
REVOKE ALL ON FUNCTION enough.rate_limit_reset(text) FROM PUBLIC;

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
Returns nothing. For operators, see grant_to(): needs INSERT and UPDATE on enough.rate_limit_policy.
Fails with 22004 for NULL but in burst, 22023 as rate_limit() does or for a malformed name, 25006 in a read-only transaction or on a standby, 42501 without the privileges.';

CREATE FUNCTION enough.rate_limit_policy_drop(name text) RETURNS boolean
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_rate_limit_policy_drop';
COMMENT ON FUNCTION enough.rate_limit_policy_drop(text) IS
'Removes a policy of rate_limit_by().
Returns true where there was one. For operators, see grant_to(): needs DELETE on enough.rate_limit_policy. What was consumed under it is forgotten with time; until then a policy defined anew under that name finds it.
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

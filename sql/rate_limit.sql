-- Rate limits. Their state is in the server's shared memory, not in tables: nothing here writes a row, so all of it
-- works in read-only transactions and on standbys, and what was consumed stays consumed when the caller rolls back.
--
-- All are VOLATILE, because their results change within a statement, and PARALLEL UNSAFE, because they change shared
-- state. All are CALLED ON NULL INPUT: NULL stands for the default of an argument that has one, else it is an error that
-- names the argument.

CREATE FUNCTION enough.rate_limit(
    key text, max_requests integer, period interval, cost integer DEFAULT 1,
    algorithm text DEFAULT 'sliding_window', burst integer DEFAULT NULL,
    OUT allowed boolean, OUT remaining bigint, OUT retry_after interval, OUT reset_after interval) RETURNS record
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_rate_limit';
COMMENT ON FUNCTION enough.rate_limit(text, integer, interval, integer, text, integer) IS
'Consumes cost of what a key is allowed, max_requests per period, or nothing where less is left.
key: up to 512 bytes. max_requests: 0 to 10^9; 0 denies everything. period: 1 ms to 366 days. cost: 0 to 10^9; 0 consumes nothing and answers as rate_limit_peek(). algorithm: ''sliding_window'', ''fixed_window'' or ''token_bucket''. burst: the capacity of a token bucket, 1 to 10^9; NULL: max_requests. What was consumed is counted by key, algorithm and period; max_requests and burst may differ from call to call and apply to all that was consumed so far.
sliding_window: in any trailing period no more than max_requests are allowed; what was consumed is given back at most a 16th of the period late, never early. fixed_window: the window opens at the key''s first call and lasts a period. token_bucket: burst tokens at first, refilled at max_requests per period.
Returns one row. allowed. remaining: how many more of cost 1 would be allowed now. retry_after: how long until the same call would be allowed; 0 where it was, NULL where it never can be because cost is above the capacity. reset_after: how long until the key is as good as new. A denied call consumes nothing; what an allowed one has consumed stays consumed when its transaction rolls back.
Call it in FROM: (enough.rate_limit(...)).* calls it once for each column. A call whose arguments are all constants is made once a statement, however many rows it is joined with.
Fails with 22004 for a NULL key, max_requests or period, 22023 for an argument out of range, another algorithm, or a burst without a token bucket, 54000 for a key of more than 512 bytes.';

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
amount: 0 to 10^9; where less was consumed and still counts, all of that. The others as of rate_limit(). A sliding window takes it from what was consumed last.
Returns one row as rate_limit_peek() then would. It is not undone by a rollback.
Call it in FROM, as rate_limit().
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
Returns one row. granted: how much was consumed, 0 to cost. allowed: whether that is all of cost. retry_after: how long until all of cost would be granted at once by another call, nothing else consuming. The others as of rate_limit().
Call it in FROM, as rate_limit().
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
'Forgets all that a key has consumed, under every algorithm and period. A block stays, and so does what it has consumed under policies.
key: up to 512 bytes.
Returns true where there was something to forget. It is not undone by a rollback.
For operators, see grant_to(), and functions that are SECURITY DEFINER: whom a limit holds back must not undo it. Fails with 22004 for a NULL key, 54000 for one of more than 512 bytes, 42501 for others.';
REVOKE ALL ON FUNCTION enough.rate_limit_reset(text) FROM PUBLIC;

CREATE FUNCTION enough.rate_limit_block(key text, duration interval) RETURNS void
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_rate_limit_block';
COMMENT ON FUNCTION enough.rate_limit_block(text, interval) IS
'Denies every request of a key for a time, whatever its limits: those of rate_limit() and the like, and those of every policy.
key: up to 512 bytes. duration: 1 ms to 366 days, from now on; it takes the place of an earlier one.
Returns nothing. It is not undone by a rollback.
For operators, see grant_to(). Fails with 22004 for NULL, 22023 for a duration out of range, 54000 for a key of more than 512 bytes, 42501 for others.';
REVOKE ALL ON FUNCTION enough.rate_limit_block(text, interval) FROM PUBLIC;

CREATE FUNCTION enough.rate_limit_unblock(key text) RETURNS boolean
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_rate_limit_unblock';
COMMENT ON FUNCTION enough.rate_limit_unblock(text) IS
'Ends what rate_limit_block() began.
key: up to 512 bytes.
Returns true where the key was blocked. It is not undone by a rollback.
For operators, see grant_to(). Fails with 22004 for a NULL key, 54000 for one of more than 512 bytes, 42501 for others.';
REVOKE ALL ON FUNCTION enough.rate_limit_unblock(text) FROM PUBLIC;

CREATE FUNCTION enough.rate_limit_reserve(
    key text, max_requests integer, period interval, cost integer DEFAULT 1, burst integer DEFAULT NULL,
    max_wait interval DEFAULT '1 minute') RETURNS interval
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_rate_limit_reserve';
COMMENT ON FUNCTION enough.rate_limit_reserve(text, integer, interval, integer, integer, interval) IS
'Books cost of a key''s token bucket ahead, for a caller that waits rather than comes again.
Arguments as of rate_limit() with algorithm ''token_bucket'', whose state it shares. max_wait: 0 to 366 days.
Returns how long to wait before acting, 0 where there is enough now; NULL, and nothing is booked, where it would be more than max_wait or cost is above the capacity. It does not wait itself, so that no connection is held. rate_limit_refund() gives back what is not needed.
Fails as rate_limit() does.';

CREATE FUNCTION enough.rate_limit_stats(
    policy text DEFAULT NULL,
    OUT policy text, OUT allowed bigint, OUT denied bigint, OUT would_have_denied bigint, OUT keys bigint,
    OUT bytes_used bigint, OUT bytes_max bigint,
    OUT evictions bigint, OUT evictions_of_active bigint, OUT evictions_of_exhausted bigint)
RETURNS SETOF record
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 5 AS 'MODULE_PATHNAME', 'enough_rate_limit_stats';
COMMENT ON FUNCTION enough.rate_limit_stats(text) IS
'Returns what the rate limiter holds and has done since its memory was made.
policy: one of this database; NULL: a row of the whole server, in which policy is NULL, then one for each policy of this database by name.
allowed and denied: calls that consumed something, and calls that got nothing; would_have_denied: those that got nothing and were allowed because their policy is in shadow mode. keys: states now, one per key, algorithm and period, or per key and rule of a policy, those included that are as good as new and will be removed by maintain() or when room is needed. bytes_used: by them; bytes_max: by enough.rate_limit_memory. evictions: states that gave way to others; evictions_of_active: those of them that were not as good as new; evictions_of_exhausted: those whose limit was used up, so that their keys are allowed again: the memory holds too few states for as many used-up keys. The sizes and the other evictions are not known by policy.
May be called by members of pg_monitor.
Fails with 42704 where there is no such policy.';
REVOKE ALL ON FUNCTION enough.rate_limit_stats(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION enough.rate_limit_stats(text) TO pg_monitor;

CREATE FUNCTION enough.rate_limit_enforce(
    key text, max_requests integer, period interval, cost integer DEFAULT 1,
    algorithm text DEFAULT 'sliding_window', burst integer DEFAULT NULL, postgrest boolean DEFAULT false) RETURNS void
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_rate_limit_enforce';
COMMENT ON FUNCTION enough.rate_limit_enforce(text, integer, interval, integer, text, integer, boolean) IS
'Consumes cost of what a key is allowed, or raises an error where less is left.
Arguments as of rate_limit(). postgrest: the error is one of SQLSTATE PGRST, of which PostgREST makes a response of status 429 with the fields Retry-After, RateLimit and RateLimit-Policy.
Returns nothing. The count survives the rollback that the error causes. The error is not written to the server''s log, unless log_min_messages is debug1 or lower.
Fails with PT429, which PostgREST turns into HTTP 429, where the limit is exceeded: DETAIL is retry_after in whole seconds, rounded up, or never where cost is above the capacity. With PGRST in its place, MESSAGE is the body of the response and DETAIL its status and fields, in JSON. Otherwise as rate_limit() does.';

CREATE FUNCTION enough.rate_limit_policy_set(
    name text, max_requests integer, period interval, algorithm text DEFAULT 'sliding_window',
    burst integer DEFAULT NULL, shadow boolean DEFAULT false, calendar text DEFAULT NULL, time_zone text DEFAULT 'UTC')
RETURNS void
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_rate_limit_policy_set';
COMMENT ON FUNCTION enough.rate_limit_policy_set(text, integer, interval, text, integer, boolean, text, text) IS
'Defines a policy of rate_limit_by() with one rule, or changes it to that; calls find it so from the commit on.
name: 1 to 63 bytes. max_requests, period, algorithm and burst: as of rate_limit(). shadow: the policy allows everything and is counted as if it did not, to see in rate_limit_stats() and in remaining what it would do. calendar: ''hour'', ''day'', ''week'' (from Monday on), ''month'' or ''year'': at most max_requests in each of the calendar''s, as time_zone has them; period is NULL then, and algorithm and burst are left out. time_zone: a name such as ''Europe/Berlin''.
A change applies to what was consumed so far, whatever changes: what counted by the old rule counts by the new one, at the latest moment at which it can have been consumed. So a change never gives a fresh allowance. Overrides stay.
Returns nothing. For operators, see grant_to(): needs INSERT, UPDATE and DELETE on enough.rate_limit_policy.
Fails with 22004 for a NULL name or max_requests, or NULL for both period and calendar, 22023 as rate_limit() does, for a malformed name, another calendar or time zone, or a period with a calendar, 25006 in a read-only transaction or on a standby, 42501 without the privileges.';

CREATE FUNCTION enough.rate_limit_policy_add(
    name text, max_requests integer, period interval, algorithm text DEFAULT 'sliding_window',
    burst integer DEFAULT NULL, calendar text DEFAULT NULL, time_zone text DEFAULT 'UTC') RETURNS void
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_rate_limit_policy_add';
COMMENT ON FUNCTION enough.rate_limit_policy_add(text, integer, interval, text, integer, text, text) IS
'Adds a further rule to a policy: a request consumes from all of its rules, or from none where one has less left.
Arguments as of rate_limit_policy_set(). What was consumed before counts for the new rule, too, as far as another rule knows of it.
Returns nothing. For operators, see grant_to(): needs INSERT and UPDATE on enough.rate_limit_policy.
Fails with 42704 where there is no such policy, 54000 for more than 8 rules, otherwise as rate_limit_policy_set() does.';

CREATE FUNCTION enough.rate_limit_policy_override(name text, key text, max_requests integer) RETURNS void
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_rate_limit_policy_override';
COMMENT ON FUNCTION enough.rate_limit_policy_override(text, text, integer) IS
'Gives one key of a policy another max_requests than the policy''s first rule has, until rate_limit_policy_override_drop() or rate_limit_policy_drop().
key: up to 512 bytes. max_requests: 0 to 10^9; 0: never, NULL: without a limit by that rule. A token bucket''s burst stays as it is.
Returns nothing. For operators, see grant_to(): needs INSERT and UPDATE on enough.rate_limit_override.
Fails with 22004 for a NULL name or key, 22023 for max_requests out of range or a malformed name, 25006 in a read-only transaction or on a standby, 42501 without the privileges, 42704 where there is no such policy, 54000 for a key of more than 512 bytes.';

CREATE FUNCTION enough.rate_limit_policy_override_drop(name text, key text) RETURNS boolean
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_rate_limit_policy_override_drop';
COMMENT ON FUNCTION enough.rate_limit_policy_override_drop(text, text) IS
'Ends what rate_limit_policy_override() gave a key: the policy''s first rule applies to it again, to what it has consumed so far.
Returns true where there was something. For operators, see grant_to(): needs DELETE on enough.rate_limit_override.
Fails with 22004 for NULL, 22023 for a malformed name, 25006 in a read-only transaction or on a standby, 42501 without the privilege, 54000 for a key of more than 512 bytes.';

CREATE FUNCTION enough.rate_limit_policy_drop(name text) RETURNS boolean
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_rate_limit_policy_drop';
COMMENT ON FUNCTION enough.rate_limit_policy_drop(text) IS
'Removes a policy of rate_limit_by() with its rules and overrides.
Returns true where there was one. For operators, see grant_to(): needs DELETE on enough.rate_limit_policy. What was consumed under it is forgotten with time; until then a policy defined again under that name finds it.
Fails with 22004 for a NULL name, 22023 for a malformed one, 25006 in a read-only transaction or on a standby, 42501 without the privilege.';

CREATE FUNCTION enough.rate_limit_policies(
    OUT name text, OUT rule integer, OUT max_requests integer, OUT period interval, OUT algorithm text, OUT burst integer,
    OUT calendar text, OUT time_zone text, OUT shadow boolean, OUT overrides bigint) RETURNS SETOF record
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'enough_rate_limit_policies';
COMMENT ON FUNCTION enough.rate_limit_policies() IS
'Lists the policies of this database, a row for each rule, as rate_limit_policy_set() and rate_limit_policy_add() take them.
overrides: how many keys have another max_requests than the first rule; 0 for the other rules.';

CREATE FUNCTION enough.rate_limit_by(
    policy text, key text, cost integer DEFAULT 1,
    OUT allowed boolean, OUT remaining bigint, OUT retry_after interval, OUT reset_after interval) RETURNS record
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_rate_limit_by';
COMMENT ON FUNCTION enough.rate_limit_by(text, text, integer) IS
'Consumes cost of what each rule of a policy allows a key, or nothing where one has less left.
policy: as defined by rate_limit_policy_set(). key and cost: as of rate_limit(). A policy''s keys are its own: what is consumed of the same key under another policy, or by rate_limit(), does not count here, and rate_limit_reset() does not touch it.
Returns one row as rate_limit() does: of several rules the least remaining, and the longest retry_after and reset_after; remaining is NULL for a key that an override leaves without a limit. Under a policy in shadow mode, allowed is always true and retry_after 0.
Call it in FROM, as rate_limit().
Fails with 42704 where there is no such policy, otherwise as rate_limit() does.';

CREATE FUNCTION enough.rate_limit_enforce_by(
    policy text, key text, cost integer DEFAULT 1, postgrest boolean DEFAULT false) RETURNS void
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_rate_limit_enforce_by';
COMMENT ON FUNCTION enough.rate_limit_enforce_by(text, text, integer, boolean) IS
'Consumes cost of what each rule of a policy allows a key, or raises an error where one has less left.
Arguments as of rate_limit_by(). postgrest: as of rate_limit_enforce().
Returns nothing. Under a policy in shadow mode it never raises.
Fails with PT429 or PGRST as rate_limit_enforce() does, otherwise as rate_limit_by() does.';

CREATE FUNCTION enough.rate_limit_headers(
    key text, max_requests integer, period interval, algorithm text DEFAULT 'sliding_window', burst integer DEFAULT NULL)
RETURNS jsonb
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_rate_limit_headers';
COMMENT ON FUNCTION enough.rate_limit_headers(text, integer, interval, text, integer) IS
'Tells how a key stands in the fields RateLimit and RateLimit-Policy of HTTP (IETF draft-ietf-httpapi-ratelimit-headers-11), and consumes nothing.
Arguments as of rate_limit_peek().
Returns an object of texts. RateLimit: r, how many more of cost 1 would be allowed now; t, seconds in which there are no more than r, 0 where nothing was consumed. RateLimit-Policy: q, the quota, max_requests or the burst of a token bucket; w, the seconds it is for. Retry-After, only where a call would be denied and some day would not: seconds until then. Seconds are whole, rounded up.
Fails as rate_limit() does.';

CREATE FUNCTION enough.rate_limit_headers_by(policy text, key text) RETURNS jsonb
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_rate_limit_headers_by';
COMMENT ON FUNCTION enough.rate_limit_headers_by(text, text) IS
'Tells how a key stands under a policy in fields of HTTP, as rate_limit_headers() does, and consumes nothing.
Returns an object as rate_limit_headers() does: RateLimit and RateLimit-Policy are lists with an item for each rule, named as the policy, from the second rule on with the rule''s number behind it (''calls'', ''calls.2''). Other characters than those of ASCII are written in percent-encoding. A rule that an override takes away has no item.
Fails as rate_limit_by() does.';

-- When the calendar''s window that holds a moment opens and closes: at the first instant that has the local time at which
-- the window begins, where clocks are set back over it; at the instant at which clocks are set forward, where they skip it.
CREATE FUNCTION enough._rate_limit_window(
    unit text, zone text, moment timestamptz, OUT opens timestamptz, OUT closes timestamptz) RETURNS record
LANGUAGE sql STABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
    WITH local (begins) AS (
        SELECT pg_catalog.date_trunc(unit, pg_catalog.timezone(zone, moment))
    ), ends (n, begins) AS (
        SELECT 0, begins FROM local
        UNION ALL
        SELECT 1, begins OPERATOR(pg_catalog.+) ('1 ' OPERATOR(pg_catalog.||) unit)::interval FROM local
    ), latest (n, begins, instant) AS (
        -- Of two instants with the same local time the server takes the later one.
        SELECT n, begins, pg_catalog.timezone(zone, begins) FROM ends
    ), earlier (n, begins, instant, other) AS (
        -- The instant that has it by the offset from before the clocks are set back.
        SELECT n, begins, instant, instant OPERATOR(pg_catalog.-) (
            pg_catalog.timezone(zone, instant OPERATOR(pg_catalog.-) '3 hours'::interval)
            OPERATOR(pg_catalog.+) '3 hours'::interval OPERATOR(pg_catalog.-) pg_catalog.timezone(zone, instant))
        FROM latest
    ), first (n, instant) AS (
        SELECT n, CASE WHEN unit OPERATOR(pg_catalog.<>) 'hour'
                AND other OPERATOR(pg_catalog.<) instant
                AND pg_catalog.timezone(zone, other) OPERATOR(pg_catalog.=) begins THEN other ELSE instant END
        FROM earlier
    )
    -- An hour lasts an hour, also one that comes twice.
    SELECT CASE WHEN unit OPERATOR(pg_catalog.=) 'hour' THEN pg_catalog.date_trunc(unit, moment, zone)
                ELSE pg_catalog.min(instant) FILTER (WHERE n OPERATOR(pg_catalog.=) 0) END,
           CASE WHEN unit OPERATOR(pg_catalog.=) 'hour'
                THEN pg_catalog.date_trunc(unit, moment, zone) OPERATOR(pg_catalog.+) '1 hour'::interval
                ELSE pg_catalog.min(instant) FILTER (WHERE n OPERATOR(pg_catalog.=) 1) END
    FROM first;
END;

-- Rate limits: answers that don't depend on how fast the test runs. Periods are long where nothing may expire; where
-- time has to pass, the test waits for as long as it is told to.

-- The three algorithms: what is allowed, and what a cost of n does.
SELECT algorithm, n, cost, allowed, remaining, retry_after IS NULL AS never,
       retry_after > '0' AS has_to_wait, reset_after BETWEEN '1 second' AND '2 hours' AS resets
FROM unnest(ARRAY['fixed_window', 'sliding_window', 'token_bucket']) AS algorithm,
     unnest(ARRAY[1, 1, 3, 2, 1, 6, 0]) WITH ORDINALITY AS cost(cost, n),
     LATERAL enough.rate_limit('plain', 5, '1 hour', cost, algorithm)
ORDER BY algorithm, n;

-- The short call is sliding_window with a cost of 1.
SELECT allowed, remaining FROM enough.rate_limit('short', 5, '1 hour');
SELECT allowed, remaining FROM enough.rate_limit('short', 5, '1 hour', 1, 'sliding_window', NULL);
-- Untyped parameters find their function.
PREPARE untyped AS SELECT allowed, remaining FROM enough.rate_limit($1, $2, $3, $4, $5, $6);
EXECUTE untyped('short', 5, '1 hour', 1, 'sliding_window', NULL);

-- burst is the capacity of a token bucket, which starts full.
SELECT allowed, remaining FROM enough.rate_limit('burst', 1, '1 hour', 8, 'token_bucket', 10);
SELECT allowed, remaining, retry_after BETWEEN '59 minutes' AND '1 hour' AS an_hour, reset_after BETWEEN '7 hours' AND '8 hours' AS eight_hours
FROM enough.rate_limit('burst', 1, '1 hour', 3, 'token_bucket', 10);
SELECT allowed, retry_after FROM enough.rate_limit('burst', 1, '1 hour', 11, 'token_bucket', 10);

-- A key that nothing is known of is as good as new.
SELECT * FROM enough.rate_limit_peek('unknown', 7, '1 hour');
SELECT * FROM enough.rate_limit('unknown', 7, '1 hour', 8);
SELECT * FROM enough.rate_limit('unknown', 7, '1 hour', 0);

-- A peek tells what a call would find, and neither it nor a cost of 0 consumes.
SELECT allowed, remaining FROM enough.rate_limit('peek', 2, '1 hour', 2);
SELECT allowed, remaining FROM enough.rate_limit_peek('peek', 3, '1 hour');
SELECT allowed, remaining FROM enough.rate_limit_peek('peek', 3, '1 hour');
SELECT allowed, remaining FROM enough.rate_limit('peek', 3, '1 hour', 0);
SELECT allowed, remaining FROM enough.rate_limit('peek', 3, '1 hour');
SELECT allowed, remaining, retry_after > '0' AS has_to_wait FROM enough.rate_limit_peek('peek', 3, '1 hour');
SELECT allowed, remaining, retry_after > '0' AS has_to_wait FROM enough.rate_limit('peek', 3, '1 hour', 0);

-- Limits may change from call to call; they apply to what was consumed so far.
SELECT max_requests, allowed, remaining
FROM unnest(ARRAY[10, 10, 2, 3, 4, 1000000000]) AS max_requests, LATERAL enough.rate_limit('dynamic', max_requests, '1 hour');
SELECT burst, allowed, remaining
FROM unnest(ARRAY[10, 10, 2, 3, 4, 1000000000]) AS burst,
     LATERAL enough.rate_limit('dynamic', 1, '1 hour', 1, 'token_bucket', burst);

-- State belongs to key, algorithm and period; a reset clears all of a key's.
SELECT algorithm, period, remaining
FROM unnest(ARRAY['fixed_window', 'sliding_window', 'token_bucket']) AS algorithm,
     unnest(ARRAY['1 hour', '60 minutes', '2 hours']::interval[]) AS period,
     LATERAL enough.rate_limit('state', 9, period, 1, algorithm);
SELECT enough.rate_limit_reset('state');
SELECT enough.rate_limit_reset('state');
SELECT DISTINCT remaining
FROM unnest(ARRAY['fixed_window', 'sliding_window', 'token_bucket']) AS algorithm,
     unnest(ARRAY['1 hour', '2 hours']::interval[]) AS period,
     LATERAL enough.rate_limit_peek('state', 9, period, algorithm);
SELECT allowed, remaining FROM enough.rate_limit_peek('short', 5, '1 hour');

-- Keys are any text up to 512 bytes.
SELECT length(key), octet_length(key), remaining
FROM (VALUES (''), (' '), ('a''b"c\d'), ('ключ'), ('🔑'), (E'line\nfeed'), (repeat('k', 512)), (repeat('é', 256))) AS keys(key),
     LATERAL enough.rate_limit(key, 5, '1 hour');
SELECT remaining FROM enough.rate_limit('ключ', 5, '1 hour');

-- What was consumed stays consumed when the caller rolls back.
BEGIN;
SELECT allowed, remaining FROM enough.rate_limit('rollback', 5, '1 hour');
SAVEPOINT a;
SELECT allowed, remaining FROM enough.rate_limit('rollback', 5, '1 hour');
ROLLBACK TO a;
ROLLBACK;
DO $$
BEGIN
    PERFORM enough.rate_limit('rollback', 5, '1 hour');
    RAISE 'the login has failed';
EXCEPTION WHEN raise_exception THEN
    NULL;
END $$;
SELECT allowed, remaining FROM enough.rate_limit_peek('rollback', 5, '1 hour');

-- It needs no right to write, in no transaction.
BEGIN READ ONLY;
SELECT allowed, remaining FROM enough.rate_limit('read only', 5, '1 hour');
SELECT enough.rate_limit_reset('read only');
COMMIT;
CREATE ROLE regress_rate_limit_nobody;
SET ROLE regress_rate_limit_nobody;
SELECT allowed, remaining FROM enough.rate_limit('nobody', 5, '1 hour');
RESET ROLE;
DROP ROLE regress_rate_limit_nobody;

-- A caller that sleeps retry_after and calls again is allowed; one that sleeps reset_after has all of it.
CREATE FUNCTION waits(limited text, cost int, burst int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    answer record;
BEGIN
    FOR attempt IN 1 .. 3 LOOP
        LOOP
            SELECT * INTO answer FROM enough.rate_limit('waits', 7, '150 ms', cost, limited, burst);
            EXIT WHEN NOT answer.allowed;
        END LOOP;
        PERFORM pg_sleep(extract(epoch FROM answer.retry_after));
        SELECT * INTO answer FROM enough.rate_limit('waits', 7, '150 ms', cost, limited, burst);
        IF NOT answer.allowed THEN
            RETURN format('denied after its retry_after; to wait for another %s', answer.retry_after);
        END IF;
    END LOOP;
    PERFORM pg_sleep(extract(epoch FROM answer.reset_after));
    SELECT * INTO answer FROM enough.rate_limit_peek('waits', 7, '150 ms', limited, burst);
    RETURN format('has %s, to be reset in %s', answer.remaining, answer.reset_after);
END $$;
SELECT algorithm, cost, burst, waits(algorithm, cost, burst)
FROM (VALUES ('fixed_window', 1, NULL), ('fixed_window', 5, NULL), ('sliding_window', 1, NULL), ('sliding_window', 5, NULL),
             ('token_bucket', 1, NULL), ('token_bucket', 5, NULL), ('token_bucket', 2, 3)) AS cases(algorithm, cost, burst);

-- A refund gives back at most what was consumed.
SELECT algorithm, consumed.remaining, refunded.remaining, refunded.allowed, over.remaining, over.reset_after
FROM unnest(ARRAY['fixed_window', 'sliding_window', 'token_bucket']) AS algorithm,
     LATERAL enough.rate_limit('refund', 5, '1 hour', 5, algorithm) AS consumed,
     LATERAL enough.rate_limit_refund('refund', 5, '1 hour', 2, algorithm) AS refunded,
     LATERAL enough.rate_limit_refund('refund', 5, '1 hour', 1000000000, algorithm) AS over;
SELECT * FROM enough.rate_limit_refund('never seen', 5, '1 hour');
SELECT remaining FROM enough.rate_limit('refund', 5, '1 hour', 4);
SELECT remaining FROM enough.rate_limit_refund('refund', 5, '1 hour');
SELECT remaining FROM enough.rate_limit_refund('refund', 5, '1 hour', 0);

-- As much as there is.
SELECT n, granted, allowed, remaining, retry_after IS NULL AS never, retry_after > '0' AS has_to_wait
FROM unnest(ARRAY[3, 3, 3]) WITH ORDINALITY AS calls(cost, n), LATERAL enough.rate_limit_up_to('up to', 5, '1 hour', cost);
SELECT granted, allowed, remaining, retry_after FROM enough.rate_limit_up_to('up to all', 5, '1 hour', 1000000000);
SELECT granted, allowed, remaining FROM enough.rate_limit_up_to('up to none', 5, '1 hour', 0);

-- Several keys at once: all or none. Where it is none, retry_after tells who is in the way.
SELECT key, allowed, remaining, retry_after, reset_after
FROM enough.rate_limit_all(ARRAY['all a', 'all b'], ARRAY[2, 5], ARRAY['1 hour', '2 hours']::interval[]);
SELECT key, allowed, remaining, retry_after = '0' AS at_once
FROM enough.rate_limit_all(ARRAY['all a', 'all b', 'all c'], ARRAY[2, 5, 9], ARRAY['1 hour', '2 hours', '1 hour']::interval[]);
SELECT key, allowed, remaining, retry_after = '0' AS at_once
FROM enough.rate_limit_all(ARRAY['all b', 'all a'], ARRAY[5, 2], ARRAY['2 hours', '1 hour']::interval[]);
SELECT key, allowed, remaining, retry_after IS NULL AS never
FROM enough.rate_limit_all(ARRAY['all b', 'all a'], ARRAY[5, 2], ARRAY['2 hours', '1 hour']::interval[], 3);
-- A key with several periods, and several times with the same one.
SELECT key, allowed, remaining
FROM enough.rate_limit_all(ARRAY['all d', 'all d'], ARRAY[3, 10], ARRAY['1 hour', '1 day']::interval[], 2, 'fixed_window');
SELECT key, allowed, remaining
FROM enough.rate_limit_all(ARRAY['all d', 'all d'], ARRAY[3, 10], ARRAY['1 hour', '1 day']::interval[], 2, 'fixed_window');
SELECT key, allowed, remaining FROM enough.rate_limit_all(ARRAY['all e', 'all e'], ARRAY[3, 3], ARRAY['1 hour', '1 hour']::interval[]);
SELECT key, allowed, remaining FROM enough.rate_limit_all(ARRAY['all e', 'all e'], ARRAY[3, 3], ARRAY['1 hour', '1 hour']::interval[]);
SELECT key, allowed, remaining FROM enough.rate_limit_all(ARRAY['all e'], ARRAY[3], ARRAY['1 hour']::interval[], 0);
SELECT * FROM enough.rate_limit_all('{}', '{}', '{}');
SELECT count(*), bool_and(allowed)
FROM enough.rate_limit_all(array_fill('all f'::text, ARRAY[100]), array_fill(100, ARRAY[100]), array_fill('1 hour'::interval, ARRAY[100]));
SELECT remaining FROM enough.rate_limit_peek('all f', 100, '1 hour');

-- Bad input: the SQLSTATE, the message and the hint; nothing is consumed.
CREATE FUNCTION outcome(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    message text;
    hint text;
BEGIN
    EXECUTE 'SELECT ' || call;
    RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
    RETURN format('%s: %s (%s)', SQLSTATE, message, hint);
END $$;
SELECT call, outcome('enough.rate_limit' || call)
FROM unnest(ARRAY[
    $$(NULL, 5, '1 hour')$$,
    $$('bad', NULL, '1 hour')$$,
    $$('bad', 5, NULL)$$,
    $$('bad', -1, '1 hour')$$,
    $$('bad', 1000000001, '1 hour')$$,
    $$('bad', 2147483647, '1 hour')$$,
    $$('bad', '-2147483648', '1 hour')$$,
    $$('bad', 5, '0')$$,
    $$('bad', 5, '-1 hour')$$,
    $$('bad', 5, '0.999 ms')$$,
    $$('bad', 5, '366 days 0.000001 seconds')$$,
    $$('bad', 5, '178000000 years')$$,
    $$('bad', 5, '-178000000 years')$$,
    $$('bad', 5, '1 hour', -1)$$,
    $$('bad', 5, '1 hour', 1000000001)$$,
    $$('bad', 5, '1 hour', 1, '')$$,
    $$('bad', 5, '1 hour', 1, 'Token_Bucket')$$,
    $$('bad', 5, '1 hour', 1, E'x\ny')$$,
    $$('bad', 5, '1 hour', 1, 'token_bucket', 0)$$,
    $$('bad', 5, '1 hour', 1, 'token_bucket', 1000000001)$$,
    $$('bad', 5, '1 hour', 1, 'sliding_window', 5)$$,
    $$('bad', 5, '1 hour', 1, 'fixed_window', 5)$$,
    $$(repeat('k', 513), 5, '1 hour')$$,
    $$(repeat('é', 257), 5, '1 hour')$$,
    $$_peek(NULL, 5, '1 hour')$$,
    $$_peek('bad', 5, '1 hour', 'none')$$,
    $$_refund('bad', 5, '1 hour', -1)$$,
    $$_up_to('bad', 5, '1 hour', -1)$$,
    $$_all(NULL, '{5}', '{1 hour}')$$,
    $$_all('{bad}', NULL, '{1 hour}')$$,
    $$_all('{bad}', '{5}', NULL)$$,
    $$_all('{bad,NULL}', '{5,5}', '{1 hour,1 hour}')$$,
    $$_all('{bad,b}', '{5,NULL}', '{1 hour,1 hour}')$$,
    $$_all('{bad,b}', '{5,5}', '{1 hour,NULL}')$$,
    $$_all('{bad}', '{5,5}', '{1 hour}')$$,
    $$_all('{bad,b}', '{5,5}', '{1 hour}')$$,
    $$_all('{bad,b}', '{5,-1}', '{1 hour,1 hour}')$$,
    $$_all('{bad,b}', '{5,5}', '{1 hour,0}')$$,
    $$_all('{bad,bad}', '{5,6}', '{1 hour,1 hour}')$$,
    $$_all('{bad}', '{5}', '{1 hour}', -1)$$,
    $$_all('{bad}', '{5}', '{1 hour}', 1, 'none')$$,
    $$_all(ARRAY['bad', repeat('k', 513)], '{5,5}', '{1 hour,1 hour}')$$,
    $$_all(array_fill('bad'::text, ARRAY[101]), array_fill(5, ARRAY[101]), array_fill('1 hour'::interval, ARRAY[101]))$$,
    $$_enforce(NULL, 5, '1 hour')$$,
    $$_enforce('bad', 5, '1 hour', -1)$$,
    $$_reserve(NULL, 5, '1 hour')$$,
    $$_reserve('bad', 5, '1 hour', max_wait => '-1 s')$$,
    $$_reserve('bad', 5, '1 hour', max_wait => '367 days')$$,
    $$_block(NULL, '1 hour')$$,
    $$_block('bad', NULL)$$,
    $$_block('bad', '0')$$,
    $$_block('bad', '1 year 2 days')$$,
    $$_unblock(NULL)$$,
    $$_reset(NULL)$$,
    $$_reset(repeat('k', 513))$$]) AS call;
-- Intervals can be infinite since 17.
SELECT DISTINCT CASE WHEN current_setting('server_version_num')::int >= 170000
    THEN left(outcome(format('enough.rate_limit(%L, 5, %L)', 'bad', period)), 5) ELSE '22023' END
FROM unnest(ARRAY['infinity', '-infinity']) AS period;
SELECT allowed, remaining FROM enough.rate_limit_peek('bad', 5, '1 hour');
SELECT allowed, remaining FROM enough.rate_limit_peek('bad', 5, '1 hour', 'token_bucket');

-- NULL is the default of what has one; a limit of 0 denies.
SELECT allowed, remaining FROM enough.rate_limit('null', 5, '1 hour', NULL, NULL, NULL);
SELECT remaining FROM enough.rate_limit_peek('null', 5, '1 hour', NULL, NULL);
SELECT granted FROM enough.rate_limit_up_to('null', 5, '1 hour', NULL, NULL, NULL);
SELECT remaining FROM enough.rate_limit_refund('null', 5, '1 hour', NULL, NULL, NULL);
SELECT key, remaining FROM enough.rate_limit_all(ARRAY['null'], '{5}', '{1 hour}', NULL, NULL);
SELECT enough.rate_limit_enforce('null', 5, '1 hour', NULL, NULL, NULL, NULL);
SELECT enough.rate_limit_reserve('null', 5, '1 hour', NULL, NULL, NULL);
SELECT algorithm, allowed, remaining, retry_after, reset_after
FROM unnest(ARRAY['fixed_window', 'sliding_window', 'token_bucket']) AS algorithm,
     LATERAL enough.rate_limit('zero', 0, '1 hour', 1, algorithm);

-- The ends of the ranges.
SELECT allowed, remaining, retry_after, reset_after > '200000 years' AS saturated
FROM enough.rate_limit('extreme', 1, '366 days', 1000000000, 'token_bucket', 1000000000);
SELECT algorithm, allowed, remaining, retry_after
FROM unnest(ARRAY['fixed_window', 'sliding_window', 'token_bucket']) AS algorithm,
     LATERAL enough.rate_limit('extreme ' || algorithm, 1000000000, '366 days', 1000000000, algorithm);
SELECT allowed, remaining FROM enough.rate_limit('extreme', 1, '1 ms');

-- Enforced: an error instead of an answer, and the count survives the rollback that it causes.
SELECT enough.rate_limit_enforce('enforce', 2, '1 hour');
BEGIN;
SELECT enough.rate_limit_enforce('enforce', 2, '1 hour');
ROLLBACK;
SELECT remaining FROM enough.rate_limit_peek('enforce', 2, '1 hour');
CREATE FUNCTION enforced(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    message text;
    detail text;
    hint text;
BEGIN
    EXECUTE call;
    RETURN 'done';
EXCEPTION WHEN SQLSTATE 'PT429' THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN format('%s, %s (%s)', message, CASE detail WHEN 'never' THEN detail ELSE (detail::int BETWEEN 1 AND 3600)::text END, hint);
END $$;
SELECT enforced($$SELECT enough.rate_limit_enforce('enforce', 2, '1 hour')$$);
SELECT enforced($$SELECT enough.rate_limit_enforce('enforce', 2, '1 hour', 3)$$);
SELECT enforced($$SELECT enough.rate_limit_enforce('enforce token', 1, '1 hour', 9, 'token_bucket', 9)$$);
SELECT enforced($$SELECT enough.rate_limit_enforce('enforce token', 1, '1 hour', 1, 'token_bucket', 9)$$);
-- By a trigger: what a tenant may insert. The third row fails, and with it the statement; the fourth finds it counted.
CREATE TABLE limited (tenant text, n int);
CREATE FUNCTION limit_inserts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM enough.rate_limit_enforce('inserts of ' || NEW.tenant, 2, '1 hour');
    RETURN NEW;
END $$;
CREATE TRIGGER limited BEFORE INSERT ON limited FOR EACH ROW EXECUTE FUNCTION limit_inserts();
SELECT enforced($$INSERT INTO limited SELECT 'a', generate_series(1, 3)$$);
SELECT enforced($$INSERT INTO limited VALUES ('a', 4)$$);
SELECT enforced($$INSERT INTO limited VALUES ('b', 5)$$);
SELECT * FROM limited;
DROP TRIGGER limited ON limited;
-- By a row security policy: how often a role may read.
CREATE FUNCTION may_read() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM enough.rate_limit_enforce('reads of ' || current_user, 2, '1 hour');
    RETURN true;
END $$;
CREATE ROLE regress_rate_limit_reader;
GRANT SELECT ON limited TO regress_rate_limit_reader;
ALTER TABLE limited ENABLE ROW LEVEL SECURITY;
CREATE POLICY reads ON limited FOR SELECT USING ((SELECT may_read()));
SET ROLE regress_rate_limit_reader;
SELECT enforced('SELECT * FROM limited') FROM generate_series(1, 3);
RESET ROLE;
SELECT allowed, remaining FROM enough.rate_limit_peek('reads of regress_rate_limit_reader', 2, '1 hour');
DROP TABLE limited;
DROP FUNCTION limit_inserts, may_read, enforced;
DROP ROLE regress_rate_limit_reader;

-- Policies have a name; their keys are their own.
SELECT enough.rate_limit_policy_set('calls', 3, '1 hour');
SELECT enough.rate_limit_policy_set('trial', 1, '1 hour', shadow => true);
SELECT enough.rate_limit_policy_set('bucket', 2, '90 minutes', 'token_bucket', 5);
SELECT * FROM enough.rate_limit_policies();
SELECT allowed, remaining FROM enough.rate_limit('a policy''s', 3, '1 hour', 3);
SELECT n, allowed, remaining, retry_after > '0' AS has_to_wait FROM unnest(ARRAY[1, 2, 1]) WITH ORDINALITY AS calls(cost, n),
    LATERAL enough.rate_limit_by('calls', 'a policy''s', cost);
SELECT n, allowed, remaining, retry_after FROM unnest(ARRAY[1, 1, 2]) WITH ORDINALITY AS calls(cost, n),
    LATERAL enough.rate_limit_by('trial', 'a policy''s', cost);
SELECT allowed, remaining FROM enough.rate_limit_by('bucket', 'a policy''s');
-- A change applies to what was consumed so far, in a session that has used the policy already, too.
SELECT enough.rate_limit_policy_set('calls', 5, '1 hour');
SELECT allowed, remaining FROM enough.rate_limit_by('calls', 'a policy''s');
-- It is a row: it comes and goes with its transaction. What was consumed by then stays consumed.
BEGIN;
SELECT enough.rate_limit_policy_set('calls', 100, '1 hour');
SELECT allowed, remaining FROM enough.rate_limit_by('calls', 'a policy''s', 10);
ROLLBACK;
SELECT allowed, remaining FROM enough.rate_limit_by('calls', 'a policy''s', 0);
SELECT enough.rate_limit_policy_drop('calls');
SELECT enough.rate_limit_policy_drop('calls');
SELECT call, outcome('enough.rate_limit_' || call)
FROM unnest(ARRAY[
    $$by('calls', 'a policy''s')$$,
    $$by(NULL, 'bad')$$,
    $$by('bucket', NULL)$$,
    $$by('bucket', 'bad', -1)$$,
    $$by('bucket', repeat('k', 513))$$,
    $$policy_set(NULL, 3, '1 hour')$$,
    $$policy_set('', 3, '1 hour')$$,
    $$policy_set(repeat('n', 64), 3, '1 hour')$$,
    $$policy_set('bad', NULL, '1 hour')$$,
    $$policy_set('bad', 3, NULL)$$,
    $$policy_set('bad', -1, '1 hour')$$,
    $$policy_set('bad', 3, NULL, calendar => 'fortnight')$$,
    $$policy_set('bad', 3, '1 day', calendar => 'day')$$,
    $$policy_set('bad', 3, NULL, 'token_bucket', calendar => 'day')$$,
    $$policy_set('bad', 3, NULL, calendar => 'day', time_zone => 'Mars')$$,
    $$policy_add('calls', 3, '1 hour')$$,
    $$policy_add('bucket', 3, NULL)$$,
    $$policy_override('calls', 'key', 3)$$,
    $$policy_override('bucket', NULL, 3)$$,
    $$policy_override('bucket', 'key', -1)$$,
    $$policy_override_drop('bucket', NULL)$$,
    $$enforce_by('calls', 'key')$$,
    $$headers_by('calls', 'key')$$,
    $$stats('calls')$$,
    $$policy_set('bad', 3, '1 year 1 month')$$,
    $$policy_set('bad', 3, '1 hour', 'leaky')$$,
    $$policy_set('bad', 3, '1 hour', 'fixed_window', 3)$$,
    $$policy_set('bad', 3, '1 hour', 'token_bucket', 0)$$,
    $$policy_drop(NULL)$$,
    $$policy_drop('')$$]) AS call;
SELECT name, rule FROM enough.rate_limit_policies();
BEGIN READ ONLY;
SELECT allowed, remaining FROM enough.rate_limit_by('bucket', 'a policy''s');
SELECT outcome($$enough.rate_limit_policy_set('bucket', 3, '1 hour')$$);
SELECT outcome($$enough.rate_limit_policy_drop('bucket')$$);
COMMIT;
CREATE ROLE regress_rate_limit_nobody;
SET ROLE regress_rate_limit_nobody;
SELECT allowed, remaining FROM enough.rate_limit_by('bucket', 'a policy''s');
SELECT outcome($$enough.rate_limit_policy_set('bucket', 3, '1 hour')$$);
SELECT outcome($$enough.rate_limit_policy_drop('bucket')$$);
RESET ROLE;
DROP ROLE regress_rate_limit_nobody;
SELECT enough.rate_limit_policy_drop(name) FROM unnest(ARRAY['trial', 'bucket']) AS name;

-- Several rules: all consume or none does. Overrides are for the first.
SELECT enough.rate_limit_policy_set('rules', 2, '1 minute');
SELECT enough.rate_limit_policy_add('rules', 10, '1 hour', 'token_bucket', 20);
SELECT enough.rate_limit_policy_add('rules', 100, NULL, calendar => 'month', time_zone => 'Asia/Tokyo');
SELECT enough.rate_limit_policy_override('rules', 'vip', 5);
SELECT enough.rate_limit_policy_override('rules', 'free', NULL);
SELECT enough.rate_limit_policy_override('rules', 'banned', 0);
SELECT name, rule, max_requests, period, algorithm, burst, calendar, time_zone, shadow, overrides FROM enough.rate_limit_policies();
SELECT key, n, allowed, remaining, retry_after IS NULL AS never
FROM unnest(ARRAY['ada', 'vip', 'free', 'banned']) WITH ORDINALITY AS keys(key, ord), generate_series(1, 3) AS n,
     LATERAL enough.rate_limit_by('rules', key, 1 + 0 * n) ORDER BY ord, n;
SELECT regexp_replace(headers ->> 'RateLimit', '(rules.3";r=[0-9]+;t=)[0-9]+', '\1a while'), headers ->> 'Retry-After' IN ('59', '60') AS in_a_minute,
       regexp_replace(headers ->> 'RateLimit-Policy', 'w=2[0-9]{6}', 'w=a month')
FROM enough.rate_limit_headers_by('rules', 'ada') AS headers;
SELECT outcome($$enough.rate_limit_enforce_by('rules', 'ada')$$), outcome($$enough.rate_limit_enforce_by('rules', 'banned')$$),
       outcome($$enough.rate_limit_enforce_by('rules', 'free')$$);
SELECT enough.rate_limit_policy_override_drop('rules', 'vip'), enough.rate_limit_policy_override_drop('rules', 'vip');
SELECT allowed, remaining FROM enough.rate_limit_by('rules', 'vip');
SELECT enough.rate_limit_policy_set('rules', 2, '1 minute');
SELECT rule, overrides FROM enough.rate_limit_policies();
SELECT count(enough.rate_limit_policy_add('rules', 2, '1 minute')) FROM generate_series(1, 7);
SELECT outcome($$enough.rate_limit_policy_add('rules', 2, '1 minute')$$);
SELECT enough.rate_limit_policy_drop('rules');
SELECT count(*) FROM enough.rate_limit_override;

-- Blocked, and booked ahead.
SELECT enough.rate_limit_block('blocked', '1 hour');
SELECT allowed, remaining, retry_after BETWEEN '59 minutes' AND '1 hour' AS an_hour FROM enough.rate_limit('blocked', 5, '1 s');
SELECT enough.rate_limit_unblock('blocked'), enough.rate_limit_unblock('blocked');
SELECT allowed, remaining FROM enough.rate_limit('blocked', 5, '1 hour');
SELECT n, round(extract(epoch FROM enough.rate_limit_reserve('reserved', 1, '1 minute', 1 + 0 * n, 2, '2 minutes'))) AS seconds FROM generate_series(1, 5) AS n;
SELECT enough.rate_limit_reserve('reserved', 1, '1 minute', 3, 2, '1 day');
SELECT allowed, remaining FROM enough.rate_limit_refund('reserved', 1, '1 minute', 2, 'token_bucket', 2);
SELECT round(extract(epoch FROM enough.rate_limit_reserve('reserved', 1, '1 minute', 1, 2)));

-- The fields of HTTP.
SELECT enough.rate_limit_headers('headers', 5, '1 minute');
SELECT remaining FROM enough.rate_limit('headers', 5, '1 hour', 2, 'fixed_window');
SELECT regexp_replace(headers ->> 'RateLimit', 't=(3600|3599)$', 't=an hour'), headers ->> 'RateLimit-Policy'
FROM enough.rate_limit_headers('headers', 5, '1 hour', 'fixed_window') AS headers;
SELECT enough.rate_limit_headers('headers', 3, '1500 ms', 'token_bucket', 20);
SELECT remaining, enough.rate_limit_headers('headers', 5, '1 hour', 'fixed_window') ->> 'Retry-After' IN ('3599', '3600') AS retry
FROM enough.rate_limit('headers', 5, '1 hour', 3, 'fixed_window');
SELECT enough.rate_limit_headers('headers', 0, '1 hour');
SELECT outcome($$enough.rate_limit_headers('headers', -1, '1 hour')$$);

-- Statistics are the whole server's, which other tests use, too: only what can't shrink is compared.
CREATE TEMP TABLE before AS SELECT * FROM enough.rate_limit_stats() WHERE policy IS NULL;
SELECT sum(1) FROM generate_series(1, 5) AS n, LATERAL enough.rate_limit('stats ' || n % 2, 2, '1 hour') AS answer;
SELECT sum(1) FROM generate_series(1, 5) AS n, LATERAL enough.rate_limit_peek('stats ' || n, 2, '1 hour') AS answer;
SELECT after.allowed - before.allowed >= 4 AS allowed, after.denied - before.denied >= 1 AS denied, after.keys > 0 AS keys,
       after.bytes_used BETWEEN after.keys AND 64 * after.keys AS bytes_used, after.bytes_used <= after.bytes_max AS fits,
       after.evictions >= after.evictions_of_active AS evictions
FROM before, enough.rate_limit_stats() AS after WHERE after.policy IS NULL;
SELECT enough.rate_limit_policy_set('counted', 2, '1 hour'), enough.rate_limit_policy_set('shadow', 2, '1 hour', shadow => true);
SELECT count(*) FROM generate_series(1, 5) AS n, unnest(ARRAY['counted', 'shadow']) AS policy,
    LATERAL enough.rate_limit_by(policy, 'key', 1 + 0 * n) AS answer;
SELECT policy, allowed, denied, would_have_denied, keys, evictions_of_active FROM enough.rate_limit_stats() WHERE policy IS NOT NULL;
SELECT policy, allowed, denied, would_have_denied FROM enough.rate_limit_stats('shadow');
SELECT enough.rate_limit_policy_drop(name) FROM unnest(ARRAY['counted', 'shadow']) AS name;
CREATE ROLE regress_rate_limit_nobody;
CREATE ROLE regress_rate_limit_monitor IN ROLE pg_monitor;
SET ROLE regress_rate_limit_nobody;
SELECT outcome('enough.rate_limit_stats()');
SET ROLE regress_rate_limit_monitor;
SELECT outcome('enough.rate_limit_stats()');
RESET ROLE;
DROP ROLE regress_rate_limit_nobody, regress_rate_limit_monitor;

DROP FUNCTION waits, outcome;

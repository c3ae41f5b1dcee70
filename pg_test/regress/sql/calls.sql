-- How often a function is called by a statement that looks as if it called it once.

-- A row's columns taken apart by (...).*: a call for each of the four.
SELECT (enough.rate_limit('star', 8, '1 hour', algorithm => 'fixed_window')).remaining;
SELECT (r).remaining FROM (SELECT (enough.rate_limit('star', 8, '1 hour', algorithm => 'fixed_window')).*) AS r;
SELECT remaining AS after_one_column_and_all FROM enough.rate_limit_peek('star', 8, '1 hour', 'fixed_window');
-- In FROM: one call.
SELECT allowed, remaining FROM enough.rate_limit('from', 8, '1 hour', algorithm => 'fixed_window');
SELECT remaining AS after_from FROM enough.rate_limit_peek('from', 8, '1 hour', 'fixed_window');

-- Joined with rows that its arguments don't name: one call for all of them.
SELECT count(*), min(remaining) FROM generate_series(1, 6), LATERAL enough.rate_limit('constant', 8, '1 hour', algorithm => 'fixed_window');
SELECT remaining AS after_constants FROM enough.rate_limit_peek('constant', 8, '1 hour', 'fixed_window');
-- A key, or another argument, that comes from the row: a call a row.
SELECT count(*), min(remaining) FROM (VALUES ('each'), ('each'), ('each')) AS k(key), LATERAL enough.rate_limit(k.key, 8, '1 hour', algorithm => 'fixed_window');
SELECT remaining AS after_each FROM enough.rate_limit_peek('each', 8, '1 hour', 'fixed_window');
-- Or all of it at once.
SELECT allowed, remaining FROM enough.rate_limit('cost', 8, '1 hour', cost => 6, algorithm => 'fixed_window');
SELECT granted, remaining FROM enough.rate_limit_up_to('cost', 8, '1 hour', cost => 6, algorithm => 'fixed_window');

-- The same of a policy.
SELECT enough.rate_limit_policy_set('calls', 8, '1 hour', 'fixed_window');
SELECT count(*) FROM (SELECT (enough.rate_limit_by('calls', 'star')).* OFFSET 0) AS called;
SELECT count(*) FROM enough.rate_limit_by('calls', 'from');
SELECT key, 8 - remaining AS calls FROM (VALUES ('star'), ('from')) AS k(key), LATERAL enough.rate_limit_by('calls', k.key, 0);
-- Functions that return a set are called once, also so.
SELECT enough.queue_create('calls');
SELECT count(enough.queue_send('calls', to_jsonb(n))) FROM generate_series(1, 20) AS n;
SELECT msg_id, attempts, message FROM (SELECT (enough.queue_read('calls')).*) AS called;
SELECT leased AS by_star FROM enough.queue_stats('calls');
SELECT count(*) FROM enough.queue_read('calls');
SELECT leased AS and_from FROM enough.queue_stats('calls');
SELECT enough.queue_drop('calls');

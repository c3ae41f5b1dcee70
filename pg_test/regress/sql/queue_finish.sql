-- How messages end, in one session: failing, archiving, dying and coming back; looking at them meanwhile.
\set SHOW_CONTEXT never
\pset null '∅'

SELECT enough.queue_create('jobs', visibility_timeout => '1 hour', max_attempts => 2, retry_backoff => '100 s');

-- Deduplication: a live message's key is taken, also within a batch; a finished one's is free.
SELECT enough.queue_send('jobs', '"first"', dedup_key => 'k'), enough.queue_send('jobs', '"second"', dedup_key => 'k'),
       enough.queue_send('jobs', '"other"', dedup_key => 'K') AS other;
SELECT count(*), count(DISTINCT s) AS numbers FROM enough.queue_send_batch('jobs', ARRAY['1', '2', '3', '4', '5']::jsonb[],
       dedup_keys => ARRAY['k', 'b', NULL, 'b', ''], group_keys => ARRAY['g', NULL, 'g', NULL, '']) AS s;
SELECT message, group_key, dedup_key FROM enough.q_jobs ORDER BY msg_id;
SELECT message, priority, group_key FROM enough.queue_pop('jobs', 10);
SELECT enough.queue_send('jobs', '"again"', dedup_key => 'k') AS msg \gset
SELECT ready, sent_total FROM enough.queue_stats('jobs');
BEGIN;
SELECT enough.queue_send('jobs', '"never"', dedup_key => 'n') AS n \gset
SELECT enough.queue_send('jobs', '"never"', dedup_key => 'n') = :n AS same;
SELECT enough.queue_delete('jobs', :n);
SELECT enough.queue_send('jobs', '"never"', dedup_key => 'n') = :n AS same;
ROLLBACK;
SELECT message, dedup_key FROM enough.q_jobs;

-- Failing: it rests for the backoff, and dies with its last error.
SELECT state, attempts, deliver_at, leased_until, finished_at, error, result FROM enough.queue_status('jobs', :msg);
SELECT lease AS lease FROM enough.queue_read('jobs') \gset
SELECT state, attempts, leased_until > now() AS leased FROM enough.queue_status('jobs', :msg);
SELECT enough.queue_fail('jobs', :msg, 'wrong lease', lease => :lease + 1), enough.queue_fail('jobs', 999), enough.queue_fail('jobs', -1, lease => 1);
BEGIN;
SELECT enough.queue_fail('jobs', :msg, 'rolled back', lease => :lease);
ROLLBACK;
SELECT enough.queue_fail('jobs', :msg, 'no luck', lease => :lease);
SELECT enough.queue_fail('jobs', :msg, 'old lease', lease => :lease);
SELECT state, attempts, deliver_at - now() BETWEEN '80 s' AND '110 s' AS rests, error FROM enough.queue_status('jobs', :msg);
SELECT attempts, last_error, deliver_at > now() AS rests FROM enough.q_jobs;
SELECT count(*) FROM enough.queue_read('jobs');
SELECT enough.queue_fail('jobs', :msg, retry_in => '0');
SELECT state, attempts, error FROM enough.queue_status('jobs', :msg);
SELECT attempts, message FROM enough.queue_read('jobs');
SELECT enough.queue_fail('jobs', :msg, 'the end', '1 hour');
SELECT state, attempts, finished_at <= clock_timestamp() AS ended, error FROM enough.queue_status('jobs', :msg);
SELECT attempts, error, died_at <= clock_timestamp() AS ended, headers, message FROM enough.queue_dead('jobs');
SELECT ready, leased, delayed, dead, archived, failed_total FROM enough.queue_stats('jobs');

-- Redriving: back with its number and its error, from the start; not where its key is taken.
SELECT enough.queue_send('jobs', '"in its place"', dedup_key => 'k') AS other \gset
SELECT enough.queue_redrive('jobs'), enough.queue_redrive('jobs', ARRAY[:msg, 999]);
SELECT state FROM enough.queue_status('jobs', :msg);
SELECT enough.queue_delete('jobs', :other);
BEGIN;
SELECT enough.queue_redrive('jobs', ARRAY[:msg]);
ROLLBACK;
SELECT state FROM enough.queue_status('jobs', :msg);
SELECT count(*) FROM enough.queue_read('jobs');
SELECT enough.queue_redrive('jobs', ARRAY[:msg, :msg, 999]);
SELECT state, attempts, error FROM enough.queue_status('jobs', :msg);
SELECT ready, dead, sent_total FROM enough.queue_stats('jobs');
SELECT msg_id = :msg AS same, attempts, message, lease AS lease FROM enough.queue_read('jobs') \gset

-- Archiving with a result.
BEGIN;
SELECT enough.queue_archive('jobs', :msg, '{"total": 7}', :lease);
SELECT enough.queue_archive('jobs', :msg, '{"total": 8}', :lease);
ROLLBACK;
SELECT state, result FROM enough.queue_status('jobs', :msg);
SELECT enough.queue_archive('jobs', :msg, '{"total": 6}', :lease + 1);
SELECT enough.queue_archive('jobs', :msg, '{"total": 7}', :lease), enough.queue_archive('jobs', :msg), enough.queue_archive('jobs', 999);
SELECT state, attempts, deliver_at, leased_until, finished_at IS NOT NULL AS ended, error, result FROM enough.queue_status('jobs', :msg);
SELECT count(*) FROM enough.queue_send_batch('jobs', ARRAY['"a"', '"b"', '"c"', '"d"']::jsonb[], group_keys => ARRAY['g', NULL, NULL, NULL]);
SELECT min(msg_id) AS least FROM enough.q_jobs \gset
SELECT s - :least AS archived FROM enough.queue_archive_batch('jobs', ARRAY[:least + 2, 999, :least, :least + 2, :msg]) AS s;
BEGIN;
SELECT count(*) FROM enough.queue_archive_batch('jobs', ARRAY[:least + 1, :least + 3]);
SELECT count(*) FROM enough.queue_read('jobs', 10);
ROLLBACK;
SELECT ready, leased, dead, archived, finished_total FROM enough.queue_stats('jobs');
SELECT msg_id - :least AS nth, attempts, priority, group_key, message, outcome, error, result FROM enough.a_jobs WHERE msg_id >= :least ORDER BY msg_id;

-- Peeking takes nothing.
SELECT enough.queue_send('jobs', '"urgent"', priority => 9, headers => '{"h": 1}') > 0, enough.queue_send('jobs', '"late"', delay => '1 hour') > 0;
SELECT attempts, leased_until, lease, priority, headers, message FROM enough.queue_peek('jobs');
SELECT message FROM enough.queue_peek('jobs', 1);
SELECT message FROM enough.queue_read('jobs', 1);
SELECT attempts, leased_until > now() AS leased, lease IS NOT NULL AS fenced, message FROM enough.queue_peek('jobs', state => 'leased');
SELECT attempts, leased_until, message FROM enough.queue_peek('jobs', state => 'delayed');
SELECT attempts, message FROM enough.queue_peek('jobs', 2, 'done');
SELECT count(*) FROM enough.queue_peek('jobs', state => 'dead');
SELECT state FROM enough.queue_status('jobs', 999);

-- Purging: what is ready, leased and delayed; a rollback brings it all back.
BEGIN;
SELECT enough.queue_purge('jobs');
SELECT count(*) FROM enough.queue_read('jobs', 10);
ROLLBACK;
SELECT ready, leased, delayed FROM enough.queue_stats('jobs');
SELECT message FROM enough.queue_read('jobs', 1);
SELECT enough.queue_purge('jobs'), enough.queue_purge('jobs');
SELECT ready, leased, delayed, archived FROM enough.queue_stats('jobs');
SELECT enough.queue_send('jobs', '"after"') > 0;
SELECT message FROM enough.queue_pop('jobs', 10);

-- Options: what isn't named stays, 0 is no limit.
SELECT enough.queue_create('second', max_in_flight => 10, max_rate => 100, rate_period => '1 minute', unlogged => true);
SELECT name, visibility_timeout, max_attempts, retry_backoff, retry_backoff_max, max_in_flight, max_rate, rate_period, archive_for, unlogged, paused
    FROM enough.queue_list();
SELECT enough.queue_alter('second', max_in_flight => 0, archive_for => '0', visibility_timeout => '5 s', unlogged => false);
SELECT enough.queue_alter('jobs', max_attempts => 0, max_rate => 5, retry_backoff => '0', archive_for => '1 day');
BEGIN;
SELECT enough.queue_alter('jobs', max_attempts => 7), enough.queue_pause('second');
ROLLBACK;
SELECT name, visibility_timeout, max_attempts, retry_backoff, retry_backoff_max, max_in_flight, max_rate, rate_period, archive_for, unlogged, paused
    FROM enough.queue_list();
SELECT enough.queue_alter('jobs', max_rate => 0);
-- Without a limit it is delivered as often as it takes.
SELECT enough.queue_send('jobs', '"stubborn"') AS msg \gset
SELECT enough.queue_fail('jobs', msg_id) FROM enough.queue_read('jobs');
SELECT enough.queue_fail('jobs', msg_id) FROM enough.queue_read('jobs');
SELECT enough.queue_fail('jobs', msg_id) FROM enough.queue_read('jobs');
SELECT enough.queue_fail('jobs', msg_id) FROM enough.queue_read('jobs');
SELECT state, attempts FROM enough.queue_status('jobs', :msg);

-- Pausing.
SELECT enough.queue_pause('jobs');
SELECT count(*) FROM enough.queue_read('jobs');
SELECT ready, paused FROM enough.queue_stats('jobs');
SELECT enough.queue_send('jobs', '"while paused"') > 0;
SELECT enough.queue_resume('jobs');
SELECT message FROM enough.queue_pop('jobs', 10);

-- Privileges by what they are for.
CREATE ROLE regress_worker;
SELECT enough.queue_grant('jobs', 'regress_worker', 'send'), enough.queue_grant('jobs', 'regress_worker', 'consume');
SELECT has_table_privilege('regress_worker', 'enough.q_jobs', 'INSERT') AS sends, has_table_privilege('regress_worker', 'enough.q_jobs', 'DELETE') AS consumes;
SELECT enough.queue_revoke('jobs', 'regress_worker', 'consume');
SELECT has_table_privilege('regress_worker', 'enough.q_jobs', 'INSERT') AS sends, has_table_privilege('regress_worker', 'enough.q_jobs', 'DELETE') AS consumes;
SELECT enough.queue_grant('jobs', 'regress_worker', 'everything');
SELECT enough.queue_revoke('jobs', 'regress_worker', 'all');
DROP ROLE regress_worker;
-- There is no pg_cron here.
SELECT enough.queue_schedule('tick', '* * * * *', 'jobs', '{}');
SELECT enough.queue_unschedule('tick');
SELECT * FROM enough.queue_schedules();

-- What is refused, and how.
\set VERBOSITY sqlstate
SELECT enough.queue_send('jobs', '1', group_key => repeat('x', 513));
SELECT enough.queue_send('jobs', '1', dedup_key => repeat('ü', 257));
SELECT enough.queue_send_batch('jobs', ARRAY['1', '2']::jsonb[], dedup_keys => ARRAY['a']);
SELECT enough.queue_fail('jobs', NULL);
SELECT enough.queue_fail('jobs', 1, retry_in => '-1 s');
SELECT enough.queue_fail('jobs', 1, retry_in => '11 years');
SELECT enough.queue_fail('nobody', 1);
SELECT enough.queue_archive('jobs', NULL);
SELECT enough.queue_archive_batch('jobs', '{}');
SELECT enough.queue_redrive('jobs', '{}');
SELECT enough.queue_status('jobs', NULL);
SELECT enough.queue_peek('jobs', 0);
SELECT enough.queue_peek('jobs', state => 'Ready');
SELECT enough.queue_dead('jobs', 10001);
SELECT enough.queue_purge('nobody');
SELECT enough.queue_alter('nobody', max_rate => 1);
SELECT enough.queue_alter('jobs', visibility_timeout => '0');
SELECT enough.queue_alter('jobs', max_in_flight => -1);
SELECT enough.queue_create('third', max_rate => -1);
SELECT enough.queue_create('third', rate_period => '0');
SELECT enough.queue_pause(NULL);
SELECT enough.queue_resume('nobody');
BEGIN READ ONLY;
SELECT enough.queue_fail('jobs', 1);
ROLLBACK;
BEGIN READ ONLY;
SELECT count(*) FROM enough.queue_peek('jobs'), enough.queue_dead('jobs'), enough.queue_list();
ROLLBACK;
\set VERBOSITY default
SELECT enough.queue_peek('jobs', state => 'Ready');
SELECT enough.queue_drop('jobs'), enough.queue_drop('second');
-- Names of what belongs to a queue are no table's.
SELECT enough.queue_create('x'), enough.queue_create('x_due'), enough.queue_create('x_dead'), enough.queue_create('x_key'),
       enough.queue_create('x_group'), enough.queue_create('x_dedup'), enough.queue_create('x_archive');

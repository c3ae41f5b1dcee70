-- The queue in one session: every function's plain use, its refusals, and what a rollback undoes.
\set SHOW_CONTEXT never
\pset null '∅'
\set VERBOSITY default

SELECT enough.queue_create('orders', max_attempts => 3, retry_backoff => '0');
SELECT enough.queue_create('orders', if_not_exists => true);
SELECT enough.queue_create('orders');
SELECT name, visibility_timeout, max_attempts, retry_backoff, retry_backoff_max, archive_for, paused FROM enough.queue;
SELECT obj_description('enough.q_orders'::regclass), obj_description('enough.a_orders'::regclass);

-- Send, read, delete.
SELECT enough.queue_send('orders', '{"id": 1}');
SELECT enough.queue_send('orders', '{"id": 2}', priority => 9, headers => '{"trace": "t"}');
SELECT * FROM enough.queue_send_batch('orders', ARRAY['{"id": 3}', '"four"', '5']::jsonb[], headers => ARRAY['1', NULL, '{}']::jsonb[]);
SELECT msg_id, attempts, leased_until > now() AS leased, lease IS NOT NULL AS fenced, priority, headers, message
    FROM enough.queue_read('orders', 3);
SELECT queue, ready, leased, delayed, dead, archived, oldest_ready >= '0' AS aged, sent_total, delivered_total,
       finished_total, failed_total, paused FROM enough.queue_stats('orders');
SELECT enough.queue_delete('orders', 2), enough.queue_delete('orders', 2), enough.queue_delete('orders', 999);
SELECT * FROM enough.queue_delete_batch('orders', ARRAY[1, 3, 77]);
SELECT msg_id, attempts, leased_until, lease, message FROM enough.queue_pop('orders', 10);
SELECT count(*) FROM enough.queue_read('orders', 10);
SELECT ready, leased, delayed, finished_total FROM enough.queue_stats('orders');

-- A lease fences, is extended, and is given back.
SELECT enough.queue_send('orders', '{"id": 6}') AS msg \gset
SELECT lease AS lease FROM enough.queue_read('orders') \gset
SELECT enough.queue_delete('orders', :msg, :lease + 1) AS wrong_lease, enough.queue_extend('orders', :msg, '1 hour', :lease + 1) AS wrong_extend;
SELECT enough.queue_extend('orders', :msg, '1 hour', :lease) > now() + '50 minutes' AS extended;
SELECT enough.queue_extend('orders', :msg, '0', :lease) <= now() + '1 minute' AS given_back;
SELECT enough.queue_delete('orders', :msg, :lease) AS old_lease;
SELECT attempts, message FROM enough.queue_read('orders');
SELECT attempts FROM enough.q_orders;
SELECT enough.queue_extend('orders', 12345, '1 hour');

-- A rollback gives leases back, brings deleted messages back and takes sent ones away.
BEGIN;
SELECT enough.queue_send('orders', '{"id": "never"}') > 0;
SELECT enough.queue_delete('orders', :msg);
ROLLBACK;
SELECT msg_id = :msg AS kept FROM enough.q_orders;
BEGIN;
SELECT enough.queue_extend('orders', :msg, '0') IS NOT NULL;
SAVEPOINT s;
SELECT attempts, message FROM enough.queue_pop('orders');
ROLLBACK TO s;
COMMIT;
-- Three deliveries are the most: the fourth read buries it.
SELECT count(*) FROM enough.queue_read('orders');
SELECT msg_id = :msg AS same, attempts, outcome, error, message FROM enough.a_orders;
SELECT ready, leased, delayed, dead FROM enough.queue_stats('orders');

-- In a block with an EXCEPTION clause.
SELECT enough.queue_send('orders', '{"id": 8}') AS msg \gset
DO $$
BEGIN
    PERFORM enough.queue_read('orders');
    RAISE EXCEPTION 'poison';
EXCEPTION WHEN raise_exception THEN
    NULL;
END $$;
SELECT attempts, message FROM enough.queue_pop('orders');

-- Delays.
SELECT enough.queue_send('orders', '"later"', delay => '1 hour') > 0, enough.queue_send('orders', '"at"', deliver_at => now() + interval '1 day') > 0,
       enough.queue_send('orders', '"past"', deliver_at => now() - interval '1 day') > 0;
SELECT message FROM enough.queue_pop('orders', 10);
SELECT ready, delayed FROM enough.queue_stats('orders');

-- Without a wait an empty queue answers at once; with one, after it.
SELECT count(*) FROM enough.queue_read('orders', wait => '50 ms');

-- What is refused, and how.
\set VERBOSITY sqlstate
SELECT enough.queue_send('nobody', '{}');
SELECT enough.queue_send(NULL, '{}');
SELECT enough.queue_send('orders', NULL);
SELECT enough.queue_send('orders', '{}', delay => '-1 s');
SELECT enough.queue_send('orders', '{}', delay => '11 years');
SELECT enough.queue_send('orders', '{}', priority => 10);
SELECT enough.queue_send('orders', '{}', deliver_at => 'infinity');
SELECT enough.queue_send('orders', '{}', delay => '1 s', deliver_at => now());
SELECT enough.queue_send_batch('orders', '{}');
SELECT enough.queue_send_batch('orders', ARRAY['1', NULL]::jsonb[]);
SELECT enough.queue_send_batch('orders', ARRAY['1', '2']::jsonb[], headers => ARRAY['1']::jsonb[]);
SELECT enough.queue_send_batch('orders', array_fill('1'::jsonb, ARRAY[10001]));
SELECT enough.queue_read('orders', 0);
SELECT enough.queue_read('orders', 10001);
SELECT enough.queue_read('orders', visibility_timeout => '-1 second');
SELECT enough.queue_read('orders', wait => '2 hours');
SELECT enough.queue_delete('orders', NULL);
SELECT enough.queue_delete_batch('orders', ARRAY[NULL]::bigint[]);
SELECT enough.queue_extend('orders', 1, NULL);
SELECT enough.queue_extend('orders', 1, '-1 s');
SELECT enough.queue_create('');
SELECT enough.queue_create('1st');
SELECT enough.queue_create('a"b');
SELECT enough.queue_create(repeat('x', 49));
SELECT enough.queue_create('fine', visibility_timeout => '0');
SELECT enough.queue_create('fine', max_attempts => -1);
SELECT enough.queue_drop('fine');
SELECT enough.queue_stats('fine');
BEGIN READ ONLY;
SELECT enough.queue_send('orders', '{}');
ROLLBACK;
BEGIN READ ONLY;
SELECT enough.queue_pop('orders');
ROLLBACK;
\set VERBOSITY default
SELECT enough.queue_send('orders', '{}', priority => 10);
SELECT enough.queue_send('nobody', '{}');

-- Dropping.
SELECT enough.queue_create('Case-kept.v1', unlogged => true);
SELECT relpersistence FROM pg_class WHERE oid = 'enough."q_Case-kept.v1"'::regclass;
SELECT enough.queue_drop('Case-kept.v1'), enough.queue_drop('Case-kept.v1', if_exists => true);
SELECT to_regclass('enough."q_Case-kept.v1"'), to_regclass('enough."a_Case-kept.v1"');

-- COPY goes past the index; maintain() finds what it brought.
SELECT count(*) FROM enough.queue_read('orders');
COPY enough.q_orders (msg_id, message) FROM STDIN;
1000001	"copied"
\.
SELECT task, items FROM enough.maintain() WHERE task = 'queue_reconcile';
SELECT msg_id, message FROM enough.queue_pop('orders');

SELECT enough.maintenance_schedule();
SELECT enough.queue_drop('orders');

-- The queue. Each queue has two plain tables of its own, q_<name> and a_<name>, made by queue_create and owned by its
-- caller; they are not members of the extension, so that pg_dump treats them like any table.

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
    if_not_exists boolean DEFAULT false,
    durable_attempts boolean DEFAULT false,
    ack text DEFAULT 'durable',
    group_limit int DEFAULT 1,
    dead_letter_queue text DEFAULT NULL,
    notify boolean DEFAULT false,
    dedup text DEFAULT 'live',
    dedup_for interval DEFAULT '5 minutes',
    group_rate int DEFAULT NULL,
    group_rate_period interval DEFAULT '1 second'
) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'enough_queue_create';
COMMENT ON FUNCTION enough.queue_create IS
'Creates a queue: the tables enough."q_<name>" and enough."a_<name>", owned by the caller.
Returns true, or false where it exists and if_not_exists is true. With if_not_exists, tables of that name that lack a part or their row in enough.queue, as after a partial restore, are completed and taken up with their messages, which the role must own. A message that is read is leased for visibility_timeout (1 ms to 366 days); after max_attempts deliveries (0: there is no limit) it is dead: the next call of a reader, of a sender of its dedup_key, of queue_redrive or of maintain() moves it to the archive, and until then it holds up nothing. A delivery whose transaction is rolled back rests for retry_backoff * 2^(attempts-1), give or take 10 %, at most retry_backoff_max; where max_attempts and retry_backoff are both 0 such a delivery is undone: the message is ready at once, and the delivery isn''t counted; and of one priority the ready messages are delivered in the order of their numbers, whatever they have waited for. max_in_flight: at most so many are leased at the same time, NULL or 0 for no limit. max_rate: at most so many are delivered in a rate_period (1 ms to 366 days), NULL or 0 for no limit. archive_for: how long the archive is kept, 0 for ever. unlogged: faster, emptied by a crash. durable_attempts: also the first delivery is written to the row, by the reader''s transaction, so that a message which takes the server down is dead after max_attempts deliveries, if readers commit before they begin to work; without it attempts count durably from the second delivery on. ack: durable, or async: a transaction that does nothing but finish messages (queue_delete, queue_archive, queue_pop, their batches) commits without waiting for the disk or a standby, and a crash in the next moments (at most three times wal_writer_delay) delivers them again; a transaction that does any other work waits as ever. group_limit: at most so many messages of one group_key are leased at the same time, 0 for no limit; with 1 a group is delivered strictly in order, with more its messages are delivered for the first time in order, and one that failed is passed by others while it rests. dead_letter_queue: a queue that dead letters are sent to, too, in the transaction in which they die and with the rights of the table''s owner, who needs INSERT there; header dead_letter has their source, msg_id, error, attempts and dedup_key. Where that fails there is a WARNING, and the message is in the archive, as it is in any case. It may be renamed; dropped, it is none any more. notify: when a transaction that makes an empty queue ready commits, NOTIFY "enough_<name>" (without a payload), at most once in 250 ms: a listener that then reads with a wait of 250 ms until nothing comes misses nothing of what is sent. What comes due by itself (delays, retries, leases that run out) is told by maintain(). dedup: which messages have their dedup_key, so that no other is sent with it. live: each that is neither finished nor dead. waiting: only one that waits to be delivered, for the first time or again. While a message is leased another one is sent with its key, which takes the key over; the leased one can be finished, but is delivered no more: where its lease ends otherwise (it runs out, fails or is rolled back), it is dead with the error superseded, because the one that waits does its work; redriven, it has no key. So there are never two to be delivered. window: each of the last dedup_for (1 ms to 366 days), also when it is finished or dead, purged or redriven; and after that as with live. Turned on, it holds for what is sent from then on; another dedup frees all keys of messages that aren''t live. A sender that is told of a message which is over stores nothing, so a key must name one piece of work, not a thing that is worked on again and again. The keys are in the table enough.queue_key, also those of an unlogged queue, which a crash leaves there; maintain() removes those that are over. group_rate: at most so many messages of one group_key are delivered in any group_rate_period (1 ms to 366 days), over all sessions and again or for the first time, NULL or 0 for no limit. A group that has used that up holds up no other one, and a reader that waits has its next message when the time has come; what was delivered is given back up to a sixteenth of the period late. The counts are in memory: a restart begins anew, and so does the group that was delivered from longest ago where enough.queue_memory has no room for all that have had a delivery within the period. A name is 1 to 48 letters, digits, _ . or -, the first a letter or _. Needs CREATE on the schema enough.
Fails with 42710 (exists), 42704 (no such dead_letter_queue), 22023 (name or option out of range; dead letters that would come back), 55000 (with if_not_exists: a table of that name is no queue''s), 25006 (read-only), 42501.';

CREATE FUNCTION enough.queue_drop(name text, if_exists boolean DEFAULT false) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_drop';
COMMENT ON FUNCTION enough.queue_drop IS
'Drops a queue with its messages and its archive.
Returns true, or false where there is none and if_exists is true. Drops also what is left of a queue that has lost a part, and ends the schedules that send to it, as far as the role may. Needs to own its tables.
Fails with 42704 (no such queue), 55P03 (other sessions use it for longer than a second, or the session''s lock_timeout), 25006 (read-only), 42501.';

CREATE FUNCTION enough.queue_rename(name text, new_name text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'enough_queue_rename';
COMMENT ON FUNCTION enough.queue_rename IS
'Gives a queue another name, with all that belongs to it: tables, indexes, sequence, options, and those of its schedules that the role may change.
Returns nothing. Messages, leases, privileges and numbers stay; a read that waits by the old name gets 42704. Where somebody has renamed a table by hand, does the rest. Needs to own both tables and CREATE on the schema enough.
Fails with 42704 (no such queue), 42710 (there is one of the new name), 22004 (NULL), 22023 (malformed name), 55P03 (other sessions use it for longer than a second, or the session''s lock_timeout), 25006 (read-only), 42501.';

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
    unlogged boolean DEFAULT NULL,
    durable_attempts boolean DEFAULT NULL,
    ack text DEFAULT NULL,
    group_limit int DEFAULT NULL,
    dead_letter_queue text DEFAULT NULL,
    notify boolean DEFAULT NULL,
    dedup text DEFAULT NULL,
    dedup_for interval DEFAULT NULL,
    group_rate int DEFAULT NULL,
    group_rate_period interval DEFAULT NULL
) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_alter';
COMMENT ON FUNCTION enough.queue_alter IS
'Changes options of a queue; every session goes by them when the transaction commits.
Returns nothing. The options are those of queue_create; NULL leaves one as it is; 0 is no limit for max_attempts, max_in_flight, max_rate, archive_for, group_limit and group_rate; an empty text is no dead_letter_queue. Another group_limit, group_rate or group_rate_period holds for what is read from then on, and what was delivered before counts; after 0 a group_rate begins anew. unlogged rewrites the tables. Needs to own the table; or, but for unlogged, to be an operator, see grant_to().
Fails with 42704 (no such queue), 22004 (NULL name), 22023 (out of range), 55P03 (unlogged: other sessions use it for longer than a second, or the session''s lock_timeout), 25006 (read-only), 42501.';

CREATE FUNCTION enough.queue_pause(name text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_pause';
COMMENT ON FUNCTION enough.queue_pause IS
'Pauses a queue: when the transaction commits, reads return nothing. Sends go on, and what is leased can be finished.
Returns nothing. Needs to own the table, or to be an operator, see grant_to().
Fails with 42704 (no such queue), 22004 (NULL), 25006 (read-only), 42501.';

CREATE FUNCTION enough.queue_resume(name text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_resume';
COMMENT ON FUNCTION enough.queue_resume IS
'Lets a paused queue go on: when the transaction commits, waiting readers get what is ready.
Returns nothing. Needs to own the table, or to be an operator, see grant_to().
Fails with 42704 (no such queue), 22004 (NULL), 25006 (read-only), 42501.';

CREATE FUNCTION enough.queue_purge(name text) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_purge';
COMMENT ON FUNCTION enough.queue_purge IS
'Deletes all live messages of a queue, leased and delayed ones too; the archive stays.
Returns how many went. Keys of a queue with dedup window stay taken until their time is over, and what group_rate has counted stays counted. Needs SELECT and DELETE on the table.
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
    paused boolean,
    durable_attempts boolean,
    ack text,
    group_limit int,
    dead_letter_queue text,
    notify boolean,
    dedup text,
    dedup_for interval,
    group_rate int,
    group_rate_period interval
)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 10
BEGIN ATOMIC
    SELECT q.name, q.created_at, q.visibility_timeout, q.max_attempts, q.retry_backoff, q.retry_backoff_max,
           q.max_in_flight, q.max_rate, q.rate_period, q.archive_for, c.relpersistence OPERATOR(pg_catalog.=) 'u', q.paused,
           q.durable_attempts, q.ack, q.group_limit, q.dead_letter_queue, q.notify, q.dedup, q.dedup_for, q.group_rate, q.group_rate_period
      FROM enough.queue AS q
      JOIN pg_catalog.pg_class AS c
        ON c.relname OPERATOR(pg_catalog.=) ('q_'::pg_catalog.text OPERATOR(pg_catalog.||) q.name)::pg_catalog.name
       AND c.relnamespace OPERATOR(pg_catalog.=) (SELECT n.oid FROM pg_catalog.pg_namespace AS n WHERE n.nspname OPERATOR(pg_catalog.=) 'enough')
     ORDER BY q.name;
END;
COMMENT ON FUNCTION enough.queue_list IS
'Lists the queues of this database with their options.
Returns a row a queue; NULL (of max_attempts and group_limit: 0) is no limit. Every role that may use the schema may call it.';

CREATE FUNCTION enough.queue_send(
    queue text,
    message jsonb,
    delay interval DEFAULT '0',
    priority int DEFAULT 0,
    group_key text DEFAULT NULL,
    dedup_key text DEFAULT NULL,
    headers jsonb DEFAULT NULL,
    deliver_at timestamptz DEFAULT NULL,
    expires_in interval DEFAULT NULL,
    max_attempts int DEFAULT NULL
) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_send';
COMMENT ON FUNCTION enough.queue_send IS
'Sends a message; readers see it when the transaction commits.
Returns its msg_id. Not delivered before delay (0 to 10 years) is over, or before deliver_at; only one of the two may be given. priority: 0 to 9, higher first. group_key: messages of a group are delivered one after the other, or so many at a time as the queue''s group_limit says. dedup_key: where a live message has it, that one''s msg_id is returned and nothing stored; waits for a transaction that is sending or finishing it. In a queue with dedup window so it is for dedup_for after a send, whatever has become of the message. In a queue with dedup waiting a leased message gives up its key to the new one, see queue_create: who finishes it meanwhile waits for the sender''s transaction, and a sender for an open transaction that has read it for the second time or later. One that has had max_attempts deliveries, the last of them over, moves to the archive and gives up its key. Both at most 512 bytes. headers: a second payload, for the consumer''s own use. expires_in (1 ms to 10 years, from now): no delivery begins after that, and the message is dead with the error expired; a reader that would get it, or a sender of its dedup_key, moves it to the archive. max_attempts (1 to 1,000,000): it is dead after so many deliveries, where the queue doesn''t allow fewer. Neither outlives the message''s death. Needs INSERT on the table.
Fails with 42704 (no such queue), 22004 (NULL), 22023 (out of range; expires_in that is over before the delivery time), 54000 (key too long), 55000 (a limit, for a table of an earlier version), 25006 (read-only), 40001 (dedup_key sent concurrently, above READ COMMITTED), 42501.';

CREATE FUNCTION enough.queue_send_batch(
    queue text,
    messages jsonb[],
    delay interval DEFAULT '0',
    priority int DEFAULT 0,
    group_keys text[] DEFAULT NULL,
    dedup_keys text[] DEFAULT NULL,
    headers jsonb[] DEFAULT NULL,
    deliver_at timestamptz DEFAULT NULL,
    priorities int[] DEFAULT NULL,
    delays interval[] DEFAULT NULL,
    expires_in interval DEFAULT NULL,
    max_attempts int DEFAULT NULL
) RETURNS SETOF bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_send_batch';
COMMENT ON FUNCTION enough.queue_send_batch IS
'Sends up to 10,000 messages; none for an empty array or NULL, which is what array_agg() makes of no rows.
Returns their msg_ids in input order. group_keys, dedup_keys, headers, priorities, delays: one element a message; where one of the last two is NULL, priority or delay is for it, too. Dedup keys are taken in their own order, so that two batches never deadlock. The other arguments and errors are those of queue_send; 54000 for a larger batch.';

CREATE FUNCTION enough.queue_send_unique(
    queue text,
    message jsonb,
    dedup_key text,
    on_conflict text DEFAULT 'keep',
    delay interval DEFAULT '0',
    priority int DEFAULT 0,
    group_key text DEFAULT NULL,
    headers jsonb DEFAULT NULL,
    deliver_at timestamptz DEFAULT NULL
) RETURNS TABLE (msg_id bigint, outcome text)
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 1 AS 'MODULE_PATHNAME', 'enough_queue_send_unique';
COMMENT ON FUNCTION enough.queue_send_unique IS
'Sends a message with a dedup_key, and says what has become of it. on_conflict: what is to be done where another message has the key. keep: nothing. replace: where that message waits to be delivered, for the first time or again, it gets the new message, headers and delivery time (debounce), and has no attempts behind it; its msg_id, priority and group_key stay. One that is leased is kept; in a queue with dedup waiting the new message is sent beside it, see queue_create. So is one kept that is finished and has its key still, in a queue with dedup window.
Returns one row: the msg_id of the message that has the key, and sent, kept or replaced. Waits for a transaction that is sending, replacing or finishing a message with the key. Needs INSERT on the table; where the table has row security, replace needs also SELECT and UPDATE, and keeps a message that the policies hide. The other arguments and errors are those of queue_send; 22023 for another on_conflict, 40001 also for a message that was replaced concurrently, above READ COMMITTED.';

CREATE FUNCTION enough.queue_read(
    queue text,
    qty int DEFAULT 1,
    visibility_timeout interval DEFAULT NULL,
    wait interval DEFAULT '0',
    whole_groups boolean DEFAULT false
) RETURNS SETOF enough.queue_message
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 10 AS 'MODULE_PATHNAME', 'enough_queue_read';
COMMENT ON FUNCTION enough.queue_read IS
'Leases up to qty (1 to 10,000) ready messages to the caller and returns them; writes nothing on a first delivery, unless the queue has durable_attempts.
For visibility_timeout (0 to 366 days; NULL: the queue''s own) nobody else gets them; then, or when the transaction is rolled back, they are delivered again. Where none is ready, waits up to wait (0 to 1 hour) for the first. whole_groups: after a message of a group come the next ones of it, in order, as many as qty allows, and then those of another; whatever the group_limit, and within max_in_flight, max_rate and group_rate. Where group_limit is 1 the group is closed to other readers until each of them is finished, or is ready again: what has failed comes first then, in order, before what comes behind it, and what is leased stays with its reader; where one of them rests, the group does. A wait holds its connection: give readers that wait a pool of their own. The statement sees other tables as of its start: join them in the next one, or a row that came with the message is missing while the message is leased. Before it leaves it moves messages that have had max_attempts deliveries to the archive, up to 256, unless the transaction is read-only. In SERIALIZABLE transactions it takes no predicate locks: what it finds, also that it finds nothing, is no part of what the server watches. Needs SELECT and DELETE on the table.
Fails with 42704 (no such queue), 22004 (NULL), 22023 (out of range), 25006 (standby; durable_attempts and the transaction is read-only), 53400 (leases fill enough.queue_memory; a call that got some messages returns those), 42501.';

CREATE FUNCTION enough.queue_read_these(
    queue text,
    msg_ids bigint[],
    visibility_timeout interval DEFAULT NULL
) RETURNS SETOF enough.queue_message
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 10 AS 'MODULE_PATHNAME', 'enough_queue_read_these';
COMMENT ON FUNCTION enough.queue_read_these IS
'Leases those of up to 10,000 messages that are ready to the caller, and returns them in the order of msg_ids: for a reader that chooses its messages by what is in the table. None for an empty array or NULL.
Not those that are leased, delayed, behind the head of their group, sent by this transaction, or not there; a call that asks for messages that others ask for, too, may get fewer. Waits for nothing. Within max_in_flight and max_rate. Needs SELECT and DELETE on the table.
Fails with 42704 (no such queue), 22004 (NULL), 22023 (out of range), 54000 (too many), 25006 (standby; durable_attempts and the transaction is read-only), 53400 (leases fill enough.queue_memory; a call that got some messages returns those), 42501.';

CREATE FUNCTION enough.queue_read_own(
    queue text,
    qty int DEFAULT 1,
    visibility_timeout interval DEFAULT NULL,
    msg_ids bigint[] DEFAULT NULL
) RETURNS SETOF enough.queue_message
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 10 AS 'MODULE_PATHNAME', 'enough_queue_read_own';
COMMENT ON FUNCTION enough.queue_read_own IS
'Leases up to qty (1 to 10,000) messages that this transaction has itself sent, redriven, released or rescheduled, which queue_read delivers only once it has committed, and returns them in the order of their numbers. msg_ids: only these (up to 10,000); NULL is any.
Nobody else sees any of it before the transaction commits; then they are invisible for the rest of visibility_timeout (0 to 366 days; NULL: the queue''s own) and have that delivery behind them. lease is NULL. Not messages of groups, and not beyond max_attempts; max_in_flight and max_rate don''t count these deliveries. Needs SELECT and DELETE on the table.
Fails with 42704 (no such queue), 22004 (NULL), 22023 (out of range), 54000 (too many), 25006 (read-only), 42501.';

CREATE FUNCTION enough.queue_read_any(
    queues text[],
    qty int DEFAULT 1,
    visibility_timeout interval DEFAULT NULL,
    wait interval DEFAULT '0',
    whole_groups boolean DEFAULT false
) RETURNS TABLE (
    queue        text,
    msg_id       bigint,
    attempts     int,
    enqueued_at  timestamptz,
    leased_until timestamptz,
    lease        bigint,
    priority     smallint,
    group_key    text,
    headers      jsonb,
    message      jsonb
)
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 10 AS 'MODULE_PATHNAME', 'enough_queue_read_any';
COMMENT ON FUNCTION enough.queue_read_any IS
'Leases up to qty (1 to 10,000) ready messages of several queues (up to 10,000) to the caller and returns them, each with its queue: all that an earlier queue of the array has before those of a later one.
Where none has a message ready, waits up to wait (0 to 1 hour) for the first of any of them, woken as by a read of that queue alone. Nothing for an empty array or NULL. The other arguments and errors are those of queue_read, of each queue; 54000 for more queues.';

CREATE FUNCTION enough.queue_pop(queue text, qty int DEFAULT 1, wait interval DEFAULT '0')
RETURNS SETOF enough.queue_message
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 10 AS 'MODULE_PATHNAME', 'enough_queue_pop';
COMMENT ON FUNCTION enough.queue_pop IS
'Reads and deletes up to qty messages in one: they are gone when the transaction commits, and delivered again when it is rolled back. lease and leased_until are NULL. The other arguments and errors are those of queue_read; 25006 also in a read-only transaction.';

CREATE FUNCTION enough.queue_peek(
    queue text,
    qty int DEFAULT 10,
    state text DEFAULT 'ready',
    after bigint DEFAULT NULL,
    matching jsonb DEFAULT NULL,
    group_key text DEFAULT NULL
)
RETURNS SETOF enough.queue_message
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 10 AS 'MODULE_PATHNAME', 'enough_queue_peek';
COMMENT ON FUNCTION enough.queue_peek IS
'Shows up to qty (1 to 10,000) messages in a state without taking them: ready (the next to be read first), leased, delayed, done or dead (the last to end first). after: only those with a greater msg_id, in the order of msg_id: for pages begin with 0 and go on with the last msg_id of the page before. matching: only those whose message contains it, as by @>. group_key: only those of that group. Live messages are in the order of msg_id also where matching or group_key is given; those filters look through the table.
Returns them as queue_read does, but attempts counts deliveries so far, and counts none. lease and leased_until are NULL where none runs. Needs SELECT on the table.
Fails with 42704 (no such queue), 22004 (NULL), 22023 (out of range), 42501.';

CREATE FUNCTION enough.queue_delete(queue text, msg_id bigint, lease bigint DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_delete';
COMMENT ON FUNCTION enough.queue_delete IS
'Deletes a message: it is done.
Returns false where there is none, or where lease is given and isn''t the current one. Until the transaction ends nobody else gets the message; a rollback leaves it as it was. Needs SELECT and DELETE on the table.
Fails with 42704 (no such queue), 22004 (NULL), 25006 (read-only), 40001 (changed concurrently, above READ COMMITTED), 42501.';

CREATE FUNCTION enough.queue_delete_batch(queue text, msg_ids bigint[], leases bigint[] DEFAULT NULL)
RETURNS SETOF bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_delete_batch';
COMMENT ON FUNCTION enough.queue_delete_batch IS
'Deletes up to 10,000 messages; none for an empty array or NULL, which is what array_agg() makes of no rows.
Returns the msg_ids of those that it deleted, in the order of msg_ids: not of those that aren''t there, or whose lease isn''t the current one. leases: one element a message; NULL, the array or an element, is without a lease. Rows are locked in the order of their numbers, so that two batches never deadlock. Errors are those of queue_delete; 22023 for leases of another length, 54000 for a larger batch.';

CREATE FUNCTION enough.queue_archive(queue text, msg_id bigint, result jsonb DEFAULT NULL, lease bigint DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_archive';
COMMENT ON FUNCTION enough.queue_archive IS
'Moves a message to the archive: it is done, and kept there, with what came of it, for archive_for.
Returns false where there is none, or where lease is given and isn''t the current one. Until the transaction ends nobody else gets the message; a rollback leaves it as it was. Needs SELECT and DELETE on the table.
Fails with 42704 (no such queue), 22004 (NULL), 25006 (read-only), 40001 (changed concurrently, above READ COMMITTED), 42501.';

CREATE FUNCTION enough.queue_archive_batch(
    queue text,
    msg_ids bigint[],
    leases bigint[] DEFAULT NULL,
    results jsonb[] DEFAULT NULL
) RETURNS SETOF bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_archive_batch';
COMMENT ON FUNCTION enough.queue_archive_batch IS
'Moves up to 10,000 messages to the archive: they are done. None for an empty array or NULL.
Returns the msg_ids of those that it moved, in the order of msg_ids: not of those that aren''t there, or whose lease isn''t the current one. leases, results: one element a message; NULL, the array or an element, is without one. Rows are locked in the order of their numbers, so that two batches never deadlock. Errors are those of queue_archive; 22023 for an array of another length, 54000 for a larger batch.';

CREATE FUNCTION enough.queue_extend(queue text, msg_id bigint, visibility_timeout interval, lease bigint DEFAULT NULL)
RETURNS timestamptz
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_extend';
COMMENT ON FUNCTION enough.queue_extend IS
'The heartbeat: lets a lease end visibility_timeout (0 to 366 days) from now; 0 gives the message back at once.
Takes effect at once, also where the transaction is rolled back. Returns when the lease ends, or NULL where the message isn''t leased, or not by that lease. Needs SELECT and DELETE on the table.
Fails with 42704 (no such queue), 22004 (NULL), 22023 (out of range), 42501.';

CREATE FUNCTION enough.queue_extend_batch(
    queue text,
    msg_ids bigint[],
    leases bigint[] DEFAULT NULL,
    visibility_timeout interval DEFAULT NULL
) RETURNS SETOF bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_extend_batch';
COMMENT ON FUNCTION enough.queue_extend_batch IS
'The heartbeat of up to 10,000 messages: lets their leases end visibility_timeout (0 to 366 days; NULL: the queue''s own) from now; 0 gives them back at once.
Takes effect at once, also where the transaction is rolled back. Returns the msg_ids of those whose lease it moved, in the order of msg_ids: not of those that aren''t leased, or not by that lease. leases: one element a message; NULL, the array or an element, is whichever lease there is. Errors are those of queue_extend; 22023 for leases of another length, 54000 for a larger batch.';

CREATE FUNCTION enough.queue_fail(
    queue text,
    msg_id bigint,
    error text DEFAULT NULL,
    retry_in interval DEFAULT NULL,
    lease bigint DEFAULT NULL,
    dead boolean DEFAULT false
) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_fail';
COMMENT ON FUNCTION enough.queue_fail IS
'Says that a delivery has failed, and why: the message rests for retry_in (0 to 10 years; NULL: retry_backoff * 2^(attempts-1), give or take 10 %, at most retry_backoff_max) and is delivered again, or is dead after max_attempts deliveries, or at once where dead is true and retry_in left out. The rest, the attempts and the error are durable.
Returns ''retry'' or ''dead'', or NULL where there is no such message, or where lease is given and isn''t the current one. After a rollback of the reader''s transaction its lease still serves as long as the message rests and nobody else has had it. Until the transaction ends nobody else gets the message; a rollback leaves it as it was. Needs SELECT and DELETE on the table.
Fails with 42704 (no such queue), 22004 (NULL), 22023 (out of range), 25006 (read-only), 40001 (changed concurrently, above READ COMMITTED), 42501.';

CREATE FUNCTION enough.queue_fail_batch(
    queue text,
    msg_ids bigint[],
    leases bigint[] DEFAULT NULL,
    error text DEFAULT NULL,
    retry_in interval DEFAULT NULL,
    dead boolean DEFAULT false
) RETURNS SETOF bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_fail_batch';
COMMENT ON FUNCTION enough.queue_fail_batch IS
'Says that the deliveries of up to 10,000 messages have failed, all for the same reason: each rests and is delivered again, or is dead, as by queue_fail; with dead all are.
Returns the msg_ids of those that failed, in the order of msg_ids: not of those that aren''t there, or whose lease isn''t the current one. leases: one element a message; NULL, the array or an element, is without a lease. Rows are locked in the order of their numbers, so that two batches never deadlock. Errors are those of queue_fail; 22023 for leases of another length, 54000 for a larger batch.';

CREATE FUNCTION enough.queue_release(queue text, msg_id bigint, delay interval DEFAULT '0', lease bigint DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_release';
COMMENT ON FUNCTION enough.queue_release IS
'Gives a leased message back, as if it had not been delivered: the attempt doesn''t count, and after delay (0 to 10 years) it is delivered again. For a consumer that shuts down, or that the message came too early for.
Returns false where the message isn''t leased, or not by that lease. Until the transaction ends nobody else gets the message; a rollback leaves it as it was. The rest and the attempts are durable. Needs SELECT and DELETE on the table.
Fails with 42704 (no such queue), 22004 (NULL), 22023 (out of range), 25006 (read-only), 40001 (changed concurrently, above READ COMMITTED), 42501.';

CREATE FUNCTION enough.queue_release_batch(
    queue text,
    msg_ids bigint[],
    leases bigint[] DEFAULT NULL,
    delay interval DEFAULT '0'
) RETURNS SETOF bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_release_batch';
COMMENT ON FUNCTION enough.queue_release_batch IS
'Gives up to 10,000 leased messages back, as queue_release does.
Returns the msg_ids of those that it gave back, in the order of msg_ids: not of those that aren''t leased, or not by that lease. leases: one element a message; NULL, the array or an element, is whichever lease there is. Rows are locked in the order of their numbers, so that two batches never deadlock. Errors are those of queue_release; 22023 for leases of another length, 54000 for a larger batch.';

CREATE FUNCTION enough.queue_reschedule(queue text, msg_ids bigint[], deliver_at timestamptz)
RETURNS SETOF bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_reschedule';
COMMENT ON FUNCTION enough.queue_reschedule IS
'Gives up to 10,000 messages, ready, leased or delayed, another delivery time: none of them is delivered before it, and each from then on. One in the past is now. A lease ends with that, whichever session has it; the attempts stay. None for an empty array or NULL.
Returns the msg_ids of those that it changed, in the order of msg_ids: not of those that aren''t there. Durable; until the transaction ends nobody else gets the messages; a rollback leaves them as they were. Rows are locked in the order of their numbers, so that two batches never deadlock. Needs SELECT and DELETE on the table.
Fails with 42704 (no such queue), 22004 (NULL), 22023 (infinite, or more than 10 years ahead), 54000 (too many), 25006 (read-only), 40001 (changed concurrently, above READ COMMITTED), 42501.';

CREATE FUNCTION enough.queue_attempts(queue text, msg_id bigint) RETURNS int
LANGUAGE c STABLE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_attempts';
COMMENT ON FUNCTION enough.queue_attempts IS
'Says how often a live message has been delivered, as far as the memory knows; the row''s own attempts may be fewer. For views of a queue''s table; reads no table.
Returns NULL where the memory doesn''t know the message: then the row''s attempts are right. Needs SELECT on the table.
Fails with 42704 (no such queue), 22004 (NULL), 42501.';

CREATE FUNCTION enough.queue_visible_at(queue text, msg_id bigint) RETURNS timestamptz
LANGUAGE c STABLE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_visible_at';
COMMENT ON FUNCTION enough.queue_visible_at IS
'Says when the lease of a live message ends, or its rest is over, as far as the memory knows. For views of a queue''s table; reads no table.
Returns NULL where none runs, or the memory doesn''t know the message: then the row''s deliver_at is right. Needs SELECT on the table.
Fails with 42704 (no such queue), 22004 (NULL), 42501.';

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
Returns one row, or none where the message was deleted or never was. attempts: deliveries so far; error: why the last one failed. A message that an open transaction is finishing is leased. One that has had max_attempts deliveries, the last of them over, is dead, also where it hasn''t moved to the archive yet. Needs SELECT on the table.
Fails with 42704 (no such queue), 22004 (NULL), 42501.';

CREATE FUNCTION enough.queue_result(queue text, msg_id bigint, wait interval DEFAULT '0')
RETURNS TABLE (state text, result jsonb, error text)
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 1 AS 'MODULE_PATHNAME', 'enough_queue_result';
COMMENT ON FUNCTION enough.queue_result IS
'Says what has come of a message: a call over a queue. Waits up to wait (0 to 1 hour) until it is done or dead, and is woken by the commit that ends it.
Returns one row: done, with the result that queue_archive was given, or dead, with the error; after the wait also ready, leased or delayed, with the error of the last failure. None where the message was deleted or never was: consumers whose results are asked for call queue_archive. Sees what is committed by then, at every isolation level. A wait holds its connection, and its transaction is open for as long. Needs SELECT on the queue''s table.
Fails with 42704 (no such queue, also where it is dropped or renamed meanwhile), 22004 (NULL), 22023 (out of range), 55000 (wait, for a message that this transaction has sent or changed), 25006 (wait on a standby), 42501.';

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

CREATE FUNCTION enough.queue_redrive(
    queue text,
    msg_ids bigint[] DEFAULT NULL,
    to_queue text DEFAULT NULL,
    died_before timestamptz DEFAULT NULL,
    matching jsonb DEFAULT NULL,
    max int DEFAULT NULL
) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_redrive';
COMMENT ON FUNCTION enough.queue_redrive IS
'Moves dead letters back to the queue, ready when the transaction commits: those of msg_ids (up to 10,000), or, where that is NULL, all. They keep their msg_id and their last error, and have no attempts behind them. to_queue: moves them to that queue instead, where they get numbers of their own. died_before: only those that died before that time. matching: only those whose message contains it, as by @>. max (1 or more): at most so many, in the order of msg_id. Messages that have had max_attempts deliveries, the last of them over, are among them.
Returns how many went. One whose dedup_key a live message of its queue, or of to_queue, has stays dead. Needs SELECT and DELETE on the table, and INSERT on that of to_queue.
Fails with 42704 (no such queue), 22004 (NULL element), 22023 (out of range), 54000 (too many), 25006 (read-only), 40001 (changed concurrently, above READ COMMITTED), 42501.';

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
Fails with 55000 where pg_cron is not in this database (where it is in another one, the HINT has the statement for that), 42704 (no such queue), 22004 (NULL), 22023 (out of range, or no schedule), 54000 (key too long), 42501.';

CREATE FUNCTION enough.queue_unschedule(name text) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_queue_unschedule';
COMMENT ON FUNCTION enough.queue_unschedule IS
'Ends a schedule of the calling role.
Returns whether there was one; those that other roles have made under the same name go on. queue_drop ends the schedules that send to its queue.
Fails with 55000 where pg_cron is not in this database, 22004 (NULL), 22023 (no name), 42501 where the role may not use the schema cron.';

CREATE FUNCTION enough.queue_schedules() RETURNS TABLE (
    name text,
    schedule text,
    queue text,
    command text,
    active boolean,
    last_run timestamptz,
    last_status text,
    last_message text,
    role text
)
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 10 AS 'MODULE_PATHNAME', 'enough_queue_schedules';
COMMENT ON FUNCTION enough.queue_schedules IS
'Lists what queue_schedule has made in this database, as far as the role may see it.
Returns a row a schedule: the statement that pg_cron runs, when it ran last, what came of it (succeeded, failed, running) and what the server said, NULL where it has not run; and the role that it runs as.
Fails with 55000 where pg_cron is not in this database, 42501 where the role may not use the schema cron.';

CREATE FUNCTION enough.queue_stats(queue text DEFAULT NULL) RETURNS SETOF enough.queue_statistics
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 10 AS 'MODULE_PATHNAME', 'enough_queue_stats';
COMMENT ON FUNCTION enough.queue_stats IS
'What queues hold (ready, leased, delayed, dead, archived, how long the oldest ready message has been there, since it was sent or due) and have seen since the server''s last start (sent, delivered, finished, failed: by queue_fail or because the lease ran out). dead: dead letters in the archive, and messages that are about to move there.
wait_p50 and wait_p99: how long half, and 99 of 100, of the messages waited at the most, from when they were sent, or due, to their first delivery; run_p50 and run_p99: the same from the last delivery of a message to the commit that deleted it, archived it or failed it for good. Both are since the server''s last start, and off by less than a factor of 2; NULL where there was none. oldest_lease: how long the oldest running lease has run; NULL where there is none.
NULL: every queue that the role may see. Costs the same at ten messages and at ten million, but for the first call after a start, which counts. Needs SELECT on the table, or to be a monitor: a member of pg_monitor, or of a role that grant_to() has made one.
Fails with 42704 (no such queue), 42501.';

-- Workers in SQL: what runs in the server for each message, started by pg_cron, say.

CREATE FUNCTION enough._in_transaction_block() RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_in_transaction_block';
COMMENT ON FUNCTION enough._in_transaction_block() IS
'Returns whether the statement that calls it was sent within BEGIN and COMMIT, or with others in one message.
For queue_work, which commits.';

-- Commits, so it can have no search path of its own, and everything in it is named in full.
CREATE PROCEDURE enough.queue_work(queue text, handler regproc, batch int DEFAULT 1, for_duration interval DEFAULT '55 seconds')
LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    most CONSTANT pg_catalog.int4 := coalesce(batch, 1);
    duration CONSTANT pg_catalog.interval := coalesce(for_duration, '55 seconds'::pg_catalog.interval);
    ends CONSTANT pg_catalog.timestamptz := pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) least(duration, '366 days'::pg_catalog.interval);
    handle pg_catalog.text;
    messages enough.queue_message[];
    one enough.queue_message;
    place pg_catalog.int4;
    ids pg_catalog.int8[];
    leases pg_catalog.int8[];
    kept pg_catalog.int8[];
    leased pg_catalog.interval;
    renewal pg_catalog.timestamptz;
    has_read pg_catalog.bool := false;
    result pg_catalog.jsonb;
    finished pg_catalog.bool;
    failure pg_catalog.text;
    cancelled pg_catalog.bool;
BEGIN
    IF handler IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
            MESSAGE = 'argument "handler" must not be NULL', HINT = 'Pass the name of a function.';
    ELSIF most OPERATOR(pg_catalog.<) 1 OR most OPERATOR(pg_catalog.>) 10000 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('invalid value for argument "batch": %s', most), HINT = 'It must be from 1 to 10000.';
    ELSIF duration OPERATOR(pg_catalog.<) '0'::pg_catalog.interval OR duration OPERATOR(pg_catalog.>) '366 days'::pg_catalog.interval THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('invalid value for argument "for_duration": %s', duration),
            HINT = 'It must be an interval from 0 s to 366 days.';
    ELSIF enough._in_transaction_block() THEN
        RAISE EXCEPTION USING ERRCODE = 'active_sql_transaction',
            MESSAGE = 'queue_work() commits, and cannot be called within a transaction',
            HINT = 'CALL it as a statement of its own, without BEGIN; in drivers, with autocommit on.';
    ELSIF pg_catalog.current_setting('transaction_read_only')::pg_catalog.bool THEN
        RAISE EXCEPTION USING ERRCODE = 'read_only_sql_transaction',
            MESSAGE = 'cannot execute queue_work() in a read-only transaction or on a standby',
            HINT = 'Call it on the primary, in a transaction that may write.';
    END IF;
    -- By its name, so that a new version of the function is called as soon as it is there.
    SELECT pg_catalog.format('SELECT %I.%I($1)', n.nspname, p.proname) INTO handle
      FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
     WHERE p.oid OPERATOR(pg_catalog.=) handler::pg_catalog.oid AND p.prokind OPERATOR(pg_catalog.=) 'f' AND NOT p.proretset
       AND p.prorettype OPERATOR(pg_catalog.=) 'pg_catalog.jsonb'::pg_catalog.regtype::pg_catalog.oid
       AND p.pronargs OPERATOR(pg_catalog.>) 0 AND p.pronargs OPERATOR(pg_catalog.-) p.pronargdefaults OPERATOR(pg_catalog.<=) 1
       AND p.proargtypes[0] OPERATOR(pg_catalog.=) 'pg_catalog.jsonb'::pg_catalog.regtype::pg_catalog.oid;
    IF handle IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('invalid value for argument "handler": %s', handler),
            HINT = 'It must be a function that takes a jsonb, the message, and returns a jsonb, the result.';
    ELSIF NOT pg_catalog.has_function_privilege(handler::pg_catalog.oid, 'EXECUTE') THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
            MESSAGE = pg_catalog.format('permission denied for function %s', handler),
            HINT = 'The handler runs with the rights of the role that calls queue_work().';
    END IF;
    -- Fails where a function has called this one, before anything is read.
    COMMIT;
    LOOP
        BEGIN
            messages := ARRAY(SELECT m FROM enough.queue_read(queue, most, NULL,
                greatest(least(ends OPERATOR(pg_catalog.-) pg_catalog.clock_timestamp(), '1 minute'::pg_catalog.interval),
                         '0'::pg_catalog.interval)) AS m);
        EXCEPTION WHEN undefined_object THEN
            IF NOT has_read THEN
                RAISE;
            END IF;
            RAISE NOTICE USING MESSAGE = pg_catalog.format('queue "%s" is gone', queue);
            EXIT;
        END;
        -- The handler sees what others have committed until then, at any isolation level.
        COMMIT;
        has_read := true;
        place := 0;
        ids := ARRAY(SELECT m.msg_id FROM pg_catalog.unnest(messages) AS m);
        leases := ARRAY(SELECT m.lease FROM pg_catalog.unnest(messages) AS m);
        kept := ids;
        FOREACH one IN ARRAY messages LOOP
            place := place OPERATOR(pg_catalog.+) 1;
            IF place OPERATOR(pg_catalog.=) 1 THEN
                leased := greatest(one.leased_until OPERATOR(pg_catalog.-) pg_catalog.clock_timestamp(), '1 ms'::pg_catalog.interval);
                renewal := pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) (leased OPERATOR(pg_catalog./) 2);
            ELSIF pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>=) ends THEN
                PERFORM enough.queue_release_batch(queue, ids[place:], leases[place:]);
                EXIT;
            ELSIF pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>) renewal THEN
                -- What is still to come in a long batch isn't given to others.
                kept := ARRAY(SELECT enough.queue_extend_batch(queue, ids[place:], leases[place:]));
                renewal := pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) (leased OPERATOR(pg_catalog./) 2);
            END IF;
            CONTINUE WHEN one.msg_id OPERATOR(pg_catalog.<>) ALL (kept);
            finished := NULL;
            failure := NULL;
            cancelled := false;
            BEGIN
                EXECUTE handle INTO result USING one.message;
                finished := CASE WHEN result IS NULL THEN enough.queue_delete(queue, one.msg_id, one.lease)
                                 ELSE enough.queue_archive(queue, one.msg_id, result, one.lease) END;
                -- What is checked at the commit fails here, where it is the message's failure and not the worker's.
                SET CONSTRAINTS ALL IMMEDIATE;
                IF NOT finished THEN
                    RAISE EXCEPTION 'its lease is over';
                END IF;
            EXCEPTION
                WHEN query_canceled THEN
                    failure := SQLERRM;
                    cancelled := true;
                WHEN OTHERS OR assert_failure THEN
                    failure := SQLERRM;
            END;
            IF NOT finished THEN
                RAISE WARNING USING MESSAGE = pg_catalog.format('message %s of queue "%s" was handled for longer than its lease lasted, and its work is undone', one.msg_id, queue),
                    HINT = 'Give the queue a longer visibility_timeout with enough.queue_alter().';
            ELSIF failure IS NOT NULL THEN
                BEGIN
                    PERFORM enough.queue_fail(queue, one.msg_id, failure, NULL, one.lease);
                EXCEPTION WHEN undefined_object THEN
                    RAISE NOTICE USING MESSAGE = pg_catalog.format('queue "%s" is gone', queue);
                    RETURN;
                END;
            END IF;
            COMMIT;
            IF cancelled THEN
                PERFORM enough.queue_release_batch(queue, ids[place OPERATOR(pg_catalog.+) 1:], leases[place OPERATOR(pg_catalog.+) 1:]);
                COMMIT;
                RAISE query_canceled USING MESSAGE = failure;
            END IF;
        END LOOP;
        EXIT WHEN pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>=) ends;
    END LOOP;
END $$;
COMMENT ON PROCEDURE enough.queue_work IS
'Works on a queue''s messages in the server: calls a function for each, and commits each.
handler: a function that takes a jsonb, the message, and returns a jsonb. What it returns is kept with the message in the archive; where that is NULL, the message is deleted. Its work and the end of the message commit together. Where it raises an error, its work is undone, and the message fails with the error''s text, as by queue_fail: it rests, and after max_attempts it is dead. batch: how many messages are read at a time, 1 to 10,000; leases of those that wait for their turn are renewed. for_duration: for how long it works and waits for messages, 0 to 366 days; then it gives back what it has not begun, as by queue_release. At least one message is handled if there is any.
It also ends when the queue is dropped or renamed, without an error; and when it is cancelled, with one: the message at hand fails, and those not begun are given back. A handler that takes longer than the visibility timeout is undone, with a warning. It cannot be called within a transaction, because it commits. The handler runs as the caller; needs SELECT and DELETE on the table.
Fails with 25001 within a transaction, 2D000 within a function, 42704 (no such queue), 22004 (NULL), 22023 (out of range; the handler is no such function), 25006 (read-only), 42501.';

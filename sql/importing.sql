-- Queues of other extensions, taken over with their messages.

CREATE FUNCTION enough.queue_import_pgmq(queue text, to_queue text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    live_name CONSTANT text := 'pgmq.' || quote_ident('q_' || lower($1));
    archive_name CONSTANT text := 'pgmq.' || quote_ident('a_' || lower($1));
    live regclass;
    archive regclass;
    target CONSTANT text := coalesce($2, lower($1));
    persistence "char";
    missing text;
    one regclass;
    imported bigint;
BEGIN
    IF $1 IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
            MESSAGE = 'argument "queue" must not be NULL', HINT = 'Pass the name of a queue that pgmq has made.';
    END IF;
    SELECT c.relpersistence INTO persistence FROM pg_class AS c WHERE c.oid = to_regclass(live_name) AND c.relkind IN ('r', 'p');
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object',
            MESSAGE = format('"%s" is no queue of pgmq: there is no table pgmq.%I', left($1, 63), 'q_' || lower(left($1, 63))),
            HINT = 'Pass the name of a queue that pgmq has made. A queue of this extension needs no import.';
    END IF;
    -- The snapshot of such a transaction may be older than the last messages, which would go with the table.
    IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
        RAISE EXCEPTION USING ERRCODE = 'active_sql_transaction',
            MESSAGE = format('queue "%s" can not be imported in a %s transaction', $1, upper(current_setting('transaction_isolation'))),
            HINT = 'Call it in a READ COMMITTED transaction.';
    END IF;
    -- By their names: either may be dropped, or made anew, until it is locked.
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', live_name);
    live := to_regclass(live_name);
    IF to_regclass(archive_name) IS NOT NULL THEN
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', archive_name);
        archive := to_regclass(archive_name);
    END IF;
    SELECT string_agg(n, ', ') INTO missing FROM unnest('{msg_id,read_ct,enqueued_at,vt,message,headers}'::text[]) AS n
     WHERE NOT EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = live AND a.attname = n AND NOT a.attisdropped)
        OR archive IS NOT NULL
           AND NOT EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = archive AND a.attname = n AND NOT a.attisdropped);
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = format('the tables of queue "%s" lack columns of pgmq 1.5: %s', $1, missing),
            HINT = 'Call ALTER EXTENSION pgmq UPDATE first.';
    END IF;
    -- As pgmq has them, messages are delivered however often they were, and their archive is kept.
    PERFORM enough.queue_create(target, max_attempts => 0, retry_backoff => '0', retry_backoff_max => '0', archive_for => '0',
                                unlogged => persistence = 'u');
    EXECUTE format(
        'INSERT INTO enough.%I (msg_id, enqueued_at, deliver_at, attempts, priority, headers, message) '
        'SELECT o.msg_id, o.enqueued_at, CASE WHEN o.vt > clock_timestamp() THEN o.vt END, o.read_ct, 0, o.headers, '
               'coalesce(o.message, ''null'') FROM %s AS o ORDER BY o.msg_id',
        'q_' || target, live);
    GET DIAGNOSTICS imported = ROW_COUNT;
    EXECUTE format('SELECT setval(%L, n.last_value, n.is_called) FROM %s AS n', format('enough.%I', 's_' || target),
                   pg_get_serial_sequence(live::text, 'msg_id'));
    IF archive IS NOT NULL THEN
        EXECUTE format(
            'INSERT INTO enough.%I (msg_id, enqueued_at, attempts, priority, headers, message, outcome, finished_at) '
            'SELECT o.msg_id, o.enqueued_at, o.read_ct, 0, o.headers, coalesce(o.message, ''null''), ''done'', o.archived_at '
              'FROM %s AS o ON CONFLICT DO NOTHING',
            'a_' || target, archive);
    END IF;
    FOREACH one IN ARRAY array_remove(ARRAY[live, archive], NULL) LOOP
        -- Before its version 1.5 the tables of queues were members of the extension.
        IF EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass AND d.objid = one AND d.deptype = 'e') THEN
            EXECUTE format('ALTER EXTENSION pgmq DROP TABLE %s', one);
        END IF;
        EXECUTE format('DROP TABLE %s', one);
    END LOOP;
    IF to_regclass('pgmq.meta') IS NOT NULL THEN
        EXECUTE 'DELETE FROM pgmq.meta AS m WHERE lower(m.queue_name) = lower($1)' USING $1;
    END IF;
    RETURN imported;
END $$;
COMMENT ON FUNCTION enough.queue_import_pgmq(text, text) IS
'Takes over a queue of the extension pgmq 1.5 or later in this database, whether that is still installed or has only left its tables.
queue: its name there. to_queue: the name of the queue that is made; NULL: the same in lower case.
Returns how many messages are live. Visible, invisible and archived messages keep their numbers, the invisible ones until when, and all how often they were read; new messages are numbered on from there. A message that is NULL becomes the JSON null. The queue has no limit of attempts and no backoff, and keeps its archive, as in pgmq; queue_alter() changes that. The tables of pgmq are dropped, with the topics that are bound to the queue and its throttle; nothing happens where the transaction rolls back.
It locks the queue''s tables and copies them, so stop its clients before. Needs the ownership of these tables and, where pgmq is installed, DELETE on pgmq.meta.
Fails with 22004 for a NULL queue, 42704 where pgmq has no such queue, 42710 where there is a queue to_queue, 22023 for a name that is no queue''s here, 55000 for tables of an older pgmq, 25001 in a REPEATABLE READ or SERIALIZABLE transaction, 42501 where they are another''s, 42P01 where they are dropped meanwhile, 25006 in a read-only transaction or on a standby.';

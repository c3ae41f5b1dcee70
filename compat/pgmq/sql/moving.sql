-- From pgmq and back. DROP EXTENSION pgmq leaves pgmq's tables where they are: then this extension takes them over, or the
-- other one, whichever is there next. Not functions of pgmq itself.

CREATE FUNCTION pgmq.import_queue(queue_name text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    imported bigint;
BEGIN
    PERFORM pgmq.validate_queue_name(queue_name);
    PERFORM pgmq.acquire_queue_lock(queue_name);
    imported := enough.queue_import_pgmq(queue_name, pgmq._engine_name(queue_name));
    PERFORM pgmq.adopt(queue_name);
    RETURN imported;
END $$;
COMMENT ON FUNCTION pgmq.import_queue IS
'Takes over a queue that pgmq has made: its messages, visible, invisible and archived, keep their numbers, the invisible ones until when, and all how often they were read. Returns how many live messages there are. Not a function of pgmq itself.';

CREATE FUNCTION pgmq.import_all() RETURNS TABLE (queue_name text, messages bigint)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    one text;
BEGIN
    -- pgmq's tables, but not their partitions.
    FOR one IN
        SELECT substr(c.relname, 3) FROM pg_class AS c
         WHERE c.relnamespace = 'pgmq'::regnamespace AND c.relkind IN ('r', 'p') AND starts_with(c.relname, 'q_')
           AND NOT c.relispartition
           AND (SELECT count(*) FROM pg_attribute AS a
                 WHERE a.attrelid = c.oid AND a.attname IN ('msg_id', 'read_ct', 'enqueued_at', 'vt', 'message', 'headers')) = 6
         ORDER BY c.relname
    LOOP
        RETURN QUERY SELECT one, pgmq.import_queue(one);
    END LOOP;
END $$;
COMMENT ON FUNCTION pgmq.import_all IS
'Takes over all queues that pgmq has made. Their names are in lower case, as their tables are. Not a function of pgmq itself.';

CREATE FUNCTION pgmq.export_queue(queue_name text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    live CONSTANT text := pgmq.format_table_name(queue_name, 'q');
    archive CONSTANT text := pgmq.format_table_name(queue_name, 'a');
    queue CONSTANT text := pgmq._queue(queue_name);
    exported bigint;
    is_unlogged CONSTANT boolean := (SELECT q.unlogged FROM enough.queue_list() AS q WHERE q.name = queue);
BEGIN
    PERFORM pgmq.acquire_queue_lock(queue_name);
    -- The snapshot of such a transaction may be older than the last messages, which would go with the table.
    IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
        RAISE EXCEPTION USING ERRCODE = 'active_sql_transaction',
            MESSAGE = format('queue "%s" can not be exported in a %s transaction', queue_name, upper(current_setting('transaction_isolation'))),
            HINT = 'Call it in a READ COMMITTED transaction.';
    END IF;
    EXECUTE format('LOCK TABLE enough.%I, enough.%I IN ACCESS EXCLUSIVE MODE', 'q_' || queue, 'a_' || queue);
    EXECUTE format('ALTER VIEW pgmq.%I RENAME TO %I', live, '_' || live);
    EXECUTE format('ALTER VIEW pgmq.%I RENAME TO %I', archive, '_' || archive);
    EXECUTE format(
        'CREATE %s TABLE pgmq.%I (msg_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, read_ct integer NOT NULL DEFAULT 0, '
            'enqueued_at timestamptz NOT NULL DEFAULT now(), last_read_at timestamptz, vt timestamptz NOT NULL, '
            'message jsonb, headers jsonb)',
        CASE WHEN is_unlogged THEN 'UNLOGGED' END, live);
    EXECUTE format('CREATE INDEX %I ON pgmq.%I (vt)', live || '_vt_idx', live);
    EXECUTE format(
        'CREATE TABLE pgmq.%I (msg_id bigint PRIMARY KEY, read_ct integer NOT NULL DEFAULT 0, '
            'enqueued_at timestamptz NOT NULL DEFAULT now(), last_read_at timestamptz, '
            'archived_at timestamptz NOT NULL DEFAULT now(), vt timestamptz NOT NULL, message jsonb, headers jsonb)',
        archive);
    EXECUTE format('CREATE INDEX %I ON pgmq.%I (archived_at)', 'archived_at_idx_' || queue_name, archive);
    EXECUTE format(
        'INSERT INTO pgmq.%1$I (msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers) OVERRIDING SYSTEM VALUE '
        'SELECT o.msg_id, o.read_ct, o.enqueued_at, o.last_read_at, o.vt, o.message, o.headers FROM pgmq.%2$I AS o ORDER BY o.msg_id',
        live, '_' || live);
    GET DIAGNOSTICS exported = ROW_COUNT;
    EXECUTE format(
        'INSERT INTO pgmq.%1$I (msg_id, read_ct, enqueued_at, last_read_at, archived_at, vt, message, headers) '
        'SELECT o.msg_id, o.read_ct, o.enqueued_at, o.last_read_at, o.archived_at, o.vt, o.message, o.headers FROM pgmq.%2$I AS o',
        archive, '_' || archive);
    EXECUTE format(
        'SELECT setval(%L, n.last_value, n.is_called) FROM enough.%I AS n',
        pg_get_serial_sequence(format('pgmq.%I', live), 'msg_id'), 's_' || queue);
    EXECUTE format('DROP VIEW pgmq.%I, pgmq.%I', '_' || live, '_' || archive);
    PERFORM enough.queue_drop(queue);
    DELETE FROM pgmq.meta AS m WHERE lower(m.queue_name) = lower(export_queue.queue_name);
    RETURN exported;
END $$;
COMMENT ON FUNCTION pgmq.export_queue IS
'Makes a queue into tables as pgmq has them, with the messages'' numbers, their visibility and how often they were read, and drops it: for pgmq itself, whose pgmq.create() then finds them. Returns how many live messages there are. Not a function of pgmq itself.';

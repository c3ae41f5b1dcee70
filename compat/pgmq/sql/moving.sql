-- From pgmq and back. DROP EXTENSION pgmq leaves pgmq's tables where they are: then this extension takes them over, or the
-- other one, whichever is there next. Not functions of pgmq itself.

CREATE FUNCTION pgmq.import_queue(queue_name text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    live CONSTANT text := pgmq.format_table_name(queue_name, 'q');
    archive CONSTANT text := pgmq.format_table_name(queue_name, 'a');
    queue CONSTANT text := pgmq._engine_name(queue_name);
    numbers text;
    kept "char";
    imported bigint;
BEGIN
    PERFORM pgmq.validate_queue_name(queue_name);
    PERFORM pgmq.acquire_queue_lock(queue_name);
    SELECT c.relpersistence INTO kept FROM pg_class AS c
     WHERE c.oid = to_regclass('pgmq.' || quote_ident(live)) AND c.relkind IN ('r', 'p');
    IF NOT FOUND THEN
        RAISE undefined_table USING MESSAGE = format('pgmq.%I is not a table of pgmq', live),
            HINT = 'Pass the name of a queue that pgmq has made, after DROP EXTENSION pgmq and CREATE EXTENSION pgmq of this one.';
    END IF;
    EXECUTE format('LOCK TABLE pgmq.%I IN ACCESS EXCLUSIVE MODE', live);
    numbers := pg_get_serial_sequence(format('pgmq.%I', live), 'msg_id');
    EXECUTE format('ALTER TABLE pgmq.%I RENAME TO %I', live, '_' || live);
    IF to_regclass('pgmq.' || quote_ident(archive)) IS NOT NULL THEN
        EXECUTE format('ALTER TABLE pgmq.%I RENAME TO %I', archive, '_' || archive);
    END IF;
    PERFORM pgmq._create(queue_name, kept = 'u');
    EXECUTE format(
        'INSERT INTO enough.%I (msg_id, enqueued_at, deliver_at, attempts, priority, headers, message) '
        'SELECT o.msg_id, o.enqueued_at, CASE WHEN o.vt > clock_timestamp() THEN o.vt END, o.read_ct, 0, o.headers, '
               'coalesce(o.message, ''null'') FROM pgmq.%I AS o ORDER BY o.msg_id',
        'q_' || queue, '_' || live);
    GET DIAGNOSTICS imported = ROW_COUNT;
    EXECUTE format('SELECT setval(%L, n.last_value, n.is_called) FROM %s AS n', format('enough.%I', 's_' || queue), numbers);
    EXECUTE format('DROP TABLE pgmq.%I', '_' || live);
    IF to_regclass('pgmq.' || quote_ident('_' || archive)) IS NOT NULL THEN
        EXECUTE format(
            'INSERT INTO enough.%I (msg_id, enqueued_at, attempts, priority, headers, message, outcome, finished_at) '
            'SELECT o.msg_id, o.enqueued_at, o.read_ct, 0, o.headers, coalesce(o.message, ''null''), ''done'', o.archived_at '
              'FROM pgmq.%I AS o ON CONFLICT DO NOTHING',
            'a_' || queue, '_' || archive);
        EXECUTE format('DROP TABLE pgmq.%I', '_' || archive);
    END IF;
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

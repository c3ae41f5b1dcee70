-- Queues: made, dropped, listed, emptied.

CREATE FUNCTION pgmq.acquire_queue_lock(queue_name text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('pgmq.queue_' || queue_name));
END $$;
COMMENT ON FUNCTION pgmq.acquire_queue_lock IS
'Keeps others from making or dropping a queue of that name until the transaction ends.';

-- What is done to pgmq.q_<queue> is done to the queue.
CREATE FUNCTION pgmq._view_changed() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    queue CONSTANT text := TG_ARGV[0];
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.msg_id := enough.queue_send(queue, NEW.message, headers => NEW.headers, deliver_at => NEW.vt);
        RETURN NEW;
    ELSIF TG_OP = 'DELETE' THEN
        RETURN CASE WHEN enough.queue_delete(queue, OLD.msg_id) THEN OLD END;
    ELSIF (NEW.msg_id, NEW.read_ct, NEW.last_read_at) IS DISTINCT FROM (OLD.msg_id, OLD.read_ct, OLD.last_read_at) THEN
        RAISE feature_not_supported USING
            MESSAGE = format('msg_id, read_ct and last_read_at of view "%s" can''t be updated', TG_TABLE_NAME),
            HINT = 'vt, message, headers and enqueued_at can.';
    END IF;
    IF (NEW.enqueued_at, NEW.message, NEW.headers) IS DISTINCT FROM (OLD.enqueued_at, OLD.message, OLD.headers) THEN
        EXECUTE format('UPDATE enough.%I SET enqueued_at = $2, message = $3, headers = $4 WHERE msg_id = $1', 'q_' || queue)
            USING OLD.msg_id, NEW.enqueued_at, NEW.message, NEW.headers;
    END IF;
    IF NEW.vt IS DISTINCT FROM OLD.vt AND NOT EXISTS (SELECT FROM enough.queue_reschedule(queue, ARRAY[OLD.msg_id], NEW.vt)) THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END $$;

-- The views that clients know as a queue's tables. They belong to no extension, so that pg_dump takes them along with the
-- tables behind them.
CREATE FUNCTION pgmq._create_views(queue_name text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    queue CONSTANT text := pgmq._engine_name(queue_name);
    live CONSTANT text := pgmq.format_table_name(queue_name, 'q');
BEGIN
    EXECUTE format(
        'CREATE VIEW pgmq.%I WITH (security_invoker = true) AS '
        'SELECT m.msg_id, greatest(m.attempts, enough.queue_attempts(%L, m.msg_id)) AS read_ct, m.enqueued_at, '
               'NULL::timestamptz AS last_read_at, '
               'coalesce(enough.queue_visible_at(%2$L, m.msg_id), m.deliver_at, m.enqueued_at) AS vt, m.message, m.headers '
          'FROM enough.%I AS m',
        live, queue, 'q_' || queue);
    EXECUTE format(
        'CREATE TRIGGER changed INSTEAD OF INSERT OR UPDATE OR DELETE ON pgmq.%I '
        'FOR EACH ROW EXECUTE FUNCTION pgmq._view_changed(%L)',
        live, queue);
    EXECUTE format(
        'CREATE VIEW pgmq.%I WITH (security_invoker = true) AS '
        'SELECT m.msg_id, m.attempts AS read_ct, m.enqueued_at, NULL::timestamptz AS last_read_at, '
               'm.finished_at AS archived_at, m.finished_at AS vt, m.message, m.headers FROM enough.%I AS m',
        pgmq.format_table_name(queue_name, 'a'), 'a_' || queue);
END $$;

-- As pgmq has them, messages are delivered however often they were, and one whose reader was rolled back is ready at once.
CREATE FUNCTION pgmq._create(queue_name text, is_unlogged boolean) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    queue CONSTANT text := pgmq._engine_name(queue_name);
    live CONSTANT text := pgmq.format_table_name(queue_name, 'q');
BEGIN
    IF queue_name IS NULL THEN
        RAISE null_value_not_allowed USING MESSAGE = 'argument "queue_name" must not be NULL', HINT = 'Pass a name for the queue.';
    END IF;
    PERFORM pgmq.validate_queue_name(queue_name);
    PERFORM pgmq.acquire_queue_lock(queue_name);
    IF to_regclass('pgmq.' || quote_ident(live)) IS NULL THEN
        IF EXISTS (SELECT FROM enough.queue AS q WHERE q.name = queue) THEN
            RAISE duplicate_object USING
                MESSAGE = format('queue "%s" exists in pg_enough and is no queue of pgmq', queue),
                HINT = format('Choose another name, or make it one by SELECT pgmq.adopt(%L).', queue_name);
        END IF;
        PERFORM enough.queue_create(
            queue, max_attempts => 0, retry_backoff => '0', retry_backoff_max => '0', archive_for => '0',
            unlogged => is_unlogged);
        PERFORM pgmq._create_views(queue_name);
    END IF;
    INSERT INTO pgmq.meta AS m (queue_name, is_partitioned, is_unlogged)
    VALUES (_create.queue_name, false, _create.is_unlogged) ON CONFLICT DO NOTHING;
END $$;

CREATE FUNCTION pgmq.create_non_partitioned(queue_name text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgmq._create(queue_name, false);
END $$;
COMMENT ON FUNCTION pgmq.create_non_partitioned IS 'Creates a queue where there is none of that name.';

CREATE FUNCTION pgmq.create(queue_name text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgmq._create(queue_name, false);
END $$;
COMMENT ON FUNCTION pgmq.create IS 'Creates a queue where there is none of that name.';

CREATE FUNCTION pgmq.create_unlogged(queue_name text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgmq._create(queue_name, true);
END $$;
COMMENT ON FUNCTION pgmq.create_unlogged IS
'Creates a queue that a crash empties, together with its archive, where there is none of that name.';

CREATE FUNCTION pgmq.adopt(queue_name text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    queue CONSTANT text := pgmq._engine_name(queue_name);
BEGIN
    PERFORM pgmq.validate_queue_name(queue_name);
    PERFORM pgmq.acquire_queue_lock(queue_name);
    PERFORM enough.queue_alter(
        queue, max_attempts => 0, retry_backoff => '0', retry_backoff_max => '0', archive_for => '0');
    IF to_regclass('pgmq.' || quote_ident(pgmq.format_table_name(queue_name, 'q'))) IS NULL THEN
        PERFORM pgmq._create_views(queue_name);
    END IF;
    INSERT INTO pgmq.meta AS m (queue_name, is_partitioned, is_unlogged)
    SELECT adopt.queue_name, false, q.unlogged FROM enough.queue_list() AS q WHERE q.name = queue
    ON CONFLICT DO NOTHING;
END $$;
COMMENT ON FUNCTION pgmq.adopt IS
'Makes a queue of pg_enough one of pgmq, too: without a limit of attempts, without a rest after a rollback, with an archive that is kept. Not a function of pgmq itself.';

CREATE FUNCTION pgmq.drop_queue(queue_name text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    live CONSTANT text := pgmq.format_table_name(queue_name, 'q');
BEGIN
    PERFORM pgmq.acquire_queue_lock(queue_name);
    IF to_regclass('pgmq.' || quote_ident(live)) IS NULL THEN
        RAISE NOTICE 'pgmq queue `%` does not exist', queue_name;
        RETURN false;
    END IF;
    EXECUTE format('DROP VIEW pgmq.%I', live);
    EXECUTE format('DROP VIEW IF EXISTS pgmq.%I', pgmq.format_table_name(queue_name, 'a'));
    PERFORM enough.queue_drop(pgmq._engine_name(queue_name), if_exists => true);
    DELETE FROM pgmq.meta AS m WHERE lower(m.queue_name) = lower(drop_queue.queue_name);
    RETURN true;
END $$;
COMMENT ON FUNCTION pgmq.drop_queue(text) IS
'Drops a queue with its archive. Returns false, with a notice, where there is none.';

CREATE FUNCTION pgmq.drop_queue(queue_name text, partitioned boolean) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE WARNING 'drop_queue(queue_name, partitioned) is deprecated and will be removed in PGMQ v2.0. Use drop_queue(queue_name) instead';
    PERFORM pgmq.drop_queue(queue_name);
    RETURN true;
END $$;
COMMENT ON FUNCTION pgmq.drop_queue(text, boolean) IS 'Drops a queue; its second argument means nothing.';

CREATE FUNCTION pgmq.list_queues() RETURNS SETOF pgmq.queue_record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT m.queue_name, m.is_partitioned, m.is_unlogged, m.created_at FROM pgmq.meta AS m;
END $$;
COMMENT ON FUNCTION pgmq.list_queues IS 'Lists the queues that were made by pgmq.create() and its siblings.';

CREATE FUNCTION pgmq.purge_queue(queue_name text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN enough.queue_purge(pgmq._queue(queue_name));
END $$;
COMMENT ON FUNCTION pgmq.purge_queue IS 'Deletes all messages of a queue but not its archive. Returns how many there were.';

CREATE FUNCTION pgmq.detach_archive(queue_name text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgmq.format_table_name(queue_name, 'a');
    RAISE WARNING 'detach_archive(queue_name) is deprecated and is a no-op. It will be removed in PGMQ v2.0. Archive tables are no longer member objects.';
END $$;
COMMENT ON FUNCTION pgmq.detach_archive IS 'Does nothing.';

CREATE FUNCTION pgmq._belongs_to_pgmq(table_name text) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM pg_depend AS d
          JOIN pg_extension AS e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
          JOIN pg_class AS c ON c.oid = d.objid AND d.classid = 'pg_class'::regclass
         WHERE e.extname = 'pgmq' AND d.deptype = 'e' AND c.relname = table_name);
END $$;
COMMENT ON FUNCTION pgmq._belongs_to_pgmq IS 'Whether a table is a member of the extension; the views of queues are not.';

CREATE FUNCTION pgmq._extension_exists(extension_name text) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) extension_name::pg_catalog.name)
$$;
COMMENT ON FUNCTION pgmq._extension_exists IS 'Whether an extension is in this database.';

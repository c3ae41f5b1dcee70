-- Notifications of inserts, on the channel pgmq.q_<queue>.INSERT. The trigger is on the table behind the view, so that it
-- sees every message, whoever sends it; a queue that has it is written by the server's executor.

-- SECURITY DEFINER: a sender needs no right on the list of queues that notify.
CREATE FUNCTION pgmq.notify_queue_listeners() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE pgmq.notify_insert_throttle AS t SET last_notified_at = clock_timestamp()
     WHERE t.queue_name = TG_ARGV[0]
       AND (t.throttle_interval_ms = 0
            OR clock_timestamp() - t.last_notified_at >= make_interval(secs => t.throttle_interval_ms / 1000.0));
    IF FOUND THEN
        PERFORM pg_notify(format('pgmq.%s.%s', TG_ARGV[1], TG_OP), NULL);
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION pgmq.notify_queue_listeners IS 'The trigger of queues that notify their listeners.';

CREATE FUNCTION pgmq._require_interval(throttle_interval_ms integer, message text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF throttle_interval_ms < 0 THEN
        RAISE EXCEPTION '%', message USING HINT = 'Pass milliseconds; 0 notifies of each insert.';
    END IF;
END $$;

CREATE FUNCTION pgmq.disable_notify_insert(queue_name text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('DROP TRIGGER IF EXISTS trigger_notify_queue_insert_listeners ON enough.%I', 'q_' || pgmq._engine_name(queue_name));
    DELETE FROM pgmq.notify_insert_throttle AS t WHERE t.queue_name = disable_notify_insert.queue_name;
END $$;
COMMENT ON FUNCTION pgmq.disable_notify_insert IS 'Ends the notifications of a queue.';

CREATE FUNCTION pgmq.enable_notify_insert(queue_name text, throttle_interval_ms integer DEFAULT 250) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    live CONSTANT text := pgmq.format_table_name(queue_name, 'q');
BEGIN
    PERFORM pgmq._require_interval(throttle_interval_ms, 'throttle_interval_ms must be non-negative');
    IF to_regclass('pgmq.' || quote_ident(live)) IS NULL THEN
        RAISE EXCEPTION 'Queue "%" does not exist. Create it first using pgmq.create()', queue_name
            USING HINT = 'pgmq.list_queues() has the queues.';
    END IF;
    PERFORM pgmq.disable_notify_insert(queue_name);
    INSERT INTO pgmq.notify_insert_throttle AS t (queue_name, throttle_interval_ms)
    VALUES (enable_notify_insert.queue_name, enable_notify_insert.throttle_interval_ms);
    -- A constraint trigger, because those fire row by row at the end of the statement and can be deferred.
    EXECUTE format(
        'CREATE CONSTRAINT TRIGGER trigger_notify_queue_insert_listeners AFTER INSERT ON enough.%I '
        'DEFERRABLE FOR EACH ROW EXECUTE FUNCTION pgmq.notify_queue_listeners(%L, %L)',
        'q_' || pgmq._engine_name(queue_name), queue_name, live);
END $$;
COMMENT ON FUNCTION pgmq.enable_notify_insert IS
'Notifies listeners of a queue''s inserts, at most once in so many milliseconds; 0 notifies of each.';

CREATE FUNCTION pgmq.update_notify_insert(queue_name text, throttle_interval_ms integer) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgmq._require_interval(
        throttle_interval_ms, format('throttle_interval_ms must be non-negative, got: %s', throttle_interval_ms));
    PERFORM pgmq._require_listed(queue_name);
    UPDATE pgmq.notify_insert_throttle AS t
       SET throttle_interval_ms = update_notify_insert.throttle_interval_ms, last_notified_at = to_timestamp(0)
     WHERE t.queue_name = update_notify_insert.queue_name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'Queue "%" does not have notify_insert enabled. Enable it first using pgmq.enable_notify_insert()', queue_name
            USING HINT = 'pgmq.list_notify_insert_throttles() has the queues that notify.';
    END IF;
END $$;
COMMENT ON FUNCTION pgmq.update_notify_insert IS 'Changes how often a queue notifies its listeners.';

CREATE FUNCTION pgmq.list_notify_insert_throttles()
RETURNS TABLE (queue_name text, throttle_interval_ms integer, last_notified_at timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY
        SELECT t.queue_name::text, t.throttle_interval_ms, t.last_notified_at FROM pgmq.notify_insert_throttle AS t
         ORDER BY t.queue_name;
END $$;
COMMENT ON FUNCTION pgmq.list_notify_insert_throttles IS 'Lists the queues that notify their listeners.';

-- Messages finished, or given another time; how queues stand.

CREATE FUNCTION pgmq.delete(queue_name text, msg_id bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN msg_id IS NOT NULL AND enough.queue_delete(pgmq._queue(queue_name), msg_id);
END $$;
COMMENT ON FUNCTION pgmq.delete(text, bigint) IS 'Deletes a message. Returns whether there was one.';

CREATE FUNCTION pgmq.delete(queue_name text, msg_ids bigint[]) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    queue CONSTANT text := pgmq._queue(queue_name);
    numbers CONSTANT bigint[] := pg_catalog.array_remove(msg_ids, NULL);
BEGIN
    FOR start IN 1 .. coalesce(pg_catalog.cardinality(numbers), 0) BY 10000 LOOP
        RETURN QUERY SELECT * FROM enough.queue_delete_batch(queue, numbers[start : start OPERATOR(pg_catalog.+) 9999]);
    END LOOP;
END $$;
COMMENT ON FUNCTION pgmq.delete(text, bigint[]) IS 'Deletes messages. Returns the msg_ids of those that were there.';

CREATE FUNCTION pgmq.archive(queue_name text, msg_id bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN msg_id IS NOT NULL AND enough.queue_archive(pgmq._queue(queue_name), msg_id);
END $$;
COMMENT ON FUNCTION pgmq.archive(text, bigint) IS 'Moves a message to the archive. Returns whether there was one.';

CREATE FUNCTION pgmq.archive(queue_name text, msg_ids bigint[]) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    queue CONSTANT text := pgmq._queue(queue_name);
    numbers CONSTANT bigint[] := pg_catalog.array_remove(msg_ids, NULL);
BEGIN
    FOR start IN 1 .. coalesce(pg_catalog.cardinality(numbers), 0) BY 10000 LOOP
        RETURN QUERY SELECT * FROM enough.queue_archive_batch(queue, numbers[start : start OPERATOR(pg_catalog.+) 9999]);
    END LOOP;
END $$;
COMMENT ON FUNCTION pgmq.archive(text, bigint[]) IS 'Moves messages to the archive. Returns the msg_ids of those that were there.';

CREATE FUNCTION pgmq.set_vt(queue_name text, msg_ids bigint[], vt timestamptz) RETURNS SETOF pgmq.message_record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp ROWS 10 AS $$
DECLARE
    queue CONSTANT text := pgmq._queue(queue_name);
    numbers CONSTANT bigint[] := array_remove(msg_ids, NULL);
    changed bigint[];
BEGIN
    IF vt IS NULL THEN
        RAISE not_null_violation USING MESSAGE = 'argument "vt" must not be NULL', HINT = 'Pass a number of seconds, or a time.';
    END IF;
    FOR start IN 1 .. coalesce(cardinality(numbers), 0) BY 10000 LOOP
        changed := ARRAY(SELECT * FROM enough.queue_reschedule(queue, numbers[start : start + 9999], vt));
        RETURN QUERY EXECUTE format(
            'SELECT m.msg_id, m.attempts, m.enqueued_at, NULL::timestamptz, $2, m.message, m.headers '
              'FROM enough.%I AS m WHERE m.msg_id = ANY ($1) ORDER BY m.msg_id', 'q_' || queue)
            USING changed, vt;
    END LOOP;
END $$;
COMMENT ON FUNCTION pgmq.set_vt(text, bigint[], timestamptz) IS
'Makes messages invisible until vt, or visible at once. Returns those that were there.';

CREATE FUNCTION pgmq.set_vt(queue_name text, msg_id bigint, vt timestamptz) RETURNS SETOF pgmq.message_record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp ROWS 1 AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgmq.set_vt(queue_name, ARRAY[msg_id], vt);
END $$;
COMMENT ON FUNCTION pgmq.set_vt(text, bigint, timestamptz) IS
'Makes a message invisible until vt, or visible at once. Returns it, where it is there.';

CREATE FUNCTION pgmq.set_vt(queue_name text, msg_id bigint, vt integer) RETURNS SETOF pgmq.message_record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp ROWS 1 AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgmq.set_vt(queue_name, ARRAY[msg_id], clock_timestamp() + make_interval(secs => vt));
END $$;
COMMENT ON FUNCTION pgmq.set_vt(text, bigint, integer) IS
'Makes a message invisible for vt seconds; 0 makes it visible at once. Returns it, where it is there.';

CREATE FUNCTION pgmq.set_vt(queue_name text, msg_ids bigint[], vt integer) RETURNS SETOF pgmq.message_record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp ROWS 10 AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgmq.set_vt(queue_name, msg_ids, clock_timestamp() + make_interval(secs => vt));
END $$;
COMMENT ON FUNCTION pgmq.set_vt(text, bigint[], integer) IS
'Makes messages invisible for vt seconds; 0 makes them visible at once. Returns those that were there.';

CREATE FUNCTION pgmq.metrics(queue_name text) RETURNS pgmq.metrics_result
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    queue CONSTANT text := pgmq._queue(queue_name);
    result pgmq.metrics_result;
BEGIN
    EXECUTE format(
        'SELECT $2, s.ready + s.leased + s.delayed, '
               'extract(epoch FROM now() - (SELECT m.enqueued_at FROM enough.%1$I AS m ORDER BY m.msg_id DESC LIMIT 1))::integer, '
               'extract(epoch FROM now() - (SELECT m.enqueued_at FROM enough.%1$I AS m ORDER BY m.msg_id LIMIT 1))::integer, '
               'CASE WHEN n.is_called THEN n.last_value ELSE 0 END, now(), s.ready, NULL::bigint '
          'FROM enough.queue_stats($1) AS s, enough.%2$I AS n',
        'q_' || queue, 's_' || queue)
        INTO result USING queue, queue_name;
    RETURN result;
END $$;
COMMENT ON FUNCTION pgmq.metrics IS
'How many messages a queue holds, how many of them are visible, how old the newest and the oldest are, and how many were ever sent. Costs the same however many there are.';

CREATE FUNCTION pgmq.metrics_all() RETURNS SETOF pgmq.metrics_result
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    one text;
BEGIN
    FOR one IN SELECT m.queue_name FROM pgmq.meta AS m LOOP
        RETURN NEXT pgmq.metrics(one);
    END LOOP;
END $$;
COMMENT ON FUNCTION pgmq.metrics_all IS 'pgmq.metrics() of every queue.';

-- Partitions. A queue of pg_enough doesn't grow with what has passed through it.

CREATE FUNCTION pgmq._no_partitions() RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE feature_not_supported USING MESSAGE = 'partitioned queues are not supported',
        HINT = 'Use pgmq.create(): what is read leaves no dead rows behind. An archive is kept for a time by enough.queue_alter(queue, archive_for => ''30 days'').';
END $$;

CREATE FUNCTION pgmq.create_partitioned(
    queue_name text, partition_interval text DEFAULT '10000', retention_interval text DEFAULT '100000', premake integer DEFAULT 4
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgmq.validate_queue_name(queue_name);
    PERFORM pgmq._no_partitions();
END $$;
COMMENT ON FUNCTION pgmq.create_partitioned IS 'Fails with 0A000.';

CREATE FUNCTION pgmq.convert_archive_partitioned(
    table_name text, partition_interval text DEFAULT '10000', retention_interval text DEFAULT '100000',
    leading_partition integer DEFAULT 10
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgmq._no_partitions();
END $$;
COMMENT ON FUNCTION pgmq.convert_archive_partitioned IS 'Fails with 0A000.';

CREATE FUNCTION pgmq._get_partition_col(partition_interval text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN partition_interval OPERATOR(pg_catalog.~) '^\s*[-+]?\d+\s*$' THEN 'msg_id' ELSE 'enqueued_at' END
$$;
COMMENT ON FUNCTION pgmq._get_partition_col IS 'The column by which pgmq would partition.';

CREATE FUNCTION pgmq._get_pg_partman_schema() RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgmq._no_partitions();
END $$;
COMMENT ON FUNCTION pgmq._get_pg_partman_schema IS 'Fails with 0A000.';

CREATE FUNCTION pgmq._get_pg_partman_major_version() RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgmq._no_partitions();
END $$;
COMMENT ON FUNCTION pgmq._get_pg_partman_major_version IS 'Fails with 0A000.';

CREATE FUNCTION pgmq._ensure_pg_partman_installed() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgmq._no_partitions();
END $$;
COMMENT ON FUNCTION pgmq._ensure_pg_partman_installed IS 'Fails with 0A000.';

-- Sending.

CREATE FUNCTION pgmq.send(queue_name text, msg jsonb, headers jsonb, delay timestamptz) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp ROWS 1 AS $$
BEGIN
    RETURN NEXT enough.queue_send(pgmq._queue(queue_name), msg, headers => headers, deliver_at => delay);
END $$;
COMMENT ON FUNCTION pgmq.send(text, jsonb, jsonb, timestamptz) IS
'Sends a message that is invisible until delay. Returns its msg_id.';

CREATE FUNCTION pgmq.send(queue_name text, msg jsonb) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp ROWS 1 AS $$
BEGIN
    RETURN NEXT enough.queue_send(pgmq._queue(queue_name), msg);
END $$;
COMMENT ON FUNCTION pgmq.send(text, jsonb) IS 'Sends a message. Returns its msg_id.';

CREATE FUNCTION pgmq.send(queue_name text, msg jsonb, headers jsonb) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp ROWS 1 AS $$
BEGIN
    RETURN NEXT enough.queue_send(pgmq._queue(queue_name), msg, headers => headers);
END $$;
COMMENT ON FUNCTION pgmq.send(text, jsonb, jsonb) IS 'Sends a message with headers. Returns its msg_id.';

CREATE FUNCTION pgmq.send(queue_name text, msg jsonb, delay integer) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp ROWS 1 AS $$
BEGIN
    RETURN NEXT enough.queue_send(pgmq._queue(queue_name), msg, make_interval(secs => greatest(delay, 0)));
END $$;
COMMENT ON FUNCTION pgmq.send(text, jsonb, integer) IS 'Sends a message that is invisible for delay seconds. Returns its msg_id.';

CREATE FUNCTION pgmq.send(queue_name text, msg jsonb, delay timestamptz) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp ROWS 1 AS $$
BEGIN
    RETURN NEXT enough.queue_send(pgmq._queue(queue_name), msg, deliver_at => delay);
END $$;
COMMENT ON FUNCTION pgmq.send(text, jsonb, timestamptz) IS 'Sends a message that is invisible until delay. Returns its msg_id.';

CREATE FUNCTION pgmq.send(queue_name text, msg jsonb, headers jsonb, delay integer) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp ROWS 1 AS $$
BEGIN
    RETURN NEXT enough.queue_send(
        pgmq._queue(queue_name), msg, make_interval(secs => greatest(delay, 0)), headers => headers);
END $$;
COMMENT ON FUNCTION pgmq.send(text, jsonb, jsonb, integer) IS
'Sends a message with headers that is invisible for delay seconds. Returns its msg_id.';

CREATE FUNCTION pgmq._validate_batch_params(msgs jsonb[], headers jsonb[]) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF coalesce(cardinality(msgs), 0) = 0 THEN
        RAISE EXCEPTION 'msgs cannot be NULL or empty' USING HINT = 'Pass at least one message.';
    ELSIF cardinality(headers) <> cardinality(msgs) THEN
        RAISE EXCEPTION 'headers array length (%) must match msgs array length (%)', cardinality(headers), cardinality(msgs)
            USING HINT = 'Pass NULL in place of headers that a message has not got.';
    END IF;
END $$;
COMMENT ON FUNCTION pgmq._validate_batch_params IS 'Fails where a batch is empty, or has another number of headers than of messages.';

CREATE FUNCTION pgmq._send_batch(queue_name text, msgs jsonb[], headers jsonb[], delay timestamptz) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    queue CONSTANT text := pgmq._queue(queue_name);
BEGIN
    -- pg_enough takes ten thousand at a time.
    FOR start IN 1 .. coalesce(cardinality(msgs), 0) BY 10000 LOOP
        RETURN QUERY SELECT * FROM enough.queue_send_batch(
            queue, msgs[start : start + 9999], headers => (nullif(headers, '{}'))[start : start + 9999], deliver_at => delay);
    END LOOP;
END $$;
COMMENT ON FUNCTION pgmq._send_batch IS 'What send_batch() does once its arguments are checked.';

CREATE FUNCTION pgmq.send_batch(queue_name text, msgs jsonb[], headers jsonb[], delay timestamptz) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgmq._validate_batch_params(msgs, headers);
    RETURN QUERY SELECT * FROM pgmq._send_batch(queue_name, msgs, headers, delay);
END $$;
COMMENT ON FUNCTION pgmq.send_batch(text, jsonb[], jsonb[], timestamptz) IS
'Sends messages that are invisible until delay. Returns their msg_ids in the order of the messages.';

CREATE FUNCTION pgmq.send_batch(queue_name text, msgs jsonb[]) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgmq.send_batch(queue_name, msgs, NULL, NULL::timestamptz);
END $$;
COMMENT ON FUNCTION pgmq.send_batch(text, jsonb[]) IS 'Sends messages. Returns their msg_ids in the order of the messages.';

CREATE FUNCTION pgmq.send_batch(queue_name text, msgs jsonb[], headers jsonb[]) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgmq.send_batch(queue_name, msgs, headers, NULL::timestamptz);
END $$;
COMMENT ON FUNCTION pgmq.send_batch(text, jsonb[], jsonb[]) IS
'Sends messages with headers, one a message. Returns their msg_ids in the order of the messages.';

CREATE FUNCTION pgmq.send_batch(queue_name text, msgs jsonb[], delay integer) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgmq.send_batch(queue_name, msgs, NULL, clock_timestamp() + make_interval(secs => delay));
END $$;
COMMENT ON FUNCTION pgmq.send_batch(text, jsonb[], integer) IS
'Sends messages that are invisible for delay seconds. Returns their msg_ids in the order of the messages.';

CREATE FUNCTION pgmq.send_batch(queue_name text, msgs jsonb[], delay timestamptz) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgmq.send_batch(queue_name, msgs, NULL, delay);
END $$;
COMMENT ON FUNCTION pgmq.send_batch(text, jsonb[], timestamptz) IS
'Sends messages that are invisible until delay. Returns their msg_ids in the order of the messages.';

CREATE FUNCTION pgmq.send_batch(queue_name text, msgs jsonb[], headers jsonb[], delay integer) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgmq.send_batch(
        queue_name, msgs, headers, clock_timestamp() + make_interval(secs => delay));
END $$;
COMMENT ON FUNCTION pgmq.send_batch(text, jsonb[], jsonb[], integer) IS
'Sends messages with headers, one a message, that are invisible for delay seconds. Returns their msg_ids in the order of the messages.';

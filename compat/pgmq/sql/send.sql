-- Sending.

CREATE FUNCTION pgmq.send(queue_name text, msg jsonb, headers jsonb, delay timestamptz) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE ROWS 1 AS $$
BEGIN
    RETURN NEXT enough.queue_send(pgmq._queue(queue_name), msg, headers => headers, deliver_at => delay);
END $$;
COMMENT ON FUNCTION pgmq.send(text, jsonb, jsonb, timestamptz) IS
'Sends a message that is invisible until delay. Returns its msg_id.';

CREATE FUNCTION pgmq.send(queue_name text, msg jsonb) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE ROWS 1 AS $$
BEGIN
    RETURN NEXT enough.queue_send(pgmq._queue(queue_name), msg);
END $$;
COMMENT ON FUNCTION pgmq.send(text, jsonb) IS 'Sends a message. Returns its msg_id.';

CREATE FUNCTION pgmq.send(queue_name text, msg jsonb, headers jsonb) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE ROWS 1 AS $$
BEGIN
    RETURN NEXT enough.queue_send(pgmq._queue(queue_name), msg, headers => headers);
END $$;
COMMENT ON FUNCTION pgmq.send(text, jsonb, jsonb) IS 'Sends a message with headers. Returns its msg_id.';

CREATE FUNCTION pgmq.send(queue_name text, msg jsonb, delay integer) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE ROWS 1 AS $$
BEGIN
    RETURN NEXT enough.queue_send(pgmq._queue(queue_name), msg, pg_catalog.make_interval(secs => greatest(delay, 0)));
END $$;
COMMENT ON FUNCTION pgmq.send(text, jsonb, integer) IS 'Sends a message that is invisible for delay seconds. Returns its msg_id.';

CREATE FUNCTION pgmq.send(queue_name text, msg jsonb, delay timestamptz) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE ROWS 1 AS $$
BEGIN
    RETURN NEXT enough.queue_send(pgmq._queue(queue_name), msg, deliver_at => delay);
END $$;
COMMENT ON FUNCTION pgmq.send(text, jsonb, timestamptz) IS 'Sends a message that is invisible until delay. Returns its msg_id.';

CREATE FUNCTION pgmq.send(queue_name text, msg jsonb, headers jsonb, delay integer) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE ROWS 1 AS $$
BEGIN
    RETURN NEXT enough.queue_send(
        pgmq._queue(queue_name), msg, pg_catalog.make_interval(secs => greatest(delay, 0)), headers => headers);
END $$;
COMMENT ON FUNCTION pgmq.send(text, jsonb, jsonb, integer) IS
'Sends a message with headers that is invisible for delay seconds. Returns its msg_id.';

CREATE FUNCTION pgmq._validate_batch_params(msgs jsonb[], headers jsonb[]) RETURNS void
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF coalesce(pg_catalog.cardinality(msgs), 0) OPERATOR(pg_catalog.=) 0 THEN
        RAISE EXCEPTION 'msgs cannot be NULL or empty' USING HINT = 'Pass at least one message.';
    ELSIF pg_catalog.cardinality(headers) OPERATOR(pg_catalog.<>) pg_catalog.cardinality(msgs) THEN
        RAISE EXCEPTION 'headers array length (%) must match msgs array length (%)',
            pg_catalog.cardinality(headers), pg_catalog.cardinality(msgs)
            USING HINT = 'Pass NULL in place of headers that a message has not got.';
    END IF;
END $$;
COMMENT ON FUNCTION pgmq._validate_batch_params IS 'Fails where a batch is empty, or has another number of headers than of messages.';

CREATE FUNCTION pgmq._send_batch(queue_name text, msgs jsonb[], headers jsonb[], delay timestamptz) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    queue CONSTANT text := pgmq._queue(queue_name);
BEGIN
    -- pg_enough takes ten thousand at a time.
    FOR start IN 1 .. coalesce(pg_catalog.cardinality(msgs), 0) BY 10000 LOOP
        RETURN QUERY SELECT * FROM enough.queue_send_batch(
            queue, msgs[start : start OPERATOR(pg_catalog.+) 9999],
            headers => (CASE WHEN pg_catalog.cardinality(headers) OPERATOR(pg_catalog.>) 0 THEN headers END)
                [start : start OPERATOR(pg_catalog.+) 9999], deliver_at => delay);
    END LOOP;
END $$;
COMMENT ON FUNCTION pgmq._send_batch IS 'What send_batch() does once its arguments are checked.';

CREATE FUNCTION pgmq.send_batch(queue_name text, msgs jsonb[], headers jsonb[], delay timestamptz) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pgmq._validate_batch_params(msgs, headers);
    IF pg_catalog.cardinality(msgs) OPERATOR(pg_catalog.>) 10000 THEN
        RETURN QUERY SELECT * FROM pgmq._send_batch(queue_name, msgs, headers, delay);
        RETURN;
    END IF;
    -- Here and not in a function of their own: each level of functions copies what the one below returns.
    RETURN QUERY SELECT * FROM enough.queue_send_batch(
        pgmq._queue(queue_name), msgs,
        headers => CASE WHEN pg_catalog.cardinality(headers) OPERATOR(pg_catalog.>) 0 THEN headers END, deliver_at => delay);
END $$;
COMMENT ON FUNCTION pgmq.send_batch(text, jsonb[], jsonb[], timestamptz) IS
'Sends messages that are invisible until delay. Returns their msg_ids in the order of the messages.';

CREATE FUNCTION pgmq.send_batch(queue_name text, msgs jsonb[]) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF pg_catalog.cardinality(msgs) OPERATOR(pg_catalog.>) 0 AND pg_catalog.cardinality(msgs) OPERATOR(pg_catalog.<=) 10000 THEN
        RETURN QUERY SELECT * FROM enough.queue_send_batch(pgmq._queue(queue_name), msgs);
        RETURN;
    END IF;
    RETURN QUERY SELECT * FROM pgmq.send_batch(queue_name, msgs, NULL, NULL::timestamptz);
END $$;
COMMENT ON FUNCTION pgmq.send_batch(text, jsonb[]) IS 'Sends messages. Returns their msg_ids in the order of the messages.';

CREATE FUNCTION pgmq.send_batch(queue_name text, msgs jsonb[], headers jsonb[]) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgmq.send_batch(queue_name, msgs, headers, NULL::timestamptz);
END $$;
COMMENT ON FUNCTION pgmq.send_batch(text, jsonb[], jsonb[]) IS
'Sends messages with headers, one a message. Returns their msg_ids in the order of the messages.';

CREATE FUNCTION pgmq.send_batch(queue_name text, msgs jsonb[], delay integer) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgmq.send_batch(queue_name, msgs, NULL, pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => delay));
END $$;
COMMENT ON FUNCTION pgmq.send_batch(text, jsonb[], integer) IS
'Sends messages that are invisible for delay seconds. Returns their msg_ids in the order of the messages.';

CREATE FUNCTION pgmq.send_batch(queue_name text, msgs jsonb[], delay timestamptz) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgmq.send_batch(queue_name, msgs, NULL, delay);
END $$;
COMMENT ON FUNCTION pgmq.send_batch(text, jsonb[], timestamptz) IS
'Sends messages that are invisible until delay. Returns their msg_ids in the order of the messages.';

CREATE FUNCTION pgmq.send_batch(queue_name text, msgs jsonb[], headers jsonb[], delay integer) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgmq.send_batch(
        queue_name, msgs, headers, pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => delay));
END $$;
COMMENT ON FUNCTION pgmq.send_batch(text, jsonb[], jsonb[], integer) IS
'Sends messages with headers, one a message, that are invisible for delay seconds. Returns their msg_ids in the order of the messages.';

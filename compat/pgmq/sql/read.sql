-- Reading. Like pgmq's, a read also gets what its own transaction has sent: pg_enough delivers that only once it is
-- committed, so it is asked for by itself.

-- Messages by their numbers: those that are ready, or, where this transaction has written them, due.
CREATE FUNCTION pgmq._read_these(queue text, msg_ids bigint[], lasting interval) RETURNS SETOF pgmq.message_record
LANGUAGE plpgsql VOLATILE ROWS 10 AS $$
DECLARE
    got bigint;
BEGIN
    RETURN QUERY
        SELECT m.msg_id, m.attempts, m.enqueued_at, m.leased_until OPERATOR(pg_catalog.-) lasting, m.leased_until, m.message, m.headers
          FROM enough.queue_read_these(queue, msg_ids, lasting) AS m;
    GET DIAGNOSTICS got = ROW_COUNT;
    IF got OPERATOR(pg_catalog.<) pg_catalog.cardinality(msg_ids) THEN
        RETURN QUERY
            SELECT m.msg_id, m.attempts, m.enqueued_at, m.leased_until OPERATOR(pg_catalog.-) lasting, m.leased_until, m.message, m.headers
              FROM enough.queue_read_own(queue, pg_catalog.cardinality(msg_ids), lasting, msg_ids) AS m;
    END IF;
END $$;

-- How many messages a read may return; NULL is all there are.
CREATE FUNCTION pgmq._quantity(qty integer) RETURNS integer
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF qty OPERATOR(pg_catalog.<) 0 THEN
        RAISE invalid_row_count_in_limit_clause USING MESSAGE = 'argument "qty" must not be negative', HINT = 'Pass 1 or more.';
    END IF;
    RETURN coalesce(qty, 2147483647);
END $$;

-- The group of a message, by its headers.
CREATE FUNCTION pgmq._group_of(headers jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(headers OPERATOR(pg_catalog.->>) 'x-pgmq-group', '_default_fifo_group')
$$;

-- The first visible messages in the order of their numbers, behind a number: those that contain something, those of a group.
-- NULL says nothing.
CREATE FUNCTION pgmq._read_where(
    queue text, lasting interval, qty integer, conditional jsonb, group_name text DEFAULT NULL,
    behind bigint DEFAULT -9223372036854775808
) RETURNS SETOF pgmq.message_record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
ROWS 10 AS $$
DECLARE
    remaining integer := qty;
    after bigint := behind;
    candidates bigint[];
    got bigint;
BEGIN
    WHILE remaining > 0 LOOP
        EXECUTE format(
            'SELECT array_agg(c.msg_id), max(c.msg_id) FROM ('
                'SELECT m.msg_id FROM enough.%I AS m '
                 'WHERE m.msg_id > $1 AND ($2 IS NULL OR m.message @> $2) AND ($3 IS NULL OR pgmq._group_of(m.headers) = $3) '
                   'AND (m.deliver_at IS NULL OR m.deliver_at <= clock_timestamp()) ORDER BY m.msg_id LIMIT $4) AS c',
            'q_' || queue)
            INTO candidates, after USING after, conditional, group_name, least(remaining, 10000);
        EXIT WHEN candidates IS NULL;
        RETURN QUERY SELECT * FROM pgmq._read_these(queue, candidates, lasting);
        GET DIAGNOSTICS got = ROW_COUNT;
        remaining := remaining - got::integer;
    END LOOP;
END $$;

CREATE FUNCTION pgmq.read(queue_name text, vt integer, qty integer, conditional jsonb DEFAULT '{}')
RETURNS SETOF pgmq.message_record
LANGUAGE plpgsql VOLATILE ROWS 10 AS $$
DECLARE
    queue CONSTANT text := pgmq._queue(queue_name);
    lasting CONSTANT interval := pgmq._lease(vt);
    remaining integer := pgmq._quantity(qty);
    got integer;
BEGIN
    IF conditional OPERATOR(pg_catalog.<>) '{}' THEN
        RETURN QUERY SELECT * FROM pgmq._read_where(queue, lasting, remaining, conditional);
        RETURN;
    END IF;
    -- Here and not in a function of their own: a level of functions costs more than the read.
    WHILE remaining OPERATOR(pg_catalog.>) 0 LOOP
        RETURN QUERY
            SELECT m.msg_id, m.attempts, m.enqueued_at, m.leased_until OPERATOR(pg_catalog.-) lasting, m.leased_until, m.message, m.headers
              FROM enough.queue_read(queue, least(remaining, 10000), lasting) AS m;
        GET DIAGNOSTICS got = ROW_COUNT;
        remaining := remaining OPERATOR(pg_catalog.-) got;
        EXIT WHEN got OPERATOR(pg_catalog.<) 10000;
        -- What is visible again at once must not be read again by this call.
        IF lasting OPERATOR(pg_catalog.=) '0' THEN
            RETURN;
        END IF;
    END LOOP;
    IF remaining OPERATOR(pg_catalog.>) 0 THEN
        RETURN QUERY
            SELECT m.msg_id, m.attempts, m.enqueued_at, m.leased_until OPERATOR(pg_catalog.-) lasting, m.leased_until, m.message, m.headers
              FROM enough.queue_read_own(queue, least(remaining, 10000), lasting) AS m;
    END IF;
END $$;
COMMENT ON FUNCTION pgmq.read IS
'Reads up to qty visible messages, or those that contain conditional, and makes them invisible for vt seconds.';

CREATE FUNCTION pgmq.read_with_poll(
    queue_name text,
    vt integer,
    qty integer,
    max_poll_seconds integer DEFAULT 5,
    poll_interval_ms integer DEFAULT 100,
    conditional jsonb DEFAULT '{}'
) RETURNS SETOF pgmq.message_record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp ROWS 10 AS $$
DECLARE
    queue CONSTANT text := pgmq._queue(queue_name);
    lasting CONSTANT interval := pgmq._lease(vt);
    most CONSTANT integer := pgmq._quantity(qty);
    ends CONSTANT timestamptz := clock_timestamp() + make_interval(secs => coalesce(max_poll_seconds, 5));
BEGIN
    WHILE clock_timestamp() < ends LOOP
        IF conditional <> '{}' OR most = 0 THEN
            RETURN QUERY SELECT * FROM pgmq._read_where(queue, lasting, most, conditional);
            EXIT WHEN FOUND;
            PERFORM pg_sleep(coalesce(poll_interval_ms, 100)::numeric / 1000);
        ELSE
            RETURN QUERY SELECT * FROM pgmq.read(queue_name, vt, most);
            EXIT WHEN FOUND;
            RETURN QUERY
                SELECT m.msg_id, m.attempts, m.enqueued_at, m.leased_until - lasting, m.leased_until, m.message, m.headers
                  FROM enough.queue_read(
                      queue, least(most, 10000), lasting, least(greatest(ends - clock_timestamp(), '0'), '1 hour')) AS m;
            EXIT WHEN FOUND;
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION pgmq.read_with_poll IS
'Reads as pgmq.read() does, and waits for the first message, up to max_poll_seconds. It is woken by a commit; only with a condition it looks every poll_interval_ms.';

CREATE FUNCTION pgmq.pop(queue_name text, qty integer DEFAULT 1) RETURNS SETOF pgmq.message_record
LANGUAGE plpgsql VOLATILE ROWS 10 AS $$
DECLARE
    queue CONSTANT text := pgmq._queue(queue_name);
    remaining integer := pgmq._quantity(qty);
    got integer;
BEGIN
    WHILE remaining OPERATOR(pg_catalog.>) 0 LOOP
        RETURN QUERY
            SELECT m.msg_id, m.attempts OPERATOR(pg_catalog.-) 1, m.enqueued_at, NULL::timestamptz, m.enqueued_at, m.message, m.headers
              FROM enough.queue_pop(queue, least(remaining, 10000)) AS m;
        GET DIAGNOSTICS got = ROW_COUNT;
        remaining := remaining OPERATOR(pg_catalog.-) got;
        EXIT WHEN got OPERATOR(pg_catalog.<) 10000;
    END LOOP;
    IF remaining OPERATOR(pg_catalog.>) 0 THEN
        -- What this transaction has written; read it is in the order of the numbers, and deleted.
        RETURN QUERY
            SELECT m.msg_id, m.attempts OPERATOR(pg_catalog.-) 1, m.enqueued_at, NULL::timestamptz, m.enqueued_at, m.message, m.headers
              FROM enough.queue_read_own(queue, least(remaining, 10000), '0') AS m
             WHERE enough.queue_delete(queue, m.msg_id);
    END IF;
END $$;
COMMENT ON FUNCTION pgmq.pop IS 'Reads up to qty visible messages and deletes them.';

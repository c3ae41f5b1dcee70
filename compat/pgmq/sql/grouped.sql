-- Grouped reads. A group is the messages with one value of the header x-pgmq-group; those without it are one, too. Its
-- head is its oldest message, visible or not: while that is leased, nobody else gets any message of the group. So a reader
-- first leases the head, which only one can, and then has the group for itself. The groups are met in the order of
-- their heads, by walking the table in the order of its numbers: no further than it takes to find enough. By the index, whatever is known of
-- the table: without statistics the planner would rather sort all of it.

-- Leases the heads of up to qty groups. Returns them in their order, each with its group. The query is parsed and planned with each call,
-- so it calls no function that would have to be inlined, and what calls it sets no search_path of its own.
CREATE FUNCTION pgmq._read_heads(queue text, lasting interval, qty integer)
RETURNS TABLE (
    group_name text, msg_id bigint, read_ct integer, enqueued_at timestamptz, last_read_at timestamptz, vt timestamptz, message jsonb,
    headers jsonb)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off ROWS 10 AS $$
#variable_conflict use_column
DECLARE
    met text[] := '{}';
    numbers bigint[] := '{}';
    remaining integer := qty;
    heads refcursor;
    one record;
    ended boolean := false;
    got bigint;
BEGIN
    OPEN heads NO SCROLL FOR EXECUTE format(
        'SELECT q.msg_id, coalesce(q.headers->>''x-pgmq-group'', ''_default_fifo_group'') AS group_name '
          'FROM enough.%I AS q ORDER BY q.msg_id', 'q_' || queue);
    WHILE remaining > 0 AND NOT ended LOOP
        FETCH heads INTO one;
        ended := NOT FOUND;
        IF NOT ended THEN
            CONTINUE WHEN one.group_name = ANY (met);
            met := met || one.group_name;
            numbers := numbers || one.msg_id;
            -- The next heads, as many as are wanted.
            CONTINUE WHEN cardinality(numbers) < least(remaining, 1000);
        END IF;
        -- Here and not by _read_these(): each level of functions copies what the one below returns.
        RETURN QUERY
            SELECT met[cardinality(met) - cardinality(numbers) + array_position(numbers, m.msg_id)], m.msg_id, m.attempts,
                   m.enqueued_at, m.leased_until - lasting, m.leased_until, m.message, m.headers
              FROM enough.queue_read_these(queue, numbers, lasting) AS m;
        GET DIAGNOSTICS got = ROW_COUNT;
        remaining := remaining - got::integer;
        IF got < cardinality(numbers) THEN
            RETURN QUERY
                SELECT met[cardinality(met) - cardinality(numbers) + array_position(numbers, m.msg_id)], m.msg_id, m.attempts,
                       m.enqueued_at, m.leased_until - lasting, m.leased_until, m.message, m.headers
                  FROM enough.queue_read_own(queue, cardinality(numbers), lasting, numbers) AS m;
            GET DIAGNOSTICS got = ROW_COUNT;
            remaining := remaining - got::integer;
        END IF;
        numbers := '{}';
    END LOOP;
    CLOSE heads;
END $$;

CREATE FUNCTION pgmq.read_grouped_head(queue_name text, vt integer, qty integer) RETURNS SETOF pgmq.message_record
LANGUAGE plpgsql VOLATILE ROWS 10 AS $$
BEGIN
    RETURN QUERY
        SELECT h.msg_id, h.read_ct, h.enqueued_at, h.last_read_at, h.vt, h.message, h.headers
          FROM pgmq._read_heads(pgmq._queue(queue_name), pgmq._lease(vt), pgmq._quantity(qty)) AS h;
END $$;
COMMENT ON FUNCTION pgmq.read_grouped_head IS
'Reads the oldest message of up to qty groups, of those in which it is visible.';

CREATE FUNCTION pgmq.read_grouped(queue_name text, vt integer, qty integer) RETURNS SETOF pgmq.message_record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off ROWS 10 AS $$
DECLARE
    queue CONSTANT text := pgmq._queue(queue_name);
    lasting CONSTANT interval := pgmq._lease(vt);
    remaining integer := pgmq._quantity(qty);
    heads refcursor;
    met text[] := '{}';
    one record;
    found_head boolean;
    got bigint;
BEGIN
    OPEN heads NO SCROLL FOR EXECUTE format(
        'SELECT q.msg_id, pgmq._group_of(q.headers) AS group_name '
          'FROM enough.%I AS q ORDER BY q.msg_id', 'q_' || queue);
    WHILE remaining > 0 LOOP
        FETCH heads INTO one;
        EXIT WHEN NOT FOUND;
        CONTINUE WHEN one.group_name = ANY (met);
        met := met || one.group_name;
        RETURN QUERY SELECT * FROM pgmq._read_these(queue, ARRAY[one.msg_id], lasting);
        IF FOUND THEN
            remaining := remaining - 1;
            RETURN QUERY SELECT * FROM pgmq._read_where(queue, lasting, remaining, NULL, one.group_name, one.msg_id);
            GET DIAGNOSTICS got = ROW_COUNT;
            remaining := remaining - got::integer;
        END IF;
    END LOOP;
    CLOSE heads;
END $$;
COMMENT ON FUNCTION pgmq.read_grouped IS
'Reads up to qty visible messages, as many as possible of the group whose oldest message is the oldest, then of the next; none of a group whose oldest message is invisible.';

CREATE FUNCTION pgmq.read_grouped_rr(queue_name text, vt integer, qty integer) RETURNS SETOF pgmq.message_record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp ROWS 10 AS $$
DECLARE
    queue CONSTANT text := pgmq._queue(queue_name);
    lasting CONSTANT interval := pgmq._lease(vt);
    most CONSTANT integer := pgmq._quantity(qty);
    one record;
    names text[] := '{}';
    lasts bigint[] := '{}';
    next_one pgmq.message_record;
    left_over integer := most;
    any_of boolean;
BEGIN
    FOR one IN SELECT * FROM pgmq._read_heads(queue, lasting, most) LOOP
        RETURN NEXT (one.msg_id, one.read_ct, one.enqueued_at, one.last_read_at, one.vt, one.message, one.headers)::pgmq.message_record;
        names := names || one.group_name;
        lasts := lasts || one.msg_id;
        left_over := left_over - 1;
    END LOOP;
    -- One more of each, and again.
    any_of := cardinality(names) > 0;
    WHILE left_over > 0 AND any_of LOOP
        any_of := false;
        FOR place IN 1 .. cardinality(names) LOOP
            CONTINUE WHEN lasts[place] IS NULL;
            EXIT WHEN left_over = 0;
            SELECT * INTO next_one FROM pgmq._read_where(queue, lasting, 1, NULL, names[place], lasts[place]);
            lasts[place] := next_one.msg_id;
            CONTINUE WHEN next_one.msg_id IS NULL;
            RETURN NEXT next_one;
            left_over := left_over - 1;
            any_of := true;
        END LOOP;
    END LOOP;
END $$;
COMMENT ON FUNCTION pgmq.read_grouped_rr IS
'Reads up to qty visible messages, first the oldest of each group in which that is visible, then the next of each, and so on.';

-- Calls a grouped read again and again until it answers with a message.
CREATE FUNCTION pgmq._poll(
    reader text, queue_name text, vt integer, qty integer, max_poll_seconds integer, poll_interval_ms integer
) RETURNS SETOF pgmq.message_record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp ROWS 10 AS $$
DECLARE
    ends CONSTANT timestamptz := clock_timestamp() + make_interval(secs => coalesce(max_poll_seconds, 5));
BEGIN
    WHILE clock_timestamp() < ends LOOP
        RETURN QUERY EXECUTE format('SELECT * FROM pgmq.%I($1, $2, $3)', reader) USING queue_name, vt, qty;
        EXIT WHEN FOUND;
        PERFORM pg_sleep(coalesce(poll_interval_ms, 100)::numeric / 1000);
    END LOOP;
END $$;

CREATE FUNCTION pgmq.read_grouped_with_poll(
    queue_name text, vt integer, qty integer, max_poll_seconds integer DEFAULT 5, poll_interval_ms integer DEFAULT 100
) RETURNS SETOF pgmq.message_record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp ROWS 10 AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgmq._poll('read_grouped', queue_name, vt, qty, max_poll_seconds, poll_interval_ms);
END $$;
COMMENT ON FUNCTION pgmq.read_grouped_with_poll IS
'Reads as pgmq.read_grouped() does, and looks again every poll_interval_ms until there is a message, up to max_poll_seconds.';

CREATE FUNCTION pgmq.read_grouped_rr_with_poll(
    queue_name text, vt integer, qty integer, max_poll_seconds integer DEFAULT 5, poll_interval_ms integer DEFAULT 100
) RETURNS SETOF pgmq.message_record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp ROWS 10 AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgmq._poll('read_grouped_rr', queue_name, vt, qty, max_poll_seconds, poll_interval_ms);
END $$;
COMMENT ON FUNCTION pgmq.read_grouped_rr_with_poll IS
'Reads as pgmq.read_grouped_rr() does, and looks again every poll_interval_ms until there is a message, up to max_poll_seconds.';

CREATE FUNCTION pgmq.read_grouped_head_with_poll(
    queue_name text, vt integer, qty integer, max_poll_seconds integer DEFAULT 5, poll_interval_ms integer DEFAULT 100
) RETURNS SETOF pgmq.message_record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp ROWS 10 AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgmq._poll('read_grouped_head', queue_name, vt, qty, max_poll_seconds, poll_interval_ms);
END $$;
COMMENT ON FUNCTION pgmq.read_grouped_head_with_poll IS
'Reads as pgmq.read_grouped_head() does, and looks again every poll_interval_ms until there is a message, up to max_poll_seconds.';

CREATE FUNCTION pgmq._create_fifo_index_if_not_exists(queue_name text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgmq._queue(queue_name);
END $$;
COMMENT ON FUNCTION pgmq._create_fifo_index_if_not_exists IS 'Does nothing: grouped reads need no index.';

CREATE FUNCTION pgmq.create_fifo_index(queue_name text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgmq._queue(queue_name);
END $$;
COMMENT ON FUNCTION pgmq.create_fifo_index IS 'Does nothing, but for a queue that is not there: grouped reads need no index.';

CREATE FUNCTION pgmq.create_fifo_indexes_all() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NULL;
END $$;
COMMENT ON FUNCTION pgmq.create_fifo_indexes_all IS 'Does nothing: grouped reads need no index.';

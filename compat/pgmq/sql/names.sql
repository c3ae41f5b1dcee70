-- Names. A queue of pgmq is known by any spelling; it is the queue of pg_enough that has its name in lower case, where
-- that is a name there, else one that is made of its hash.
--
-- What is called for each message has no SET: to set a search_path and take it back costs more than the rest of a call.
-- Its functions and operators have their schema instead.

CREATE FUNCTION pgmq.format_table_name(queue_name text, prefix text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF queue_name ~ '[$;'']|--' THEN
        RAISE EXCEPTION E'queue name contains invalid characters: $, ;, --, or \\'''
            USING HINT = 'Use letters, digits and underscores.';
    END IF;
    RETURN lower(prefix || '_' || queue_name);
END $$;
COMMENT ON FUNCTION pgmq.format_table_name IS
'The name of a queue''s view in the schema pgmq: q_ for its messages, a_ for its archive.';

CREATE FUNCTION pgmq.validate_queue_name(queue_name text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF length(queue_name) > 47 THEN
        RAISE EXCEPTION 'queue name is too long, maximum length is 47 characters'
            USING HINT = 'Choose a shorter name.';
    END IF;
END $$;
COMMENT ON FUNCTION pgmq.validate_queue_name IS 'Fails where a name is longer than 47 characters.';

-- The queue of pg_enough behind a queue of pgmq, whether or not it is there.
CREATE FUNCTION pgmq._engine_name(queue_name text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    folded CONSTANT text := lower(queue_name);
BEGIN
    IF folded ~ '^[a-z_][a-z0-9_.-]{0,47}$' COLLATE "C" AND NOT starts_with(folded, '_pgmq_') THEN
        RETURN folded;
    END IF;
    RETURN '_pgmq_' || md5(folded);
END $$;

-- The same of one that is there. Every function comes by here.
CREATE FUNCTION pgmq._queue(queue_name text) RETURNS text
LANGUAGE plpgsql STABLE AS $$
BEGIN
    -- A name that is spelled as nearly all are, without what the others need; a count in the pattern would cost four
    -- microseconds.
    IF queue_name OPERATOR(pg_catalog.~) '^[a-z][a-z0-9_]*$' COLLATE pg_catalog."C"
        AND pg_catalog.length(queue_name) OPERATOR(pg_catalog.<) 48
        AND pg_catalog.to_regclass('pgmq.q_' OPERATOR(pg_catalog.||) queue_name) IS NOT NULL
    THEN
        RETURN queue_name;
    END IF;
    RETURN pgmq._queue_by_any_name(queue_name);
END $$;

CREATE FUNCTION pgmq._queue_by_any_name(queue_name text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    seen_as CONSTANT text := pgmq.format_table_name(queue_name, 'q');
BEGIN
    IF queue_name IS NULL THEN
        RAISE null_value_not_allowed USING MESSAGE = 'argument "queue_name" must not be NULL', HINT = 'Pass the name of a queue.';
    ELSIF to_regclass('pgmq.' || quote_ident(seen_as)) IS NULL THEN
        RAISE undefined_table USING MESSAGE = format('relation "pgmq.%s" does not exist', seen_as),
            HINT = format('Create the queue with pgmq.create(%L).', queue_name);
    END IF;
    RETURN pgmq._engine_name(queue_name);
END $$;

-- How long a lease lasts that pgmq was asked for: pg_enough has none of more than 366 days (31,622,400 seconds).
CREATE FUNCTION pgmq._lease(vt integer) RETURNS interval
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF vt IS NULL THEN
        RAISE not_null_violation USING MESSAGE = 'argument "vt" must not be NULL', HINT = 'Pass a number of seconds.';
    END IF;
    RETURN pg_catalog.make_interval(secs => least(greatest(vt, 0), 31622400));
END $$;

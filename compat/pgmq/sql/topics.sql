-- Topics: queues are bound to patterns, and what is sent to a topic goes to each queue that a pattern of it matches, once.

-- What keys and patterns have in common. Everything that is said of one is said with its name and its value.
CREATE FUNCTION pgmq._validate_words(what text, given text, alphabet text, allowed text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    problem CONSTANT text := CASE
        WHEN coalesce(given, '') = '' THEN ' cannot be NULL or empty'
        WHEN length(given) > 255 THEN format(' length cannot exceed 255 characters, got %s characters', length(given))
        WHEN given !~ alphabet THEN format(' contains invalid characters. Only %s are allowed. Got: %s', allowed, given)
        WHEN starts_with(given, '.') THEN format(' cannot start with a dot. Got: %s', given)
        WHEN right(given, 1) = '.' THEN format(' cannot end with a dot. Got: %s', given)
        WHEN given ~ '\.\.' THEN format(' cannot contain consecutive dots. Got: %s', given)
    END;
BEGIN
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION '%', what || problem USING HINT = 'Separate words by single dots, as in orders.eu.paid.';
    END IF;
END $$;

CREATE FUNCTION pgmq.validate_routing_key(routing_key text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgmq._validate_words(
        'routing_key', routing_key, '^[A-Za-z0-9._-]+$', 'alphanumeric, dots, hyphens, and underscores');
    RETURN true;
END $$;
COMMENT ON FUNCTION pgmq.validate_routing_key IS 'Returns true, or fails where a text is no topic.';

CREATE FUNCTION pgmq.validate_topic_pattern(pattern text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    problem text;
BEGIN
    PERFORM pgmq._validate_words(
        'pattern', pattern, '^[A-Za-z0-9._*#-]+$', 'alphanumeric, dots, hyphens, underscores, *, and #');
    problem := CASE
        WHEN pattern ~ '\*\*' THEN 'consecutive stars (**). Use # for multi-segment matching'
        WHEN pattern ~ '##' THEN 'consecutive hashes (##). A single # already matches zero or more segments'
        WHEN pattern ~ '\*#|#\*' THEN 'adjacent wildcards (*# or #*). Separate wildcards with dots'
    END;
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION 'pattern cannot contain %. Got: %', problem, pattern USING HINT = 'A word is a name, a * or a #.';
    END IF;
    RETURN true;
END $$;
COMMENT ON FUNCTION pgmq.validate_topic_pattern IS 'Returns true, or fails where a text is no pattern of topics.';

CREATE FUNCTION pgmq._require_named(what text, given text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF coalesce(given, '') = '' THEN
        RAISE EXCEPTION '% cannot be NULL or empty', what USING HINT = format('Pass a %s.', what);
    END IF;
END $$;

-- Fails where pgmq.meta has no queue of that very name.
CREATE FUNCTION pgmq._require_listed(queue_name text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pgmq.meta AS m WHERE m.queue_name = _require_listed.queue_name) THEN
        RAISE EXCEPTION 'Queue "%" does not exist. Create the queue first using pgmq.create()', queue_name
            USING HINT = 'pgmq.list_queues() has the queues, in the spelling in which they were created.';
    END IF;
END $$;

CREATE FUNCTION pgmq.bind_topic(pattern text, queue_name text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgmq.validate_topic_pattern(pattern);
    PERFORM pgmq._require_named('queue_name', queue_name);
    PERFORM pgmq._require_listed(queue_name);
    INSERT INTO pgmq.topic_bindings AS b (pattern, queue_name) VALUES (bind_topic.pattern, bind_topic.queue_name)
    ON CONFLICT ON CONSTRAINT topic_bindings_unique_pattern_queue DO NOTHING;
END $$;
COMMENT ON FUNCTION pgmq.bind_topic IS
'Lets a queue get what is sent to the topics that a pattern matches: * is one word, # any number of words.';

CREATE FUNCTION pgmq.unbind_topic(pattern text, queue_name text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgmq._require_named('pattern', pattern);
    PERFORM pgmq._require_named('queue_name', queue_name);
    DELETE FROM pgmq.topic_bindings AS b
     WHERE b.pattern = unbind_topic.pattern AND b.queue_name = unbind_topic.queue_name;
    RETURN FOUND;
END $$;
COMMENT ON FUNCTION pgmq.unbind_topic IS 'Ends a binding by that very pattern. Returns whether there was one.';

CREATE FUNCTION pgmq.test_routing(routing_key text) RETURNS TABLE (pattern text, queue_name text, compiled_regex text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgmq.validate_routing_key(routing_key);
    RETURN QUERY
        SELECT b.pattern, b.queue_name, b.compiled_regex FROM pgmq.topic_bindings AS b
         WHERE test_routing.routing_key ~ b.compiled_regex ORDER BY b.pattern;
END $$;
COMMENT ON FUNCTION pgmq.test_routing IS 'The bindings by which a topic''s messages go, and to which queues.';

CREATE FUNCTION pgmq.list_topic_bindings()
RETURNS TABLE (pattern text, queue_name text, bound_at timestamptz, compiled_regex text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY
        SELECT b.pattern, b.queue_name, b.bound_at, b.compiled_regex FROM pgmq.topic_bindings AS b
         ORDER BY b.bound_at DESC, b.pattern, b.queue_name;
END $$;
COMMENT ON FUNCTION pgmq.list_topic_bindings() IS 'Lists all bindings, the latest first.';

CREATE FUNCTION pgmq.list_topic_bindings(queue_name text)
RETURNS TABLE (pattern text, queue_name text, bound_at timestamptz, compiled_regex text)
LANGUAGE sql STABLE AS $$
    SELECT b.pattern, b.queue_name, b.bound_at, b.compiled_regex FROM pgmq.topic_bindings AS b
     WHERE b.queue_name OPERATOR(pg_catalog.=) $1 ORDER BY b.bound_at DESC, b.pattern
$$;
COMMENT ON FUNCTION pgmq.list_topic_bindings(text) IS 'Lists a queue''s bindings, the latest first.';

-- The queues that get what is sent to a topic, in the order of their names.
CREATE FUNCTION pgmq._routes(routing_key text) RETURNS SETOF text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgmq.validate_routing_key(routing_key);
    RETURN QUERY
        SELECT DISTINCT b.queue_name FROM pgmq.topic_bindings AS b
         WHERE _routes.routing_key ~ b.compiled_regex ORDER BY b.queue_name;
END $$;

CREATE FUNCTION pgmq.send_topic(routing_key text, msg jsonb, headers jsonb, delay integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    one text;
    sent integer := 0;
BEGIN
    PERFORM pgmq.validate_routing_key(routing_key);
    IF msg IS NULL THEN
        RAISE EXCEPTION 'msg cannot be NULL' USING HINT = 'Pass a message.';
    ELSIF delay < 0 THEN
        RAISE EXCEPTION 'delay cannot be negative, got: %', delay USING HINT = 'Pass 0 seconds or more.';
    END IF;
    FOR one IN SELECT * FROM pgmq._routes(routing_key) LOOP
        PERFORM pgmq.send(one, msg, headers, delay);
        sent := sent + 1;
    END LOOP;
    RETURN sent;
END $$;
COMMENT ON FUNCTION pgmq.send_topic(text, jsonb, jsonb, integer) IS
'Sends a message to every queue that is bound to its topic. Returns how many those are.';

CREATE FUNCTION pgmq.send_topic(routing_key text, msg jsonb) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN pgmq.send_topic(routing_key, msg, NULL, 0);
END $$;
COMMENT ON FUNCTION pgmq.send_topic(text, jsonb) IS
'Sends a message to every queue that is bound to its topic. Returns how many those are.';

CREATE FUNCTION pgmq.send_topic(routing_key text, msg jsonb, delay integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN pgmq.send_topic(routing_key, msg, NULL, delay);
END $$;
COMMENT ON FUNCTION pgmq.send_topic(text, jsonb, integer) IS
'Sends a message to every queue that is bound to its topic, invisible for delay seconds. Returns how many those are.';

CREATE FUNCTION pgmq.send_batch_topic(routing_key text, msgs jsonb[], headers jsonb[], delay timestamptz)
RETURNS TABLE (queue_name text, msg_id bigint)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    one text;
BEGIN
    PERFORM pgmq.validate_routing_key(routing_key);
    PERFORM pgmq._validate_batch_params(msgs, headers);
    FOR one IN SELECT * FROM pgmq._routes(routing_key) LOOP
        RETURN QUERY SELECT one, s.id FROM pgmq._send_batch(one, msgs, headers, delay) AS s(id);
    END LOOP;
END $$;
COMMENT ON FUNCTION pgmq.send_batch_topic(text, jsonb[], jsonb[], timestamptz) IS
'Sends messages to every queue that is bound to their topic. Returns a row for each message of each queue.';

CREATE FUNCTION pgmq.send_batch_topic(routing_key text, msgs jsonb[]) RETURNS TABLE (queue_name text, msg_id bigint)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgmq.send_batch_topic(routing_key, msgs, NULL, clock_timestamp());
END $$;
COMMENT ON FUNCTION pgmq.send_batch_topic(text, jsonb[]) IS 'The same without headers and delay.';

CREATE FUNCTION pgmq.send_batch_topic(routing_key text, msgs jsonb[], headers jsonb[])
RETURNS TABLE (queue_name text, msg_id bigint)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgmq.send_batch_topic(routing_key, msgs, headers, clock_timestamp());
END $$;
COMMENT ON FUNCTION pgmq.send_batch_topic(text, jsonb[], jsonb[]) IS 'The same without delay.';

CREATE FUNCTION pgmq.send_batch_topic(routing_key text, msgs jsonb[], delay integer)
RETURNS TABLE (queue_name text, msg_id bigint)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgmq.send_batch_topic(
        routing_key, msgs, NULL, clock_timestamp() + make_interval(secs => delay));
END $$;
COMMENT ON FUNCTION pgmq.send_batch_topic(text, jsonb[], integer) IS 'The same without headers; the delay is in seconds.';

CREATE FUNCTION pgmq.send_batch_topic(routing_key text, msgs jsonb[], delay timestamptz)
RETURNS TABLE (queue_name text, msg_id bigint)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgmq.send_batch_topic(routing_key, msgs, NULL, delay);
END $$;
COMMENT ON FUNCTION pgmq.send_batch_topic(text, jsonb[], timestamptz) IS 'The same without headers.';

CREATE FUNCTION pgmq.send_batch_topic(routing_key text, msgs jsonb[], headers jsonb[], delay integer)
RETURNS TABLE (queue_name text, msg_id bigint)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM pgmq.send_batch_topic(
        routing_key, msgs, headers, clock_timestamp() + make_interval(secs => delay));
END $$;
COMMENT ON FUNCTION pgmq.send_batch_topic(text, jsonb[], jsonb[], integer) IS 'The same; the delay is in seconds.';

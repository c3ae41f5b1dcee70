-- Tables as sources: triggers that send what changes in a table. What they have to know is in their arguments, the queue's
-- name and the columns, so that pg_dump has all of it.

-- A role that fires a trigger needs no right on its function, nor on what that does, so it must not be PL/pgSQL, which would. The
-- settings are for the texts of values, which must not depend on the session that writes, and for triggers of the queue's
-- table, which run as the owner of the table that is written.
CREATE FUNCTION enough.queue_send_by_trigger() RETURNS trigger
LANGUAGE c VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET "TimeZone" = 'UTC' SET "IntervalStyle" = 'postgres' SET bytea_output = 'hex'
SET extra_float_digits = 1 SET lc_monetary = 'C'
AS 'MODULE_PATHNAME', 'enough_queue_send_by_trigger';
COMMENT ON FUNCTION enough.queue_send_by_trigger() IS
'Sends the changes that it is told of to the queue that is the trigger''s first argument, with the columns that are the others.
For the triggers that queue_send_on() makes, where the message is described. A role that writes the table needs no right on it. Fails with 42704 where there is no such queue, 42703 where a column is no more, 42501 where the owner of the table may not send to the queue any more.';

CREATE FUNCTION enough._queue_source(tbl regclass, queue text) RETURNS void
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_queue_source';
COMMENT ON FUNCTION enough._queue_source(regclass, text) IS
'Fails where the owner of a table may not send to a queue, which keeps its name until the transaction ends.
For queue_send_on.';

-- The triggers of a table that send to a queue, or to any where that is NULL.
CREATE FUNCTION enough._queue_source_triggers(tbl regclass, queue text)
RETURNS TABLE (name name, target text, columns text[], type smallint, enabled "char", by_table boolean, inherited boolean)
LANGUAGE sql STABLE PARALLEL UNSAFE CALLED ON NULL INPUT SET search_path = pg_catalog, pg_temp AS $$
    SELECT t.tgname, a.parts[1], a.parts[2:], t.tgtype, t.tgenabled, t.tgoldtable IS NOT NULL OR t.tgnewtable IS NOT NULL, t.tgparentid <> 0
    FROM pg_trigger AS t,
         -- Each argument ends with a zero byte.
         LATERAL (SELECT ARRAY(SELECT convert_from(decode(p.part, 'escape'), getdatabaseencoding())
                               FROM unnest(string_to_array(encode(t.tgargs, 'escape'), '\000')) WITH ORDINALITY AS p (part, n)
                               WHERE p.n <= t.tgnargs ORDER BY p.n) AS parts) AS a
    WHERE t.tgrelid = $1 AND t.tgfoid = 'enough.queue_send_by_trigger()'::regprocedure AND ($2 IS NULL OR a.parts[1] = $2)
$$;
COMMENT ON FUNCTION enough._queue_source_triggers(regclass, text) IS
'Lists the triggers of a table that send to a queue.
For queue_send_on and queue_send_off.';

CREATE FUNCTION enough._queue_source_make(tbl regclass, queue text, events text[], columns text[]) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $$
DECLARE
    all_events CONSTANT text[] := '{insert,update,delete}';
    arguments CONSTANT text := (SELECT string_agg(quote_literal(a), ', ' ORDER BY n)
                                FROM unnest(ARRAY[$2] || $4) WITH ORDINALITY AS u (a, n));
    prefix CONSTANT text := 'enough_send_' || $2;
    row_events CONSTANT text := (SELECT string_agg(e, ' OR ') FROM unnest(all_events) AS e WHERE e = ANY ($3));
    has_kin CONSTANT boolean := (SELECT c.relkind = 'p' OR EXISTS (SELECT FROM pg_inherits AS i WHERE c.oid IN (i.inhrelid, i.inhparent))
                                 FROM pg_class AS c WHERE c.oid = $1);
    event text;
    rows text;
BEGIN
    IF 'truncate' = ANY ($3) THEN
        EXECUTE format('CREATE TRIGGER %I AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION enough.queue_send_by_trigger(%s)',
                       prefix || '_t', $1, arguments);
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', $1, prefix || '_t');
    END IF;
    IF has_kin THEN
        -- Its rows may be written by statements on another table, which fire the row triggers of this one alone.
        IF row_events IS NOT NULL THEN
            EXECUTE format('CREATE TRIGGER %I AFTER %s ON %s FOR EACH ROW EXECUTE FUNCTION enough.queue_send_by_trigger(%s)',
                           prefix || '_r', row_events, $1, arguments);
            EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', $1, prefix || '_r');
        END IF;
        RETURN;
    END IF;
    FOREACH event IN ARRAY all_events LOOP
        CONTINUE WHEN event <> ALL ($3);
        rows := CASE event WHEN 'insert' THEN 'NEW TABLE AS new' WHEN 'delete' THEN 'OLD TABLE AS old' ELSE 'OLD TABLE AS old NEW TABLE AS new' END;
        EXECUTE format('CREATE TRIGGER %I AFTER %s ON %s REFERENCING %s FOR EACH STATEMENT EXECUTE FUNCTION enough.queue_send_by_trigger(%s)',
                       prefix || '_' || left(event, 1), event, $1, rows, arguments);
        -- Replication applies rows, and fires row triggers alone. Either these fire or those, by session_replication_role.
        -- That they have transition tables keeps the table from becoming a partition or a child, whose rows statements on
        -- another table write.
        EXECUTE format('CREATE TRIGGER %I AFTER %s ON %s REFERENCING %s FOR EACH ROW EXECUTE FUNCTION enough.queue_send_by_trigger(%s)',
                       prefix || '_r' || left(event, 1), event, $1, rows, arguments);
        EXECUTE format('ALTER TABLE %s ENABLE REPLICA TRIGGER %I', $1, prefix || '_r' || left(event, 1));
    END LOOP;
END $$;
COMMENT ON FUNCTION enough._queue_source_make(regclass, text, text[], text[]) IS
'Makes the triggers of queue_send_on, whose arguments have been checked.
For that and for queue_rename.';

CREATE FUNCTION enough.queue_send_on(tbl regclass, queue text, events text[] DEFAULT '{insert,update,delete}', columns text[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $$
#variable_conflict use_variable
DECLARE
    own_name text := (SELECT c.relname FROM pg_class AS c WHERE c.oid = $1);
    chosen text[] := coalesce($3, '{insert,update,delete}');
    wrong text;
    place bigint;
BEGIN
    IF $1 IS NULL OR $2 IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
            MESSAGE = format('argument "%s" must not be NULL', CASE WHEN $1 IS NULL THEN 'tbl' ELSE 'queue' END),
            HINT = 'Pass the name of a table, and that of a queue.';
    ELSIF own_name IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object',
            MESSAGE = format('table with OID %s does not exist', $1::oid), HINT = 'Pass the name of a table.';
    ELSIF (SELECT n.nspname = 'enough' FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = $1) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('invalid value for argument "tbl": "enough.%s"', own_name),
            HINT = 'It must be a table of another schema: what is sent to a queue is no source of messages.';
    END IF;
    FOR wrong, place IN SELECT e, n FROM unnest(chosen) WITH ORDINALITY AS u (e, n) LOOP
        IF wrong IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
                MESSAGE = format('argument "events[%s]" must not be NULL', place), HINT = 'Leave the element out of the array, or give it a value.';
        ELSIF wrong <> ALL ('{insert,update,delete,truncate}') THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                MESSAGE = format('invalid value for argument "events[%s]": "%s"', place, left(wrong, 63)),
                HINT = 'It must be "insert", "update", "delete" or "truncate".';
        END IF;
    END LOOP;
    IF cardinality(chosen) = 0 OR cardinality($4) = 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('invalid value for argument "%s": an empty array', CASE WHEN cardinality(chosen) = 0 THEN 'events' ELSE 'columns' END),
            HINT = 'It must have an element; enough.queue_send_off() ends what is sent, and NULL stands for all columns.';
    END IF;
    PERFORM enough._queue_source($1, $2);
    IF NOT pg_has_role((SELECT c.relowner FROM pg_class AS c WHERE c.oid = $1), 'USAGE') THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
            MESSAGE = format('permission denied for table "%s"', own_name), HINT = 'Only the owner of the table may do that.';
    END IF;
    -- Before the catalogs are read: any other session that changes the table, or drops it, is done then. What replaces triggers takes the
    -- lock of dropping them at once, so that two sessions never wait for each other.
    EXECUTE format('LOCK TABLE ONLY %s IN %s MODE', $1,
                   CASE WHEN EXISTS (SELECT FROM enough._queue_source_triggers($1, $2)) THEN 'ACCESS EXCLUSIVE' ELSE 'SHARE ROW EXCLUSIVE' END);
    FOR wrong, place IN SELECT c, n FROM unnest($4) WITH ORDINALITY AS u (c, n) LOOP
        IF wrong IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
                MESSAGE = format('argument "columns[%s]" must not be NULL', place), HINT = 'Leave the element out of the array, or give it a value.';
        ELSIF NOT EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = $1 AND a.attname = wrong AND a.attnum > 0 AND NOT a.attisdropped) THEN
            RAISE EXCEPTION USING ERRCODE = 'undefined_column',
                MESSAGE = format('column "%s" of table "%s" does not exist', left(wrong, 63), own_name),
                HINT = 'Name columns of the table as they are in the catalog.';
        END IF;
    END LOOP;
    -- What a partition has from the whole table sends already, and so would the whole table's triggers where a partition has
    -- its own.
    SELECT format('%s', r.relid::regclass) INTO wrong
      FROM (WITH RECURSIVE above (relid) AS (
                SELECT i.inhparent FROM pg_inherits AS i WHERE i.inhrelid = $1
                UNION SELECT i.inhparent FROM pg_inherits AS i JOIN above ON i.inhrelid = above.relid
            ), below (relid) AS (
                SELECT i.inhrelid FROM pg_inherits AS i WHERE i.inhparent = $1 AND (SELECT c.relkind = 'p' FROM pg_class AS c WHERE c.oid = $1)
                UNION SELECT i.inhrelid FROM pg_inherits AS i JOIN below ON i.inhparent = below.relid
            )
            SELECT above.relid, true FROM above UNION ALL SELECT below.relid, false FROM below) AS r (relid, is_above)
     WHERE EXISTS (SELECT FROM enough._queue_source_triggers(r.relid, $2) AS t
                   WHERE NOT t.inherited AND (NOT r.is_above OR t.by_table OR (SELECT c.relkind = 'p' FROM pg_class AS c WHERE c.oid = r.relid)))
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
            MESSAGE = format('changes of table "%s" would be sent to queue "%s" twice, because those of table %s are', own_name, $2, wrong),
            HINT = format('Call enough.queue_send_off(%L, %L) first.', wrong, $2);
    END IF;
    PERFORM enough.queue_send_off($1, $2);
    PERFORM enough._queue_source_make($1, $2, chosen, $4);
END $$;
COMMENT ON FUNCTION enough.queue_send_on(regclass, text, text[], text[]) IS
'Sends every change of a table''s rows to a queue, in the transaction that makes it: a transactional outbox.
events: insert, update, delete, truncate; by default all but the last. columns: which columns of the rows are in the message, and only an UPDATE that changes one of them is sent; NULL: all columns, and every row that an UPDATE touches. A second call for the same table and queue replaces the first.
Returns nothing. A message is an object: event; schema and table, the table''s name at that time; old and new, the row before and after as to_jsonb() has it, null where there is none. It has no priority, delay or key. Texts of values do not depend on the session that writes: times are UTC. Messages of a statement are sent together, in the order of its rows. A TRUNCATE is one message, without rows.
Makes triggers, so it takes the ownership of the table. They send with the rights of the table''s owner, which needs INSERT on the queue''s table; a role that writes the table needs no right on this schema. They follow renames of table and queue, are in a dump, and restoring it sends nothing. A column of columns that is renamed or dropped makes writes fail with 42703 until this is called again. Rows that logical replication applies, those of its first copy included, and those that are written while session_replication_role is replica are sent, too: where a subscriber has the triggers from a copy of the schema, call queue_send_off() there. They run once a statement; once a row where replication applies it and for a partitioned table, a partition, and a table that inherits or is inherited from. Of a partitioned table all partitions'' rows are sent, as the whole table''s, and an UPDATE that moves a row to another partition is a delete and an insert; elsewhere each table sends its own rows. A table that sends cannot become a partition or a child: call queue_send_off() before. Not told are TRUNCATE, ATTACH, DETACH and DROP of a single partition. Virtual generated columns are not in the message.
Fails with 22004 for a NULL table or queue, or a NULL element; 22023 for another event, an empty array, a table of the schema enough; 42704 (no such queue), 42703 (no such column), 42710 where a partition or the whole table sends to the queue already, 42501 where the table is another''s or its owner lacks INSERT on the queue, 42809 for what can have no such trigger, 42P01 where the table is dropped meanwhile, 25006 in a read-only transaction or on a standby.';

CREATE FUNCTION enough.queue_send_off(tbl regclass, queue text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $$
#variable_conflict use_column
DECLARE
    one name;
BEGIN
    IF $1 IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
            MESSAGE = 'argument "tbl" must not be NULL', HINT = 'Pass the name of a table.';
    ELSIF NOT EXISTS (SELECT FROM enough._queue_source_triggers($1, $2) AS t WHERE NOT t.inherited) THEN
        RETURN;
    END IF;
    -- As in queue_send_on().
    EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', $1);
    FOR one IN SELECT t.name FROM enough._queue_source_triggers($1, $2) AS t WHERE NOT t.inherited LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS %I ON %s', one, $1);
    END LOOP;
END $$;
COMMENT ON FUNCTION enough.queue_send_off(regclass, text) IS
'Undoes queue_send_on() for a table and a queue.
queue: NULL for all queues; one that is gone may be named.
Returns nothing, also where there is nothing to undo. What has been sent stays in the queue. What a partition has from the whole table stays.
Fails with 22004 for a NULL table, 42501 for a table that is not the caller''s, 42P01 where the table is dropped meanwhile, 25006 in a read-only transaction or on a standby.';

CREATE FUNCTION enough._queue_source_rename(tbl regclass, old_name text, new_name text) RETURNS void
LANGUAGE plpgsql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $$
DECLARE
    events text[];
    columns text[];
    disabled boolean;
    one name;
BEGIN
    SELECT array_remove(ARRAY[CASE WHEN bit_or(t.type) & 4 > 0 THEN 'insert' END, CASE WHEN bit_or(t.type) & 16 > 0 THEN 'update' END,
                              CASE WHEN bit_or(t.type) & 8 > 0 THEN 'delete' END, CASE WHEN bit_or(t.type) & 32 > 0 THEN 'truncate' END], NULL),
           (SELECT u.columns FROM enough._queue_source_triggers($1, $2) AS u LIMIT 1), bool_or(t.enabled = 'D')
      INTO events, columns, disabled FROM enough._queue_source_triggers($1, $2) AS t WHERE NOT t.inherited;
    PERFORM enough.queue_send_off($1, $2);
    PERFORM enough._queue_source_make($1, $3, events, columns);
    IF disabled THEN
        FOR one IN SELECT t.name FROM enough._queue_source_triggers($1, $3) AS t WHERE NOT t.inherited LOOP
            EXECUTE format('ALTER TABLE %s DISABLE TRIGGER %I', $1, one);
        END LOOP;
    END IF;
END $$;
COMMENT ON FUNCTION enough._queue_source_rename(regclass, text, text) IS
'Lets the triggers of a table that send to a queue send to that of another name.
For queue_rename.';

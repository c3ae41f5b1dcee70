-- Maintenance: time-based housekeeping that no call has done yet.

CREATE FUNCTION enough.maintain(
    max_duration interval DEFAULT '10 seconds',
    OUT task text,
    OUT items bigint,
    OUT elapsed interval,
    OUT note text
) RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 5 AS 'MODULE_PATHNAME', 'enough_maintain';
COMMENT ON FUNCTION enough.maintain IS
'Runs maintenance: finds messages that got into a queue''s table by COPY, restore or replication, moves messages that have had max_attempts deliveries to the archive, removes archive rows past archive_for, moves sequences past numbers that replication or a restore has brought, forgets queues whose tables are gone, frees expired cache entries, rate limits and semaphores, removes notes of pg_cron on the extension''s own jobs after a day, and names what is wrong with queues.
Stops after max_duration; the next run goes on there: queues that have waited longest come first, each with a share of the time. Returns a row a task: what it did, how many items, how long, and a note where it did not come to its end or has found something. Safe at any time, many at once; waits for no lock and blocks no send and no read. Works on the queues that the role owns or consumes, an operator''s (see grant_to()) on all; what is on their tables, triggers say, runs with the owners'' rights.
Fails with 22004 (NULL), 22023 (negative).';

CREATE FUNCTION enough.maintenance_schedule(schedule text DEFAULT '* * * * *') RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_maintenance_schedule';
COMMENT ON FUNCTION enough.maintenance_schedule IS
'Lets pg_cron run enough.maintain() in this database by that schedule, as the calling role; replaces the schedule of an earlier call.
Returns the job''s number.
Fails with 55000 where pg_cron is not in this database (the HINT has the statement for the database that it is in, or the line for the system''s cron), 42501 where the role may not use the schema cron, 22004 (NULL), 22023 (empty).';

CREATE FUNCTION enough.maintenance_unschedule() RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_maintenance_unschedule';
COMMENT ON FUNCTION enough.maintenance_unschedule IS
'Ends what the calling role began with maintenance_schedule.
Returns whether there was a job.
Fails with 55000 where pg_cron is not in this database, 42501 where the role may not use the schema cron.';

CREATE FUNCTION enough.status(OUT item text, OUT value text) RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 12 AS 'MODULE_PATHNAME', 'enough_status';
COMMENT ON FUNCTION enough.status IS
'Says how pg_enough is: its version, how the shared memory was found and how large and old it is, the sizes that it was made with and which settings wait for a restart of the server, its partitions and how often one was found damaged and emptied, and warnings, with what to do about each.
Each warning has an item of its own, warning_<name>, and the item warnings has them all, or none. The names: pending_restart, memory_damaged, segment_of_another_version (with it alone, because nothing else works), extension_of_another_version, queue_memory_nearly_full, queue_tables, queue_without_consumers (of queues that the role may see: enough.warn_unread_after), cache_memory_too_small, rate_limit_memory_nearly_full, rate_limit_exhausted_evicted, semaphore_memory_nearly_full, and where pg_cron is in this database maintenance_not_scheduled, maintenance_failing, schedule_failing.
No payloads. Waits for no lock on a queue''s table.
Fails with 55000 where there is no shared memory.';

-- In PL/pgSQL, and with every error caught: DROP EXTENSION must work even where the library is gone. An event trigger is
-- not told which extension it is about, and after the drop this one is gone itself, so it looks at the statement.
CREATE FUNCTION enough._before_drop_extension() RETURNS event_trigger
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    queues text;
    job record;
BEGIN
    IF current_query() !~* '\mdrop\s+extension\M[^;]*\mpg_enough\M' THEN
        RETURN;
    END IF;
    SELECT string_agg(q.name, ', ' ORDER BY q.name) INTO queues FROM enough.queue AS q;
    IF queues IS NOT NULL THEN
        RAISE NOTICE USING
            MESSAGE = format('the tables of these queues stay, with their messages: %s', queues),
            HINT = 'After CREATE EXTENSION pg_enough, enough.queue_create(<name>, if_not_exists => true) takes one up '
                   'again. DROP SCHEMA enough CASCADE removes them all.';
    END IF;
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_cron') AND has_schema_privilege('cron', 'USAGE') THEN
        FOR job IN
            SELECT j.jobid, j.jobname, j.username FROM cron.job AS j
             WHERE j.database = current_database()
               AND (starts_with(j.command, 'SELECT enough.maintain(') OR starts_with(j.command, 'SELECT enough.queue_send('))
        LOOP
            BEGIN
                PERFORM cron.unschedule(job.jobid);
            EXCEPTION WHEN insufficient_privilege THEN
                RAISE NOTICE USING MESSAGE = format('job "%s" of pg_cron stays, and will fail: it belongs to role "%s"',
                                                    job.jobname, job.username);
            END;
        END LOOP;
    END IF;
EXCEPTION WHEN OTHERS THEN
    RAISE NOTICE USING MESSAGE = format('what pg_enough leaves could not be looked at: %s', SQLERRM);
END $$;
COMMENT ON FUNCTION enough._before_drop_extension() IS
'Says, before DROP EXTENSION pg_enough, which queues'' tables stay, and ends the jobs of pg_cron that need the extension, as far as the role may.
For the event trigger enough_before_drop_extension.';

REVOKE ALL ON FUNCTION enough._before_drop_extension() FROM PUBLIC;

CREATE EVENT TRIGGER enough_before_drop_extension ON ddl_command_start WHEN TAG IN ('DROP EXTENSION')
    EXECUTE FUNCTION enough._before_drop_extension();

-- Maintenance: what time asks for and no call has done yet.

CREATE FUNCTION enough.maintain(
    max_duration interval DEFAULT '10 seconds',
    OUT task text,
    OUT items bigint,
    OUT elapsed interval,
    OUT note text
) RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 5 AS 'MODULE_PATHNAME', 'enough_maintain';
COMMENT ON FUNCTION enough.maintain IS
'Does what time asks for: finds messages that got into a queue''s table by COPY, restore or replication, removes archive rows past archive_for, forgets queues whose tables are gone, frees expired cache entries and rate limits.
Stops after max_duration. Returns a row a task: what it did, how many items, how long, and a note where it did not come to its end. Safe at any time, many at once; blocks no send and no read. Acts on what the calling role may see.
Fails with 22004 (NULL), 22023 (negative).';

CREATE FUNCTION enough.maintenance_schedule(schedule text DEFAULT '* * * * *') RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_maintenance_schedule';
COMMENT ON FUNCTION enough.maintenance_schedule IS
'Lets pg_cron run enough.maintain() in this database by that schedule, as the calling role; replaces the schedule of an earlier call.
Returns the job''s number.
Fails with 55000 where pg_cron is not in this database (the HINT has the line for the system''s cron), 22004 (NULL), 22023 (empty).';

CREATE FUNCTION enough.maintenance_unschedule() RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_maintenance_unschedule';
COMMENT ON FUNCTION enough.maintenance_unschedule IS
'Ends what maintenance_schedule began.
Returns whether there was a job.
Fails with 55000 where pg_cron is not in this database.';

CREATE FUNCTION enough.status(OUT item text, OUT value text) RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 12 AS 'MODULE_PATHNAME', 'enough_status';
COMMENT ON FUNCTION enough.status IS
'Says how pg_enough is: its version, how the shared memory was found and how large and old it is, the sizes that it was made with and which settings wait for a restart of the server, its partitions and how often one was found damaged and emptied, and warnings.
No payloads.
Fails with 55000 where there is no shared memory.';

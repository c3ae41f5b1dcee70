-- Semaphores. Their holders are in the server's shared memory, not in tables: nothing here writes a row, so all of it works in
-- read-only transactions and on standbys, and what was acquired stays so when the caller rolls back.
--
-- All are VOLATILE, because their results change within a statement, and PARALLEL UNSAFE, because they change shared state. All
-- are CALLED ON NULL INPUT: NULL stands for the default of an argument that has one, else it is an error that names the argument.

CREATE FUNCTION enough.semaphore_acquire(
    name text, max_holders integer DEFAULT 1, ttl interval DEFAULT '30 seconds', wait interval DEFAULT '0') RETURNS bigint
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_semaphore_acquire';
COMMENT ON FUNCTION enough.semaphore_acquire(text, integer, interval, interval) IS
'Acquires a semaphore, if fewer than max_holders hold it: with one holder it is a lock.
name: 1 to 512 bytes; each database has its own names. max_holders: 1 to 1000000, this one included; it may differ from call to call, and each goes by its own. ttl: 1 ms to 366 days, for how long it is held where nobody releases or extends it. wait: 0 to 1 hour, how long to wait for room. Those who wait are served in their order, and nobody passes them; each is woken when it is its turn, by a release or by the end of a ttl.
Returns a token for semaphore_extend() and semaphore_release(), or NULL where by the end of the wait there was no room. A token is greater than all earlier ones of its name, so that what the semaphore protects can refuse the smaller: also after a restart, unless the clock was set back over it.
It takes effect at once and outlives the transaction, whether that commits or rolls back, and the session: it ends by semaphore_release() or the ttl, and when the server restarts or crashes. It is not reentrant: a session that acquires again is another holder. Waits in a circle end by their wait, not by the server''s deadlock check. Where the statement fails after it has acquired, semaphore_holders() has the token. A call whose arguments are all constants is made once a statement in FROM, however many rows it is joined with.
Fails with 22004 for a NULL name, 22023 for an argument out of range, 54000 for a name of more than 512 bytes, 53400 where enough.semaphore_memory is full, 57014 where the wait is cancelled or takes longer than statement_timeout, which takes it out of the line.';

CREATE FUNCTION enough.semaphore_extend(name text, token bigint, ttl interval) RETURNS boolean
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_semaphore_extend';
COMMENT ON FUNCTION enough.semaphore_extend(text, bigint, interval) IS
'Has what a token stands for last for another ttl from now on, a heartbeat.
name: as of semaphore_acquire(). token: what that returned. ttl: 1 ms to 366 days; it may be less than what is left.
Returns false, and does nothing, where the token has been released or has expired: then others may hold the semaphore, and what it protects is not to be touched any more. It is not undone by a rollback.
Fails with 42501 where another role holds it, unless the caller has that role''s rights or is an operator, see grant_to(); 22004 for NULL, 22023 for an argument out of range, 54000 for a name of more than 512 bytes.';

CREATE FUNCTION enough.semaphore_release(name text, token bigint) RETURNS boolean
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_semaphore_release';
COMMENT ON FUNCTION enough.semaphore_release(text, bigint) IS
'Releases what a token stands for, and wakes the first of the sessions that wait.
name: as of semaphore_acquire(). token: what that returned.
Returns false where it has been released before or has expired. It takes effect at once, before the transaction commits, and is not undone by a rollback: where others must see what it protected, commit first and release then.
Fails with 42501 where another role holds it, unless the caller has that role''s rights or is an operator, see grant_to(); 22004 for NULL, 22023 for an empty name, 54000 for a name of more than 512 bytes.';

CREATE FUNCTION enough.semaphore_holders(
    name text DEFAULT NULL,
    OUT name text, OUT token bigint, OUT pid integer, OUT since timestamptz, OUT expires_at timestamptz)
RETURNS SETOF record
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'enough_semaphore_holders';
COMMENT ON FUNCTION enough.semaphore_holders(text) IS
'Lists who holds a semaphore, or all semaphores of this database.
name: as of semaphore_acquire(); NULL: all, of which monitors and operators, see grant_to(), see each, and other roles those that they hold themselves.
Returns a row for each holder, in no order. token: NULL where another role holds it, unless the caller has that role''s rights or is an operator. pid: the process that has acquired it, which may have ended since. since and expires_at: from when until when at the latest.
Fails with 22023 for an empty name, 54000 for one of more than 512 bytes.';

CREATE FUNCTION enough.semaphore_stats(
    OUT names bigint, OUT holders bigint, OUT waiters bigint, OUT bytes_used bigint, OUT bytes_max bigint,
    OUT acquired bigint, OUT denied bigint, OUT expired bigint) RETURNS record
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_semaphore_stats';
COMMENT ON FUNCTION enough.semaphore_stats() IS
'Returns what the semaphores of the whole server are and have been since their memory was made.
names: names that somebody holds or waits for. holders and waiters: all of them; of holders, those included that have expired and were not looked at since. bytes_used: by them; bytes_max: by enough.semaphore_memory. acquired: tokens given. denied: calls of semaphore_acquire() that returned NULL. expired: tokens that nobody has released in time, those not looked at since left out.
Looks at a few counters and changes nothing. May be called by members of pg_monitor.';
REVOKE ALL ON FUNCTION enough.semaphore_stats() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION enough.semaphore_stats() TO pg_monitor;

//! Every function while another session changes the tables that it works on: what waited for the other one's lock either
//! does what it should or says what has become of the table, and the server lives.

use crate::cases::{FUNCTIONS, Function};
use crate::run::call;
use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{healthy, is_lost, state};
use enough_pg_test::server::{self, Database, backend};
use postgres::Client;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// What is in the database before each change.
const FILLED: &str = "
    SELECT enough.queue_create('q', visibility_timeout => '1 hour', max_attempts => 1);
    SELECT enough.queue_send('q', '\"dead\"', group_key => 'g');
    SELECT enough.queue_fail('q', 1);
    SELECT enough.queue_send('q', '\"done\"');
    SELECT enough.queue_archive('q', 2);
    SELECT enough.queue_send('q', '\"leased\"', group_key => 'g');
    SELECT enough.queue_read('q');
    SELECT enough.queue_send_batch('q', array_fill('1'::jsonb, ARRAY[20]));
    SELECT enough.queue_send('q', '\"delayed\"', delay => '1 hour', dedup_key => 'k');
    SELECT enough.cache_set('key', '\"value\"'), enough.cache_set('good', '1'), enough.cache_set_bytes('bytes', '\\x00');
    SELECT enough.rate_limit_policy_set('strict', 10, '1 hour');
    CREATE TABLE good_table (a int);
    SELECT enough.cache_tag_table('good_table', 'tag')";

/// Takes away what a round has left.
const EMPTIED: &str = "
    SELECT enough.rate_limit_policy_drop('strict');
    DROP TABLE IF EXISTS enough.q_q, enough.a_q, enough.gone, gone, good_table;
    DELETE FROM enough.queue";

const NEW_QUEUE: &str = "DROP TABLE enough.q_q, enough.a_q; DELETE FROM enough.queue; SELECT enough.queue_create('q')";

/// Changes of tables, committed while all functions wait.
const CHANGES: &[&str] = &[
    // The queue's.
    "SELECT enough.queue_drop('q')",
    "SELECT enough.queue_drop('q'); SELECT enough.queue_create('q', max_attempts => 5)",
    NEW_QUEUE,
    "DROP TABLE enough.q_q",
    "DROP TABLE enough.q_q; CREATE TABLE enough.q_q (a int)",
    "ALTER TABLE enough.q_q ADD COLUMN further int DEFAULT 7",
    "ALTER TABLE enough.q_q ALTER message DROP NOT NULL",
    "ALTER TABLE enough.q_q ALTER priority TYPE int",
    "ALTER TABLE enough.q_q ALTER message TYPE text",
    "ALTER TABLE enough.q_q ALTER headers TYPE text, ALTER last_error TYPE int USING 3, ALTER group_key TYPE bigint USING 7",
    "ALTER TABLE enough.q_q ALTER group_key TYPE varchar, ALTER attempts TYPE bigint",
    "ALTER TABLE enough.q_q ALTER enqueued_at DROP DEFAULT, ALTER enqueued_at TYPE text, ALTER attempts DROP DEFAULT, \
     ALTER attempts TYPE text",
    "DROP INDEX enough.i_q_due; ALTER TABLE enough.q_q ALTER deliver_at TYPE bigint USING 5",
    "ALTER TABLE enough.q_q ALTER msg_id TYPE int",
    "ALTER TABLE enough.q_q DROP COLUMN headers",
    "ALTER TABLE enough.q_q DROP COLUMN msg_id",
    "ALTER TABLE enough.q_q DROP CONSTRAINT i_q_key",
    "LOCK TABLE enough.q_q; DROP INDEX enough.i_q_due; CREATE INDEX i_q_due ON enough.q_q (deliver_at)",
    "LOCK TABLE enough.q_q; DROP INDEX enough.i_q_dedup, enough.i_q_group",
    "ALTER TABLE enough.q_q ENABLE ROW LEVEL SECURITY",
    "TRUNCATE enough.q_q",
    "TRUNCATE enough.q_q RESTART IDENTITY",
    "ALTER TABLE enough.q_q RENAME TO gone",
    "ALTER TABLE enough.q_q RENAME COLUMN message TO payload",
    "ALTER TABLE enough.q_q SET UNLOGGED",
    "ALTER TABLE enough.q_q SET SCHEMA public; ALTER TABLE public.q_q RENAME TO gone",
    "LOCK TABLE enough.q_q; VACUUM_FULL",
    // Its archive's.
    "DROP TABLE enough.a_q",
    "ALTER TABLE enough.a_q RENAME TO gone",
    "ALTER TABLE enough.a_q DROP COLUMN result",
    "ALTER TABLE enough.a_q ALTER result TYPE text, ALTER error TYPE int USING 3, ALTER message TYPE text, ALTER headers TYPE bytea \
     USING '\\x00'",
    "ALTER TABLE enough.a_q ALTER attempts TYPE text, ALTER finished_at TYPE text, ALTER msg_id TYPE int",
    "TRUNCATE enough.a_q",
    "ALTER TABLE enough.a_q SET UNLOGGED",
    // That of the queues, and of the policies.
    "ALTER TABLE enough.queue ADD COLUMN further int; ALTER TABLE enough.queue DROP COLUMN further",
    "TRUNCATE enough.queue CASCADE",
    "LOCK TABLE enough.rate_limit_policy; ALTER TABLE enough.rate_limit_policy SET UNLOGGED; \
     ALTER TABLE enough.rate_limit_policy SET LOGGED",
    "TRUNCATE enough.rate_limit_policy",
    // One whose changes invalidate a tag.
    "DROP TABLE good_table",
    "DROP TABLE good_table; CREATE TABLE good_table (b int)",
    "ALTER TABLE good_table RENAME TO gone",
    "ALTER TABLE good_table ADD COLUMN further int",
    "TRUNCATE good_table",
    "ALTER TABLE good_table SET UNLOGGED",
    // All of them.
    "LOCK TABLE enough.q_q, enough.a_q, enough.queue, enough.rate_limit_policy, good_table; \
     DROP EXTENSION pg_enough CASCADE",
    "LOCK TABLE enough.q_q, enough.a_q, enough.queue, enough.rate_limit_policy, good_table; \
     DROP EXTENSION pg_enough CASCADE; CREATE EXTENSION pg_enough",
];

/// What these functions return is a type, or what they read is a table, of the extension's own, which the server looks up
/// before it makes the call. Where that is gone by the time it has waited for it, the server's error is an internal one.
const LOOKED_UP: &[&str] =
    &["queue_read", "queue_pop", "queue_peek", "queue_stats", "queue_list", "topic_subscriptions"];

/// A session and the call that is its own.
struct Session {
    client: Client,
    pid: i32,
    call: String,
}

impl Session {
    fn new(database: &Database, call: &str) -> Result<Self> {
        let mut client = database.client()?;
        let pid = i32::try_from(backend(&mut client)?)?;
        Ok(Self { client, pid, call: call.to_owned() })
    }

    /// Makes the call and takes back what it has done; what is wrong with its answer. `drops_all`: the extension may be gone.
    fn run(&mut self, drops_all: bool) -> Option<String> {
        self.client.batch_execute("BEGIN").ok()?;
        let outcome = self.client.simple_query(&format!("SELECT * FROM enough.{}", self.call));
        let wrong = outcome.err().and_then(|error| {
            let code = state(&error);
            let by_server = drops_all && LOOKED_UP.iter().any(|name| self.call.starts_with(name));
            let internal = code.starts_with("XX") || error.to_string().contains("with OID");
            (internal && !by_server || is_lost(&error))
                .then(|| format!("{}: {code} {error} {:?}", self.call, error.as_db_error()))
        });
        match self.client.batch_execute("ROLLBACK") {
            Ok(()) => wrong,
            Err(error) => wrong.or_else(|| Some(format!("{}: the session is gone: {error}", self.call))),
        }
    }
}

fn calls() -> Vec<String> {
    let mut calls: Vec<String> = FUNCTIONS.iter().map(|function: &Function| call(function, None)).collect();
    calls.extend(["queue_read('q', 30, wait => '300 ms')", "queue_pop('q', 30, wait => '300 ms')"].map(str::to_owned));
    calls.push("queue_stats()".to_owned());
    calls
}

/// Lets all sessions meet a change that another one has made and commits only when they wait; what is wrong.
fn meet(admin: &mut Client, watch: &mut Client, sessions: &mut [Session], change: &str) -> Result<Vec<String>> {
    let pids: Vec<i32> = sessions.iter().map(|session| session.pid).collect();
    admin.batch_execute("BEGIN").and_then(|()| admin.batch_execute(change)).with_context(|| format!("in {change}"))?;
    let started = AtomicUsize::new(0);
    let drops_all = change.contains("DROP EXTENSION");
    thread::scope(|scope| {
        let threads: Vec<_> = sessions
            .iter_mut()
            .map(|session| {
                scope.spawn(|| {
                    started.fetch_add(1, Relaxed);
                    session.run(drops_all)
                })
            })
            .collect();
        // Each has come to its end or to a lock.
        let mut quiet = 0;
        while quiet < 3 {
            thread::sleep(Duration::from_millis(5));
            let busy: i64 = watch
                .query_one(
                    "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY ($1) AND state = 'active' \
                     AND wait_event_type IS DISTINCT FROM 'Lock'",
                    &[&pids],
                )?
                .get(0);
            quiet = if busy == 0 && started.load(Relaxed) == pids.len() { quiet + 1 } else { 0 };
        }
        admin.batch_execute("COMMIT").with_context(|| format!("committing {change}"))?;
        Ok(threads.into_iter().filter_map(|thread| thread.join().expect("a session's thread")).collect())
    })
}

#[test]
fn every_function_outlives_a_change_of_its_tables() -> Result<()> {
    let options = server::options()?.conf("max_connections", "300").conf("deadlock_timeout", "100ms");
    let server = server::start(&options)?;
    let database = Database::on(&server)?;
    let (mut admin, mut watch) = (database.client()?, database.client()?);
    let calls = calls();
    let mut wrong = Vec::new();
    let mut warm = calls.iter().map(|call| Session::new(&database, call)).collect::<Result<Vec<_>>>()?;
    for change in CHANGES {
        let change = change.replace("VACUUM_FULL", "CREATE INDEX further ON enough.q_q (attempts)");
        admin.batch_execute("CREATE EXTENSION IF NOT EXISTS pg_enough")?;
        admin.batch_execute(EMPTIED)?;
        admin.batch_execute(FILLED).with_context(|| format!("before {change}"))?;
        // Half of the sessions know the tables as they were, the others see them for the first time.
        thread::scope(|scope| {
            for session in &mut warm {
                scope.spawn(|| session.run(false));
            }
        });
        let mut sessions = calls.iter().map(|call| Session::new(&database, call)).collect::<Result<Vec<_>>>()?;
        sessions.append(&mut warm);
        let log = server.log().len();
        let found = meet(&mut admin, &mut watch, &mut sessions, &change)?;
        wrong.extend(found.into_iter().map(|what| format!("{change}\n    {what}")));
        // The answers have been looked at.
        let log = server.log()[log..].replace(" XX000 ", " ");
        healthy(&log, false).with_context(|| format!("after {change}"))?;
        warm = sessions.split_off(calls.len());
    }
    ensure!(wrong.is_empty(), "{} answers:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

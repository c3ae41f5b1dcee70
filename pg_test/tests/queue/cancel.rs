//! Cancels at any moment of calls in blocks that catch errors.

use anyhow::{Result, ensure};
use enough_pg_test::check::is_lost;
use enough_pg_test::server::{self, Database};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// What is cancelled: in a transaction of its own, with blocks whose savepoints end by errors, by a cancel, or well.
const STATEMENTS: [&str; 8] = [
    "DO $$ DECLARE n int; BEGIN FOR i IN 1 .. 20 LOOP BEGIN \
        PERFORM enough.queue_send('q', '1', group_key => 'g' || i % 5); \
        SELECT count(enough.queue_delete('q', msg_id, lease)) INTO n FROM enough.queue_read('q', 3); \
        IF i % 3 = 0 THEN RAISE EXCEPTION 'undone'; END IF; \
        EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $$",
    "DO $$ BEGIN BEGIN PERFORM enough.queue_read('q', 2, wait => '20 ms'), 1 / 0; \
        EXCEPTION WHEN OTHERS THEN NULL; END; PERFORM enough.queue_read('empty', wait => '20 ms'); END $$",
    "DO $$ BEGIN FOR i IN 1 .. 10 LOOP BEGIN PERFORM enough.queue_pop('q'); \
        BEGIN PERFORM enough.queue_fail('q', i); RAISE EXCEPTION 'undone'; EXCEPTION WHEN division_by_zero THEN NULL; END; \
        EXCEPTION WHEN raise_exception OR query_canceled THEN NULL; END; END LOOP; END $$",
    "DO $$ BEGIN BEGIN PERFORM enough.cache_fetch('k', 'SELECT pg_sleep(0.003)'); PERFORM enough.cache_set('l', '1'); \
        RAISE EXCEPTION 'undone'; EXCEPTION WHEN OTHERS THEN NULL; END; END $$",
    "DO $$ BEGIN BEGIN DELETE FROM enough.q_q WHERE msg_id % 7 = 1; PERFORM enough.queue_read('q', 5); \
        PERFORM enough.maintain('5 ms'); RAISE EXCEPTION 'undone'; EXCEPTION WHEN query_canceled OR raise_exception THEN NULL; \
        END; END $$",
    "SELECT count(*) FROM enough.queue_send_batch('q', array_fill('1'::jsonb, '{500}'), \
        dedup_keys => ARRAY(SELECT 'k' || n % 100 FROM generate_series(1, 500) n))",
    "SELECT enough.maintain('20 ms')",
    "DO $$ BEGIN BEGIN PERFORM enough.queue_alter('q', max_in_flight => 50); PERFORM enough.queue_purge('q'); \
        RAISE EXCEPTION 'undone'; EXCEPTION WHEN OTHERS THEN NULL; END; END $$",
];

#[test]
fn a_cancel_at_any_moment_ends_the_statement_and_nothing_else() -> Result<()> {
    let length = std::env::var("ENOUGH_CANCEL_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let end = Instant::now() + Duration::from_secs(length);
    let database = Database::new()?;
    database.client()?.batch_execute(
        "SELECT enough.queue_create('q', visibility_timeout => '10 ms', retry_backoff => '1 ms'), enough.queue_create('empty')",
    )?;
    let over = Arc::new(AtomicBool::new(false));
    let mut pids = Vec::new();
    let sessions: Vec<_> = (0..3_usize)
        .map(|session| {
            let mut client = database.client()?;
            client.batch_execute("SET deadlock_timeout = '10 ms'; SET client_min_messages = 'error'")?;
            pids.push(i32::try_from(server::backend(&mut client)?)?);
            let over = Arc::clone(&over);
            Ok(thread::spawn(move || -> Result<()> {
                let mut turn = session;
                while !over.load(Relaxed) {
                    turn += 1 + session;
                    let statement = STATEMENTS[turn % STATEMENTS.len()];
                    // Within a transaction block, too.
                    let begin = if turn % 3 == 0 { "BEGIN; SAVEPOINT a" } else { "SELECT 1" };
                    for step in [begin, statement, "SELECT 1", "ROLLBACK", "SELECT 1"] {
                        if let Err(error) = client.batch_execute(step) {
                            ensure!(!is_lost(&error), "the session has ended: {error:?}, by {step}");
                        }
                    }
                }
                Ok(())
            }))
        })
        .collect::<Result<_>>()?;
    let mut canceller = database.client()?;
    let mut pause = 0;
    while Instant::now() < end {
        pause = (pause * 7 + 311) % 9001;
        thread::sleep(Duration::from_micros(pause));
        canceller.execute("SELECT pg_cancel_backend($1)", &[&pids[usize::try_from(pause)? % pids.len()]])?;
    }
    over.store(true, Relaxed);
    for session in sessions {
        session.join().map_err(|_| anyhow::anyhow!("a session has panicked"))??;
    }
    // Nothing that a cancelled call held is left behind.
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_purge('q'), enough.queue_send('q', '\"last\"')")?;
    let last = "SELECT count(*) FROM enough.queue_read('q', 10000, wait => '5 s') WHERE message = '\"last\"'";
    ensure!(client.query_one(last, &[])?.get::<_, i64>(0) == 1);
    let log = server::shared()?.log();
    for said in ["while in ABORT state", "unexpected state", "a step at the end of the transaction failed"] {
        ensure!(!log.contains(said), "the server has said: {said}");
    }
    Ok(())
}

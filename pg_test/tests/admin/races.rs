//! Two sessions that create, change or drop the same thing at the same time: one of them waits, and what it then finds is
//! said with the SQLSTATE that stands for it, never with the server's own words about its catalogs.

use crate::common::Call;
use anyhow::{Context, Result, bail, ensure};
use enough_pg_test::check::{healthy, state};
use enough_pg_test::server::{Database, options, start};
use std::sync::Barrier;
use std::time::{Duration, Instant};

const SESSIONS: usize = 6;
const ROUNDS: usize = 400;

/// What a call may fail with when the queue was created, changed or dropped meanwhile.
const PROPER: [&str; 6] = ["42704", "42710", "42501", "40001", "40P01", "55P03"];

#[test]
fn a_queue_created_in_two_sessions_exists_once() -> Result<()> {
    let database = Database::new()?;
    let mut first = database.client()?;
    let create = "SELECT enough.queue_create('q')";
    for (end, expected) in [("COMMIT", Some("42710")), ("ROLLBACK", None)] {
        first.batch_execute(&format!("BEGIN; {create}"))?;
        let second = Call::start(&database, "postgres", create)?;
        first.batch_execute(end)?;
        let outcome = second.outcome();
        ensure!(outcome.as_ref().err().map(state) == expected, "after {end}: {outcome:?}");
        first.batch_execute("SELECT enough.queue_drop('q')")?;
    }
    first.batch_execute(&format!("BEGIN; {create}"))?;
    let second = Call::start(&database, "postgres", "SELECT enough.queue_create('q', if_not_exists => true)")?;
    first.batch_execute("COMMIT")?;
    second.outcome().context("if_not_exists")?;
    Ok(())
}

/// Each pair, the first one in an open transaction that then commits or rolls back.
#[test]
fn administration_in_two_sessions_fails_with_proper_codes_only() -> Result<()> {
    let database = Database::new()?;
    let role = database.role("user");
    let mut first = database.client()?;
    first.batch_execute(&format!("CREATE ROLE {role}; CREATE TABLE tagged (id int)"))?;
    let calls = [
        "SELECT enough.queue_create('q', if_not_exists => true)".to_owned(),
        "SELECT enough.queue_drop('q', if_exists => true)".into(),
        "SELECT enough.queue_alter('q', max_attempts => 3)".into(),
        "SELECT enough.queue_alter('q', unlogged => true)".into(),
        "SELECT enough.queue_pause('q')".into(),
        format!("SELECT enough.queue_grant('q', '{role}', 'all')"),
        format!("SELECT enough.queue_revoke('q', '{role}', 'send')"),
        "SELECT enough.rate_limit_policy_set('p', 3, '1 minute')".into(),
        "SELECT enough.rate_limit_policy_drop('p')".into(),
        "SELECT enough.cache_tag_table('tagged')".into(),
        "SELECT enough.cache_untag_table('tagged')".into(),
    ];
    let by_hand = [
        format!("GRANT SELECT ON enough.q_q TO {role}"),
        "ALTER TABLE enough.q_q SET (fillfactor = 90)".into(),
        "DROP TABLE IF EXISTS enough.q_q, enough.a_q; DELETE FROM enough.queue WHERE name = 'q'".into(),
        "COMMENT ON TABLE enough.q_q IS 'changed'".into(),
    ];
    for one in calls.iter().chain(&by_hand) {
        for other in &calls {
            for end in ["COMMIT", "ROLLBACK"] {
                first.batch_execute(
                    "SELECT enough.queue_create('q', if_not_exists => true), enough.cache_tag_table('tagged'), \
                            enough.rate_limit_policy_set('p', 3, '1 minute')",
                )?;
                first.batch_execute(&format!("BEGIN; {one}"))?;
                let second = Call::start(&database, "postgres", other)?;
                first.batch_execute(end)?;
                if let Err(error) = second.outcome()
                    && !PROPER.contains(&state(&error))
                {
                    bail!("{one}; {end} against {other}: {error:?}");
                }
            }
        }
    }
    Ok(())
}

/// The same, many times over without any order.
#[test]
fn administration_in_many_sessions_fails_with_proper_codes_only() -> Result<()> {
    let server = start(&options()?)?;
    let database = Database::on(&server)?;
    let role = database.role("user");
    database.client()?.batch_execute(&format!("CREATE ROLE {role}; CREATE TABLE tagged (id int)"))?;
    let calls = [
        "SELECT enough.queue_create('q')".to_owned(),
        "SELECT enough.queue_create('q', if_not_exists => true)".into(),
        "SELECT enough.queue_drop('q')".into(),
        "SELECT enough.queue_alter('q', max_attempts => 3)".into(),
        "SELECT enough.queue_resume('q')".into(),
        format!("SELECT enough.queue_grant('q', '{role}', 'all')"),
        format!("SELECT enough.queue_grant('q', '{role}', 'consume')"),
        format!("SELECT enough.queue_revoke('q', '{role}', 'all')"),
        "SELECT enough.rate_limit_policy_set('p', 3, '1 minute')".into(),
        "SELECT enough.rate_limit_policy_drop('p')".into(),
        "SELECT enough.cache_tag_table('tagged')".into(),
        "SELECT enough.cache_untag_table('tagged')".into(),
        "SELECT enough.queue_send('q', '1')".into(),
        "SELECT * FROM enough.queue_read('q')".into(),
        "SELECT * FROM enough.queue_stats()".into(),
    ];
    let barrier = Barrier::new(SESSIONS);
    std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|session| {
                let (database, calls, barrier) = (&database, &calls, &barrier);
                scope.spawn(move || -> Result<()> {
                    let mut client = database.client()?;
                    let mut random = fastrand::Rng::with_seed(session as u64);
                    barrier.wait();
                    for _ in 0..ROUNDS {
                        let call = &calls[random.usize(..calls.len())];
                        if let Err(error) = client.execute(call, &[])
                            && !PROPER.contains(&state(&error))
                        {
                            bail!("{call}: {error:?}");
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        sessions.into_iter().try_for_each(|session| match session.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    healthy(&server.log(), false)
}

/// What shuts all others out of a queue gives up soon, so that senders don't wait behind it for as long as some transaction
/// that uses the queue is open.
#[test]
fn exclusive_changes_of_a_queue_in_use_give_up_soon() -> Result<()> {
    let database = Database::new()?;
    let mut consumer = database.client()?;
    consumer.batch_execute("SELECT enough.queue_create('q'), enough.queue_send('q', '1')")?;
    consumer.batch_execute("BEGIN; SELECT enough.queue_delete('q', 1)")?;
    let mut sender = database.client()?;
    for call in ["queue_drop('q')", "queue_alter('q', unlogged => true)", "queue_rename('q', 'r')"] {
        let statement = format!("SELECT enough.{call}");
        let began = Instant::now();
        let change = Call::start(&database, "postgres", &statement)?;
        // A sender that comes meanwhile waits no longer than the change does.
        sender.batch_execute("SELECT enough.queue_send('q', '2')").context(call)?;
        let sent = began.elapsed();
        let Err(error) = change.outcome() else { bail!("{call} went through") };
        ensure!(state(&error) == "55P03", "{call}: {error:?}");
        let hint = error.as_db_error().and_then(|error| error.hint()).unwrap_or_default();
        ensure!(hint.contains("lock_timeout"), "{call}: {hint}");
        ensure!(sent < Duration::from_secs(20), "{call}: a sender has waited for {sent:?}");
        // As the server's other commands, it waits as long as the session says.
        let mut patient = database.client()?;
        patient.batch_execute("SET lock_timeout = '10 ms'")?;
        let began = Instant::now();
        let Err(error) = patient.batch_execute(&statement) else { bail!("{call} went through") };
        ensure!(state(&error) == "55P03" && began.elapsed() < Duration::from_millis(900), "{call}: {error:?}");
        // And the setting is as it was.
        let shown: String = patient.query_one("SHOW lock_timeout", &[])?.get(0);
        ensure!(shown == "10ms", "{shown}");
    }
    // Options are changed beside whatever is going on.
    sender.batch_execute(
        "SELECT enough.queue_alter('q', max_attempts => 3), enough.queue_pause('q'), enough.queue_resume('q')",
    )?;
    let timeout: String = sender.query_one("SHOW lock_timeout", &[])?.get(0);
    ensure!(timeout == "0", "{timeout}");
    consumer.batch_execute("COMMIT")?;
    sender.batch_execute(
        "SELECT enough.queue_alter('q', unlogged => true), enough.queue_rename('q', 'r'), enough.queue_drop('r')",
    )?;
    let timeout: String = sender.query_one("SHOW lock_timeout", &[])?.get(0);
    ensure!(timeout == "0", "{timeout}");
    Ok(())
}

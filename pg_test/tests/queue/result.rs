//! Waiting for what comes of a message.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::refused;
use enough_pg_test::queue::{made, read, send};
use enough_pg_test::server::{Database, backend, until_waiting};
use postgres::Client;
use serde_json::{Value, json};
use std::thread;
use std::time::{Duration, Instant};

type Answer = Option<(String, Option<Value>, Option<String>)>;

/// What `queue_result` says of a message of the queue `q`.
fn result(client: &mut Client, msg_id: i64, wait: &str) -> Result<Answer> {
    let row = client.query_opt(&format!("SELECT * FROM enough.queue_result('q', $1, '{wait}')"), &[&msg_id])?;
    Ok(row.map(|row| (row.get(0), row.get(1), row.get(2))))
}

#[allow(clippy::unnecessary_wraps, reason = "what an answer is compared with")]
fn done(result: Value) -> Answer {
    Some(("done".into(), Some(result), None))
}

#[allow(clippy::unnecessary_wraps, reason = "what an answer is compared with")]
fn dead(error: &str) -> Answer {
    Some(("dead".into(), None, Some(error.into())))
}

/// Lets a session wait for a message, does something when it waits, and what it was told then; woken, and not by its own look.
fn waiting(database: &Database, msg_id: i64, then: impl FnOnce(&mut Client) -> Result<()>) -> Result<Answer> {
    let (mut waiter, mut client) = (database.client()?, database.client()?);
    let pid = backend(&mut waiter)?;
    let began = Instant::now();
    let got = thread::scope(|scope| {
        let waits = scope.spawn(|| result(&mut waiter, msg_id, "50 s"));
        until_waiting(&mut client, pid)?;
        then(&mut client)?;
        waits.join().ok().context("the waiting session panicked")?
    })?;
    ensure!(began.elapsed() < Duration::from_secs(20), "it wasn't woken");
    Ok(got)
}

#[test]
fn a_caller_is_told_when_the_message_is_done_or_dead_or_gone() -> Result<()> {
    let (database, mut client, _) = made(", retry_backoff => '0'")?;
    let mut next = || send(&mut client, "q", &json!(1));
    let [a, b, c, d, e] = [next()?, next()?, next()?, next()?, next()?];
    // Of another message's end it isn't told.
    let got = waiting(&database, a, |client| {
        client.batch_execute(&format!("SELECT enough.queue_archive('q', {b}, '2')"))?;
        client.batch_execute(&format!("SELECT enough.queue_archive('q', {a}, '\"yes\"')"))?;
        Ok(())
    })?;
    ensure!(got == done(json!("yes")), "{got:?}");
    let got = waiting(&database, c, |client| {
        Ok(client.batch_execute(&format!("SELECT enough.queue_fail('q', {c}, 'no', dead => true)"))?)
    })?;
    ensure!(got == dead("no"), "{got:?}");
    let got =
        waiting(&database, d, |client| Ok(client.batch_execute(&format!("SELECT enough.queue_delete('q', {d})"))?))?;
    ensure!(got.is_none(), "{got:?}");
    let got = waiting(&database, e, |client| Ok(client.batch_execute("SELECT enough.queue_purge('q')")?))?;
    ensure!(got.is_none(), "{got:?}");
    // What has ended before is told at once.
    ensure!(result(&mut client, b, "1 hour")? == done(json!(2)));
    ensure!(result(&mut client, -1, "1 hour")?.is_none());
    Ok(())
}

#[test]
fn a_retry_is_not_the_end_and_the_last_lease_that_runs_out_is() -> Result<()> {
    let (database, mut client, mut worker) = made(", max_attempts => 2, retry_backoff => '0'")?;
    let msg_id = send(&mut client, "q", &json!(1))?;
    let got = waiting(&database, msg_id, |client| {
        read(client, "q", 1)?;
        client.batch_execute(&format!("SELECT enough.queue_fail('q', {msg_id}, 'first', '0')"))?;
        // Nobody looks at the queue any more, and the reader says nothing.
        client.batch_execute("SELECT * FROM enough.queue_read('q', visibility_timeout => '300 ms')")?;
        Ok(())
    })?;
    ensure!(got == dead("first"), "{got:?}");
    // A rollback of the last delivery.
    let msg_id = send(&mut client, "q", &json!(1))?;
    read(&mut worker, "q", 1)?;
    worker.batch_execute(&format!("SELECT enough.queue_fail('q', {msg_id}, 'second', '0')"))?;
    let got = waiting(&database, msg_id, |_| {
        worker.batch_execute("BEGIN")?;
        read(&mut worker, "q", 1)?;
        Ok(worker.batch_execute("ROLLBACK")?)
    })?;
    ensure!(got == dead("second"), "{got:?}");
    Ok(())
}

#[test]
fn when_the_time_is_over_it_says_how_the_message_stands() -> Result<()> {
    let (_database, mut client, mut other) = made("")?;
    let msg_id = send(&mut client, "q", &json!(1))?;
    for wait in ["0", "10 ms"] {
        ensure!(result(&mut client, msg_id, wait)? == Some(("ready".into(), None, None)));
    }
    read(&mut other, "q", 1)?;
    ensure!(result(&mut client, msg_id, "10 ms")? == Some(("leased".into(), None, None)));
    other.batch_execute(&format!("SELECT enough.queue_fail('q', {msg_id}, 'why', '1 hour')"))?;
    ensure!(result(&mut client, msg_id, "10 ms")? == Some(("delayed".into(), None, Some("why".into()))));
    Ok(())
}

#[test]
fn an_end_that_is_not_committed_is_none() -> Result<()> {
    let (database, mut client, mut worker) = made("")?;
    let msg_id = send(&mut client, "q", &json!(1))?;
    let finish = format!("SELECT enough.queue_archive('q', {msg_id}, '1')");
    worker.batch_execute(&format!("BEGIN; {finish}; ROLLBACK; BEGIN; {finish}"))?;
    ensure!(result(&mut client, msg_id, "50 ms")? == Some(("leased".into(), None, None)));
    let got = waiting(&database, msg_id, |_| Ok(worker.batch_execute("COMMIT")?))?;
    ensure!(got == done(json!(1)), "{got:?}");
    // An older snapshot than the end hides nothing.
    let msg_id = send(&mut client, "q", &json!(2))?;
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")?;
    worker.batch_execute(&format!("SELECT enough.queue_archive('q', {msg_id}, '2')"))?;
    ensure!(result(&mut client, msg_id, "1 hour")? == done(json!(2)));
    client.batch_execute("COMMIT")?;
    Ok(())
}

#[test]
fn many_wait_for_one_message() -> Result<()> {
    let (database, mut client, _) = made("")?;
    let msg_id = send(&mut client, "q", &json!(1))?;
    // More than one call wakes.
    let mut waiters = (0..70).map(|_| database.client()).collect::<Result<Vec<_>>>()?;
    let began = Instant::now();
    thread::scope(|scope| {
        let all: Vec<_> = waiters.iter_mut().map(|waiter| scope.spawn(|| result(waiter, msg_id, "50 s"))).collect();
        enough_pg_test::check::eventually("all of them sleep", || {
            let row = client.query_one(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Extension'",
                &[],
            )?;
            Ok((row.get::<_, i64>(0) == 70).then_some(()))
        })?;
        client.batch_execute(&format!("SELECT enough.queue_archive('q', {msg_id}, '1')"))?;
        for one in all {
            ensure!(one.join().ok().context("a waiting session panicked")?? == done(json!(1)));
        }
        Ok(())
    })?;
    ensure!(began.elapsed() < Duration::from_secs(20), "some weren't woken");
    Ok(())
}

#[test]
fn a_wait_ends_with_its_statement_its_time_and_its_queue() -> Result<()> {
    let (database, mut client, mut waiter) = made("")?;
    let msg_id = send(&mut client, "q", &json!(1))?;
    waiter.batch_execute("SET statement_timeout = '200 ms'")?;
    refused(waiter.query(&format!("SELECT FROM enough.queue_result('q', {msg_id}, '1 hour')"), &[]), "57014")?;
    waiter.batch_execute("RESET statement_timeout")?;
    for end in ["queue_drop('q')", "queue_rename('q', 'other')"] {
        let mut client = database.client()?;
        if end.starts_with("queue_rename") {
            client.batch_execute("SELECT enough.queue_create('q')")?;
        }
        let msg_id = send(&mut client, "q", &json!(1))?;
        let pid = backend(&mut waiter)?;
        thread::scope(|scope| {
            let waits =
                scope.spawn(|| waiter.query(&format!("SELECT FROM enough.queue_result('q', {msg_id}, '40 s')"), &[]));
            until_waiting(&mut client, pid)?;
            client.batch_execute(&format!("SELECT enough.{end}"))?;
            if end.starts_with("queue_rename") {
                client.batch_execute(&format!("SELECT enough.queue_archive('other', {msg_id})"))?;
            }
            refused(waits.join().ok().context("the waiting session panicked")?, "42704")
        })?;
    }
    Ok(())
}

#[test]
fn who_has_sent_it_is_told_to_commit_first() -> Result<()> {
    let (_database, mut client, _) = made("")?;
    client.batch_execute("BEGIN")?;
    let msg_id = send(&mut client, "q", &json!(1))?;
    let outcome = client.query(&format!("SELECT FROM enough.queue_result('q', {msg_id}, '1 hour')"), &[]);
    let hint = refused(outcome, "55000")?;
    ensure!(hint.contains("COMMIT"), "{hint}");
    Ok(())
}

#[test]
fn it_needs_the_right_to_look() -> Result<()> {
    let (database, mut client, _) = made("")?;
    let msg_id = send(&mut client, "q", &json!(1))?;
    let role = database.role("caller");
    client.batch_execute(&format!("CREATE ROLE {role} LOGIN; SELECT enough.queue_grant('q', '{role}', 'send')"))?;
    let mut other = database.client_as(&role)?;
    let call = format!("SELECT FROM enough.queue_result('q', {msg_id})");
    refused(other.query(&call, &[]), "42501")?;
    client.batch_execute(&format!("SELECT enough.queue_grant('q', '{role}', 'observe')"))?;
    ensure!(other.query(&call, &[])?.len() == 1);
    Ok(())
}

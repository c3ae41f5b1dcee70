//! How a wait ends early: cancelled, timed out, terminated, its queue dropped. Nothing stays leased.

use crate::wait::sleeper;
use anyhow::{Result, ensure};
use enough_pg_test::check::{eventually, refused, state};
use enough_pg_test::queue;
use enough_pg_test::server::{Database, backend, until_waiting};
use postgres::Client;
use serde_json::json;
use std::time::{Duration, Instant};

fn made() -> Result<(Database, Client)> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('q', visibility_timeout => '1 hour')")?;
    Ok((database, client))
}

/// The queue's next message goes to `client`: nobody else holds it, nor is it kept for one who has left.
fn next_is_free(client: &mut Client) -> Result<()> {
    let sent = queue::send(client, "q", &json!("next"))?;
    let read = queue::read(client, "q", 10)?;
    ensure!(queue::ids(&read) == [sent] && read[0].attempts == 1, "{read:?}");
    ensure!(queue::delete(client, "q", sent, read[0].lease)?);
    let stats = queue::stats(client, "q")?;
    ensure!((stats.ready, stats.leased, stats.delayed) == (0, 0, 0), "{stats:?}");
    Ok(())
}

#[test]
fn a_cancel_ends_a_wait() -> Result<()> {
    let (database, mut client) = made()?;
    for call in ["queue_read('q', wait => '1 hour')", "queue_pop('q', wait => '1 hour')"] {
        let (reader, pid) = sleeper(&database, call)?;
        client.execute("SELECT pg_cancel_backend($1)", &[&i32::try_from(pid)?])?;
        refused(reader.join().expect("the reader panicked"), "57014")?;
        next_is_free(&mut client)?;
    }
    Ok(())
}

/// The reader is woken and cancelled at nearly the same time: whichever it notices first, it must not go to sleep on the other.
#[test]
fn a_cancel_is_noticed_at_once_whenever_it_comes() -> Result<()> {
    let (database, mut client) = made()?;
    client.batch_execute("SELECT enough.queue_pause('q')")?;
    let mut slowest = Duration::ZERO;
    for round in 0..60 {
        let (reader, pid) = sleeper(&database, "queue_read('q', wait => '1 hour')")?;
        let wakes = "SELECT enough.queue_send('q', '1'); ".repeat(round % 7);
        client.batch_execute(&format!("{wakes} SELECT pg_cancel_backend({pid})"))?;
        let begun = Instant::now();
        refused(reader.join().expect("the reader panicked"), "57014")?;
        slowest = slowest.max(begun.elapsed());
    }
    ensure!(slowest < Duration::from_millis(700), "a cancel was noticed after {slowest:?}");
    Ok(())
}

#[test]
fn a_statement_timeout_ends_a_wait() -> Result<()> {
    let (database, mut client) = made()?;
    let mut reader = database.client()?;
    reader.batch_execute("SET statement_timeout = '200 ms'")?;
    refused(queue::receive(&mut reader, "queue_read('q', wait => '1 hour')"), "57014")?;
    reader.batch_execute("RESET statement_timeout")?;
    next_is_free(&mut reader)?;
    next_is_free(&mut client)
}

#[test]
fn a_terminated_reader_holds_nothing() -> Result<()> {
    let (database, mut client) = made()?;
    let (reader, pid) = sleeper(&database, "queue_read('q', wait => '1 hour')")?;
    client.execute("SELECT pg_terminate_backend($1)", &[&i32::try_from(pid)?])?;
    let error = reader.join().expect("the reader panicked").expect_err("the session was terminated");
    ensure!(enough_pg_test::check::is_lost(&error), "{error:?}");
    eventually("the session is gone", || {
        let row = client.query_opt("SELECT 1 FROM pg_stat_activity WHERE pid = $1", &[&i32::try_from(pid)?])?;
        Ok(row.is_none().then_some(()))
    })?;
    next_is_free(&mut client)
}

#[test]
fn a_cancel_passes_the_message_on_to_the_next_reader() -> Result<()> {
    let (database, mut client) = made()?;
    // The message comes and the cancel with it: either the first reader has got it before, or the second gets it.
    for round in 0..30 {
        let (first, pid) = sleeper(&database, "queue_read('q', wait => '1 hour')")?;
        let (second, _) = sleeper(&database, "queue_read('q', wait => '1 hour')")?;
        let sent = queue::send(&mut client, "q", &json!(round))?;
        client.execute("SELECT pg_cancel_backend($1)", &[&i32::try_from(pid)?])?;
        match first.join().expect("the first reader panicked") {
            Ok(read) => {
                ensure!(queue::ids(&read) == [sent]);
                queue::send(&mut client, "q", &json!("for the second"))?;
            }
            Err(error) => ensure!(state(&error) == "57014", "{error:?}"),
        }
        let read = second.join().expect("the second reader panicked")?;
        ensure!(read.len() == 1);
        client.batch_execute("DELETE FROM enough.q_q")?;
        queue::read(&mut client, "q", 10)?;
    }
    Ok(())
}

#[test]
fn dropping_the_queue_ends_a_wait() -> Result<()> {
    let (database, mut client) = made()?;
    for recreate in [false, true] {
        let (reader, _) = sleeper(&database, "queue_read('q', wait => '1 hour')")?;
        if recreate {
            client.batch_execute(
                "BEGIN; SELECT enough.queue_drop('q'); SELECT enough.queue_create('q'); \
                 SELECT enough.queue_send('q', '\"for the new queue''s readers\"'); COMMIT",
            )?;
        } else {
            client.batch_execute("SELECT enough.queue_drop('q')")?;
        }
        refused(reader.join().expect("the reader panicked"), "42704")?;
        if !recreate {
            refused(queue::receive(&mut client, "queue_read('q')"), "42704")?;
            client.batch_execute("SELECT enough.queue_create('q', visibility_timeout => '1 hour')")?;
            next_is_free(&mut client)?;
        }
    }
    ensure!(queue::read(&mut client, "q", 10)?.len() == 1, "the new queue has lost its message");
    Ok(())
}

#[test]
fn dropping_and_making_a_queue_again_while_sessions_know_it() -> Result<()> {
    let (database, mut client) = made()?;
    let mut other = database.client()?;
    for round in 0..10 {
        let sent = queue::send(&mut client, "q", &json!(round))?;
        let read = queue::read(&mut other, "q", 10)?;
        ensure!(queue::ids(&read) == [sent], "round {round}: {read:?}");
        client.batch_execute("SELECT enough.queue_drop('q')")?;
        refused(queue::receive(&mut other, "queue_read('q')"), "42704")?;
        refused(queue::delete(&mut other, "q", sent, read[0].lease), "42704")?;
        other.batch_execute("SELECT enough.queue_create('q', visibility_timeout => '1 hour')")?;
        ensure!(!queue::delete(&mut client, "q", sent, read[0].lease)?, "an old queue's lease counts in the new one");
    }
    // A rolled back creation and a rolled back drop.
    client.batch_execute(
        "BEGIN; SELECT enough.queue_create('unmade'); SELECT enough.queue_send('unmade', '1'); \
         SELECT enough.queue_read('unmade'); ROLLBACK",
    )?;
    refused(queue::receive(&mut client, "queue_read('unmade')"), "42704")?;
    let sent = queue::send(&mut client, "q", &json!("stays"))?;
    client.batch_execute("BEGIN; SELECT enough.queue_drop('q'); ROLLBACK")?;
    ensure!(queue::ids(&queue::read(&mut client, "q", 10)?) == [sent]);
    Ok(())
}

#[test]
fn a_reader_that_waits_in_an_open_transaction_can_be_cancelled_and_go_on() -> Result<()> {
    let (database, mut client) = made()?;
    let mut reader = database.client()?;
    let pid = backend(&mut reader)?;
    let thread = std::thread::spawn(move || {
        reader.batch_execute("BEGIN; SELECT enough.queue_send('q', '\"from the reader\"'); SAVEPOINT s")?;
        let outcome = queue::receive(&mut reader, "queue_read('q', wait => '1 hour')");
        reader.batch_execute("ROLLBACK TO s; COMMIT")?;
        anyhow::Ok(outcome)
    });
    until_waiting(&mut client, pid)?;
    client.execute("SELECT pg_cancel_backend($1)", &[&i32::try_from(pid)?])?;
    refused(thread.join().expect("the reader panicked")?, "57014")?;
    ensure!(queue::read(&mut client, "q", 10)?.len() == 1, "what was sent before the wait is lost");
    Ok(())
}

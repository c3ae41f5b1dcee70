//! Waiting costs nothing: those that wait sleep until there is something for them.

use crate::wait::sleeper;
use anyhow::{Context, Result, ensure};
use enough_pg_test::queue;
use enough_pg_test::server::{Database, options, start};
use serde_json::json;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};
use xtask::server::Server;

/// How often a process has gone to sleep.
fn sleeps(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).context("a count")?;
    Ok(line.split_whitespace().last().context("a number")?.parse()?)
}

fn all_sleeps(pids: &[u32]) -> Result<u64> {
    pids.iter().map(|&pid| sleeps(pid)).sum()
}

/// A server of the test's own: on a shared one the server itself wakes all sessions now and then, where a database is dropped,
/// for one.
fn alone() -> Result<(Server, Database)> {
    let server = start(&options()?)?;
    let database = Database::on(&server)?;
    Ok((server, database))
}

#[test]
fn waiting_readers_are_not_woken_by_what_comes_due_in_another_queue() -> Result<()> {
    let (_server, database) = alone()?;
    let mut client = database.client()?;
    // So many that one of them shares its part of the memory with the first.
    client.batch_execute(
        "SELECT enough.queue_create('q'), count(enough.queue_create('other' || n)) FROM generate_series(1, 8) n",
    )?;
    let others = "FROM (SELECT 'other' || n FROM generate_series(1, 8) n) AS o (name)";
    let mut readers = Vec::new();
    for _ in 0..20 {
        readers.push(sleeper(&database, "queue_read('q', wait => '1 hour')")?);
    }
    let pids: Vec<u32> = readers.iter().map(|(_, pid)| *pid).collect();
    let before = all_sleeps(&pids)?;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        client.batch_execute(&format!("SELECT enough.queue_send(name, '1', delay => '100 ms') {others}"))?;
        sleep(Duration::from_millis(10));
        client.batch_execute(&format!("SELECT enough.queue_pop(name, 10) {others}"))?;
    }
    let woken = all_sleeps(&pids)? - before;
    ensure!(woken <= 20, "20 sessions that wait for nothing woke up {woken} times in two seconds");
    queue::send_numbers(&mut client, "q", 20)?;
    for (reader, _) in readers {
        ensure!(reader.join().expect("a reader panicked")?.len() == 1);
    }
    Ok(())
}

#[test]
fn a_delay_in_a_queue_wakes_one_of_those_that_wait_and_not_all() -> Result<()> {
    let (_server, database) = alone()?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('q')")?;
    let readers =
        (0..20).map(|_| sleeper(&database, "queue_pop('q', wait => '1 hour')")).collect::<Result<Vec<_>>>()?;
    let pids: Vec<u32> = readers.iter().map(|(_, pid)| *pid).collect();
    let before = all_sleeps(&pids)?;
    client.batch_execute("SELECT enough.queue_send('q', '1', delay => '2 s')")?;
    sleep(Duration::from_millis(2500));
    let done = readers.iter().filter(|(reader, _)| reader.is_finished()).count();
    ensure!(done == 1, "{done} have got the message");
    // One goes to sleep until then; it gets the message, or another one does, which it wakes.
    let woken: u64 = pids.iter().map(|&pid| sleeps(pid).unwrap_or(0)).sum::<u64>().saturating_sub(before);
    ensure!(woken <= 6, "{woken} wake-ups for one message");
    queue::send_numbers(&mut client, "q", 19)?;
    for (reader, _) in readers {
        ensure!(reader.join().expect("a reader panicked")?.len() == 1);
    }
    Ok(())
}

#[test]
fn the_watch_is_kept_whoever_leaves() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('q')")?;
    for round in 0..10 {
        let (last, _) = sleeper(&database, "queue_pop('q', wait => '1 hour')")?;
        let (first, pid) = sleeper(&database, "queue_pop('q', wait => '1 hour')")?;
        client.batch_execute("SELECT enough.queue_send('q', '1', delay => '200 ms')")?;
        // One of the two looks when it is due. It goes away in one way or another.
        match round % 3 {
            0 => drop(client.execute("SELECT pg_cancel_backend($1)", &[&i32::try_from(pid)?])?),
            1 => drop(client.execute("SELECT pg_terminate_backend($1)", &[&i32::try_from(pid)?])?),
            _ => drop(queue::send(&mut client, "q", &json!("at once"))?),
        }
        let got = first.join().expect("a reader panicked");
        ensure!(got.is_ok() == (round % 3 == 2), "{got:?}");
        let began = Instant::now();
        ensure!(last.join().expect("a reader panicked")?.len() == 1);
        ensure!(began.elapsed() < Duration::from_secs(5), "nobody looked for {:?}", began.elapsed());
    }
    Ok(())
}

#[test]
fn a_shorter_delay_that_comes_later_is_not_waited_for_as_long_as_the_longer_one() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('q'), enough.queue_send('q', '\"late\"', delay => '1 hour')")?;
    let (reader, _) = sleeper(&database, "queue_pop('q', wait => '1 hour')")?;
    client.batch_execute("SELECT enough.queue_send('q', '\"later\"', delay => '1 minute')")?;
    client.batch_execute("SELECT enough.queue_send('q', '\"soon\"', delay => '200 ms')")?;
    let began = Instant::now();
    let read = reader.join().expect("a reader panicked")?;
    ensure!(read.len() == 1 && read[0].message == json!("soon"), "{read:?}");
    ensure!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    Ok(())
}

#[test]
fn a_lease_that_is_made_shorter_is_waited_for() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('q')")?;
    let sent = queue::send(&mut client, "q", &json!(1))?;
    queue::receive(&mut client, "queue_read('q', 1, '1 hour')")?;
    let (reader, _) = sleeper(&database, "queue_read('q', wait => '1 hour')")?;
    client.execute("SELECT enough.queue_extend('q', $1, '200 ms')", &[&sent])?;
    let began = Instant::now();
    ensure!(queue::ids(&reader.join().expect("a reader panicked")?) == [sent]);
    ensure!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    Ok(())
}

#[test]
fn more_readers_than_one_commit_wakes_all_get_theirs() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('q')")?;
    // Their messages are delayed, and come due all at once.
    let readers =
        (0..80).map(|_| sleeper(&database, "queue_pop('q', wait => '1 hour')")).collect::<Result<Vec<_>>>()?;
    client.batch_execute(
        "SELECT count(enough.queue_send('q', '1', deliver_at => t)) FROM generate_series(1, 80), \
         (SELECT clock_timestamp() + '300 ms' AS t) AS due",
    )?;
    let began = Instant::now();
    for (reader, _) in readers {
        ensure!(reader.join().expect("a reader panicked")?.len() == 1);
    }
    ensure!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    Ok(())
}

//! Leases up to what the queues' memory holds.

use crate::wait::sleeper;
use anyhow::{Context, Result, ensure};
use enough_pg_test::check::refused;
use enough_pg_test::queue::{self, Message, read};
use enough_pg_test::server::{self, Database};
use postgres::Client;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};
use xtask::server::Server;

/// A queue in an index of the smallest size.
fn made() -> Result<(Server, Client)> {
    let server = server::start(&server::options()?.conf("enough.queue_memory", "64kB"))?;
    let mut client = Database::on(&server)?.client()?;
    client.batch_execute("SELECT enough.queue_create('q', visibility_timeout => '1 hour', retry_backoff => '0')")?;
    Ok((server, client))
}

fn status(client: &mut Client, item: &str) -> Result<String> {
    Ok(client.query_one("SELECT value FROM enough.status() WHERE item = $1", &[&item])?.get(0))
}

/// Reads 50 at a time until that is refused; what came, and the error's hint.
fn read_until_full(client: &mut Client) -> Result<(Vec<Message>, String)> {
    let mut came = Vec::new();
    loop {
        match read(client, "q", 50) {
            Ok(messages) => {
                ensure!(!messages.is_empty(), "an empty answer after {} messages", came.len());
                came.extend(messages);
            }
            error => return Ok((came, refused(error, "53400")?)),
        }
    }
}

#[test]
fn a_read_that_finds_no_place_for_a_lease_names_the_setting() -> Result<()> {
    let (_server, mut client) = made()?;
    queue::send_numbers(&mut client, "q", 3000)?;
    ensure!(status(&mut client, "warnings")? == "none");
    let (leased, hint) = read_until_full(&mut client)?;
    ensure!(hint.contains("enough.queue_memory"), "the hint: {hint}");
    ensure!(leased.len() > 500, "{} leases in 64 kB", leased.len());
    let distinct: BTreeSet<i64> = leased.iter().map(|message| message.msg_id).collect();
    ensure!(distinct.len() == leased.len() && leased.iter().all(|message| message.attempts == 1));
    ensure!(status(&mut client, "warnings")?.contains("53400"), "{}", status(&mut client, "warnings")?);
    // Waiting doesn't help, and sending goes on.
    refused(queue::receive(&mut client, "queue_read('q', wait => '1 minute')"), "53400")?;
    queue::send(&mut client, "q", &json!("another"))?;
    // A place that is given up is the next one's, and a read that gets fewer than it asked for has them.
    for message in &leased[..3] {
        ensure!(queue::delete(&mut client, "q", message.msg_id, message.lease)?);
    }
    let more = read(&mut client, "q", 50)?;
    ensure!((1..=3).contains(&more.len()), "{} messages for 3 places", more.len());
    ensure!(more.iter().all(|message| !distinct.contains(&message.msg_id)));
    Ok(())
}

#[test]
fn everything_is_delivered_once_where_what_is_leased_is_finished() -> Result<()> {
    let (_server, mut client) = made()?;
    queue::send_numbers(&mut client, "q", 5000)?;
    let mut seen = BTreeSet::new();
    while seen.len() < 5000 {
        let (leased, _) = match read(&mut client, "q", 200) {
            Ok(messages) => (messages, String::new()),
            error => (Vec::new(), refused(error, "53400")?),
        };
        ensure!(!leased.is_empty(), "nothing came after {}", seen.len());
        for message in &leased {
            ensure!(seen.insert(message.msg_id), "message {} came twice", message.msg_id);
            ensure!(queue::delete(&mut client, "q", message.msg_id, message.lease)?);
        }
    }
    ensure!(read(&mut client, "q", 1)?.is_empty());
    Ok(())
}

#[test]
fn leases_that_end_make_room_again() -> Result<()> {
    let (_server, mut client) = made()?;
    queue::send_numbers(&mut client, "q", 3000)?;
    let (leased, _) = read_until_full(&mut client)?;
    let last = leased.last().context("nothing was leased")?;
    client.query_one("SELECT enough.queue_extend('q', $1, '0', $2)", &[&last.msg_id, &last.lease])?;
    let again = read(&mut client, "q", 5)?;
    ensure!(again.iter().any(|message| message.msg_id == last.msg_id && message.attempts == 2), "{again:?}");
    Ok(())
}

#[test]
fn another_queue_is_read_beside_one_that_is_full_of_what_was_given_back() -> Result<()> {
    let (_server, mut client) = made()?;
    client.batch_execute("SELECT enough.queue_create('other')")?;
    queue::send_numbers(&mut client, "q", 3000)?;
    client.batch_execute("BEGIN")?;
    let (leased, _) = read_until_full(&mut client)?;
    ensure!(!leased.is_empty());
    client.batch_execute("ROLLBACK")?;
    queue::send_numbers(&mut client, "other", 1)?;
    ensure!(read(&mut client, "other", 1)?.len() == 1);
    Ok(())
}

/// How long a process has been on a processor.
fn busy(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("a name")?.1.split_whitespace().collect();
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(10) * u32::try_from(ticks)?)
}

#[test]
fn a_reader_sleeps_while_there_is_no_room_for_what_is_due() -> Result<()> {
    let server = server::start(&server::options()?.conf("enough.queue_memory", "64kB"))?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('q', visibility_timeout => '1 hour')")?;
    client.batch_execute("SET statement_timeout = '10 s'")?;
    // As many leases as there is room for, and nothing else in the table.
    let mut leased = Vec::new();
    let unread = loop {
        let msg_id = queue::send(&mut client, "q", &json!(1))?;
        match read(&mut client, "q", 1) {
            Ok(messages) => leased.extend(messages),
            error => {
                refused(error, "53400")?;
                break msg_id;
            }
        }
    };
    ensure!(queue::delete(&mut client, "q", unread, None)?);
    ensure!(read(&mut client, "q", 1)?.is_empty());
    // One that comes due later finds no room either, which keeps nothing from being read.
    let later: i64 = client.query_one("SELECT enough.queue_send('q', '1', delay => '30 s')", &[])?.get(0);
    ensure!(read(&mut client, "q", 1)?.is_empty());
    ensure!(queue::delete(&mut client, "q", later, None)?);
    client.batch_execute("SELECT enough.queue_send('q', '2', delay => '100 ms')")?;
    thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    ensure!(read(&mut client, "q", 1)?.is_empty());
    ensure!(queue::receive(&mut client, "queue_read('q', wait => '500 ms')")?.is_empty());
    ensure!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let (reader, pid) = sleeper(&database, "queue_read('q', wait => '20 s')")?;
    let before = busy(pid)?;
    thread::sleep(Duration::from_secs(3));
    let took = busy(pid)?.saturating_sub(before);
    ensure!(took < Duration::from_millis(300), "a session that waits for room took {took:?} in three seconds");
    // Some of the leased ones are finished.
    let began = Instant::now();
    for message in &leased[..9] {
        ensure!(queue::delete(&mut client, "q", message.msg_id, message.lease)?);
    }
    ensure!(reader.join().expect("a reader panicked")?.len() == 1);
    ensure!(began.elapsed() < Duration::from_secs(5), "{:?} after there was room", began.elapsed());
    Ok(())
}

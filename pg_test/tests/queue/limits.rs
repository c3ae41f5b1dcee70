//! Limits of a queue: messages in flight, deliveries in a time.

use anyhow::{Result, ensure};
use enough_pg_test::queue::{delete, ids, read, send_numbers};
use enough_pg_test::server::{Database, backend, until_waiting};
use postgres::Client;

fn made(options: &str) -> Result<(Database, Client)> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute(&format!("SELECT enough.queue_create('q', {options})"))?;
    Ok((database, client))
}

/// How many messages all sessions together get, each reading one at a time until it gets none.
fn read_by_all(database: &Database, sessions: usize) -> Result<usize> {
    let sessions: Vec<_> = (0..sessions)
        .map(|_| {
            let mut client = database.client()?;
            Ok(std::thread::spawn(move || -> Result<usize> {
                let mut got = 0;
                while !read(&mut client, "q", 1)?.is_empty() {
                    got += 1;
                }
                Ok(got)
            }))
        })
        .collect::<Result<_>>()?;
    sessions.into_iter().map(|session| session.join().expect("a session's thread")).sum()
}

#[test]
fn no_more_are_in_flight_than_allowed() -> Result<()> {
    let (database, mut client) = made("max_in_flight => 7, visibility_timeout => '1 hour'")?;
    send_numbers(&mut client, "q", 40)?;
    ensure!(read_by_all(&database, 8)? == 7);
    client.batch_execute("BEGIN")?;
    ensure!(delete(&mut client, "q", 1, None)?);
    ensure!(read_by_all(&database, 8)? == 0, "a deletion that isn't committed keeps its place");
    client.batch_execute("COMMIT")?;
    ensure!(read_by_all(&database, 8)? == 1);
    Ok(())
}

#[test]
fn a_place_that_becomes_free_wakes_a_waiting_reader() -> Result<()> {
    let (database, mut client) = made("max_in_flight => 1, visibility_timeout => '1 hour'")?;
    send_numbers(&mut client, "q", 2)?;
    ensure!(ids(&read(&mut client, "q", 5)?) == [1]);
    let mut other = database.client()?;
    let pid = backend(&mut other)?;
    let waiting =
        std::thread::spawn(move || other.query("SELECT msg_id FROM enough.queue_read('q', 1, NULL, '1 minute')", &[]));
    until_waiting(&mut client, pid)?;
    ensure!(delete(&mut client, "q", 1, None)?);
    let rows = waiting.join().expect("the reader's thread")?;
    ensure!(rows.len() == 1 && rows[0].get::<_, i64>(0) == 2);
    Ok(())
}

#[test]
fn no_more_are_delivered_in_a_time_than_allowed() -> Result<()> {
    let (database, mut client) = made("max_rate => 9, rate_period => '10 days'")?;
    send_numbers(&mut client, "q", 40)?;
    ensure!(read_by_all(&database, 8)? == 9);
    Ok(())
}

#[test]
fn a_waiting_reader_gets_the_next_one_when_its_time_comes() -> Result<()> {
    let (_database, mut client) = made("max_rate => 1, rate_period => '200 milliseconds'")?;
    send_numbers(&mut client, "q", 3)?;
    for expected in 1..=3 {
        let rows = client.query("SELECT msg_id FROM enough.queue_read('q', 3, NULL, '1 minute')", &[])?;
        ensure!(rows.len() == 1 && rows[0].get::<_, i64>(0) == expected);
    }
    Ok(())
}

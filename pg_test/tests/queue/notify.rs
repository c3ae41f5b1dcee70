//! NOTIFY when an empty queue becomes ready.

use anyhow::{Result, ensure};
use enough_pg_test::queue::{made, read, send};
use enough_pg_test::server::Database;
use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;
use serde_json::json;
use std::time::Duration;

fn listening(database: &Database, channels: &[&str]) -> Result<Client> {
    let mut client = database.client()?;
    for channel in channels {
        client.batch_execute(&format!("LISTEN \"{channel}\""))?;
    }
    Ok(client)
}

/// What the session has been told so far. A statement's answer comes after all that was told before.
fn told(client: &mut Client) -> Result<Vec<String>> {
    client.batch_execute("SELECT 1")?;
    let mut told = Vec::new();
    let mut notifications = client.notifications();
    let mut all = notifications.iter();
    while let Some(one) = all.next()? {
        ensure!(one.payload().is_empty(), "{one:?}");
        told.push(one.channel().to_owned());
    }
    Ok(told)
}

/// Waits for the next time that something is told.
fn next(client: &mut Client) -> Result<Option<String>> {
    let mut notifications = client.notifications();
    Ok(notifications.timeout_iter(Duration::from_secs(20)).next()?.map(|one| one.channel().to_owned()))
}

/// Lets the time pass in which listeners aren't told again.
fn pause() {
    std::thread::sleep(Duration::from_millis(260));
}

#[test]
fn an_empty_queue_that_becomes_ready_is_told_once() -> Result<()> {
    let (database, mut client, mut reader) = made(", notify => true")?;
    let mut listener = listening(&database, &["enough_q", "enough_other"])?;
    client.batch_execute("SELECT enough.queue_create('other'); SELECT enough.queue_send('other', '1')")?;
    // By the index, which has to have read the table once.
    read(&mut reader, "q", 1)?;
    client.batch_execute("BEGIN; SELECT enough.queue_send('q', '1') FROM generate_series(1, 10)")?;
    ensure!(told(&mut listener)?.is_empty(), "before the commit");
    client.batch_execute("COMMIT")?;
    ensure!(next(&mut listener)?.as_deref() == Some("enough_q"));
    pause();
    // It is not empty any more.
    send(&mut client, "q", &json!(2))?;
    ensure!(told(&mut listener)?.is_empty());
    ensure!(read(&mut reader, "q", 20)?.len() == 11);
    send(&mut client, "q", &json!(3))?;
    ensure!(next(&mut listener)?.as_deref() == Some("enough_q"));
    ensure!(told(&mut listener)?.is_empty());
    Ok(())
}

#[test]
fn what_makes_nothing_ready_tells_nobody() -> Result<()> {
    let (database, mut client, mut reader) = made(", notify => true")?;
    read(&mut reader, "q", 1)?;
    let mut listener = listening(&database, &["enough_q"])?;
    client.batch_execute("BEGIN; SELECT enough.queue_send('q', '1'); ROLLBACK")?;
    client.batch_execute("BEGIN; SAVEPOINT s; SELECT enough.queue_send('q', '1'); ROLLBACK TO s; COMMIT")?;
    client.batch_execute("SELECT enough.queue_send('q', '1', delay => '1 hour')")?;
    client.batch_execute("BEGIN; SELECT enough.queue_delete('q', enough.queue_send('q', '1')); COMMIT")?;
    client.batch_execute("BEGIN; SELECT enough.queue_send('q', '1'); SELECT enough.queue_pause('q'); COMMIT")?;
    client.batch_execute("SELECT enough.queue_send('q', '1')")?;
    ensure!(told(&mut listener)?.is_empty());
    Ok(())
}

#[test]
fn what_comes_back_is_told_too() -> Result<()> {
    let (database, mut client, mut reader) = made(", notify => true, retry_backoff => '0'")?;
    let mut listener = listening(&database, &["enough_q"])?;
    read(&mut reader, "q", 1)?;
    let id = send(&mut client, "q", &json!(1))?;
    ensure!(next(&mut listener)?.is_some());
    for call in [
        format!("queue_fail('q', {id}, 'x', '0')"),
        format!("queue_release('q', {id})"),
        format!("queue_fail('q', {id}, dead => true)"),
    ] {
        ensure!(read(&mut reader, "q", 1)?.len() == 1);
        pause();
        client.batch_execute(&format!("SELECT enough.{call}"))?;
        if !call.contains("dead") {
            ensure!(next(&mut listener)?.is_some(), "{call}");
        }
    }
    ensure!(told(&mut listener)?.is_empty());
    client.batch_execute("SELECT enough.queue_redrive('q')")?;
    ensure!(next(&mut listener)?.is_some(), "redrive");
    Ok(())
}

#[test]
fn what_came_due_by_itself_is_told_by_maintenance() -> Result<()> {
    let (database, mut client, mut reader) = made(", notify => true")?;
    let mut listener = listening(&database, &["enough_q"])?;
    read(&mut reader, "q", 1)?;
    client.batch_execute("SELECT enough.queue_send('q', '1', delay => '100 ms')")?;
    enough_pg_test::check::eventually("the delay is over", || {
        let row = client.query_one("SELECT ready FROM enough.queue_stats('q')", &[])?;
        Ok((row.get::<_, i64>(0) == 1).then_some(()))
    })?;
    ensure!(told(&mut listener)?.is_empty());
    client.batch_execute("SELECT * FROM enough.maintain()")?;
    ensure!(next(&mut listener)?.is_some());
    // Once.
    client.batch_execute("SELECT * FROM enough.maintain()")?;
    ensure!(told(&mut listener)?.is_empty());
    Ok(())
}

/// Senders and a consumer that reads by the rule of the comment: nothing is left lying, whatever the listener wasn't told.
#[test]
fn who_reads_until_nothing_comes_for_as_long_misses_nothing() -> Result<()> {
    let (database, mut client, mut reader) = made(", notify => true")?;
    let mut listener = listening(&database, &["enough_q"])?;
    let sender = std::thread::spawn(move || -> Result<()> {
        for n in 0..200 {
            send(&mut client, "q", &json!(n))?;
            if n % 20 == 0 {
                std::thread::sleep(Duration::from_millis(n % 60 * 5));
            }
        }
        Ok(())
    });
    let mut got = 0;
    while got < 200 {
        ensure!(next(&mut listener)?.is_some(), "{got} came, and then nobody was told");
        loop {
            let some = enough_pg_test::queue::receive(&mut reader, "queue_pop('q', 10, wait => '250 ms')")?.len();
            got += some;
            if some == 0 {
                break;
            }
        }
    }
    ensure!(sender.join().is_ok_and(|sent| sent.is_ok()));
    Ok(())
}

#[test]
fn the_option_is_listed_and_altered() -> Result<()> {
    let (database, mut client, mut other) = made("")?;
    let mut listener = listening(&database, &["enough_q", "enough_r"])?;
    let listed = |client: &mut Client| -> Result<bool> {
        Ok(client.query_one("SELECT notify FROM enough.queue_list()", &[])?.get(0))
    };
    read(&mut other, "q", 1)?;
    send(&mut other, "q", &json!(1))?;
    ensure!(!listed(&mut client)? && told(&mut listener)?.is_empty());
    client.batch_execute("SELECT enough.queue_alter('q', notify => true)")?;
    ensure!(listed(&mut client)?);
    read(&mut client, "q", 1)?;
    send(&mut other, "q", &json!(1))?;
    ensure!(next(&mut listener)?.as_deref() == Some("enough_q"));
    client.batch_execute("SELECT enough.queue_rename('q', 'r')")?;
    read(&mut client, "r", 1)?;
    pause();
    send(&mut other, "r", &json!(1))?;
    ensure!(next(&mut listener)?.as_deref() == Some("enough_r"));
    client.batch_execute("SELECT enough.queue_alter('r', notify => false)")?;
    read(&mut client, "r", 1)?;
    pause();
    send(&mut other, "r", &json!(1))?;
    ensure!(!listed(&mut client)? && told(&mut listener)?.is_empty());
    Ok(())
}

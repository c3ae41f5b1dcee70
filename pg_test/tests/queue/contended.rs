//! Messages whose rows another transaction is changing.

use anyhow::{Result, ensure};
use enough_pg_test::check::eventually;
use enough_pg_test::queue;
use enough_pg_test::server::{Database, backend};

#[test]
fn a_read_does_not_wait_for_who_is_changing_a_row() -> Result<()> {
    let database = Database::new()?;
    let (mut client, mut other) = (database.client()?, database.client()?);
    client.batch_execute("SELECT enough.queue_create('q', max_attempts => 1, retry_backoff => '0')")?;
    let sent = queue::send_numbers(&mut client, "q", 3)?;
    // The first is to be buried, and all of them are held by an open transaction; then the last is free.
    client.batch_execute("BEGIN")?;
    ensure!(queue::ids(&queue::read(&mut client, "q", 1)?) == sent[..1]);
    client.batch_execute("ROLLBACK")?;
    client.batch_execute("BEGIN; SELECT FROM enough.q_q WHERE msg_id <= 2 FOR UPDATE")?;
    other.batch_execute("SET lock_timeout = '2s'")?;
    let popped = queue::receive(&mut other, "queue_pop('q', 3)")?;
    ensure!(queue::ids(&popped) == sent[2..], "{popped:?}");
    ensure!(queue::receive(&mut other, "queue_pop('q', 3, '50 milliseconds')")?.is_empty());
    client.batch_execute("COMMIT")?;
    ensure!(queue::ids(&queue::receive(&mut other, "queue_pop('q', 3)")?) == sent[1..2]);
    let dead: i64 = client.query_one("SELECT count(*) FROM enough.a_q WHERE outcome = 'dead'", &[])?.get(0);
    ensure!(dead == 1);
    Ok(())
}

#[test]
fn a_delete_that_waited_for_another_keeps_the_message_from_readers() -> Result<()> {
    let database = Database::new()?;
    let (mut client, mut second, mut reader) = (database.client()?, database.client()?, database.client()?);
    client.batch_execute("SELECT enough.queue_create('q')")?;
    let sent = queue::send_numbers(&mut client, "q", 1)?[0];
    client.batch_execute("BEGIN")?;
    ensure!(queue::delete(&mut client, "q", sent, None)?);
    let pid = backend(&mut second)?;
    let waiting = std::thread::spawn(move || -> Result<postgres::Client> {
        second.batch_execute("BEGIN")?;
        ensure!(queue::delete(&mut second, "q", sent, None)?);
        Ok(second)
    });
    eventually("the second deletion waits", || {
        let waits = "SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'";
        Ok(reader.query_opt(waits, &[&i32::try_from(pid)?])?.map(drop))
    })?;
    client.batch_execute("ROLLBACK")?;
    let mut second = waiting.join().expect("the second session's thread")?;
    ensure!(queue::read(&mut reader, "q", 1)?.is_empty(), "it is being deleted");
    second.batch_execute("ROLLBACK")?;
    ensure!(queue::ids(&queue::read(&mut reader, "q", 1)?) == [sent]);
    Ok(())
}

#[test]
fn a_message_that_is_being_buried_is_nobody_elses() -> Result<()> {
    let database = Database::new()?;
    let (mut client, mut other) = (database.client()?, database.client()?);
    client.batch_execute("SELECT enough.queue_create('q', max_attempts => 1, retry_backoff => '0')")?;
    let sent = queue::send_numbers(&mut client, "q", 1)?[0];
    client.batch_execute("BEGIN")?;
    ensure!(queue::read(&mut client, "q", 1)?.len() == 1);
    client.batch_execute("ROLLBACK; BEGIN")?;
    ensure!(queue::read(&mut client, "q", 1)?.is_empty());
    let extended = "SELECT enough.queue_extend('q', $1, '0') IS NOT NULL";
    ensure!(!other.query_one(extended, &[&sent])?.get::<_, bool>(0), "its lease is over");
    ensure!(queue::read(&mut other, "q", 1)?.is_empty());
    client.batch_execute("ROLLBACK")?;
    // And it is buried by the next reader.
    ensure!(queue::read(&mut other, "q", 1)?.is_empty());
    let dead: i64 = client.query_one("SELECT count(*) FROM enough.a_q WHERE outcome = 'dead'", &[])?.get(0);
    ensure!(dead == 1);
    Ok(())
}

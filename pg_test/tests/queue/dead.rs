//! Messages that fail too often: they die, and wait in the archive.

use anyhow::{Result, ensure};
use enough_pg_test::check::eventually;
use enough_pg_test::queue;
use enough_pg_test::server::Database;
use postgres::Client;
use serde_json::json;

fn made(options: &str) -> Result<(Database, Client)> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute(&format!("SELECT enough.queue_create('q'{options})"))?;
    Ok((database, client))
}

/// Reads until the queue's table is empty; how often something came.
fn read_until_gone(client: &mut Client) -> Result<usize> {
    let mut deliveries = 0;
    eventually("the message is dead", || {
        deliveries += queue::receive(client, "queue_read('q', 10, '20 milliseconds')")?.len();
        let left: bool = client.query_one("SELECT EXISTS (SELECT FROM enough.q_q)", &[])?.get(0);
        Ok((!left).then_some(()))
    })?;
    Ok(deliveries)
}

#[test]
fn after_max_attempts_a_message_is_dead_and_kept() -> Result<()> {
    let (_database, mut client) = made(", max_attempts => 3")?;
    let sent = queue::send(&mut client, "q", &json!({"poison": true}))?;
    let deliveries = read_until_gone(&mut client)?;
    ensure!(deliveries == 3, "{deliveries} deliveries of at most 3");
    let row = client.query_one("SELECT msg_id, attempts, outcome, error, message FROM enough.a_q", &[])?;
    ensure!(row.get::<_, i64>(0) == sent && row.get::<_, i32>(1) == 3);
    ensure!(row.get::<_, &str>(2) == "dead" && !row.get::<_, &str>(3).is_empty());
    ensure!(row.get::<_, serde_json::Value>(4) == json!({"poison": true}));
    ensure!(queue::stats(&mut client, "q")?.dead == 1);
    ensure!(queue::read(&mut client, "q", 10)?.is_empty());
    Ok(())
}

#[test]
fn one_poisonous_message_does_not_keep_the_others() -> Result<()> {
    let (_database, mut client) = made(", max_attempts => 1")?;
    queue::send(&mut client, "q", &json!("poison"))?;
    ensure!(queue::receive(&mut client, "queue_read('q', 1, '1 millisecond')")?.len() == 1);
    let sent = queue::send_numbers(&mut client, "q", 5)?;
    let mut seen = Vec::new();
    eventually("the others have come", || {
        seen.extend(queue::receive(&mut client, "queue_read('q', 10, '1 hour')")?);
        let dead: i64 = client.query_one("SELECT count(*) FROM enough.a_q", &[])?.get(0);
        Ok((seen.len() >= 5 && dead == 1).then_some(()))
    })?;
    ensure!(queue::sorted_ids(&seen) == sent, "{seen:?}");
    Ok(())
}

#[test]
fn a_death_that_rolls_back_happens_again() -> Result<()> {
    let (_database, mut client) = made(", max_attempts => 1, retry_backoff => '1 millisecond'")?;
    let sent = queue::send(&mut client, "q", &json!("poison"))?;
    ensure!(queue::receive(&mut client, "queue_read('q', 1, '1 millisecond')")?.len() == 1);
    for _ in 0..3 {
        eventually("the message has died in this transaction", || {
            client.batch_execute("BEGIN")?;
            let read = queue::receive(&mut client, "queue_read('q', 1, '1 hour')")?;
            ensure!(read.is_empty(), "delivered once too often: {read:?}");
            let dead: i64 = client.query_one("SELECT count(*) FROM enough.a_q", &[])?.get(0);
            client.batch_execute("ROLLBACK")?;
            Ok((dead == 1).then_some(()))
        })?;
        ensure!(client.query_one("SELECT count(*) FROM enough.a_q", &[])?.get::<_, i64>(0) == 0);
    }
    ensure!(read_until_gone(&mut client)? == 0);
    ensure!(client.query_one("SELECT msg_id FROM enough.a_q", &[])?.get::<_, i64>(0) == sent);
    Ok(())
}

#[test]
fn a_read_only_reader_leaves_the_dying_to_others() -> Result<()> {
    let (_database, mut client) = made(", max_attempts => 1")?;
    queue::send(&mut client, "q", &json!("poison"))?;
    ensure!(queue::receive(&mut client, "queue_read('q', 1, '1 millisecond')")?.len() == 1);
    client.batch_execute("BEGIN READ ONLY")?;
    ensure!(queue::receive(&mut client, "queue_read('q', 1, '20 milliseconds')")?.is_empty());
    client.batch_execute("COMMIT")?;
    ensure!(read_until_gone(&mut client)? == 0);
    Ok(())
}

#[test]
fn rollbacks_count_as_attempts() -> Result<()> {
    let (_database, mut client) = made(", max_attempts => 4, retry_backoff => '1 millisecond'")?;
    queue::send(&mut client, "q", &json!("poison"))?;
    let mut deliveries = 0;
    eventually("the message is dead", || {
        client.batch_execute("BEGIN")?;
        let read = queue::receive(&mut client, "queue_read('q', 1, '1 hour')")?;
        deliveries += read.len();
        client.batch_execute(if read.is_empty() { "COMMIT" } else { "ROLLBACK" })?;
        let left: bool = client.query_one("SELECT EXISTS (SELECT FROM enough.q_q)", &[])?.get(0);
        Ok((!left).then_some(()))
    })?;
    ensure!(deliveries == 4, "{deliveries} deliveries of at most 4");
    Ok(())
}

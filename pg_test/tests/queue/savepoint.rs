//! Transactions within transactions: savepoints, blocks that catch errors, and PREPARE TRANSACTION.

use anyhow::{Result, ensure};
use enough_pg_test::check::{eventually, refused};
use enough_pg_test::queue;
use postgres::Client;
use serde_json::json;

const OPTIONS: &str = ", visibility_timeout => '1 hour', retry_backoff => '1 millisecond'";

fn payloads(client: &mut Client) -> Result<Vec<serde_json::Value>> {
    Ok(queue::read(client, "q", 100)?.into_iter().map(|message| message.message).collect())
}

#[test]
fn rolling_back_to_a_savepoint_undoes_a_send() -> Result<()> {
    let (_database, mut client, mut other) = queue::made(OPTIONS)?;
    client.batch_execute(
        "BEGIN; SELECT enough.queue_send('q', '1'); \
         SAVEPOINT a; SELECT enough.queue_send('q', '2'); \
         SAVEPOINT b; SELECT enough.queue_send('q', '3'); RELEASE b; \
         ROLLBACK TO a; SELECT enough.queue_send('q', '4'); RELEASE a; \
         SAVEPOINT c; SELECT enough.queue_send('q', '5'); RELEASE c; \
         SAVEPOINT d; SAVEPOINT e; SELECT enough.queue_send('q', '6'); ROLLBACK TO d; COMMIT",
    )?;
    ensure!(payloads(&mut other)? == [json!(1), json!(4), json!(5)]);
    ensure!(queue::stats(&mut client, "q")?.leased == 3);
    Ok(())
}

#[test]
fn rolling_back_to_a_savepoint_gives_back_what_was_read_in_it() -> Result<()> {
    let (_database, mut client, mut other) = queue::made(OPTIONS)?;
    let sent = queue::send_numbers(&mut client, "q", 4)?;
    client.batch_execute("BEGIN")?;
    ensure!(queue::ids(&queue::read(&mut client, "q", 1)?) == sent[..1]);
    client.batch_execute("SAVEPOINT a")?;
    ensure!(queue::ids(&queue::read(&mut client, "q", 1)?) == sent[1..2]);
    client.batch_execute("SAVEPOINT b")?;
    ensure!(queue::ids(&queue::receive(&mut client, "queue_pop('q')")?) == sent[2..3]);
    client.batch_execute("ROLLBACK TO a")?;
    let mut back = Vec::new();
    eventually("two messages are back", || {
        back.extend(queue::read(&mut other, "q", 10)?);
        Ok((back.len() >= 3).then_some(()))
    })?;
    ensure!(queue::sorted_ids(&back) == sent[1..], "{back:?}");
    let attempts: i32 = back.iter().map(|message| message.attempts).sum();
    ensure!(attempts == 5, "two deliveries failed, one is the first: {back:?}");
    client.batch_execute("COMMIT")?;
    ensure!(queue::read(&mut other, "q", 10)?.is_empty(), "the first lease must stand");
    Ok(())
}

#[test]
fn rolling_back_to_a_savepoint_undoes_a_delete() -> Result<()> {
    let (_database, mut client, mut other) = queue::made(OPTIONS)?;
    let sent = queue::send_numbers(&mut client, "q", 3)?;
    let leased = queue::read(&mut client, "q", 1)?;
    client.batch_execute("BEGIN; SAVEPOINT a")?;
    ensure!(queue::delete(&mut client, "q", sent[0], leased[0].lease)?);
    ensure!(queue::delete(&mut client, "q", sent[1], None)?);
    client.batch_execute("ROLLBACK TO a")?;
    // What was ready is ready, and what was leased still is, by the same lease.
    ensure!(queue::ids(&queue::read(&mut other, "q", 10)?) == sent[1..]);
    ensure!(queue::delete(&mut client, "q", sent[0], leased[0].lease)?);
    client.batch_execute("SAVEPOINT b")?;
    ensure!(!queue::delete(&mut client, "q", sent[0], None)?, "it is deleted already");
    client.batch_execute("RELEASE b; COMMIT")?;
    ensure!(client.query_one("SELECT count(*) FROM enough.q_q", &[])?.get::<_, i64>(0) == 2);
    Ok(())
}

#[test]
fn what_is_sent_is_read_by_others_only() -> Result<()> {
    let (_database, mut client, mut other) = queue::made(OPTIONS)?;
    // A send shows at commit, to its own transaction no sooner than to others; its row can be deleted by number.
    client.batch_execute("BEGIN")?;
    let sent = queue::send(&mut client, "q", &json!(1))?;
    ensure!(queue::read(&mut client, "q", 1)?.is_empty());
    ensure!(queue::read(&mut other, "q", 1)?.is_empty());
    ensure!(queue::delete(&mut client, "q", sent, None)?);
    let kept = queue::send(&mut client, "q", &json!(2))?;
    client.batch_execute("COMMIT")?;
    ensure!(queue::ids(&queue::read(&mut other, "q", 10)?) == [kept]);
    Ok(())
}

#[test]
fn a_block_that_catches_its_error_undoes_what_was_in_it() -> Result<()> {
    let (_database, mut client, mut other) = queue::made(OPTIONS)?;
    let sent = queue::send(&mut client, "q", &json!("first"))?;
    client.batch_execute(
        "DO $$ BEGIN \
            FOR n IN 1..200 LOOP \
                BEGIN \
                    PERFORM enough.queue_send('q', to_jsonb(n)); \
                    IF n % 2 = 0 THEN RAISE EXCEPTION 'even'; END IF; \
                EXCEPTION WHEN raise_exception THEN NULL; END; \
            END LOOP; \
            BEGIN \
                PERFORM enough.queue_pop('q'); \
                PERFORM 1 / 0; \
            EXCEPTION WHEN division_by_zero THEN NULL; END; \
         END $$",
    )?;
    let mut seen = Vec::new();
    eventually("the popped message is back", || {
        seen.extend(queue::read(&mut other, "q", 1000)?);
        Ok((seen.len() >= 101).then_some(()))
    })?;
    ensure!(seen.len() == 101, "{} messages", seen.len());
    ensure!(seen.iter().any(|message| message.msg_id == sent && message.attempts == 2));
    ensure!(seen.iter().all(|message| message.message.as_i64().is_none_or(|n| n % 2 == 1)));
    Ok(())
}

#[test]
fn an_error_in_the_transaction_undoes_everything() -> Result<()> {
    let (_database, mut client, mut other) = queue::made(OPTIONS)?;
    let sent = queue::send_numbers(&mut client, "q", 2)?;
    client.batch_execute("BEGIN")?;
    ensure!(queue::read(&mut client, "q", 1)?.len() == 1);
    ensure!(queue::delete(&mut client, "q", sent[1], None)?);
    queue::send(&mut client, "q", &json!("unsent"))?;
    refused(client.simple_query("SELECT 1 / 0"), "22012")?;
    refused(client.simple_query("SELECT enough.queue_read('q')"), "25P02")?;
    client.batch_execute("COMMIT")?;
    let mut seen = Vec::new();
    eventually("both messages are back", || {
        seen.extend(queue::read(&mut other, "q", 10)?);
        Ok((seen.len() >= 2).then_some(()))
    })?;
    ensure!(queue::sorted_ids(&seen) == sent, "{seen:?}");
    Ok(())
}

#[test]
fn a_transaction_that_changed_a_queue_can_not_be_prepared() -> Result<()> {
    let (database, mut client, mut other) = queue::made(OPTIONS)?;
    let sent = queue::send(&mut client, "q", &json!(1))?;
    for call in ["queue_purge('q')", "queue_create('new')", "queue_drop('q')"] {
        eventually("the message is there", || Ok((queue::stats(&mut other, "q")?.ready == 1).then_some(())))?;
        client.batch_execute(&format!("BEGIN; SELECT enough.{call}"))?;
        refused(client.simple_query("PREPARE TRANSACTION 'never'"), "0A000")?;
        let prepared: i64 =
            client.query_one("SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()", &[])?.get(0);
        ensure!(prepared == 0, "{call} was prepared");
        // What rests after the rollback comes back by a look at the queue.
        eventually("the message is back", || {
            let read = queue::read(&mut other, "q", 1)?;
            if let Some(message) = read.first() {
                other.execute("SELECT enough.queue_extend('q', $1, '0')", &[&message.msg_id])?;
            }
            Ok((queue::ids(&read) == [sent]).then_some(()))
        })?;
    }
    // A transaction that has only looked, or used the limiter alone, can be. (`prepared.rs` has those that send and read, `prepared_ends.rs` those that finish.)
    let gid = format!("{}_fine", database.name);
    client.batch_execute(&format!(
        "BEGIN; SELECT enough.rate_limit('key', 1, '1 s'); SELECT enough.queue_stats('q'); CREATE TABLE t (a int); \
         PREPARE TRANSACTION '{gid}'"
    ))?;
    client.batch_execute(&format!("COMMIT PREPARED '{gid}'"))?;
    client.batch_execute("TABLE t")?;
    Ok(())
}

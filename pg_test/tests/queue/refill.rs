//! What a refill of the index costs and finds. Costs are counted in entries of the table's indexes that the server has come
//! by, not in time.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{eventually, refused};
use enough_pg_test::queue;
use postgres::Client;
use serde_json::json;

/// Entries of the table's indexes that sessions have come by so far.
fn walked(client: &mut Client) -> Result<i64> {
    client.batch_execute("SELECT pg_stat_force_next_flush()")?;
    let walked = "SELECT sum(pg_stat_get_tuples_returned(indexrelid))::bigint FROM pg_index \
                  WHERE indrelid = 'enough.q_q'::regclass";
    Ok(client.query_one(walked, &[])?.get(0))
}

/// How many entries `work` comes by for each of `times`, on the average.
fn cost(client: &mut Client, times: i64, mut work: impl FnMut(&mut Client) -> Result<()>) -> Result<i64> {
    let before = walked(client)?;
    for _ in 0..times {
        work(client)?;
    }
    Ok((walked(client)? - before) / times)
}

/// Sends that many messages that aren't due for an hour.
fn delayed(client: &mut Client, count: i32) -> Result<()> {
    let sent = "SELECT count(enough.queue_send('q', '0', delay => '1 hour')) FROM generate_series(1, $1)";
    client.execute(sent, &[&count])?;
    Ok(())
}

#[test]
fn a_transaction_of_its_own_messages_does_not_walk_the_delayed_ones() -> Result<()> {
    let (_database, mut client, mut other) = queue::made(", visibility_timeout => '1 hour', retry_backoff => '1 ms'")?;
    delayed(&mut client, 5000)?;
    let endings = ["COMMIT", "ROLLBACK", "ROLLBACK TO a; COMMIT", "RELEASE a; ROLLBACK", "RELEASE a; COMMIT"];
    for ending in endings {
        for group in ["NULL", "'g'"] {
            let transaction = |client: &mut Client| -> Result<()> {
                client.batch_execute("BEGIN; SAVEPOINT a")?;
                let send = format!("SELECT enough.queue_send('q', '1', group_key => {group})");
                let sent: i64 = client.query_one(&send, &[])?.get(0);
                ensure!(queue::read(client, "q", 1)?.is_empty());
                ensure!(queue::delete(client, "q", sent, None)?);
                Ok(client.batch_execute(ending)?)
            };
            // The first one's refill meets its own row.
            transaction(&mut client)?;
            let walked = cost(&mut client, 5, transaction)?;
            ensure!(walked < 50, "{walked} entries a transaction with {ending}, group {group}");
        }
    }
    // The same in two groups of several messages, of which one is read and finished, or not.
    for ending in endings {
        other.execute(
            "SELECT enough.queue_send('q', '1', group_key => 'g' || n % 2) FROM generate_series(1, 20) n",
            &[],
        )?;
        let walked = cost(&mut client, 5, |client| {
            client.batch_execute("BEGIN; SAVEPOINT a")?;
            queue::send(client, "q", &json!("more"))?;
            for message in queue::read(client, "q", 1)? {
                ensure!(queue::delete(client, "q", message.msg_id, message.lease)?);
            }
            client.batch_execute(ending)?;
            other.batch_execute("SELECT pg_sleep(0.003)")?;
            Ok(())
        })?;
        ensure!(walked < 100, "{walked} entries a transaction with {ending}, of groups");
    }
    Ok(())
}

#[test]
fn what_is_deleted_by_hand_and_rolled_back_costs_a_look_at_itself() -> Result<()> {
    let (_database, mut client, mut other) = queue::made(", visibility_timeout => '1 hour', max_attempts => 1000")?;
    let early = queue::send(&mut client, "q", &json!("early"))?;
    delayed(&mut client, 5000)?;
    client.execute("SELECT enough.queue_extend('q', msg_id, '0') FROM enough.queue_read('q')", &[])?;
    let walked = cost(&mut client, 10, |client| {
        client.batch_execute("BEGIN")?;
        client.execute("DELETE FROM enough.q_q WHERE msg_id = $1", &[&early])?;
        ensure!(queue::read(client, "q", 1)?.is_empty());
        client.batch_execute("ROLLBACK")?;
        ensure!(queue::ids(&queue::read(&mut other, "q", 1)?) == [early], "the rollback brings it back");
        other.execute("SELECT enough.queue_extend('q', $1, '0')", &[&early])?;
        Ok(())
    })?;
    ensure!(walked < 50, "{walked} entries a transaction");
    Ok(())
}

#[test]
fn a_refill_passes_over_what_its_transaction_has_deleted_and_a_rollback_brings_it_back() -> Result<()> {
    let (_database, mut client, mut other) = queue::made(", visibility_timeout => '1 hour'")?;
    // Nobody has read yet, so the index knows of none of them.
    let insert = "INSERT INTO enough.q_q (message, group_key, deliver_at) \
                  SELECT to_jsonb(n), CASE WHEN n % 3 = 0 THEN 'g' || n % 2 END, \
                         CASE WHEN n % 5 = 0 THEN now() - interval '1 hour' END FROM generate_series(1, 60) n";
    for (ending, left) in [("ROLLBACK", 60), ("ROLLBACK TO a; COMMIT", 60), ("COMMIT", 30)] {
        client.batch_execute("SELECT enough.queue_drop('q', true); SELECT enough.queue_create('q', visibility_timeout => '1 hour', retry_backoff => '1 ms')")?;
        client.batch_execute(insert)?;
        client.batch_execute("BEGIN; SAVEPOINT a; DELETE FROM enough.q_q WHERE msg_id % 2 = 0")?;
        let read = queue::read(&mut client, "q", 100)?;
        ensure!(read.iter().all(|message| message.msg_id % 2 == 1), "{ending}: {read:?}");
        ensure!(read.len() == 20 + 1, "{ending}: {} messages, of which one of the group", read.len());
        client.batch_execute(ending)?;
        let mut gone = if ending == "COMMIT" { queue::ids(&read) } else { Vec::new() };
        for id in gone.clone() {
            ensure!(queue::delete(&mut other, "q", id, None)?);
        }
        eventually(&format!("all are read after {ending}"), || {
            for message in queue::read(&mut other, "q", 100)? {
                ensure!(queue::delete(&mut other, "q", message.msg_id, message.lease)?);
                gone.push(message.msg_id);
            }
            Ok((gone.len() >= left).then_some(()))
        })?;
        ensure!(gone.len() == left, "{ending}: {gone:?}");
    }
    Ok(())
}

#[test]
fn what_one_transaction_purges_or_deletes_by_hand_hides_nothing_else_from_it() -> Result<()> {
    let (_database, mut client, mut other) = queue::made(", visibility_timeout => '1 hour'")?;
    for gone in ["SELECT enough.queue_purge('q')", "DELETE FROM enough.q_q"] {
        client.batch_execute("INSERT INTO enough.q_q (message) SELECT '0' FROM generate_series(1, 9000)")?;
        client.batch_execute(&format!("BEGIN; {gone}"))?;
        let sent = queue::send(&mut other, "q", &json!("later"))?;
        ensure!(queue::ids(&queue::read(&mut client, "q", 1)?) == [sent], "after {gone}");
        client.batch_execute("ROLLBACK; SELECT enough.queue_purge('q')")?;
    }
    Ok(())
}

#[test]
fn a_refill_that_is_cancelled_again_and_again_comes_to_its_end() -> Result<()> {
    let (_database, mut client, _other) = queue::made("")?;
    client.batch_execute(
        "INSERT INTO enough.q_q (message, deliver_at) SELECT '0', now() + interval '1 day' FROM generate_series(1, 200000); \
         INSERT INTO enough.q_q (message) VALUES ('1')",
    )?;
    client.batch_execute("SET statement_timeout = '5 ms'")?;
    for _ in 0..400 {
        match queue::read(&mut client, "q", 1) {
            Ok(read) => {
                ensure!(read.len() == 1, "{read:?}");
                return Ok(());
            }
            Err(error) => drop(refused(Err::<(), _>(error), "57014")?),
        }
    }
    anyhow::bail!("400 reads of 5 ms have found nothing")
}

/// Blocks of the table and its indexes that sessions have looked at so far.
fn blocks(client: &mut Client) -> Result<i64> {
    client.batch_execute("SELECT pg_stat_force_next_flush()")?;
    let fetched = "SELECT (pg_stat_get_blocks_fetched('enough.q_q'::regclass) + sum(pg_stat_get_blocks_fetched(indexrelid)))::bigint \
                   FROM pg_index WHERE indrelid = 'enough.q_q'::regclass";
    Ok(client.query_one(fetched, &[])?.get(0))
}

#[test]
fn reads_cost_the_same_however_many_dead_rows_vacuum_must_leave() -> Result<()> {
    let (database, mut client, mut other) = queue::made(", visibility_timeout => '1 hour'")?;
    client.batch_execute("ALTER TABLE enough.q_q SET (autovacuum_enabled = off)")?;
    delayed(&mut client, 10)?;
    ensure!(queue::read(&mut client, "q", 1)?.is_empty());
    // Keeps every row that is deleted from here on.
    let mut holder = database.client()?;
    holder.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM enough.q_q")?;
    let lives = |client: &mut Client, group: &str| -> Result<(i64, i64)> {
        let (entries, before) = (walked(client)?, blocks(client)?);
        for _ in 0..20 {
            client.execute(&format!("SELECT enough.queue_send('q', '1', group_key => {group})"), &[])?;
            let message = queue::read(client, "q", 1)?.pop().context("a message")?;
            ensure!(queue::delete(client, "q", message.msg_id, message.lease)?);
            client.batch_execute("BEGIN; SELECT enough.queue_send('q', '1')")?;
            ensure!(queue::read(client, "q", 1)?.is_empty());
            client.batch_execute("ROLLBACK")?;
        }
        Ok((walked(client)? - entries, blocks(client)? - before))
    };
    for (group, dead) in [("NULL", 20_000), ("'g'", 1000)] {
        let few = lives(&mut client, group)?;
        let send =
            format!("SELECT count(enough.queue_send('q', '0', group_key => {group})) FROM generate_series(1, $1)");
        other.execute(&send, &[&dead])?;
        other.batch_execute(
            "SELECT count(enough.queue_delete('q', msg_id)) FROM enough.q_q WHERE message = '0' AND deliver_at IS NULL",
        )?;
        ensure!(queue::read(&mut client, "q", 1)?.is_empty());
        let many = lives(&mut client, group)?;
        // An index of more rows may have a level more.
        ensure!(
            many.0 <= few.0 + 20 && many.1 <= few.1 + 20 * 40,
            "group {group}: {many:?} entries and blocks, {few:?} before"
        );
    }
    holder.batch_execute("COMMIT")?;
    Ok(())
}

//! Batches with deduplication keys: whose lock comes first, whose message is the first.

use anyhow::{Result, ensure};
use enough_pg_test::queue;
use enough_pg_test::server::{self, Database};
use postgres::Client;
use serde_json::{Value, json};
use std::thread;

const BATCH: &str = "SELECT enough.queue_send_batch('q', $1, dedup_keys => $2)";

fn send(client: &mut Client, keys: &[Option<&str>]) -> Result<Vec<i64>, postgres::Error> {
    let messages: Vec<Value> = keys.iter().enumerate().map(|(place, key)| json!([place, key])).collect();
    Ok(client.query(BATCH, &[&messages, &keys])?.iter().map(|row| row.get(0)).collect())
}

/// Waits until the session `pid` waits for another transaction.
fn until_locked(client: &mut Client, pid: u32) -> Result<()> {
    enough_pg_test::check::eventually("a session waits for a lock", || {
        let waits = "SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'";
        Ok(client.query_opt(waits, &[&i32::try_from(pid)?])?.map(drop))
    })
}

fn batches_in_opposite_order(alter: &str) -> Result<()> {
    for ending in ["COMMIT", "ROLLBACK"] {
        let (database, mut client, mut holder) = queue::made(", visibility_timeout => '1 hour'")?;
        client.batch_execute(alter)?;
        // Both come to a key that a third session holds, and have locked what comes before it.
        holder.batch_execute("BEGIN; SELECT enough.queue_send('q', '0', dedup_key => 'm')")?;
        let start = |keys: [&'static str; 3]| -> Result<(u32, thread::JoinHandle<Result<Vec<i64>>>)> {
            let mut session = database.client()?;
            let pid = server::backend(&mut session)?;
            Ok((pid, thread::spawn(move || Ok(send(&mut session, &keys.map(Some))?))))
        };
        let (one_pid, one) = start(["a", "m", "b"])?;
        until_locked(&mut client, one_pid)?;
        let (other_pid, other) = start(["b", "m", "a"])?;
        until_locked(&mut client, other_pid)?;
        holder.batch_execute(ending)?;
        let (Ok(one), Ok(other)) = (one.join(), other.join()) else { anyhow::bail!("a session has panicked") };
        let (one, mut other) = (one?, other?);
        other.reverse();
        ensure!(one == other, "the answers are in the order of the messages: {one:?}, {other:?}");
        ensure!(queue::sorted_ids(&queue::read(&mut client, "q", 10)?).len() == 3, "one message a key");
    }
    Ok(())
}

#[test]
fn batches_of_the_same_keys_in_opposite_order_do_not_deadlock() -> Result<()> {
    batches_in_opposite_order("")
}

#[test]
fn nor_where_the_executor_writes_the_rows() -> Result<()> {
    batches_in_opposite_order(
        "ALTER TABLE enough.q_q ALTER msg_id SET GENERATED ALWAYS; ALTER TABLE enough.q_q ADD further int",
    )
}

#[test]
fn a_batch_with_keys_is_sent_in_the_order_of_its_messages() -> Result<()> {
    let (_database, mut client, mut other) = queue::made(", visibility_timeout => '1 hour'")?;
    let first = send(&mut client, &[Some("taken")])?;
    let keys = [Some("z"), None, Some("b"), Some("taken"), None, Some("b"), Some("a"), None];
    let numbers = send(&mut client, &keys)?;
    ensure!(numbers[3] == first[0] && numbers[5] == numbers[2], "what is taken is answered: {numbers:?}");
    let new = [0, 1, 2, 4, 6, 7].map(|place| numbers[place]);
    ensure!(new.is_sorted() && new[0] > first[0], "{numbers:?}");
    let read = queue::read(&mut other, "q", 100)?;
    ensure!(queue::ids(&read[1..]) == new, "{read:?}");
    ensure!(read[1].message == json!([0, "z"]) && read[3].message == json!([2, "b"]), "the first of a key: {read:?}");
    // In one group, the order of the messages is that of their numbers.
    client.execute(
        "SELECT enough.queue_send_batch('q', ARRAY['0', '1', '2', '3']::jsonb[], dedup_keys => '{k9,k7,NULL,k8}', \
         group_keys => '{g,g,g,g}')",
        &[],
    )?;
    for expected in 0..4 {
        let read = queue::receive(&mut other, "queue_pop('q')")?;
        ensure!(read.len() == 1 && read[0].message == json!(expected), "{read:?}");
    }
    Ok(())
}

#[test]
fn a_batch_with_keys_that_fails_or_is_rolled_back_leaves_nothing() -> Result<()> {
    let (_database, mut client, mut other) = queue::made("")?;
    client.batch_execute(
        "BEGIN; SAVEPOINT a; \
         SELECT enough.queue_send_batch('q', ARRAY['0', '1']::jsonb[], dedup_keys => '{b,a}'); ROLLBACK TO a; COMMIT; \
         ALTER TABLE enough.q_q ADD CHECK (message <> '7')",
    )?;
    let failing = "SELECT enough.queue_send_batch('q', ARRAY['0', '7']::jsonb[], dedup_keys => '{b,a}')";
    enough_pg_test::check::refused(client.execute(failing, &[]), "23514")?;
    ensure!(queue::read(&mut other, "q", 10)?.is_empty());
    ensure!(send(&mut other, &[Some("a"), Some("b")])?.len() == 2);
    ensure!(queue::read(&mut client, "q", 10)?.len() == 2);
    Ok(())
}

#[test]
fn shuffled_batches_at_once_never_deadlock() -> Result<()> {
    let database = Database::new()?;
    database.client()?.batch_execute("SELECT enough.queue_create('q')")?;
    let sessions: Vec<_> = (0..4_usize)
        .map(|session| {
            let mut client = database.client()?;
            Ok(thread::spawn(move || -> Result<()> {
                for round in 0..40_usize {
                    let names: Vec<String> = (0..20).map(|n| format!("{round} {n}")).collect();
                    let step = [1, 3, 7, 9][session];
                    let keys: Vec<_> = (0..20).map(|n| Some(names[(n * step + session) % 20].as_str())).collect();
                    ensure!(send(&mut client, &keys)?.len() == 20);
                }
                Ok(())
            }))
        })
        .collect::<Result<_>>()?;
    for session in sessions {
        session.join().map_err(|_| anyhow::anyhow!("a session has panicked"))??;
    }
    let live: i64 = database.client()?.query_one("SELECT count(*) FROM enough.q_q", &[])?.get(0);
    ensure!(live == 800);
    Ok(())
}

//! Groups: one message after the other.

use anyhow::{Result, ensure};
use enough_pg_test::queue::{delete, ids, made, read};
use enough_pg_test::server::{self, Database};
use postgres::GenericClient;
use std::collections::BTreeMap;
use xtask::server::Shutdown;

/// Sends `count` messages of a group.
fn send(client: &mut impl GenericClient, group: &str, count: i32) -> Result<()> {
    let send = "SELECT enough.queue_send('q', to_jsonb(i), group_key => $1) FROM generate_series(1, $2) AS i";
    client.execute(send, &[&group, &count])?;
    Ok(())
}

#[test]
fn the_next_of_a_group_comes_when_the_one_before_is_finished() -> Result<()> {
    let (_database, mut client, mut other) = made("")?;
    send(&mut client, "a", 3)?;
    send(&mut client, "b", 1)?;
    client.batch_execute("SELECT enough.queue_send('q', '1')")?;
    let first = read(&mut client, "q", 10)?;
    ensure!(ids(&first) == [1, 4, 5], "{first:?}");
    client.batch_execute("BEGIN")?;
    ensure!(delete(&mut client, "q", 1, None)?);
    ensure!(read(&mut other, "q", 10)?.is_empty(), "the deletion isn't committed");
    client.batch_execute("ROLLBACK")?;
    ensure!(read(&mut other, "q", 10)?.is_empty(), "nor will it be");
    ensure!(delete(&mut client, "q", 1, first[0].lease)?);
    ensure!(ids(&read(&mut other, "q", 10)?) == [2]);
    Ok(())
}

#[test]
fn a_rolled_back_delivery_keeps_its_place() -> Result<()> {
    let (_database, mut client, mut other) = made(", retry_backoff => '0'")?;
    send(&mut client, "a", 2)?;
    for attempts in 1..4 {
        client.batch_execute("BEGIN")?;
        let message = read(&mut client, "q", 10)?;
        ensure!((ids(&message), message[0].attempts) == (vec![1], attempts), "{message:?}");
        ensure!(read(&mut other, "q", 10)?.is_empty());
        client.batch_execute("ROLLBACK")?;
    }
    Ok(())
}

#[test]
fn a_dead_message_lets_its_group_go_on() -> Result<()> {
    let (_database, mut client, _) = made(", max_attempts => 1, retry_backoff => '0'")?;
    send(&mut client, "a", 2)?;
    client.batch_execute("BEGIN")?;
    ensure!(ids(&read(&mut client, "q", 10)?) == [1]);
    client.batch_execute("ROLLBACK")?;
    // This read buries the first one, and gets the second.
    ensure!(ids(&read(&mut client, "q", 10)?) == [2]);
    ensure!(read(&mut client, "q", 10)?.is_empty());
    Ok(())
}

#[test]
fn a_delayed_message_holds_its_group_up_after_a_restart_too() -> Result<()> {
    let mut server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('q')")?;
    client.batch_execute(
        "SELECT enough.queue_send('q', '1', delay => '1 hour', group_key => 'a');
         SELECT enough.queue_send('q', '2', group_key => 'a')",
    )?;
    ensure!(read(&mut client, "q", 10)?.is_empty());
    drop(client);
    server.restart(Shutdown::Fast)?;
    let mut client = database.client()?;
    ensure!(read(&mut client, "q", 10)?.is_empty());
    client.batch_execute("UPDATE enough.q_q SET deliver_at = NULL WHERE msg_id = 1")?;
    client.batch_execute("SELECT * FROM enough.maintain()")?;
    ensure!(ids(&read(&mut client, "q", 10)?) == [1]);
    Ok(())
}

/// Drains the queue by several sessions at once; each group must come in order, whatever the index has room for.
fn drained_in_order(database: &Database, groups: usize, count: i32) -> Result<()> {
    let sessions: Vec<_> = (0..4)
        .map(|_| {
            let mut client = database.client()?;
            Ok(std::thread::spawn(move || -> Result<Vec<(String, i64)>> {
                let mut seen = Vec::new();
                let read =
                    "SELECT msg_id, group_key, lease FROM enough.queue_read('q', 7, '10 minutes', '300 milliseconds')";
                loop {
                    let mut transaction = client.transaction()?;
                    let rows = transaction.query(read, &[])?;
                    for row in &rows {
                        seen.push((row.get(1), row.get(0)));
                        let done = transaction.query_one(
                            "SELECT enough.queue_delete('q', $1, $2)",
                            &[&row.get::<_, i64>(0), &row.get::<_, i64>(2)],
                        )?;
                        ensure!(done.get::<_, bool>(0));
                    }
                    transaction.commit()?;
                    if rows.is_empty() {
                        return Ok(seen);
                    }
                }
            }))
        })
        .collect::<Result<_>>()?;
    let mut by_group: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for session in sessions {
        let mut last: BTreeMap<String, i64> = BTreeMap::new();
        for (group, msg_id) in session.join().expect("a session's thread")? {
            let before = last.insert(group.clone(), msg_id);
            ensure!(before.is_none_or(|before| before < msg_id), "group {group}: {msg_id} after {before:?}");
            by_group.entry(group).or_default().push(msg_id);
        }
    }
    ensure!(by_group.len() == groups, "{} groups", by_group.len());
    for (group, mut seen) in by_group {
        seen.sort_unstable();
        seen.dedup();
        ensure!(seen.len() == count as usize, "group {group}: {} of {count}", seen.len());
    }
    Ok(())
}

#[test]
fn long_groups_are_drained_in_order() -> Result<()> {
    let (database, mut client, _) = made("")?;
    for group in ["a", "b", "c"] {
        send(&mut client, group, 400)?;
    }
    drained_in_order(&database, 3, 400)
}

#[test]
fn a_message_that_never_came_to_be_keeps_no_group_waiting() -> Result<()> {
    let (_database, mut client, mut other) = made("")?;
    // Read once, so that the index knows the table to its end.
    ensure!(read(&mut other, "q", 1)?.is_empty());
    for finish in ["queue_fail('q', id, retry_in => '1 hour')", "queue_delete('q', id)", "queue_archive('q', id)"] {
        client.batch_execute(&format!(
            "BEGIN; SELECT enough.{finish} FROM enough.queue_send('q', '0', group_key => 'g', delay => '1 hour') AS id; ROLLBACK"
        ))?;
        send(&mut client, "g", 1)?;
        let came = read(&mut other, "q", 1)?;
        ensure!(came.len() == 1, "the group waits after {finish}");
        ensure!(delete(&mut other, "q", came[0].msg_id, came[0].lease)?);
    }
    Ok(())
}

#[test]
fn a_message_failed_by_its_own_sender_comes_after_the_earlier_ones() -> Result<()> {
    let (_database, mut client, mut other) = made("")?;
    ensure!(read(&mut other, "q", 1)?.is_empty());
    client.batch_execute(
        "BEGIN;
         SELECT enough.queue_send('q', '1', group_key => 'g');
         SELECT enough.queue_fail('q', id, retry_in => '1 hour') FROM enough.queue_send('q', '2', group_key => 'g') AS id;
         COMMIT",
    )?;
    let came = read(&mut other, "q", 10)?;
    ensure!(came.len() == 1 && came[0].message == serde_json::json!(1), "{came:?}");
    Ok(())
}

#[test]
fn a_group_goes_on_past_followers_that_were_finished_by_their_numbers() -> Result<()> {
    let (_database, mut client, mut other) = made("")?;
    send(&mut client, "a", 7)?;
    let head = read(&mut client, "q", 10)?;
    ensure!(ids(&head) == [1], "{head:?}");
    // The next one is deleted, the one after it in a transaction that stays open, another is archived, another fails.
    ensure!(delete(&mut client, "q", 2, None)?);
    let mut open = other.transaction()?;
    ensure!(delete(&mut open, "q", 3, None)?);
    client.batch_execute("SELECT enough.queue_archive('q', 4); SELECT enough.queue_fail('q', 5, 'no', '0')")?;
    ensure!(delete(&mut client, "q", 1, head[0].lease)?);
    let next = read(&mut client, "q", 10)?;
    ensure!(ids(&next) == [5], "{next:?}");
    ensure!(delete(&mut client, "q", 5, next[0].lease)?);
    ensure!(ids(&read(&mut client, "q", 10)?) == [6]);
    open.rollback()?;
    ensure!(delete(&mut client, "q", 6, None)?);
    let back = read(&mut client, "q", 10)?;
    ensure!(ids(&back) == [3], "what was brought back comes before 7: {back:?}");
    ensure!(delete(&mut client, "q", 3, None)?);
    ensure!(ids(&read(&mut client, "q", 10)?) == [7]);
    ensure!(delete(&mut client, "q", 7, None)?);
    send(&mut client, "a", 1)?;
    ensure!(ids(&read(&mut client, "q", 10)?) == [8]);
    Ok(())
}

#[test]
fn a_group_goes_on_past_followers_that_were_deleted_by_hand() -> Result<()> {
    let (_database, mut client, mut other) = made("")?;
    send(&mut client, "a", 500)?;
    let mut left: Vec<i64> = (1..=500).collect();
    while !left.is_empty() {
        let came = read(&mut client, "q", 10)?;
        ensure!(ids(&came) == left[..1], "{came:?}, where {} are left", left.len());
        // The next ones, of which the index may know one.
        other.execute("DELETE FROM enough.q_q WHERE msg_id > $1 AND msg_id <= $1 + 5", &[&came[0].msg_id])?;
        ensure!(delete(&mut client, "q", came[0].msg_id, came[0].lease)?);
        left.retain(|id| *id > came[0].msg_id + 5);
    }
    ensure!(read(&mut client, "q", 10)?.is_empty());
    Ok(())
}

#[test]
fn a_group_is_delivered_in_order_while_its_messages_are_sent_and_others_are_rolled_back() -> Result<()> {
    const COUNT: i32 = 300;
    let (database, mut client, _) = made(", retry_backoff => '0'")?;
    let senders: Vec<_> = (0..3)
        .map(|group| {
            let mut client = database.client()?;
            Ok(std::thread::spawn(move || -> Result<()> {
                for number in 0..COUNT {
                    let mut transaction = client.transaction()?;
                    send(&mut transaction, &format!("g{group}"), 1)?;
                    if number % 7 == 0 {
                        transaction.rollback()?;
                        send(&mut client, &format!("g{group}"), 1)?;
                    } else {
                        transaction.commit()?;
                    }
                }
                Ok(())
            }))
        })
        .collect::<Result<_>>()?;
    drained_in_order(&database, 3, COUNT)?;
    for sender in senders {
        sender.join().expect("a sender's thread")?;
    }
    ensure!(read(&mut client, "q", 10)?.is_empty());
    Ok(())
}

#[test]
fn no_group_waits_for_the_many_messages_of_another() -> Result<()> {
    let (_database, mut client, _) = made("")?;
    send(&mut client, "large", 5_000)?;
    send(&mut client, "small", 3)?;
    let mut order = Vec::new();
    for _ in 0..7 {
        let came = read(&mut client, "q", 1)?;
        ensure!(came.len() == 1);
        order.push(came[0].msg_id);
        ensure!(delete(&mut client, "q", came[0].msg_id, came[0].lease)?);
    }
    ensure!(order == [1, 5001, 2, 5002, 3, 5003, 4], "{order:?}");
    Ok(())
}

#[test]
fn a_follower_that_its_own_transaction_ends_leaves_its_group_as_it_was() -> Result<()> {
    let (_database, mut client, mut other) = made("")?;
    send(&mut client, "a", 1)?;
    let head = read(&mut client, "q", 1)?;
    for end in ["queue_delete('q', id)", "queue_archive('q', id)"] {
        other.batch_execute(&format!(
            "BEGIN; SELECT enough.{end} FROM enough.queue_send('q', '0', group_key => 'a') AS id; COMMIT"
        ))?;
    }
    let sent: i64 = client.query_one("SELECT enough.queue_send('q', '1', group_key => 'a')", &[])?.get(0);
    let stats = "SELECT sent_total, finished_total, archived, ready FROM enough.queue_stats('q')";
    let stats = client.query_one(stats, &[])?;
    let stats: [i64; 4] = std::array::from_fn(|column| stats.get(column));
    ensure!(stats == [4, 2, 1, 1], "sent, finished, archived, ready: {stats:?}");
    ensure!(delete(&mut client, "q", 1, head[0].lease)?);
    ensure!(ids(&read(&mut client, "q", 10)?) == [sent]);
    Ok(())
}

//! Readers that ask for whole groups: several messages of one group in one read.

use anyhow::{Result, ensure};
use enough_pg_test::queue::{delete, ids, made, read, receive};
use enough_pg_test::server::{backend, until_waiting};
use postgres::{Client, GenericClient};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

const OPTIONS: &str = ", visibility_timeout => '1 hour', retry_backoff => '0'";

/// Sends `count` messages of a group.
fn send(client: &mut impl GenericClient, group: &str, count: i32) -> Result<()> {
    let send = "SELECT enough.queue_send('q', to_jsonb(i), group_key => $1) FROM generate_series(1, $2) AS i";
    client.execute(send, &[&group, &count])?;
    Ok(())
}

/// The numbers that a read of whole groups gets.
fn whole(client: &mut Client, qty: i32) -> Result<Vec<i64>> {
    Ok(ids(&receive(client, &format!("queue_read('q', {qty}, whole_groups => true)"))?))
}

fn finish(client: &mut Client, numbers: &[i64]) -> Result<()> {
    numbers.iter().try_for_each(|id| {
        ensure!(delete(client, "q", *id, None)?, "message {id}");
        Ok(())
    })
}

#[test]
fn a_read_gets_a_group_in_order_and_no_other_reader_does() -> Result<()> {
    let (_database, mut client, mut other) = made(OPTIONS)?;
    send(&mut client, "a", 5)?;
    send(&mut client, "b", 2)?;
    client.batch_execute("SELECT enough.queue_send('q', '1')")?;
    ensure!(whole(&mut client, 3)? == [1, 2, 3]);
    ensure!(whole(&mut other, 9)? == [6, 7, 8]);
    ensure!(whole(&mut other, 9)?.is_empty() && read(&mut other, "q", 9)?.is_empty());
    finish(&mut client, &[3, 1])?;
    ensure!(whole(&mut other, 9)?.is_empty(), "one of them is leased");
    // Who waits for the group gets all of it.
    let pid = backend(&mut other)?;
    let waiting = std::thread::spawn(move || {
        other.query("SELECT msg_id FROM enough.queue_read('q', 9, wait => '1 minute', whole_groups => true)", &[])
    });
    until_waiting(&mut client, pid)?;
    finish(&mut client, &[2])?;
    let rows = waiting.join().expect("the reader's thread")?;
    ensure!(rows.iter().map(|row| row.get::<_, i64>(0)).eq([4, 5]), "{rows:?}");
    Ok(())
}

#[test]
fn what_failed_comes_first_when_the_others_have_ended() -> Result<()> {
    for fails in ["queue_fail('q', 2, retry_in => '0')", "queue_extend('q', 2, '0')", "queue_release('q', 2)"] {
        let (_database, mut client, mut other) = made(OPTIONS)?;
        send(&mut client, "a", 5)?;
        ensure!(whole(&mut client, 3)? == [1, 2, 3]);
        client.batch_execute(&format!("SELECT enough.{fails}"))?;
        ensure!(whole(&mut other, 9)?.is_empty(), "{fails}: two are leased");
        finish(&mut client, &[1, 3])?;
        ensure!(ids(&read(&mut other, "q", 1)?) == [2], "{fails}");
        ensure!(read(&mut other, "q", 9)?.is_empty(), "{fails}");
        finish(&mut client, &[2])?;
        ensure!(whole(&mut other, 9)? == [4, 5], "{fails}");
    }
    // One that rests holds its group up.
    let (_database, mut client, mut other) = made(OPTIONS)?;
    send(&mut client, "a", 4)?;
    ensure!(whole(&mut client, 3)? == [1, 2, 3]);
    client.batch_execute("SELECT enough.queue_fail('q', 2, retry_in => '1 hour'), enough.queue_release('q', 3)")?;
    finish(&mut client, &[1])?;
    ensure!(whole(&mut other, 9)?.is_empty());
    client.batch_execute("SELECT enough.queue_reschedule('q', '{2}', now())")?;
    ensure!(whole(&mut other, 9)? == [2, 3, 4]);
    Ok(())
}

#[test]
fn a_rollback_gives_the_group_back_in_order() -> Result<()> {
    let (_database, mut client, mut other) = made(OPTIONS)?;
    send(&mut client, "a", 4)?;
    for _ in 0..2 {
        client.batch_execute("BEGIN")?;
        ensure!(whole(&mut client, 3)? == [1, 2, 3]);
        client.batch_execute("ROLLBACK")?;
    }
    client.batch_execute("BEGIN")?;
    ensure!(whole(&mut client, 9)? == [1, 2, 3, 4]);
    client.batch_execute("SAVEPOINT s")?;
    finish(&mut client, &[1, 2])?;
    client.batch_execute("ROLLBACK TO s")?;
    finish(&mut client, &[1])?;
    ensure!(whole(&mut other, 9)?.is_empty());
    client.batch_execute("COMMIT")?;
    ensure!(whole(&mut other, 9)?.is_empty());
    let attempts = client.query_one("SELECT attempts FROM enough.queue_status('q', 4)", &[])?;
    ensure!(attempts.get::<_, i32>(0) == 1);
    for id in 2..=4 {
        client.execute("SELECT enough.queue_extend('q', $1, '0')", &[&(6 - i64::from(id))])?;
    }
    ensure!(whole(&mut other, 9)? == [2, 3, 4]);
    // Dead ones hold nothing up.
    client.batch_execute("SELECT enough.queue_fail('q', 2, dead => true), enough.queue_extend('q', 3, '0')")?;
    finish(&mut client, &[4])?;
    ensure!(whole(&mut other, 9)? == [3]);
    Ok(())
}

#[test]
fn the_first_that_is_kept_longer_holds_up_those_that_are_back() -> Result<()> {
    let (_database, mut client, mut other) = made(OPTIONS)?;
    send(&mut client, "a", 3)?;
    ensure!(whole(&mut client, 5)? == [1, 2, 3]);
    client.batch_execute(
        "SELECT enough.queue_extend('q', 1, '2 hours'), enough.queue_extend('q', 3, '0'), enough.queue_extend('q', 2, '0')",
    )?;
    send(&mut client, "a", 1)?;
    ensure!(whole(&mut other, 9)?.is_empty() && read(&mut other, "q", 9)?.is_empty());
    client.batch_execute("SELECT enough.queue_extend('q', 1, '0')")?;
    ensure!(whole(&mut other, 9)? == [1, 2, 3, 4]);
    Ok(())
}

#[test]
fn a_delayed_message_is_where_a_read_ends_and_takes_nothing_from_those_before_it() -> Result<()> {
    let (_database, mut client, mut other) = made(OPTIONS)?;
    send(&mut client, "a", 2)?;
    client.batch_execute("SELECT enough.queue_send('q', '3', delay => '1 hour', group_key => 'a')")?;
    send(&mut client, "a", 1)?;
    ensure!(whole(&mut client, 9)? == [1, 2]);
    client.batch_execute("SELECT enough.queue_extend('q', 1, '0'), enough.queue_extend('q', 2, '0')")?;
    ensure!(whole(&mut other, 9)? == [1, 2]);
    finish(&mut client, &[1, 2])?;
    ensure!(whole(&mut other, 9)?.is_empty());
    client.batch_execute("SELECT enough.queue_reschedule('q', '{3}', now())")?;
    ensure!(whole(&mut other, 9)? == [3, 4]);
    Ok(())
}

#[test]
fn several_queues_are_read_by_whole_groups_too() -> Result<()> {
    let (_database, mut client, _) = made(OPTIONS)?;
    client.batch_execute(
        "SELECT enough.queue_create('p', group_limit => 2); SELECT enough.queue_send('p', to_jsonb(i), group_key => 'g') FROM generate_series(1, 4) AS i",
    )?;
    send(&mut client, "a", 3)?;
    let call = "SELECT queue || msg_id FROM enough.queue_read_any('{p,q}', 6, whole_groups => true)";
    let got: Vec<String> = client.query(call, &[])?.iter().map(|row| row.get(0)).collect();
    ensure!(got == ["p1", "p2", "p3", "p4", "q1", "q2"], "{got:?}");
    ensure!(client.query(call, &[])?.is_empty(), "both are closed");
    Ok(())
}

#[test]
fn readers_at_once_keep_the_order_of_each_group() -> Result<()> {
    const GROUPS: i64 = 3;
    const EACH: i64 = 60;
    let (database, mut client, _) =
        made(", visibility_timeout => '1 minute', retry_backoff => '0', max_attempts => 0")?;
    for group in 0..GROUPS {
        send(&mut client, &format!("g{group}"), i32::try_from(EACH)?)?;
    }
    // By group: what is finished of it, and who has some of it.
    let book: Arc<Mutex<BTreeMap<i64, (i64, usize)>>> = Arc::default();
    let readers: Vec<_> = (0..6_usize)
        .map(|reader| {
            let (mut session, book) = (database.client()?, Arc::clone(&book));
            Ok(std::thread::spawn(move || -> Result<()> {
                let mut rng = fastrand::Rng::with_seed(reader as u64);
                loop {
                    let qty = rng.i32(1..8);
                    let call = format!("queue_read('q', {qty}, whole_groups => {}, wait => '200 ms')", rng.bool());
                    let messages = receive(&mut session, &call)?;
                    if messages.is_empty() {
                        let left: i64 = session.query_one("SELECT count(*) FROM enough.q_q", &[])?.get(0);
                        if left == 0 {
                            return Ok(());
                        }
                    }
                    let mut mine: BTreeMap<i64, i64> = BTreeMap::new();
                    for message in &messages {
                        let (group, number) = ((message.msg_id - 1) / EACH, (message.msg_id - 1) % EACH + 1);
                        let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
                        let entry = book.entry(group).or_default();
                        if let Some(before) = mine.insert(group, number) {
                            ensure!(number == before + 1, "{number} of group {group} after {before}");
                        } else {
                            ensure!(number == entry.0 + 1, "{number} of group {group}, where {} are finished", entry.0);
                            ensure!(entry.1 == 0 || entry.1 == reader + 1, "two readers have group {group}");
                            entry.1 = reader + 1;
                        }
                    }
                    // Some are finished in order, and from one on all of a group are given back, last first.
                    let mut back: Vec<i64> = Vec::new();
                    for message in &messages {
                        let group = (message.msg_id - 1) / EACH;
                        if rng.u8(0..4) == 0 || back.iter().any(|id| (id - 1) / EACH == group) {
                            back.push(message.msg_id);
                            continue;
                        }
                        let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
                        let entry = book.entry(group).or_default();
                        entry.0 += 1;
                        // Before the last one ends, for another reader may have the group at once.
                        let last = messages.iter().rfind(|other| (other.msg_id - 1) / EACH == group);
                        if last.is_some_and(|last| last.msg_id == message.msg_id) {
                            entry.1 = 0;
                        }
                        ensure!(delete(&mut session, "q", message.msg_id, message.lease)?);
                    }
                    while let Some(id) = back.pop() {
                        let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
                        if !back.iter().any(|other| (other - 1) / EACH == (id - 1) / EACH) {
                            book.entry((id - 1) / EACH).or_default().1 = 0;
                        }
                        session.execute("SELECT enough.queue_extend('q', $1, '0')", &[&id])?;
                    }
                }
            }))
        })
        .collect::<Result<_>>()?;
    for reader in readers {
        reader.join().expect("a reader's thread")?;
    }
    ensure!(book.lock().unwrap_or_else(PoisonError::into_inner).values().all(|entry| *entry == (EACH, 0)));
    Ok(())
}

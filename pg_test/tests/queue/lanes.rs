//! Groups of which several messages may be leased at a time.

use anyhow::{Result, ensure};
use enough_pg_test::queue::{delete, ids, made, read, receive};
use enough_pg_test::server::{backend, until_waiting};
use postgres::{Client, GenericClient};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

/// Sends `count` messages of a group.
fn send(client: &mut impl GenericClient, group: &str, count: i32) -> Result<()> {
    let send = "SELECT enough.queue_send('q', to_jsonb(i), group_key => $1) FROM generate_series(1, $2) AS i";
    client.execute(send, &[&group, &count])?;
    Ok(())
}

#[test]
fn as_many_of_a_group_are_leased_as_the_limit_says_in_order() -> Result<()> {
    let (_database, mut client, mut other) = made(", group_limit => 3")?;
    send(&mut client, "a", 9)?;
    send(&mut client, "b", 2)?;
    client.batch_execute("SELECT enough.queue_send('q', '1')")?;
    let first = read(&mut client, "q", 20)?;
    let of_a: Vec<i64> = ids(&first).into_iter().filter(|id| *id <= 9).collect();
    ensure!(of_a == [1, 2, 3] && first.len() == 6, "{first:?}");
    ensure!(read(&mut other, "q", 20)?.is_empty());
    client.batch_execute("BEGIN")?;
    ensure!(delete(&mut client, "q", 2, None)?);
    ensure!(read(&mut other, "q", 20)?.is_empty(), "the deletion isn't committed");
    client.batch_execute("COMMIT")?;
    ensure!(ids(&read(&mut other, "q", 20)?) == [4]);
    // By its number, out of turn: what comes next isn't missed.
    ensure!(delete(&mut client, "q", 5, None)?);
    ensure!(delete(&mut client, "q", 1, first[0].lease)?);
    ensure!(ids(&read(&mut other, "q", 20)?) == [6]);
    client.batch_execute("SELECT enough.queue_release('q', 6)")?;
    ensure!(ids(&read(&mut other, "q", 20)?) == [6]);
    Ok(())
}

#[test]
fn what_rests_lets_others_of_its_group_pass() -> Result<()> {
    let (_database, mut client, mut other) = made(", group_limit => 2, retry_backoff => '1 hour'")?;
    send(&mut client, "a", 9)?;
    client.batch_execute("BEGIN")?;
    ensure!(ids(&read(&mut client, "q", 9)?) == [1, 2]);
    client.batch_execute("ROLLBACK")?;
    ensure!(ids(&read(&mut other, "q", 9)?) == [3, 4]);
    client.batch_execute(
        "SELECT enough.queue_fail('q', 3, 'why not'), enough.queue_release('q', 4, delay => '1 hour')",
    )?;
    ensure!(ids(&read(&mut other, "q", 9)?) == [5, 6]);
    // Back again: the lanes are taken.
    client.batch_execute(
        "SELECT enough.queue_extend('q', 5, '0'); UPDATE enough.q_q SET deliver_at = NULL WHERE msg_id = 3",
    )?;
    client.batch_execute("SELECT * FROM enough.maintain()")?;
    ensure!(read(&mut other, "q", 1)?.len() == 1);
    ensure!(read(&mut other, "q", 9)?.is_empty());
    let ready = client.query_one("SELECT ready, leased, delayed FROM enough.queue_stats('q')", &[])?;
    let stats: [i64; 3] = [ready.get(0), ready.get(1), ready.get(2)];
    ensure!(stats.iter().sum::<i64>() == 9 && stats[1] == 2, "{stats:?}");
    Ok(())
}

#[test]
fn a_delayed_message_holds_up_those_behind_it() -> Result<()> {
    let (_database, mut client, _) = made(", group_limit => 2")?;
    send(&mut client, "a", 1)?;
    client.batch_execute("SELECT enough.queue_send('q', '2', delay => '1 hour', group_key => 'a')")?;
    send(&mut client, "a", 1)?;
    ensure!(ids(&read(&mut client, "q", 9)?) == [1]);
    ensure!(delete(&mut client, "q", 2, None)?);
    ensure!(ids(&read(&mut client, "q", 9)?) == [3]);
    Ok(())
}

#[test]
fn a_dead_message_frees_its_place() -> Result<()> {
    let (_database, mut client, _) = made(", group_limit => 2, max_attempts => 1, retry_backoff => '0'")?;
    send(&mut client, "a", 5)?;
    client.batch_execute("BEGIN")?;
    ensure!(ids(&read(&mut client, "q", 10)?) == [1, 2]);
    client.batch_execute("ROLLBACK")?;
    ensure!(ids(&read(&mut client, "q", 10)?) == [3, 4]);
    ensure!(read(&mut client, "q", 10)?.is_empty());
    ensure!(client.query("SELECT * FROM enough.queue_dead('q')", &[])?.len() == 2);
    Ok(())
}

#[test]
fn another_limit_holds_for_what_is_read_from_then_on() -> Result<()> {
    let (_database, mut client, mut other) = made("")?;
    let listed = "SELECT group_limit FROM enough.queue_list()";
    ensure!(client.query_one(listed, &[])?.get::<_, i32>(0) == 1);
    send(&mut client, "a", 9)?;
    ensure!(ids(&read(&mut other, "q", 9)?) == [1]);
    client.batch_execute("BEGIN; SELECT enough.queue_alter('q', group_limit => 3)")?;
    ensure!(read(&mut other, "q", 9)?.is_empty());
    client.batch_execute("COMMIT")?;
    ensure!(client.query_one(listed, &[])?.get::<_, i32>(0) == 3);
    ensure!(ids(&read(&mut other, "q", 9)?) == [2, 3]);
    client.batch_execute("SELECT enough.queue_alter('q', group_limit => 1)")?;
    ensure!(delete(&mut client, "q", 1, None)? && read(&mut other, "q", 9)?.is_empty());
    ensure!(delete(&mut client, "q", 2, None)? && read(&mut other, "q", 9)?.is_empty());
    ensure!(delete(&mut client, "q", 3, None)? && ids(&read(&mut other, "q", 9)?) == [4]);
    let pid = backend(&mut other)?;
    let waiting =
        std::thread::spawn(move || other.query("SELECT msg_id FROM enough.queue_read('q', 9, NULL, '1 minute')", &[]));
    until_waiting(&mut client, pid)?;
    client.batch_execute("SELECT enough.queue_alter('q', group_limit => 0)")?;
    let rows = waiting.join().expect("the reader's thread")?;
    ensure!(rows.iter().map(|row| row.get::<_, i64>(0)).eq(5..=9), "{rows:?}");
    Ok(())
}

#[test]
fn a_lane_that_becomes_free_wakes_a_waiting_reader() -> Result<()> {
    let (_database, mut client, mut other) = made(", group_limit => 2")?;
    send(&mut client, "a", 3)?;
    ensure!(ids(&read(&mut client, "q", 5)?) == [1, 2]);
    let pid = backend(&mut other)?;
    let waiting =
        std::thread::spawn(move || other.query("SELECT msg_id FROM enough.queue_read('q', 1, NULL, '1 minute')", &[]));
    until_waiting(&mut client, pid)?;
    ensure!(delete(&mut client, "q", 2, None)?);
    let rows = waiting.join().expect("the reader's thread")?;
    ensure!(rows.len() == 1 && rows[0].get::<_, i64>(0) == 3);
    Ok(())
}

/// Parks some messages of a group: of five that were leased, four are in line again and one is allowed.
fn parked(client: &mut Client, other: &mut Client) -> Result<()> {
    send(client, "a", 8)?;
    ensure!(ids(&read(client, "q", 5)?) == [1, 2, 3, 4, 5]);
    client.batch_execute(
        "SELECT enough.queue_alter('q', group_limit => 1);
         SELECT enough.queue_extend('q', id, '0') FROM generate_series(1, 4) AS id",
    )?;
    ensure!(read(other, "q", 9)?.is_empty());
    Ok(())
}

#[test]
fn what_waits_for_a_lane_is_there_for_all_other_calls() -> Result<()> {
    let (_database, mut client, mut other) = made(", group_limit => 5")?;
    parked(&mut client, &mut other)?;
    let state = |client: &mut Client, id: i64| -> Result<String> {
        Ok(client.query_one("SELECT state FROM enough.queue_status('q', $1)", &[&id])?.get(0))
    };
    ensure!(state(&mut client, 2)? == "ready");
    let seen = client.query("SELECT msg_id FROM enough.queue_peek('q', 99) ORDER BY 1", &[])?;
    ensure!(seen.iter().map(|row| row.get::<_, i64>(0)).eq([1, 2, 3, 4, 6, 7, 8]), "{seen:?}");
    client.batch_execute("BEGIN")?;
    ensure!(delete(&mut client, "q", 2, None)?);
    client.batch_execute("ROLLBACK")?;
    ensure!(delete(&mut client, "q", 1, None)?);
    ensure!(delete(&mut client, "q", 5, None)?);
    let mut got = Vec::new();
    while let Some(one) = read(&mut other, "q", 9)?.pop() {
        got.push(one.msg_id);
        ensure!(read(&mut client, "q", 9)?.is_empty(), "one at a time");
        ensure!(delete(&mut client, "q", one.msg_id, one.lease)?);
    }
    got.sort_unstable();
    ensure!(got == [2, 3, 4, 6, 7, 8], "{got:?}");
    Ok(())
}

#[test]
fn what_waits_for_a_lane_goes_with_its_queue() -> Result<()> {
    for end in [
        "SELECT enough.queue_purge('q')",
        "TRUNCATE enough.q_q",
        "DELETE FROM enough.q_q; SELECT * FROM enough.maintain()",
        "SELECT enough.queue_drop('q'), enough.queue_create('q')",
    ] {
        let (_database, mut client, mut other) = made(", group_limit => 5")?;
        parked(&mut client, &mut other)?;
        for statement in end.split(';') {
            client.batch_execute(statement)?;
        }
        ensure!(read(&mut other, "q", 9)?.is_empty(), "{end}");
        send(&mut client, "a", 1)?;
        ensure!(read(&mut other, "q", 9)?.len() == 1, "{end}");
    }
    Ok(())
}

/// However a delivery ends, it gives up its place, and only one; what names a lease that is over gives up none.
#[test]
fn every_end_of_a_delivery_frees_one_place() -> Result<()> {
    let (database, mut client, mut other) =
        made(", group_limit => 2, retry_backoff => '1 hour', visibility_timeout => '1 hour'")?;
    send(&mut client, "a", 60)?;
    for (end, lasts) in [
        ("SELECT enough.queue_delete('q', $, @)", true),
        ("SELECT enough.queue_archive('q', $, lease => @)", true),
        ("SELECT enough.queue_fail('q', $, 'why', lease => @)", true),
        ("SELECT enough.queue_fail('q', $, 'why', dead => true, lease => @)", true),
        ("SELECT enough.queue_release('q', $, '1 hour', lease => @)", true),
        ("SELECT enough.queue_delete_batch('q', ARRAY[$], leases => ARRAY[@])", true),
        ("SELECT enough.queue_fail_batch('q', ARRAY[$], leases => ARRAY[@])", true),
        ("DELETE FROM enough.q_q WHERE msg_id = $", true),
        ("SELECT enough.queue_release('q', $, lease => @)", false),
        ("SELECT enough.queue_extend('q', $, '0', lease => @)", false),
    ] {
        let taken = read(&mut other, "q", 9)?;
        ensure!(taken.len() == 2, "{end}: {taken:?}");
        let lease = taken[0].lease.unwrap_or(0).to_string();
        let end = end.replace('$', &taken[0].msg_id.to_string()).replace('@', &lease);
        for _ in 0..2 {
            client.batch_execute(&end)?;
        }
        client.batch_execute("SELECT * FROM enough.maintain()")?;
        let next = read(&mut other, "q", 9)?;
        ensure!(next.len() == 1, "{end}: {next:?}");
        ensure!(lasts != (next[0].msg_id == taken[0].msg_id), "{end}: {next:?}");
        client.batch_execute(&end)?;
        ensure!(read(&mut other, "q", 9)?.is_empty(), "{end}: its lease is over");
        for id in [taken[1].msg_id, next[0].msg_id] {
            ensure!(delete(&mut client, "q", id, None)?);
        }
    }
    // A worker that dies with its transaction, and one whose savepoint is rolled back.
    let mut doomed = database.client()?;
    doomed.batch_execute("BEGIN")?;
    ensure!(read(&mut doomed, "q", 9)?.len() == 2);
    let pid = backend(&mut doomed)?;
    client.batch_execute(&format!("SELECT pg_terminate_backend({pid}, 60000)"))?;
    other.batch_execute("BEGIN; SAVEPOINT s")?;
    ensure!(read(&mut other, "q", 9)?.len() == 2);
    other.batch_execute("ROLLBACK TO s")?;
    ensure!(read(&mut client, "q", 9)?.len() == 2);
    other.batch_execute("COMMIT")?;
    ensure!(read(&mut other, "q", 9)?.is_empty());
    Ok(())
}

#[test]
fn dead_letters_of_a_group_that_come_back_together_keep_to_the_limit() -> Result<()> {
    let (_database, mut client, mut other) = made(", group_limit => 2")?;
    send(&mut client, "a", 6)?;
    for id in 1..=6 {
        client.batch_execute(&format!("SELECT enough.queue_fail('q', {id}, 'why', dead => true)"))?;
    }
    client.batch_execute("SELECT enough.queue_redrive('q')")?;
    for expected in [[1, 2], [3, 4], [5, 6]] {
        let taken = ids(&read(&mut other, "q", 9)?);
        ensure!(taken == expected, "{taken:?}");
        for id in taken {
            ensure!(delete(&mut client, "q", id, None)?);
        }
    }
    Ok(())
}

/// Several sessions read, roll back, fail and finish at once: of no group are more leased than allowed, and each message is
/// finished once.
#[test]
fn no_more_of_a_group_are_leased_than_allowed_by_all_sessions_together() -> Result<()> {
    let (database, mut client, _) = made(
        ", group_limit => 3, max_attempts => 1000, retry_backoff => '1 millisecond', retry_backoff_max => '2 milliseconds'",
    )?;
    let groups = ["a", "b", "c"];
    for group in groups {
        send(&mut client, group, 200)?;
    }
    let flying: Arc<BTreeMap<&str, AtomicI64>> =
        Arc::new(groups.iter().map(|group| (*group, AtomicI64::new(0))).collect());
    let finished = Arc::new(AtomicI64::new(0));
    let sessions: Vec<_> = (0..8)
        .map(|session| {
            let (mut client, flying, finished) = (database.client()?, Arc::clone(&flying), Arc::clone(&finished));
            Ok(std::thread::spawn(move || work(&mut client, session, &flying, &finished)))
        })
        .collect::<Result<_>>()?;
    for session in sessions {
        session.join().expect("a session's thread")?;
    }
    // What rested while all others had left.
    let mut left = 0;
    while let Some(one) = receive(&mut client, "queue_read('q', wait => '1 second')")?.pop() {
        left += i64::from(delete(&mut client, "q", one.msg_id, one.lease)?);
    }
    ensure!(finished.load(SeqCst) + left == 600, "{finished:?}, {left}");
    ensure!(client.query_one("SELECT count(*) FROM enough.q_q", &[])?.get::<_, i64>(0) == 0);
    Ok(())
}

fn work(client: &mut Client, session: usize, flying: &BTreeMap<&str, AtomicI64>, finished: &AtomicI64) -> Result<()> {
    let reading = "SELECT msg_id, group_key, lease FROM enough.queue_read('q', $1, '10 minutes', '300 milliseconds')";
    for round in session.. {
        let mut transaction = client.transaction()?;
        let rows = transaction.query(reading, &[&(1 + round as i32 % 3)])?;
        if rows.is_empty() {
            return Ok(());
        }
        for row in &rows {
            let together = flying[row.get::<_, &str>(1)].fetch_add(1, SeqCst) + 1;
            ensure!(together <= 3, "{together} of group {}", row.get::<_, &str>(1));
        }
        let end = ["queue_delete", "queue_delete", "queue_fail", "queue_release", ""][round % 5];
        // From now on the place may be another one's.
        for row in &rows {
            flying[row.get::<_, &str>(1)].fetch_sub(1, SeqCst);
        }
        if end.is_empty() {
            transaction.rollback()?;
            continue;
        }
        for row in &rows {
            let call = format!("SELECT enough.{end}('q', $1, lease => $2)");
            transaction.execute(&call, &[&row.get::<_, i64>(0), &row.get::<_, i64>(2)])?;
        }
        transaction.commit()?;
        if end == "queue_delete" {
            finished.fetch_add(rows.len() as i64, SeqCst);
        }
    }
    Ok(())
}

#[test]
fn no_group_is_kept_waiting_by_a_long_one_without_a_limit() -> Result<()> {
    let (_database, mut client, _) = made(", group_limit => 0")?;
    send(&mut client, "long", 500)?;
    for group in 0..20 {
        send(&mut client, &group.to_string(), 2)?;
    }
    let first = read(&mut client, "q", 42)?;
    let short = first.iter().filter(|one| one.msg_id > 500).count();
    ensure!(short == 40, "{short} of {}", first.len());
    Ok(())
}

//! Leases: expiry, fencing, extending, giving back, and what an open delete does.

use anyhow::{Result, ensure};
use enough_pg_test::check::eventually;
use enough_pg_test::queue::{self, Message};
use enough_pg_test::server::{self, Database};
use postgres::Client;
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Reads until something comes.
fn next(client: &mut Client, timeout: &str) -> Result<Message> {
    let mut read = eventually("a message comes", || {
        let read = queue::receive(client, &format!("queue_read('q', 1, {timeout})"))?;
        Ok((!read.is_empty()).then_some(read))
    })?;
    Ok(read.remove(0))
}

fn row_attempts(client: &mut Client) -> Result<i32> {
    Ok(client.query_one("SELECT attempts FROM enough.q_q", &[])?.get(0))
}

#[test]
fn a_lease_that_runs_out_counts_and_the_count_is_durable() -> Result<()> {
    let (_database, mut client, mut other) = queue::made("")?;
    let sent = queue::send(&mut client, "q", &json!(1))?;
    let first = next(&mut client, "'50 milliseconds'")?;
    ensure!((first.msg_id, first.attempts) == (sent, 1));
    ensure!(row_attempts(&mut client)? == 0, "a first delivery writes nothing");
    for attempts in 2..6 {
        let reader = if attempts % 2 == 0 { &mut other } else { &mut client };
        let again = next(reader, "'50 milliseconds'")?;
        ensure!((again.msg_id, again.attempts) == (sent, attempts), "{again:?}");
        ensure!(again.lease != first.lease);
        ensure!(row_attempts(&mut client)? == attempts, "delivery {attempts} isn't in the row");
    }
    Ok(())
}

#[test]
fn reading_writes_nothing() -> Result<()> {
    let (_database, mut client, _) = queue::made("")?;
    queue::send_numbers(&mut client, "q", 100)?;
    // The first read sets hint bits; the second finds all as it is.
    queue::read(&mut client, "q", 50)?;
    client.batch_execute("BEGIN")?;
    ensure!(queue::read(&mut client, "q", 50)?.len() == 50);
    let written: bool = client.query_one("SELECT pg_current_xact_id_if_assigned() IS NOT NULL", &[])?.get(0);
    ensure!(!written, "reading took a transaction number");
    client.batch_execute("COMMIT")?;
    client.batch_execute("BEGIN READ ONLY")?;
    ensure!(queue::read(&mut client, "q", 50)?.is_empty());
    client.batch_execute("COMMIT")?;
    Ok(())
}

#[test]
fn no_read_gives_a_message_twice_however_short_its_leases_are() -> Result<()> {
    // Of its own: whoever reads a queue with which this one shares memory lets its leases run out, too.
    let server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('q')")?;
    let sent = queue::send_numbers(&mut client, "q", 9_000)?;
    // Which takes several times as long as the leases last.
    let read = |client: &mut Client| -> Result<Vec<i64>> {
        let mut read = queue::ids(&queue::receive(client, "queue_read('q', 10000, '1 millisecond')")?);
        read.sort_unstable();
        Ok(read)
    };
    let alone = read(&mut client)?;
    ensure!(alone == sent, "{} of {} messages", alone.len(), sent.len());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let others = scope.spawn(|| -> Result<()> {
            let mut client = database.client()?;
            client.batch_execute("SELECT enough.queue_create('other' || i) FROM generate_series(1, 8) AS i")?;
            while !done.load(Relaxed) {
                client.batch_execute("SELECT enough.queue_read('other' || i) FROM generate_series(1, 8) AS i")?;
            }
            Ok(())
        });
        let several = (0..20).try_for_each(|_| {
            let mut read = read(&mut client)?;
            let count = read.len();
            read.dedup();
            ensure!(read.len() == count, "{} of {count} messages come twice", count - read.len());
            Ok(())
        });
        done.store(true, Relaxed);
        others.join().map_err(|_| anyhow::anyhow!("a reader panicked"))??;
        several
    })
}

#[test]
fn a_lease_outlives_its_session_and_its_transaction() -> Result<()> {
    let (_database, mut client, mut other) = queue::made(", visibility_timeout => '1 hour'")?;
    let sent = queue::send(&mut client, "q", &json!(1))?;
    other.batch_execute("BEGIN")?;
    let read = queue::read(&mut other, "q", 1)?;
    other.batch_execute("COMMIT")?;
    drop(other);
    ensure!(queue::read(&mut client, "q", 1)?.is_empty(), "the lease ended with its session");
    ensure!(queue::delete(&mut client, "q", sent, read[0].lease)?, "another session may finish under the lease");
    Ok(())
}

#[test]
fn only_the_current_lease_deletes_and_extends() -> Result<()> {
    let (_database, mut client, mut other) = queue::made("")?;
    let sent = queue::send(&mut client, "q", &json!(1))?;
    let old = next(&mut client, "'1 millisecond'")?;
    let current = next(&mut other, "'1 hour'")?;
    ensure!(current.msg_id == sent && current.lease != old.lease);
    let extend = |client: &mut Client, lease: Option<i64>, timeout: &str| -> Result<bool> {
        let sql = format!("SELECT enough.queue_extend('q', $1, '{timeout}', $2) IS NOT NULL");
        Ok(client.query_one(&sql, &[&sent, &lease])?.get(0))
    };
    for lease in [old.lease, Some(0), Some(-1), Some(i64::MAX), Some(i64::MIN)] {
        ensure!(!queue::delete(&mut client, "q", sent, lease)?, "{lease:?} deletes");
        ensure!(!extend(&mut client, lease, "1 hour")?, "{lease:?} extends");
        ensure!(!extend(&mut client, lease, "0")?, "{lease:?} gives back");
    }
    ensure!(extend(&mut client, current.lease, "2 hours")?);
    let read = queue::read(&mut client, "q", 1)?;
    ensure!(read.is_empty(), "{read:?}");
    ensure!(queue::delete(&mut client, "q", sent, current.lease)?);
    ensure!(!queue::delete(&mut client, "q", sent, current.lease)?, "it is deleted already");
    ensure!(!queue::delete(&mut client, "q", sent, None)?);
    ensure!(!extend(&mut client, current.lease, "1 hour")?);
    Ok(())
}

#[test]
fn a_lease_that_has_run_out_deletes_no_more() -> Result<()> {
    let (_database, mut client, _) = queue::made("")?;
    let sent = queue::send(&mut client, "q", &json!(1))?;
    let read = next(&mut client, "'20 milliseconds'")?;
    eventually("the lease has run out", || {
        Ok(client
            .query_one("SELECT clock_timestamp() > to_timestamp($1::bigint / 1e6)", &[&read.until])?
            .get::<_, bool>(0)
            .then_some(()))
    })?;
    ensure!(!queue::delete(&mut client, "q", sent, read.lease)?, "a lease that has run out deletes");
    let extended: bool = client
        .query_one("SELECT enough.queue_extend('q', $1, '1 hour', $2) IS NOT NULL", &[&sent, &read.lease])?
        .get(0);
    ensure!(!extended, "a lease that has run out extends");
    ensure!(queue::delete(&mut client, "q", sent, None)?, "without a lease any message may be deleted");
    Ok(())
}

#[test]
fn extending_takes_effect_at_once_and_zero_gives_back() -> Result<()> {
    let (_database, mut client, mut other) = queue::made(", visibility_timeout => '1 hour'")?;
    let sent = queue::send(&mut client, "q", &json!(1))?;
    let read = next(&mut client, "'1 hour'")?;
    let row = client.query_one(
        "SELECT enough.queue_extend('q', $1, '30 minutes') BETWEEN clock_timestamp() + interval '29 minutes' \
         AND clock_timestamp() + interval '30 minutes'",
        &[&sent],
    )?;
    ensure!(row.get::<_, bool>(0), "the lease doesn't end when it was asked to");
    // Also where the transaction rolls back.
    client.batch_execute("BEGIN")?;
    client.execute("SELECT enough.queue_extend('q', $1, '0', $2)", &[&sent, &read.lease])?;
    let again = queue::read(&mut other, "q", 1)?;
    ensure!(queue::ids(&again) == [sent] && again[0].attempts == 2, "{again:?}");
    client.batch_execute("ROLLBACK")?;
    ensure!(queue::delete(&mut other, "q", sent, again[0].lease)?);
    Ok(())
}

#[test]
fn a_rollback_gives_back_with_a_growing_rest() -> Result<()> {
    let (_database, mut client, mut other) = queue::made(", retry_backoff => '100 milliseconds'")?;
    let sent = queue::send(&mut client, "q", &json!(1))?;
    let mut not_before = 0;
    for attempts in 1..5 {
        client.batch_execute("BEGIN")?;
        let read = next(&mut client, "'1 hour'")?;
        ensure!((read.msg_id, read.attempts) == (sent, attempts), "{read:?}");
        let came = now(&mut client)?;
        ensure!(came >= not_before, "attempt {attempts} came {} µs too early", not_before - came);
        // The rest doubles; it is a tenth shorter at the least.
        not_before = now(&mut other)? + 100_000 * (1 << (attempts - 1)) * 9 / 10;
        client.batch_execute("ROLLBACK")?;
    }
    Ok(())
}

/// The server's clock, in microseconds.
fn now(client: &mut Client) -> Result<i64> {
    Ok(client.query_one("SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint", &[])?.get(0))
}

#[test]
fn an_open_delete_hides_the_message_and_a_rollback_brings_it_back() -> Result<()> {
    let (_database, mut client, mut other) = queue::made("")?;
    let sent = queue::send(&mut client, "q", &json!(1))?;
    // Ready: deleted without having been read.
    let mut transaction = client.transaction()?;
    ensure!(queue::delete(&mut transaction, "q", sent, None)?);
    ensure!(queue::read(&mut other, "q", 1)?.is_empty(), "a message is delivered while its delete is open");
    transaction.rollback()?;
    let read = queue::receive(&mut other, "queue_read('q', 1, '100 milliseconds')")?;
    ensure!(queue::ids(&read) == [sent] && read[0].attempts == 1, "{read:?}");
    // Leased: the lease runs out while the delete is open, and nobody gets the message.
    let mut transaction = client.transaction()?;
    ensure!(queue::delete(&mut transaction, "q", sent, read[0].lease)?);
    eventually("the lease has run out", || {
        Ok(other
            .query_one("SELECT clock_timestamp() > to_timestamp($1::bigint / 1e6)", &[&read[0].until])?
            .get::<_, bool>(0)
            .then_some(()))
    })?;
    ensure!(queue::read(&mut other, "q", 1)?.is_empty(), "a message is delivered while its delete is open");
    transaction.rollback()?;
    let again = next(&mut other, "'1 hour'")?;
    ensure!((again.msg_id, again.attempts) == (sent, 2), "{again:?}");
    // And when it commits, it is gone.
    let mut transaction = client.transaction()?;
    ensure!(queue::delete(&mut transaction, "q", sent, again.lease)?);
    transaction.commit()?;
    ensure!(queue::read(&mut other, "q", 1)?.is_empty());
    ensure!(!queue::delete(&mut other, "q", sent, None)?);
    Ok(())
}

#[test]
fn a_pop_is_gone_at_commit_and_back_after_a_rollback() -> Result<()> {
    let (_database, mut client, mut other) = queue::made(", retry_backoff => '1 millisecond'")?;
    let sent = queue::send_numbers(&mut client, "q", 10)?;
    let mut transaction = client.transaction()?;
    let popped = queue::receive(&mut transaction, "queue_pop('q', 6)")?;
    ensure!(queue::ids(&popped) == sent[..6], "{popped:?}");
    ensure!(popped.iter().all(|message| message.lease.is_none() && message.until.is_none()));
    ensure!(queue::ids(&queue::receive(&mut other, "queue_pop('q', 10)")?) == sent[6..]);
    transaction.rollback()?;
    let mut back = Vec::new();
    eventually("the popped messages are back", || {
        back.extend(queue::receive(&mut other, "queue_pop('q', 10)")?);
        Ok((back.len() >= 6).then_some(()))
    })?;
    ensure!(queue::sorted_ids(&back) == sent[..6] && back.iter().all(|message| message.attempts == 2), "{back:?}");
    Ok(())
}

#[test]
fn deleting_in_a_batch_tells_which_were_there() -> Result<()> {
    let (_database, mut client, _) = queue::made("")?;
    let sent = queue::send_numbers(&mut client, "q", 5)?;
    ensure!(queue::delete(&mut client, "q", sent[1], None)?);
    let asked = vec![sent[3], sent[1], sent[0], sent[3], i64::MAX, -1];
    let rows = client.query("SELECT * FROM enough.queue_delete_batch('q', $1)", &[&asked])?;
    let deleted: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    ensure!(deleted == [sent[3], sent[0]], "{deleted:?}");
    let left = queue::read(&mut client, "q", 10)?;
    ensure!(queue::ids(&left) == [sent[2], sent[4]], "{left:?}");
    Ok(())
}

/// A lease from before a crash is never one of after it, whatever the clock says then: its number has nothing to do with the
/// clock.
#[test]
fn lease_numbers_begin_anywhere_after_a_restart() -> Result<()> {
    let mut server = enough_pg_test::server::start(&enough_pg_test::server::options()?)?;
    let database = Database::on(&server)?;
    database.client()?.batch_execute("SELECT enough.queue_create('q', max_attempts => 1000)")?;
    queue::send_numbers(&mut database.client()?, "q", 1)?;
    let mut leases = Vec::new();
    for _ in 0..3 {
        let mut client = database.client()?;
        let lease = queue::read(&mut client, "q", 1)?[0].lease.expect("a lease");
        ensure!(lease > 0);
        for earlier in &leases {
            ensure!(lease.abs_diff(*earlier) > 1 << 42, "{lease} after {leases:?}");
            ensure!(!queue::delete(&mut client, "q", 1, Some(*earlier))?);
        }
        leases.push(lease);
        drop(client);
        server.restart(xtask::server::Shutdown::Immediate)?;
    }
    Ok(())
}

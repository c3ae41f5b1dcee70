//! REPEATABLE READ and SERIALIZABLE: what a transaction can't see is left to others.

use anyhow::{Result, ensure};
use enough_pg_test::check::{eventually, refused, state};
use enough_pg_test::queue::{self, made, read};
use enough_pg_test::server::Database;
use postgres::Client;
use serde_json::json;

const LEVELS: [&str; 2] = ["REPEATABLE READ", "SERIALIZABLE"];

const OPTIONS: &str = ", visibility_timeout => '1 hour', retry_backoff => '1 millisecond'";

#[test]
fn what_the_snapshot_does_not_show_is_left_to_others() -> Result<()> {
    let (_database, mut client, mut other) = queue::made(OPTIONS)?;
    for level in LEVELS {
        let seen = queue::send(&mut client, "q", &json!("before"))?;
        client.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}; SELECT 1"))?;
        let unseen = queue::send_numbers(&mut other, "q", 3)?;
        ensure!(queue::ids(&queue::read(&mut client, "q", 10)?) == [seen], "{level}");
        ensure!(queue::read(&mut client, "q", 10)?.is_empty(), "{level}");
        ensure!(queue::receive(&mut client, "queue_pop('q', wait => '20 milliseconds')")?.is_empty(), "{level}");
        // They are ready, in their order, and not counted as delivered.
        let read = queue::read(&mut other, "q", 10)?;
        ensure!(queue::ids(&read) == unseen && read.iter().all(|message| message.attempts == 1), "{level}: {read:?}");
        client.batch_execute("COMMIT")?;
        other.batch_execute("DELETE FROM enough.q_q")?;
        ensure!(queue::read(&mut client, "q", 10)?.is_empty());
    }
    Ok(())
}

#[test]
fn a_queue_that_is_made_after_the_snapshot_is_there() -> Result<()> {
    let (_database, mut client, mut other) = queue::made(OPTIONS)?;
    for (number, level) in LEVELS.iter().enumerate() {
        client.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}; SELECT 1"))?;
        // Also after the transaction has written by statements.
        queue::send(&mut client, "q", &json!(1))?;
        client.batch_execute("SELECT enough.queue_send('q', '1', dedup_key => 'k'), enough.queue_pause('q')")?;
        other.batch_execute(&format!("SELECT enough.queue_create('later{number}')"))?;
        queue::send(&mut client, &format!("later{number}"), &json!(1))?;
        client.batch_execute("COMMIT")?;
        ensure!(queue::read(&mut other, &format!("later{number}"), 10)?.len() == 1, "{level}");
    }
    Ok(())
}

#[test]
fn a_consumer_works_in_each_level() -> Result<()> {
    let (_database, mut client, mut other) = queue::made(OPTIONS)?;
    client.batch_execute("CREATE TABLE done (n bigint PRIMARY KEY)")?;
    for level in LEVELS {
        queue::send_numbers(&mut other, "q", 20)?;
        let mut left = 20;
        while left > 0 {
            client.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}"))?;
            let read = queue::read(&mut client, "q", 3)?;
            ensure!(!read.is_empty(), "{level}: a read came back empty while {left} messages are ready");
            for message in &read {
                client.execute("INSERT INTO done SELECT ($1::jsonb)::bigint", &[&message.message])?;
                ensure!(queue::delete(&mut client, "q", message.msg_id, message.lease)?);
            }
            client.batch_execute("COMMIT")?;
            left -= read.len();
        }
        let done: i64 = client.query_one("SELECT count(*) FROM done", &[])?.get(0);
        ensure!(done == 20);
        client.batch_execute("TRUNCATE done")?;
    }
    Ok(())
}

#[test]
fn a_message_that_changed_since_is_a_conflict() -> Result<()> {
    let (_database, mut client, mut other) = queue::made(OPTIONS)?;
    for level in LEVELS {
        let sent = queue::send(&mut client, "q", &json!(1))?;
        client.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}; SELECT 1"))?;
        other.execute("UPDATE enough.q_q SET message = '2' WHERE msg_id = $1", &[&sent])?;
        refused(queue::delete(&mut client, "q", sent, None), "40001")?;
        client.batch_execute("ROLLBACK")?;
        // The message is as it was, for all.
        let read = queue::read(&mut other, "q", 1)?;
        ensure!(queue::ids(&read) == [sent] && read[0].message == json!(2), "{level}: {read:?}");
        ensure!(queue::delete(&mut client, "q", sent, read[0].lease)?);
    }
    Ok(())
}

#[test]
fn a_message_deleted_since_is_gone() -> Result<()> {
    let (_database, mut client, mut other) = queue::made(OPTIONS)?;
    for level in LEVELS {
        let sent = queue::send(&mut client, "q", &json!(1))?;
        client.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}; SELECT 1"))?;
        ensure!(queue::delete(&mut other, "q", sent, None)?);
        ensure!(queue::read(&mut client, "q", 1)?.is_empty());
        ensure!(!queue::delete(&mut client, "q", sent, None)?, "{level}");
        client.batch_execute("COMMIT")?;
    }
    Ok(())
}

#[test]
fn a_delete_waits_for_who_is_changing_the_row() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('q', retry_backoff => '1 millisecond')")?;
    for commit in [true, false] {
        let sent = queue::send(&mut client, "q", &json!(1))?;
        client.batch_execute("BEGIN")?;
        ensure!(queue::delete(&mut client, "q", sent, None)?);
        let mut second = database.client()?;
        let pid = enough_pg_test::server::backend(&mut second)?;
        let thread = std::thread::spawn(move || queue::delete(&mut second, "q", sent, None));
        let mut watcher = database.client()?;
        eventually("the second one waits for the first", || {
            let row = watcher.query_opt(
                "SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'",
                &[&i32::try_from(pid)?],
            )?;
            Ok(row.map(drop))
        })?;
        client.batch_execute(if commit { "COMMIT" } else { "ROLLBACK" })?;
        let deleted = thread.join().expect("the second session panicked")?;
        ensure!(deleted != commit, "deleted by {} sessions", u8::from(commit) + u8::from(deleted));
        ensure!(queue::read(&mut client, "q", 1)?.is_empty());
    }
    Ok(())
}

/// The predicate locks that a session's transaction has on a queue's table and its indexes.
fn predicate_locks(client: &mut Client) -> Result<i64> {
    let count = "SELECT count(*) FROM pg_locks WHERE mode = 'SIReadLock' AND pid = pg_backend_pid() \
                 AND relation::regclass::text ~ '^enough\\.(q_|i_)'";
    Ok(client.query_one(count, &[])?.get(0))
}

/// What the documents say of SERIALIZABLE: that a queue was empty isn't part of what the server watches.
#[test]
fn an_empty_read_is_no_part_of_a_serializable_order() -> Result<()> {
    let (_database, mut client, mut other) = made("")?;
    client.batch_execute("SELECT enough.queue_create('r')")?;
    for client in [&mut client, &mut other] {
        client.batch_execute("BEGIN ISOLATION LEVEL SERIALIZABLE")?;
    }
    // Write skew: each sends because the other's queue is empty.
    ensure!(read(&mut client, "q", 1)?.is_empty() && read(&mut other, "r", 1)?.is_empty());
    ensure!(predicate_locks(&mut client)? == 0);
    queue::send(&mut client, "r", &serde_json::json!(1))?;
    queue::send(&mut other, "q", &serde_json::json!(2))?;
    client.batch_execute("COMMIT")?;
    other.batch_execute("COMMIT")?;
    // By the tables one of the two is refused.
    for client in [&mut client, &mut other] {
        client.batch_execute("BEGIN ISOLATION LEVEL SERIALIZABLE")?;
    }
    client.batch_execute("SELECT count(*) FROM enough.q_q WHERE msg_id > 99")?;
    other.batch_execute("SELECT count(*) FROM enough.q_r WHERE msg_id > 99")?;
    queue::send(&mut client, "r", &serde_json::json!(1))?;
    queue::send(&mut other, "q", &serde_json::json!(2))?;
    let outcomes = [client.batch_execute("COMMIT"), other.batch_execute("COMMIT")];
    let failed: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    ensure!(failed.len() == 1 && state(failed[0]) == "40001", "{outcomes:?}");
    Ok(())
}

/// Workers above READ COMMITTED don't come into each other's way by what a refill reads.
#[test]
fn serializable_workers_do_not_fail_for_each_others_refills() -> Result<()> {
    let (database, mut client, _) = made("")?;
    queue::send_numbers(&mut client, "q", 3_000)?;
    // Nothing is in the memory: the first read scans.
    client.batch_execute("ALTER TABLE enough.q_q SET (fillfactor = 90)")?;
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let mut client = database.client()?;
            Ok(std::thread::spawn(move || -> Result<(usize, usize)> {
                let (mut done, mut refused) = (0, 0);
                loop {
                    let work = (|| {
                        client.batch_execute("BEGIN ISOLATION LEVEL SERIALIZABLE")?;
                        let read = read(&mut client, "q", 5)?;
                        for message in &read {
                            queue::delete(&mut client, "q", message.msg_id, message.lease)?;
                        }
                        client.batch_execute("COMMIT")?;
                        Ok::<_, postgres::Error>(read.len())
                    })();
                    match work {
                        Ok(0) => return Ok((done, refused)),
                        Ok(count) => done += count,
                        Err(error) => {
                            ensure!(state(&error) == "40001", "{error}");
                            refused += 1;
                            client.batch_execute("ROLLBACK")?;
                        }
                    }
                }
            }))
        })
        .collect::<Result<_>>()?;
    let mut sum = (0, 0);
    for worker in workers {
        let (done, refused) = worker.join().expect("a worker's thread")?;
        sum = (sum.0 + done, sum.1 + refused);
    }
    println!("{} done, {} refused", sum.0, sum.1);
    ensure!(sum.1 == 0, "{} of the transactions were refused", sum.1);
    Ok(())
}

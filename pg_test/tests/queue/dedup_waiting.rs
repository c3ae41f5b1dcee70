//! Queues in which a leased message has no dedup key: `dedup` is `waiting`.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{eventually, refused};
use enough_pg_test::queue::{self, Message, ids, made, receive};
use enough_pg_test::server::{backend, until_locked};
use postgres::Client;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const WAITING: &str = ", dedup => 'waiting', visibility_timeout => '1 hour', retry_backoff => '0'";

/// Sends a message with the key k.
fn send(client: &mut Client, message: &str) -> Result<i64> {
    Ok(client.query_one("SELECT enough.queue_send('q', $1::text::jsonb, dedup_key => 'k')", &[&message])?.get(0))
}

fn leased(client: &mut Client) -> Result<Message> {
    queue::read(client, "q", 1)?.pop().context("nothing was ready")
}

/// State and error of a message.
fn status(client: &mut Client, msg_id: i64) -> Result<(String, Option<String>)> {
    let row = client.query_one("SELECT state, error FROM enough.queue_status('q', $1)", &[&msg_id])?;
    Ok((row.get(0), row.get(1)))
}

fn superseded() -> (String, Option<String>) {
    ("dead".into(), Some("superseded".into()))
}

#[test]
fn while_one_is_worked_on_another_waits_and_never_two() -> Result<()> {
    let (_database, mut client, mut other) = made(WAITING)?;
    let first = send(&mut client, "1")?;
    ensure!(send(&mut other, "2")? == first, "it waits");
    let held = leased(&mut other)?;
    let second = send(&mut client, "2")?;
    ensure!(second > first && send(&mut client, "3")? == second && send(&mut other, "3")? == second);
    ensure!(status(&mut client, first)?.0 == "leased", "its consumer has it still");
    ensure!(queue::delete(&mut other, "q", first, held.lease)?, "and its lease is the current one");
    ensure!(send(&mut client, "3")? == second, "what waits has the key");
    let held = leased(&mut other)?;
    ensure!(held.msg_id == second && queue::read(&mut client, "q", 9)?.is_empty());
    // A consumer that sends the next one before it is done, in one transaction.
    other.batch_execute("BEGIN")?;
    let third = send(&mut other, "3")?;
    ensure!(third > second && queue::delete(&mut other, "q", second, held.lease)?);
    ensure!(send(&mut other, "4")? == third);
    other.batch_execute("COMMIT")?;
    ensure!(ids(&queue::read(&mut client, "q", 9)?) == [third]);
    Ok(())
}

#[test]
fn one_that_comes_back_is_dead_because_its_successor_waits() -> Result<()> {
    for ending in ["fail", "release", "run out", "roll back"] {
        let (_database, mut client, mut other) = made(WAITING)?;
        let first = send(&mut client, "1")?;
        if ending == "roll back" {
            other.batch_execute("BEGIN")?;
        }
        let timeout = if ending == "run out" { "200 ms" } else { "1 hour" };
        let held = receive(&mut other, &format!("queue_read('q', 1, '{timeout}')"))?;
        ensure!(ids(&held) == [first]);
        let second = send(&mut client, "2")?;
        ensure!(second > first, "{ending}");
        match ending {
            "fail" => other.batch_execute(&format!("SELECT enough.queue_fail('q', {first}, 'no', '0')"))?,
            "release" => other.batch_execute(&format!("SELECT enough.queue_release('q', {first})"))?,
            "roll back" => other.batch_execute("ROLLBACK")?,
            _ => thread::sleep(Duration::from_millis(250)),
        }
        ensure!(status(&mut client, first)? == superseded(), "{ending}: {:?}", status(&mut client, first)?);
        ensure!(send(&mut client, "3")? == second, "{ending}");
        let read = queue::read(&mut client, "q", 9)?;
        ensure!(ids(&read) == [second], "{ending}: {read:?}");
        eventually("it is in the archive", || {
            queue::read(&mut client, "q", 9)?;
            let archived = "SELECT 1 FROM enough.a_q WHERE msg_id = $1 AND error = 'superseded' AND outcome = 'dead'";
            Ok(client.query_opt(archived, &[&first])?.map(drop))
        })?;
    }
    Ok(())
}

#[test]
fn what_rests_or_was_given_back_in_this_transaction_waits() -> Result<()> {
    let (_database, mut client, mut other) = made(WAITING)?;
    let first = send(&mut client, "1")?;
    leased(&mut other)?;
    // Before the commit, too: then it will rest.
    other.batch_execute(&format!("BEGIN; SELECT enough.queue_fail('q', {first}, 'no', '1 hour')"))?;
    ensure!(send(&mut other, "2")? == first);
    other.batch_execute("COMMIT")?;
    ensure!(send(&mut client, "2")? == first && status(&mut client, first)?.0 == "delayed");
    Ok(())
}

#[test]
fn a_sender_that_is_rolled_back_has_taken_nothing() -> Result<()> {
    let (_database, mut client, mut other) = made(WAITING)?;
    let first = send(&mut client, "1")?;
    let held = leased(&mut other)?;
    client.batch_execute("BEGIN")?;
    ensure!(send(&mut client, "2")? > first);
    client.batch_execute("ROLLBACK; BEGIN; SAVEPOINT a")?;
    ensure!(send(&mut client, "2")? > first);
    client.batch_execute("ROLLBACK TO a; COMMIT")?;
    let given_back = other.query_one("SELECT enough.queue_release('q', $1, lease => $2)", &[&first, &held.lease])?;
    ensure!(given_back.get::<_, bool>(0));
    ensure!(send(&mut client, "3")? == first, "it has its key");
    ensure!(leased(&mut other)?.msg_id == first);
    Ok(())
}

#[test]
fn batches_and_senders_that_are_told_do_so_too() -> Result<()> {
    let (_database, mut client, mut other) = made(WAITING)?;
    for on_conflict in ["keep", "replace"] {
        let first = send(&mut client, "1")?;
        let held = leased(&mut other)?;
        let statement = "SELECT msg_id, outcome FROM enough.queue_send_unique('q', '2', 'k', $1)";
        let row = client.query_one(statement, &[&on_conflict])?;
        let (second, outcome): (i64, &str) = (row.get(0), row.get(1));
        ensure!(second > first && outcome == "sent", "{on_conflict}: {outcome}");
        let row = client.query_one(statement, &[&on_conflict])?;
        let told = if on_conflict == "keep" { "kept" } else { "replaced" };
        ensure!((row.get::<_, i64>(0), row.get::<_, &str>(1)) == (second, told));
        ensure!(queue::delete(&mut other, "q", first, held.lease)?);
        let held = leased(&mut other)?;
        let batch = "SELECT enough.queue_send_batch('q', ARRAY['1', '2', '3']::jsonb[], dedup_keys => '{k,l,k}')";
        let sent: Vec<i64> = client.query(batch, &[])?.iter().map(|row| row.get(0)).collect();
        ensure!(sent[0] > second && sent[0] == sent[2] && sent[1] != sent[0], "{sent:?}");
        ensure!(queue::delete(&mut other, "q", second, held.lease)?);
        ensure!(queue::drain(&mut other, "q")?.len() == 2);
    }
    Ok(())
}

#[test]
fn senders_and_consumers_at_once_never_have_two_that_wait() -> Result<()> {
    let (database, mut client, _) = made(WAITING)?;
    let until = Instant::now() + Duration::from_secs(2);
    let sessions: Vec<_> = (0..6)
        .map(|session: i32| {
            let mut own = database.client()?;
            Ok(thread::spawn(move || -> Result<()> {
                let mut round = session;
                while Instant::now() < until {
                    round += 1;
                    if session < 3 {
                        let end = if round % 5 == 0 { "ROLLBACK" } else { "COMMIT" };
                        own.batch_execute("BEGIN")?;
                        send(&mut own, "1")?;
                        own.batch_execute(end)?;
                    } else if let Some(held) = queue::read(&mut own, "q", 1)?.first() {
                        let (msg_id, lease) = (held.msg_id, held.lease);
                        match round % 4 {
                            0 => own.execute("SELECT enough.queue_fail('q', $1, 'no', '0', $2)", &[&msg_id, &lease])?,
                            1 => {
                                own.execute("SELECT enough.queue_release('q', $1, lease => $2)", &[&msg_id, &lease])?
                            }
                            _ => u64::from(queue::delete(&mut own, "q", msg_id, lease)?),
                        };
                    }
                }
                Ok(())
            }))
        })
        .collect::<Result<_>>()?;
    let mut seen = BTreeSet::new();
    while Instant::now() < until {
        // Those that would be delivered, by the table alone: at most one has the key, and what has lost it is marked.
        let row = client.query_one(
            "SELECT count(dedup_key), count(*) FILTER (WHERE dedup_key IS NULL AND expires_at IS DISTINCT FROM '-infinity') \
               FROM enough.q_q",
            &[],
        )?;
        let (keyed, lost): (i64, i64) = (row.get(0), row.get(1));
        ensure!(keyed <= 1 && lost == 0, "{keyed} with the key, {lost} without it that would be delivered");
        seen.insert(keyed);
    }
    for session in sessions {
        session.join().map_err(|_| anyhow::anyhow!("a session has panicked"))??;
    }
    let last = send(&mut client, "\"last\"")?;
    let ready = queue::read(&mut client, "q", 100)?;
    ensure!(ready.len() <= 1 && ready.iter().all(|one| one.msg_id == last), "{ready:?}, {last}");
    Ok(())
}

/// A message that is leased after a sender has found that it waits: the sender's own is sent beside it.
#[test]
fn a_last_word_is_taken_whoever_reads_meanwhile() -> Result<()> {
    let (database, mut client, _) = made(WAITING)?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        let consumers: Vec<_> = (0..3)
            .map(|_| {
                let mut own = database.client()?;
                let done = &done;
                Ok(scope.spawn(move || -> Result<()> {
                    while !done.load(Relaxed) {
                        for held in queue::read(&mut own, "q", 1)? {
                            queue::delete(&mut own, "q", held.msg_id, held.lease)?;
                        }
                    }
                    Ok(())
                }))
            })
            .collect::<Result<_>>()?;
        let sent = (0..4000).try_for_each(|number| -> Result<()> {
            let send = "SELECT outcome FROM enough.queue_send_unique('q', to_jsonb($1::int), 'k', 'replace')";
            let outcome: String = client.query_one(send, &[&number])?.get(0);
            ensure!(outcome != "kept", "message {number} was not taken");
            Ok(())
        });
        done.store(true, Relaxed);
        for consumer in consumers {
            consumer.join().map_err(|_| anyhow::anyhow!("a consumer panicked"))??;
        }
        sent
    })
}

#[test]
fn a_consumer_that_finishes_meanwhile_comes_first_or_waits() -> Result<()> {
    let (database, mut client, mut other) = made(WAITING)?;
    for ending in ["COMMIT", "ROLLBACK"] {
        let first = send(&mut client, "1")?;
        let held = leased(&mut other)?;
        other.batch_execute("BEGIN")?;
        ensure!(queue::delete(&mut other, "q", first, held.lease)?);
        let mut sender = database.client()?;
        let pid = backend(&mut sender)?;
        let sent = thread::spawn(move || send(&mut sender, "2"));
        until_locked(&mut client, pid)?;
        other.batch_execute(ending)?;
        let second = sent.join().map_err(|_| anyhow::anyhow!("the sender has panicked"))??;
        if ending == "COMMIT" {
            ensure!(second > first);
        }
        let live = queue::read(&mut client, "q", 9)?;
        ensure!(ids(&live) == [second], "{ending}: {live:?}, {second}");
    }
    Ok(())
}

#[test]
fn the_option_is_listed_and_altered_and_every_session_goes_by_it() -> Result<()> {
    let (_database, mut client, mut other) = made("")?;
    let listed = |client: &mut Client| -> Result<String> {
        Ok(client.query_one("SELECT dedup FROM enough.queue_list() WHERE name = 'q'", &[])?.get(0))
    };
    ensure!(listed(&mut client)? == "live");
    let first = send(&mut client, "1")?;
    leased(&mut other)?;
    ensure!(send(&mut client, "2")? == first);
    other.batch_execute("SELECT enough.queue_alter('q', dedup => 'waiting')")?;
    ensure!(listed(&mut client)? == "waiting" && send(&mut client, "2")? > first);
    other.batch_execute("SELECT enough.queue_alter('q', max_attempts => 3)")?;
    ensure!(listed(&mut client)? == "waiting", "NULL leaves it");
    refused(client.batch_execute("SELECT enough.queue_alter('q', dedup => 'always')"), "22023")?;
    let second = leased(&mut other)?.msg_id;
    other.batch_execute("SELECT enough.queue_alter('q', dedup => 'live')")?;
    ensure!(send(&mut client, "3")? == second);
    Ok(())
}

#[test]
fn who_may_only_send_takes_the_key_too_and_a_table_without_limits_says_so() -> Result<()> {
    let (database, mut client, mut other) = made(WAITING)?;
    let role = database.role("sender");
    client.batch_execute(&format!("CREATE ROLE {role} LOGIN; SELECT enough.queue_grant('q', '{role}', 'send')"))?;
    let mut sender = database.client_as(&role)?;
    let first = send(&mut sender, "1")?;
    leased(&mut other)?;
    ensure!(send(&mut sender, "2")? > first);
    leased(&mut other)?;
    client.batch_execute("ALTER TABLE enough.q_q DROP expires_at, DROP max_attempts")?;
    refused(sender.execute("SELECT enough.queue_send('q', '3', dedup_key => 'k')", &[]).map(drop), "55000")?;
    Ok(())
}

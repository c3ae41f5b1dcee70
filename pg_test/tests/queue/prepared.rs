//! Two-phase commit: what a prepared transaction has sent is there when it is committed, whoever does that, and not before; and
//! found by the next read that finds nothing else, also where a restart lies in between.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{eventually, refused};
use enough_pg_test::queue;
use enough_pg_test::server::{self, Database, backend, until_waiting};
use postgres::Client;
use serde_json::json;
use std::collections::BTreeSet;
use std::thread;
use xtask::server::Shutdown;

const OPTIONS: &str = ", visibility_timeout => '1 hour', retry_backoff => '0'";

/// Prepares a transaction that makes these calls.
fn prepare(client: &mut Client, gid: &str, calls: &str) -> Result<(), postgres::Error> {
    client.batch_execute(&format!("BEGIN; SELECT {calls}; PREPARE TRANSACTION '{gid}'"))
}

fn decide(client: &mut Client, how: &str, gid: &str) -> Result<(), postgres::Error> {
    client.batch_execute(&format!("{how} PREPARED '{gid}'"))
}

/// The messages that are ready, which are gone then.
fn popped(client: &mut Client) -> Result<Vec<i64>> {
    let messages = queue::receive(client, "queue_pop('q', 100)")?;
    Ok(messages.iter().filter_map(|message| message.message.as_i64()).collect())
}

#[test]
fn nothing_is_visible_before_the_decision_and_all_of_it_after() -> Result<()> {
    let (database, mut client, mut other) = queue::made(OPTIONS)?;
    let gid = |number: i32| format!("{}_{number}", database.name);
    for (number, by_other) in [(1, false), (2, true)] {
        let calls = "enough.queue_send('q', '1'), enough.queue_send('q', '2', priority => 5), enough.queue_send('q', '3', group_key => 'g')";
        prepare(&mut client, &gid(number), calls)?;
        // Others send, read and find nothing more, whatever the numbers are.
        queue::send(&mut other, "q", &json!(10))?;
        ensure!(popped(&mut other)? == [10]);
        ensure!(popped(&mut other)?.is_empty() && popped(&mut client)?.is_empty());
        ensure!(queue::stats(&mut other, "q")?.ready == 0);
        decide(if by_other { &mut other } else { &mut client }, "COMMIT", &gid(number))?;
        let mut found = popped(&mut other)?;
        found.sort_unstable();
        ensure!(found == [1, 2, 3], "{found:?}");
        ensure!(queue::stats(&mut other, "q")?.ready == 0);
    }
    // A rollback leaves nothing.
    prepare(&mut client, &gid(3), "enough.queue_send('q', '4')")?;
    decide(&mut other, "ROLLBACK", &gid(3))?;
    ensure!(popped(&mut other)?.is_empty() && popped(&mut client)?.is_empty());
    // What has a delivery time comes at that.
    prepare(
        &mut client,
        &gid(4),
        "enough.queue_send('q', '5', '1 hour'), enough.queue_send('q', '6', '1 microsecond')",
    )?;
    ensure!(popped(&mut other)?.is_empty());
    decide(&mut other, "COMMIT", &gid(4))?;
    ensure!(popped(&mut other)? == [6]);
    other.batch_execute("SELECT enough.maintain()")?;
    let stats = queue::stats(&mut other, "q")?;
    ensure!(stats.ready == 0 && stats.delayed == 1, "{stats:?}");
    let sent: i64 = other.query_one("SELECT sent_total FROM enough.queue_stats('q')", &[])?.get(0);
    ensure!(sent == 10, "{sent} were sent");
    // A savepoint's messages are as the transaction's; those of one that was rolled back are none.
    client.batch_execute(&format!(
        "BEGIN; SAVEPOINT a; SELECT enough.queue_send('q', '7'); RELEASE a; SAVEPOINT b; SELECT enough.queue_send('q', '8'); \
         ROLLBACK TO b; PREPARE TRANSACTION '{}'",
        gid(5)
    ))?;
    decide(&mut other, "COMMIT", &gid(5))?;
    ensure!(popped(&mut client)? == [7]);
    Ok(())
}

#[test]
fn who_waits_is_woken_or_looks() -> Result<()> {
    let (database, mut client, mut other) = queue::made(OPTIONS)?;
    let mut reader = database.client()?;
    for by_other in [false, true] {
        let gid = format!("{}_{by_other}", database.name);
        // Prepared before the reader comes, and while it waits.
        for while_waiting in [false, true] {
            if !while_waiting {
                prepare(&mut client, &gid, "enough.queue_send('q', '1')")?;
            }
            let pid = backend(&mut reader)?;
            let got = thread::scope(|scope| {
                let waiting = scope.spawn(|| queue::receive(&mut reader, "queue_pop('q', 1, '10 minutes')"));
                until_waiting(&mut other, pid)?;
                if while_waiting {
                    prepare(&mut client, &gid, "enough.queue_send('q', '1')")?;
                }
                decide(if by_other { &mut other } else { &mut client }, "COMMIT", &gid)?;
                Ok::<_, anyhow::Error>(waiting.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??)
            })?;
            ensure!(got.len() == 1, "{got:?}");
        }
    }
    Ok(())
}

#[test]
fn a_lease_stands_and_what_changes_messages_can_not_be_prepared() -> Result<()> {
    let (database, mut client, mut other) = queue::made(OPTIONS)?;
    let gid = format!("{}_lease", database.name);
    let sent = queue::send(&mut client, "q", &json!(1))?;
    client.batch_execute("BEGIN")?;
    let read = queue::read(&mut client, "q", 1)?;
    client.batch_execute(&format!("SELECT enough.queue_send('q', '2'); PREPARE TRANSACTION '{gid}'"))?;
    ensure!(queue::stats(&mut other, "q")?.leased == 1);
    decide(&mut other, "ROLLBACK", &gid)?;
    ensure!(popped(&mut other)?.is_empty());
    ensure!(queue::delete(&mut other, "q", sent, read[0].lease)?, "the lease is lost");
    queue::send(&mut client, "q", &json!(3))?;
    for call in [
        "queue_pop('q')",
        "queue_purge('q')",
        "queue_create('new')",
        "queue_alter('q', max_attempts => 3)",
        "queue_drop('q')",
    ] {
        client.batch_execute(&format!("BEGIN; SELECT enough.queue_send('q', '4'); SELECT enough.{call}"))?;
        let hint = refused(client.batch_execute("PREPARE TRANSACTION 'never'"), "0A000")?;
        ensure!(hint.contains("COMMIT"), "{call}: {hint}");
    }
    eventually("the message is back", || Ok((popped(&mut other)? == [3]).then_some(())))?;
    Ok(())
}

#[test]
fn as_many_as_there_is_room_for_may_be_in_doubt() -> Result<()> {
    let (database, mut client, mut other) = queue::made(OPTIONS)?;
    let gid = |number: i64| format!("{}_{number}", database.name);
    for round in 0..3 {
        for number in 0..8 {
            prepare(&mut client, &gid(number), &format!("enough.queue_send('q', '{}')", 10 * round + number))?;
        }
        // One that the server refuses leaves its place.
        decide(&mut client, "COMMIT", &gid(7))?;
        ensure!(popped(&mut other)? == [10 * round + 7]);
        refused(prepare(&mut client, &gid(0), "enough.queue_send('q', '7')"), "42710")?;
        prepare(&mut client, &gid(7), "enough.queue_send('q', '7')")?;
        let hint = refused(prepare(&mut client, &gid(8), "enough.queue_send('q', '8')"), "0A000")?;
        ensure!(hint.contains("COMMIT PREPARED"), "{hint}");
        // Another queue has room of its own, which what failed has left.
        client.batch_execute("SELECT enough.queue_create('p', if_not_exists => true)")?;
        refused(prepare(&mut client, &gid(8), "enough.queue_send('p', '8'), enough.queue_send('q', '8')"), "0A000")?;
        ensure!(popped(&mut other)?.is_empty());
        for number in 0..8 {
            let how = if number % 2 == 0 { "COMMIT" } else { "ROLLBACK" };
            decide(if number < 4 { &mut client } else { &mut other }, how, &gid(number))?;
        }
        let mut found = popped(&mut other)?;
        found.sort_unstable();
        ensure!(found == [0, 2, 4, 6].map(|number| 10 * round + number), "{found:?}");
    }
    Ok(())
}

/// A number below `most` of a sequence that is the same in every run.
fn next(state: &mut u64, most: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % most
}

#[test]
fn random_histories_with_restarts_lose_nothing_and_show_nothing_early() -> Result<()> {
    let mut server = server::start(&server::options()?.conf("max_prepared_transactions", "20"))?;
    for seed in 1..=4 {
        let database = Database::on(&server)?;
        let mut sessions = vec![database.client()?, database.client()?, database.client()?];
        sessions[0].batch_execute(&format!(
            "SELECT enough.queue_create('q'{OPTIONS}), enough.queue_create('p'), enough.queue_create('o')"
        ))?;
        let (mut state, mut number) = (seed, 0);
        let (mut open, mut committed, mut got) = (Vec::<(String, Vec<i64>)>::new(), BTreeSet::new(), BTreeSet::new());
        for step in 0..250 {
            let who = next(&mut state, 3) as usize;
            match next(&mut state, 20) {
                0..5 if open.len() < 14 => {
                    let gid = format!("{}_{step}", database.name);
                    // More of them than a queue has records for, with those that have sent elsewhere.
                    if next(&mut state, 3) == 0 {
                        prepare(
                            &mut sessions[who],
                            &gid,
                            "enough.queue_send(CASE WHEN random() < 0.5 THEN 'p' ELSE 'o' END, '0')",
                        )?;
                        open.push((gid, Vec::new()));
                        continue;
                    }
                    let mut calls = Vec::new();
                    let mut sent = Vec::new();
                    for _ in 0..=next(&mut state, 3) {
                        number += 1;
                        sent.push(number);
                        let more = ["", ", priority => 3", ", group_key => 'g'", ", delay => '1 microsecond'"]
                            [next(&mut state, 4) as usize];
                        calls.push(format!("enough.queue_send('q', '{number}'{more})"));
                    }
                    match prepare(&mut sessions[who], &gid, &calls.join(", ")) {
                        Ok(()) => open.push((gid, sent)),
                        Err(error) => {
                            refused(Err::<(), _>(error), "0A000")?;
                            ensure!(open.len() >= 7, "refused with {} open", open.len());
                        }
                    }
                }
                5..9 if !open.is_empty() => {
                    let (gid, sent) = open.swap_remove(next(&mut state, open.len() as u64) as usize);
                    let commits = next(&mut state, 3) > 0;
                    decide(&mut sessions[who], if commits { "COMMIT" } else { "ROLLBACK" }, &gid)?;
                    if commits {
                        committed.extend(sent);
                    }
                }
                9..12 => {
                    number += 1;
                    queue::send(&mut sessions[who], "q", &json!(number))?;
                    committed.insert(number);
                }
                12 => sessions[who].batch_execute("SELECT enough.maintain()")?,
                13 if next(&mut state, 4) == 0 => {
                    drop(std::mem::take(&mut sessions));
                    server.restart(if next(&mut state, 2) == 0 { Shutdown::Fast } else { Shutdown::Immediate })?;
                    sessions = vec![database.client()?, database.client()?, database.client()?];
                }
                _ => {
                    // Of a group one at a time is leased: a pop may come back with the first alone.
                    let mut some = popped(&mut sessions[who])?;
                    while !some.is_empty() {
                        for one in some {
                            ensure!(committed.contains(&one), "seed {seed}, step {step}: {one} is visible too early");
                            ensure!(got.insert(one), "seed {seed}, step {step}: {one} came twice");
                        }
                        some = popped(&mut sessions[who])?;
                    }
                    let late: Vec<_> = committed.difference(&got).collect();
                    ensure!(late.is_empty(), "seed {seed}, step {step}: {late:?} are late");
                }
            }
        }
        for (gid, _) in open {
            decide(&mut sessions[0], "ROLLBACK", &gid).context("the rest")?;
        }
    }
    Ok(())
}

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

const OPTIONS: &str = ", visibility_timeout => '1 hour', retry_backoff => '0', max_attempts => 1000";

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
fn a_lease_stands_and_what_changes_queues_can_not_be_prepared() -> Result<()> {
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
    for call in ["queue_purge('q')", "queue_create('new')", "queue_alter('q', max_attempts => 3)", "queue_drop('q')"] {
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

/// A transaction that is neither committed nor rolled back: what it has sent to the queue, and the messages that it has ended.
struct Prepared {
    gid: String,
    sent: Vec<i64>,
    ended: Vec<i64>,
}

/// Ends a few messages in the transaction that is open; which.
fn end_some(client: &mut Client, state: &mut u64) -> Result<Vec<i64>> {
    let qty = 1 + next(state, 3);
    let way = next(state, 3);
    let messages = match way {
        0 => queue::receive(client, &format!("queue_pop('q', {qty})"))?,
        _ => queue::receive(client, &format!("queue_read('q', {qty})"))?,
    };
    for message in messages.iter().filter(|_| way > 0) {
        let call = ["queue_delete('q', $1, $2)", "queue_archive('q', $1, NULL, $2)"][way as usize - 1];
        client.execute(&format!("SELECT enough.{call}"), &[&message.msg_id, &message.lease])?;
    }
    Ok(messages.iter().filter_map(|message| message.message.as_i64()).collect())
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
        let (mut open, mut committed, mut got) = (Vec::<Prepared>::new(), BTreeSet::new(), BTreeSet::new());
        let mut grouped = BTreeSet::new();
        for step in 0..250 {
            let who = next(&mut state, 3) as usize;
            match next(&mut state, 20) {
                0..5 if open.len() < 14 => {
                    let gid = format!("{}_{step}", database.name);
                    // More of them than a queue has records for, with those that have sent elsewhere.
                    if next(&mut state, 3) == 0 {
                        let to = ["p", "o"][next(&mut state, 2) as usize];
                        match prepare(&mut sessions[who], &gid, &format!("enough.queue_send('{to}', '0')")) {
                            Ok(()) => open.push(Prepared { gid, sent: Vec::new(), ended: Vec::new() }),
                            Err(error) => {
                                // After a restart each queue has records of all.
                                refused(Err::<(), _>(error), "0A000")?;
                                ensure!(open.len() >= 7, "refused with {} open", open.len());
                            }
                        }
                        continue;
                    }
                    let client = &mut sessions[who];
                    client.batch_execute("BEGIN")?;
                    let ended = if next(&mut state, 2) == 0 { end_some(client, &mut state)? } else { Vec::new() };
                    let (mut sent, mut calls) = (Vec::new(), vec!["1".to_owned()]);
                    for _ in 0..next(&mut state, 4) {
                        number += 1;
                        sent.push(number);
                        let more = ["", ", priority => 3", ", group_key => 'g'", ", delay => '1 microsecond'"]
                            [next(&mut state, 4) as usize];
                        if more.contains("group") {
                            grouped.insert(number);
                        }
                        calls.push(format!("enough.queue_send('q', '{number}'{more})"));
                    }
                    for one in &ended {
                        ensure!(committed.contains(one), "seed {seed}, step {step}: {one} is visible too early");
                        let twice = got.contains(one) || open.iter().any(|other| other.ended.contains(one));
                        ensure!(!twice, "seed {seed}, step {step}: {one} came twice");
                    }
                    client.batch_execute(&format!("SELECT {}", calls.join(", ")))?;
                    match client.batch_execute(&format!("PREPARE TRANSACTION '{gid}'")) {
                        Ok(()) => open.push(Prepared { gid, sent, ended }),
                        Err(error) => {
                            refused(Err::<(), _>(error), "0A000")?;
                            ensure!(open.len() >= 7, "refused with {} open", open.len());
                        }
                    }
                }
                5..9 if !open.is_empty() => {
                    let one = open.swap_remove(next(&mut state, open.len() as u64) as usize);
                    let commits = next(&mut state, 3) > 0;
                    decide(&mut sessions[who], if commits { "COMMIT" } else { "ROLLBACK" }, &one.gid)?;
                    if commits {
                        committed.extend(one.sent);
                        got.extend(one.ended);
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
                            let undecided = open.iter().any(|other| other.ended.contains(&one));
                            ensure!(!undecided, "seed {seed}, step {step}: {one} is another's until the decision");
                            ensure!(got.insert(one), "seed {seed}, step {step}: {one} came twice");
                        }
                        some = popped(&mut sessions[who])?;
                    }
                    let undecided: BTreeSet<i64> = open.iter().flat_map(|one| &one.ended).copied().collect();
                    // The others of a group wait for the one that is undecided.
                    let held = undecided.intersection(&grouped).next().is_some();
                    let may_be_late = |one: &&i64| undecided.contains(one) || (held && grouped.contains(one));
                    let late: Vec<_> = committed.difference(&got).filter(|one| !may_be_late(one)).collect();
                    ensure!(late.is_empty(), "seed {seed}, step {step}: {late:?} are late");
                }
            }
        }
        for Prepared { gid, .. } in open {
            decide(&mut sessions[0], "ROLLBACK", &gid).context("the rest")?;
        }
    }
    Ok(())
}

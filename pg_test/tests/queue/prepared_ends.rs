//! Two-phase commit: what a prepared transaction has finished, failed or given back is with nobody until it is decided, whoever decides
//! and whether or not the server is restarted in between; then it is gone, or delivered again.

use anyhow::{Result, ensure};
use enough_pg_test::check::{eventually, state};
use enough_pg_test::queue::{self, ids};
use enough_pg_test::server::{self, Database, backend, until_waiting};
use postgres::Client;
use serde_json::json;
use std::thread;
use std::time::Duration;
use xtask::server::{Server, Shutdown};

const OPTIONS: &str = ", visibility_timeout => '1 hour', retry_backoff => '0', max_attempts => 100";

/// Prepares a transaction that makes these calls.
fn prepare(client: &mut Client, gid: &str, calls: &str) -> Result<(), postgres::Error> {
    client.batch_execute(&format!("BEGIN; SELECT {calls}; PREPARE TRANSACTION '{gid}'"))
}

fn decide(client: &mut Client, how: &str, gid: &str) -> Result<(), postgres::Error> {
    client.batch_execute(&format!("{how} PREPARED '{gid}'"))
}

fn popped(client: &mut Client) -> Result<Vec<i64>> {
    Ok(ids(&queue::receive(client, "queue_pop('q', 100)")?))
}

/// What comes until a call finds nothing: of a group one at a time. Nothing is waited for, as [`queue::drain`] does.
fn popped_until_dry(client: &mut Client) -> Result<Vec<i64>> {
    let mut all = Vec::new();
    loop {
        let some = popped(client)?;
        if some.is_empty() {
            return Ok(all);
        }
        all.extend(some);
    }
}

fn count(client: &mut Client, what: &str) -> Result<i64> {
    Ok(client.query_one(&format!("SELECT {what} FROM enough.queue_stats('q')"), &[])?.get(0))
}

/// What becomes of a message at COMMIT PREPARED.
#[derive(Debug, Clone, Copy, PartialEq)]
enum After {
    Gone,
    /// It is delivered again, as the delivery with that number.
    Again(i32),
}

/// Ways to end a delivery; `$m` is the message, `$l` its lease.
const WAYS: [(&str, After); 12] = [
    ("enough.queue_delete('q', $m, $l)", After::Gone),
    ("enough.queue_delete('q', $m)", After::Gone),
    ("enough.queue_delete_batch('q', ARRAY[$m], ARRAY[$l])", After::Gone),
    ("enough.queue_archive('q', $m, '{\"a\": 1}', $l)", After::Gone),
    ("enough.queue_archive_batch('q', ARRAY[$m])", After::Gone),
    ("enough.queue_fail('q', $m, 'no', dead => true, lease => $l)", After::Gone),
    ("enough.queue_fail('q', $m, 'no', '0', $l)", After::Again(2)),
    ("enough.queue_fail_batch('q', ARRAY[$m], ARRAY[$l], 'no', '0')", After::Again(2)),
    ("enough.queue_release('q', $m, '0', $l)", After::Again(1)),
    ("enough.queue_release_batch('q', ARRAY[$m])", After::Again(1)),
    ("enough.queue_reschedule('q', ARRAY[$m], now())", After::Again(2)),
    // One after the other.
    ("enough.queue_fail('q', $m, 'no', '0', $l), enough.queue_delete('q', $m)", After::Gone),
];

#[test]
fn a_message_is_with_nobody_until_the_decision() -> Result<()> {
    let (database, mut client, mut other) = queue::made(OPTIONS)?;
    for (number, (way, after)) in WAYS.iter().enumerate() {
        for commit in [true, false] {
            for by_other in [false, true] {
                let gid = format!("{}_{number}_{commit}_{by_other}", database.name);
                let what = format!("{way}, commit {commit}, by another session {by_other}");
                let sent = queue::send(&mut client, "q", &json!(1))?;
                let read = queue::read(&mut client, "q", 1)?;
                ensure!(ids(&read) == [sent] && read[0].attempts == 1, "{what}: {read:?}");
                let lease = read[0].lease.unwrap_or_default();
                let calls = way.replace("$m", &format!("{sent}::bigint")).replace("$l", &lease.to_string());
                prepare(&mut client, &gid, &calls)?;
                other.batch_execute("SELECT enough.maintain()")?;
                ensure!(popped(&mut other)?.is_empty() && popped(&mut client)?.is_empty(), "{what}: too early");
                let these = queue::receive(&mut other, &format!("queue_read_these('q', ARRAY[{sent}::bigint])"))?;
                ensure!(these.is_empty(), "{what}: {these:?}");
                ensure!(queue::stats(&mut other, "q")?.leased == 1, "{what}");
                let how = if commit { "COMMIT" } else { "ROLLBACK" };
                decide(if by_other { &mut other } else { &mut client }, how, &gid)?;
                match (*after, commit) {
                    (After::Gone, true) => ensure!(popped(&mut other)?.is_empty(), "{what}: it is back"),
                    (After::Again(attempts), true) => {
                        let again = queue::receive(&mut other, "queue_read('q', 10)")?;
                        let [again] = &again[..] else { anyhow::bail!("{what}: {again:?}") };
                        ensure!((again.msg_id, again.attempts) == (sent, attempts), "{what}: {again:?}");
                        ensure!(queue::delete(&mut other, "q", sent, again.lease)?, "{what}");
                    }
                    (_, false) => {
                        // As it was: its lease stands.
                        ensure!(popped(&mut other)?.is_empty(), "{what}: the lease is lost");
                        ensure!(queue::delete(&mut client, "q", sent, Some(lease))?, "{what}: the lease is lost");
                    }
                }
                let stats = queue::stats(&mut other, "q")?;
                ensure!((stats.ready, stats.leased, stats.delayed) == (0, 0, 0), "{what}: {stats:?}");
                let rows: i64 = other.query_one("SELECT count(*) FROM enough.q_q", &[])?.get(0);
                ensure!(rows == 0, "{what}: a row is left");
            }
        }
    }
    Ok(())
}

#[test]
fn what_is_read_and_finished_in_one_transaction_comes_back_at_its_rollback() -> Result<()> {
    let (database, mut client, mut other) = queue::made(OPTIONS)?;
    let calls = [
        "(SELECT count(*) FROM enough.queue_pop('q', 10))",
        "(SELECT count(enough.queue_delete('q', msg_id, lease)) FROM enough.queue_read('q', 10))",
        "(SELECT count(enough.queue_archive('q', msg_id, NULL, lease)) FROM enough.queue_read('q', 10))",
        "(SELECT count(enough.queue_fail('q', msg_id, 'no', '1 hour', lease)) FROM enough.queue_read('q', 10))",
    ];
    for (number, call) in calls.iter().enumerate() {
        for by_other in [false, true] {
            let gid = format!("{}_{number}_{by_other}", database.name);
            let mut sent = queue::send_numbers(&mut client, "q", 3)?;
            for attempt in 2..4 {
                prepare(&mut client, &gid, call)?;
                ensure!(popped(&mut other)?.is_empty(), "{call}: too early");
                decide(if by_other { &mut other } else { &mut client }, "ROLLBACK", &gid)?;
                // The delivery counts, as after a ROLLBACK.
                other.batch_execute("BEGIN")?;
                let again = queue::read(&mut other, "q", 10)?;
                ensure!(queue::sorted_ids(&again) == sent, "{call}: {again:?}");
                ensure!(again.iter().all(|one| one.attempts == 2 * attempt - 2), "{call}: {again:?}");
                other.batch_execute("ROLLBACK")?;
            }
            prepare(&mut client, &gid, call)?;
            decide(if by_other { &mut other } else { &mut client }, "COMMIT", &gid)?;
            ensure!(popped(&mut other)?.is_empty(), "{call}: it is back");
            sent.clear();
            other.batch_execute("SELECT enough.queue_purge('q')")?;
        }
    }
    Ok(())
}

#[test]
fn who_waits_for_the_message_gets_it_and_who_deletes_it_waits() -> Result<()> {
    let (database, mut client, mut other) = queue::made(OPTIONS)?;
    let mut third = database.client()?;
    let gid = format!("{}_1", database.name);
    for by_other in [false, true] {
        let sent = queue::send(&mut client, "q", &json!(1))?;
        prepare(&mut client, &gid, "(SELECT count(*) FROM enough.queue_pop('q'))")?;
        let pid = backend(&mut third)?;
        let got = thread::scope(|scope| {
            let waiting = scope.spawn(|| queue::receive(&mut third, "queue_pop('q', 1, '10 minutes')"));
            until_waiting(&mut other, pid)?;
            decide(if by_other { &mut other } else { &mut client }, "ROLLBACK", &gid)?;
            Ok::<_, anyhow::Error>(waiting.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??)
        })?;
        ensure!(ids(&got) == [sent] && got[0].attempts == 2, "{got:?}");
    }
    for (commit, by_other) in [(true, true), (false, true), (true, false), (false, false)] {
        let sent = queue::send(&mut client, "q", &json!(2))?;
        let lease = queue::read(&mut client, "q", 1)?[0].lease;
        prepare(&mut client, &gid, &format!("enough.queue_delete('q', {sent})"))?;
        let pid = backend(&mut third)?;
        let deleted = thread::scope(|scope| {
            let waiting = scope.spawn(|| queue::delete(&mut third, "q", sent, lease));
            eventually("it waits for the row", || {
                let row = other.query_opt(
                    "SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'",
                    &[&i32::try_from(pid)?],
                )?;
                Ok(row.map(drop))
            })?;
            decide(if by_other { &mut other } else { &mut client }, if commit { "COMMIT" } else { "ROLLBACK" }, &gid)?;
            Ok::<_, anyhow::Error>(waiting.join().map_err(|_| anyhow::anyhow!("the session panicked"))??)
        })?;
        ensure!(deleted != commit, "commit {commit}, by another {by_other}");
        ensure!(popped(&mut other)?.is_empty());
        ensure!(queue::stats(&mut other, "q")?.leased == 0);
    }
    // And who waits for its end is told, or looks.
    for by_other in [false, true] {
        let sent = queue::send(&mut client, "q", &json!(3))?;
        prepare(&mut client, &gid, &format!("enough.queue_archive('q', {sent}, '7')"))?;
        let pid = backend(&mut third)?;
        let result = thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                third.query_one(&format!("SELECT result FROM enough.queue_result('q', {sent}, '10 minutes')"), &[])
            });
            until_waiting(&mut other, pid)?;
            decide(if by_other { &mut other } else { &mut client }, "COMMIT", &gid)?;
            Ok::<_, anyhow::Error>(waiting.join().map_err(|_| anyhow::anyhow!("the session panicked"))??)
        })?;
        ensure!(result.get::<_, serde_json::Value>(0) == json!(7));
    }
    Ok(())
}

/// Restarts in each way, with new sessions.
fn restart(server: &mut Server, database: &Database, sessions: Vec<Client>, how: Shutdown) -> Result<[Client; 2]> {
    drop(sessions);
    server.restart(how)?;
    Ok([database.client()?, database.client()?])
}

#[test]
fn a_restart_neither_delivers_nor_forgets_what_is_undecided() -> Result<()> {
    let mut server = server::start(&server::options()?)?;
    for how in [Shutdown::Fast, Shutdown::Immediate] {
        for commit in [true, false] {
            let database = Database::on(&server)?;
            let (mut client, mut other) = (database.client()?, database.client()?);
            client.batch_execute(&format!("SELECT enough.queue_create('q'{OPTIONS})"))?;
            let gid = |number: i32| format!("{}_{number}", database.name);
            let sent = queue::send_numbers(&mut client, "q", 6)?;
            let grouped: Vec<i64> = (0..3)
                .map(|_| Ok(client.query_one("SELECT enough.queue_send('q', '0', group_key => 'g')", &[])?.get(0)))
                .collect::<Result<_>>()?;
            let delayed: i64 = client.query_one("SELECT enough.queue_send('q', '0', '1 microsecond')", &[])?.get(0);
            // The head of its group, which waits for it.
            let head = queue::receive(&mut client, &format!("queue_read_these('q', ARRAY[{}::bigint])", grouped[0]))?;
            ensure!(head.len() == 1, "{head:?}");
            // Deleted in savepoints, of which one is rolled back; archived; failed, which leaves the row; the first of a group; what
            // has a delivery time.
            client.batch_execute(&format!(
                "BEGIN; SELECT enough.queue_archive('q', {}); SAVEPOINT a; SELECT enough.queue_delete('q', {}); \
                 SAVEPOINT b; SELECT enough.queue_delete('q', {}); ROLLBACK TO b; SELECT enough.queue_delete('q', {}); RELEASE a; \
                 SELECT enough.queue_delete('q', {}); SELECT enough.queue_delete('q', {delayed}); PREPARE TRANSACTION '{}'",
                sent[0], sent[1], sent[2], sent[3], grouped[0], gid(1)
            ))?;
            // One that has nothing to do with it.
            client.batch_execute(&format!("BEGIN; CREATE TABLE t (); PREPARE TRANSACTION '{}'", gid(2)))?;
            let expected = [sent[2], sent[4], sent[5]];
            let read = queue::read(&mut other, "q", 100)?;
            ensure!(queue::sorted_ids(&read) == expected, "{read:?}, where {expected:?} were due");
            let mut sessions = vec![client, other];
            for _ in 0..2 {
                [client, other] = restart(&mut server, &database, sessions, how)?;
                // Leases are lost.
                let read = queue::read(&mut client, "q", 100)?;
                ensure!(queue::sorted_ids(&read) == expected, "{read:?}");
                ensure!(queue::read(&mut other, "q", 100)?.is_empty() && popped(&mut client)?.is_empty());
                other.batch_execute("SELECT enough.maintain()")?;
                ensure!(popped(&mut other)?.is_empty(), "maintain() brings it");
                sessions = vec![client, other];
            }
            client = sessions.remove(0);
            other = sessions.remove(0);
            decide(&mut other, if commit { "COMMIT" } else { "ROLLBACK" }, &gid(1))?;
            let mut found = popped_until_dry(&mut client)?;
            let mut due = if commit { vec![] } else { vec![sent[0], sent[1], sent[3], delayed, grouped[0]] };
            due.extend(&grouped[1..]);
            let order: Vec<i64> = found.iter().copied().filter(|id| grouped.contains(id)).collect();
            ensure!(order.is_sorted(), "the group's order: {order:?}");
            found.sort_unstable();
            due.sort_unstable();
            ensure!(found == due, "commit {commit}: {found:?}, where {due:?} were due");
            decide(&mut other, "COMMIT", &gid(2))?;
            ensure!(popped(&mut client)?.is_empty());
        }
    }
    Ok(())
}

/// From the second delivery on a reader writes into the row: then the transaction that has deleted it has put another version in the place
/// of the one that others see.
#[test]
fn what_was_written_and_then_finished_stays_undecided_after_a_restart() -> Result<()> {
    const UPDATE: &str = "UPDATE enough.q_q SET priority = 3 WHERE msg_id = $m";
    const DELETE: &str = "SELECT enough.queue_delete('q', $m)";
    let ways = [
        "SELECT enough.queue_delete('q', msg_id, lease) FROM enough.queue_read_these('q', ARRAY[$m])".to_owned(),
        "SELECT enough.queue_fail('q', $m, 'no', '0'), enough.queue_delete('q', $m)".to_owned(),
        format!("{UPDATE}; {UPDATE}; {DELETE}"),
        format!("SAVEPOINT a; {UPDATE}; SAVEPOINT b; {UPDATE}; RELEASE b; SAVEPOINT c; {DELETE}"),
        format!("SAVEPOINT a; {DELETE}; ROLLBACK TO a; {UPDATE}; SAVEPOINT b; {DELETE}"),
        // Not finished after all.
        format!("{UPDATE}; SAVEPOINT a; {DELETE}; ROLLBACK TO a"),
    ];
    let mut server = server::start(&server::options()?)?;
    for how in [Shutdown::Fast, Shutdown::Immediate] {
        for decision in ["COMMIT", "ROLLBACK"] {
            let database = Database::on(&server)?;
            let mut client = database.client()?;
            client.batch_execute(&format!("SELECT enough.queue_create('q'{OPTIONS})"))?;
            let sent = queue::send_numbers(&mut client, "q", 7)?;
            // Delivered once.
            ensure!(queue::read(&mut client, "q", 100)?.len() == 7);
            client.batch_execute("SELECT enough.queue_fail('q', msg_id, 'no', '0') FROM enough.q_q")?;
            let calls: Vec<String> =
                ways.iter().zip(&sent).map(|(way, id)| way.replace("$m", &id.to_string())).collect();
            let gid = format!("{}_1", database.name);
            client.batch_execute(&format!("BEGIN; {}; PREPARE TRANSACTION '{gid}'", calls.join("; ")))?;
            let [mut client, mut other] = restart(&mut server, &database, vec![client], how)?;
            let read = queue::read(&mut client, "q", 100)?;
            ensure!(queue::sorted_ids(&read) == sent[5..], "{decision}: {read:?} of {sent:?}");
            decide(&mut other, decision, &gid)?;
            let mut found = popped_until_dry(&mut client)?;
            found.sort_unstable();
            let due = if decision == "COMMIT" { &[][..] } else { &sent[..5] };
            ensure!(found == due, "{decision}: {found:?}, where {due:?} were due");
        }
    }
    Ok(())
}

/// A reader looks first whether it sees a row, then whether somebody undecided has deleted it: in between that may be committed.
#[test]
fn a_commit_amid_a_read_lets_nothing_through() -> Result<()> {
    // So large that most of the time goes by between the two.
    const MESSAGES: i64 = 100;
    let mut server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute(&format!(
        "SELECT enough.queue_create('q'{OPTIONS}); ALTER TABLE enough.q_q ALTER message SET STORAGE EXTERNAL"
    ))?;
    for round in 0..12_u64 {
        let gid = format!("{}_{round}", database.name);
        let message = "to_jsonb(repeat('x', 500000))";
        let send = format!("SELECT count(enough.queue_send('q', {message})) FROM generate_series(1, {MESSAGES})");
        client.batch_execute(&send)?;
        let delete = "enough.queue_delete_batch('q', (SELECT array_agg(msg_id) FROM enough.q_q))";
        prepare(&mut client, &gid, delete)?;
        let [mut reader, other] = restart(&mut server, &database, vec![client], Shutdown::Immediate)?;
        client = other;
        let read = thread::spawn(move || queue::receive(&mut reader, &format!("queue_read('q', {MESSAGES})")));
        // At another moment of the read in each round.
        thread::sleep(Duration::from_millis(2 * round));
        decide(&mut client, "COMMIT", &gid)?;
        let read = read.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        ensure!(read.is_empty(), "{} messages in round {round}, the first: {:?}", read.len(), read.first());
        ensure!(popped(&mut client)?.is_empty());
    }
    Ok(())
}

#[test]
fn more_than_a_queue_has_records_for_are_told_apart_after_a_restart() -> Result<()> {
    let mut server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute(&format!(
        "SELECT enough.queue_create('q'{OPTIONS}), enough.queue_create('p'), enough.queue_create('o')"
    ))?;
    let gid = |number: usize| format!("{}_{number}", database.name);
    let sent = queue::send_numbers(&mut client, "q", 10)?;
    for (number, &msg_id) in sent.iter().enumerate().take(8) {
        prepare(&mut client, &gid(number), &format!("enough.queue_delete('q', {msg_id})"))?;
    }
    for number in 8..12 {
        prepare(&mut client, &gid(number), "enough.queue_send('p', '1')")?;
    }
    drop(client);
    server.restart(Shutdown::Immediate)?;
    let (mut client, mut other) = (database.client()?, database.client()?);
    ensure!(popped(&mut client)? == sent[8..]);
    for number in 0..12 {
        ensure!(popped(&mut client)?.is_empty());
        decide(&mut other, if number % 2 == 0 { "ROLLBACK" } else { "COMMIT" }, &gid(number))?;
        let found = popped(&mut client)?;
        let expected: Vec<_> =
            sent.get(number).filter(|_| number < 8 && number % 2 == 0).copied().into_iter().collect();
        ensure!(found == expected, "after {number}: {found:?}");
    }
    ensure!(popped(&mut client)?.is_empty());
    let prepared: bool = client.query_one("SELECT enough.queue_send('q', '1') > 0", &[])?.get(0);
    ensure!(prepared && popped(&mut other)?.len() == 1);
    Ok(())
}

#[test]
fn what_the_memory_had_no_room_for_stays_undecided_as_well() -> Result<()> {
    let mut server = server::start(&server::options()?.conf("enough.queue_memory", "64kB"))?;
    let database = Database::on(&server)?;
    let (mut client, mut other) = (database.client()?, database.client()?);
    client.batch_execute(&format!("SELECT enough.queue_create('q'{OPTIONS})"))?;
    for (round, restarts) in [(1, false), (2, true)] {
        for commit in [false, true] {
            let gid = format!("{}_{round}_{commit}", database.name);
            let sent = queue::send_numbers(&mut client, "q", 3000)?;
            client.batch_execute(&format!(
                "BEGIN; SELECT enough.queue_delete_batch('q', (SELECT array_agg(msg_id) FROM enough.q_q)); \
                 PREPARE TRANSACTION '{gid}'"
            ))?;
            if restarts {
                drop((client, other));
                server.restart(Shutdown::Immediate)?;
                (client, other) = (database.client()?, database.client()?);
            }
            if restarts {
                // What is met takes little of the memory.
                let late = queue::send(&mut client, "q", &json!(0))?;
                let read = queue::read(&mut other, "q", 5)?;
                ensure!(ids(&read) == [late], "{read:?}");
                ensure!(queue::delete(&mut other, "q", late, None)?);
                ensure!(popped(&mut other)?.is_empty());
            } else {
                // What was set aside takes its places, as leases do.
                match queue::receive(&mut other, "queue_pop('q', 100)") {
                    Ok(got) => ensure!(got.is_empty(), "{got:?}"),
                    Err(error) => ensure!(state(&error) == "53400", "{error:?}"),
                }
            }
            decide(&mut other, if commit { "COMMIT" } else { "ROLLBACK" }, &gid)?;
            let mut found = popped_until_dry(&mut client)?;
            found.sort_unstable();
            ensure!(found == if commit { vec![] } else { sent }, "{} were found", found.len());
        }
    }
    Ok(())
}

#[test]
fn rows_changed_by_hand_are_no_finished_messages() -> Result<()> {
    let (database, mut client, mut other) = queue::made(OPTIONS)?;
    let gid = format!("{}_1", database.name);
    let sent = queue::send_numbers(&mut client, "q", 3)?;
    // An UPDATE by hand, beside a message that is finished: that is delivered as ever, and not twice.
    client.batch_execute(&format!(
        "BEGIN; UPDATE enough.q_q SET priority = 3 WHERE msg_id = {}; SELECT enough.queue_delete('q', {}); \
         PREPARE TRANSACTION '{gid}'",
        sent[0], sent[1]
    ))?;
    let read = queue::read(&mut other, "q", 10)?;
    ensure!(ids(&read) == [sent[0], sent[2]], "{read:?}");
    decide(&mut other, "COMMIT", &gid)?;
    ensure!(popped(&mut other)?.is_empty());
    for message in read {
        ensure!(queue::delete(&mut other, "q", message.msg_id, message.lease)?);
    }
    Ok(())
}

#[test]
fn the_counts_follow_the_decision_and_the_flight_is_limited_meanwhile() -> Result<()> {
    let (database, mut client, mut other) = queue::made(&format!("{OPTIONS}, max_in_flight => 3"))?;
    let gid = format!("{}_1", database.name);
    let sent = queue::send_numbers(&mut client, "q", 8)?;
    let read = queue::read(&mut client, "q", 3)?;
    prepare(
        &mut client,
        &gid,
        &format!(
            "enough.queue_delete('q', {0}), enough.queue_archive('q', {1}), enough.queue_fail('q', {2}, 'no', dead => true)",
            read[0].msg_id, read[1].msg_id, read[2].msg_id
        ),
    )?;
    ensure!(popped(&mut other)?.is_empty(), "three are in flight");
    ensure!(count(&mut other, "finished_total")? == 0 && count(&mut other, "archived")? == 0);
    decide(&mut other, "COMMIT", &gid)?;
    ensure!(popped(&mut other)? == sent[3..6]);
    let row = other.query_one(
        "SELECT ready, leased, archived, dead, finished_total, failed_total FROM enough.queue_stats('q')",
        &[],
    )?;
    let counts: Vec<i64> = (0..6).map(|at| row.get(at)).collect();
    ensure!(counts == [2, 0, 1, 1, 5, 1], "{counts:?}");
    Ok(())
}

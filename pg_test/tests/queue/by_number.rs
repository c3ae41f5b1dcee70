//! Messages whose numbers the caller knows, and those that a transaction has written itself.

use anyhow::{Result, ensure};
use enough_pg_test::check::refused;
use enough_pg_test::queue::{self, Message, made};
use postgres::Client;
use serde_json::json;

/// Without a limit of deliveries and without a rest: what a rollback has read is as if it had not been.
const UNDONE: &str = ", max_attempts => 0, retry_backoff => '0', visibility_timeout => '1 hour'";

fn these(client: &mut Client, numbers: &[i64], timeout: &str) -> Result<Vec<Message>> {
    Ok(queue::receive(client, &format!("queue_read_these('q', '{{{}}}', '{timeout}')", join(numbers)))?)
}

fn join(numbers: &[i64]) -> String {
    numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
}

fn own(client: &mut Client, arguments: &str) -> Result<Vec<Message>> {
    Ok(queue::receive(client, &format!("queue_read_own('q'{arguments})"))?)
}

fn reschedule(client: &mut Client, numbers: &[i64], at: &str) -> Result<Vec<i64>> {
    let call = format!("SELECT * FROM enough.queue_reschedule('q', '{{{}}}', {at})", join(numbers));
    Ok(client.query(&call, &[])?.iter().map(|row| row.get(0)).collect())
}

#[test]
fn those_that_are_ready_are_read_in_the_order_that_was_asked_for() -> Result<()> {
    let (_database, mut client, mut other) = made(", visibility_timeout => '1 hour'")?;
    let sent = queue::send_numbers(&mut client, "q", 6)?;
    let late: i64 = client.query_one("SELECT enough.queue_send('q', '7', '1 hour')", &[])?.get(0);
    ensure!(queue::ids(&queue::read(&mut other, "q", 1)?) == sent[..1]);
    let asked = [sent[4], sent[0], late, 999, sent[2], sent[4]];
    ensure!(queue::ids(&these(&mut client, &asked, "1 hour")?) == [sent[4], sent[2]]);
    ensure!(these(&mut other, &asked, "1 hour")?.is_empty());
    ensure!(queue::ids(&queue::read(&mut other, "q", 10)?) == [sent[1], sent[3], sent[5]]);
    let stats = queue::stats(&mut client, "q")?;
    ensure!((stats.ready, stats.leased, stats.delayed) == (0, 6, 1), "{stats:?}");
    Ok(())
}

#[test]
fn what_the_memory_has_never_seen_is_read_by_its_number() -> Result<()> {
    let (_database, mut client, _) = made("")?;
    // Past the queue: nothing of it is in the memory.
    client.batch_execute(
        "INSERT INTO enough.q_q (enqueued_at, priority, message) SELECT now(), 0, to_jsonb(n) FROM generate_series(1, 600) AS n",
    )?;
    let asked: Vec<i64> = (1..=600).rev().step_by(2).collect();
    ensure!(queue::ids(&these(&mut client, &asked, "1 hour")?) == asked);
    ensure!(queue::read(&mut client, "q", 1000)?.len() == 300);
    Ok(())
}

#[test]
fn a_lease_by_number_is_given_back_by_a_rollback_and_ends_in_time() -> Result<()> {
    let (_database, mut client, mut other) = made(UNDONE)?;
    let sent = queue::send_numbers(&mut client, "q", 3)?;
    client.batch_execute("BEGIN")?;
    ensure!(these(&mut client, &sent, "1 hour")?.len() == 3);
    ensure!(these(&mut other, &sent, "1 hour")?.is_empty());
    client.batch_execute("ROLLBACK")?;
    let again = these(&mut other, &sent, "0")?;
    ensure!(queue::ids(&again) == sent && again.iter().all(|message| message.attempts == 1), "{again:?}");
    let again = these(&mut other, &sent, "0")?;
    ensure!(again.iter().all(|message| message.attempts == 2), "{again:?}");
    Ok(())
}

#[test]
fn of_two_readers_of_the_same_numbers_one_gets_each() -> Result<()> {
    let (database, mut client, _) = made(", visibility_timeout => '1 hour'")?;
    let sent = queue::send_numbers(&mut client, "q", 2000)?;
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (mut client, sent) = (database.client()?, sent.clone());
            Ok(std::thread::spawn(move || -> Result<Vec<i64>> {
                let mut got = Vec::new();
                for chunk in sent.chunks(100) {
                    got.extend(queue::ids(&these(&mut client, chunk, "1 hour")?));
                }
                Ok(got)
            }))
        })
        .collect::<Result<_>>()?;
    let mut got = Vec::new();
    for reader in readers {
        got.extend(reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))??);
    }
    got.sort_unstable();
    ensure!(got == sent);
    Ok(())
}

#[test]
fn limits_pauses_and_the_order_of_groups_hold_for_numbers_too() -> Result<()> {
    let (_database, mut client, _) = made(", max_in_flight => 2, max_attempts => 1, retry_backoff => '0'")?;
    let sent = queue::send_numbers(&mut client, "q", 4)?;
    client.batch_execute("SELECT enough.queue_pause('q')")?;
    ensure!(these(&mut client, &sent, "1 hour")?.is_empty());
    client.batch_execute("SELECT enough.queue_resume('q')")?;
    ensure!(queue::ids(&these(&mut client, &sent, "0")?) == sent[..2]);
    // Those two are dead by now.
    ensure!(queue::ids(&these(&mut client, &sent, "1 hour")?) == sent[2..]);
    ensure!(queue::stats(&mut client, "q")?.dead == 2);
    client.batch_execute(
        "SELECT enough.queue_create('q2'); SELECT enough.queue_send('q2', to_jsonb(n), group_key => 'g') FROM generate_series(1, 3) AS n",
    )?;
    ensure!(queue::receive(&mut client, "queue_read_these('q2', '{2,3}')")?.is_empty());
    ensure!(queue::ids(&queue::receive(&mut client, "queue_read_these('q2', '{3,1}')")?) == [1]);
    Ok(())
}

#[test]
fn a_transaction_reads_what_it_has_sent_and_others_see_it_leased_when_it_commits() -> Result<()> {
    let (_database, mut client, mut other) = made(UNDONE)?;
    client.batch_execute("BEGIN")?;
    let sent = queue::send_numbers(&mut client, "q", 3)?;
    ensure!(queue::read(&mut client, "q", 10)?.is_empty());
    let read = own(&mut client, ", 2, '1 hour'")?;
    ensure!(
        queue::ids(&read) == sent[..2] && read.iter().all(|message| message.attempts == 1 && message.lease.is_none())
    );
    ensure!(own(&mut client, ", 10, '0', '{1}'")?.is_empty());
    ensure!(queue::read(&mut other, "q", 10)?.is_empty());
    client.batch_execute("COMMIT")?;
    ensure!(queue::ids(&queue::read(&mut other, "q", 10)?) == sent[2..]);
    ensure!(own(&mut client, "")?.is_empty());
    // Given back before the time, they have one delivery behind them.
    ensure!(reschedule(&mut client, &sent[..1], "now()")? == sent[..1]);
    let again = queue::read(&mut other, "q", 10)?;
    ensure!(queue::ids(&again) == sent[..1] && again[0].attempts == 2, "{again:?}");
    Ok(())
}

#[test]
fn what_a_transaction_sends_reads_and_ends_leaves_nothing_behind() -> Result<()> {
    let (_database, mut client, mut other) = made(UNDONE)?;
    for end in ["queue_delete('q', {})", "queue_archive('q', {})"] {
        client.batch_execute("BEGIN")?;
        let id = queue::send(&mut client, "q", &json!(1))?;
        ensure!(own(&mut client, ", 1, '1 hour'")?.len() == 1);
        let ended: bool =
            client.query_one(&format!("SELECT enough.{}", end.replace("{}", &id.to_string())), &[])?.get(0);
        ensure!(ended);
        client.batch_execute("COMMIT")?;
        let stats = queue::stats(&mut client, "q")?;
        ensure!((stats.ready, stats.leased, stats.delayed) == (0, 0, 0), "{stats:?}");
    }
    client.batch_execute("BEGIN; SAVEPOINT s; SELECT enough.queue_send('q', '2')")?;
    ensure!(own(&mut client, "")?.len() == 1);
    client.batch_execute("ROLLBACK TO s")?;
    ensure!(own(&mut client, "")?.is_empty());
    client.batch_execute("SELECT enough.queue_send('q', '3'); SAVEPOINT s")?;
    ensure!(own(&mut client, ", 1, '1 hour'")?.len() == 1);
    // The read is undone, the message is not.
    client.batch_execute("ROLLBACK TO s; COMMIT")?;
    ensure!(queue::read(&mut other, "q", 10)?.len() == 1);
    Ok(())
}

#[test]
fn a_rollback_leaves_no_trace_where_nothing_counts_deliveries() -> Result<()> {
    let (_database, mut client, mut other) = made(UNDONE)?;
    let sent = queue::send_numbers(&mut client, "q", 2)?;
    for _ in 0..3 {
        client.batch_execute("BEGIN")?;
        let read = queue::read(&mut client, "q", 2)?;
        ensure!(queue::ids(&read) == sent && read.iter().all(|message| message.attempts == 1), "{read:?}");
        client.batch_execute("ROLLBACK")?;
    }
    // A delivery that commits counts, one that is rolled back after it does not.
    ensure!(queue::receive(&mut client, "queue_read('q', 1, '0')")?[0].attempts == 1);
    for _ in 0..2 {
        client.batch_execute("BEGIN")?;
        let read = queue::receive(&mut client, "queue_read('q', 1)")?;
        ensure!(read[0].attempts == 2 && read[0].msg_id == sent[0], "{read:?}");
        client.batch_execute("ROLLBACK")?;
    }
    ensure!(queue::receive(&mut other, "queue_read('q', 1)")?[0].attempts == 2);
    Ok(())
}

#[test]
fn any_live_message_gets_another_delivery_time() -> Result<()> {
    let (database, mut client, mut other) = made(", visibility_timeout => '1 hour', max_attempts => 1")?;
    let sent = queue::send_numbers(&mut client, "q", 2)?;
    let late: i64 = client.query_one("SELECT enough.queue_send('q', '3', '1 hour')", &[])?.get(0);
    let leased = queue::read(&mut other, "q", 1)?;
    let all = [late, sent[1], 999, sent[0]];
    client.batch_execute("BEGIN")?;
    ensure!(reschedule(&mut client, &all, "now() + interval '2 hours'")? == [late, sent[1], sent[0]]);
    client.batch_execute("ROLLBACK")?;
    // As they were: the lease runs, and one is ready.
    ensure!(queue::stats(&mut client, "q")? == queue::Stats { ready: 1, leased: 1, delayed: 1, dead: 0 });
    ensure!(reschedule(&mut client, &all, "now() + interval '2 hours'")?.len() == 3);
    ensure!(queue::stats(&mut client, "q")?.delayed == 3);
    ensure!(!queue::delete(&mut other, "q", leased[0].msg_id, leased[0].lease)?, "its lease is over");
    let failed: i64 = client.query_one("SELECT failed_total FROM enough.queue_stats('q')", &[])?.get(0);
    ensure!(failed == 0);
    // Twice in one transaction: the last one counts.
    client.batch_execute("BEGIN")?;
    reschedule(&mut client, &[late], "now() + interval '1 hour'")?;
    reschedule(&mut client, &[late, sent[1]], "'1970-01-01'")?;
    client.batch_execute("COMMIT")?;
    ensure!(queue::sorted_ids(&queue::read(&mut other, "q", 10)?) == [sent[1], late]);
    // The time is in the row: it outlives the memory.
    let at: Option<bool> = database
        .client()?
        .query_one("SELECT deliver_at > now() + interval '1 hour' FROM enough.q_q WHERE msg_id = $1", &[&sent[0]])?
        .get(0);
    ensure!(at == Some(true));
    Ok(())
}

#[test]
fn a_reschedule_waits_for_who_is_changing_the_message() -> Result<()> {
    let (_database, mut client, mut other) = made("")?;
    let sent = queue::send_numbers(&mut client, "q", 1)?;
    client.batch_execute("BEGIN")?;
    ensure!(queue::delete(&mut client, "q", sent[0], None)?);
    let pid = enough_pg_test::server::backend(&mut other)?;
    let waiting = std::thread::spawn(move || reschedule(&mut other, &sent, "now() + interval '1 hour'"));
    enough_pg_test::server::until_locked(&mut client, pid)?;
    client.batch_execute("COMMIT")?;
    ensure!(waiting.join().map_err(|_| anyhow::anyhow!("panicked"))??.is_empty());
    ensure!(queue::stats(&mut client, "q")? == queue::Stats { ready: 0, leased: 0, delayed: 0, dead: 0 });
    Ok(())
}

/// What the memory says of a message: its deliveries, and whether it becomes visible in an hour or so.
fn seen(client: &mut Client, msg_id: i64) -> Result<(Option<i32>, Option<bool>)> {
    let row = client.query_one(
        "SELECT enough.queue_attempts('q', $1), enough.queue_visible_at('q', $1) > now() + interval '59 minutes'",
        &[&msg_id],
    )?;
    Ok((row.get(0), row.get(1)))
}

#[test]
fn the_memory_says_how_often_a_message_was_delivered_and_when_it_is_visible() -> Result<()> {
    let (_database, mut client, _) = made(UNDONE)?;
    let sent = queue::send_numbers(&mut client, "q", 2)?;
    ensure!(seen(&mut client, 999)? == (None, None));
    ensure!(queue::read(&mut client, "q", 1)?.len() == 1);
    ensure!(seen(&mut client, sent[0])? == (Some(1), Some(true)));
    ensure!(seen(&mut client, sent[1])? == (Some(0), None));
    refused(client.query("SELECT enough.queue_visible_at('nope', 1)", &[]), "42704")?;
    Ok(())
}

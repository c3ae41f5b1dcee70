//! Sending: order, priorities, delays, batches, large messages; and that reads find all there is.

use anyhow::{Result, ensure};
use enough_pg_test::check::eventually;
use enough_pg_test::queue;
use enough_pg_test::server::Database;
use postgres::Client;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::thread;

fn made() -> Result<(Database, Client)> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('q', visibility_timeout => '1 hour')")?;
    Ok((database, client))
}

#[test]
fn a_message_comes_as_it_was_sent() -> Result<()> {
    let (_database, mut client) = made()?;
    let payloads = [
        json!(null),
        json!(""),
        json!([]),
        json!({}),
        json!("ünï\u{1F600}\u{fffd}'\";--\\"),
        json!({"a": [1, 2.5, -1e300, true, null, {"b": "x".repeat(10_000)}]}),
    ];
    for payload in &payloads {
        let sent: i64 = client
            .query_one(
                "SELECT enough.queue_send('q', $1, headers => $2, priority => 3)",
                &[payload, &json!({"h": payload})],
            )?
            .get(0);
        let read = queue::read(&mut client, "q", 1)?;
        ensure!(queue::ids(&read) == [sent]);
        ensure!(read[0].message == *payload && read[0].headers == Some(json!({"h": payload})), "{read:?}");
        ensure!(read[0].priority == 3);
    }
    let sent = queue::send(&mut client, "q", &json!(1))?;
    let read = queue::read(&mut client, "q", 1)?;
    ensure!(queue::ids(&read) == [sent] && read[0].headers.is_none() && read[0].priority == 0);
    let when: bool = client
        .query_one(
            "SELECT bool_and(enqueued_at BETWEEN now() - interval '1 h' AND clock_timestamp()) FROM enough.q_q",
            &[],
        )?
        .get(0);
    ensure!(when);
    Ok(())
}

#[test]
fn higher_priorities_come_first_and_then_the_order_of_sending() -> Result<()> {
    let (_database, mut client) = made()?;
    let mut expected = Vec::new();
    for number in 0..200_i32 {
        let priority = (number * 7) % 10;
        let sent: i64 = client
            .query_one("SELECT enough.queue_send('q', to_jsonb($1::int), priority => $2)", &[&number, &priority])?
            .get(0);
        expected.push((-priority, sent));
    }
    expected.sort_unstable();
    let mut read = Vec::new();
    while read.len() < 200 {
        let some = queue::read(&mut client, "q", 7)?;
        ensure!(!some.is_empty());
        read.extend(some.into_iter().map(|message| (-i32::from(message.priority), message.msg_id)));
    }
    ensure!(read == expected);
    Ok(())
}

#[test]
fn a_delay_and_a_time_hold_a_message_back() -> Result<()> {
    let (_database, mut client) = made()?;
    client.batch_execute(
        "SELECT enough.queue_send('q', '\"never\"', delay => '10 years'); \
         SELECT enough.queue_send('q', '\"later\"', delay => '400 milliseconds'); \
         SELECT enough.queue_send('q', '\"at a time\"', deliver_at => clock_timestamp() + interval '200 milliseconds'); \
         SELECT enough.queue_send('q', '\"past\"', deliver_at => clock_timestamp() - interval '1 day'); \
         SELECT enough.queue_send_batch('q', ARRAY['\"batch\"', '\"batch\"']::jsonb[], delay => '600 milliseconds')",
    )?;
    let mut came = Vec::new();
    eventually("all but one have come", || {
        for message in queue::read(&mut client, "q", 10)? {
            let due: bool = client
                .query_one(
                    "SELECT coalesce(deliver_at <= clock_timestamp(), true) FROM enough.q_q WHERE msg_id = $1",
                    &[&message.msg_id],
                )?
                .get(0);
            ensure!(due, "{message:?} came too early");
            came.push(message.message);
        }
        Ok((came.len() >= 5).then_some(()))
    })?;
    let expected = ["past", "at a time", "later", "batch", "batch"].map(Value::from);
    ensure!(came == expected, "{came:?}");
    ensure!(queue::stats(&mut client, "q")?.delayed == 1);
    Ok(())
}

#[test]
fn a_batch_of_ten_thousand_comes_whole_and_in_order() -> Result<()> {
    let (_database, mut client) = made()?;
    let sent = queue::send_numbers(&mut client, "q", 10_000)?;
    ensure!(sent.is_sorted() && sent.len() == 10_000);
    let read = queue::read(&mut client, "q", 10_000)?;
    ensure!(queue::ids(&read) == sent, "{} messages", read.len());
    ensure!(read.iter().zip(1..).all(|(message, number)| message.message == json!(number)));
    let rows = client.query("SELECT * FROM enough.queue_delete_batch('q', $1)", &[&sent])?;
    ensure!(rows.len() == 10_000);
    ensure!(client.query_one("SELECT count(*) FROM enough.q_q", &[])?.get::<_, i64>(0) == 0);
    Ok(())
}

#[test]
fn headers_of_a_batch_belong_to_their_messages() -> Result<()> {
    let (_database, mut client) = made()?;
    client.batch_execute(
        "SELECT enough.queue_send_batch('q', ARRAY['1', '2', '3']::jsonb[], headers => ARRAY['{\"h\": 1}', NULL, '3']::jsonb[])",
    )?;
    let read = queue::read(&mut client, "q", 10)?;
    let headers: Vec<_> = read.into_iter().map(|message| message.headers).collect();
    ensure!(headers == [Some(json!({"h": 1})), None, Some(json!(3))], "{headers:?}");
    Ok(())
}

#[test]
fn large_messages_come_whole() -> Result<()> {
    let (_database, mut client) = made()?;
    // One that compresses well, and one that has to be stored out of line as it is.
    let noise: String = std::iter::repeat_with(fastrand::alphanumeric).take(3_000_000).collect();
    for text in ["x".repeat(1_000_000), noise] {
        let payload = json!({ "text": text });
        let sent: i64 = client.query_one("SELECT enough.queue_send('q', $1, headers => $1)", &[&payload])?.get(0);
        let read = queue::read(&mut client, "q", 1)?;
        ensure!(queue::ids(&read) == [sent] && read[0].message == payload && read[0].headers == Some(payload.clone()));
        // Again as a second delivery, which rewrites the row, and as what is left by a pop.
        for call in ["queue_read('q')", "queue_pop('q')"] {
            client.execute("SELECT enough.queue_extend('q', $1, '0')", &[&sent])?;
            let read = queue::receive(&mut client, call)?;
            ensure!(queue::ids(&read) == [sent] && read[0].message == payload, "{call}");
        }
    }
    let left: i64 = client.query_one("SELECT count(*) FROM enough.q_q", &[])?.get(0);
    ensure!(left == 0);
    Ok(())
}

#[test]
fn readers_at_once_get_all_there_is_and_nothing_twice() -> Result<()> {
    const READERS: usize = 16;
    const EACH: usize = 250;
    let (database, mut client) = made()?;
    // More than the index holds of one refill, and found by refills: the sending session's pushes are gone.
    let sent = queue::send_numbers(&mut client, "q", i64::try_from(READERS * EACH)?)?;
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            let database = database.clone();
            thread::spawn(move || -> Result<Vec<i64>> {
                let mut client = database.client()?;
                let mut got = Vec::new();
                while got.len() < EACH {
                    let read = queue::read(&mut client, "q", (EACH - got.len()).min(9))?;
                    ensure!(!read.is_empty(), "a read came back empty while messages are ready");
                    got.extend(queue::ids(&read));
                }
                Ok(got)
            })
        })
        .collect();
    let mut all = BTreeSet::new();
    for reader in readers {
        for msg_id in reader.join().expect("a reader panicked")? {
            ensure!(all.insert(msg_id), "message {msg_id} went to two readers");
        }
    }
    ensure!(all.into_iter().eq(sent));
    Ok(())
}

#[test]
fn more_messages_than_the_memory_holds() -> Result<()> {
    const MESSAGES: i64 = 150_000;
    let (_database, mut client) = made()?;
    client.batch_execute(&format!(
        "INSERT INTO enough.q_q (message, priority) SELECT to_jsonb(n), n % 3 FROM generate_series(1, {MESSAGES}) AS n; \
         SELECT enough.maintain()"
    ))?;
    let mut count = 0;
    loop {
        let rows = client.query("SELECT count(*) FROM enough.queue_pop('q', 10000)", &[])?;
        let some: i64 = rows[0].get(0);
        if some == 0 {
            break;
        }
        count += some;
    }
    ensure!(count == MESSAGES, "{count} of {MESSAGES} came");
    Ok(())
}

#[test]
fn stats_count_what_is_there() -> Result<()> {
    let (_database, mut client) = made()?;
    queue::send_numbers(&mut client, "q", 10)?;
    client.batch_execute("SELECT enough.queue_send('q', '1', delay => '1 hour')")?;
    let read = queue::read(&mut client, "q", 4)?;
    ensure!(queue::delete(&mut client, "q", read[0].msg_id, read[0].lease)?);
    ensure!(queue::stats(&mut client, "q")? == queue::Stats { ready: 6, leased: 3, delayed: 1, dead: 0 });
    let row = client.query_one(
        "SELECT sent_total, delivered_total, finished_total, oldest_ready >= '0', paused FROM enough.queue_stats('q')",
        &[],
    )?;
    let totals: [i64; 3] = [row.get(0), row.get(1), row.get(2)];
    ensure!(totals == [11, 4, 1] && row.get(3) && !row.get::<_, bool>(4), "{totals:?}");
    client.batch_execute("BEGIN; SELECT enough.queue_send('q', '1'); SELECT enough.queue_pop('q', 3); ROLLBACK")?;
    // What was popped rests for a moment; what was sent never was.
    let stats = queue::stats(&mut client, "q")?;
    ensure!((stats.ready + stats.delayed, stats.leased) == (7, 3), "{stats:?}");
    let sent_total: i64 = client.query_one("SELECT sent_total FROM enough.queue_stats('q')", &[])?.get(0);
    ensure!(sent_total == 11);
    let all = client.query("SELECT queue FROM enough.queue_stats()", &[])?;
    ensure!(all.len() == 1);
    Ok(())
}

#[test]
fn each_message_of_a_batch_may_have_its_priority_and_its_delay() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('q')")?;
    client.batch_execute(
        "SELECT enough.queue_send_batch('q', ARRAY['0', '1', '2', '3']::jsonb[], priority => 2, \
                priorities => ARRAY[NULL, 9, 0, 5], delays => ARRAY[NULL, NULL, NULL, '1 hour']::interval[])",
    )?;
    let read = client.query("SELECT message::text, priority FROM enough.queue_read('q', 9)", &[])?;
    let read: Vec<(String, i16)> = read.iter().map(|row| (row.get(0), row.get(1))).collect();
    ensure!(read == [("1".into(), 9), ("0".into(), 2), ("2".into(), 0)], "{read:?}");
    let delayed: i64 = client.query_one("SELECT delayed FROM enough.queue_stats('q')", &[])?.get(0);
    ensure!(delayed == 1);
    // Its own delay instead of the one for all.
    client.batch_execute(
        "SELECT enough.queue_send_batch('q', ARRAY['4', '5']::jsonb[], delay => '1 hour', delays => ARRAY['0', NULL]::interval[])",
    )?;
    let read = client.query("SELECT message::text FROM enough.queue_read('q', 9)", &[])?;
    ensure!(read.len() == 1 && read[0].get::<_, String>(0) == "4");
    Ok(())
}

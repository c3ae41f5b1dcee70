//! Sends with a key that say what has become of the message: sent, kept or replaced.

use anyhow::{Result, ensure};
use enough_pg_test::check::refused;
use enough_pg_test::queue::{self, made};
use enough_pg_test::server::backend;
use postgres::Client;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::thread;

/// Sends a message with a key under further arguments; its number and what has become of it.
fn send(client: &mut Client, message: &Value, key: &str, further: &str) -> Result<(i64, String), postgres::Error> {
    let call = format!("SELECT msg_id, outcome FROM enough.queue_send_unique('q', $1, $2{further})");
    let row = client.query_one(&call, &[message, &key])?;
    Ok((row.get(0), row.get(1)))
}

const REPLACE: &str = ", 'replace'";

/// State, attempts and error of a message.
fn status(client: &mut Client, msg_id: i64) -> Result<(String, i32, Option<String>)> {
    let row = client.query_one("SELECT state, attempts, error FROM enough.queue_status('q', $1)", &[&msg_id])?;
    Ok((row.get(0), row.get(1), row.get(2)))
}

fn ready_and_delayed(client: &mut Client) -> Result<(i64, i64)> {
    let row = client.query_one("SELECT ready, delayed FROM enough.queue_stats('q')", &[])?;
    Ok((row.get(0), row.get(1)))
}

#[test]
fn the_first_is_kept_unless_it_is_to_be_replaced() -> Result<()> {
    let (_database, mut client, mut other) = made("")?;
    let (first, outcome) = send(&mut client, &json!(1), "k", "")?;
    ensure!(outcome == "sent");
    ensure!(send(&mut other, &json!(2), "k", "")? == (first, "kept".into()));
    ensure!(send(&mut other, &json!(2), "k", ", NULL")? == (first, "kept".into()), "NULL is the default");
    ensure!(send(&mut other, &json!(3), "k", ", 'replace', headers => '{\"h\": 1}'")? == (first, "replaced".into()));
    ensure!(send(&mut other, &json!(4), "l", REPLACE)?.1 == "sent");
    let read = queue::read(&mut client, "q", 10)?;
    ensure!(read.len() == 2 && read[0].msg_id == first && read[0].message == json!(3), "{read:?}");
    ensure!(read[0].headers == Some(json!({"h": 1})) && read[0].attempts == 1, "{read:?}");
    Ok(())
}

#[test]
fn a_burst_is_delivered_once_with_the_last_payload_after_the_last_delay() -> Result<()> {
    let (_database, mut client, mut other) = made("")?;
    let hour = ", 'replace', delay => '1 hour'";
    let (first, _) = send(&mut client, &json!(0), "k", hour)?;
    for n in 1..20 {
        ensure!(send(&mut client, &json!(n), "k", hour)? == (first, "replaced".into()));
    }
    ensure!(ready_and_delayed(&mut client)? == (0, 1));
    ensure!(queue::read(&mut other, "q", 10)?.is_empty(), "its time hasn't come");
    // Earlier than before: who waits for a message gets it at once.
    let reader = thread::spawn(move || queue::receive(&mut other, "queue_read('q', 1, '1 hour', '30 seconds')"));
    ensure!(send(&mut client, &json!("now"), "k", REPLACE)? == (first, "replaced".into()));
    let read = reader.join().map_err(|_| anyhow::anyhow!("the reader has panicked"))??;
    ensure!(read.len() == 1 && read[0].msg_id == first && read[0].message == json!("now"), "{read:?}");
    // Later than before.
    let (second, _) = send(&mut client, &json!(1), "l", "")?;
    ensure!(send(&mut client, &json!(2), "l", hour)? == (second, "replaced".into()));
    ensure!(queue::read(&mut client, "q", 10)?.is_empty());
    ensure!(status(&mut client, second)?.0 == "delayed");
    Ok(())
}

#[test]
fn one_that_is_leased_is_kept_and_its_successor_is_sent_when_it_is_finished() -> Result<()> {
    let (_database, mut client, mut other) = made("")?;
    let (first, _) = send(&mut client, &json!(1), "k", "")?;
    let read = queue::read(&mut other, "q", 1)?;
    ensure!(send(&mut client, &json!(2), "k", REPLACE)? == (first, "kept".into()), "a consumer works on it");
    ensure!(queue::delete(&mut other, "q", first, read[0].lease)?, "its lease is the current one");
    let (second, outcome) = send(&mut client, &json!(2), "k", REPLACE)?;
    ensure!(outcome == "sent" && second > first);
    Ok(())
}

#[test]
fn one_that_rests_after_a_failure_begins_again() -> Result<()> {
    let (_database, mut client, mut other) = made(", max_attempts => 2")?;
    let (first, _) = send(&mut client, &json!("bad"), "k", "")?;
    let lease = queue::read(&mut other, "q", 1)?[0].lease;
    client.execute("SELECT enough.queue_fail('q', $1, 'bad input', '1 hour')", &[&first])?;
    ensure!(send(&mut client, &json!("good"), "k", REPLACE)? == (first, "replaced".into()));
    ensure!(status(&mut client, first)? == ("ready".into(), 0, None));
    let fate = client
        .query_one("SELECT enough.queue_fail('q', $1, 'late', lease => $2)", &[&first, &lease])?
        .get::<_, Option<String>>(0);
    ensure!(fate.is_none(), "the old lease serves no more");
    for attempt in 1..=2 {
        let read = queue::receive(&mut other, "queue_read('q', 1, '1 millisecond', '10 seconds')")?;
        ensure!(read.len() == 1 && read[0].attempts == attempt && read[0].message == json!("good"), "{read:?}");
    }
    // It has had its last delivery: it is dead, and has no key.
    thread::sleep(std::time::Duration::from_millis(20));
    let (second, outcome) = send(&mut client, &json!(3), "k", REPLACE)?;
    ensure!(outcome == "sent" && second != first && status(&mut client, first)?.0 == "dead");
    Ok(())
}

#[test]
fn a_rollback_leaves_the_old_one() -> Result<()> {
    let (_database, mut client, mut other) = made("")?;
    let (first, _) = send(&mut client, &json!(1), "k", "")?;
    for undo in ["ROLLBACK", "ROLLBACK TO s; COMMIT"] {
        client.batch_execute("BEGIN; SAVEPOINT s")?;
        ensure!(send(&mut client, &json!(2), "k", REPLACE)?.1 == "replaced");
        ensure!(queue::read(&mut other, "q", 10)?.is_empty(), "nobody gets it meanwhile");
        client.batch_execute(undo)?;
        let read = queue::receive(&mut other, "queue_read('q', 1, '1 hour', '10 seconds')")?;
        ensure!(read.len() == 1 && read[0].msg_id == first && read[0].message == json!(1), "{undo}: {read:?}");
        other.execute("SELECT enough.queue_release('q', $1)", &[&first])?;
    }
    Ok(())
}

#[test]
fn a_transaction_replaces_what_it_has_sent_replaced_or_let_fail_itself() -> Result<()> {
    let (_database, mut client, mut other) = made("")?;
    client.batch_execute("BEGIN")?;
    let (first, outcome) = send(&mut client, &json!(1), "k", "")?;
    ensure!(outcome == "sent");
    for n in 2..5 {
        ensure!(send(&mut client, &json!(n), "k", REPLACE)? == (first, "replaced".into()));
    }
    client.batch_execute("COMMIT")?;
    ensure!(ready_and_delayed(&mut client)? == (1, 0));
    client.batch_execute("BEGIN")?;
    let read = queue::read(&mut client, "q", 1)?;
    ensure!(read.len() == 1 && read[0].message == json!(4), "{read:?}");
    ensure!(send(&mut client, &json!(5), "k", REPLACE)? == (first, "kept".into()), "its own lease counts, too");
    client.execute("SELECT enough.queue_fail('q', $1, 'no', '1 hour')", &[&first])?;
    for n in 6..8 {
        ensure!(send(&mut client, &json!(n), "k", REPLACE)? == (first, "replaced".into()));
    }
    client.batch_execute("COMMIT")?;
    ensure!(ready_and_delayed(&mut client)? == (1, 0));
    let read = queue::read(&mut other, "q", 10)?;
    ensure!(read.len() == 1 && read[0].message == json!(7) && read[0].attempts == 1, "{read:?}");
    ensure!(queue::delete(&mut other, "q", first, read[0].lease)?);
    ensure!(ready_and_delayed(&mut client)? == (0, 0));
    Ok(())
}

#[test]
fn it_keeps_its_place_in_its_group() -> Result<()> {
    let (_database, mut client, mut other) = made("")?;
    let group = ", 'replace', group_key => 'g'";
    let (head, _) = send(&mut client, &json!("head"), "a", group)?;
    let (follower, _) = send(&mut client, &json!("follower"), "b", group)?;
    ensure!(send(&mut client, &json!("new follower"), "b", group)? == (follower, "replaced".into()));
    ensure!(send(&mut client, &json!("new head"), "a", group)? == (head, "replaced".into()));
    for (id, message) in [(head, "new head"), (follower, "new follower")] {
        let read = queue::read(&mut other, "q", 10)?;
        ensure!(queue::ids(&read) == [id] && read[0].message == json!(message), "{read:?}");
        ensure!(queue::delete(&mut other, "q", id, None)?);
    }
    Ok(())
}

#[test]
fn many_senders_at_once_leave_one_message_and_lose_no_last_word() -> Result<()> {
    let (database, mut client, mut other) = made("")?;
    client.batch_execute("CREATE SEQUENCE place")?;
    // Numbered while the sender has the row: in the order in which they replace one another.
    let call = "SELECT msg_id, nextval('place') FROM enough.queue_send_unique('q', $1, 'k', 'replace') WHERE outcome <> 'kept'";
    let sessions: Vec<_> = (0..6)
        .map(|session| {
            let mut client = database.client()?;
            client.batch_execute("SET synchronous_commit = off")?;
            Ok(thread::spawn(move || -> Result<Vec<(i64, i64, Value)>> {
                let mut accepted = Vec::new();
                for n in 0..200 {
                    let message = json!([session, n]);
                    for row in client.query(call, &[&message])? {
                        accepted.push((row.get(0), row.get(1), message.clone()));
                    }
                }
                Ok(accepted)
            }))
        })
        .collect::<Result<_>>()?;
    other.batch_execute("SET synchronous_commit = off")?;
    let mut delivered = BTreeMap::new();
    loop {
        let over = sessions.iter().all(thread::JoinHandle::is_finished);
        let read = queue::read(&mut other, "q", 10)?;
        for message in &read {
            ensure!(message.attempts == 1 && queue::delete(&mut other, "q", message.msg_id, message.lease)?);
            ensure!(delivered.insert(message.msg_id, message.message.clone()).is_none(), "twice: {message:?}");
        }
        if over && read.is_empty() {
            break;
        }
    }
    let mut last: BTreeMap<i64, (i64, Value)> = BTreeMap::new();
    for session in sessions {
        for (msg_id, place, message) in session.join().map_err(|_| anyhow::anyhow!("a session has panicked"))?? {
            let word = last.entry(msg_id).or_insert_with(|| (place, message.clone()));
            if place > word.0 {
                *word = (place, message);
            }
        }
    }
    ensure!(delivered.len() > 1, "{delivered:?}");
    for (msg_id, (_, message)) in &last {
        ensure!(delivered.get(msg_id) == Some(message), "{msg_id}: {message}, but {:?}", delivered.get(msg_id));
    }
    ensure!(last.len() == delivered.len() && ready_and_delayed(&mut client)? == (0, 0));
    Ok(())
}

#[test]
fn policies_and_checks_hold_for_what_replaces() -> Result<()> {
    let (database, mut client, _) = made("")?;
    let role = format!("tenant_{}", backend(&mut client)?);
    client.batch_execute(&format!(
        "CREATE ROLE {role} LOGIN; SELECT enough.queue_grant('q', '{role}', 'send'); \
         ALTER TABLE enough.q_q ADD CHECK (message <> '13')"
    ))?;
    let mut user = database.client_as(&role)?;
    // Without policies INSERT is enough.
    let (first, _) = send(&mut user, &json!(1), "k", "")?;
    ensure!(send(&mut user, &json!(2), "k", REPLACE)? == (first, "replaced".into()));
    refused(send(&mut user, &json!(13), "k", REPLACE), "23514")?;
    ensure!(queue::read(&mut client, "q", 10)?.len() == 1, "what was refused holds nothing");
    client.execute("SELECT enough.queue_release('q', $1)", &[&first])?;
    client.batch_execute(&format!(
        "ALTER TABLE enough.q_q ENABLE ROW LEVEL SECURITY; GRANT SELECT, UPDATE ON enough.q_q TO {role}; \
         CREATE POLICY own ON enough.q_q TO {role} USING (message->>'tenant' = 'a') WITH CHECK (message->>'tenant' = 'a')"
    ))?;
    ensure!(send(&mut user, &json!({"tenant": "a"}), "k", REPLACE)? == (first, "kept".into()), "it sees no such row");
    let (second, outcome) = send(&mut user, &json!({"tenant": "a", "n": 1}), "mine", REPLACE)?;
    ensure!(outcome == "sent");
    ensure!(send(&mut user, &json!({"tenant": "a", "n": 2}), "mine", REPLACE)? == (second, "replaced".into()));
    refused(send(&mut user, &json!({"tenant": "b"}), "mine", REPLACE), "42501")?;
    client.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))?;
    Ok(())
}

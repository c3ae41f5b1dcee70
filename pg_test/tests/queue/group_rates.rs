//! Groups of which only so many messages may be delivered in a time.

use anyhow::{Result, ensure};
use enough_pg_test::queue::{delete, ids, made, read, receive, stats};
use enough_pg_test::server::{self, Database, backend, until_waiting};
use postgres::{Client, GenericClient};
use xtask::server::Shutdown;

/// Long enough for nothing to be given back while a test runs.
const FOR_LONG: &str = "group_rate_period => '10 days', visibility_timeout => '1 hour'";

/// Sends `count` messages of a group.
fn send(client: &mut impl GenericClient, group: &str, count: i32) -> Result<()> {
    let send = "SELECT enough.queue_send('q', to_jsonb(i), group_key => $1) FROM generate_series(1, $2) AS i";
    client.execute(send, &[&group, &count])?;
    Ok(())
}

/// Reads one at a time and finishes it, until there is none; how many there were.
fn drain(client: &mut Client) -> Result<usize> {
    let mut got = 0;
    while let [message] = &read(client, "q", 1)?[..] {
        ensure!(delete(client, "q", message.msg_id, message.lease)?);
        got += 1;
    }
    Ok(got)
}

/// The same in sessions at once.
fn drain_by_all(database: &Database, sessions: usize) -> Result<usize> {
    let sessions: Vec<_> = (0..sessions)
        .map(|_| {
            let mut client = database.client()?;
            Ok(std::thread::spawn(move || drain(&mut client)))
        })
        .collect::<Result<_>>()?;
    sessions.into_iter().map(|session| session.join().expect("a session's thread")).sum()
}

#[test]
fn no_more_of_a_group_are_delivered_in_a_time_than_its_rate() -> Result<()> {
    let (database, mut client, _) = made(&format!(", group_rate => 5, group_limit => 3, {FOR_LONG}"))?;
    send(&mut client, "a", 40)?;
    ensure!(drain_by_all(&database, 8)? == 5);
    // The next group has all of its own, and begins no second time where it runs empty.
    send(&mut client, "b", 3)?;
    ensure!(drain_by_all(&database, 8)? == 3);
    client.batch_execute("SELECT * FROM enough.maintain()")?;
    send(&mut client, "b", 40)?;
    ensure!(drain_by_all(&database, 8)? == 2);
    ensure!(stats(&mut client, "q")?.ready == 35 + 38, "what is held is ready");
    Ok(())
}

#[test]
fn a_group_that_waits_holds_up_no_other() -> Result<()> {
    let (_database, mut client, _) = made(&format!(", group_rate => 1, {FOR_LONG}"))?;
    send(&mut client, "a", 2)?;
    send(&mut client, "b", 2)?;
    client.batch_execute("SELECT enough.queue_send('q', '1'); SELECT enough.queue_send('q', '2', priority => 1)")?;
    ensure!(ids(&receive(&mut client, "queue_pop('q', 10)")?) == [6, 1, 3, 5]);
    ensure!(read(&mut client, "q", 10)?.is_empty());
    // Whatever is held can be seen, changed and finished by its number.
    ensure!(receive(&mut client, "queue_read_these('q', '{2}')")?.is_empty());
    let seen = "SELECT array_agg(msg_id ORDER BY msg_id) FROM enough.queue_peek('q')";
    ensure!(client.query_one(seen, &[])?.get::<_, Vec<i64>>(0) == [2, 4]);
    let state = "SELECT state FROM enough.queue_status('q', 2)";
    ensure!(client.query_one(state, &[])?.get::<_, String>(0) == "ready");
    ensure!(delete(&mut client, "q", 2, None)?);
    ensure!(client.query_one("SELECT enough.queue_purge('q')", &[])?.get::<_, i64>(0) == 1);
    Ok(())
}

#[test]
fn a_waiting_reader_gets_the_next_of_a_group_when_its_time_comes() -> Result<()> {
    let (_database, mut client, mut other) = made(", group_rate => 1, group_rate_period => '200 milliseconds'")?;
    send(&mut client, "a", 3)?;
    let wait = "SELECT msg_id FROM enough.queue_read('q', 3, NULL, '1 minute')";
    for expected in 1..=3_i64 {
        let rows = client.query(wait, &[])?;
        ensure!(rows.len() == 1 && rows[0].get::<_, i64>(0) == expected, "{rows:?}");
        ensure!(delete(&mut client, "q", expected, None)?);
    }
    // Also one that waited before, when there was nothing.
    let pid = backend(&mut other)?;
    let waiting = std::thread::spawn(move || other.query(wait, &[]));
    until_waiting(&mut client, pid)?;
    send(&mut client, "a", 1)?;
    let rows = waiting.join().expect("the reader's thread")?;
    ensure!(rows.len() == 1 && rows[0].get::<_, i64>(0) == 4);
    Ok(())
}

#[test]
fn neither_delayed_messages_nor_those_without_a_group_slow_a_group_down() -> Result<()> {
    let (_database, mut client, _) = made(", group_rate => 1, group_rate_period => '100 milliseconds'")?;
    send(&mut client, "a", 4)?;
    client.batch_execute(
        "SELECT enough.queue_send('q', '1', delay => '1 hour'), enough.queue_send('q', '1', delay => '1 hour', group_key => 'b')",
    )?;
    for expected in 1..=4_i64 {
        client.batch_execute("SELECT enough.queue_send('q', '1'), enough.queue_send('q', '2')")?;
        let (mut numbers, wait) = (Vec::new(), "queue_pop('q', 9, wait => '1 minute')");
        while !numbers.contains(&expected) || numbers.len() < 3 {
            numbers.extend(ids(&receive(&mut client, wait)?));
        }
        ensure!(numbers.len() == 3 && numbers.iter().filter(|id| **id <= 4).count() == 1, "{numbers:?}");
    }
    Ok(())
}

#[test]
fn retries_and_rollbacks_count() -> Result<()> {
    let (_database, mut client, _) = made(&format!(", group_rate => 3, retry_backoff => '0', {FOR_LONG}"))?;
    send(&mut client, "a", 3)?;
    client.batch_execute("BEGIN")?;
    ensure!(ids(&read(&mut client, "q", 9)?) == [1]);
    client.batch_execute("ROLLBACK")?;
    ensure!(ids(&read(&mut client, "q", 9)?) == [1]);
    client.batch_execute("SELECT enough.queue_release('q', 1)")?;
    ensure!(ids(&read(&mut client, "q", 9)?) == [1]);
    client.batch_execute("SELECT enough.queue_fail('q', 1, retry_in => '0')")?;
    ensure!(read(&mut client, "q", 9)?.is_empty());
    Ok(())
}

#[test]
fn what_was_not_delivered_does_not_count() -> Result<()> {
    let (_database, mut client, mut other) = made(&format!(", group_rate => 1, {FOR_LONG}"))?;
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")?;
    send(&mut other, "a", 2)?;
    for _ in 0..3 {
        ensure!(read(&mut client, "q", 9)?.is_empty(), "its snapshot is older");
    }
    client.batch_execute("COMMIT")?;
    // Rows that are gone behind the index's back, and one whose time somebody has set back.
    other.batch_execute("DELETE FROM enough.q_q WHERE msg_id = 1; SELECT enough.queue_purge('q')")?;
    send(&mut other, "a", 1)?;
    other.batch_execute("UPDATE enough.q_q SET deliver_at = now() + interval '1 hour' WHERE msg_id = 3")?;
    ensure!(read(&mut client, "q", 9)?.is_empty());
    other.batch_execute("DELETE FROM enough.q_q WHERE msg_id = 3; SELECT * FROM enough.maintain()")?;
    send(&mut other, "a", 3)?;
    other.batch_execute("DELETE FROM enough.q_q WHERE msg_id = 4")?;
    ensure!(ids(&read(&mut client, "q", 9)?) == [5]);
    ensure!(delete(&mut client, "q", 5, None)? && read(&mut client, "q", 9)?.is_empty());
    Ok(())
}

#[test]
fn another_rate_holds_for_what_is_read_from_then_on() -> Result<()> {
    let (_database, mut client, mut other) = made(&format!(", group_rate => 1, {FOR_LONG}"))?;
    let listed = "SELECT group_rate, group_rate_period::text FROM enough.queue_list()";
    let row = client.query_one(listed, &[])?;
    ensure!((row.get::<_, Option<i32>>(0), row.get::<_, &str>(1)) == (Some(1), "10 days"), "{row:?}");
    send(&mut client, "a", 6)?;
    ensure!(drain(&mut client)? == 1);
    client.batch_execute("BEGIN; SELECT enough.queue_alter('q', group_rate => 3)")?;
    ensure!(read(&mut other, "q", 9)?.is_empty());
    client.batch_execute("COMMIT")?;
    ensure!(drain(&mut client)? == 2, "what was delivered before counts");
    client.batch_execute("SELECT enough.queue_alter('q', group_rate_period => '20 days')")?;
    ensure!(drain(&mut client)? == 0);
    let wait = "SELECT msg_id FROM enough.queue_read('q', 9, NULL, '1 minute')";
    let pid = backend(&mut other)?;
    let waiting = std::thread::spawn(move || other.query(wait, &[]).map(|rows| rows.len()));
    until_waiting(&mut client, pid)?;
    client.batch_execute("SELECT enough.queue_alter('q', group_rate => 0)")?;
    ensure!(waiting.join().expect("the reader's thread")? == 1);
    let row = client.query_one(listed, &[])?;
    ensure!((row.get::<_, Option<i32>>(0), row.get::<_, &str>(1)) == (None, "20 days"), "{row:?}");
    Ok(())
}

#[test]
fn after_a_restart_groups_begin_anew() -> Result<()> {
    let mut server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute(&format!("SELECT enough.queue_create('q', group_rate => 2, {FOR_LONG})"))?;
    send(&mut client, "a", 9)?;
    ensure!(drain(&mut client)? == 2);
    drop(client);
    server.restart(Shutdown::Fast)?;
    ensure!(drain(&mut database.client()?)? == 2);
    Ok(())
}

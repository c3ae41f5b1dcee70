//! What is due before another message was sent comes before it (of the same priority), whatever it was that it waited for and
//! though nobody has read meanwhile.

use anyhow::{Context, Result, ensure};
use enough_pg_test::queue::{self, Message};
use enough_pg_test::server::{Database, options, start};
use postgres::Client;
use serde_json::json;
use std::thread::sleep;
use std::time::Duration;
use xtask::server::Shutdown;

const REST: Duration = Duration::from_millis(300);

fn made() -> Result<(Database, Client)> {
    let (database, client, _) = queue::made(", retry_backoff => '100 milliseconds', visibility_timeout => '1 hour'")?;
    Ok((database, client))
}

/// Sends a word.
fn send(client: &mut Client, word: &str) -> Result<i64> {
    Ok(queue::send(client, "q", &json!(word))?)
}

/// The words in the order in which they come, one a read; each is deleted.
fn words(client: &mut Client) -> Result<Vec<String>> {
    let mut words = Vec::new();
    loop {
        let read = queue::receive(client, "queue_pop('q')")?;
        let Some(message) = read.first() else { return Ok(words) };
        words.push(message.message.as_str().context("a word")?.to_owned());
    }
}

fn first(read: Vec<Message>) -> Result<Message> {
    read.into_iter().next().context("a message")
}

/// Does `makes` to the message 'a', which comes due within the rest; then 'b' is sent.
fn comes_first(makes: impl FnOnce(&mut Client) -> Result<()>) -> Result<()> {
    let (_database, mut client) = made()?;
    makes(&mut client)?;
    sleep(REST);
    send(&mut client, "b")?;
    let words = words(&mut client)?;
    ensure!(words == ["a", "b"], "{words:?}");
    Ok(())
}

#[test]
fn a_retry_that_is_due_comes_before_what_is_sent_after_that() -> Result<()> {
    comes_first(|client| {
        let id = send(client, "a")?;
        queue::read(client, "q", 1)?;
        client.execute("SELECT enough.queue_fail('q', $1, retry_in => '100 ms')", &[&id])?;
        Ok(())
    })
}

#[test]
fn a_delay_that_is_over_comes_before_what_is_sent_after_that() -> Result<()> {
    comes_first(|client| Ok(client.batch_execute("SELECT enough.queue_send('q', '\"a\"', delay => '100 ms')")?))?;
    comes_first(|client| {
        let send = "SELECT enough.queue_send('q', '\"a\"', deliver_at => clock_timestamp() + '100 ms')";
        Ok(client.batch_execute(send)?)
    })
}

#[test]
fn a_lease_that_ran_out_comes_before_what_is_sent_after_that() -> Result<()> {
    comes_first(|client| {
        send(client, "a")?;
        queue::receive(client, "queue_read('q', 1, '100 ms')")?;
        Ok(())
    })?;
    // One that was made shorter.
    comes_first(|client| {
        let id = send(client, "a")?;
        queue::read(client, "q", 1)?;
        client.execute("SELECT enough.queue_extend('q', $1, '100 ms')", &[&id])?;
        Ok(())
    })
}

#[test]
fn what_a_reader_gave_back_comes_before_what_is_sent_after_that() -> Result<()> {
    comes_first(|client| {
        let id = send(client, "a")?;
        queue::read(client, "q", 1)?;
        client.execute("SELECT enough.queue_extend('q', $1, '0')", &[&id])?;
        Ok(())
    })?;
    // As if it had not been delivered.
    for delay in ["0", "100 ms"] {
        comes_first(|client| {
            let id = send(client, "a")?;
            queue::read(client, "q", 1)?;
            client.execute(&format!("SELECT enough.queue_release('q', $1, '{delay}')"), &[&id])?;
            Ok(())
        })?;
    }
    // By a rollback, after which it rests for the backoff.
    comes_first(|client| {
        send(client, "a")?;
        let mut transaction = client.transaction()?;
        queue::read(&mut transaction, "q", 1)?;
        Ok(transaction.rollback()?)
    })
}

#[test]
fn what_comes_due_after_another_was_sent_comes_after_it() -> Result<()> {
    let (_database, mut client) = made()?;
    client.batch_execute("SELECT enough.queue_send('q', '\"late\"', delay => '200 ms')")?;
    send(&mut client, "b")?;
    sleep(REST);
    send(&mut client, "c")?;
    ensure!(words(&mut client)? == ["b", "late", "c"]);
    // A priority goes before time.
    client.batch_execute("SELECT enough.queue_send('q', '\"late\"', delay => '100 ms')")?;
    sleep(REST);
    client.batch_execute("SELECT enough.queue_send('q', '\"urgent\"', priority => 1)")?;
    ensure!(words(&mut client)? == ["urgent", "late"]);
    Ok(())
}

#[test]
fn a_batch_comes_back_in_its_order() -> Result<()> {
    let (_database, mut client) = made()?;
    let expected: Vec<i64> = (1..=500).collect();
    client.batch_execute(
        "SELECT enough.queue_send_batch('q', (SELECT array_agg(to_jsonb(n) ORDER BY n) FROM generate_series(1, 500) n), \
         delay => '100 ms')",
    )?;
    sleep(REST);
    // The next batch, and a single one: behind all of it, though a send lets only some of it come due.
    queue::send_numbers(&mut client, "q", 20)?;
    queue::send(&mut client, "q", &json!("last"))?;
    let all: Vec<i64> = (1..=521).collect();
    let read = queue::receive(&mut client, "queue_read('q', 1000, '100 ms')")?;
    ensure!(queue::ids(&read) == all, "{:?}", queue::ids(&read));
    // Their leases run out all at once, and again others are sent.
    sleep(REST);
    queue::send(&mut client, "q", &json!("later"))?;
    let read = queue::receive(&mut client, "queue_read('q', 500)")?;
    ensure!(queue::ids(&read) == expected, "{:?}", queue::ids(&read));
    Ok(())
}

#[test]
fn thousands_that_are_due_come_before_the_next_one() -> Result<()> {
    let (_database, mut client) = made()?;
    client.batch_execute(
        "SELECT enough.queue_send_batch('q', (SELECT array_agg(to_jsonb(n) ORDER BY n) FROM generate_series(1, 5000) n), \
         deliver_at => clock_timestamp() + random() * '100 ms'::interval) FROM generate_series(1, 4)",
    )?;
    sleep(REST);
    let last = send(&mut client, "last")?;
    let mut read = Vec::new();
    while read.len() < 20_001 {
        let some = queue::receive(&mut client, "queue_pop('q', 2000)")?;
        ensure!(!some.is_empty(), "only {} came", read.len());
        read.extend(some);
    }
    ensure!(read.iter().position(|message| message.msg_id == last) == Some(20_000), "the last one isn't the last");
    Ok(())
}

#[test]
fn what_comes_due_together_comes_in_the_order_of_its_times() -> Result<()> {
    let (_database, mut client) = made()?;
    client.batch_execute(
        "SELECT enough.queue_send('q', to_jsonb(n), deliver_at => t + '1 s' + (n * 7 % 101) * '1 ms'::interval) \
         FROM generate_series(1, 100) AS n, (SELECT clock_timestamp() AS t) AS begin",
    )?;
    sleep(REST + Duration::from_secs(1));
    send(&mut client, "last")?;
    let read = queue::receive(&mut client, "queue_read('q', 1000)")?;
    let times: Vec<i64> = read.iter().filter_map(|message| message.message.as_i64()).map(|n| n * 7 % 101).collect();
    ensure!(times.len() == 100 && times.is_sorted(), "{times:?}");
    ensure!(read.last().is_some_and(|message| message.message == json!("last")));
    Ok(())
}

#[test]
fn dead_letters_come_back_in_their_order() -> Result<()> {
    let (_database, mut client, _) = queue::made(", max_attempts => 1")?;
    let sent = queue::send_numbers(&mut client, "q", 100)?;
    queue::read(&mut client, "q", 100)?;
    client.execute("SELECT enough.queue_fail('q', msg_id) FROM unnest($1::bigint[]) AS msg_id", &[&sent])?;
    let back: i64 = client.query_one("SELECT enough.queue_redrive('q')", &[])?.get(0);
    ensure!(back == 100, "{back}");
    let read = queue::read(&mut client, "q", 100)?;
    ensure!(queue::ids(&read) == sent, "{:?}", queue::ids(&read));
    Ok(())
}

#[test]
fn what_is_due_comes_first_after_a_restart_too() -> Result<()> {
    let mut server = start(&options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client
        .batch_execute("SELECT enough.queue_create('q'); SELECT enough.queue_send('q', '\"a\"', delay => '100 ms')")?;
    let failed = send(&mut client, "failed")?;
    let message = first(queue::receive(&mut client, "queue_read('q')")?)?;
    ensure!(message.msg_id == failed);
    client.execute("SELECT enough.queue_fail('q', $1, retry_in => '150 ms')", &[&failed])?;
    drop(client);
    server.restart(Shutdown::Fast)?;
    sleep(REST);
    let mut client = database.client()?;
    send(&mut client, "b")?;
    let words = words(&mut client)?;
    ensure!(words == ["a", "failed", "b"], "{words:?}");
    Ok(())
}

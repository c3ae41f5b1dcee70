//! What `queue_stats` says after rows went or came behind the queue's back: right after the next `maintain()`.

use anyhow::{Result, ensure};
use enough_pg_test::queue::{self, made};
use postgres::Client;

/// Ready, leased, delayed, dead, archived.
fn counts(client: &mut Client) -> Result<[i64; 5]> {
    let row = client.query_one("SELECT ready, leased, delayed, dead, archived FROM enough.queue_stats('q')", &[])?;
    Ok(std::array::from_fn(|column| row.get(column)))
}

/// Seven live messages (three leased), two delayed ones, three done and three dead ones.
fn filled(client: &mut Client) -> Result<()> {
    ensure!(counts(client)? == [0; 5]);
    queue::send_numbers(client, "q", 6)?;
    let read = queue::read(client, "q", 6)?;
    for (place, message) in read.iter().enumerate() {
        let call = if place % 2 == 0 { "queue_archive('q', $1)::text" } else { "queue_fail('q', $1)" };
        client.execute(&format!("SELECT enough.{call}"), &[&message.msg_id])?;
    }
    queue::send_numbers(client, "q", 7)?;
    queue::read(client, "q", 3)?;
    client.batch_execute("SELECT enough.queue_send('q', '1', delay => '1 hour') FROM generate_series(1, 2)")?;
    ensure!(counts(client)? == [4, 3, 2, 3, 3], "{:?}", counts(client)?);
    Ok(())
}

const OPTIONS: &str = ", max_attempts => 1, visibility_timeout => '1 hour'";

#[test]
fn rows_that_went_by_hand_are_counted_out_by_maintenance() -> Result<()> {
    for (statement, due) in [
        ("DELETE FROM enough.q_q", [0, 0, 0, 3, 3]),
        ("TRUNCATE enough.q_q", [0, 0, 0, 3, 3]),
        ("TRUNCATE enough.q_q RESTART IDENTITY", [0, 0, 0, 3, 3]),
        ("DELETE FROM enough.q_q WHERE deliver_at IS NOT NULL", [4, 3, 0, 3, 3]),
        ("DELETE FROM enough.q_q WHERE msg_id <= 9", [4, 0, 2, 3, 3]),
        ("DELETE FROM enough.q_q WHERE msg_id = 13", [3, 3, 2, 3, 3]),
        ("TRUNCATE enough.a_q", [4, 3, 2, 0, 0]),
        ("DELETE FROM enough.a_q WHERE outcome = 'dead'", [4, 3, 2, 0, 3]),
        ("DELETE FROM enough.a_q WHERE msg_id = 1", [4, 3, 2, 3, 2]),
        ("TRUNCATE enough.q_q, enough.a_q", [0; 5]),
        ("UPDATE enough.a_q SET outcome = 'done'", [4, 3, 2, 0, 6]),
        ("INSERT INTO enough.q_q (message) VALUES ('1'), ('2')", [6, 3, 2, 3, 3]),
    ] {
        let (_database, mut client, mut other) = made(OPTIONS)?;
        filled(&mut client)?;
        client.batch_execute(statement)?;
        other.batch_execute("SELECT enough.maintain()")?;
        ensure!(counts(&mut client)? == due, "{statement}: {:?}", counts(&mut client)?);
        // And they stay right.
        queue::send_numbers(&mut client, "q", 1)?;
        other.batch_execute("SELECT enough.maintain()")?;
        ensure!(counts(&mut client)?[0] == due[0] + 1, "{statement}: {:?}", counts(&mut client)?);
    }
    Ok(())
}

#[test]
fn rows_that_went_from_behind_their_groups_heads_are_counted_out() -> Result<()> {
    let (_database, mut client, mut other) = made(OPTIONS)?;
    let send = "SELECT enough.queue_send('q', '1', group_key => 'g' || n % 3) FROM generate_series(1, 30) AS n";
    ensure!(counts(&mut client)? == [0; 5]);
    client.batch_execute(send)?;
    queue::read(&mut client, "q", 2)?;
    ensure!(counts(&mut client)? == [28, 2, 0, 0, 0]);
    client.batch_execute("DELETE FROM enough.q_q WHERE msg_id > 10")?;
    other.batch_execute("SELECT enough.maintain()")?;
    ensure!(counts(&mut client)? == [8, 2, 0, 0, 0], "{:?}", counts(&mut client)?);
    Ok(())
}

#[test]
fn rows_that_the_memory_does_not_hold_are_counted_out() -> Result<()> {
    let (_database, mut client, mut other) = made(OPTIONS)?;
    ensure!(counts(&mut client)? == [0; 5]);
    client.batch_execute(
        "SELECT enough.queue_send_batch('q', (SELECT array_agg(to_jsonb(n)) FROM generate_series(1, 10000) AS n)) \
         FROM generate_series(1, 6)",
    )?;
    ensure!(counts(&mut client)? == [60_000, 0, 0, 0, 0]);
    client.batch_execute("DELETE FROM enough.q_q WHERE msg_id % 2 = 0")?;
    other.batch_execute("SELECT enough.maintain('1 minute')")?;
    ensure!(counts(&mut client)? == [30_000, 0, 0, 0, 0], "{:?}", counts(&mut client)?);
    client.batch_execute("TRUNCATE enough.q_q")?;
    other.batch_execute("SELECT enough.maintain('1 minute')")?;
    ensure!(counts(&mut client)? == [0; 5], "{:?}", counts(&mut client)?);
    Ok(())
}

#[test]
fn what_a_transaction_has_done_is_counted_once() -> Result<()> {
    for end in ["COMMIT", "ROLLBACK"] {
        for count in ["SELECT enough.queue_stats('q')", "SELECT enough.maintain()"] {
            let (_database, mut client, mut other) = made(OPTIONS)?;
            client.batch_execute("BEGIN; SELECT enough.queue_send('q', '1') FROM generate_series(1, 3)")?;
            client.batch_execute(count)?;
            client.batch_execute("SELECT enough.queue_send('q', '1', delay => '1 hour')")?;
            client.batch_execute(count)?;
            client.batch_execute(end)?;
            let due = if end == "COMMIT" { [3, 0, 1, 0, 0] } else { [0; 5] };
            ensure!(counts(&mut other)? == due, "{end} after {count}: {:?}", counts(&mut other)?);
            // A message that ends in the transaction that counts.
            client.batch_execute("SELECT enough.queue_send('q', '1'); SELECT enough.queue_stats('q')")?;
            let read = queue::read(&mut client, "q", 1)?;
            client.batch_execute("BEGIN")?;
            client.execute("SELECT enough.queue_archive('q', $1)", &[&read[0].msg_id])?;
            client.batch_execute(&format!("{count}; {end}"))?;
            let (ready, leased) = (due[0] + 1, 0);
            let due = if end == "COMMIT" { [ready - 1, leased, due[2], 0, 1] } else { [ready - 1, 1, due[2], 0, 0] };
            ensure!(counts(&mut other)? == due, "{end} after {count}: {:?}, not {due:?}", counts(&mut other)?);
        }
    }
    Ok(())
}

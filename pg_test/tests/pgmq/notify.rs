//! Notifications of inserts.

use crate::common::{expect, made, refused_with_hint};
use anyhow::{Result, ensure};
use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;

/// The channels on which the session has been notified since it was last asked.
fn heard(client: &mut Client) -> Result<Vec<String>> {
    client.batch_execute("SELECT 1")?;
    let mut channels = Vec::new();
    let mut notifications = client.notifications();
    let mut pending = notifications.iter();
    while let Some(notification) = pending.next()? {
        channels.push(notification.channel().to_owned());
    }
    Ok(channels)
}

#[test]
fn listeners_hear_of_inserts_at_most_once_in_the_interval() -> Result<()> {
    let (_database, mut client, mut other) = made()?;
    other.batch_execute("LISTEN \"pgmq.q_q.INSERT\"")?;
    client.batch_execute("SELECT pgmq.create('Q'); SELECT pgmq.send('q', '1')")?;
    ensure!(heard(&mut other)?.is_empty());
    client.batch_execute("SELECT pgmq.enable_notify_insert('Q', 0)")?;
    client.batch_execute("SELECT pgmq.send('q', '2')")?;
    client.batch_execute("SELECT enough.queue_send('q', '3')")?;
    ensure!(heard(&mut other)? == ["pgmq.q_q.INSERT", "pgmq.q_q.INSERT"]);
    // Those of one transaction are one.
    client.batch_execute("SELECT pgmq.send_batch('q', '{4,5}')")?;
    ensure!(heard(&mut other)?.len() == 1);
    client.batch_execute("SELECT pgmq.update_notify_insert('Q', 3600000)")?;
    for _ in 0..3 {
        client.batch_execute("SELECT pgmq.send('q', '6')")?;
    }
    ensure!(heard(&mut other)?.len() == 1);
    expect(
        &mut client,
        &[
            (
                "SELECT queue_name, throttle_interval_ms, last_notified_at > now() - interval '1 hour' \
            FROM pgmq.list_notify_insert_throttles()",
                &["Q|3600000|t"],
            ),
            ("SELECT pgmq.disable_notify_insert('Q')", &[""]),
            ("SELECT * FROM pgmq.list_notify_insert_throttles()", &[]),
            ("SELECT pgmq.send('q', '7')", &["9"]),
            ("SELECT pgmq.enable_notify_insert('Q'), pgmq.enable_notify_insert('Q')", &["|"]),
            (
                "SELECT throttle_interval_ms, last_notified_at = to_timestamp(0) FROM pgmq.list_notify_insert_throttles()",
                &["250|t"],
            ),
            ("SELECT pgmq.drop_queue('Q')", &["t"]),
            ("SELECT * FROM pgmq.list_notify_insert_throttles()", &[]),
            ("SELECT pgmq.disable_notify_insert('Q')", &[""]),
        ],
    )?;
    ensure!(heard(&mut other)?.is_empty());
    Ok(())
}

#[test]
fn a_sender_needs_no_right_on_the_list_of_those_that_notify() -> Result<()> {
    let (database, mut client, mut other) = made()?;
    let role = database.role("sender");
    client.batch_execute(&format!(
        "SELECT pgmq.create('q'), pgmq.enable_notify_insert('q', 0); CREATE ROLE {role} LOGIN;
         GRANT USAGE ON SCHEMA pgmq TO {role}; SELECT enough.queue_grant('q', '{role}', 'all')"
    ))?;
    other.batch_execute("LISTEN \"pgmq.q_q.INSERT\"")?;
    database.client_as(&role)?.batch_execute("SELECT pgmq.send('q', '1')")?;
    ensure!(heard(&mut other)?.len() == 1);
    Ok(())
}

#[test]
fn wrong_arguments_are_refused() -> Result<()> {
    let (_database, mut client, _) = made()?;
    client.batch_execute("SELECT pgmq.create('q')")?;
    expect(
        &mut client,
        &[
            ("SELECT pgmq.enable_notify_insert('q', -1)", &["P0001 throttle_interval_ms must be non-negative"]),
            (
                "SELECT pgmq.enable_notify_insert('nope')",
                &["P0001 Queue \"nope\" does not exist. Create it first using pgmq.create()"],
            ),
            (
                "SELECT pgmq.update_notify_insert('q', -1)",
                &["P0001 throttle_interval_ms must be non-negative, got: -1"],
            ),
            (
                "SELECT pgmq.update_notify_insert('nope', 1)",
                &["P0001 Queue \"nope\" does not exist. Create the queue first using pgmq.create()"],
            ),
            (
                "SELECT pgmq.update_notify_insert('q', 1)",
                &[
                    "P0001 Queue \"q\" does not have notify_insert enabled. Enable it first using pgmq.enable_notify_insert()",
                ],
            ),
        ],
    )?;
    refused_with_hint(&mut client, "SELECT pgmq.update_notify_insert('q', 1)", "P0001")
}

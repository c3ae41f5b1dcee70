//! From pgmq and back.

use crate::common::{expect, made, refused_with_hint};
use anyhow::{Context, Result};
use enough_pg_test::check::refused;
use enough_pg_test::server::{Database, backend, until_locked};
use postgres::Client;
use std::thread;

/// A queue as pgmq leaves it when its extension is dropped: one message visible, one read and invisible, one delayed, one archived.
fn left_by_pgmq(client: &mut Client) -> Result<()> {
    client.batch_execute(
        "CREATE TABLE pgmq.q_old (
             msg_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, read_ct int NOT NULL DEFAULT 0,
             enqueued_at timestamptz NOT NULL DEFAULT now(), last_read_at timestamptz, vt timestamptz NOT NULL,
             message jsonb, headers jsonb);
         CREATE TABLE pgmq.a_old (
             msg_id bigint PRIMARY KEY, read_ct int NOT NULL DEFAULT 0, enqueued_at timestamptz NOT NULL DEFAULT now(),
             last_read_at timestamptz, archived_at timestamptz NOT NULL DEFAULT now(), vt timestamptz NOT NULL,
             message jsonb, headers jsonb);
         INSERT INTO pgmq.q_old (read_ct, vt, message, headers)
         VALUES (0, now(), '1', '{\"h\": 1}'), (3, now() + interval '1 hour', '2', NULL), (0, now() + interval '2 hours', '3', NULL),
                (1, now(), NULL, NULL), (0, now(), '5', NULL);
         DELETE FROM pgmq.q_old WHERE message = '5';
         INSERT INTO pgmq.a_old (msg_id, read_ct, archived_at, vt, message) VALUES (6, 2, '2020-01-01 UTC', now(), '6')",
    )?;
    Ok(())
}

#[test]
fn a_queue_of_pgmq_is_taken_over_and_given_back() -> Result<()> {
    let (_database, mut client, mut other) = made()?;
    left_by_pgmq(&mut client)?;
    let live = "SELECT msg_id, read_ct, message, headers, round(extract(epoch FROM greatest(vt - now(), '0')) / 3600) \
                  FROM pgmq.q_old ORDER BY 1";
    let archived = "SELECT msg_id, read_ct, message, archived_at = '2020-01-01 UTC' FROM pgmq.a_old";
    expect(
        &mut client,
        &[
            ("SELECT * FROM pgmq.import_all()", &["old|4"]),
            ("SELECT * FROM pgmq.import_all()", &[]),
            (live, &["1|0|1|{\"h\": 1}|0", "2|3|2||1", "3|0|3||2", "4|1|null||0"]),
            (archived, &["6|2|6|t"]),
            ("SELECT queue_name FROM pgmq.list_queues()", &["old"]),
            ("SELECT queue_length, queue_visible_length, total_messages FROM pgmq.metrics('old')", &["4|2|5"]),
            ("SELECT pgmq.send('old', '6')", &["6"]),
        ],
    )?;
    expect(&mut other, &[("SELECT msg_id, read_ct FROM pgmq.read('old', 7200, 10)", &["1|1", "4|2", "6|1"])])?;
    expect(
        &mut client,
        &[
            ("SELECT pgmq.export_queue('old')", &["5"]),
            (live, &["1|1|1|{\"h\": 1}|2", "2|3|2||1", "3|0|3||2", "4|2|null||2", "6|1|6||2"]),
            (archived, &["6|2|6|t"]),
            ("SELECT relkind FROM pg_class WHERE oid IN ('pgmq.q_old'::regclass, 'pgmq.a_old'::regclass)", &["r", "r"]),
            ("SELECT * FROM enough.queue_list()", &[]),
            ("SELECT * FROM pgmq.list_queues()", &[]),
            ("INSERT INTO pgmq.q_old (vt) VALUES (now()) RETURNING msg_id", &["7"]),
            // There and back again; with the extension gone its tables stay.
            ("DROP EXTENSION pgmq", &[]),
            ("SELECT count(*) FROM pgmq.q_old", &["6"]),
            ("CREATE EXTENSION pgmq", &[]),
            ("SELECT pgmq.import_queue('Old')", &["6"]),
            ("SELECT queue_name FROM pgmq.list_queues()", &["Old"]),
        ],
    )
}

#[test]
fn the_interface_goes_and_its_queues_stay() -> Result<()> {
    let (_database, mut client, _) = made()?;
    client.batch_execute("SELECT pgmq.create('q'), pgmq.create('Other'), pgmq.send('q', '1'), pgmq.send('q', '2')")?;
    refused(client.query("DROP EXTENSION pgmq", &[]), "2BP01")?;
    expect(
        &mut client,
        &[
            ("SELECT msg_id FROM pgmq.read('q', 0, 1)", &["1"]),
            ("DROP EXTENSION pgmq CASCADE", &[]),
            ("DROP SCHEMA pgmq CASCADE", &[]),
            ("SELECT name FROM enough.queue_list() ORDER BY 1", &["other", "q"]),
            ("SELECT message FROM enough.queue_read('q', 9)", &["1", "2"]),
            // And come back to it.
            ("CREATE EXTENSION pgmq", &[]),
            ("SELECT FROM pgmq.adopt('q')", &[""]),
            ("SELECT count(*) FROM pgmq.q_q", &["2"]),
            ("DROP EXTENSION pgmq CASCADE", &[]),
            ("DROP SCHEMA pgmq CASCADE", &[]),
            ("SELECT enough.queue_drop('q'), enough.queue_drop('other')", &["t|t"]),
        ],
    )?;
    client.batch_execute("DROP EXTENSION pg_enough")?;
    Ok(())
}

#[test]
fn what_is_no_queue_of_pgmq_is_not_taken_over() -> Result<()> {
    let (_database, mut client, _) = made()?;
    client.batch_execute("SELECT pgmq.create('q')")?;
    refused_with_hint(&mut client, "SELECT pgmq.import_queue('q')", "42704")?;
    refused_with_hint(&mut client, "SELECT pgmq.import_queue('nope')", "42704")?;
    refused_with_hint(&mut client, "SELECT pgmq.export_queue('nope')", "42P01")?;
    left_by_pgmq(&mut client)?;
    client.batch_execute("SELECT enough.queue_create('old')")?;
    refused_with_hint(&mut client, "SELECT pgmq.import_queue('old')", "42710")?;
    // Nothing has come of it.
    expect(&mut client, &[("SELECT count(*) FROM pgmq.q_old", &["4"])])
}

/// Nothing may be in the table that the transaction doesn't see: it is dropped.
#[test]
fn a_snapshot_that_may_miss_messages_moves_nothing() -> Result<()> {
    let (_database, mut client, _) = made()?;
    left_by_pgmq(&mut client)?;
    client.batch_execute("SELECT pgmq.create('q')")?;
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        for call in ["import_queue('old')", "export_queue('q')"] {
            client.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}"))?;
            refused_with_hint(&mut client, &format!("SELECT pgmq.{call}"), "25001")?;
            client.batch_execute("ROLLBACK")?;
        }
    }
    expect(&mut client, &[("SELECT count(*) FROM pgmq.q_old", &["4"]), ("SELECT count(*) FROM pgmq.q_q", &["0"])])
}

/// Where the other pgmq is installed, or has been: without this extension's `pgmq`.
#[test]
fn pg_enough_alone_takes_over_a_queue_of_pgmq() -> Result<()> {
    let database = Database::new()?;
    let (role, other) = (database.role("owner"), database.role("other"));
    let mut client = database.client()?;
    client.batch_execute(
        "CREATE SCHEMA pgmq; CREATE TABLE pgmq.meta (queue_name text UNIQUE, is_partitioned bool, is_unlogged bool);
         INSERT INTO pgmq.meta VALUES ('Old', false, false), ('other', false, false)",
    )?;
    left_by_pgmq(&mut client)?;
    client.batch_execute(&format!(
        "CREATE ROLE {role} LOGIN; CREATE ROLE {other} LOGIN; GRANT USAGE ON SCHEMA pgmq TO {role}, {other};
         GRANT DELETE, SELECT ON pgmq.meta TO {role}, {other}; SELECT enough.grant_to('{role}', 'admin'), enough.grant_to('{other}', 'admin');
         ALTER TABLE pgmq.q_old OWNER TO {role}; ALTER TABLE pgmq.a_old OWNER TO {role}"
    ))?;
    let import = "SELECT enough.queue_import_pgmq('Old')";
    refused_with_hint(&mut client, "SELECT enough.queue_import_pgmq(NULL, 'q')", "22004")?;
    refused_with_hint(&mut client, "SELECT enough.queue_import_pgmq('nope')", "42704")?;
    refused_with_hint(&mut client, "SELECT enough.queue_import_pgmq('old', 'not a name')", "22023")?;
    refused(database.client_as(&other)?.simple_query(import), "42501")?;
    client.batch_execute("BEGIN; ALTER TABLE pgmq.q_old DROP COLUMN headers")?;
    refused_with_hint(&mut client, import, "55000")?;
    client.batch_execute("ROLLBACK; BEGIN; SELECT enough.queue_import_pgmq('Old'); ROLLBACK")?;
    let mut owner = database.client_as(&role)?;
    expect(
        &mut owner,
        &[
            (import, &["4"]),
            ("SELECT queue, ready, delayed FROM enough.queue_stats()", &["old|2|2"]),
            ("SELECT msg_id, attempts, message FROM enough.queue_read('old', 10)", &["1|1|1", "4|2|null"]),
            ("SELECT enough.queue_send('old', '6')", &["6"]),
            ("SELECT msg_id, attempts, message, finished_at = '2020-01-01 UTC' FROM enough.a_old", &["6|2|6|t"]),
            (
                "SELECT count(*) FROM pg_class WHERE relname IN ('q_old', 'a_old') AND relnamespace = 'pgmq'::regnamespace",
                &["0"],
            ),
            ("SELECT queue_name FROM pgmq.meta", &["other"]),
        ],
    )?;
    refused_with_hint(&mut owner, import, "42704")
}

/// Whoever waits for the tables of a queue that is dropped there meanwhile is told so.
#[test]
fn a_queue_that_is_dropped_meanwhile_is_not_taken_over() -> Result<()> {
    let (database, mut client, mut other) = made()?;
    left_by_pgmq(&mut client)?;
    other.batch_execute("BEGIN; DROP TABLE pgmq.q_old")?;
    let mut waiter = database.client()?;
    let pid = backend(&mut waiter)?;
    let import = thread::spawn(move || waiter.simple_query("SELECT enough.queue_import_pgmq('old')"));
    until_locked(&mut client, pid)?;
    other.batch_execute("COMMIT")?;
    refused(import.join().ok().context("the import has panicked")?, "42P01")?;
    expect(&mut client, &[("SELECT count(*) FROM enough.queue_list()", &["0"])])
}

//! Queues made, listed, dropped, emptied; their names.

use crate::common::{expect, made, refused_with_hint, rows};
use anyhow::{Result, ensure};

#[test]
fn a_queue_is_made_once_and_known_by_any_spelling() -> Result<()> {
    let (_database, mut client, _) = made()?;
    expect(
        &mut client,
        &[
            ("SELECT pgmq.create('Orders'), pgmq.create('Orders'), pgmq.create_non_partitioned('Orders')", &["||"]),
            ("SELECT pgmq.create_unlogged('u')", &[""]),
            (
                "SELECT queue_name, is_partitioned, is_unlogged, created_at <= now() FROM pgmq.list_queues()",
                &["Orders|f|f|t", "u|f|t|t"],
            ),
            ("SELECT pgmq.send('ORDERS', '1'), pgmq.send('orders', '2')", &["1|2"]),
            ("SELECT count(*) FROM pgmq.q_orders", &["2"]),
            // The queue is one of pg_enough, without a limit of attempts.
            (
                "SELECT name, max_attempts, retry_backoff, archive_for, unlogged FROM enough.queue_list()",
                &["orders|0|00:00:00||f", "u|0|00:00:00||t"],
            ),
            ("SELECT message FROM enough.queue_read('orders', 2)", &["1", "2"]),
            ("SELECT pgmq.purge_queue('Orders'), pgmq.purge_queue('Orders')", &["2|0"]),
            ("SELECT pgmq.drop_queue('oRDERS'), pgmq.drop_queue('orders')", &["t|f"]),
            ("SELECT pgmq.drop_queue('u', false), pgmq.drop_queue('u', true)", &["t|t"]),
            ("SELECT * FROM pgmq.list_queues()", &[]),
            ("SELECT * FROM enough.queue_list()", &[]),
            ("SELECT pgmq.detach_archive('orders')", &[""]),
        ],
    )
}

#[test]
fn names_that_pg_enough_has_none_of_are_names_here() -> Result<()> {
    let (_database, mut client, _) = made()?;
    let longest = "y".repeat(47);
    for name in ["My Queue", "123", "überbau", "a\"b", "a%b", "_pgmq_x", "a.b-c", "-", longest.as_str()] {
        client.execute("SELECT pgmq.create($1)", &[&name])?;
        client.execute("SELECT pgmq.send($1, '1')", &[&name])?;
        let length: i64 =
            client.query_one("SELECT queue_length FROM pgmq.metrics($1)", &[&name.to_ascii_uppercase()])?.get(0);
        ensure!(length == 1, "{name}");
        let view = format!("q_{}", name.to_ascii_lowercase());
        let count = rows(&mut client, &format!("SELECT count(*) FROM pgmq.{}", postgres_ident(&view)));
        ensure!(count == ["1"], "{name}: {count:?}");
        let dropped: bool = client.query_one("SELECT pgmq.drop_queue($1)", &[&name])?.get(0);
        ensure!(dropped);
    }
    for (name, message) in [
        ("a;b", "queue name contains invalid characters: $, ;, --, or \\'"),
        ("a$b", "queue name contains invalid characters: $, ;, --, or \\'"),
        ("a--b", "queue name contains invalid characters: $, ;, --, or \\'"),
        ("a''b", "queue name contains invalid characters: $, ;, --, or \\'"),
        ("y23456789012345678901234567890123456789012345678", "queue name is too long, maximum length is 47 characters"),
    ] {
        expect(&mut client, &[(&format!("SELECT pgmq.create('{name}')"), &[&format!("P0001 {message}")])])?;
        refused_with_hint(&mut client, &format!("SELECT pgmq.create('{name}')"), "P0001")?;
    }
    Ok(())
}

fn postgres_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[test]
fn a_queue_that_is_not_there_is_a_relation_that_is_not_there() -> Result<()> {
    let (_database, mut client, _) = made()?;
    for call in [
        "send('nope', '1')",
        "send('nope', '1', 5)",
        "send_batch('nope', '{1}')",
        "read('nope', 1, 1)",
        "read_with_poll('nope', 1, 1)",
        "read_grouped('nope', 1, 1)",
        "read_grouped_rr('nope', 1, 1)",
        "read_grouped_head('nope', 1, 1)",
        "pop('nope')",
        "delete('nope', 1)",
        "delete('nope', '{1}'::bigint[])",
        "archive('nope', 1)",
        "archive('nope', '{1}'::bigint[])",
        "set_vt('nope', 1, 1)",
        "set_vt('nope', '{1}'::bigint[], now())",
        "metrics('nope')",
        "purge_queue('nope')",
        "create_fifo_index('nope')",
    ] {
        let statement = format!("SELECT pgmq.{call}");
        expect(&mut client, &[(&statement, &["42P01 relation \"pgmq.q_nope\" does not exist"])])?;
        refused_with_hint(&mut client, &statement, "42P01")?;
        refused_with_hint(&mut client, &statement.replace("'nope'", "NULL"), "22004")?;
    }
    refused_with_hint(&mut client, "SELECT pgmq.create(NULL)", "22004")
}

#[test]
fn a_queue_of_pg_enough_is_not_taken_for_one_unless_it_is_adopted() -> Result<()> {
    let (_database, mut client, _) = made()?;
    client.batch_execute("SELECT enough.queue_create('native'); SELECT enough.queue_send('native', '1')")?;
    refused_with_hint(&mut client, "SELECT pgmq.create('native')", "42710")?;
    expect(
        &mut client,
        &[
            ("SELECT pgmq.adopt('Native')", &[""]),
            ("SELECT read_ct, message FROM pgmq.read('native', 0, 1)", &["1|1"]),
            ("SELECT max_attempts FROM enough.queue_list()", &["0"]),
            ("SELECT pgmq.drop_queue('native')", &["t"]),
        ],
    )
}

#[test]
fn partitions_are_refused_with_what_to_do_instead() -> Result<()> {
    let (_database, mut client, _) = made()?;
    for call in [
        "create_partitioned('p')",
        "create_partitioned('p', '1 day', '7 days', 2)",
        "convert_archive_partitioned('p')",
        "_ensure_pg_partman_installed()",
        "_get_pg_partman_schema()",
        "_get_pg_partman_major_version()",
    ] {
        refused_with_hint(&mut client, &format!("SELECT pgmq.{call}"), "0A000")?;
    }
    expect(
        &mut client,
        &[
            ("SELECT pgmq._get_partition_col('10000'), pgmq._get_partition_col('1 day')", &["msg_id|enqueued_at"]),
            ("SELECT pgmq._extension_exists('pgmq'), pgmq._extension_exists('pg_partman')", &["t|f"]),
            ("SELECT pgmq._belongs_to_pgmq('meta'), pgmq._belongs_to_pgmq('pg_class')", &["t|f"]),
        ],
    )
}

#[test]
fn sessions_that_make_the_same_queue_all_succeed() -> Result<()> {
    let (database, mut client, _) = made()?;
    let sessions: Vec<_> = (0..4)
        .map(|_| {
            let mut client = database.client()?;
            Ok(std::thread::spawn(move || client.batch_execute("SELECT pgmq.create('q'); SELECT pgmq.send('q', '1')")))
        })
        .collect::<Result<_>>()?;
    for session in sessions {
        session.join().map_err(|_| anyhow::anyhow!("panicked"))??;
    }
    expect(&mut client, &[("SELECT queue_length FROM pgmq.metrics('q')", &["4"])])
}

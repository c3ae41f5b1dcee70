//! The index in memory, made anew from the table after the memory was lost.

use anyhow::{Result, ensure};
use enough_pg_test::check::healthy;
use enough_pg_test::queue;
use enough_pg_test::server::{self, Database};
use serde_json::json;
use std::collections::BTreeSet;
use xtask::server::Shutdown;

#[test]
fn after_a_crash_a_large_queue_is_read_to_its_end() -> Result<()> {
    // Far more than the memory holds at a time.
    let mut server = server::start(&server::options()?.conf("enough.queue_memory", "256kB"))?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('q', visibility_timeout => '1 hour')")?;
    let mut ready = BTreeSet::new();
    for _ in 0..4 {
        ready.extend(queue::send_numbers(&mut client, "q", 10_000)?);
        client.batch_execute(
            "SELECT count(*) FROM enough.queue_send_batch('q', (SELECT array_agg('0'::jsonb) FROM generate_series(1, 1000)), \
             delay => '1 hour')",
        )?;
    }
    // Leases and finished ones among them; leases don't outlive the memory, unless they had no room in it.
    let leased = queue::read(&mut client, "q", 100)?;
    for message in &leased[..50] {
        ensure!(queue::delete(&mut client, "q", message.msg_id, message.lease)?);
        ready.remove(&message.msg_id);
    }
    drop(client);
    server.restart(Shutdown::Immediate)?;
    let mut client = database.client()?;
    let stats = queue::stats(&mut client, "q")?;
    ensure!(usize::try_from(stats.ready)? == ready.len() && stats.leased == 0 && stats.delayed == 4_000, "{stats:?}");
    let mut got = BTreeSet::new();
    loop {
        let some = queue::receive(&mut client, "queue_pop('q', 3000)")?;
        if some.is_empty() {
            break;
        }
        for message in some {
            ensure!(got.insert(message.msg_id), "message {} came twice", message.msg_id);
        }
    }
    ensure!(got == ready, "{} of {} came", got.len(), ready.len());
    let stats = queue::stats(&mut client, "q")?;
    ensure!((stats.ready, stats.leased, stats.delayed) == (0, 0, 4_000), "{stats:?}");
    // What is due now comes as well, after maintain() has seen that somebody has changed the rows.
    client.batch_execute("UPDATE enough.q_q SET deliver_at = now() - interval '1 second'")?;
    client.batch_execute("SELECT enough.maintain()")?;
    ensure!(queue::drain(&mut client, "q")?.len() == 4_000);
    Ok(())
}

#[test]
fn an_unlogged_queue_is_empty_after_a_crash_and_goes_on() -> Result<()> {
    let mut server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute(
        "SELECT enough.queue_create('q', unlogged => true), enough.queue_create('durable', unlogged => false)",
    )?;
    queue::send_numbers(&mut client, "q", 100)?;
    let kept = queue::send_numbers(&mut client, "durable", 100)?;
    ensure!(queue::read(&mut client, "q", 10)?.len() == 10);
    server.backend_kill9(server::backend(&mut client)?)?;
    server.wait_until_up()?;
    let mut client = database.client()?;
    ensure!(queue::read(&mut client, "q", 1_000)?.is_empty(), "rows that are gone are delivered");
    ensure!(queue::sorted_ids(&queue::read(&mut client, "durable", 1_000)?) == kept);
    let sent = queue::send(&mut client, "q", &json!("after the crash"))?;
    ensure!(queue::ids(&queue::read(&mut client, "q", 10)?) == [sent]);
    // A clean stop keeps it.
    drop(client);
    server.restart(Shutdown::Fast)?;
    let mut client = database.client()?;
    ensure!(queue::ids(&queue::read(&mut client, "q", 10)?) == [sent]);
    Ok(())
}

/// What takes effect at the end of a transaction finds the memory before that: then the catalogs can't be looked at.
#[test]
fn the_first_call_after_a_start_may_be_one_that_waits_for_the_commit() -> Result<()> {
    let mut server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    database
        .client()?
        .batch_execute("SELECT enough.queue_create('a'), enough.queue_create('b'), enough.queue_create('c')")?;
    for (call, end) in [
        ("queue_drop('a')", "COMMIT"),
        ("queue_drop('b')", "ROLLBACK"),
        ("queue_pause('b')", "COMMIT"),
        ("queue_rename('b', 'd')", "COMMIT"),
        ("queue_create('e')", "ROLLBACK"),
        ("queue_alter('d', max_attempts => 3)", "SAVEPOINT s; ROLLBACK TO s; COMMIT"),
    ] {
        server.restart(Shutdown::Fast)?;
        let mut client = database.client()?;
        client.batch_execute(&format!("BEGIN; SELECT enough.{call}; {end}"))?;
        queue::send(&mut client, "c", &json!(call))?;
    }
    ensure!(queue::read(&mut database.client()?, "c", 10)?.len() == 6);
    healthy(&server.log(), false)
}

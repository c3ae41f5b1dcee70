//! The server's restart after one of its processes was killed: memory is gone, what was committed is not.

use crate::common::{both_ways, fresh, get, set, status, works};
use anyhow::{Result, ensure};
use enough_pg_test::check::healthy;
use enough_pg_test::queue;
use enough_pg_test::server::backend;
use serde_json::json;
use xtask::server::Shutdown;

const ROUNDS: i64 = 3;
const MESSAGES: i64 = 200;

#[test]
fn a_killed_backend_costs_leases_and_cache_but_no_message() -> Result<()> {
    for options in both_ways()? {
        let (mut server, database) = fresh(&options)?;
        let mut client = database.client()?;
        client.batch_execute("SELECT enough.queue_create('q', visibility_timeout => '1 hour')")?;
        let mut expected = queue::send_numbers(&mut client, "q", MESSAGES)?;
        for round in 0..ROUNDS {
            set(&mut client, "key", round)?;
            let read = queue::read(&mut client, "q", 50)?;
            ensure!(read.len() == 50, "round {round}: {} of 50 messages", read.len());
            // Two are finished, one of them only nearly; one is sent and not committed.
            ensure!(queue::delete(&mut client, "q", read[0].msg_id, read[0].lease)?);
            expected.retain(|msg_id| *msg_id != read[0].msg_id);
            client.batch_execute("BEGIN")?;
            ensure!(queue::delete(&mut client, "q", read[1].msg_id, read[1].lease)?);
            queue::send(&mut client, "q", &json!("uncommitted"))?;

            let mut victim = database.client()?;
            set(&mut victim, "other", round)?;
            server.backend_kill9(backend(&mut victim)?)?;
            server.wait_until_up()?;

            client = database.client()?;
            ensure!(get(&mut client, "key")?.is_none(), "round {round}: the cache outlived the crash");
            let mut other = database.client()?;
            works(&mut client, &mut other, &format!("round_{round}"))?;
            let all = queue::read(&mut client, "q", 1000)?;
            ensure!(queue::sorted_ids(&all) == expected, "round {round}: {} of {}", all.len(), expected.len());
            // Give them back for the next round, whose session doesn't know these leases.
            for message in &all {
                other.execute("SELECT enough.queue_extend('q', $1, '0')", &[&message.msg_id])?;
            }
        }
        healthy(&server.log(), true)?;
    }
    Ok(())
}

#[test]
fn a_session_killed_in_each_call_leaves_a_server_that_recovers() -> Result<()> {
    let (mut server, database) = fresh(&enough_pg_test::server::options()?)?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('q', visibility_timeout => '1 hour')")?;
    let sent = queue::send_numbers(&mut client, "q", 20)?;
    for (number, call) in
        ["queue_read('q', 5)", "queue_pop('q', 5)", "queue_read('empty', wait => '1 hour')"].into_iter().enumerate()
    {
        client.batch_execute("SELECT enough.queue_create('empty', if_not_exists => true)")?;
        let mut victim = database.client()?;
        let pid = backend(&mut victim)?;
        let sleeper = std::thread::spawn(move || {
            victim.batch_execute("BEGIN")?;
            victim.batch_execute(&format!("SELECT enough.{call}"))?;
            // Open until it is killed.
            victim.batch_execute("SELECT pg_sleep(3600)")
        });
        enough_pg_test::check::eventually("the victim has made its call", || {
            let row = client.query_opt(
                "SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND wait_event_type IN ('Timeout', 'Extension')",
                &[&i32::try_from(pid)?],
            )?;
            Ok(row.map(drop))
        })?;
        server.backend_kill9(pid)?;
        ensure!(sleeper.join().expect("the victim panicked").is_err());
        server.wait_until_up()?;
        client = database.client()?;
        let read = queue::read(&mut client, "q", 100)?;
        ensure!(queue::sorted_ids(&read) == sent, "after crash {number}: {} of {}", read.len(), sent.len());
        for message in read {
            client.execute("SELECT enough.queue_extend('q', $1, '0')", &[&message.msg_id])?;
        }
    }
    healthy(&server.log(), true)
}

#[test]
fn restarts_of_each_kind_keep_messages_and_make_new_memory() -> Result<()> {
    for options in both_ways()? {
        let (mut server, database) = fresh(&options)?;
        let mut client = database.client()?;
        client.batch_execute("SELECT enough.queue_create('q', visibility_timeout => '1 hour')")?;
        let sent = queue::send_numbers(&mut client, "q", 10)?;
        for how in [Some(Shutdown::Fast), Some(Shutdown::Immediate), None] {
            ensure!(queue::read(&mut client, "q", 100)?.len() == 10);
            set(&mut client, "key", 1)?;
            if let Some(how) = how {
                server.restart(how)?;
            } else {
                server.crash()?;
                server.launch()?;
            }
            client = database_client(&server, &database.name)?;
            ensure!(get(&mut client, "key")?.is_none(), "the cache outlived the server");
            ensure!(queue::sorted_ids(&queue::read(&mut client, "q", 100)?) == sent);
            ensure!(status(&mut client, "queue_resets")? == "0");
            for msg_id in &sent {
                client.execute("SELECT enough.queue_extend('q', $1, '0')", &[msg_id])?;
            }
        }
        healthy(&server.log(), true)?;
    }
    Ok(())
}

/// The port may be another one after a start.
fn database_client(server: &xtask::server::Server, name: &str) -> Result<postgres::Client> {
    enough_pg_test::server::Database::named(server, name).client()
}

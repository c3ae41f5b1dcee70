//! More leases than the index in memory has room for.

use anyhow::{Result, ensure};
use enough_pg_test::queue::{self, ids, read};
use enough_pg_test::server::{self, Database};
use postgres::Client;
use std::collections::BTreeSet;
use xtask::server::Server;

/// A queue in an index of the smallest size.
fn made() -> Result<(Server, Client)> {
    let server = server::start(&server::options()?.conf("enough.queue_memory", "64kB"))?;
    let mut client = Database::on(&server)?.client()?;
    client.batch_execute("SELECT enough.queue_create('q', visibility_timeout => '1 hour', retry_backoff => '0')")?;
    Ok((server, client))
}

fn spilled(client: &mut Client) -> Result<i64> {
    Ok(client.query_one("SELECT count(*) FROM enough.q_q WHERE lease IS NOT NULL", &[])?.get(0))
}

#[test]
fn every_message_is_leased_once_however_small_the_index() -> Result<()> {
    let (_server, mut client) = made()?;
    queue::send_numbers(&mut client, "q", 3000)?;
    let mut seen = BTreeSet::new();
    while seen.len() < 3000 {
        let messages = read(&mut client, "q", 100)?;
        ensure!(!messages.is_empty(), "empty after {}", seen.len());
        for message in messages {
            ensure!(seen.insert(message.msg_id), "message {} is leased twice", message.msg_id);
            ensure!(message.attempts == 1);
        }
    }
    ensure!(read(&mut client, "q", 1)?.is_empty());
    ensure!(spilled(&mut client)? > 2000);
    Ok(())
}

#[test]
fn a_lease_in_the_row_fences_extends_and_ends() -> Result<()> {
    let (_server, mut client) = made()?;
    queue::send_numbers(&mut client, "q", 1500)?;
    while !read(&mut client, "q", 50)?.is_empty() {}
    let rows =
        client.query("SELECT msg_id, lease FROM enough.q_q WHERE lease IS NOT NULL ORDER BY 1 DESC LIMIT 3", &[])?;
    let [last, second, third] = [0, 1, 2].map(|at| (rows[at].get::<_, i64>(0), rows[at].get::<_, i64>(1)));
    ensure!(!queue::delete(&mut client, "q", last.0, Some(last.1 + 1))?, "another's lease");
    ensure!(queue::delete(&mut client, "q", last.0, Some(last.1))?);
    let extend = "SELECT enough.queue_extend('q', $1, $2::text::interval, $3) IS NOT NULL";
    let mut extended = |message: (i64, i64), by: &str, lease: i64| -> Result<bool> {
        Ok(client.query_one(extend, &[&message.0, &by, &lease])?.get(0))
    };
    ensure!(!extended(second, "2 hours", second.1 + 1)?);
    ensure!(extended(second, "2 hours", second.1)?);
    ensure!(extended(third, "0", third.1)?);
    let again = read(&mut client, "q", 5)?;
    ensure!(ids(&again) == [third.0] && again[0].attempts == 2, "given back at once: {again:?}");
    ensure!(!queue::delete(&mut client, "q", third.0, Some(third.1))?, "the lease of before");
    Ok(())
}

#[test]
fn a_rolled_back_reader_gives_back_what_it_wrote_to_rows() -> Result<()> {
    let (_server, mut client) = made()?;
    queue::send_numbers(&mut client, "q", 1000)?;
    let mut leased = 0;
    while spilled(&mut client)? == 0 {
        leased += read(&mut client, "q", 20)?.len();
    }
    let before = spilled(&mut client)?;
    client.batch_execute("BEGIN")?;
    while spilled(&mut client)? == before {
        ensure!(!read(&mut client, "q", 20)?.is_empty());
    }
    client.batch_execute("ROLLBACK")?;
    ensure!(spilled(&mut client)? == before);
    let mut rest = 0;
    loop {
        let messages = read(&mut client, "q", 20)?;
        if messages.is_empty() {
            break;
        }
        rest += messages.len();
    }
    ensure!(leased + rest == 1000, "{leased} and {rest}");
    Ok(())
}

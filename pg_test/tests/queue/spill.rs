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

#[test]
fn a_message_whose_lease_is_in_its_row_is_shown_failed_and_archived_under_it() -> Result<()> {
    let (_server, mut client) = made()?;
    queue::send_numbers(&mut client, "q", 1500)?;
    while !read(&mut client, "q", 50)?.is_empty() {}
    let leased = queue::receive(&mut client, "queue_peek('q', 10000, 'leased')")?;
    ensure!(leased.len() == 1500, "{} of 1500 are shown as leased", leased.len());
    ensure!(leased.iter().all(|message| message.lease.is_some() && message.until.is_some() && message.attempts == 1));
    ensure!(queue::receive(&mut client, "queue_peek('q', 10000, 'delayed')")?.is_empty());
    let rows =
        client.query("SELECT msg_id, lease FROM enough.q_q WHERE lease IS NOT NULL ORDER BY 1 DESC LIMIT 4", &[])?;
    let rows: Vec<(i64, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    for &(msg_id, lease) in &rows {
        let row = client.query_one(
            "SELECT state, attempts, leased_until > now() + interval '50 minutes' FROM enough.queue_status('q', $1)",
            &[&msg_id],
        )?;
        ensure!(row.get::<_, &str>(0) == "leased" && row.get::<_, i32>(1) == 1 && row.get::<_, bool>(2));
        let refused: (Option<String>, bool) = {
            let row = client.query_one(
                "SELECT enough.queue_fail('q', $1, 'no', '0', $2), enough.queue_archive('q', $1, NULL, $2)",
                &[&msg_id, &(lease + 1)],
            )?;
            (row.get(0), row.get(1))
        };
        ensure!(refused == (None, false), "another's lease");
    }
    let fail = "SELECT enough.queue_fail('q', $1, 'no', $2::text::interval, $3)";
    let fate: Option<String> = client.query_one(fail, &[&rows[0].0, &"0", &rows[0].1])?.get(0);
    ensure!(fate.as_deref() == Some("retry"));
    let again = read(&mut client, "q", 5)?;
    ensure!(ids(&again) == [rows[0].0] && again[0].attempts == 2, "{again:?}");
    client.batch_execute("BEGIN")?;
    client.query_one(fail, &[&rows[1].0, &"1 hour", &rows[1].1])?;
    client.batch_execute("ROLLBACK")?;
    let archived: bool =
        client.query_one("SELECT enough.queue_archive('q', $1, '1', $2)", &[&rows[1].0, &rows[1].1])?.get(0);
    ensure!(archived, "the rolled back failure has ended the lease");
    let fate: Option<String> = client.query_one(fail, &[&rows[0].0, &"0", &rows[0].1])?.get(0);
    ensure!(fate.is_none(), "the lease of before");
    ensure!(client.query_one("SELECT enough.queue_purge('q')", &[])?.get::<_, i64>(0) == 1499);
    let stats = queue::stats(&mut client, "q")?;
    ensure!((stats.ready, stats.leased, stats.delayed) == (0, 0, 0), "{stats:?}");
    Ok(())
}

#[test]
fn a_lease_that_is_extended_before_it_is_in_its_row_lasts() -> Result<()> {
    let (_server, mut client) = made()?;
    queue::send_numbers(&mut client, "q", 1500)?;
    while spilled(&mut client)? == 0 {
        ensure!(!read(&mut client, "q", 50)?.is_empty());
    }
    client.batch_execute("BEGIN")?;
    let before = spilled(&mut client)?;
    let mut last = read(&mut client, "q", 1)?.remove(0);
    while spilled(&mut client)? == before {
        last = read(&mut client, "q", 1)?.remove(0);
    }
    let extend = "SELECT enough.queue_extend('q', $1, '2 hours', $2) > clock_timestamp() + interval '90 minutes'";
    ensure!(client.query_one(extend, &[&last.msg_id, &last.lease])?.get::<_, bool>(0));
    client.batch_execute("COMMIT")?;
    let status = "SELECT leased_until > clock_timestamp() + interval '90 minutes' FROM enough.queue_status('q', $1)";
    ensure!(client.query_one(status, &[&last.msg_id])?.get::<_, bool>(0), "the extension is forgotten");
    ensure!(queue::delete(&mut client, "q", last.msg_id, last.lease)?);
    Ok(())
}

#[test]
fn another_queue_is_read_beside_one_that_is_full_of_what_was_given_back() -> Result<()> {
    let (_server, mut client) = made()?;
    client.batch_execute("SELECT enough.queue_create('other')")?;
    queue::send_numbers(&mut client, "q", 3000)?;
    client.batch_execute("BEGIN")?;
    let mut leased = 0;
    loop {
        let messages = read(&mut client, "q", 20)?;
        leased += messages.len();
        if messages.is_empty() || spilled(&mut client)? > 0 {
            break;
        }
    }
    ensure!(leased > 0);
    client.batch_execute("ROLLBACK")?;
    queue::send_numbers(&mut client, "other", 1)?;
    ensure!(read(&mut client, "other", 1)?.len() == 1);
    Ok(())
}

//! What happens when the memory is full, and what is counted.

use crate::common::{Waiter, acquire, release, taken, tokens};
use anyhow::{Result, ensure};
use enough_pg_test::check::{eventually, healthy, refused};
use enough_pg_test::server::{self, Database};
use postgres::Client;
use xtask::server::Server;

fn small() -> Result<(Server, Database, Client)> {
    let server = server::start(&server::options()?.conf("enough.semaphore_memory", "64kB"))?;
    let database = Database::on(&server)?;
    let client = database.client()?;
    Ok((server, database, client))
}

fn stats(client: &mut Client) -> Result<[i64; 8]> {
    let row = client.query_one("SELECT * FROM enough.semaphore_stats()", &[])?;
    Ok(std::array::from_fn(|column| row.get(column)))
}

/// Acquires names with a ttl until there is no room; how many.
fn fill(client: &mut Client, ttl: &str) -> Result<i64> {
    let mut count = 0;
    loop {
        let arguments = format!("'{ttl} {count}', ttl => '{ttl}'");
        match acquire(client, &arguments) {
            Ok(token) => ensure!(token.is_some(), "{arguments}"),
            Err(error) => {
                let hint = refused(Err::<(), _>(error), "53400")?;
                ensure!(hint.contains("enough.semaphore_memory"), "{hint}");
                return Ok(count);
            }
        }
        count += 1;
    }
}

#[test]
fn what_is_full_refuses_what_is_new_and_keeps_what_is_held() -> Result<()> {
    let (server, database, mut client) = small()?;
    let held = taken(&mut client, "'held', ttl => '1 hour'")?;
    let waiter = Waiter::start(&database, "'held', wait => '1 hour', ttl => '1 hour'")?;
    let count = fill(&mut client, "1 hour")?;
    ensure!(count > 200, "only {count} fit");
    let [names, holders, waiters, used, most, acquired, _, expired] = stats(&mut client)?;
    ensure!((names, holders, waiters) == (count + 1, count + 1, 1) && acquired == count + 1 && expired == 0);
    ensure!(used <= most && most <= 64 << 10 && used > most / 100 * 95, "{used} of {most}");
    refused(acquire(&mut client, "'new', wait => '1 hour'"), "53400")?;
    // Who waits has room to take.
    ensure!(release(&mut client, "held", held)?);
    let held = waiter.token()?;
    ensure!(tokens(&mut client, "held")? == [held]);
    let warning = "SELECT value FROM enough.status() WHERE item = 'warning_semaphore_memory_nearly_full'";
    let text: String = client.query_one(warning, &[])?.get(0);
    ensure!(text.contains("enough.semaphore_memory"), "{text}");
    // What is released makes room.
    ensure!(release(&mut client, "held", held)?);
    taken(&mut client, "'new'")?;
    healthy(&server.log(), false)
}

#[test]
fn what_has_expired_makes_room() -> Result<()> {
    let (server, _database, mut client) = small()?;
    let count = fill(&mut client, "5 s")?;
    let [_, _, _, used, ..] = stats(&mut client)?;
    // maintain() frees it, or whoever needs the room.
    eventually("they have expired", || {
        let left: i64 = client.query_one("SELECT count(*) FROM enough.semaphore_holders()", &[])?.get(0);
        Ok((left == 0).then_some(()))
    })?;
    ensure!(stats(&mut client)?[3] == used, "they lie there");
    let freed: i64 =
        client.query_one("SELECT items FROM enough.maintain() WHERE task = 'semaphore_expired'", &[])?.get(0);
    ensure!(freed == count, "{freed} of {count}");
    let [names, holders, _, used, _, _, _, expired] = stats(&mut client)?;
    ensure!((names, holders, used, expired) == (0, 0, 0, count));
    ensure!(client.query("SELECT FROM enough.status() WHERE item LIKE 'warning_semaphore%'", &[])?.is_empty());
    healthy(&server.log(), false)
}

#[test]
fn calls_are_counted_by_what_came_of_them() -> Result<()> {
    let (_server, _database, mut client) = small()?;
    let token = taken(&mut client, "'s', ttl => '1 hour'")?;
    for wait in ["0", "1 ms"] {
        ensure!(acquire(&mut client, &format!("'s', wait => '{wait}'"))?.is_none());
    }
    ensure!(release(&mut client, "s", token)?);
    taken(&mut client, "'t', ttl => '1 ms'")?;
    eventually("it has expired", || Ok((tokens(&mut client, "t")?.is_empty()).then_some(())))?;
    taken(&mut client, "'t', ttl => '1 hour'")?;
    let [names, holders, waiters, .., acquired, denied, expired] = stats(&mut client)?;
    ensure!((names, holders, waiters, acquired, denied, expired) == (1, 1, 0, 3, 2, 1));
    Ok(())
}

//! How much memory states take, and who goes when there is none left.

use anyhow::{Result, ensure};
use enough_pg_test::check::{eventually, healthy};
use enough_pg_test::server::{self, Database};
use postgres::Client;
use xtask::server::Server;

#[derive(Debug, PartialEq)]
struct Stats {
    keys: i64,
    bytes_used: i64,
    bytes_max: i64,
    evictions: i64,
    evictions_of_active: i64,
    evictions_of_exhausted: i64,
}

fn stats(client: &mut Client) -> Result<Stats> {
    let row = client.query_one("SELECT * FROM enough.rate_limit_stats() WHERE policy IS NULL", &[])?;
    let number = |name| row.get::<_, i64>(name);
    Ok(Stats {
        keys: number("keys"),
        bytes_used: number("bytes_used"),
        bytes_max: number("bytes_max"),
        evictions: number("evictions"),
        evictions_of_active: number("evictions_of_active"),
        evictions_of_exhausted: number("evictions_of_exhausted"),
    })
}

/// A server of its own, because the statistics are those of all its databases.
fn with_memory(memory: &str) -> Result<(Server, Client)> {
    let server = server::start(&server::options()?.conf("enough.rate_limit_memory", memory))?;
    let client = Database::on(&server)?.client()?;
    Ok((server, client))
}

/// Asks `count` keys once each, whose limit is one in `period`; how many were allowed.
fn ask(client: &mut Client, name: &str, count: i64, period: &str) -> Result<i64> {
    let row = client.query_one(
        "SELECT count(*) FILTER (WHERE allowed) FROM generate_series(1, $2::bigint) AS n, \
         LATERAL enough.rate_limit($1 || n, 1, $3::text::interval, algorithm => 'fixed_window')",
        &[&name, &count, &period],
    )?;
    Ok(row.get(0))
}

/// How many of those keys have consumed what they may.
fn exhausted(client: &mut Client, name: &str, count: i64, period: &str) -> Result<i64> {
    let row = client.query_one(
        "SELECT count(*) FILTER (WHERE NOT allowed) FROM generate_series(1, $2::bigint) AS n, \
         LATERAL enough.rate_limit_peek($1 || n, 1, $3::text::interval, algorithm => 'fixed_window')",
        &[&name, &count, &period],
    )?;
    Ok(row.get(0))
}

#[test]
fn a_million_keys_in_64_megabytes() -> Result<()> {
    const KEYS: i64 = 1_000_000;
    let (server, mut client) = with_memory("64MB")?;
    ensure!(ask(&mut client, "key ", KEYS, "1 day")? == KEYS);
    let found = stats(&mut client)?;
    ensure!(found.keys == KEYS && found.evictions == 0, "{found:?}");
    ensure!(found.bytes_used <= 64 * KEYS && found.bytes_max <= 64 << 20, "{found:?}");
    ensure!(exhausted(&mut client, "key ", KEYS, "1 day")? == KEYS, "a key was forgotten");
    healthy(&server.log(), false)
}

#[test]
fn what_is_full_goes_first_and_what_is_not_is_counted() -> Result<()> {
    let (server, mut client) = with_memory("1MB")?;
    // A third of what fits is exhausted for a day, another third for a second.
    let third = stats(&mut client)?.bytes_max / 64 / 3;
    ensure!(ask(&mut client, "long ", third, "1 day")? == third);
    ensure!(ask(&mut client, "short ", third, "1 s")? == third);
    let before = stats(&mut client)?;
    ensure!((before.keys, before.evictions) == (2 * third, 0), "{before:?}");
    eventually("the short ones are full again", || {
        Ok((exhausted(&mut client, "short ", third, "1 s")? == 0).then_some(()))
    })?;
    // Twice as many more as are free: each takes a free place or one of those.
    ensure!(ask(&mut client, "more ", third * 3 / 2, "1 day")? == third * 3 / 2);
    let after = stats(&mut client)?;
    ensure!(after.evictions > 0 && after.evictions_of_active == 0, "{after:?}");
    ensure!(exhausted(&mut client, "long ", third, "1 day")? == third, "a key with consumption left was evicted");
    ensure!(exhausted(&mut client, "more ", third * 3 / 2, "1 day")? == third * 3 / 2);

    // Now nothing is full any more. Of what then goes each one is counted, and the cap holds.
    ensure!(ask(&mut client, "flood ", 4 * third, "1 day")? == 4 * third, "a full table refused a new key");
    let flooded = stats(&mut client)?;
    ensure!(flooded.bytes_used <= flooded.bytes_max && flooded.bytes_max <= 1 << 20, "{flooded:?}");
    let kept = exhausted(&mut client, "long ", third, "1 day")?
        + exhausted(&mut client, "more ", third * 3 / 2, "1 day")?
        + exhausted(&mut client, "flood ", 4 * third, "1 day")?;
    let asked = third + third * 3 / 2 + 4 * third;
    ensure!(asked - kept == flooded.evictions_of_active, "{} forgotten: {flooded:?}", asked - kept);
    // All of them were used up, so that is what each one counts as; of such keys the older ones go, near enough.
    ensure!(flooded.evictions_of_exhausted == flooded.evictions_of_active, "{flooded:?}");
    let latest = exhausted(&mut client, "flood ", 4 * third, "1 day")?;
    ensure!(latest > 2 * third, "of the latest {} only {latest} are left", 4 * third);
    healthy(&server.log(), false)
}

/// In the default memory, which holds less than half of the flood's keys.
#[test]
fn a_flood_of_keys_frees_none_that_is_used_up() -> Result<()> {
    let server = server::start(&server::options()?)?;
    let mut client = Database::on(&server)?.client()?;
    client.batch_execute(
        "SELECT enough.rate_limit_policy_set('login', 5, '1 hour'), enough.rate_limit_block('blocked', '1 hour')",
    )?;
    let used_up = "SELECT count(*) FILTER (WHERE NOT allowed) FROM generate_series(1, $1::bigint) AS n, \
                   LATERAL enough.rate_limit('victim ' || n, 5, '1 hour', 5)";
    client.query_one(used_up, &[&1_000_i64])?;
    client.batch_execute("SELECT enough.rate_limit_by('login', 'victim', 5)")?;
    // Keys that consume one of five, keys that consume four of five, and keys that are used up by their first call.
    for (limit, cost) in [(5, 1), (5, 4), (1, 1)] {
        let row = client.query_one(
            "SELECT count(*) FILTER (WHERE allowed) FROM generate_series(1, 300000) AS n, \
             LATERAL enough.rate_limit('flood ' || $1::int || $2::int || n, $1, '1 hour', $2)",
            &[&limit, &cost],
        )?;
        ensure!(row.get::<_, i64>(0) == 300_000, "a new key was denied");
        let victims: i64 = client.query_one(used_up, &[&1_000_i64])?.get(0);
        ensure!(
            victims == 1_000,
            "{} used-up keys are allowed again after a flood of {cost} of {limit}",
            1_000 - victims
        );
        ensure!(
            !client.query_one("SELECT allowed FROM enough.rate_limit_by('login', 'victim')", &[])?.get::<_, bool>(0)
        );
        ensure!(
            !client.query_one("SELECT allowed FROM enough.rate_limit('blocked', 5, '1 hour')", &[])?.get::<_, bool>(0)
        );
    }
    let stats = stats(&mut client)?;
    ensure!(stats.evictions >= 3 * 300_000 - 2 * 131_072, "{stats:?}");
    healthy(&server.log(), false)
}

//! How much memory a key takes, on a server of its own that gives the limiter 64 MB.

use super::check::OURS;
use crate::fixture::Fixture;
use crate::results::{Figure, Results, Subject};
use crate::stats::Target;
use anyhow::{Result, ensure};
use postgres::Client;
use xtask::server::{Server, ServerOptions};

const MEMORY: &str = "64MB";

/// The keys that have to fit.
const KEYS: i32 = 1_000_000;

/// Keys that are added at a time until one is evicted.
const STEP: i32 = 1_000;

/// Fills the memory with keys of one kind until one of them has to go.
pub(super) fn of_a_key(fixture: &Fixture) -> Result<Results> {
    let options = ServerOptions::new(fixture.server().installation().pg).conf("enough.rate_limit_memory", MEMORY);
    let server = Server::start(&options)?;
    let mut client = server.client()?;
    client.batch_execute("CREATE EXTENSION pg_enough")?;
    let figure = |title: &str, unit: &str, value, target| {
        Figure::counted(Subject::new(title, &format!("in {MEMORY}"), OURS, unit), value, Some(target))
    };
    add(&mut client, 1, KEYS)?;
    let (keys, bytes, evictions) = stats(&mut client)?;
    ensure!(keys > 0, "no key is kept");
    let bytes_a_key = f64::from(bytes as u32) / f64::from(keys as u32);
    let mut asked = KEYS;
    let mut evicted = evictions;
    while evicted == 0 {
        add(&mut client, asked + 1, asked + STEP)?;
        asked += STEP;
        evicted = stats(&mut client)?.2;
    }
    // Where the first million didn't fit, that many did of which none was evicted: what is there.
    let fitted = if evictions > 0 { f64::from(keys as u32) } else { f64::from(asked - STEP) };
    Ok(Results {
        figures: vec![
            figure("rate limit, memory of a key", "bytes", bytes_a_key, Target::AtMost(64.0)),
            figure("rate limit, keys before one is evicted", "keys", fitted, Target::AtLeast(f64::from(KEYS))),
        ],
        ..Results::default()
    })
}

/// Asks the keys from `first` to `last` once each.
fn add(client: &mut Client, first: i32, last: i32) -> Result<()> {
    let statement =
        "SELECT count(enough.rate_limit('key ' || n, 10, '1 day')) FROM generate_series($1::int, $2::int) AS n";
    client.query_one(statement, &[&first, &last])?;
    Ok(())
}

/// Keys, bytes used by them, evictions.
fn stats(client: &mut Client) -> Result<(i64, i64, i64)> {
    let row = client.query_one("SELECT keys, bytes_used, evictions FROM enough.rate_limit_stats()", &[])?;
    Ok((row.get(0), row.get(1), row.get(2)))
}

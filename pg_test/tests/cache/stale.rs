//! Values that many sessions compute from a table while others change it and remove them: nobody who has seen a row
//! finds an older value in the cache, and what is in there when all is quiet is what the table says.
//!
//! Some are removed by hand, or have a tag by hand. Of others nobody says what they are made of: `cache_fetch` has found out,
//! of a table behind a view, and of another value.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check;
use enough_pg_test::server::{self, Database};
use fastrand::Rng;
use postgres::{Client, GenericClient};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// Rows, each with a key in the cache. Few, so that sessions meet.
const ROWS: i32 = 4;
const ROUNDS: u64 = 3;
const WRITERS: u64 = 4;
const FILLERS: u64 = 6;
const JUDGES: u64 = 2;
/// Changes by one writer in a round.
const CHANGES: usize = 80;

fn connected(database: &Database) -> Result<Client> {
    let mut client = database.client()?;
    // A statement of its own for each, so that a value and what it came from are read at different moments.
    client.batch_execute("SET plan_cache_mode = force_generic_plan")?;
    Ok(client)
}

/// What is fetched: of the table itself, and of that value.
const FETCHED: [&str; 2] = ["inner", "outer"];

/// Fetches one of a row's values.
fn fetch(client: &mut impl GenericClient, rng: &mut Rng, row: i32) -> Result<()> {
    let function = FETCHED[rng.usize(0..FETCHED.len())];
    client.execute(&format!("SELECT {function}_value($1)"), &[&row])?;
    Ok(())
}

/// Changes rows and removes what was made from them, in every way there is; some change their mind.
fn write(client: &mut Client, other: &mut Client, rng: &mut Rng) -> Result<()> {
    for _ in 0..CHANGES {
        let row = rng.i32(0..ROWS);
        let key = format!("row {row}");
        let mut transaction = client.transaction()?;
        if rng.u8(0..3) == 0 {
            transaction.execute("UPDATE fetched SET v = v + 1 WHERE id = $1", &[&row])?;
            // What is made of this transaction's own row comes with its commit, or never.
            if rng.bool() {
                fetch(&mut transaction, rng, row)?;
            }
        } else if rng.u8(0..8) == 0 {
            transaction.execute("UPDATE tagged SET v = v + 1 WHERE id = $1", &[&row])?;
        } else {
            transaction.execute("UPDATE plain SET v = v + 1 WHERE id = $1", &[&row])?;
            match rng.u8(0..4) {
                0 => transaction.execute("SELECT enough.cache_delete($1)", &[&key])?,
                1 => transaction.execute("SELECT enough.cache_mdelete(ARRAY[$1, 'another'])", &[&key])?,
                2 => transaction.execute("SELECT enough.cache_invalidate($1)", &[&key])?,
                _ => transaction.execute(
                    "SELECT enough.cache_delete($1),
                            enough.cache_set($1, (SELECT to_jsonb(p.v + t.v) FROM plain p, tagged t WHERE p.id = $2 AND t.id = $2),
                                             tags => ARRAY[$1, 'tagged'])",
                    &[&key, &row],
                )?,
            };
        }
        match rng.u8(0..10) {
            0 | 1 => transaction.rollback()?,
            2 | 3 => {
                let gid = format!("stale_{}", rng.u64(..));
                transaction.batch_execute(&format!("PREPARE TRANSACTION '{gid}'"))?;
                // Nothing is left of it in this session.
                transaction.rollback()?;
                thread::sleep(Duration::from_micros(rng.u64(..2000)));
                let how = if rng.u8(0..4) == 0 { "ROLLBACK" } else { "COMMIT" };
                let decider = if rng.bool() { &mut *client } else { &mut *other };
                decider.batch_execute(&format!("{how} PREPARED '{gid}'"))?;
            }
            _ => transaction.commit()?,
        }
    }
    Ok(())
}

const COMPUTE: &str = "SELECT to_jsonb(p.v + t.v) FROM plain p, tagged t WHERE p.id = $1 AND t.id = $1";
const CURRENT_FETCHED: &str = "SELECT to_jsonb(v) FROM fetched WHERE id = $1";
/// The prefixes of the keys, and what is current.
const KEYS: [(&str, &str); 3] = [("row", COMPUTE), (FETCHED[0], CURRENT_FETCHED), (FETCHED[1], CURRENT_FETCHED)];

/// Fills the cache on a miss until told to stop, slowly now and then, so that changes come in between.
fn fill(client: &mut Client, rng: &mut Rng, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Relaxed) {
        let row = rng.i32(0..ROWS);
        let key = format!("row {row}");
        if rng.bool() {
            fetch(client, rng, row)?;
            continue;
        }
        if rng.u8(0..3) == 0 {
            let one = format!("SELECT enough.cache_set($2, ({COMPUTE}), tags => ARRAY[$2, 'tagged'])");
            client.execute(&one, &[&row, &key])?;
            continue;
        }
        let level = ["READ COMMITTED", "REPEATABLE READ"][rng.usize(0..2)];
        client.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}"))?;
        if rng.u8(0..4) == 0 {
            // In a transaction whose snapshot may be older than the value within, or than its removal.
            client.query_one(CURRENT_FETCHED, &[&row])?;
            client.execute("SELECT pg_sleep(0.002)", &[])?;
            fetch(client, rng, row)?;
            client.batch_execute("COMMIT")?;
            continue;
        }
        if client.query_one("SELECT enough.cache_exists($1)", &[&key])?.get(0) {
            client.batch_execute("COMMIT")?;
            continue;
        }
        let value: Value = client.query_one(COMPUTE, &[&row])?.get(0);
        if rng.bool() {
            client.execute("SELECT pg_sleep(0.002)", &[])?;
        }
        let mode = ["always", "if_absent"][rng.usize(0..2)];
        let set = "SELECT enough.cache_set($1, $2, mode => $3, tags => ARRAY[$1, 'tagged'])";
        client.execute(set, &[&key, &value, &mode])?;
        client.batch_execute("COMMIT")?;
    }
    Ok(())
}

/// How often each of `KEYS` was found in the cache.
type Found = [AtomicUsize; KEYS.len()];

/// Who has read a row doesn't find what was made from an older one.
fn judge(client: &mut Client, rng: &mut Rng, stop: &AtomicBool, found: &Found) -> Result<()> {
    while !stop.load(Relaxed) {
        let row = rng.i32(0..ROWS);
        let kind = rng.usize(0..KEYS.len());
        let (prefix, compute) = KEYS[kind];
        let current: Value = client.query_one(compute, &[&row])?.get(0);
        let cached = cached(client, prefix, row)?;
        ensure!(
            cached.as_ref().is_none_or(|cached| cached.as_i64() >= current.as_i64()),
            "{prefix} {row} was seen with {current}, and {cached:?} in the cache afterwards"
        );
        found[kind].fetch_add(usize::from(cached.is_some()), Relaxed);
    }
    Ok(())
}

fn cached(client: &mut Client, prefix: &str, row: i32) -> Result<Option<Value>> {
    Ok(client.query_one("SELECT enough.cache_get($1)", &[&format!("{prefix} {row}")])?.get(0))
}

/// One round of all of them; ends when the writers do.
fn round(database: &Database, seed: u64, found: &Found) -> Result<()> {
    let stop = AtomicBool::new(false);
    let session = |number: u64, work: &dyn Fn(&mut Client, &mut Rng) -> Result<()>| {
        work(&mut connected(database)?, &mut Rng::with_seed(seed * 100 + number))
    };
    let (session, stop) = (&session, &stop);
    thread::scope(|scope| {
        let until = (0..FILLERS + JUDGES).map(|number| {
            let judges = number < JUDGES;
            scope.spawn(move || {
                let outcome = session(number, &|client, rng| {
                    if judges { judge(client, rng, stop, found) } else { fill(client, rng, stop) }
                });
                // Who fails ends the others.
                stop.fetch_or(outcome.is_err(), Relaxed);
                outcome
            })
        });
        let until: Vec<_> = until.collect();
        let writers = (50..50 + WRITERS).map(|number| {
            scope.spawn(move || session(number, &|client, rng| write(client, &mut connected(database)?, rng)))
        });
        let writers: Vec<_> = writers.collect();
        let written = writers.into_iter().map(join).collect::<Vec<_>>();
        stop.store(true, Relaxed);
        let ended = until.into_iter().map(join).collect::<Vec<_>>();
        written.into_iter().chain(ended).collect()
    })
}

fn join(thread: thread::ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    thread.join().map_err(|_| anyhow::anyhow!("a session panicked"))?
}

#[test]
fn the_cache_is_never_older_than_the_table() -> Result<()> {
    // Of its own: barriers are shared by all databases, and other tests take for granted that their values stay.
    let server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute(&format!(
        "CREATE TABLE plain AS SELECT id, 0::bigint AS v FROM generate_series(0, {ROWS} - 1) AS id;
         CREATE TABLE tagged AS TABLE plain;
         CREATE TABLE fetched AS TABLE plain;
         CREATE VIEW seen AS TABLE fetched;
         CREATE FUNCTION inner_value(id int) RETURNS jsonb LANGUAGE sql AS $$
             SELECT enough.cache_fetch('inner ' || id, NULL, 'SELECT v FROM seen WHERE id = $1::int', to_jsonb(id)) $$;
         CREATE FUNCTION outer_value(id int) RETURNS jsonb LANGUAGE sql AS $$
             SELECT enough.cache_fetch('outer ' || id, NULL,
                 'SELECT coalesce(enough.cache_get(''inner '' || $1::text), inner_value($1::int))', to_jsonb(id)) $$;
         SELECT enough.cache_tag_table('tagged'), enough.cache_tag_table('fetched', 'fetched:{{id}}')"
    ))?;
    let refused = |client: &mut Client| -> Result<i64> {
        Ok(client.query_one("SELECT stale_fills_refused FROM enough.cache_stats()", &[])?.get(0))
    };
    let (before, found) = (refused(&mut client)?, Found::default());
    for seed in 1..=ROUNDS {
        round(&database, seed, &found).with_context(|| format!("round {seed}"))?;
        for row in 0..ROWS {
            for (prefix, compute) in KEYS {
                let current: Value = client.query_one(compute, &[&row])?.get(0);
                if let Some(cached) = cached(&mut client, prefix, row)? {
                    ensure!(cached == current, "all is quiet, {prefix} {row} is {current}, and the cache has {cached}");
                }
            }
        }
    }
    ensure!(
        found.iter().all(|found| found.load(Relaxed) > 0),
        "not each was ever found in the cache, so this shows little: {found:?}"
    );
    ensure!(refused(&mut client)? > before, "no value was ever refused, so this test shows nothing");
    check::healthy(&server.log(), false)
}

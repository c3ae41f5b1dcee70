//! Random histories: several writers, by calls and by hand, with savepoints, rollbacks and prepared transactions, side by side with watchers
//! that pass on the greatest version that they have seen. In the end each has seen what is there, and of a space with a history each
//! change.

use crate::common::Change;
use anyhow::{Context, Result, ensure};
use enough_pg_test::check::state;
use enough_pg_test::server::Database;
use fastrand::Rng;
use postgres::Client;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

const WRITERS: u64 = 4;
const TRANSACTIONS: u32 = 60;

/// What somebody has been told: the newest value of each key, and each change by its version.
#[derive(Default)]
struct Told {
    state: BTreeMap<String, Value>,
    changes: BTreeMap<i64, (String, Option<Value>)>,
    since: i64,
}

impl Told {
    fn take(&mut self, changes: &[Change]) -> Result<()> {
        for change in changes {
            ensure!(change.version > self.since, "version {} after {}", change.version, self.since);
            self.since = change.version;
            let Some(key) = &change.key else { continue };
            ensure!(change.deleted == change.value.is_none(), "{}", change.told());
            match &change.value {
                Some(value) => self.state.insert(key.clone(), value.clone()),
                None => self.state.remove(key),
            };
            self.changes.insert(change.version, (key.clone(), change.value.clone()));
        }
        Ok(())
    }
}

fn look(
    client: &mut Client,
    space: &str,
    prefix: &str,
    since: i64,
    wait: &str,
) -> Result<Vec<Change>, postgres::Error> {
    let sql = format!("SELECT * FROM enough.kv_watch($1, $2, '{wait}', '{space}')");
    Ok(client.query(&sql, &[&prefix, &since])?.iter().map(Change::of).collect())
}

/// Looks until the writers are done and there is nothing more.
fn watcher(database: &Database, space: &str, prefix: &str, wait: &str, done: &AtomicBool) -> Result<Told> {
    let mut client = database.client()?;
    let mut told = Told::default();
    loop {
        let over = done.load(SeqCst);
        let changes = look(&mut client, space, prefix, told.since, wait)?;
        told.take(&changes)?;
        if over && changes.is_empty() {
            return Ok(told);
        }
        if wait == "0" {
            thread::yield_now();
        }
    }
}

fn statement(rng: &mut Rng, space: &str, writer: u64) -> String {
    let (key, value) = (format!("{}{}", ["a", "b"][rng.usize(..2)], rng.u8(..4)), rng.u32(..));
    match rng.u8(..9) {
        0 | 1 => format!("SELECT enough.kv_set('{key}', '{value}', space => '{space}')"),
        2 => format!("SELECT enough.kv_delete('{key}', space => '{space}')"),
        3 => format!("SELECT enough.kv_incr('n{writer}', 1, '{space}')"),
        4 => format!("SELECT enough.kv_mset('{{\"{key}\": {value}, \"c{writer}\": {value}}}', space => '{space}')"),
        5 => format!("UPDATE enough.kv_{space} SET value = '{value}' WHERE key = '{key}'"),
        6 => format!("DELETE FROM enough.kv_{space} WHERE key = '{key}'"),
        7 => format!(
            "INSERT INTO enough.kv_{space} (key, value) VALUES ('i{writer}', '{value}') ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value"
        ),
        _ => format!(
            "DO $$ BEGIN PERFORM enough.kv_set('{key}', '{value}', space => '{space}'); PERFORM 1 / {}; EXCEPTION WHEN division_by_zero THEN NULL; END $$",
            rng.u8(..2)
        ),
    }
}

/// One transaction; those that end in a deadlock, or had to wait for another one for too long, have not been.
fn transaction(
    rng: &mut Rng,
    client: &mut Client,
    space: &str,
    writer: u64,
    number: u32,
) -> Result<(), postgres::Error> {
    let name = format!("{space} {writer} {number}");
    client.batch_execute(["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"][usize::from(rng.u8(..8) == 0)])?;
    // Its number may be older than its lock.
    if rng.u8(..4) == 0 {
        client.batch_execute("SELECT pg_current_xact_id()")?;
    }
    for _ in 0..rng.u8(1..5) {
        let sql = statement(rng, space, writer);
        match rng.u8(..6) {
            0 => client.batch_execute(&format!("SAVEPOINT s; {sql}; ROLLBACK TO s; RELEASE s"))?,
            1 => client.batch_execute(&format!("SAVEPOINT s; {sql}; RELEASE s"))?,
            _ => client.batch_execute(&sql)?,
        }
        if rng.u8(..3) == 0 {
            client.batch_execute(&format!("SELECT pg_sleep({})", f64::from(rng.u8(..20)) / 1000.0))?;
        }
    }
    match rng.u8(..8) {
        0 => client.batch_execute("ROLLBACK"),
        1 => {
            client.batch_execute(&format!("PREPARE TRANSACTION '{name}'; SELECT pg_sleep(0.01)"))?;
            client.batch_execute(&format!("{} PREPARED '{name}'", ["COMMIT", "ROLLBACK"][rng.usize(..2)]))
        }
        _ => client.batch_execute("COMMIT"),
    }
}

fn write(rng: &mut Rng, database: &Database, space: &str, writer: u64) -> Result<()> {
    let mut client = database.client()?;
    client.batch_execute("SET lock_timeout = '1 s'; SET deadlock_timeout = '20 ms'")?;
    for number in 0..TRANSACTIONS {
        match transaction(rng, &mut client, space, writer, number) {
            Err(error) if ["40001", "40P01", "55P03"].contains(&state(&error)) => client.batch_execute("ROLLBACK")?,
            outcome => outcome?,
        }
    }
    Ok(())
}

fn history(database: &Database, space: &str, seed: u64) -> Result<()> {
    let mut client = database.client()?;
    // By statement triggers of the test's own: every change that is committed.
    client.batch_execute(&format!(
        "CREATE TABLE changes_{space} (key text, value jsonb, version bigint); \
         CREATE FUNCTION note_{space}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
            INSERT INTO changes_{space} VALUES (NEW.key, NEW.value, NEW.version); RETURN NULL; END $$; \
         CREATE TRIGGER zz_note AFTER INSERT OR UPDATE ON enough.kv_{space} FOR EACH ROW EXECUTE FUNCTION note_{space}()"
    ))?;
    let done = AtomicBool::new(false);
    let (all, of_a) = thread::scope(|scope| {
        let watch = |prefix: &'static str, wait: &'static str| {
            let done = &done;
            scope.spawn(move || watcher(database, space, prefix, wait, done))
        };
        let watchers = [watch("", "0"), watch("", "100 ms"), watch("a", "100 ms")];
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn(move || write(&mut Rng::with_seed(seed.wrapping_add(writer)), database, space, writer))
            })
            .collect();
        let joined: Result<Vec<()>> = writers
            .into_iter()
            .map(|writer| writer.join().map_err(|_| anyhow::anyhow!("a writer panicked"))?)
            .collect();
        done.store(true, SeqCst);
        let mut told = watchers
            .into_iter()
            .map(|watcher| watcher.join().map_err(|_| anyhow::anyhow!("a watcher panicked"))?)
            .collect::<Result<Vec<_>>>()?;
        joined?;
        let of_a = told.pop().context("three")?;
        Ok::<_, anyhow::Error>((told, of_a))
    })?;
    let rows = client.query(&format!("SELECT key, value FROM enough.kv_{space} WHERE value IS NOT NULL"), &[])?;
    let there: BTreeMap<String, Value> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    for told in &all {
        ensure!(told.state == there, "{:?}, not {there:?}", told.state);
    }
    let there_of_a = there.iter().filter(|(key, _)| key.starts_with('a'));
    ensure!(of_a.state.iter().eq(there_of_a), "{:?}, not those of {there:?}", of_a.state);
    let rows = client.query(&format!("SELECT version, key, value FROM changes_{space}"), &[])?;
    let committed: BTreeMap<i64, (String, Option<Value>)> =
        rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
    ensure!(committed.len() == rows.len(), "a version was given twice");
    for told in all.iter().chain([&of_a]) {
        for (version, change) in &told.changes {
            ensure!(committed.get(version) == Some(change), "{version}: {change:?} was told");
        }
    }
    if space == "kept" {
        for told in &all {
            // What the transaction itself has changed again is kept as well, if it wasn't deleted before it was there.
            let missed: BTreeSet<_> = committed.keys().filter(|version| !told.changes.contains_key(version)).collect();
            ensure!(missed.is_empty(), "not told: {missed:?}");
        }
    }
    Ok(())
}

#[test]
fn no_watcher_misses_anything() -> Result<()> {
    let database = Database::new()?;
    let seed =
        std::env::var("ENOUGH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.kv_create('plain'), enough.kv_create('kept', history => 100)")?;
    for space in ["plain", "kept"] {
        history(&database, space, seed).with_context(|| format!("in the history ENOUGH_SEED={seed} of {space}"))?;
    }
    Ok(())
}

//! Random histories of sessions that change entries in every way there is while others read them: nobody who has seen a row gets an older
//! value from memory, and who reads from one snapshot, or has written, gets what the table says.
//!
//! Each key has a number that only grows. What is deleted leaves it in another table, so that what comes back is greater.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{self, state};
use enough_pg_test::server::{self, Database};
use fastrand::Rng;
use postgres::{Client, Transaction};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// Few, so that sessions meet.
const KEYS: u8 = 4;
const ROUNDS: u64 = 3;
const WRITERS: u64 = 4;
const READERS: u64 = 5;
/// Changes by one writer in a round.
const CHANGES: usize = 100;

/// The number of a key that is there now, or was before it was deleted.
const SEEN: &str = "SELECT greatest((SELECT value::text::bigint FROM enough.kv_default WHERE key = $1), m.v) FROM marks AS m WHERE m.key = $1";
/// Keeps the number of a key that is about to be deleted.
const MARK: &str = "UPDATE marks AS m SET v = greatest(m.v, e.value::text::bigint) FROM enough.kv_default AS e WHERE e.key = $1 AND m.key = $1";
const GREATER: &str = "(SELECT greatest((SELECT value::text::bigint FROM enough.kv_default WHERE key = $1), m.v) + 1 FROM marks AS m WHERE m.key = $1)";

/// Changes a key; whether it was this transaction alone that could.
fn change(transaction: &mut Transaction<'_>, rng: &mut Rng, key: &str) -> Result<(), postgres::Error> {
    // Whoever changes a key has its mark first, so that numbers grow.
    transaction.query_one("SELECT FROM marks WHERE key = $1 FOR UPDATE", &[&key])?;
    match rng.u8(..14) {
        0 | 1 => transaction.execute(&format!("SELECT enough.kv_set($1, to_jsonb({GREATER}))"), &[&key])?,
        2 => transaction.execute(&format!("SELECT enough.kv_mset(jsonb_build_object($1::text, {GREATER}))"), &[&key])?,
        3 => transaction.execute(
            "UPDATE enough.kv_default SET value = to_jsonb(value::text::bigint + 1) WHERE key = $1 AND value IS NOT NULL",
            &[&key],
        )?,
        4 => {
            transaction.execute(MARK, &[&key])?;
            transaction.execute("DELETE FROM enough.kv_default WHERE key = $1", &[&key])?
        }
        5 => {
            transaction.execute(MARK, &[&key])?;
            transaction.execute("SELECT enough.kv_delete($1)", &[&key])?
        }
        6 | 7 => transaction.execute(
            &format!("INSERT INTO enough.kv_default (key, value) VALUES ($1, to_jsonb({GREATER})) ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value"),
            &[&key],
        )?,
        8 => {
            let number: i64 = transaction.query_one(&format!("SELECT {GREATER}"), &[&key])?.get(0);
            transaction.execute("DELETE FROM enough.kv_default WHERE key = $1", &[&key])?;
            let mut copy = transaction.copy_in("COPY enough.kv_default (key, value) FROM STDIN")?;
            // An error comes with the end.
            let _ = copy.write_all(format!("{key}\t{number}\n").as_bytes());
            copy.finish()?
        }
        9 if rng.u8(..3) == 0 => {
            transaction.batch_execute(
                "LOCK TABLE enough.kv_default; \
                 UPDATE marks AS m SET v = greatest(m.v, e.value::text::bigint) FROM enough.kv_default AS e WHERE m.key = e.key; \
                 TRUNCATE enough.kv_default",
            )?;
            0
        }
        10 if rng.u8(..3) == 0 => {
            transaction.batch_execute(
                "ALTER TABLE enough.kv_default ALTER value TYPE jsonb USING to_jsonb(value::text::bigint + 1)",
            )?;
            0
        }
        11 if rng.u8(..3) == 0 => {
            transaction.batch_execute(
                "ALTER TABLE enough.kv_default DISABLE TRIGGER kv_copies; \
                 UPDATE enough.kv_default SET value = to_jsonb(value::text::bigint + 1) WHERE value IS NOT NULL; \
                 ALTER TABLE enough.kv_default ENABLE ALWAYS TRIGGER kv_copies",
            )?;
            0
        }
        _ => transaction.execute(
            "SELECT enough.kv_incr($1) FROM enough.kv_default WHERE key = $1 AND value IS NOT NULL",
            &[&key],
        )?,
    };
    // What it has changed is its own until it ends: what others have committed doesn't come in between.
    let own = "SELECT (SELECT value FROM enough.kv_default WHERE key = $1) IS NOT DISTINCT FROM enough.kv_get($1), enough.kv_get($1)::text";
    let row = transaction.query_one(own, &[&key])?;
    assert!(row.get::<_, bool>(0), "who has changed {key} reads {:?}", row.get::<_, Option<String>>(1));
    Ok(())
}

/// Whether a transaction is to be tried again: of a deadlock, one that wasn't serializable, or that has inserted a key that its snapshot
/// doesn't show.
fn is_lost(error: &postgres::Error) -> bool {
    matches!(state(error), "40001" | "40P01" | "23505")
}

/// One transaction of a writer's.
fn write_once(client: &mut Client, other: &mut Client, rng: &mut Rng) -> Result<(), postgres::Error> {
    let level = ["READ COMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"][rng.usize(..4)];
    let mut transaction = client.transaction()?;
    transaction.batch_execute(&format!("SET TRANSACTION ISOLATION LEVEL {level}"))?;
    let key = format!("k{}", rng.u8(..KEYS));
    if rng.u8(..4) == 0 {
        let mut savepoint = transaction.transaction()?;
        change(&mut savepoint, rng, &key)?;
        if rng.bool() { savepoint.rollback()? } else { savepoint.commit()? }
    }
    if rng.u8(..4) > 0 {
        change(&mut transaction, rng, &key)?;
    }
    match rng.u8(..10) {
        0 | 1 => transaction.rollback(),
        2 | 3 => {
            let gid = format!("stale_{}", rng.u64(..));
            transaction.batch_execute(&format!("PREPARE TRANSACTION '{gid}'"))?;
            // Nothing is left of it in this session.
            transaction.rollback()?;
            thread::sleep(Duration::from_micros(rng.u64(..2000)));
            let how = if rng.u8(..4) == 0 { "ROLLBACK" } else { "COMMIT" };
            let decider = if rng.bool() { client } else { other };
            decider.batch_execute(&format!("{how} PREPARED '{gid}'"))
        }
        _ => transaction.commit(),
    }
}

fn write(client: &mut Client, other: &mut Client, rng: &mut Rng) -> Result<()> {
    for _ in 0..CHANGES {
        match write_once(client, other, rng) {
            Err(error) if !is_lost(&error) => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// What was found by those who read: from memory or not.
type Found = AtomicUsize;

fn number(client: &mut Client, key: &str) -> Result<Option<i64>> {
    let call = ["enough.kv_get($1)::text::bigint", "(SELECT value::text::bigint FROM enough.kv_entry($1))"];
    Ok(client.query_one(&format!("SELECT {}", call[usize::from(key.ends_with('0'))]), &[&key])?.get(0))
}

/// In one snapshot the answer is the table's.
fn read_in_one_snapshot(client: &mut Client, level: &str, key: &str) -> Result<()> {
    client.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}, READ ONLY; SELECT FROM marks"))?;
    let table = "SELECT (SELECT value::text::bigint FROM enough.kv_default WHERE key = $1)";
    for _ in 0..3 {
        let row: Option<i64> = client.query_one(table, &[&key])?.get(0);
        let said = number(client, key)?;
        ensure!(said == row, "{level}: {key} is {row:?}, and {said:?} was read");
    }
    Ok(client.batch_execute("COMMIT")?)
}

/// Who has seen a row doesn't get an older one.
fn read_what_is_committed(client: &mut Client, in_block: bool, key: &str, found: &Found) -> Result<()> {
    if in_block {
        client.batch_execute("BEGIN")?;
    }
    for _ in 0..4 {
        let seen: Option<i64> = client.query_one(SEEN, &[&key])?.get(0);
        let said = number(client, key)?;
        ensure!(
            said.is_none_or(|said| Some(said) >= seen),
            "{key} was seen with {seen:?}, and {said:?} was read afterwards"
        );
        found.fetch_add(usize::from(said.is_some()), Relaxed);
    }
    if in_block {
        client.batch_execute("COMMIT")?;
    }
    Ok(())
}

/// Reads until told to stop.
fn read(client: &mut Client, rng: &mut Rng, stop: &AtomicBool, found: &Found) -> Result<()> {
    while !stop.load(Relaxed) {
        let key = format!("k{}", rng.u8(..KEYS));
        let outcome = if rng.u8(..4) == 0 {
            read_in_one_snapshot(client, ["REPEATABLE READ", "SERIALIZABLE"][rng.usize(..2)], &key)
        } else {
            read_what_is_committed(client, rng.bool(), &key, found)
        };
        match outcome {
            // Writers that wait for one another may have it in their midst.
            Err(error) if error.downcast_ref().is_some_and(is_lost) => client.batch_execute("ROLLBACK")?,
            outcome => outcome?,
        }
    }
    Ok(())
}

/// One round of all of them; ends when the writers do.
fn round(database: &Database, seed: u64, found: &Found) -> Result<()> {
    let stop = AtomicBool::new(false);
    let session = |number: u64, work: &dyn Fn(&mut Client, &mut Rng) -> Result<()>| {
        let outcome = work(&mut database.client()?, &mut Rng::with_seed(seed * 100 + number));
        // Who fails ends the others.
        stop.fetch_or(outcome.is_err(), Relaxed);
        outcome
    };
    let (session, stop) = (&session, &stop);
    thread::scope(|scope| {
        let readers = (0..READERS)
            .map(|number| scope.spawn(move || session(number, &|client, rng| read(client, rng, stop, found))));
        let readers: Vec<_> = readers.collect();
        let writers = (50..50 + WRITERS).map(|number| {
            scope.spawn(move || session(number, &|client, rng| write(client, &mut database.client()?, rng)))
        });
        let writers: Vec<_> = writers.collect();
        let written = writers.into_iter().map(join).collect::<Vec<_>>();
        stop.store(true, Relaxed);
        let ended = readers.into_iter().map(join).collect::<Vec<_>>();
        written.into_iter().chain(ended).collect()
    })
}

fn join(thread: thread::ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    thread.join().map_err(|_| anyhow::anyhow!("a session panicked"))?
}

#[test]
fn nobody_reads_what_was_before_a_commit() -> Result<()> {
    let server = server::start(&server::options()?.conf("deadlock_timeout", "20ms"))?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute(&format!(
        "CREATE TABLE marks AS SELECT 'k' || k AS key, 0::bigint AS v FROM generate_series(0, {KEYS} - 1) AS k"
    ))?;
    let stats = |client: &mut Client| -> Result<(i64, i64)> {
        let row = client.query_one("SELECT hits, stale_fills_refused FROM enough.cache_stats()", &[])?;
        Ok((row.get(0), row.get(1)))
    };
    let (before, found) = (stats(&mut client)?, Found::default());
    let first = std::env::var("ENOUGH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    for seed in first..first + ROUNDS {
        round(&database, seed, &found).with_context(|| format!("round {seed}"))?;
        for _ in 0..3 {
            for key in 0..KEYS {
                let both = "SELECT enough.kv_get($1)::text, (SELECT value::text FROM enough.kv_default WHERE key = $1)";
                let row = client.query_one(both, &[&format!("k{key}")])?;
                let (said, row): (Option<String>, Option<String>) = (row.get(0), row.get(1));
                ensure!(said == row, "all is quiet, k{key} is {row:?}, and {said:?} was read");
            }
        }
    }
    let after = stats(&mut client)?;
    ensure!(found.load(Relaxed) > 0 && after.0 > before.0, "nothing was ever read from memory, so this shows nothing");
    ensure!(after.1 > before.1, "no copy was ever refused, so this shows little");
    check::healthy(&server.log(), false)
}

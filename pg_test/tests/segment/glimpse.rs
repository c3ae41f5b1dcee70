//! Reading without the lock: whatever other sessions do meanwhile, a get answers a value that somebody has set under that
//! key, or none.

use crate::common::fresh;
use anyhow::{Context, Result, ensure};
use enough_pg_test::check::healthy;
use enough_pg_test::server::{self, Database};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// How long the sessions are at it.
const LASTING: Duration = Duration::from_secs(6);

/// Keys that are written and read all the time. Each has values of its own letters.
const KEYS: u32 = 3;

/// A value is one letter, repeated: one of the key's four. Lengths fit the same memory, or just not.
const WRITE: &str = "
    DO $$
    DECLARE key int; length int;
    BEGIN
        FOR i IN 1 .. 2000 LOOP
            key := i % 3;
            length := CASE WHEN i % 7 = 0 THEN 10 + (i * 37) % 900 ELSE 600 END;
            PERFORM enough.cache_set('hot' || key, to_jsonb(repeat(chr(97 + key * 4 + (i / 3) % 4), length)));
            COMMIT;
        END LOOP;
    END $$";

/// Reads each key many times; an error where a value isn't one letter of the key's. How many were found.
const READ: &str = "
    CREATE FUNCTION read_hot(key int) RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE value text; found bigint := 0;
    BEGIN
        FOR i IN 1 .. 3000 LOOP
            value := enough.cache_get('hot' || key) #>> '{}';
            CONTINUE WHEN value IS NULL;
            found := found + 1;
            IF value <> repeat(left(value, 1), length(value)) OR (ascii(value) - 97) / 4 <> key THEN
                RAISE EXCEPTION 'key % has a value that nobody has set: %', key, value;
            END IF;
        END LOOP;
        RETURN found;
    END $$";

/// Fills the memory with others, so that it is taken from one entry and given to another.
const CHURN: &str = "
    SELECT count(enough.cache_mset(jsonb_build_object('other' || i % 3000, repeat('~', 100 + i * 31 % 2000))))
    FROM generate_series(1, 2000) AS i";

/// Runs `statement` until the time is over; how often.
fn repeat(database: &Database, until: Instant, statement: &str) -> Result<u64> {
    let mut client = database.client()?;
    let mut rounds = 0;
    while Instant::now() < until {
        client.batch_execute(statement)?;
        rounds += 1;
    }
    Ok(rounds)
}

#[test]
fn a_get_answers_what_somebody_has_set_or_nothing() -> Result<()> {
    let options = server::options()?.conf("enough.cache_memory", "2MB").conf("enough.cache_max_value", "256kB");
    let (server, database) = fresh(&options)?;
    database.client()?.batch_execute(READ)?;
    let (until, found) = (Instant::now() + LASTING, AtomicU64::new(0));
    let read = |key: u32| -> Result<()> {
        let mut client = database.client()?;
        while Instant::now() < until {
            let count: i64 = client.query_one("SELECT read_hot($1)", &[&key.cast_signed()])?.get(0);
            found.fetch_add(count.unsigned_abs(), Relaxed);
        }
        Ok(())
    };
    thread::scope(|scope| -> Result<()> {
        let mut sessions = Vec::new();
        for statement in [WRITE, WRITE, CHURN] {
            let database = &database;
            sessions.push(scope.spawn(move || repeat(database, until, statement).map(drop)));
        }
        let read = &read;
        sessions.extend((0..KEYS).map(|key| scope.spawn(move || read(key))));
        sessions.into_iter().try_for_each(|session| session.join().ok().context("a thread panicked")?)
    })?;
    ensure!(found.load(Relaxed) > 0, "nothing was found, so nothing was tested");
    let evictions: i64 = database.client()?.query_one("SELECT evictions FROM enough.cache_stats()", &[])?.get(0);
    ensure!(evictions > 0, "memory never changed hands");
    healthy(&server.log(), false)
}

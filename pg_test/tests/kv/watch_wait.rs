//! Watching with `wait`: who waits is woken by the commit that it waits for, whatever kind of change that is.

use crate::common::{Change, column, last, set, watch};
use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{PATIENCE, is_lost, refused, state};
use enough_pg_test::server::{self, Database, backend, until_locked, until_waiting};
use postgres::{Client, Error};
use serde_json::json;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

type Watcher = JoinHandle<Result<Vec<Change>, Error>>;

/// A watcher in a thread of its own, and its server process.
fn start(database: &Database, prefix: &'static str, since: i64, before: &str) -> Result<(Watcher, u32)> {
    let mut client = database.client()?;
    client.batch_execute(before)?;
    let pid = backend(&mut client)?;
    let thread = thread::spawn(move || {
        let rows = client.query("SELECT * FROM enough.kv_watch($1, $2, '1 hour')", &[&prefix, &since])?;
        Ok(rows.iter().map(Change::of).collect())
    });
    Ok((thread, pid))
}

/// The same, when it sleeps.
fn sleeper(database: &Database, prefix: &'static str, since: i64) -> Result<(Watcher, u32)> {
    let (watcher, pid) = start(database, prefix, since, "")?;
    until_waiting(&mut database.client()?, pid)?;
    Ok((watcher, pid))
}

/// Nobody sleeps for less without looking by itself: ten seconds after its last command the server's own timer wakes a session, see also
/// `src/pg/latch.rs`. Only a failure ever waits so long.
const WOKEN: Duration = Duration::from_secs(7);

/// What it was told. The wait is an hour, so that only what it waits for ends it in this time.
fn join(watcher: Watcher) -> Result<Result<Vec<Change>, Error>> {
    let deadline = Instant::now() + WOKEN;
    while !watcher.is_finished() {
        ensure!(Instant::now() < deadline, "a watcher was never woken");
        thread::sleep(Duration::from_millis(5));
    }
    watcher.join().map_err(|_| anyhow::anyhow!("a watcher panicked"))
}

fn told(watcher: Watcher) -> Result<Vec<String>> {
    Ok(join(watcher)??.iter().map(Change::told).collect())
}

fn seen(client: &mut Client) -> Result<i64> {
    Ok(last(&watch(client, "", 0)?))
}

#[test]
fn every_kind_of_change_wakes_a_watcher() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute(
        "SELECT enough.kv_set('there', '{}'); CREATE TABLE source AS SELECT 'copied'::text AS key, '1'::jsonb AS value",
    )?;
    for (sql, expected) in [
        ("SELECT enough.kv_set('k', '1')", "k=1"),
        ("SELECT enough.kv_set('k', '2', if_version => (SELECT version FROM enough.kv_entry('k')))", "k=2"),
        ("SELECT enough.kv_mset('{\"k\": 3}')", "k=3"),
        ("SELECT enough.kv_incr('k', 1)", "k=4"),
        ("SELECT enough.kv_merge('there', '{\"a\": 1}')", "there={\"a\":1}"),
        ("SELECT enough.kv_delete('there')", "there deleted"),
        ("UPDATE enough.kv_default SET value = '5' WHERE key = 'k'", "k=5"),
        ("INSERT INTO enough.kv_default (key, value) SELECT * FROM source", "copied=1"),
        ("DELETE FROM enough.kv_default WHERE key = 'k'", "k deleted"),
        ("BEGIN; SAVEPOINT s; SELECT enough.kv_set('s', '1'); RELEASE s; COMMIT", "s=1"),
        (
            "DO $$ BEGIN PERFORM enough.kv_set('do', '1'); PERFORM 1 / 0; EXCEPTION WHEN OTHERS THEN PERFORM enough.kv_set('did', '1'); END $$",
            "did=1",
        ),
        ("BEGIN; SELECT enough.kv_set('p', '1'); PREPARE TRANSACTION 'wakes' ;; COMMIT PREPARED 'wakes'", "p=1"),
    ] {
        let (watcher, _) = sleeper(&database, "", seen(&mut client)?)?;
        for sql in sql.split(" ;; ") {
            client.batch_execute(sql).with_context(|| sql.to_owned())?;
        }
        let told = told(watcher).with_context(|| sql.to_owned())?;
        ensure!(told == [expected], "{sql}");
    }
    // Nor does who waits keep others from what locks the table.
    let (watcher, _) = sleeper(&database, "", seen(&mut client)?)?;
    client.batch_execute("SET lock_timeout = '30 s'; TRUNCATE enough.kv_default")?;
    refused(join(watcher)?, "55000")?;
    Ok(())
}

/// A decision by COMMIT PREPARED wakes nobody by itself, and may come while a watcher that the PREPARE has woken is looking.
#[test]
fn a_decision_right_behind_the_preparation_is_told() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    let mut seen = set(&mut client, "k", &json!(-1))?;
    for round in 0..60 {
        let (watcher, _) = sleeper(&database, "", seen)?;
        client.batch_execute(&format!("BEGIN; SELECT enough.kv_set('k', '{round}'); PREPARE TRANSACTION 'decided'"))?;
        thread::sleep(Duration::from_micros(50 * round));
        client.batch_execute("COMMIT PREPARED 'decided'")?;
        let told = told(watcher).with_context(|| format!("round {round}"))?;
        ensure!(told == [format!("k={round}")], "{told:?}");
        seen = last(&watch(&mut client, "", 0)?);
    }
    Ok(())
}

/// Many at once, each with what it has asked for; and who has asked for other keys sleeps on.
#[test]
fn all_watchers_are_told() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    let before = set(&mut client, "k", &json!(0))?;
    let watchers = (0..20).map(|_| sleeper(&database, "k", before)).collect::<Result<Vec<_>>>()?;
    let (other, pid) = sleeper(&database, "other", before)?;
    set(&mut client, "k", &json!(1))?;
    for (watcher, _) in watchers {
        ensure!(told(watcher)? == ["k=1"]);
    }
    until_waiting(&mut client, pid)?;
    set(&mut client, "other", &json!(1))?;
    ensure!(told(other)? == ["other=1"]);
    Ok(())
}

/// What can't be told yet is told when the transaction has ended that holds it up, however it ends.
#[test]
fn who_is_held_up_waits_for_that_transaction() -> Result<()> {
    let database = Database::new()?;
    let (mut client, mut older, mut third) = (database.client()?, database.client()?, database.client()?);
    for (end, expected) in [
        ("COMMIT", &["older=1", "newer=1"][..]),
        ("ROLLBACK", &["newer=1"]),
        ("PREPARE TRANSACTION 'held'", &["older=1", "newer=1"]),
        ("PREPARE TRANSACTION 'held'; SELECT 1", &["newer=1"]),
    ] {
        let before = seen(&mut client)?;
        older.batch_execute("BEGIN; SELECT enough.kv_set('older', '1')")?;
        let (early, early_pid) = sleeper(&database, "", before)?;
        set(&mut client, "newer", &json!(1))?;
        until_locked(&mut third, early_pid)?;
        let (late, late_pid) = start(&database, "", before, "")?;
        until_locked(&mut third, late_pid)?;
        older.batch_execute(end.split(';').next().unwrap_or(end))?;
        if end.starts_with("PREPARE") {
            until_locked(&mut third, early_pid)?;
            let how = if expected.len() == 2 { "COMMIT" } else { "ROLLBACK" };
            third.batch_execute(&format!("{how} PREPARED 'held'"))?;
        }
        for watcher in [early, late] {
            ensure!(told(watcher)? == expected, "{end}");
        }
    }
    Ok(())
}

/// A transaction that is prepared wakes nobody when it is committed: so who watches waits for it from the beginning.
#[test]
fn who_finds_a_prepared_transaction_waits_for_it() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    let before = set(&mut client, "k", &json!(0))?;
    client.batch_execute("BEGIN; SELECT enough.kv_set('p', '1'); PREPARE TRANSACTION 'found'")?;
    let (watcher, pid) = start(&database, "", before, "")?;
    until_locked(&mut client, pid)?;
    client.batch_execute("COMMIT PREPARED 'found'")?;
    ensure!(told(watcher)? == ["p=1"]);
    Ok(())
}

/// A wait ends when it is over, when the statement may take no longer, when it is canceled and when the session is ended: asleep as well as
/// held up.
#[test]
fn a_wait_ends() -> Result<()> {
    let database = Database::new()?;
    let (mut client, mut older) = (database.client()?, database.client()?);
    let before = set(&mut client, "k", &json!(0))?;
    for held in [false, true] {
        if held {
            older.batch_execute("BEGIN; SELECT enough.kv_set('older', '1')")?;
            set(&mut client, "newer", &json!(1))?;
        }
        let until: fn(&mut Client, u32) -> Result<()> = if held { until_locked } else { until_waiting };
        let rows = client.query("SELECT * FROM enough.kv_watch('', $1, '50 ms')", &[&before])?;
        ensure!(rows.is_empty(), "{}", rows.len());
        for (sql, code) in [("SET statement_timeout = '50 ms'", "57014"), ("SET lock_timeout = '50 ms'", "55P03")] {
            if held || code == "57014" {
                let (watcher, _) = start(&database, "", before, sql)?;
                refused(join(watcher)?, code)?;
            }
        }
        for (how, code) in [("pg_cancel_backend", "57014"), ("pg_terminate_backend", "57P01")] {
            let (watcher, pid) = start(&database, "", before, "")?;
            until(&mut client, pid)?;
            client.execute(&format!("SELECT {how}($1)"), &[&i32::try_from(pid)?])?;
            // The last word of a session that is ended may not come through.
            let ended =
                join(watcher)?.err().is_some_and(|error| state(&error) == code || code == "57P01" && is_lost(&error));
            ensure!(ended, "{how}");
        }
    }
    older.batch_execute("ROLLBACK")?;
    // Nobody is left as one who waits.
    let left = "SELECT pid::text FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 25975 \
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    ensure!(column(&mut client, left, &[])?.is_empty());
    for wait in ["'-1 second'", "'1 hour 1 microsecond'", "'infinity'"] {
        let outcome = client.query(&format!("SELECT enough.kv_watch('', 0, {wait})"), &[]);
        ensure!(outcome.is_err_and(|error| state(&error).starts_with("22")), "{wait}");
    }
    Ok(())
}

/// Two that wait for one another's transactions: the server notices.
#[test]
fn a_circle_is_found() -> Result<()> {
    let database = Database::new()?;
    let (mut one, mut other, mut third) = (database.client()?, database.client()?, database.client()?);
    let before = set(&mut one, "k", &json!(0))?;
    one.batch_execute("BEGIN; SELECT enough.kv_set('one', '1')")?;
    set(&mut third, "newer", &json!(1))?;
    let pid = backend(&mut other)?;
    other.batch_execute("BEGIN; SELECT enough.kv_set('other', '1')")?;
    let watcher = thread::spawn(move || {
        let outcome = other.query("SELECT * FROM enough.kv_watch('', $1, '1 hour')", &[&before]);
        let outcome = outcome.map(drop);
        other.batch_execute("ROLLBACK")?;
        outcome
    });
    until_locked(&mut third, pid)?;
    let waits = one.execute("SELECT enough.kv_set('other', '1')", &[]);
    let deadline = Instant::now() + PATIENCE;
    while waits.is_ok() && !watcher.is_finished() {
        ensure!(Instant::now() < deadline, "it waits still");
        thread::sleep(Duration::from_millis(5));
    }
    one.batch_execute("ROLLBACK")?;
    let watched = watcher.join().map_err(|_| anyhow::anyhow!("a watcher panicked"))?;
    let states = [waits.err(), watched.err()].map(|error| error.map(|error| state(&error).to_owned()));
    ensure!(states.iter().flatten().eq(["40P01"]), "{states:?}");
    Ok(())
}

/// A standby has what is decided on the primary, and looks for itself.
#[test]
fn a_standby_tells_what_it_has() -> Result<()> {
    let server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let (mut client, mut older) = (database.client()?, database.client()?);
    let before = set(&mut client, "k", &json!(0))?;
    older.batch_execute("BEGIN; SELECT enough.kv_set('older', '1')")?;
    set(&mut client, "newer", &json!(1))?;
    let standby = server.standby(&server::options()?)?;
    let there = Database::named(&standby, &database.name);
    let mut reader = there.client()?;
    // Its snapshots know of the transaction that is open on the primary.
    ensure!(watch(&mut reader, "", before)?.is_empty());
    let (watcher, _) = start(&there, "", before, "")?;
    older.batch_execute("COMMIT")?;
    let told = told(watcher)?;
    ensure!(told == ["older=1", "newer=1"], "{told:?}");
    Ok(())
}

//! Random histories of several sessions, side by side with a model: what is committed, and what each open transaction has
//! changed, with its savepoints.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::state;
use enough_pg_test::server::Database;
use fastrand::Rng;
use postgres::Client;
use serde_json::Value;
use std::collections::BTreeMap;

type Entries = BTreeMap<String, (Value, i64)>;

/// A session, and what it must see.
struct Session {
    client: Client,
    /// None: no transaction is open. Else what it sees, and as it was at each savepoint.
    open: Option<Vec<Entries>>,
    /// Above READ COMMITTED it sees what was committed when it began.
    one_snapshot: bool,
}

/// Each session has keys of its own to write, so that none waits for another; all read all keys.
fn key(rng: &mut Rng, session: usize) -> String {
    format!("s{session}k{}", rng.u8(..3))
}

/// What a session must see: what is committed, with its own keys as it has changed them.
fn seen(session: &Session, number: usize, committed: &Entries) -> Entries {
    let Some(open) = session.open.as_ref().and_then(|open| open.last()) else { return committed.clone() };
    if session.one_snapshot {
        return open.clone();
    }
    let own = format!("s{number}");
    let others = committed.iter().filter(|(key, _)| !key.starts_with(&own));
    others.chain(open.iter().filter(|(key, _)| key.starts_with(&own))).map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn write(rng: &mut Rng, client: &mut Client, key: &str, entries: &mut Entries, last: &mut i64) -> Result<()> {
    let now = entries.get(key).cloned();
    let number = rng.i64(-1000..1000);
    let value = Value::from(number);
    let mut set = |entries: &mut Entries, value: Value, version: i64| -> Result<()> {
        ensure!(version > *last, "version {version} of {key} after {last}");
        *last = version;
        entries.insert(key.to_owned(), (value, version));
        Ok(())
    };
    let version_of = |client: &mut Client| -> Result<i64> {
        Ok(client.query_one("SELECT version FROM enough.kv_default WHERE key = $1", &[&key])?.get(0))
    };
    match rng.u8(..7) {
        0 | 1 => {
            let version: i64 = client.query_one("SELECT enough.kv_set($1, $2)", &[&key, &value])?.get(0);
            set(entries, value, version)
        }
        2 => {
            let expected = now.as_ref().map_or(0, |(_, version)| *version) + i64::from(rng.bool());
            let row = client.query_one("SELECT enough.kv_set($1, $2, if_version => $3)", &[&key, &value, &expected])?;
            let current = now.map_or(0, |(_, version)| version);
            if let Some(version) = row.get::<_, Option<i64>>(0) {
                ensure!(expected == current, "set by version {expected}, where {current} is current");
                set(entries, value, version)
            } else {
                ensure!(expected != current, "not set by the current version {current}");
                Ok(())
            }
        }
        3 => {
            let deleted: bool = client.query_one("SELECT enough.kv_delete($1)", &[&key])?.get(0);
            ensure!(deleted == now.is_some(), "delete of {key}");
            entries.remove(key);
            Ok(())
        }
        4 => {
            let sum: i64 = client
                .query_one("SELECT enough.kv_incr($1, $2)", &[&key, &number])
                .with_context(|| format!("{key} is {now:?}"))?
                .get(0);
            ensure!(sum == number + now.and_then(|(value, _)| value.as_i64()).unwrap_or(0), "incr of {key}");
            let version = version_of(client)?;
            set(entries, Value::from(sum), version)
        }
        5 => {
            let object = serde_json::json!({key: number});
            client.execute("SELECT enough.kv_mset($1)", &[&object])?;
            let version = version_of(client)?;
            set(entries, value, version)
        }
        _ => {
            let sql = "UPDATE enough.kv_default SET value = $2 WHERE key = $1 AND value IS NOT NULL";
            let changed = client.execute(sql, &[&key, &value])?;
            ensure!((changed == 1) == now.is_some(), "update of {key}");
            if changed == 1 {
                let version = version_of(client)?;
                set(entries, value, version)?;
            }
            Ok(())
        }
    }
}

fn compare(client: &mut Client, expected: &Entries) -> Result<()> {
    let keys: Vec<String> = client.query("SELECT enough.kv_keys()", &[])?.iter().map(|row| row.get(0)).collect();
    ensure!(keys.iter().eq(expected.keys()), "{keys:?}, not {:?}", expected.keys());
    let every: Vec<String> = (0..3).flat_map(|s| (0..3).map(move |k| format!("s{s}k{k}"))).collect();
    let rows = client.query("SELECT * FROM enough.kv_mget($1)", &[&every])?;
    let found: Entries = rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
    ensure!(found == *expected, "{found:?}, not {expected:?}");
    for key in every {
        let value: Option<Value> = client.query_one("SELECT enough.kv_get($1)", &[&key])?.get(0);
        ensure!(value.as_ref() == expected.get(&key).map(|(value, _)| value), "{key}: {value:?}");
    }
    Ok(())
}

/// Whether a transaction that must be serializable wasn't.
fn must_retry(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<postgres::Error>()).any(|error| state(error) == "40001")
}

fn step(
    rng: &mut Rng,
    number: usize,
    sessions: &mut [Session],
    committed: &mut Entries,
    last: &mut BTreeMap<String, i64>,
) -> Result<()> {
    let view = seen(&sessions[number], number, committed);
    let session = &mut sessions[number];
    match (rng.u8(..10), session.open.as_mut()) {
        (0, None) => {
            let level = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"][rng.usize(..3)];
            session.client.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}; SELECT 1"))?;
            session.one_snapshot = level != "READ COMMITTED";
            session.open = Some(vec![committed.clone()]);
        }
        (0, Some(open)) => {
            session.client.batch_execute("SAVEPOINT s")?;
            let top = open.last().cloned().unwrap_or_default();
            open.push(top);
        }
        (1, Some(open)) if open.len() > 1 => {
            session.client.batch_execute("ROLLBACK TO SAVEPOINT s; RELEASE SAVEPOINT s")?;
            open.pop();
        }
        (2, Some(open)) if open.len() > 1 => {
            session.client.batch_execute("RELEASE SAVEPOINT s")?;
            let top = open.pop().unwrap_or_default();
            if let Some(below) = open.last_mut() {
                *below = top;
            }
        }
        (3, Some(open)) => {
            session.client.batch_execute("COMMIT")?;
            let own = format!("s{number}");
            committed.retain(|key, _| !key.starts_with(&own));
            committed.extend(open.pop().unwrap_or_default().into_iter().filter(|(key, _)| key.starts_with(&own)));
            session.open = None;
        }
        (4, Some(_)) => {
            session.client.batch_execute("ROLLBACK")?;
            session.open = None;
        }
        (5..=7, _) => {
            let key = key(rng, number);
            let latest = last.entry(key.clone()).or_default();
            let entries = session.open.as_mut().and_then(|open| open.last_mut()).unwrap_or(committed);
            write(rng, &mut session.client, &key, entries, latest)?;
        }
        _ => compare(&mut session.client, &view)?,
    }
    Ok(())
}

#[test]
fn every_session_sees_what_the_model_says() -> Result<()> {
    let database = Database::new()?;
    for _ in 0..6 {
        let seed =
            std::env::var("ENOUGH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
        let mut rng = Rng::with_seed(seed);
        let mut sessions = (0..3)
            .map(|_| Ok(Session { client: database.client()?, open: None, one_snapshot: false }))
            .collect::<Result<Vec<_>>>()?;
        sessions[0].client.batch_execute("TRUNCATE enough.kv_default")?;
        let (mut committed, mut last) = (Entries::new(), BTreeMap::new());
        for number in 0..400 {
            let who = rng.usize(..sessions.len());
            match step(&mut rng, who, &mut sessions, &mut committed, &mut last) {
                Err(error) if must_retry(&error) && sessions[who].one_snapshot && sessions[who].open.is_some() => {
                    sessions[who].client.batch_execute("ROLLBACK")?;
                    sessions[who].open = None;
                }
                outcome => outcome.with_context(|| format!("step {number} of the history ENOUGH_SEED={seed}"))?,
            }
        }
    }
    Ok(())
}

//! Changes that depend on what is there, by many sessions at once.

use anyhow::{Result, ensure};
use enough_pg_test::server::Database;
use postgres::Client;
use serde_json::{Value, json};
use std::thread::{self, JoinHandle};

const SESSIONS: i32 = 4;
const ROUNDS: i32 = 200;

/// Each session does `work` with its number; what they answer.
fn at_once<R: Send + 'static>(
    database: &Database,
    work: impl Fn(&mut Client, i32) -> Result<R> + Clone + Send + 'static,
) -> Result<Vec<R>> {
    let sessions = (0..SESSIONS).map(|number| {
        let (client, work) = (database.client(), work.clone());
        thread::spawn(move || work(&mut client?, number))
    });
    let sessions: Vec<JoinHandle<Result<R>>> = sessions.collect();
    sessions.into_iter().map(|session| session.join().map_err(|_| anyhow::anyhow!("a session panicked"))?).collect()
}

#[test]
fn no_member_that_is_merged_is_lost() -> Result<()> {
    let database = Database::new()?;
    at_once(&database, |client, number| {
        for round in 0..ROUNDS {
            let patch = json!({ (format!("{number}:{round}")): round, "last": { (number.to_string()): round } });
            let merged: Option<Value> = client.query_one("SELECT enough.cache_merge('key', $1)", &[&patch])?.get(0);
            ensure!(merged.is_some_and(|merged| merged["last"][number.to_string()] == round));
        }
        Ok(())
    })?;
    let all: Value = database.client()?.query_one("SELECT enough.cache_get('key')", &[])?.get(0);
    let members = all.as_object().map_or(0, serde_json::Map::len);
    ensure!(members == usize::try_from(SESSIONS * ROUNDS)? + 1, "{members} members");
    Ok(())
}

#[test]
fn of_many_who_delete_the_same_value_one_does() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    for round in 0..50 {
        client.batch_execute(&format!("SELECT enough.cache_set('lock', '{round}')"))?;
        let deleted = at_once(&database, move |client, _| {
            let call = format!("SELECT enough.cache_delete_if('lock', '{round}')");
            Ok(client.query_one(&call, &[])?.get::<_, bool>(0))
        })?;
        let count = deleted.iter().filter(|&&deleted| deleted).count();
        ensure!(count == 1, "round {round}: {count} sessions have deleted it");
    }
    Ok(())
}

#[test]
fn bytes_are_exchanged_one_after_the_other() -> Result<()> {
    let database = Database::new()?;
    database.client()?.batch_execute("SELECT enough.cache_set_bytes('n', '0')")?;
    at_once(&database, |client, _| {
        for _ in 0..ROUNDS {
            loop {
                let old: Vec<u8> = client.query_one("SELECT enough.cache_get_bytes('n')", &[])?.get(0);
                let new = (String::from_utf8(old.clone())?.parse::<i32>()? + 1).to_string().into_bytes();
                let swap = "SELECT enough.cache_compare_and_set_bytes('n', $1, $2)";
                if client.query_one(swap, &[&old, &new])?.get(0) {
                    break;
                }
            }
        }
        Ok(())
    })?;
    let last: Vec<u8> = database.client()?.query_one("SELECT enough.cache_take_bytes('n')", &[])?.get(0);
    ensure!(last == (SESSIONS * ROUNDS).to_string().into_bytes(), "{last:?}");
    Ok(())
}

#[test]
fn what_was_computed_before_a_removal_is_not_merged_back() -> Result<()> {
    let database = Database::new()?;
    let (mut early, mut late) = (database.client()?, database.client()?);
    early.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")?;
    late.batch_execute(
        "SELECT enough.cache_set('key', '{\"v\": 1}'); SELECT enough.cache_delete_if('key', '{\"v\": 1}')",
    )?;
    let merged: Option<Value> = early.query_one("SELECT enough.cache_merge('key', '{\"v\": 0}')", &[])?.get(0);
    ensure!(merged.is_none(), "{merged:?} came back");
    ensure!(!early.query_one("SELECT enough.cache_exists('key')", &[])?.get::<_, bool>(0));
    early.batch_execute("COMMIT")?;
    let merged: Option<Value> = early.query_one("SELECT enough.cache_merge('key', '{\"v\": 2}')", &[])?.get(0);
    ensure!(merged == Some(json!({ "v": 2 })));
    Ok(())
}

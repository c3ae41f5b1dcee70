//! Two-phase commit: what a prepared transaction has changed in the cache is absent until it is decided, whoever decides and through
//! restarts; and no value of before it is there afterwards.
//!
//! On servers of their own: what one database refuses may be refused in others, and other tests take for granted that their values stay.

use anyhow::{Result, ensure};
use enough_pg_test::check::{eventually, refused};
use enough_pg_test::server::{self, Database};
use postgres::Client;
use xtask::server::{Server, Shutdown};

/// A table and a key that is made of its row.
const NEEDED: &str = "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1); \
                      CREATE TABLE tagged (id int PRIMARY KEY, v int); INSERT INTO tagged VALUES (1, 1); \
                      SELECT enough.cache_tag_table('tagged', 'tagged:{id}')";

/// What a transaction does to the key `k`, which has the tags `a` and `tagged:1`.
const WAYS: [&str; 11] = [
    "SELECT enough.cache_set('k', '\"mine\"')",
    "SELECT enough.cache_set('k', '\"mine\"', tags => ARRAY['b'])",
    "SELECT enough.cache_mset('{\"k\": \"mine\"}')",
    "SELECT enough.cache_delete('k')",
    "SELECT enough.cache_set('k', '\"mine\"'), enough.cache_delete('k')",
    "SELECT enough.cache_take('k')",
    "SELECT enough.cache_touch('k', '1 day')",
    "SELECT enough.cache_invalidate('a')",
    "SELECT enough.cache_clear()",
    "UPDATE tagged SET v = v + 1",
    "SAVEPOINT s; SELECT enough.cache_set('k', '1'); RELEASE s; SAVEPOINT s; SELECT enough.cache_set('other', '1'); ROLLBACK TO s",
];

/// A server with a database that has the tables, and two sessions there.
fn with_tables() -> Result<(Server, Database, Client, Client)> {
    let server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let (mut client, other) = (database.client()?, database.client()?);
    client.batch_execute(NEEDED)?;
    Ok((server, database, client, other))
}

fn get(client: &mut Client, key: &str) -> Result<Option<String>> {
    Ok(client.query_one("SELECT enough.cache_get($1)::text", &[&key])?.get(0))
}

/// Stores what the row says.
fn store(client: &mut Client, key: &str) -> Result<()> {
    client
        .execute("SELECT enough.cache_set($1, (SELECT to_jsonb(v) FROM t), tags => ARRAY['a', 'tagged:1'])", &[&key])?;
    Ok(())
}

/// What is stored stays, at the latest from the third time on: the first one may be refused, and the one that looks then is older than what it has found.
fn is_stored_again(client: &mut Client, expected: &str) -> Result<()> {
    let mut calls = 0;
    eventually("the value is stored", || {
        calls += 1;
        store(client, "k")?;
        Ok((get(client, "k")?.as_deref() == Some(expected)).then_some(()))
    })?;
    ensure!(calls <= 3, "it took {calls} calls");
    Ok(())
}

#[test]
fn a_key_is_absent_until_the_decision_and_never_what_it_was_before() -> Result<()> {
    let (_server, database, mut client, mut other) = with_tables()?;
    let mut row = 1;
    for (number, way) in WAYS.iter().enumerate() {
        for (commit, by_other) in [(true, false), (true, true), (false, false), (false, true)] {
            let what = format!("{way}, commit {commit}, by another session {by_other}");
            let gid = format!("{}_{number}_{commit}_{by_other}", database.name);
            is_stored_again(&mut other, &row.to_string())?;
            client.batch_execute(&format!("BEGIN; UPDATE t SET v = v + 1; {way}; PREPARE TRANSACTION '{gid}'"))?;
            for _ in 0..3 {
                ensure!(get(&mut other, "k")?.is_none(), "{what}: it is there");
                store(&mut other, "k")?;
                store(&mut client, "k")?;
                other.batch_execute("SELECT enough.cache_fetch('k', '1 hour', 'SELECT to_jsonb(v) FROM t', tags => ARRAY['a', 'tagged:1'])")?;
            }
            other.batch_execute("SELECT enough.maintain()")?;
            ensure!(get(&mut client, "k")?.is_none(), "{what}: a value of before was stored");
            store(&mut other, "another key")?;
            if !way.contains("invalidate") && !way.contains("clear") && !way.contains("tagged") {
                ensure!(get(&mut other, "another key")?.is_some(), "{what}: another key is refused");
            }
            let decider = if by_other { &mut other } else { &mut client };
            decider.batch_execute(&format!("{} PREPARED '{gid}'", if commit { "COMMIT" } else { "ROLLBACK" }))?;
            row += i32::from(commit);
            ensure!(get(&mut other, "k")?.is_none(), "{what}: it is there after the decision");
            is_stored_again(&mut other, &row.to_string())?;
        }
    }
    Ok(())
}

#[test]
fn who_looks_late_stores_nothing_that_was_read_before_the_decision() -> Result<()> {
    let (_server, database, mut client, mut other) = with_tables()?;
    let mut old = database.client()?;
    let gid = &database.name;
    client.batch_execute(&format!(
        "BEGIN; UPDATE t SET v = 2; SELECT enough.cache_delete('k'); PREPARE TRANSACTION '{gid}'"
    ))?;
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT v FROM t")?;
    other.batch_execute(&format!("COMMIT PREPARED '{gid}'"))?;
    is_stored_again(&mut other, "2")?;
    store(&mut old, "k")?;
    old.batch_execute("COMMIT")?;
    ensure!(get(&mut other, "k")?.as_deref() == Some("2"), "an older value has come back");
    Ok(())
}

#[test]
fn a_restart_forgets_nothing_of_what_is_undecided() -> Result<()> {
    let mut server = server::start(&server::options()?)?;
    for how in [Shutdown::Fast, Shutdown::Immediate] {
        for commit in [true, false] {
            let database = Database::on(&server)?;
            // Some may share the barrier of that one.
            let elsewhere = (0..8).map(|_| Database::on(&server)).collect::<Result<Vec<_>>>()?;
            let mut client = database.client()?;
            client.batch_execute(NEEDED)?;
            is_stored_again(&mut client, "1")?;
            let gid = &database.name;
            client.batch_execute(&format!(
                "BEGIN; UPDATE t SET v = 2; SELECT enough.cache_delete('k'); PREPARE TRANSACTION '{gid}'"
            ))?;
            drop(client);
            for _ in 0..2 {
                server.restart(how)?;
                let mut client = database.client()?;
                for _ in 0..3 {
                    store(&mut client, "k")?;
                    ensure!(get(&mut client, "k")?.is_none(), "commit {commit}: a value of before was stored");
                }
                let mut taken = 0;
                for other in &elsewhere {
                    let mut other = other.client()?;
                    other.batch_execute("SELECT enough.cache_set('k', '1')")?;
                    taken += i32::from(get(&mut other, "k")?.is_some());
                }
                ensure!(taken > 0, "other databases are refused");
            }
            let (mut client, mut other) = (database.client()?, database.client()?);
            other.batch_execute(&format!("{} PREPARED '{gid}'", if commit { "COMMIT" } else { "ROLLBACK" }))?;
            is_stored_again(&mut client, if commit { "2" } else { "1" })?;
        }
    }
    Ok(())
}

#[test]
fn more_than_there_is_room_for_is_refused_and_holds_nothing_up() -> Result<()> {
    let (_server, database, mut client, mut other) = with_tables()?;
    let tags = |from: i32| {
        format!("BEGIN; SELECT enough.cache_invalidate('tag ' || i) FROM generate_series({from}, {from} + 19) AS i")
    };
    client.batch_execute(&tags(0))?;
    client.batch_execute("PREPARE TRANSACTION 'first'")?;
    client.batch_execute(&tags(100))?;
    let hint = refused(client.simple_query("PREPARE TRANSACTION 'second'"), "0A000")?;
    ensure!(hint.contains("COMMIT PREPARED"), "{hint}");
    // A tag or a key may share the barrier of one of the first one's: a key that all had in common would keep all of them out.
    let mut taken = || -> Result<usize> {
        let mut taken = 0;
        for tag in 100..120 {
            for _ in 0..3 {
                other.batch_execute(&format!(
                    "SELECT enough.cache_set('k {tag}', '{tag}', tags => ARRAY['tag {tag}'])"
                ))?;
            }
            taken += usize::from(get(&mut other, &format!("k {tag}"))? == Some(tag.to_string()));
        }
        Ok(taken)
    };
    ensure!(taken()? > 10, "what was refused holds up its tags");
    // Nobody has looked for the decision by then.
    database.client()?.batch_execute("COMMIT PREPARED 'first'")?;
    client.batch_execute(&tags(100))?;
    client.batch_execute("PREPARE TRANSACTION 'second'")?;
    client.batch_execute("ROLLBACK PREPARED 'second'")?;
    ensure!(taken()? == 20, "something is held up that is decided");
    Ok(())
}

#[test]
fn nobody_waits_for_a_value_that_a_prepared_transaction_was_computing() -> Result<()> {
    let (_server, database, mut client, mut other) = with_tables()?;
    let fetch = "SELECT enough.cache_fetch('f', '1 hour', 'SELECT to_jsonb(v) FROM t')";
    let gid = &database.name;
    // Its turn would end with the transaction, since the query itself has written.
    client.batch_execute(
        "CREATE FUNCTION next_value() RETURNS jsonb LANGUAGE sql AS 'UPDATE t SET v = v + 1 RETURNING to_jsonb(v)'",
    )?;
    client.batch_execute(&format!(
        "BEGIN; SELECT enough.cache_fetch('f', '1 hour', 'SELECT next_value()'); PREPARE TRANSACTION '{gid}'"
    ))?;
    other.batch_execute("SET statement_timeout = '20 s'")?;
    let row: String = other.query_one(&format!("SELECT ({fetch})::text"), &[])?.get(0);
    ensure!(row == "1", "{row}");
    client.batch_execute(&format!("COMMIT PREPARED '{gid}'"))?;
    other.batch_execute("SELECT enough.cache_delete('f')")?;
    let row: String = other.query_one(&format!("SELECT ({fetch})::text"), &[])?.get(0);
    ensure!(row == "2", "{row}");
    Ok(())
}

#[test]
fn a_prepared_transaction_that_only_reads_the_cache_holds_nothing_up() -> Result<()> {
    let (_server, database, mut client, mut other) = with_tables()?;
    is_stored_again(&mut other, "1")?;
    let gid = &database.name;
    client.batch_execute(&format!(
        "BEGIN; UPDATE t SET v = 2; SELECT enough.cache_get('k'), enough.cache_incr('n'); PREPARE TRANSACTION '{gid}'"
    ))?;
    ensure!(get(&mut other, "k")?.is_some() && get(&mut other, "n")?.as_deref() == Some("1"));
    other.batch_execute(&format!("ROLLBACK PREPARED '{gid}'"))?;
    is_stored_again(&mut other, "1")
}

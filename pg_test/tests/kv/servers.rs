//! Copies and other servers: what replication brings, a standby and its promotion, crashes, transactions that are prepared.

use crate::common::{get, set};
use anyhow::{Result, ensure};
use enough_pg_test::check::{eventually, healthy};
use enough_pg_test::server::{self, Database};
use postgres::Client;
use serde_json::json;
use xtask::server::Shutdown;

/// Reads a key until a copy may be had of it.
fn read_often(client: &mut Client, key: &str, expected: i32) -> Result<()> {
    for _ in 0..6 {
        ensure!(get(client, key)? == Some(json!(expected)), "{key}: {:?}, not {expected}", get(client, key)?);
    }
    Ok(())
}

fn hits(client: &mut Client) -> Result<i64> {
    Ok(client.query_one("SELECT hits FROM enough.cache_stats()", &[])?.get(0))
}

#[test]
fn what_is_replicated_into_a_space_ends_copies() -> Result<()> {
    let publisher = server::start(&server::options()?.conf("wal_level", "logical"))?;
    let subscriber = server::start(&server::options()?)?;
    let (from, to) = (Database::on(&publisher)?, Database::on(&subscriber)?);
    let (mut writer, mut reader) = (from.client()?, to.client()?);
    for client in [&mut writer, &mut reader] {
        client.batch_execute("SELECT enough.kv_create('s')")?;
    }
    let row = |client: &mut Client| -> Result<(Option<i32>, Option<i32>)> {
        let query = "SELECT (SELECT value::int FROM enough.kv_s WHERE key = 'k'), enough.kv_get('k', 's')::int";
        // The copy's value is looked at after the row's.
        let row = client.query_one(query, &[])?;
        Ok((row.get(0), row.get(1)))
    };
    writer.batch_execute("SELECT enough.kv_set('k', '0', space => 's'); CREATE PUBLICATION p FOR TABLE enough.kv_s")?;
    reader.batch_execute(&format!(
        "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port={} user=postgres dbname={}' PUBLICATION p",
        publisher.port(),
        from.name
    ))?;
    eventually("the table is copied", || Ok((row(&mut reader)?.0 == Some(0)).then_some(())))?;
    let before = hits(&mut reader)?;
    for number in 1..40 {
        let statement = match number % 4 {
            0 => format!(
                "DELETE FROM enough.kv_s; INSERT INTO enough.kv_s (key, value) VALUES ('k', '{number}') \
                 ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value, expires_at = NULL"
            ),
            1 => format!("BEGIN; TRUNCATE enough.kv_s; SELECT enough.kv_set('k', '{number}', space => 's'); COMMIT"),
            2 => format!("UPDATE enough.kv_s SET value = '{number}'"),
            _ => format!("SELECT enough.kv_set('k', '{number}', space => 's')"),
        };
        writer.batch_execute(&statement)?;
        eventually("the change has come", || {
            let (seen, said) = row(&mut reader)?;
            ensure!(said.is_none() || said >= seen, "{said:?} was read where the row had {seen:?}");
            Ok((seen == Some(number)).then_some(()))
        })?;
        for _ in 0..4 {
            ensure!(row(&mut reader)? == (Some(number), Some(number)));
        }
    }
    ensure!(hits(&mut reader)? > before, "nothing was read from memory, so this shows nothing");
    reader.batch_execute(
        "ALTER SUBSCRIPTION s DISABLE; ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s",
    )?;
    healthy(&subscriber.log(), false)
}

#[test]
fn a_standby_reads_its_table_and_takes_over_without_copies_of_before() -> Result<()> {
    let server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    set(&mut client, "k", &json!(1))?;
    read_often(&mut client, "k", 1)?;
    let standby = server.standby(&server::options()?)?;
    let on_standby = Database::named(&standby, &database.name);
    let (mut other, mut open) = (on_standby.client()?, on_standby.client()?);
    open.batch_execute("BEGIN; SELECT enough.kv_get('k')")?;
    for number in 1..10 {
        set(&mut client, "k", &json!(number))?;
        eventually("the standby has caught up", || {
            let row = other.query_one("SELECT value FROM enough.kv_default WHERE key = 'k'", &[])?;
            Ok((row.get::<_, serde_json::Value>(0) == json!(number)).then_some(()))
        })?;
        read_often(&mut other, "k", number)?;
        read_often(&mut open, "k", number)?;
    }
    ensure!(hits(&mut other)? == 0, "a standby has copies, of whose changes nobody tells it");
    other.batch_execute("SELECT pg_promote()")?;
    eventually("the standby is a primary", || {
        Ok(other.query_one("SELECT NOT pg_is_in_recovery()", &[])?.get::<_, bool>(0).then_some(()))
    })?;
    read_often(&mut open, "k", 9)?;
    open.batch_execute("COMMIT")?;
    eventually("it has copies of its own", || {
        read_often(&mut other, "k", 9)?;
        Ok((hits(&mut other)? > 0).then_some(()))
    })?;
    set(&mut other, "k", &json!(10))?;
    read_often(&mut open, "k", 10)?;
    healthy(&standby.log(), false)
}

#[test]
fn a_crash_leaves_no_copies_of_what_it_has_emptied() -> Result<()> {
    let mut server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.kv_create('fast', unlogged => true), enough.kv_set('k', '1', space => 'fast'), enough.kv_set('k', '1')")?;
    for _ in 0..6 {
        client.batch_execute("SELECT enough.kv_get('k', 'fast'), enough.kv_get('k')")?;
    }
    drop(client);
    server.restart(Shutdown::Immediate)?;
    let mut client = database.client()?;
    for _ in 0..6 {
        let row = client.query_one("SELECT enough.kv_get('k', 'fast'), enough.kv_get('k')", &[])?;
        ensure!(row.get::<_, Option<serde_json::Value>>(0).is_none());
        ensure!(row.get::<_, Option<serde_json::Value>>(1) == Some(json!(1)));
    }
    Ok(())
}

/// Of prepared transactions the memory has room for some. Rows are durable: they are prepared whatever room there is.
#[test]
fn transactions_with_many_entries_may_be_prepared() -> Result<()> {
    const KEYS: i32 = 2000;
    let mut server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let (mut client, mut other) = (database.client()?, database.client()?);
    let set_all = |value: i32| {
        format!("SELECT count(enough.kv_set('k' || i, to_jsonb({value}))) FROM generate_series(1, {KEYS}) AS i")
    };
    let all_are = |client: &mut Client, value: i32| -> Result<()> {
        let get = format!(
            "SELECT count(*) FILTER (WHERE enough.kv_get('k' || i) = to_jsonb({value})) FROM generate_series(1, {KEYS}) AS i"
        );
        for _ in 0..4 {
            let equal: i64 = client.query_one(&get, &[])?.get(0);
            ensure!(equal == i64::from(KEYS), "{equal} keys are {value}");
        }
        Ok(())
    };
    client.batch_execute(&set_all(0))?;
    all_are(&mut other, 0)?;
    for (number, commits) in [(1, true), (2, false), (3, true)] {
        let gid = format!("{}_{number}", database.name);
        client.batch_execute(&format!("BEGIN; {}; PREPARE TRANSACTION '{gid}'", set_all(number)))?;
        let before = [0, 1, 1][number as usize - 1];
        all_are(&mut other, before)?;
        all_are(&mut client, before)?;
        if number == 3 {
            drop((client, other));
            server.restart(Shutdown::Fast)?;
            (client, other) = (database.client()?, database.client()?);
            all_are(&mut other, before)?;
        }
        let decider = if number == 2 { &mut client } else { &mut other };
        decider.batch_execute(&format!("{} PREPARED '{gid}'", if commits { "COMMIT" } else { "ROLLBACK" }))?;
        let after = if commits { number } else { before };
        all_are(&mut client, after)?;
        all_are(&mut other, after)?;
        // And when it is known that nothing is undecided any more.
        let before = hits(&mut other)?;
        eventually("copies are made again", || {
            all_are(&mut other, after)?;
            Ok((hits(&mut other)? > before + i64::from(KEYS)).then_some(()))
        })?;
    }
    healthy(&server.log(), false)
}

/// A transaction's notes of what it has changed have no more room than the cache.
#[test]
fn a_change_of_more_rows_than_can_be_noted_ends_all_copies() -> Result<()> {
    let server = server::start(&server::options()?.conf("enough.cache_memory", "1MB"))?;
    let database = Database::on(&server)?;
    let (mut client, mut other) = (database.client()?, database.client()?);
    client.batch_execute(
        "INSERT INTO enough.kv_default (key, value) SELECT 'k' || i, '0' FROM generate_series(1, 30000) AS i",
    )?;
    let sum = "SELECT sum(enough.kv_get('k' || i)::int) FROM generate_series(1, 30000, 100) AS i";
    for number in 1..4 {
        client.batch_execute(&format!("UPDATE enough.kv_default SET value = '{number}'"))?;
        for _ in 0..4 {
            let sum: i64 = other.query_one(sum, &[])?.get(0);
            ensure!(sum == number * 300, "{sum}");
        }
    }
    healthy(&server.log(), false)
}

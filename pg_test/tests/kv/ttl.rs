//! Entries that expire, and what `maintain()` does with rows that are over.

use crate::common::{column, get, set, version};
use anyhow::{Result, ensure};
use enough_pg_test::check::eventually;
use enough_pg_test::server::Database;
use postgres::Client;
use serde_json::json;

/// What `maintain()` did with rows that were over.
fn maintain(client: &mut Client) -> Result<i64> {
    Ok(client.query_one("SELECT items FROM enough.maintain() WHERE task = 'kv_expired'", &[])?.get(0))
}

fn rows(client: &mut Client) -> Result<i64> {
    Ok(client.query_one("SELECT count(*) FROM enough.kv_default", &[])?.get(0))
}

#[test]
fn an_expired_entry_is_none_to_any_call() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.execute("SELECT enough.kv_set('k', '7', '1 hour'), enough.kv_mset('{\"l\": 1}', '1 hour')", &[])?;
    let left: bool = client
        .query_one("SELECT expires_at BETWEEN clock_timestamp() + interval '59 minutes' AND clock_timestamp() + interval '1 hour' FROM enough.kv_entry('k')", &[])?
        .get(0);
    ensure!(left && get(&mut client, "l")?.is_some());
    let first = version(&mut client, "k")?;
    // As if it had been set two hours ago.
    client.execute("UPDATE enough.kv_default SET expires_at = clock_timestamp() - interval '1 hour'", &[])?;
    ensure!(get(&mut client, "k")?.is_none() && version(&mut client, "k")?.is_none());
    for sql in [
        "SELECT enough.kv_keys()",
        "SELECT key FROM enough.kv_mget(ARRAY['k', 'l'])",
        "SELECT key FROM enough.kv_find('7')",
        "SELECT 'deleted' WHERE enough.kv_delete('k')",
        "SELECT 'has' WHERE enough.kv_has('k')",
        "SELECT 'set' WHERE enough.kv_set('k', '1', if_version => (SELECT version FROM enough.kv_default WHERE key = 'k')) IS NOT NULL",
    ] {
        ensure!(column(&mut client, sql, &[])?.is_empty(), "{sql}");
    }
    ensure!(client.query_one("SELECT enough.kv_incr('k')", &[])?.get::<_, i64>(0) == 1, "it has counted on");
    ensure!(client.query_one("SELECT expires_at IS NULL FROM enough.kv_entry('k')", &[])?.get::<_, bool>(0));
    ensure!(client.query_one("SELECT enough.kv_merge('l', '{}')::text", &[])?.get::<_, String>(0) == "{}");
    ensure!(version(&mut client, "k")? > first);
    Ok(())
}

#[test]
fn counting_and_merging_keep_what_is_left_of_the_ttl() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.execute("SELECT enough.kv_set('n', '1', '1 hour'), enough.kv_set('m', '{}', '1 hour')", &[])?;
    let expiries = "SELECT expires_at::text FROM enough.kv_default ORDER BY key";
    let before = column(&mut client, expiries, &[])?;
    client.execute("SELECT enough.kv_incr('n'), enough.kv_merge('m', '{\"a\": 1}')", &[])?;
    ensure!(column(&mut client, expiries, &[])? == before);
    set(&mut client, "n", &json!(1))?;
    ensure!(client.query_one("SELECT expires_at IS NULL FROM enough.kv_entry('n')", &[])?.get::<_, bool>(0));
    Ok(())
}

#[test]
fn rows_that_are_over_go_with_maintenance() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    set(&mut client, "stays", &json!(1))?;
    client.execute("SELECT enough.kv_set('k' || n, '1', '1 hour') FROM generate_series(1, 2500) AS n", &[])?;
    ensure!(maintain(&mut client)? == 0 && rows(&mut client)? == 2501);
    client.execute("UPDATE enough.kv_default SET expires_at = clock_timestamp() WHERE key <> 'stays'", &[])?;
    ensure!(maintain(&mut client)? == 2500);
    // Their values are gone; that they were there is remembered for a day.
    let held: i64 = client.query_one("SELECT count(value) FROM enough.kv_default", &[])?.get(0);
    ensure!(held == 1 && rows(&mut client)? == 2501 && maintain(&mut client)? == 0);
    client.execute("UPDATE enough.kv_default SET expires_at = clock_timestamp() WHERE value IS NULL", &[])?;
    eventually("the rows have gone", || {
        maintain(&mut client)?;
        Ok((rows(&mut client)? == 1).then_some(()))
    })?;
    ensure!(get(&mut client, "stays")?.is_some());
    Ok(())
}

/// Who has begun to write before a row was made might have a smaller version: its row stays.
#[test]
fn a_row_stays_while_an_older_writer_is_at_work() -> Result<()> {
    let database = Database::new()?;
    let (mut client, mut writer) = (database.client()?, database.client()?);
    writer.batch_execute("BEGIN; SELECT enough.kv_set('other', '1')")?;
    client.execute("SELECT enough.kv_set('k', '1')", &[])?;
    client.execute("SELECT enough.kv_delete('k')", &[])?;
    client.execute("UPDATE enough.kv_default SET expires_at = clock_timestamp() WHERE key = 'k'", &[])?;
    ensure!(maintain(&mut client)? == 0 && rows(&mut client)? == 1, "it has gone");
    writer.batch_execute("COMMIT")?;
    // Other databases' transactions hold it back as well.
    eventually("the row has gone", || {
        maintain(&mut client)?;
        Ok((rows(&mut client)? == 1 && get(&mut client, "other")?.is_some()).then_some(()))
    })?;
    Ok(())
}

//! Spaces of the key-value store behind replication, crashes and promotions: a version never comes again.

use anyhow::{Result, ensure};
use enough_pg_test::check::{eventually, refused};
use enough_pg_test::server::{self, Database};
use postgres::Client;

fn set(client: &mut Client, key: &str, space: &str) -> Result<i64> {
    Ok(client.query_one("SELECT enough.kv_set($1, '1', space => $2)", &[&key, &space])?.get(0))
}

/// Where rows come by logical replication, the sequence knows nothing of their versions; `maintain()` sees to that.
#[test]
fn versions_of_a_subscriber_go_on_behind_those_that_came() -> Result<()> {
    let publisher = server::start(&server::options()?.conf("wal_level", "logical"))?;
    let subscriber = server::start(&server::options()?)?;
    let (from, to) = (Database::on(&publisher)?, Database::on(&subscriber)?);
    let (mut writer, mut other) = (from.client()?, to.client()?);
    for client in [&mut writer, &mut other] {
        client.batch_execute("SELECT enough.kv_create('s', history => 3)")?;
    }
    writer.batch_execute("CREATE PUBLICATION p FOR TABLE enough.kv_s")?;
    for number in 0..20 {
        set(&mut writer, &format!("k{}", number % 4), "s")?;
    }
    other.batch_execute(&format!(
        "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port={} user=postgres dbname={}' PUBLICATION p",
        publisher.port(),
        from.name
    ))?;
    let arrived = |other: &mut Client, version: i64| {
        eventually("the changes have come", || {
            let there: Option<i64> = other.query_one("SELECT max(version) FROM enough.kv_s", &[])?.get(0);
            Ok((there == Some(version)).then_some(()))
        })
    };
    let mut last = set(&mut writer, "k0", "s")?;
    arrived(&mut other, last)?;
    // What is deleted there is remembered here, under the version that it has there.
    writer.batch_execute("DELETE FROM enough.kv_s WHERE key = 'k1'; SELECT enough.kv_delete('k2', space => 's')")?;
    last = last.max(writer.query_one("SELECT max(version) FROM enough.kv_s", &[])?.get(0));
    arrived(&mut other, last)?;
    let rows = "SELECT string_agg(concat_ws(' ', key, value, version, past), ',' ORDER BY key) FROM enough.kv_s";
    let [there, here] =
        [&mut writer, &mut other].map(|client| client.query_one(rows, &[]).map(|row| row.get::<_, String>(0)));
    ensure!(there? == here?);
    other.batch_execute(
        "ALTER SUBSCRIPTION s DISABLE; ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s",
    )?;
    eventually("the sequence is set", || {
        other.batch_execute("SELECT enough.maintain()")?;
        let behind: bool = other.query_one("SELECT last_value < $1 FROM enough.k_s_versions", &[&last])?.get(0);
        Ok((!behind).then_some(()))
    })?;
    for key in ["k0", "k1", "new"] {
        let next = set(&mut other, key, "s")?;
        ensure!(next > last, "{next} after {last}");
        last = next;
    }
    // It isn't set back where it is ahead.
    other
        .batch_execute("SELECT nextval('enough.k_s_versions') FROM generate_series(1, 50); SELECT enough.maintain()")?;
    ensure!(set(&mut other, "k0", "s")? > last + 50);
    Ok(())
}

/// A crash forgets no version, also where it empties the space.
#[test]
fn versions_go_on_behind_a_crash() -> Result<()> {
    let mut server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute(
        "SELECT enough.kv_create('kept', history => 2); SELECT enough.kv_create('emptied', unlogged => true)",
    )?;
    let mut last = [("kept", 0), ("emptied", 0)];
    for (space, last) in &mut last {
        for _ in 0..40 {
            *last = set(&mut client, "k", space)?;
        }
    }
    client.batch_execute("DELETE FROM enough.kv_kept; CHECKPOINT; SELECT enough.kv_set('l', '1', space => 'kept')")?;
    server.crash()?;
    server.launch()?;
    let mut client = database.client()?;
    let told: i64 =
        client.query_one("SELECT count(*) FROM enough.kv_watch('', $1, space => 'kept')", &[&last[0].1])?.get(0);
    ensure!(told == 2, "{told} changes are told after the crash");
    // Who begins anew can go on, and who has seen what was there before is told, also when it is behind others again.
    let watch = "SELECT version FROM enough.kv_watch('', $1, space => 'emptied')";
    client.batch_execute("BEGIN READ ONLY")?;
    refused(client.query(watch, &[&last[1].1]), "55000")?;
    client.batch_execute("ROLLBACK")?;
    set(&mut client, "first", "emptied")?;
    refused(client.query(watch, &[&last[1].1]), "55000")?;
    let anew = client.query(watch, &[&0_i64])?.iter().map(|row| row.get(0)).max().unwrap_or(0_i64);
    set(&mut client, "next", "emptied")?;
    ensure!(client.query(watch, &[&anew])?.len() == 1);
    refused(client.query(watch, &[&last[1].1]), "55000")?;
    for (space, last) in last {
        let next = set(&mut client, "k", space)?;
        ensure!(next > last, "{next} after {last} of {space}");
    }
    Ok(())
}

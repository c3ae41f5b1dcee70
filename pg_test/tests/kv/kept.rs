//! Versions of before, in a space that keeps them.

use crate::common::{Change, column};
use anyhow::{Result, ensure};
use enough_pg_test::check::refused;
use enough_pg_test::server::Database;
use postgres::Client;

/// What `kv_history` says of a key, the newest first.
fn history(client: &mut Client, key: &str) -> Result<Vec<String>> {
    let sql = "SELECT CASE WHEN deleted THEN '-' ELSE value::text END FROM enough.kv_history($1, 's')";
    column(client, sql, &[&key]).map_err(Into::into)
}

#[test]
fn the_last_versions_of_each_key_are_kept() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.kv_create('s', history => 3)")?;
    let listed = column(&mut client, "SELECT concat_ws(' ', space, history) FROM enough.kv_spaces()", &[])?;
    ensure!(listed == ["default 0", "s 3"], "{listed:?}");
    ensure!(history(&mut client, "k")?.is_empty());
    for (sql, expected) in [
        ("SELECT enough.kv_set('k', '1', space => 's')", &["1"][..]),
        ("SELECT enough.kv_incr('k', 1, 's')", &["2", "1"]),
        ("UPDATE enough.kv_s SET value = '3'", &["3", "2", "1"]),
        ("SELECT enough.kv_delete('k', space => 's')", &["-", "3", "2", "1"]),
        ("SELECT enough.kv_mset('{\"k\": 5}', space => 's')", &["5", "-", "3", "2"]),
        ("DELETE FROM enough.kv_s WHERE key = 'k'", &["-", "5", "-", "3"]),
        ("SELECT enough.kv_merge('k', '{}', 's')", &["{}", "-", "5", "-"]),
        ("SELECT enough.kv_set('k', '7', space => 's', if_version => 1)", &["{}", "-", "5", "-"]),
        ("BEGIN; SELECT enough.kv_set('k', '8', space => 's'); ROLLBACK", &["{}", "-", "5", "-"]),
        (
            "INSERT INTO enough.kv_s (key, value) VALUES ('k', '9') ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value",
            &["9", "{}", "-", "5"],
        ),
    ] {
        client.batch_execute(sql)?;
        let found = history(&mut client, "k")?;
        ensure!(found == expected, "{sql}: {found:?}");
    }
    // With the versions and times that they had, and those of other keys apart.
    client.batch_execute("SELECT enough.kv_set('l', '1', space => 's')")?;
    let (version, at): (i64, String) = {
        let row = client.query_one("SELECT version, updated_at::text FROM enough.kv_entry('l', 's')", &[])?;
        (row.get(0), row.get(1))
    };
    client.batch_execute("SELECT enough.kv_set('l', '2', space => 's')")?;
    let row = client.query_one("SELECT version, updated_at::text FROM enough.kv_history('l', 's') OFFSET 1", &[])?;
    ensure!(row.get::<_, i64>(0) == version && row.get::<_, String>(1) == at);
    let grows = "SELECT version::text FROM (SELECT version, lag(version) OVER () AS before FROM enough.kv_history('k', 's')) AS h WHERE version >= before";
    ensure!(column(&mut client, grows, &[])?.is_empty());
    for history in ["-1", "101"] {
        refused(client.query(&format!("SELECT enough.kv_create('t', history => {history})"), &[]), "22023")?;
    }
    Ok(())
}

/// A space without a history has the current version.
#[test]
fn without_a_history_there_is_the_current_version() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.kv_create('s'), enough.kv_create('ends', history => 100)")?;
    client
        .batch_execute("SELECT enough.kv_set('k', '1', space => 's'); SELECT enough.kv_set('k', '2', space => 's')")?;
    ensure!(history(&mut client, "k")? == ["2"]);
    client.batch_execute("SELECT enough.kv_delete('k', space => 's')")?;
    ensure!(history(&mut client, "k")? == ["-"]);
    client.batch_execute(
        "SELECT enough.kv_set('k', '1', '1 hour', space => 's'); UPDATE enough.kv_s SET expires_at = clock_timestamp()",
    )?;
    ensure!(history(&mut client, "k")? == ["-"], "an expired entry is shown");
    for number in 1..=150 {
        client.execute("SELECT enough.kv_set('k', to_jsonb($1::int), space => 'ends')", &[&number])?;
    }
    let kept: i64 = client.query_one("SELECT count(*) FROM enough.kv_history('k', 'ends')", &[])?.get(0);
    ensure!(kept == 101, "{kept}");
    Ok(())
}

/// A watcher of a space with a history is told of each change.
#[test]
fn each_change_is_told_where_versions_are_kept() -> Result<()> {
    let database = Database::new()?;
    let (mut client, mut older) = (database.client()?, database.client()?);
    client.batch_execute("SELECT enough.kv_create('s', history => 10)")?;
    let watch = |client: &mut Client, since: i64| -> Result<(Vec<String>, i64)> {
        let rows = client.query("SELECT * FROM enough.kv_watch('', $1, space => 's')", &[&since])?;
        let changes: Vec<Change> = rows.iter().map(Change::of).collect();
        ensure!(changes.is_sorted_by_key(|change| change.version));
        Ok((changes.iter().map(Change::told).collect(), crate::common::last(&changes).max(since)))
    };
    client
        .batch_execute("SELECT enough.kv_set('k', '1', space => 's'); SELECT enough.kv_set('k', '2', space => 's')")?;
    let (told, since) = watch(&mut client, 0)?;
    ensure!(told == ["k=1", "k=2"], "{told:?}");
    for sql in [
        "SELECT enough.kv_set('k', '3', space => 's')",
        "SELECT enough.kv_set('l', '4', space => 's')",
        "DELETE FROM enough.kv_s WHERE key = 'k'",
    ] {
        client.batch_execute(sql)?;
    }
    // A version of before is told although what came after it can't be yet.
    older.batch_execute("BEGIN; SELECT enough.kv_set('m', '1', space => 's')")?;
    client.batch_execute("SELECT enough.kv_set('k', '5', space => 's')")?;
    let (told, since) = watch(&mut client, since)?;
    ensure!(told == ["k=3", "l=4"], "{told:?}");
    ensure!(watch(&mut client, since)?.0.is_empty());
    older.batch_execute("COMMIT")?;
    let (mut told, mut since) = watch(&mut client, since)?;
    // Other databases' transactions may cut an answer short.
    while told.len() < 3 {
        let (more, last) = watch(&mut client, since)?;
        ensure!(!more.is_empty(), "{told:?}");
        told.extend(more);
        since = last;
    }
    ensure!(told == ["k deleted", "m=1", "k=5"], "{told:?}");
    Ok(())
}

/// Who sees a row sees its versions, who doesn't sees none, and who may write the space needs no further right for them.
#[test]
fn privileges_and_policies_are_the_rows() -> Result<()> {
    let database = Database::new()?;
    let mut owner = database.client()?;
    let role = database.role("tenant");
    owner.batch_execute(&format!(
        "SELECT enough.kv_create('s', history => 5); CREATE ROLE {role} LOGIN; \
         SELECT enough.kv_mset('{{\"own:a\": 1, \"other:a\": 1}}', space => 's'); SELECT enough.kv_mset('{{\"own:a\": 2, \"other:a\": 2}}', space => 's')"
    ))?;
    let mut tenant = database.client_as(&role)?;
    refused(tenant.query("SELECT enough.kv_history('own:a', 's')", &[]), "42501")?;
    refused(tenant.query("SELECT enough.kv_watch('', 0, space => 's')", &[]), "42501")?;
    owner.batch_execute(&format!(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON enough.kv_s TO {role}; ALTER TABLE enough.kv_s ENABLE ROW LEVEL SECURITY; \
         CREATE POLICY own ON enough.kv_s TO {role} USING (starts_with(key, 'own:'))"
    ))?;
    ensure!(history(&mut tenant, "own:a")? == ["2", "1"] && history(&mut tenant, "other:a")?.is_empty());
    tenant.batch_execute("SELECT enough.kv_set('own:a', '3', space => 's'); DELETE FROM enough.kv_s")?;
    ensure!(history(&mut tenant, "own:a")? == ["-", "3", "2", "1"]);
    let keys =
        "SELECT key || version - min(version) OVER () FROM enough.kv_watch('', 0, space => 's') WHERE key IS NOT NULL";
    ensure!(column(&mut tenant, keys, &[])?.iter().all(|key| key.starts_with("own:")));
    ensure!(history(&mut owner, "other:a")? == ["2", "1"]);
    Ok(())
}

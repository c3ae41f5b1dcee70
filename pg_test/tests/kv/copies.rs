//! Entries that are read from memory: after whatever a table can come by, the answer is the table's.

use crate::common::{get, set};
use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{eventually, refused};
use enough_pg_test::server::{self, Database};
use postgres::{Client, GenericClient};
use serde_json::{Value, json};

/// How often this session has begun to look into a space's table.
fn scans(client: &mut impl GenericClient) -> Result<i64> {
    let scans = "SELECT coalesce(sum(seq_scan + idx_scan), 0)::bigint FROM pg_stat_xact_user_tables WHERE relname LIKE 'kv\\_%'";
    Ok(client.query_one(scans, &[])?.get(0))
}

/// What a call answers, and whether that was found without a look at the table.
fn look(client: &mut impl GenericClient, call: &str) -> Result<(Option<Value>, bool)> {
    let mut transaction = client.transaction()?;
    let before = scans(&mut transaction)?;
    let value = transaction.query_one(&format!("SELECT enough.{call}"), &[])?.get(0);
    let copied = scans(&mut transaction)? == before;
    transaction.commit()?;
    Ok((value, copied))
}

/// Gets what a call answers until that comes from memory: another session's change may have kept it from being stored.
fn until_copied(client: &mut Client, call: &str) -> Result<Option<Value>> {
    eventually("it comes from memory", || {
        let (value, copied) = look(client, call)?;
        // What is in frequent use is read another way.
        for _ in 0..4 {
            ensure!(look(client, call)?.0 == value);
        }
        Ok(copied.then_some(value))
    })
    .with_context(|| call.to_owned())
}

/// A database in which the key `k` has a copy.
fn with_a_copy() -> Result<(Database, Client, Client)> {
    let database = Database::new()?;
    let (mut one, mut other) = (database.client()?, database.client()?);
    set(&mut one, "k", &json!("old"))?;
    for client in [&mut one, &mut other] {
        ensure!(until_copied(client, "kv_get('k')")? == Some(json!("old")));
    }
    Ok((database, one, other))
}

#[test]
fn what_is_read_again_comes_from_memory() -> Result<()> {
    let (_database, mut one, mut other) = with_a_copy()?;
    let large = json!("x".repeat(20_000));
    set(&mut one, "large", &large)?;
    ensure!(until_copied(&mut other, "kv_get('large')")? == Some(large));
    set(&mut one, "null", &Value::Null)?;
    ensure!(until_copied(&mut other, "kv_get('null')")? == Some(Value::Null));
    ensure!(until_copied(&mut other, "kv_has('k')::text::jsonb")? == Some(json!(true)));
    let entry = "SELECT value, version, updated_at::text, expires_at::text FROM enough.kv_entry($1)";
    let table = "SELECT value, version, updated_at::text, expires_at::text FROM enough.kv_default WHERE key = $1";
    one.batch_execute("SELECT enough.kv_set('ends', '1', '1 day'); UPDATE enough.kv_default SET expires_at = 'infinity' WHERE key = 'large'")?;
    for key in ["k", "ends", "large", "null"] {
        until_copied(&mut other, &format!("kv_get('{key}')"))?;
        let found = [entry, table].map(|query| {
            let row = other.query_one(query, &[&key])?;
            let (value, version): (Option<Value>, i64) = (row.get(0), row.get(1));
            Ok::<_, postgres::Error>((value, version, row.get::<_, String>(2), row.get::<_, Option<String>>(3)))
        });
        let [copy, row] = found;
        let (copy, row) = (copy?, row?);
        ensure!(copy == row, "{key}: {copy:?}, where the row is {row:?}");
    }
    Ok(())
}

/// Each way a row can change, beside a session that has a copy of it.
#[test]
fn a_change_of_any_kind_ends_the_copy() -> Result<()> {
    let (_database, mut one, mut other) = with_a_copy()?;
    let value = "(SELECT value FROM enough.kv_default WHERE key = 'k')";
    for way in [
        "SELECT enough.kv_set('k', '1')",
        "SELECT enough.kv_mset('{\"k\": 2}')",
        "SELECT enough.kv_incr('k')",
        "SELECT enough.kv_merge('k', '{\"a\": 1}')",
        "SELECT enough.kv_delete('k')",
        "SELECT enough.kv_set('k', '4')",
        "UPDATE enough.kv_default SET value = '5'",
        "DELETE FROM enough.kv_default",
        "INSERT INTO enough.kv_default (key, value) VALUES ('k', '6') ON CONFLICT (key) DO UPDATE SET value = '6', expires_at = NULL",
        "SET session_replication_role = replica; UPDATE enough.kv_default SET value = '7'; RESET session_replication_role",
        "UPDATE enough.kv_default SET key = 'l'",
        "UPDATE enough.kv_default SET key = 'k', value = '8'",
        "TRUNCATE enough.kv_default",
        "INSERT INTO enough.kv_default (key, value) VALUES ('k', '9')",
        "BEGIN; TRUNCATE enough.kv_default; INSERT INTO enough.kv_default (key, value) VALUES ('k', '10'); COMMIT",
        "ALTER TABLE enough.kv_default ALTER value TYPE jsonb USING '11'",
        "ALTER TABLE enough.kv_default DISABLE TRIGGER kv_copies; UPDATE enough.kv_default SET value = '12'",
        "ALTER TABLE enough.kv_default ENABLE ALWAYS TRIGGER kv_copies",
        "BEGIN; ALTER TABLE enough.kv_default DISABLE TRIGGER USER; UPDATE enough.kv_default SET value = '13', version = version + 1; \
           ALTER TABLE enough.kv_default ENABLE TRIGGER USER, ENABLE ALWAYS TRIGGER kv_copies; COMMIT",
        "BEGIN; ALTER TABLE enough.kv_default RENAME value TO was; ALTER TABLE enough.kv_default ADD value jsonb DEFAULT '14'; COMMIT",
        "BEGIN; ALTER TABLE enough.kv_default DROP value; ALTER TABLE enough.kv_default RENAME was TO value; COMMIT",
        "CREATE TABLE child (PRIMARY KEY (key)) INHERITS (enough.kv_default); TRUNCATE ONLY enough.kv_default; \
           INSERT INTO child (key, value, version) VALUES ('k', '15', 1)",
        "UPDATE child SET value = '16'",
        "DROP TABLE child",
        "ANALYZE enough.kv_default",
        "MERGE INTO enough.kv_default AS e USING (SELECT 'k' AS key) AS n ON n.key = e.key WHEN NOT MATCHED THEN INSERT (key, value) VALUES (n.key, '17')",
        "MERGE INTO enough.kv_default AS e USING (SELECT 'k' AS key) AS n ON n.key = e.key WHEN MATCHED THEN UPDATE SET value = '18'",
    ] {
        if get(&mut one, "k")?.is_some() && !way.contains("child") {
            // It may not be to be had: where the trigger is switched off, for one.
            for _ in 0..5 {
                get(&mut other, "k")?;
            }
        }
        one.batch_execute(way).with_context(|| way.to_owned())?;
        let row = other.query_one(&format!("SELECT {value}, enough.kv_get('k')"), &[])?;
        let (expected, found): (Option<Value>, Option<Value>) = (row.get(0), row.get(1));
        ensure!(found == expected, "{way}: {found:?} instead of {expected:?}");
        let (value, version) = match other.query_opt("SELECT value, version FROM enough.kv_entry('k')", &[])? {
            Some(row) => (row.get::<_, Option<Value>>(0), row.get::<_, Option<i64>>(1)),
            None => (None, None),
        };
        let current =
            other.query_opt("SELECT version FROM enough.kv_default WHERE key = 'k' AND value IS NOT NULL", &[])?;
        ensure!(value == expected && version == current.map(|row| row.get(0)), "{way}: {value:?}, {version:?}");
        ensure!(get(&mut one, "k")? == expected, "{way}, for who has done it");
    }
    ensure!(until_copied(&mut other, "kv_get('k')")? == Some(json!(18)), "copies are made no longer");
    Ok(())
}

/// What a transaction, or a savepoint of it, has changed shows to itself, and to nobody where it is rolled back.
#[test]
fn who_has_changed_something_reads_the_table() -> Result<()> {
    let (_database, mut one, mut other) = with_a_copy()?;
    let mut transaction = one.transaction()?;
    transaction.batch_execute("SAVEPOINT s; SELECT enough.kv_set('k', '1')")?;
    ensure!(look(&mut transaction, "kv_get('k')")?.0 == Some(json!(1)));
    ensure!(get(&mut other, "k")? == Some(json!("old")));
    transaction.batch_execute("ROLLBACK TO s")?;
    ensure!(look(&mut transaction, "kv_get('k')")?.0 == Some(json!("old")));
    let within =
        "WITH w AS (UPDATE enough.kv_default SET value = '2' RETURNING key) SELECT enough.kv_get(w.key) FROM w";
    ensure!(transaction.query_one(within, &[])?.get::<_, Option<Value>>(0) == Some(json!(2)));
    transaction.rollback()?;
    ensure!(look(&mut other, "kv_get('k')")? == (Some(json!("old")), true), "a rollback has ended the copy");
    Ok(())
}

#[test]
fn a_transaction_with_one_snapshot_reads_the_table() -> Result<()> {
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let (_database, mut one, mut other) = with_a_copy()?;
        one.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}; SELECT FROM enough.kv_default"))?;
        set(&mut other, "k", &json!("new"))?;
        ensure!(until_copied(&mut other, "kv_get('k')")? == Some(json!("new")));
        ensure!(get(&mut one, "k")? == Some(json!("old")), "{level}");
        // What it has read isn't left to others.
        one.batch_execute("COMMIT")?;
        ensure!(get(&mut other, "k")? == Some(json!("new")) && get(&mut one, "k")? == Some(json!("new")), "{level}");
    }
    Ok(())
}

/// As a SELECT waits for who has the table to himself.
#[test]
fn who_reads_a_copy_waits_for_a_truncate_that_is_not_committed() -> Result<()> {
    let (_database, mut one, mut other) = with_a_copy()?;
    one.batch_execute("BEGIN; TRUNCATE enough.kv_default")?;
    other.batch_execute("SET lock_timeout = '50 ms'")?;
    refused(other.query("SELECT enough.kv_get('k')", &[]), "55P03")?;
    one.batch_execute("COMMIT")?;
    ensure!(get(&mut other, "k")?.is_none());
    // An error that came in the midst of a call has left nothing behind.
    set(&mut one, "k", &json!("new"))?;
    ensure!(until_copied(&mut other, "kv_get('k')")? == Some(json!("new")));
    Ok(())
}

/// Whatever a role gets from memory it must be allowed to read in the table, in this very statement.
#[test]
fn a_privilege_that_is_gone_is_gone_for_copies() -> Result<()> {
    let (database, mut owner, _) = with_a_copy()?;
    let [direct, member, group, some] = ["direct", "member", "group", "some"].map(|name| database.role(name));
    owner.batch_execute(&format!(
        "CREATE ROLE {direct} LOGIN; CREATE ROLE {member} LOGIN; CREATE ROLE {group}; CREATE ROLE {some} LOGIN; GRANT {group} TO {member}; \
         GRANT SELECT ON enough.kv_default TO {direct}, {group}; GRANT SELECT (key, value, expires_at) ON enough.kv_default TO {some}"
    ))?;
    for (role, revoke) in [
        (&direct, format!("REVOKE SELECT ON enough.kv_default FROM {direct}")),
        (&member, format!("REVOKE {group} FROM {member}")),
    ] {
        let mut reader = database.client_as(role)?;
        ensure!(until_copied(&mut reader, "kv_get('k')")? == Some(json!("old")));
        // Also in the midst of a transaction that has the lock already.
        let mut transaction = reader.transaction()?;
        ensure!(look(&mut transaction, "kv_get('k')")? == (Some(json!("old")), true));
        owner.batch_execute(&revoke)?;
        refused(transaction.query("SELECT enough.kv_get('k')", &[]), "42501").context(revoke)?;
    }
    // A right on some columns is one on what they say.
    let mut reader = database.client_as(&some)?;
    for _ in 0..5 {
        ensure!(get(&mut reader, "k")? == Some(json!("old")));
    }
    refused(reader.query("SELECT * FROM enough.kv_entry('k')", &[]), "42501")?;
    // The same session as another role.
    owner.batch_execute(&format!("SET ROLE {direct}"))?;
    refused(owner.query("SELECT enough.kv_get('k')", &[]), "42501")?;
    owner.batch_execute("RESET ROLE")?;
    ensure!(get(&mut owner, "k")? == Some(json!("old")));
    // A superuser that is none any more.
    let mighty = database.role("mighty");
    owner.batch_execute(&format!("CREATE ROLE {mighty} LOGIN SUPERUSER"))?;
    let mut reader = database.client_as(&mighty)?;
    until_copied(&mut reader, "kv_get('k')")?;
    owner.batch_execute(&format!("ALTER ROLE {mighty} NOSUPERUSER"))?;
    refused(reader.query("SELECT enough.kv_get('k')", &[]), "42501")?;
    Ok(())
}

#[test]
fn row_security_that_is_switched_on_hides_copies_and_what_changes_meanwhile_ends_them() -> Result<()> {
    let (database, mut owner, _) = with_a_copy()?;
    let role = database.role("tenant");
    owner.batch_execute(&format!("CREATE ROLE {role} LOGIN; GRANT SELECT ON enough.kv_default TO {role}"))?;
    let mut tenant = database.client_as(&role)?;
    ensure!(until_copied(&mut tenant, "kv_get('k')")? == Some(json!("old")));
    owner.batch_execute(
        "ALTER TABLE enough.kv_default ENABLE ROW LEVEL SECURITY; CREATE POLICY none ON enough.kv_default USING (false)",
    )?;
    ensure!(get(&mut tenant, "k")?.is_none());
    owner.batch_execute(
        "SELECT enough.kv_set('k', '\"new\"'); ALTER TABLE enough.kv_default DISABLE ROW LEVEL SECURITY",
    )?;
    ensure!(get(&mut tenant, "k")? == Some(json!("new")));
    Ok(())
}

#[test]
fn another_space_of_the_same_name_has_no_copies_of_the_one_before() -> Result<()> {
    let (_database, mut one, mut other) = with_a_copy()?;
    one.batch_execute("SELECT enough.kv_create('a'), enough.kv_create('b'), enough.kv_set('k', '\"a\"', space => 'a'), enough.kv_set('k', '\"b\"', space => 'b')")?;
    for space in ["a", "b"] {
        ensure!(until_copied(&mut other, &format!("kv_get('k', '{space}')"))? == Some(json!(space)));
    }
    one.batch_execute(
        "BEGIN; ALTER TABLE enough.kv_a RENAME TO kv_c; ALTER TABLE enough.kv_b RENAME TO kv_a; ALTER TABLE enough.kv_c RENAME TO kv_b; COMMIT",
    )?;
    for (space, value) in [("a", "b"), ("b", "a")] {
        for client in [&mut one, &mut other] {
            ensure!(look(client, &format!("kv_get('k', '{space}')"))?.0 == Some(json!(value)));
        }
    }
    one.batch_execute("SELECT enough.kv_create('d'), enough.kv_set('k', '\"d\"', space => 'd')")?;
    ensure!(until_copied(&mut other, "kv_get('k', 'd')")? == Some(json!("d")));
    one.batch_execute("SELECT enough.kv_drop('d'), enough.kv_create('d')")?;
    ensure!(look(&mut other, "kv_get('k', 'd')")?.0.is_none());
    one.batch_execute("SELECT enough.kv_drop('d')")?;
    refused(other.query("SELECT enough.kv_get('k', 'd')", &[]), "42704")?;
    Ok(())
}

#[test]
fn a_copy_is_over_when_its_row_is() -> Result<()> {
    let (_database, mut one, mut other) = with_a_copy()?;
    one.batch_execute("SELECT enough.kv_set('k', '1', '300 ms')")?;
    for _ in 0..5 {
        get(&mut other, "k")?;
    }
    eventually("its time is over", || {
        let over = "SELECT clock_timestamp() >= expires_at FROM enough.kv_default WHERE key = 'k'";
        Ok(one.query_one(over, &[])?.get::<_, bool>(0).then_some(()))
    })?;
    ensure!(get(&mut other, "k")?.is_none());
    let found: i64 = other.query_one("SELECT count(*) FROM enough.kv_entry('k')", &[])?.get(0);
    ensure!(found == 0 && !other.query_one("SELECT enough.kv_has('k')", &[])?.get::<_, bool>(0));
    Ok(())
}

/// Copies lie beside the entries of the cache, and neither shows as the other.
#[test]
fn the_cache_knows_nothing_of_copies() -> Result<()> {
    let server = server::start(&server::options()?.conf("enough.cache_keep_keys", "on"))?;
    let database = Database::on(&server)?;
    let (mut one, mut other) = (database.client()?, database.client()?);
    one.batch_execute("SELECT enough.cache_set('mine', '1')")?;
    set(&mut one, "k", &json!("old"))?;
    until_copied(&mut other, "kv_get('k')")?;
    set(&mut one, "l", &json!(1))?;
    until_copied(&mut one, "kv_get('l')")?;
    ensure!(look(&mut one, "cache_get('k')")?.0.is_none());
    let keys: Vec<String> =
        one.query("SELECT key FROM enough.cache_keys('')", &[])?.iter().map(|row| row.get(0)).collect();
    ensure!(keys == ["mine"], "{keys:?}");
    one.batch_execute("SELECT enough.cache_delete('k'), enough.cache_delete_prefix('')")?;
    ensure!(get(&mut other, "k")? == Some(json!("old")));
    one.batch_execute("SELECT enough.cache_clear()")?;
    ensure!(get(&mut other, "k")? == Some(json!("old")));
    ensure!(until_copied(&mut other, "kv_get('k')")? == Some(json!("old")));
    Ok(())
}

/// `cache_fetch` has to know which tables a value is made of.
#[test]
fn a_value_that_is_made_of_an_entry_ends_with_it() -> Result<()> {
    let (_database, mut one, mut other) = with_a_copy()?;
    one.batch_execute("SELECT enough.cache_tag_table('enough.kv_default')")?;
    let fetch = "cache_fetch('made', '1 hour', 'SELECT enough.kv_get(''k'')')";
    ensure!(until_copied(&mut other, "kv_get('k')")? == Some(json!("old")));
    eventually("the value is cached", || {
        ensure!(look(&mut other, fetch)?.0 == Some(json!("old")));
        Ok(other.query_one("SELECT enough.cache_exists('made')", &[])?.get::<_, bool>(0).then_some(()))
    })?;
    set(&mut one, "k", &json!("new"))?;
    ensure!(look(&mut other, fetch)?.0 == Some(json!("new")));
    Ok(())
}

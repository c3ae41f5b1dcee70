//! Setting, getting and deleting, with the transaction.

use crate::common::{delete, get, set, set_if, version};
use anyhow::{Result, ensure};
use enough_pg_test::check::refused;
use enough_pg_test::server::{Database, backend, until_locked};
use serde_json::{Value, json};
use std::thread;

#[test]
fn what_is_set_is_there_with_the_commit() -> Result<()> {
    let database = Database::new()?;
    let (mut one, mut other) = (database.client()?, database.client()?);
    ensure!(get(&mut one, "k")?.is_none() && version(&mut one, "k")?.is_none());
    let mut block = one.transaction()?;
    block.execute("SELECT enough.kv_set('k', '{\"a\": 1}')", &[])?;
    ensure!(block.query_one("SELECT enough.kv_get('k')", &[])?.get::<_, Option<Value>>(0) == Some(json!({"a": 1})));
    ensure!(get(&mut other, "k")?.is_none(), "seen before the commit");
    block.commit()?;
    ensure!(get(&mut other, "k")? == Some(json!({"a": 1})));
    let mut block = one.transaction()?;
    block.execute("SELECT enough.kv_set('k', '2')", &[])?;
    let mut inner = block.transaction()?;
    inner.execute("SELECT enough.kv_set('k', '3')", &[])?;
    inner.rollback()?;
    ensure!(block.query_one("SELECT enough.kv_get('k')", &[])?.get::<_, Option<Value>>(0) == Some(json!(2)));
    block.rollback()?;
    ensure!(get(&mut one, "k")? == Some(json!({"a": 1})) && get(&mut other, "k")? == Some(json!({"a": 1})));
    // SQL's NULL is none, and JSON's is a value.
    set(&mut one, "null", &Value::Null)?;
    ensure!(
        one.query_one("SELECT enough.kv_get('null')::text", &[])?.get::<_, Option<String>>(0).as_deref()
            == Some("null")
    );
    refused(one.query("SELECT enough.kv_set('k', NULL)", &[]), "22004")?;
    Ok(())
}

#[test]
fn a_statement_reads_what_it_has_written_before() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    // A key that is new, and one that was deleted.
    for _ in 0..2 {
        let row = client.query_one(
            "SELECT enough.kv_set('k', '{\"a\": 2}') > 0, enough.kv_get('k')::text, enough.kv_has('k'), (SELECT value::text FROM enough.kv_entry('k')),
                    (SELECT value::text FROM enough.kv_mget('{k}')), (SELECT count(*) FROM enough.kv_find('{\"a\": 2}')),
                    enough.kv_set('k', '3') > 0, enough.kv_get('k')::text, enough.kv_incr('k'), enough.kv_get('k')::text,
                    enough.kv_set('k', '5', if_version => 0) IS NULL, enough.kv_delete('k'), enough.kv_get('k') IS NULL, enough.kv_delete('k')",
            &[],
        )?;
        let (set, value) = (r#"{"a": 2}"#, |column| row.get::<_, String>(column));
        ensure!(
            row.get(0)
                && value(1) == set
                && row.get(2)
                && value(3) == set
                && value(4) == set
                && row.get::<_, i64>(5) == 1
        );
        ensure!(row.get(6) && value(7) == "3" && row.get::<_, i64>(8) == 4 && value(9) == "4" && row.get(10));
        ensure!(row.get(11) && row.get(12) && !row.get::<_, bool>(13));
    }
    Ok(())
}

#[test]
fn what_is_deleted_is_gone_and_can_be_set_again() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    ensure!(!delete(&mut client, "k")?);
    let first = set(&mut client, "k", &json!(1))?;
    ensure!(delete(&mut client, "k")? && !delete(&mut client, "k")?);
    ensure!(get(&mut client, "k")?.is_none() && version(&mut client, "k")?.is_none());
    ensure!(!client.query_one("SELECT enough.kv_has('k')", &[])?.get::<_, bool>(0));
    ensure!(set(&mut client, "k", &json!(2))? > first && get(&mut client, "k")? == Some(json!(2)));
    ensure!(client.query_one("SELECT enough.kv_has('k')", &[])?.get::<_, bool>(0));
    let current = version(&mut client, "k")?;
    ensure!(!client.query_one("SELECT enough.kv_delete('k', $1)", &[&first])?.get::<_, bool>(0), "an old version");
    ensure!(client.query_one("SELECT enough.kv_delete('k', $1)", &[&current])?.get::<_, bool>(0));
    Ok(())
}

#[test]
fn a_version_that_is_not_the_current_one_changes_nothing() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    ensure!(set_if(&mut client, "k", &json!(1), 7)?.is_none() && get(&mut client, "k")?.is_none());
    let Some(first) = set_if(&mut client, "k", &json!(1), 0)? else { anyhow::bail!("there was none") };
    ensure!(version(&mut client, "k")? == Some(first));
    ensure!(set_if(&mut client, "k", &json!(2), 0)?.is_none() && get(&mut client, "k")? == Some(json!(1)));
    let Some(second) = set_if(&mut client, "k", &json!(2), first)? else { anyhow::bail!("it was the current one") };
    ensure!(second > first && set_if(&mut client, "k", &json!(3), first)?.is_none());
    ensure!(delete(&mut client, "k")? && set_if(&mut client, "k", &json!(4), second)?.is_none());
    ensure!(set_if(&mut client, "k", &json!(4), 0)?.is_some(), "a key that was deleted has no entry");
    Ok(())
}

/// Of two that have read the same version one writes.
#[test]
fn of_two_with_one_version_one_succeeds() -> Result<()> {
    let database = Database::new()?;
    let (mut one, mut other, mut third) = (database.client()?, database.client()?, database.client()?);
    let first = set(&mut one, "k", &json!(1))?;
    let pid = backend(&mut other)?;
    let mut block = one.transaction()?;
    block.execute("SELECT enough.kv_set('k', '2', if_version => $1)", &[&first])?;
    let waiting = thread::spawn(move || set_if(&mut other, "k", &json!(3), first));
    until_locked(&mut third, pid)?;
    block.commit()?;
    ensure!(matches!(waiting.join(), Ok(Ok(None))), "both have written");
    ensure!(get(&mut third, "k")? == Some(json!(2)));
    Ok(())
}

#[test]
fn above_read_committed_it_reads_as_of_the_transactions_start() -> Result<()> {
    let database = Database::new()?;
    let (mut one, mut other) = (database.client()?, database.client()?);
    set(&mut one, "k", &json!(1))?;
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        set(&mut one, "k", &json!(1))?;
        other.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}"))?;
        ensure!(get(&mut other, "k")? == Some(json!(1)));
        set(&mut one, "k", &json!(2))?;
        ensure!(get(&mut other, "k")? == Some(json!(1)), "{level} sees what was committed later");
        ensure!(version(&mut other, "k")? < version(&mut one, "k")?);
        refused(set(&mut other, "k", &json!(3)), "40001")?;
        other.batch_execute("ROLLBACK")?;
        ensure!(get(&mut other, "k")? == Some(json!(2)));
    }
    Ok(())
}

#[test]
fn it_reads_where_nothing_may_be_written() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    set(&mut client, "k", &json!(1))?;
    client.batch_execute("BEGIN READ ONLY")?;
    ensure!(get(&mut client, "k")? == Some(json!(1)));
    // A read takes no transaction number.
    let number: Option<String> = client.query_one("SELECT pg_current_xact_id_if_assigned()::text", &[])?.get(0);
    ensure!(number.is_none(), "{number:?}");
    refused(set(&mut client, "k", &json!(2)), "25006")?;
    client.batch_execute("ROLLBACK")?;
    Ok(())
}

/// What it has set is there when it is committed, and not before, nor where it is rolled back.
#[test]
fn a_transaction_that_has_written_may_be_prepared() -> Result<()> {
    let database = Database::new()?;
    let (mut client, mut other) = (database.client()?, database.client()?);
    for (end, value) in [("ROLLBACK", None), ("COMMIT", Some(json!(1)))] {
        client.batch_execute("BEGIN; SELECT enough.kv_set('k', '1'); PREPARE TRANSACTION 'kv'")?;
        for client in [&mut client, &mut other] {
            ensure!(get(client, "k")?.is_none(), "it is seen before it is decided");
        }
        other.batch_execute(&format!("{end} PREPARED 'kv'"))?;
        for client in [&mut client, &mut other] {
            ensure!(get(client, "k")? == value, "after {end}");
        }
    }
    Ok(())
}

#[test]
fn a_change_by_hand_is_seen_at_once() -> Result<()> {
    let database = Database::new()?;
    let (mut one, mut other) = (database.client()?, database.client()?);
    let first = set(&mut one, "k", &json!(1))?;
    ensure!(get(&mut other, "k")? == Some(json!(1)));
    one.batch_execute("UPDATE enough.kv_default SET value = '2' WHERE key = 'k'")?;
    ensure!(get(&mut other, "k")? == Some(json!(2)));
    ensure!(version(&mut other, "k")? > Some(first), "the version is that of before");
    one.batch_execute("INSERT INTO enough.kv_default (key, value) VALUES ('new', '3')")?;
    ensure!(get(&mut other, "new")? == Some(json!(3)) && version(&mut other, "new")? > version(&mut other, "k")?);
    one.batch_execute("TRUNCATE enough.kv_default")?;
    ensure!(get(&mut other, "k")?.is_none());
    refused(one.batch_execute("INSERT INTO enough.kv_default (key, value) VALUES ('', '3')"), "23514")?;
    Ok(())
}

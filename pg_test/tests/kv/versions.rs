//! The versions of a key grow, whoever writes it how.

use crate::common::{delete, set, version};
use anyhow::{Result, ensure};
use enough_pg_test::server::{Database, backend, until_locked};
use serde_json::json;
use std::thread;

/// The one that waits for the row draws its version behind the one that it has waited for.
#[test]
fn who_writes_later_has_the_greater_version() -> Result<()> {
    let database = Database::new()?;
    for there in [false, true] {
        let (mut one, mut other, mut third) = (database.client()?, database.client()?, database.client()?);
        let pid = backend(&mut other)?;
        let key = if there { "there" } else { "new" };
        if there {
            set(&mut third, key, &json!(0))?;
        }
        let mut block = one.transaction()?;
        let first: i64 = block.query_one("SELECT enough.kv_set($1, '1')", &[&key])?.get(0);
        let waiting = thread::spawn(move || set(&mut other, key, &json!(2)));
        until_locked(&mut third, pid)?;
        // Meanwhile versions go to other keys, and the first writes once more.
        let between = set(&mut third, "elsewhere", &json!(1))?;
        let last: i64 = block.query_one("SELECT enough.kv_set($1, '1')", &[&key])?.get(0);
        ensure!(first < between && between < last);
        block.commit()?;
        let Ok(Ok(second)) = waiting.join() else { anyhow::bail!("it failed") };
        ensure!(second > last, "{second} after {last}");
        ensure!(version(&mut third, key)? == Some(second));
    }
    Ok(())
}

/// Who has drawn a version for a key that wasn't there, and meets one that was set and deleted since, draws another one.
#[test]
fn a_writer_that_was_held_up_draws_again() -> Result<()> {
    let database = Database::new()?;
    let (mut slow, mut other, mut third) = (database.client()?, database.client()?, database.client()?);
    other.batch_execute(
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
            IF current_setting('test.slow', true) = 'on' THEN PERFORM pg_advisory_xact_lock(1); END IF; RETURN NEW; END $$; \
         CREATE TRIGGER hold BEFORE INSERT ON enough.kv_default FOR EACH ROW EXECUTE FUNCTION hold(); \
         SELECT pg_advisory_lock(1)",
    )?;
    slow.batch_execute("SET test.slow = 'on'")?;
    let pid = backend(&mut slow)?;
    let waiting = thread::spawn(move || set(&mut slow, "k", &json!(1)));
    until_locked(&mut third, pid)?;
    set(&mut other, "k", &json!(2))?;
    ensure!(delete(&mut other, "k")?);
    let deleted: i64 = third.query_one("SELECT version FROM enough.kv_default WHERE key = 'k'", &[])?.get(0);
    // Maintenance leaves the row to it, although its day is over.
    third.batch_execute(
        "UPDATE enough.kv_default SET expires_at = clock_timestamp(), version = version + 0; SELECT enough.maintain()",
    )?;
    other.batch_execute("SELECT pg_advisory_unlock(1)")?;
    let Ok(Ok(last)) = waiting.join() else { anyhow::bail!("it failed") };
    ensure!(last > deleted, "{last} after {deleted}");
    Ok(())
}

#[test]
fn a_delete_that_waits_goes_by_the_version_that_it_meets() -> Result<()> {
    let database = Database::new()?;
    let (mut one, mut other, mut third) = (database.client()?, database.client()?, database.client()?);
    let pid = backend(&mut other)?;
    set(&mut one, "k", &json!(0))?;
    let mut block = one.transaction()?;
    let waiting = {
        let held: i64 = block.query_one("SELECT enough.kv_set('k', '1')", &[])?.get(0);
        let waiting = thread::spawn(move || delete(&mut other, "k"));
        until_locked(&mut third, pid)?;
        ensure!(held > 0);
        waiting
    };
    let last: i64 = block.query_one("SELECT enough.kv_set('k', '1')", &[])?.get(0);
    block.commit()?;
    ensure!(matches!(waiting.join(), Ok(Ok(true))));
    let deleted: i64 = third.query_one("SELECT version FROM enough.kv_default WHERE key = 'k'", &[])?.get(0);
    ensure!(deleted > last && set(&mut third, "k", &json!(1))? > deleted);
    Ok(())
}

/// Its writer has a transaction number of its own below it, and what is written next has a greater one.
#[test]
fn a_fence_is_above_its_writer() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    for statement in [
        "SELECT enough.kv_set('k', '1')",
        "SELECT enough.kv_set('k', '2')",
        "SELECT enough.kv_delete('k')",
        "SELECT enough.kv_incr('k')",
        "UPDATE enough.kv_default SET value = '5'",
    ] {
        client.batch_execute(statement)?;
        let above: bool = client
            .query_one("SELECT fence::text::bigint > xmin::text::bigint AND fence <= enough._kv_fence() FROM enough.kv_default", &[])?
            .get(0);
        ensure!(above, "{statement}");
    }
    Ok(())
}

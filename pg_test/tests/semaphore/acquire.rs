//! Acquiring, extending and releasing.

use crate::common::{acquire, extend, release, taken, tokens};
use anyhow::{Result, ensure};
use enough_pg_test::check::{eventually, refused};
use enough_pg_test::server::{Database, backend};

#[test]
fn with_one_holder_it_is_a_lock() -> Result<()> {
    let database = Database::new()?;
    let (mut one, mut other) = (database.client()?, database.client()?);
    let first = taken(&mut one, "'lock'")?;
    ensure!(acquire(&mut other, "'lock'")?.is_none());
    // Not reentrant: the same session is another holder.
    ensure!(acquire(&mut one, "'lock'")?.is_none());
    ensure!(taken(&mut other, "'another'")? > 0);
    ensure!(!release(&mut one, "lock", first + 1)? && !release(&mut one, "another", first)?);
    ensure!(release(&mut other, "lock", first)?, "whoever has the token releases it");
    ensure!(!release(&mut one, "lock", first)?, "it was released before");
    let second = taken(&mut other, "'lock'")?;
    ensure!(second > first, "{second} after {first}");
    ensure!(!release(&mut one, "lock", first)? && !extend(&mut one, "lock", first, "1 hour")?, "an old token counts");
    ensure!(tokens(&mut one, "lock")? == [second]);
    Ok(())
}

#[test]
fn as_many_hold_it_as_the_caller_allows() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(taken(&mut client, "'limit', 3")?);
    }
    ensure!(held.is_sorted() && acquire(&mut client, "'limit', 3")?.is_none());
    // Each call goes by its own limit.
    ensure!(acquire(&mut client, "'limit', 2")?.is_none());
    held.push(taken(&mut client, "'limit', 5")?);
    ensure!(tokens(&mut client, "limit")? == held);
    for token in held.drain(..2) {
        ensure!(release(&mut client, "limit", token)?);
    }
    ensure!(acquire(&mut client, "'limit', 2")?.is_none());
    taken(&mut client, "'limit', 3")?;
    ensure!(acquire(&mut client, "'limit', 3")?.is_none());
    Ok(())
}

#[test]
fn each_holder_of_a_name_has_a_ttl_of_its_own() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    let [long, short, released] = ["1 hour", "200 ms", "2 hours"]
        .map(|ttl| taken(&mut client, &format!("'s', 3, '{ttl}'")))
        .map(|token| token.unwrap_or(0));
    ensure!(release(&mut client, "s", released)?);
    eventually("the short one has expired", || Ok((tokens(&mut client, "s")? == [long]).then_some(())))?;
    ensure!(!extend(&mut client, "s", short, "1 hour")? && extend(&mut client, "s", long, "1 hour")?);
    Ok(())
}

#[test]
fn it_outlives_a_rollback_and_the_session_and_so_does_its_end() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    let mut holder = database.client()?;
    let mut transaction = holder.transaction()?;
    let row = transaction.query_one("SELECT enough.semaphore_acquire('s')", &[])?;
    let token: i64 = row.get(0);
    let mut savepoint = transaction.savepoint("s")?;
    savepoint.batch_execute("SELECT enough.semaphore_acquire('t')")?;
    savepoint.rollback()?;
    transaction.rollback()?;
    ensure!(acquire(&mut client, "'s'")?.is_none() && acquire(&mut client, "'t'")?.is_none());
    drop(holder);
    eventually("the session is gone", || {
        let row = client.query_opt(
            "SELECT 1 FROM pg_stat_activity AS a JOIN enough.semaphore_holders('s') AS s USING (pid)",
            &[],
        )?;
        Ok(row.is_none().then_some(()))
    })?;
    ensure!(acquire(&mut client, "'s'")?.is_none());
    // A release stands, too, and at once.
    let mut other = database.client()?;
    let mut transaction = other.transaction()?;
    ensure!(transaction.query_one("SELECT enough.semaphore_release('s', $1)", &[&token])?.get::<_, bool>(0));
    let next = taken(&mut client, "'s'")?;
    transaction.rollback()?;
    ensure!(acquire(&mut other, "'s'")?.is_none() && tokens(&mut client, "s")? == [next]);
    Ok(())
}

#[test]
fn a_token_ends_with_its_ttl_and_an_extension_puts_that_off() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    let short = taken(&mut client, "'s', ttl => '100 ms'")?;
    let long = taken(&mut client, "'t', ttl => '1 s'")?;
    ensure!(extend(&mut client, "t", long, "1 hour")?);
    eventually("it has expired", || Ok((tokens(&mut client, "s")?.is_empty()).then_some(())))?;
    ensure!(!release(&mut client, "s", short)? && !extend(&mut client, "s", short, "1 hour")?, "an expired token");
    ensure!(taken(&mut client, "'s'")? > short);
    // Longer than its first ttl.
    client.batch_execute("SELECT pg_sleep(1.1)")?;
    ensure!(tokens(&mut client, "t")? == [long] && acquire(&mut client, "'t'")?.is_none());
    // An extension may also be for less.
    ensure!(extend(&mut client, "t", long, "1 ms")?);
    eventually("it has expired", || Ok(acquire(&mut client, "'t'")?.map(drop)))?;
    Ok(())
}

#[test]
fn holders_are_listed_with_their_times() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    let pid = i32::try_from(backend(&mut client)?)?;
    let one = taken(&mut client, "'one', ttl => '1 hour'")?;
    let two = [taken(&mut client, "'two', 2, '1 minute'")?, taken(&mut client, "'two', 2, '1 minute'")?];
    let row = client.query_one(
        "SELECT name, token, pid, since BETWEEN statement_timestamp() - interval '1 minute' AND statement_timestamp(), \
                extract(epoch FROM expires_at - since)::int FROM enough.semaphore_holders('one')",
        &[],
    )?;
    let found: (String, i64, i32, bool, i32) = (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4));
    ensure!(found == ("one".into(), one, pid, true, 3600), "{found:?}");
    let all = client.query("SELECT name, token FROM enough.semaphore_holders() ORDER BY name, token", &[])?;
    let all: Vec<(String, i64)> = all.iter().map(|row| (row.get(0), row.get(1))).collect();
    ensure!(all == [("one".into(), one), ("two".into(), two[0]), ("two".into(), two[1])], "{all:?}");
    ensure!(tokens(&mut client, "three")?.is_empty());
    Ok(())
}

#[test]
fn names_of_other_databases_are_other_names() -> Result<()> {
    let (one, other) = (Database::new()?, Database::new()?);
    let (mut one, mut other) = (one.client()?, other.client()?);
    let token = taken(&mut one, "'shared'")?;
    let theirs = taken(&mut other, "'shared'")?;
    ensure!(!release(&mut other, "shared", token)? && tokens(&mut other, "shared")? == [theirs]);
    ensure!(other.query("SELECT FROM enough.semaphore_holders()", &[])?.len() == 1);
    ensure!(release(&mut one, "shared", token)?);
    Ok(())
}

#[test]
fn names_are_any_text_of_1_to_512_bytes() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    for name in ["' '", "'ü' || chr(128512)", "repeat('x', 512)", "repeat('x', 56)", "'a' || chr(10) || chr(1)"] {
        taken(&mut client, name)?;
        let row = client.query_one(&format!("SELECT name = {name} FROM enough.semaphore_holders({name})"), &[])?;
        ensure!(row.get::<_, bool>(0), "{name}");
        ensure!(acquire(&mut client, name)?.is_none(), "{name}");
    }
    // By its bytes: 257 characters are too many.
    let hint = refused(acquire(&mut client, "repeat('ü', 257)"), "54000")?;
    ensure!(hint.contains("hash"), "{hint}");
    refused(acquire(&mut client, "''"), "22023")?;
    Ok(())
}

#[test]
fn a_read_only_transaction_may_use_it() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute("SET default_transaction_read_only = on")?;
    let token = taken(&mut client, "'s', wait => '1 s'")?;
    ensure!(extend(&mut client, "s", token, "1 hour")? && release(&mut client, "s", token)?);
    Ok(())
}

/// Nothing of it waits for the end of the transaction.
#[test]
fn a_transaction_that_has_used_it_may_be_prepared() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    let name = &database.name;
    client.batch_execute(&format!(
        "BEGIN; SELECT enough.semaphore_acquire('s', wait => '1 s'); SELECT enough.semaphore_acquire('s', wait => '20 ms'); \
         PREPARE TRANSACTION '{name}'"
    ))?;
    ensure!(tokens(&mut client, "s")?.len() == 1);
    client.batch_execute(&format!("ROLLBACK PREPARED '{name}'"))?;
    ensure!(tokens(&mut client, "s")?.len() == 1);
    Ok(())
}

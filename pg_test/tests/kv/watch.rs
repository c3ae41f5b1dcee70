//! Watching: what has changed after a version, in order, with nothing missed.

use crate::common::{Change, column, delete, last, maintained, set, set_in, watch};
use anyhow::{Result, ensure};
use enough_pg_test::check::refused;
use enough_pg_test::server::Database;
use postgres::Client;
use serde_json::json;

#[test]
fn changes_come_in_the_order_of_their_versions() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    ensure!(watch(&mut client, "", 0)?.is_empty());
    let first = set(&mut client, "a:1", &json!(1))?;
    set(&mut client, "b:1", &json!(2))?;
    ensure!(delete(&mut client, "a:1")?);
    let all = watch(&mut client, "", 0)?;
    let told: Vec<_> = all.iter().map(Change::told).collect();
    ensure!(told == ["b:1=2", "a:1 deleted"], "{told:?}");
    ensure!(all[0].version > first && all[1].version > all[0].version);
    ensure!(watch(&mut client, "", last(&all))?.is_empty());
    // Only what the key begins with; and up to where there is nothing more.
    let of_b = watch(&mut client, "b:", 0)?;
    let told: Vec<_> = of_b.iter().map(Change::told).collect();
    ensure!(told == ["b:1=2", "nothing more"] && last(&of_b) == last(&all), "{told:?}");
    ensure!(watch(&mut client, "b:", last(&of_b))?.is_empty() && watch(&mut client, "_:", last(&all))?.is_empty());
    let none = watch(&mut client, "c", first)?;
    ensure!(none.len() == 1 && none[0].key.is_none() && last(&none) == last(&all));
    // Of what changed twice the newest change.
    for number in 3..6 {
        set(&mut client, "b:1", &json!(number))?;
    }
    let told: Vec<_> = watch(&mut client, "", last(&all))?.iter().map(Change::told).collect();
    ensure!(told == ["b:1=5"], "{told:?}");
    for since in ["-1", "-9223372036854775808"] {
        refused(client.query(&format!("SELECT enough.kv_watch('', {since})"), &[]), "22023")?;
    }
    Ok(())
}

/// Who begins at the beginning gets all; later a thousand at a time, and the rest with the next call.
#[test]
fn many_changes_come_in_pages() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    let first = set(&mut client, "first", &json!(1))?;
    client.execute("SELECT enough.kv_set('k' || n, to_jsonb(n)) FROM generate_series(1, 2500) AS n", &[])?;
    ensure!(watch(&mut client, "", 0)?.len() == 2501);
    let (mut since, mut sizes, mut expected) = (first, Vec::new(), 1);
    loop {
        let page = watch(&mut client, "k", since)?;
        if page.is_empty() {
            break;
        }
        for change in &page {
            ensure!(change.told() == format!("k{expected}={expected}"), "{}", change.told());
            expected += 1;
        }
        since = last(&page);
        sizes.push(page.len());
    }
    // Other databases' transactions may cut one short.
    let whole = sizes.iter().sum::<usize>() == 2500 && sizes.iter().all(|&size| size <= 1000);
    ensure!(whole && sizes.contains(&1000), "{sizes:?}");
    Ok(())
}

/// All that can be told by now: other databases' transactions may cut an answer short, and the next call has the rest.
fn all(client: &mut Client, mut since: i64) -> Result<Vec<Change>> {
    let mut told = Vec::new();
    loop {
        let more = watch(client, "", since)?;
        if more.is_empty() {
            return Ok(told);
        }
        since = last(&more);
        told.extend(more);
    }
}

/// One that was drawn before and is committed later isn't missed, whoever has drawn it how.
#[test]
fn what_is_drawn_before_and_committed_later_is_not_missed() -> Result<()> {
    let database = Database::new()?;
    let (mut one, mut other, mut watcher) = (database.client()?, database.client()?, database.client()?);
    for (round, sql) in [
        "SELECT enough.kv_set('early', '1')",
        "INSERT INTO enough.kv_default (key, value) VALUES ('by hand', '1')",
        "UPDATE enough.kv_default SET value = '2' WHERE key = 'early'",
        "DELETE FROM enough.kv_default WHERE key = 'early'",
        "SELECT enough.kv_delete('by hand')",
    ]
    .into_iter()
    .enumerate()
    {
        for end in ["ROLLBACK", "COMMIT"] {
            let seen = last(&watch(&mut watcher, "", 0)?);
            one.batch_execute(&format!("BEGIN; {sql}"))?;
            let key = format!("late {round} {end}");
            let late = set(&mut other, &key, &json!(1))?;
            ensure!(watch(&mut watcher, "", seen)?.is_empty(), "{key} is told before what was drawn before");
            // Nor is what a savepoint or a second change of it does.
            one.batch_execute("SAVEPOINT s; SELECT enough.kv_set('more', '1'); ROLLBACK TO s")?;
            ensure!(watch(&mut watcher, "", seen)?.is_empty());
            one.batch_execute(end)?;
            let told = all(&mut watcher, seen)?;
            ensure!(
                told.len() == if end == "COMMIT" { 2 } else { 1 },
                "{:?}",
                told.iter().map(Change::told).collect::<Vec<_>>()
            );
            ensure!(last(&told) == late);
        }
    }
    Ok(())
}

/// Whoever draws a version has a number by then, so that the fences of later versions are above it.
#[test]
fn who_draws_a_version_has_a_transaction_number() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    for _ in 0..3 {
        client.batch_execute("BEGIN")?;
        let assigned: bool = client
            .query_one("SELECT enough._kv_version('enough.k_default_versions') > 0 AND pg_current_xact_id_if_assigned() IS NOT NULL", &[])?
            .get(0);
        ensure!(assigned);
        client.batch_execute("ROLLBACK")?;
    }
    client.batch_execute("CREATE SEQUENCE other")?;
    for other in ["other", "pg_class", "enough.kv_default"] {
        refused(client.query(&format!("SELECT enough._kv_version('{other}')"), &[]), "42501")?;
    }
    refused(client.query("SELECT enough._kv_version(NULL)", &[]), "22004")?;
    Ok(())
}

/// A transaction that doesn't write to the space holds nobody up, however long it is open.
#[test]
fn others_transactions_hold_nobody_up() -> Result<()> {
    let database = Database::new()?;
    let (mut client, mut other) = (database.client()?, database.client()?);
    client.batch_execute("CREATE TABLE t (); SELECT enough.kv_create('s')")?;
    other.batch_execute("BEGIN; INSERT INTO t DEFAULT VALUES; SELECT enough.kv_set('k', '1', space => 's')")?;
    set(&mut client, "k", &json!(1))?;
    let told = watch(&mut client, "", 0)?;
    ensure!(told.len() == 1);
    ensure!(client.query("SELECT * FROM enough.kv_watch('', 0, space => 's')", &[])?.is_empty());
    // Now it writes to this one as well, after what has been told.
    other.batch_execute("SELECT enough.kv_set('l', '1')")?;
    set(&mut client, "m", &json!(1))?;
    ensure!(watch(&mut client, "", last(&told))?.is_empty());
    other.batch_execute("COMMIT")?;
    ensure!(all(&mut client, last(&told))?.len() == 2);
    Ok(())
}

/// At every isolation level it sees what is committed, and what its own transaction has done when that is.
#[test]
fn it_sees_what_is_committed() -> Result<()> {
    let database = Database::new()?;
    let (mut one, mut other) = (database.client()?, database.client()?);
    for (number, level) in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"].into_iter().enumerate() {
        one.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}; SELECT enough.kv_keys()"))?;
        set(&mut other, &format!("k{number}"), &json!(1))?;
        ensure!(watch(&mut one, "k", 0)?.len() == number + 1, "{level}");
        one.batch_execute(&format!("SELECT enough.kv_set('own{number}', '1')"))?;
        ensure!(watch(&mut one, "own", 0)?.iter().filter(|change| change.key.is_some()).count() == number);
        one.batch_execute("COMMIT")?;
        ensure!(watch(&mut one, "own", 0)?.len() == number + 1);
    }
    Ok(())
}

/// What isn't known any more is an error to who has seen less, and to nobody else.
#[test]
fn who_has_been_away_for_too_long_is_told() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    let old = set(&mut client, "stays", &json!(1))?;
    for key in ["k", "l"] {
        set(&mut client, key, &json!(1))?;
    }
    ensure!(delete(&mut client, "k")? && delete(&mut client, "l")?);
    let seen = last(&watch(&mut client, "", old)?);
    ensure!(all(&mut client, old)?.len() == 2);
    client.execute(
        "UPDATE enough.kv_default SET expires_at = clock_timestamp() - interval '1 second', version = version + 0 WHERE value IS NULL",
        &[],
    )?;
    let seen_later = last(&watch(&mut client, "", seen)?);
    maintained(&mut client, "SELECT count(*) FROM enough.kv_default", 1)?;
    // The one that has seen all but the last of what is gone, too.
    refused(client.query("SELECT enough.kv_watch('', $1)", &[&(seen_later - 1)]), "55000")?;
    let hint = refused(client.query("SELECT enough.kv_watch('', $1)", &[&old]), "55000")?;
    ensure!(hint.contains("since => 0"), "{hint}");
    refused(client.query("SELECT enough.kv_watch('stays', $1, '1 hour')", &[&old]), "55000")?;
    ensure!(watch(&mut client, "", seen_later)?.is_empty());
    // Who begins anew can go on, although all that there is has a smaller version.
    let anew = watch(&mut client, "", 0)?;
    let told: Vec<_> = anew.iter().map(Change::told).collect();
    ensure!(told == ["stays=1", "nothing more"] && last(&anew) > old, "{told:?}");
    ensure!(watch(&mut client, "", last(&anew))?.is_empty());
    set(&mut client, "new", &json!(1))?;
    ensure!(watch(&mut client, "", last(&anew))?.len() == 1);
    refused(client.query("SELECT enough.kv_watch('', 9223372036854775807)", &[]), "55000")?;
    Ok(())
}

/// TRUNCATE takes all at once, and versions go on; a space that is made anew under a name goes on as well.
#[test]
fn versions_go_on_when_all_is_gone() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.kv_create('s')")?;
    let watch_it = "SELECT count(key), max(version) FROM enough.kv_watch('', $1, space => 's')";
    let mut seen = set_in(&mut client, "s", "k")?;
    for sql in [
        "TRUNCATE enough.kv_s",
        "TRUNCATE enough.kv_s RESTART IDENTITY",
        "BEGIN; TRUNCATE enough.kv_s RESTART IDENTITY; SELECT enough.kv_set('k', '1', space => 's'); COMMIT",
        "SELECT enough.kv_drop('s'); SELECT enough.kv_create('s')",
        "SELECT enough.kv_drop('s'); SELECT enough.kv_create('s', history => 2)",
    ] {
        ensure!(client.query_one(watch_it, &[&seen])?.get::<_, i64>(0) == 0, "before {sql}");
        client.batch_execute(sql)?;
        refused(client.query(watch_it, &[&seen]), "55000")?;
        let anew: i64 = client.query_one(watch_it, &[&0_i64])?.get::<_, Option<i64>>(1).unwrap_or(0);
        ensure!(anew > seen, "{anew} after {seen}: {sql}");
        seen = set_in(&mut client, "s", "k")?;
        ensure!(seen > anew, "{seen} after {anew}: {sql}");
        ensure!(client.query_one(watch_it, &[&anew])?.get::<_, i64>(0) == 1, "after {sql}");
    }
    // One that is rolled back has taken nothing.
    client.batch_execute("BEGIN; TRUNCATE enough.kv_s; ROLLBACK")?;
    ensure!(client.query_one(watch_it, &[&seen])?.get::<_, i64>(0) == 0);
    ensure!(column(&mut client, "SELECT enough.kv_keys(space => 's')", &[])? == ["k"]);
    Ok(())
}

/// An entry that expires is told when it is ended, and isn't told as one that is there after its time.
#[test]
fn an_entry_that_expires_is_told_when_it_is_ended() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.execute("SELECT enough.kv_set('k', '1', '1 hour')", &[])?;
    client.execute("UPDATE enough.kv_default SET expires_at = clock_timestamp() - interval '1 second'", &[])?;
    let told = watch(&mut client, "", 0)?;
    ensure!(told.len() == 1 && told[0].told() == "k deleted");
    maintained(&mut client, "SELECT count(value) FROM enough.kv_default", 0)?;
    let then = watch(&mut client, "", last(&told))?;
    ensure!(then.len() == 1 && then[0].told() == "k deleted");
    Ok(())
}

//! What `cache_fetch` has made of other entries of the cache ends with what those end with, be they there already or not.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::eventually;
use enough_pg_test::server::Database;
use postgres::Client;

/// Two tables with tags, and one that nobody has tagged.
const SETUP: &str = "
    CREATE TABLE t AS SELECT 1 AS v;
    CREATE TABLE u AS SELECT 1 AS v;
    CREATE TABLE plain AS SELECT 1 AS v;
    SELECT enough.cache_tag_table('t'), enough.cache_tag_table('u');
    CREATE FUNCTION inner_value() RETURNS jsonb LANGUAGE sql AS
        $$ SELECT enough.cache_fetch('inner', NULL, 'SELECT max(v) FROM t', tags => ARRAY['by hand']) $$;
    CREATE FUNCTION middle_value() RETURNS jsonb LANGUAGE sql AS
        $$ SELECT enough.cache_fetch('middle', NULL, 'SELECT inner_value()') $$;
    CREATE FUNCTION fails() RETURNS int LANGUAGE plpgsql AS
        'BEGIN PERFORM inner_value(); RETURN 1 / 0; EXCEPTION WHEN division_by_zero THEN RETURN 0; END';
    CREATE FUNCTION caught() RETURNS int LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM enough.cache_fetch('failing', NULL, 'SELECT 1 / (v - v) FROM plain, (SELECT inner_value()) AS i');
            RETURN 1;
        EXCEPTION WHEN division_by_zero THEN RETURN 0; END $$";

fn there(client: &mut Client, key: &str) -> Result<bool> {
    Ok(client.query_one("SELECT enough.cache_exists($1)", &[&key])?.get(0))
}

/// Stores what `query` says as 'outer', after `before`.
fn fetched(client: &mut Client, before: &str, query: &str) -> Result<()> {
    client.batch_execute("SELECT enough.cache_mdelete(ARRAY['outer', 'middle', 'inner', 'bytes'])")?;
    client.batch_execute(before).with_context(|| before.to_owned())?;
    client.query("SELECT enough.cache_fetch('outer', NULL, $1)", &[&query]).with_context(|| query.to_owned())?;
    ensure!(there(client, "outer")?, "{query}: it is not stored");
    Ok(())
}

#[test]
fn a_value_ends_with_the_entries_that_it_is_made_of() -> Result<()> {
    let database = Database::new()?;
    let (mut client, mut other) = (database.client()?, database.client()?);
    client.batch_execute(SETUP)?;
    let set = "SELECT enough.cache_set('inner', '1', tags => ARRAY['by hand', 't'])";
    let bytes = "SELECT enough.cache_set_bytes('bytes', 'x', tags => ARRAY['by hand', 't'])";
    for (before, query) in [
        ("SELECT inner_value()", "SELECT inner_value()"),
        ("SELECT", "SELECT inner_value()"),
        ("SELECT middle_value()", "SELECT middle_value()"),
        ("SELECT inner_value()", "SELECT middle_value()"),
        ("SELECT", "SELECT middle_value()"),
        ("SELECT inner_value()", "SELECT fails()"),
        ("SELECT inner_value()", "SELECT caught()"),
        ("SELECT", "SELECT caught()"),
        (set, "SELECT enough.cache_get('inner')"),
        (set, "SELECT enough.cache_get('inner', slide_ttl => '1 hour')"),
        (set, "SELECT value FROM enough.cache_mget(ARRAY['nothing', 'inner']) WHERE key = 'inner'"),
        (bytes, "SELECT length(enough.cache_get_bytes('bytes'))"),
        (bytes, "SELECT length(value) FROM enough.cache_mget_bytes(ARRAY['bytes'])"),
    ] {
        for (end, ends) in [
            ("UPDATE t SET v = v + 1", true),
            ("SELECT enough.cache_invalidate('by hand')", true),
            ("UPDATE u SET v = v + 1", false),
            ("UPDATE plain SET v = v + 1", false),
            ("SELECT enough.cache_invalidate('another')", false),
        ] {
            fetched(&mut client, before, query)?;
            other.batch_execute(end)?;
            ensure!(there(&mut client, "outer")? != ends, "{before}, {query}, {end}");
        }
    }
    // What was read for another value is none of its tags.
    fetched(&mut client, "SELECT inner_value()", "SELECT max(v) FROM u")?;
    other.batch_execute("UPDATE t SET v = v + 1")?;
    ensure!(there(&mut client, "outer")?);
    other.batch_execute("UPDATE u SET v = v + 1")?;
    ensure!(!there(&mut client, "outer")?);
    Ok(())
}

#[test]
fn a_value_of_the_same_transaction_tells_of_its_tags() -> Result<()> {
    let database = Database::new()?;
    let (mut client, mut other) = (database.client()?, database.client()?);
    client.batch_execute(SETUP)?;
    for inner in ["inner_value()", "enough.cache_get('inner')"] {
        for end in ["UPDATE t SET v = v + 1", "SELECT enough.cache_invalidate('by hand')"] {
            client.batch_execute("SELECT enough.cache_delete('outer'), enough.cache_delete('inner')")?;
            // Stored at the commit, because the transaction has written.
            client.batch_execute("BEGIN; UPDATE plain SET v = v + 1; SELECT inner_value()")?;
            client.execute("SELECT enough.cache_fetch('outer', NULL, $1)", &[&format!("SELECT {inner}")])?;
            client.batch_execute("COMMIT")?;
            ensure!(there(&mut other, "outer")?, "{inner}: it is not stored");
            other.batch_execute(end)?;
            ensure!(!there(&mut other, "outer")?, "{inner}: it is still there after {end}");
        }
    }
    // Removed in the transaction that has stored it.
    client.batch_execute("BEGIN; UPDATE plain SET v = v; SELECT inner_value()")?;
    client.batch_execute("SELECT enough.cache_fetch('outer', NULL, 'SELECT inner_value()')")?;
    client.batch_execute("SELECT enough.cache_invalidate('by hand')")?;
    ensure!(!there(&mut client, "outer")?);
    client.batch_execute("COMMIT")?;
    ensure!(!there(&mut client, "outer")?);
    Ok(())
}

#[test]
fn an_expired_value_that_is_taken_tells_of_its_tags() -> Result<()> {
    let database = Database::new()?;
    let (mut client, mut other) = (database.client()?, database.client()?);
    client.batch_execute(SETUP)?;
    let inner = "enough.cache_fetch('inner', '1 ms', $$ SELECT v / (SELECT v FROM plain) FROM t $$, stale_if_error => '1 hour')";
    // From the second failure on the query isn't tried for a while, so it doesn't tell which tables it reads.
    client.batch_execute(&format!("SELECT {inner}; SELECT pg_sleep(0.01); UPDATE plain SET v = 0; SELECT {inner}"))?;
    client.execute("SELECT enough.cache_fetch('outer', NULL, $1)", &[&format!("SELECT {inner}")])?;
    ensure!(there(&mut client, "outer")?);
    other.batch_execute("UPDATE t SET v = v + 1")?;
    ensure!(!there(&mut client, "outer")?, "what it was made of is out of date");
    Ok(())
}

/// What was computed after the removal stays, in the transaction that has removed and for those after it.
#[test]
fn a_value_from_after_a_removal_is_computed_once() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute(SETUP)?;
    client.batch_execute("CREATE SEQUENCE runs; SELECT inner_value()")?;
    let fetch = "SELECT enough.cache_fetch('outer', NULL, 'SELECT nextval(''runs'') FROM (SELECT inner_value()) AS i')";
    client.batch_execute("BEGIN; UPDATE t SET v = v + 1")?;
    for _ in 0..3 {
        let run: serde_json::Value = client.query_one(fetch, &[])?.get(0);
        ensure!(run == 1, "run {run} in the transaction");
    }
    client.batch_execute("COMMIT")?;
    let run: serde_json::Value = client.query_one(fetch, &[])?.get(0);
    ensure!(run == 1, "run {run} after it");
    let inner: serde_json::Value = client.query_one("SELECT enough.cache_get('inner')", &[])?.get(0);
    ensure!(inner == 2, "{inner}");
    Ok(())
}

/// A tag that goes while the value is computed, when the entry within it has been read.
#[test]
fn a_tag_that_goes_meanwhile_keeps_the_value_out() -> Result<()> {
    let database = Database::new()?;
    let (mut client, mut other) = (database.client()?, database.client()?);
    client.batch_execute(SETUP)?;
    client.batch_execute("SELECT inner_value()")?;
    other.batch_execute("SELECT pg_advisory_lock(1)")?;
    let waiting = std::thread::spawn(move || -> Result<Client> {
        client.batch_execute(
            "SELECT enough.cache_fetch('outer', NULL, \
             'SELECT i FROM (SELECT inner_value() AS i OFFSET 0) AS i, LATERAL (SELECT pg_advisory_lock(i::int * 0 + 1)) AS l')",
        )?;
        Ok(client)
    });
    let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = 1 \
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    eventually("the query waits", || Ok((other.query_one(waits, &[])?.get::<_, i64>(0) == 1).then_some(())))?;
    other.batch_execute("UPDATE t SET v = v + 1; SELECT pg_advisory_unlock(1)")?;
    let mut client = waiting.join().expect("the session panicked")?;
    ensure!(!there(&mut client, "outer")?, "it is made of what was removed meanwhile");
    Ok(())
}

#[test]
fn more_tags_than_an_entry_can_have_keep_the_value_around_out() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute(SETUP)?;
    let eight = "ARRAY['1', '2', '3', '4', '5', '6', '7', '8']";
    // One that was stored with eight, and one that could not be stored with nine.
    for (inner, tags, stored) in [
        ("SELECT max(v) FROM plain", "NULL", true),
        ("SELECT max(v) FROM plain", "ARRAY['8']", true),
        ("SELECT max(v) FROM plain", "ARRAY['9']", false),
        ("SELECT max(v) FROM t", "NULL", false),
    ] {
        for again in [false, true] {
            if !again {
                client.batch_execute("SELECT enough.cache_delete('inner')")?;
            }
            client.batch_execute("SELECT enough.cache_delete('outer')")?;
            let inner = format!("SELECT enough.cache_fetch('inner', NULL, '{inner}', tags => {eight})");
            client.execute(&format!("SELECT enough.cache_fetch('outer', NULL, $1, tags => {tags})"), &[&inner])?;
            ensure!(there(&mut client, "outer")? == stored, "{inner}, {tags}, {again}");
        }
    }
    Ok(())
}

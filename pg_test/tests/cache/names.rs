//! Keys by prefix, where the cache keeps their text.

use anyhow::{Result, ensure};
use enough_pg_test::check::{eventually, healthy, refused};
use enough_pg_test::server::{self, Database};
use postgres::Client;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use xtask::server::Server;

fn keeping() -> Result<(Server, Database)> {
    let server = server::start(&server::options()?.conf("enough.cache_keep_keys", "on"))?;
    let database = Database::on(&server)?;
    Ok((server, database))
}

fn keys(client: &mut Client, prefix: &str) -> Result<Vec<String>> {
    let rows = client.query("SELECT key FROM enough.cache_keys($1)", &[&prefix])?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

#[test]
fn every_way_to_store_keeps_the_key() -> Result<()> {
    let (server, database) = keeping()?;
    let mut client = database.client()?;
    let ways = [
        "cache_set('<key>', '1')",
        "cache_set('<key>', '1', mode => 'if_absent')",
        "cache_set('<key>', '1', tags => ARRAY['t'])",
        "cache_set('<key>', to_jsonb(repeat('x', 20000)), '1 hour')",
        "cache_set_bytes('<key>', 'x')",
        "cache_set_bytes('<key>', '', mode => 'if_absent', tags => ARRAY['t'])",
        "cache_mset('{\"<key>\": 1}')",
        "cache_mset_bytes(ARRAY['<key>'], ARRAY['x'::bytea])",
        "cache_incr('<key>')",
        "cache_merge('<key>', '{\"a\": 1}')",
        "cache_fetch('<key>', '1 hour', 'SELECT 1', stale_for => '1 hour')",
        "cache_fetch('<key>', '1 hour', 'SELECT repeat(''x'', 10000)', tags => ARRAY['t'])",
    ];
    let again = [
        "cache_set('<key>', '2')",
        "cache_set('<key>', '2', keep_ttl => true)",
        "cache_touch('<key>', '2 hours')",
        "cache_compare_and_set('<key>', '2', '3')",
        "cache_incr('<key>')",
        "cache_merge('<key>', '{\"b\": repeat}')",
        "cache_get('<key>', '3 hours')",
    ];
    let mut expected = Vec::new();
    for (number, way) in ways.iter().enumerate() {
        for transaction in ["", "in a transaction ", "own "] {
            // Of all lengths.
            let key = format!("k{number:02} {transaction}{}", "y".repeat(number * 13));
            let call = |way: &str| format!("SELECT enough.{}", way.replace("<key>", &key).replace("repeat", "\"z\""));
            if !transaction.is_empty() {
                client.batch_execute("BEGIN")?;
            }
            if transaction == "own " {
                client.batch_execute(&format!("SELECT enough.cache_set('{key}', '0')"))?;
            }
            client.batch_execute(&format!("SELECT enough.{}", way.replace("<key>", &key)))?;
            ensure!(keys(&mut client, &key)? == [key.as_str()], "{way}: its own transaction doesn't see it");
            if !transaction.is_empty() {
                client.batch_execute("COMMIT")?;
            }
            ensure!(keys(&mut client, &key)? == [key.as_str()], "{way}");
            for more in again {
                // What doesn't fit the kind fails, and changes nothing.
                let _ = client.batch_execute(&call(more));
                ensure!(keys(&mut client, &key)? == [key.as_str()], "{way}, then {more}");
            }
            expected.push(key);
        }
    }
    expected.sort();
    ensure!(keys(&mut client, "")? == expected);
    healthy(&server.log(), false)
}

#[test]
fn keys_are_listed_in_pages_by_a_literal_prefix() -> Result<()> {
    let (server, database) = keeping()?;
    let mut client = database.client()?;
    client.batch_execute(
        "SELECT count(enough.cache_set('page:' || i, to_jsonb(i))) FROM generate_series(1, 5000) i;
         SELECT enough.cache_set(k, '1') FROM unnest(ARRAY['%', '_', 'a*', 'a?', 'ab', 'a%', 'ä', 'zz', '', 'Page:1']) k;
         SELECT enough.cache_set_bytes('page:bytes', 'four', '1 hour')",
    )?;
    for (prefix, expected) in [
        ("%", vec!["%"]),
        ("_", vec!["_"]),
        ("a*", vec!["a*"]),
        ("a", vec!["a%", "a*", "a?", "ab"]),
        ("ä", vec!["ä"]),
        ("zzz", vec![]),
        ("Page", vec!["Page:1"]),
    ] {
        ensure!(keys(&mut client, prefix)? == expected, "{prefix}");
    }
    ensure!(keys(&mut client, "")?.len() == 1_000, "the default");
    let mut all: Vec<String> = Vec::new();
    loop {
        let rows =
            client.query("SELECT key FROM enough.cache_keys('page:', $1, 700)", &[&all.last().map(String::as_str)])?;
        if rows.is_empty() {
            break;
        }
        ensure!(rows.len() == 700 || all.len() + rows.len() == 5_001, "{} rows", rows.len());
        all.extend(rows.iter().map(|row| row.get::<_, String>(0)));
    }
    let mut expected: Vec<String> = (1..=5_000).map(|i| format!("page:{i}")).chain(["page:bytes".into()]).collect();
    expected.sort();
    ensure!(all == expected, "{} keys", all.len());
    let row = client.query_one(
        "SELECT bytes, expires_at BETWEEN now() + '59 minutes' AND now() + '1 hour' FROM enough.cache_keys('page:bytes')",
        &[],
    )?;
    ensure!(row.get::<_, i64>(0) == 4 && row.get::<_, bool>(1), "{row:?}");
    ensure!(client.query_one("SELECT expires_at = 'infinity' FROM enough.cache_keys('zz')", &[])?.get::<_, bool>(0));
    // Another database's aren't there.
    let other = Database::on(&server)?;
    ensure!(keys(&mut other.client()?, "")?.is_empty());
    other.client()?.batch_execute("SELECT enough.cache_delete_prefix('')")?;
    ensure!(keys(&mut client, "zz")? == ["zz"]);
    Ok(())
}

#[test]
fn a_transaction_sees_what_it_has_done() -> Result<()> {
    let (_server, database) = keeping()?;
    let (mut client, mut other) = (database.client()?, database.client()?);
    client.batch_execute(
        "SELECT enough.cache_set(k, '1') FROM unnest(ARRAY['a', 'b', 'c', 'd']) k; SELECT enough.cache_set('t', '1', tags => ARRAY['t'])",
    )?;
    let seen = |client: &mut Client| keys(client, "").map(|keys| keys.concat());
    client.batch_execute(
        "BEGIN; SELECT enough.cache_delete('a'), enough.cache_set('e', '1'), enough.cache_set('b', '22', '1 hour'), \
                enough.cache_touch('c', '1 hour'), enough.cache_invalidate('t'), enough.cache_set('f', '1', '1 microsecond')",
    )?;
    ensure!(seen(&mut client)? == "bcde" && seen(&mut other)? == "abcdt");
    let row = client.query_one(
        "SELECT sum(bytes) FILTER (WHERE key = 'b') > sum(bytes) FILTER (WHERE key = 'd'), count(*) FILTER (WHERE expires_at < 'infinity') \
         FROM enough.cache_keys('')",
        &[],
    )?;
    ensure!(row.get::<_, i64>(1) == 2, "{row:?}");
    client.batch_execute("SAVEPOINT s; SELECT enough.cache_clear(), enough.cache_set('g', '1')")?;
    ensure!(seen(&mut client)? == "g");
    client.batch_execute("ROLLBACK TO s")?;
    ensure!(seen(&mut client)? == "bcde");
    let deleted: i64 = client.query_one("SELECT enough.cache_delete_prefix('')", &[])?.get(0);
    ensure!(deleted == 4 && seen(&mut client)?.is_empty() && seen(&mut other)? == "abcdt", "{deleted} were deleted");
    client.batch_execute("ROLLBACK")?;
    ensure!(seen(&mut client)? == "abcdt");
    client.batch_execute("BEGIN; SELECT enough.cache_set('bb', '1'), enough.cache_delete_prefix('b')")?;
    ensure!(seen(&mut client)? == "acdt" && seen(&mut other)? == "abcdt");
    client.batch_execute("COMMIT")?;
    ensure!(seen(&mut other)? == "acdt");
    // What was computed before it is refused, as after cache_delete().
    other.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")?;
    client.batch_execute("SELECT enough.cache_delete_prefix('a')")?;
    other.batch_execute("SELECT enough.cache_set('a', '\"old\"'); COMMIT")?;
    ensure!(seen(&mut client)? == "cdt");
    Ok(())
}

/// A public accident: SCAN and DEL left keys behind while others were written and the table was reorganised.
#[test]
fn no_key_that_was_there_all_the_time_is_left_behind() -> Result<()> {
    let (_server, database) = keeping()?;
    let mut client = database.client()?;
    let stop = Arc::new(AtomicBool::new(false));
    let churns: Vec<_> = (0..2)
        .map(|number| {
            let (churn, stop) = (database.client(), Arc::clone(&stop));
            thread::spawn(move || -> Result<()> {
                let mut churn = churn?;
                while !stop.load(Relaxed) {
                    churn.batch_execute(&format!(
                        "SELECT count(enough.cache_set('churn{number}:' || (random() * 3000)::int, to_jsonb(repeat('x', (random() * 300)::int)))) \
                         FROM generate_series(1, 300); \
                         SELECT count(enough.cache_delete('churn{number}:' || i)) FROM generate_series(1, 20) i"
                    ))?;
                }
                Ok(())
            })
        })
        .collect();
    for round in 0..8 {
        client.batch_execute("SELECT count(enough.cache_set('mine:' || i, '1')) FROM generate_series(1, 2000) i")?;
        let there: i64 = client
            .query_one("SELECT count(*) FROM generate_series(1, 2000) i WHERE enough.cache_exists('mine:' || i)", &[])?
            .get(0);
        let listed: i64 =
            client.query_one("SELECT count(DISTINCT key) FROM enough.cache_keys('mine:', max => 10000)", &[])?.get(0);
        let deleted: i64 = client.query_one("SELECT enough.cache_delete_prefix('mine:')", &[])?.get(0);
        let left: i64 = client
            .query_one("SELECT count(*) FROM generate_series(1, 2000) i WHERE enough.cache_exists('mine:' || i)", &[])?
            .get(0);
        // A few are refused: their fences are shared with keys that the others delete.
        ensure!(
            there > 1_500 && listed == there && deleted == there && left == 0,
            "round {round}: {there}, {listed}, {deleted}, {left}"
        );
    }
    stop.store(true, Relaxed);
    for churn in churns {
        churn.join().map_err(|_| anyhow::anyhow!("a session panicked"))??;
    }
    Ok(())
}

#[test]
fn without_the_setting_it_says_so_and_with_it_new_entries_are_found() -> Result<()> {
    let server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.cache_set('before', '1'), enough.cache_set('again', '1')")?;
    for call in ["cache_keys('')", "cache_delete_prefix('b')"] {
        let hint = refused(client.simple_query(&format!("SELECT enough.{call}")), "55000")?;
        ensure!(hint.contains("enough.cache_keep_keys"), "{hint}");
    }
    client.batch_execute("ALTER SYSTEM SET enough.cache_keep_keys = on")?;
    client.batch_execute("SELECT pg_reload_conf()")?;
    eventually("the setting is on", || {
        Ok((client.query_one("SHOW enough.cache_keep_keys", &[])?.get::<_, String>(0) == "on").then_some(()))
    })?;
    client.batch_execute("SELECT enough.cache_set('after', '1'), enough.cache_set('again', '2')")?;
    ensure!(keys(&mut client, "a")? == ["after", "again"], "what is stored anew is found");
    ensure!(keys(&mut client, "")?.len() == 2);
    let mut plain = database.client_as(&{
        let role = database.role("plain");
        client.batch_execute(&format!("CREATE ROLE {role} LOGIN"))?;
        role
    })?;
    for call in ["cache_keys('')", "cache_delete_prefix('b')"] {
        refused(plain.simple_query(&format!("SELECT enough.{call}")), "42501")?;
    }
    Ok(())
}

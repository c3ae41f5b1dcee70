//! What a transaction keeps is never more than the cache could hold, shows among its session's memory contexts, and is
//! given back.

use anyhow::{Result, ensure};
use enough_pg_test::check::healthy;
use enough_pg_test::server::{self, Database};
use postgres::Client;
use serde_json::Value;
use std::time::{Duration, Instant};
use xtask::server::Server;

/// `enough.cache_memory` here.
const CACHE: i64 = 4 << 20;

fn server() -> Result<(Server, Database)> {
    let options = server::options()?.conf("enough.cache_memory", "4MB").conf("enough.cache_max_value", "512kB");
    let server = server::start(&options)?;
    let database = Database::on(&server)?;
    Ok((server, database))
}

/// Bytes of the session's own memory context.
fn kept(client: &mut Client) -> Result<i64> {
    let row = client.query_one(
        "SELECT coalesce(sum(total_bytes), 0)::bigint FROM pg_backend_memory_contexts WHERE name = 'pg_enough'",
        &[],
    )?;
    Ok(row.get(0))
}

fn there(client: &mut Client, key: &str) -> Result<bool> {
    Ok(client.query_one("SELECT enough.cache_exists($1)", &[&key])?.get(0))
}

#[test]
fn a_transaction_keeps_no_more_than_the_cache_could_hold() -> Result<()> {
    let (server, database) = server()?;
    let mut client = database.client()?;
    let mut other = database.client()?;
    let before = kept(&mut client)?;
    client.batch_execute("BEGIN")?;
    client.batch_execute(
        "SELECT count(enough.cache_set('k' || i, to_jsonb(repeat('x', 100000)))) FROM generate_series(1, 8000) i",
    )?;
    let most = kept(&mut client)?;
    ensure!(most > CACHE / 2, "{most} bytes: it doesn't show");
    // What is used, as much again that replaced values have left, and what lists grow by.
    ensure!(most < 4 * CACHE, "{most} bytes are kept");
    ensure!(there(&mut client, "k8000")? && there(&mut client, "k7990")?, "what was written last isn't there");
    ensure!(!there(&mut client, "k1")?, "what was written first should have given way");
    client.batch_execute("COMMIT")?;
    let after = kept(&mut client)?;
    ensure!(after - before < 1 << 20, "{after} bytes are kept after the commit");
    ensure!(there(&mut other, "k8000")? && there(&mut other, "k7990")? && !there(&mut other, "k1")?);
    healthy(&server.log(), false)
}

#[test]
fn what_gave_way_hides_what_others_had_committed() -> Result<()> {
    let (_server, database) = server()?;
    let (mut client, mut other) = (database.client()?, database.client()?);
    other.batch_execute("SELECT enough.cache_set('first', '\"old\"'), enough.cache_set('apart', '\"kept\"')")?;
    client.batch_execute("BEGIN; SELECT enough.cache_set('first', '\"new\"'), enough.cache_set('second', '1')")?;
    client.batch_execute("SAVEPOINT s")?;
    client.batch_execute(
        "SELECT count(enough.cache_set('k' || i, to_jsonb(repeat('x', 100000)))) FROM generate_series(1, 100) i",
    )?;
    for key in ["first", "second"] {
        ensure!(!there(&mut client, key)?, "{key}: what others have committed shows through");
    }
    client.batch_execute("ROLLBACK TO s")?;
    ensure!(!there(&mut client, "first")? && there(&mut client, "apart")?);
    client.batch_execute("SELECT enough.cache_touch('apart', '1 hour')")?;
    ensure!(kept(&mut client)? < CACHE / 4, "the savepoint's memory isn't given back");
    let seen: Value = other.query_one("SELECT enough.cache_get('first')", &[])?.get(0);
    ensure!(seen == "old", "nothing is committed yet");
    client.batch_execute("COMMIT")?;
    ensure!(!there(&mut other, "first")?, "an older value came back");
    Ok(())
}

#[test]
fn more_removals_than_the_cache_has_entries_remove_everything() -> Result<()> {
    let (_server, database) = server()?;
    let (mut client, mut other) = (database.client()?, database.client()?);
    // Not one of them may be forgotten, however many come after it.
    for (removal, victim) in [
        ("SELECT count(enough.cache_delete('k' || i)) FROM generate_series(1, 400000) i", "k1"),
        ("SELECT count(enough.cache_invalidate('t' || i)) FROM generate_series(1, 400000) i", "tagged"),
    ] {
        other.batch_execute(
            "SELECT enough.cache_set('k1', '1'), enough.cache_set('tagged', '1', tags => ARRAY['t1'])",
        )?;
        client.batch_execute("BEGIN")?;
        client.batch_execute(removal)?;
        let most = kept(&mut client)?;
        ensure!(most < 2 * CACHE, "{removal}: {most} bytes are kept");
        ensure!(!there(&mut client, victim)? && there(&mut other, victim)?);
        client.batch_execute("COMMIT")?;
        ensure!(!there(&mut other, victim)?, "{removal}: {victim} is still there");
    }
    // What has no tags stays where tags alone were invalidated.
    other.batch_execute("SELECT enough.cache_set('plain', '1')")?;
    client.batch_execute("SELECT count(enough.cache_invalidate('t' || i)) FROM generate_series(1, 10000) i")?;
    ensure!(there(&mut other, "plain")?);
    Ok(())
}

#[test]
fn savepoints_cost_what_they_hold_and_not_what_is_around_them() -> Result<()> {
    let (_server, database) = server()?;
    let mut client = database.client()?;
    let rounds = |client: &mut Client, keys: i32| -> Result<Duration> {
        client.batch_execute("BEGIN")?;
        client.execute("SELECT count(enough.cache_set('k' || i, '1')) FROM generate_series(1, $1) i", &[&keys])?;
        let began = Instant::now();
        client.batch_execute(
            "DO $$ BEGIN FOR i IN 1 .. 3000 LOOP
                 BEGIN
                     PERFORM enough.cache_set('k' || i, '2'), enough.cache_invalidate('t'), enough.queue_send('q', '1');
                     IF i % 2 = 0 THEN RAISE EXCEPTION 'undone'; END IF;
                 EXCEPTION WHEN raise_exception THEN NULL;
                 END;
             END LOOP; END $$",
        )?;
        let took = began.elapsed();
        client.batch_execute("ROLLBACK")?;
        Ok(took)
    };
    client.batch_execute("SELECT enough.queue_create('q')")?;
    let alone = (0..3).map(|_| rounds(&mut client, 10)).collect::<Result<Vec<_>>>()?;
    let beside = (0..3).map(|_| rounds(&mut client, 30_000)).collect::<Result<Vec<_>>>()?;
    let least = |times: &[Duration]| times.iter().min().copied().unwrap_or_default();
    let (alone, beside) = (least(&alone), least(&beside));
    ensure!(beside < 4 * alone + Duration::from_millis(50), "{beside:?} beside 30,000 keys, {alone:?} beside 10");
    Ok(())
}

#[test]
fn a_list_that_grows_again_and_again_is_given_back() -> Result<()> {
    let (_server, database) = server()?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('q')")?;
    let call = "SELECT enough.cache_mdelete((SELECT array_agg('k' || i) FROM generate_series(1, 20000) i)); \
                SELECT count(enough.queue_send('q', '1')) FROM generate_series(1, 20000); \
                SELECT enough.queue_purge('q')";
    client.batch_execute(call)?;
    let once = kept(&mut client)?;
    for _ in 0..20 {
        client.batch_execute(call)?;
    }
    let often = kept(&mut client)?;
    ensure!(often <= once + (1 << 16), "{once} bytes after one round, {often} after twenty");
    Ok(())
}

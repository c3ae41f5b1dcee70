//! A hot standby has its own cache and limits; after its promotion it has every message.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{eventually, healthy, refused};
use enough_pg_test::queue;
use enough_pg_test::server::{self, Database};
use postgres::Client;
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};
use xtask::server::Server;

/// Waits until the standby has what the primary has now.
fn caught_up(primary: &mut Client, standby: &mut Client) -> Result<()> {
    let now: String = primary.query_one("SELECT pg_current_wal_flush_lsn()::text", &[])?.get(0);
    eventually("the standby has caught up", || {
        let there: bool = standby.query_one("SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", &[&now])?.get(0);
        Ok(there.then_some(()))
    })
}

/// Every call of the rate limiter that writes no table, by the policy `calls` of two an hour.
fn limits_hold(client: &mut Client) -> Result<()> {
    for expected in [true, true, false] {
        let row = client.query_one("SELECT allowed FROM enough.rate_limit_by('calls', 'key')", &[])?;
        ensure!(row.get::<_, bool>(0) == expected);
        let row = client.query_one(
            "SELECT bool_and(allowed) FROM enough.rate_limit_all('{a,b}', '{2,9}', '{1 hour,1 hour}')",
            &[],
        )?;
        ensure!(row.get::<_, bool>(0) == expected);
        let row = client.query_one("SELECT granted FROM enough.rate_limit_up_to('up to', 4, '1 hour', 2)", &[])?;
        ensure!(row.get::<_, i32>(0) == if expected { 2 } else { 0 });
        let enforced = client.simple_query("SELECT enough.rate_limit_enforce('enforced', 2, '1 hour')");
        if expected {
            enforced?;
        } else {
            refused(enforced, "PT429")?;
        }
    }
    let row = client.query_one(
        "SELECT (enough.rate_limit_refund('enforced', 2, '1 hour')).remaining, \
                enough.rate_limit_headers('enforced', 2, '1 hour') ->> 'RateLimit' LIKE '%;r=1;%', \
                enough.rate_limit_reset('enforced')",
        &[],
    )?;
    ensure!(row.get::<_, i64>(0) == 1 && row.get(1) && row.get(2), "{row:?}");
    Ok(())
}

/// Nobody tells a standby what the primary removes from its cache, so nothing stays there for longer than a while.
fn ttls_are_bounded(client: &mut Client) -> Result<()> {
    for call in [
        "cache_set('none', '1')",
        "cache_set('none', '1', NULL, 'if_absent')",
        "cache_set('none', '1', NULL, tags => ARRAY['t'])",
        "cache_set('key', '1', NULL, keep_ttl => true)",
        "cache_set('none', to_jsonb(repeat('x', 10000)))",
        "cache_set_bytes('none', 'x')",
        "cache_mset('{\"none\": 1}')",
        "cache_touch('key', NULL)",
        "cache_incr('none')",
        "cache_compare_and_set('key', '1', '2')",
        "cache_fetch('none', NULL, 'SELECT 1')",
    ] {
        let hint = refused(client.simple_query(&format!("SELECT enough.{call}")), "22004");
        ensure!(hint.with_context(|| call.to_owned())?.contains("enough.cache_standby_ttl"), "{call}");
    }
    ensure!(!client.query_one("SELECT enough.cache_exists('none')", &[])?.get::<_, bool>(0));
    let mut left = |call: &str, key: &str, most: &str| -> Result<()> {
        // A session of its own cannot lengthen it.
        client.batch_execute(&format!("SELECT enough.cache_set('old', '1', '1 second'), enough.{call}"))?;
        let query = format!("SELECT enough.cache_expires_at($1) - clock_timestamp() <= '{most}'");
        let bounded: Option<bool> = client.query_one(&query, &[&key])?.get(0);
        ensure!(bounded == Some(true), "{call}: {bounded:?}");
        Ok(())
    };
    for (call, key) in [
        ("cache_set('a', '1', '1 hour')", "a"),
        ("cache_set('a', '1', '1 hour', 'if_absent')", "a"),
        ("cache_set('b', '1', '1 hour', tags => ARRAY['t'])", "b"),
        ("cache_set_bytes('c', 'x', '1 hour')", "c"),
        ("cache_mset('{\"d\": 1}', '1 hour')", "d"),
        ("cache_touch('old', '1 hour')", "old"),
        ("cache_get('old', '1 hour')", "old"),
        ("cache_incr('e', 1, '1 hour')", "e"),
        ("cache_compare_and_set('old', '1', '2', '1 hour')", "old"),
        ("cache_fetch('f', '1 hour', 'SELECT 1')", "f"),
        ("cache_fetch('g', '1 hour', 'SELECT 1', stale_for => '1 hour', stale_if_error => '1 hour')", "g"),
    ] {
        left(call, key, "1 minute")?;
    }
    left("cache_set('h', '1', '1 second')", "h", "1 second")?;
    // Nor is an expired value served for longer.
    client.batch_execute("SELECT enough.cache_fetch('i', '1 ms', 'SELECT 1', stale_if_error => '1 hour')")?;
    std::thread::sleep(std::time::Duration::from_millis(20));
    let fails = "SELECT enough.cache_fetch('i', '1 ms', 'SELECT 1 / 0', stale_if_error => '1 hour')";
    ensure!(client.query_one(fails, &[])?.get::<_, serde_json::Value>(0) == json!(1));
    client.batch_execute("SET enough.cache_standby_ttl = '1 hour'").expect_err("a session has lengthened it");
    Ok(())
}

fn primary() -> Result<(Server, Database, Client)> {
    let server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('q', visibility_timeout => '1 hour', max_attempts => 3)")?;
    Ok((server, database, client))
}

#[test]
fn a_standby_serves_what_needs_no_table_and_takes_over() -> Result<()> {
    let (mut server, database, mut client) = primary()?;
    let mut expected = queue::send_numbers(&mut client, "q", 100)?;
    client.batch_execute(
        "SELECT enough.cache_set('key', '\"of the primary\"'), enough.rate_limit_policy_set('calls', 2, '1 hour')",
    )?;
    let standby = server.standby(&server::options()?)?;
    let on_standby = Database::named(&standby, &database.name);
    let mut other = on_standby.client()?;

    // Both have their own memory.
    ensure!(other.query_one("SELECT enough.cache_get('key')", &[])?.get::<_, Option<serde_json::Value>>(0).is_none());
    other.batch_execute("SELECT enough.cache_set('key', '\"of the standby\"', '1 hour')")?;
    other.batch_execute(
        "SELECT enough.cache_get('key'), enough.cache_touch('key', '1 s'), enough.cache_exists('key')",
    )?;
    other.batch_execute("SELECT enough.cache_touch('key', '1 hour')")?;
    let row = other.query_one("SELECT enough.cache_get('key')", &[])?;
    ensure!(row.get::<_, Option<serde_json::Value>>(0) == Some(json!("of the standby")));
    // Read through as far as the query allows it.
    caught_up(&mut client, &mut other)?;
    for query in ["SELECT count(*) FROM enough.q_q", "SELECT 0"] {
        let row =
            other.query_one("SELECT enough.cache_fetch('fetched', '1 hour', $1, tags => ARRAY['t'])", &[&query])?;
        ensure!(row.get::<_, serde_json::Value>(0) == json!(100));
    }
    refused(
        other.simple_query("SELECT enough.cache_fetch('bad', '1 hour', 'DELETE FROM enough.q_q RETURNING 1')"),
        "25006",
    )?;
    ttls_are_bounded(&mut other)?;
    other.batch_execute("SELECT enough.cache_invalidate('t')")?;
    let row = other.query_one("SELECT enough.cache_get('fetched')", &[])?;
    ensure!(row.get::<_, Option<serde_json::Value>>(0).is_none());
    for expected in [true, false] {
        let row = other.query_one("SELECT allowed FROM enough.rate_limit('key', 1, '1 hour')", &[])?;
        ensure!(row.get::<_, bool>(0) == expected);
    }
    ensure!(client.query_one("SELECT allowed FROM enough.rate_limit('key', 1, '1 hour')", &[])?.get::<_, bool>(0));
    limits_hold(&mut other)?;
    for server in [&mut client, &mut other] {
        // Each has its own semaphores; who waits is woken by the end of a ttl, on a standby, too.
        let row = server.query_one(
            "SELECT enough.semaphore_acquire('s', ttl => '200 ms'), enough.semaphore_acquire('s'), \
                    enough.semaphore_acquire('s', wait => '1 minute', ttl => '1 hour')",
            &[],
        )?;
        let tokens: [Option<i64>; 3] = std::array::from_fn(|column| row.get(column));
        ensure!(tokens[0].is_some() && tokens[1].is_none() && tokens[2] > tokens[0], "{tokens:?}");
        let row = server.query_one(
            "SELECT enough.semaphore_extend('s', $1, '1 hour'), enough.semaphore_release('s', $1)",
            &[&tokens[2]],
        )?;
        ensure!(row.get(0) && row.get(1));
    }

    // Queues are for the primary, and so are the definitions of policies.
    for call in [
        "rate_limit_policy_set('calls', 1, '1 hour')",
        "rate_limit_policy_drop('calls')",
        "queue_send('q', '1')",
        "queue_send_batch('q', ARRAY['1']::jsonb[])",
        "queue_read('q')",
        "queue_read('q', wait => '1 hour')",
        "queue_pop('q')",
        "queue_delete('q', 1)",
        "queue_delete_batch('q', ARRAY[1])",
        "queue_extend('q', 1, '1 hour')",
        "queue_create('new')",
        "queue_drop('q')",
    ] {
        refused(other.simple_query(&format!("SELECT enough.{call}")), "25006")
            .map_err(|error| error.context(call.to_owned()))?;
    }
    refused(other.simple_query("SELECT enough.queue_read('nope')"), "42704")?;
    let row = other.query_one("SELECT ready + leased FROM enough.queue_stats('q')", &[])?;
    ensure!(row.get::<_, i64>(0) == 100);
    other.batch_execute("SELECT * FROM enough.status(); SELECT * FROM enough.maintain()")?;

    // A life on the primary: finished, leased, delivered twice, delayed, not committed.
    let read = queue::read(&mut client, "q", 10)?;
    for message in &read[..3] {
        ensure!(queue::delete(&mut client, "q", message.msg_id, message.lease)?);
    }
    client.execute("SELECT enough.queue_extend('q', $1, '0')", &[&read[3].msg_id])?;
    let twice = queue::read(&mut client, "q", 1)?;
    ensure!(twice[0].msg_id == read[3].msg_id && twice[0].attempts == 2);
    let late: i64 = client.query_one("SELECT enough.queue_send('q', '1', delay => '1 hour')", &[])?.get(0);
    expected.retain(|msg_id| !queue::ids(&read[..3]).contains(msg_id));
    let mut open = database.client()?;
    open.batch_execute("BEGIN; SELECT enough.queue_send('q', '\"uncommitted\"')")?;
    caught_up(&mut client, &mut other)?;

    server.crash()?;
    other.batch_execute("SELECT pg_promote()")?;
    eventually("the standby is a primary", || {
        Ok(other.query_one("SELECT NOT pg_is_in_recovery()", &[])?.get::<_, bool>(0).then_some(()))
    })?;
    let all = queue::read(&mut other, "q", 1000)?;
    ensure!(queue::sorted_ids(&all) == expected, "{} of {} messages", all.len(), expected.len());
    let again = all.iter().find(|message| message.msg_id == read[3].msg_id).map(|message| message.attempts);
    ensure!(again == Some(3), "the count of deliveries came as {again:?}");
    ensure!(queue::stats(&mut other, "q")?.delayed == 1);
    // It goes on where the primary was.
    let next = queue::send(&mut other, "q", &json!("after"))?;
    ensure!(next > late, "a number was given twice");
    ensure!(queue::ids(&queue::read(&mut on_standby.client()?, "q", 10)?) == [next]);
    for message in &all {
        ensure!(queue::delete(&mut other, "q", message.msg_id, message.lease)?);
    }
    healthy(&standby.log(), false)
}

#[test]
fn a_base_backup_has_every_message_and_its_own_memory() -> Result<()> {
    let (server, database, mut client) = primary()?;
    let sent = queue::send_numbers(&mut client, "q", 100)?;
    ensure!(queue::read(&mut client, "q", 50)?.len() == 50);
    client.batch_execute("SELECT enough.cache_set('key', '1')")?;
    let copy = server.from_backup(&server::options()?)?;
    let mut other = Database::named(&copy, &database.name).client()?;
    // Leases live in the memory of the server that gave them.
    ensure!(queue::sorted_ids(&queue::read(&mut other, "q", 1000)?) == sent);
    ensure!(other.query_one("SELECT enough.cache_get('key')", &[])?.get::<_, Option<serde_json::Value>>(0).is_none());
    let started: i64 = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    other.execute("SELECT enough.cache_set('key', to_jsonb($1::bigint))", &[&started])?;
    ensure!(
        client.query_one("SELECT enough.cache_get('key')", &[])?.get::<_, Option<serde_json::Value>>(0)
            == Some(json!(1))
    );
    ensure!(queue::read(&mut client, "q", 1000)?.len() == 50);
    healthy(&copy.log(), false)?;
    healthy(&server.log(), false)
}

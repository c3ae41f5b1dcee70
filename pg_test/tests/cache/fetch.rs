//! Read through by many sessions at once: one of them runs the query, whatever becomes of it.
//!
//! A query that is to take its time waits at a gate, an advisory lock that the test holds, so that nothing here depends
//! on how fast anything is.

use anyhow::{Context, Result, bail, ensure};
use enough_pg_test::check::{self, eventually, refused, state};
use enough_pg_test::server::{self, Database, backend};
use postgres::{Client, Error};
use serde_json::{Value, json};
use std::thread::{self, JoinHandle};
use xtask::server::{Signal, signal};

const CALLERS: usize = 32;

/// What a caller got.
type Got = Result<Option<Value>, Error>;
type Caller = JoinHandle<Got>;

/// What all the tests here need: a count of the runs in the cache itself, which writes nothing, and one that writes.
const SETUP: &str = "
    CREATE SEQUENCE written;
    CREATE FUNCTION gate() RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_xact_lock_shared(4711)';
    CREATE FUNCTION run(kind text) RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE run bigint;
    BEGIN
        IF kind = 'writes' THEN run := nextval('written'); ELSE run := enough.cache_incr('runs'); END IF;
        IF run = 1 THEN
            PERFORM gate();
            IF kind = 'fails' THEN RAISE EXCEPTION 'the first fails'; END IF;
        END IF;
        RETURN run;
    END $$";

fn database() -> Result<Database> {
    let database = Database::new()?;
    database.client()?.batch_execute(SETUP)?;
    Ok(database)
}

/// A call in a session of its own, and that session's process.
fn call(database: &Database, statement: &str) -> Result<(Caller, u32)> {
    let (mut client, statement) = (database.client()?, statement.to_owned());
    let pid = backend(&mut client)?;
    Ok((thread::spawn(move || client.query_one(&statement, &[]).map(|row| row.get(0))), pid))
}

fn ended(caller: Caller) -> Result<Got> {
    caller.join().map_err(|_| anyhow::anyhow!("a caller panicked"))
}

/// A closed gate.
struct Gate(Client);

impl Gate {
    fn shut(database: &Database) -> Result<Self> {
        let mut client = database.client()?;
        client.batch_execute("SELECT pg_advisory_lock(4711)")?;
        Ok(Self(client))
    }

    fn open(mut self) -> Result<()> {
        Ok(self.0.batch_execute("SELECT pg_advisory_unlock(4711)")?)
    }
}

/// Waits until `count` sessions of this database wait for a lock that `condition` describes.
fn until_waiting(client: &mut Client, condition: &str, count: usize) -> Result<()> {
    let query = format!(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND {condition}
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    );
    eventually(&format!("{count} sessions wait"), || {
        let waiting: i64 = client.query_one(&query, &[])?.get(0);
        Ok((usize::try_from(waiting)? == count).then_some(()))
    })
}

const AT_GATE: &str = "objid = 4711 AND objsubid = 1";
const FOR_TURN: &str = "objsubid = 25966";

fn waits(client: &mut Client) -> Result<i64> {
    Ok(client.query_one("SELECT fetch_waits FROM enough.cache_stats()", &[])?.get(0))
}

/// `CALLERS` calls at once, of which the first is in its query and the others wait for it; then `done_to_it`, a function
/// of the server, is called with its process. What the first one and the others got.
fn crowd(database: &Database, kind: &str, done_to_it: Option<&str>) -> Result<(Got, Vec<Option<Value>>)> {
    let mut client = database.client()?;
    let before = waits(&mut client)?;
    let gate = Gate::shut(database)?;
    let statement = format!("SELECT enough.cache_fetch('key', '1 hour', 'SELECT run(''{kind}'')')");
    let (first, pid) = call(database, &statement)?;
    until_waiting(&mut client, AT_GATE, 1)?;
    let others = (1..CALLERS).map(|_| call(database, &statement)).collect::<Result<Vec<_>>>()?;
    until_waiting(&mut client, FOR_TURN, CALLERS - 1)?;
    if let Some(function) = done_to_it {
        client.execute(&format!("SELECT {function}($1)"), &[&i32::try_from(pid)?])?;
    }
    gate.open()?;
    let first = ended(first)?;
    let others = others.into_iter().map(|(other, _)| Ok(ended(other)??)).collect::<Result<_>>()?;
    // The count is the server's, and other tests may wait meanwhile.
    ensure!(waits(&mut client)? - before >= i64::try_from(CALLERS)? - 1, "all but the first have waited");
    ensure!(client.query_one("SELECT enough.cache_get('key')", &[])?.get::<_, Option<Value>>(0).is_some());
    Ok((first, others))
}

#[test]
fn many_misses_at_once_run_the_query_once() -> Result<()> {
    for kind in ["reads", "writes"] {
        let (first, others) = crowd(&database()?, kind, None)?;
        ensure!(first? == Some(json!(1)));
        ensure!(others == vec![Some(json!(1)); CALLERS - 1], "the query that {kind} was run again: {others:?}");
    }
    Ok(())
}

#[test]
fn after_one_that_fails_is_cancelled_or_ended_the_next_computes_and_the_rest_take_that() -> Result<()> {
    let (cancel, terminate) = (Some("pg_cancel_backend"), Some("pg_terminate_backend"));
    let cases = [
        ("fails", None, "P0001"),
        ("reads", cancel, "57014"),
        ("reads", terminate, "57P01"),
        ("writes", cancel, "57014"),
        ("writes", terminate, "57P01"),
    ];
    for (kind, done_to_it, expected) in cases {
        let (first, others) = crowd(&database()?, kind, done_to_it)?;
        let error = first.err().with_context(|| format!("a query that {kind}: no {expected}"))?;
        ensure!(state(&error) == expected || done_to_it == terminate && check::is_lost(&error), "{expected}: {error}");
        ensure!(others == vec![Some(json!(2)); CALLERS - 1], "{expected}: the others got {others:?}");
    }
    Ok(())
}

#[test]
fn after_a_crash_in_the_middle_it_computes_anew() -> Result<()> {
    let server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute(SETUP)?;
    let _gate = Gate::shut(&database)?;
    let statement = "SELECT enough.cache_fetch('key', '1 hour', 'SELECT run(''reads'')')";
    let (first, pid) = call(&database, statement)?;
    until_waiting(&mut client, AT_GATE, 1)?;
    let (second, _) = call(&database, statement)?;
    until_waiting(&mut client, FOR_TURN, 1)?;
    signal(pid, Signal::SIGKILL)?;
    ensure!(ended(first)?.is_err_and(|error| check::is_lost(&error)));
    ensure!(ended(second)?.is_err_and(|error| check::is_lost(&error)));
    // Its memory is new, so this is the first run again; the gate is open, because its holder is gone, too.
    let again = eventually("the server is back", || Ok(database.client().ok()))?.query_one(statement, &[])?;
    ensure!(again.get::<_, Value>(0) == json!(1));
    check::healthy(&server.log(), true)
}

#[test]
fn an_expired_value_serves_while_another_session_computes() -> Result<()> {
    for kind in ["reads", "writes"] {
        let database = database()?;
        let mut client = database.client()?;
        let fetch = |ttl: &str, query: &str, stale_for: &str| {
            format!("SELECT enough.cache_fetch('key', '{ttl}', '{query}', stale_for => '{stale_for}')")
        };
        let written = if kind == "writes" { "WITH n AS (SELECT nextval(''written'')) " } else { "" };
        client.batch_execute("SELECT nextval('written')")?;
        let old = format!("{written}SELECT to_jsonb(''old''::text){}", if written.is_empty() { "" } else { " FROM n" });
        client.batch_execute(&fetch("1 microsecond", &old, "1 hour"))?;
        client.batch_execute("SELECT setval('written', 1, false)")?;
        let gate = Gate::shut(&database)?;
        let query = format!("SELECT run(''{kind}'')");
        let (first, _) = call(&database, &fetch("1 hour", &query, "1 hour"))?;
        until_waiting(&mut client, AT_GATE, 1)?;
        for _ in 0..3 {
            let served: Value = client.query_one(&fetch("1 hour", &query, "1 hour"), &[])?.get(0);
            ensure!(served == json!("old"), "a query that {kind}: {served}");
            let gone: Option<Value> = client.query_one("SELECT enough.cache_get('key')", &[])?.get(0);
            ensure!(gone.is_none(), "what has expired is for cache_fetch alone");
        }
        // Who takes nothing so old waits.
        let (second, _) = call(&database, &fetch("1 hour", &query, "1 microsecond"))?;
        until_waiting(&mut client, FOR_TURN, 1)?;
        // And nobody takes what has been invalidated.
        client.batch_execute("SELECT enough.cache_delete('key')")?;
        let (third, _) = call(&database, &fetch("1 hour", &query, "1 hour"))?;
        until_waiting(&mut client, FOR_TURN, 2)?;
        gate.open()?;
        ensure!(ended(first)?? == Some(json!(1)), "the value is its caller's also where it isn't stored");
        // It was computed from before the deletion, so it isn't theirs.
        let later = [ended(second)??, ended(third)??];
        ensure!(later == [Some(json!(2)), Some(json!(2))], "a query that {kind}: {later:?}");
    }
    Ok(())
}

/// Else it would be in there for another hour.
#[test]
fn a_value_that_is_made_of_another_waits_rather_than_take_an_expired_one() -> Result<()> {
    let database = database()?;
    let mut client = database.client()?;
    let fetch = |ttl: &str, query: &str| {
        format!("SELECT enough.cache_fetch('key', '{ttl}', $${query}$$, stale_for => '1 hour')")
    };
    client.batch_execute(&fetch("1 microsecond", "SELECT 'old'::text"))?;
    let gate = Gate::shut(&database)?;
    let inner = fetch("1 hour", "SELECT run('reads')");
    let (first, _) = call(&database, &inner)?;
    until_waiting(&mut client, AT_GATE, 1)?;
    let (outer, _) = call(&database, &format!("SELECT enough.cache_fetch('outer', '1 hour', $o${inner}$o$)"))?;
    until_waiting(&mut client, FOR_TURN, 1)?;
    gate.open()?;
    let values = [ended(first)??, ended(outer)??];
    ensure!(values == [Some(json!(1)), Some(json!(1))], "{values:?}");
    Ok(())
}

#[test]
fn a_value_computed_while_its_tag_is_invalidated_is_not_stored() -> Result<()> {
    let database = database()?;
    let mut client = database.client()?;
    client.batch_execute("CREATE TABLE t AS SELECT 1 AS v; SELECT enough.cache_tag_table('t')")?;
    let stale = "SELECT stale_fills_refused FROM enough.cache_stats()";
    let before: i64 = client.query_one(stale, &[])?.get(0);
    let gate = Gate::shut(&database)?;
    let statement = "SELECT enough.cache_fetch('key', '1 hour', 'SELECT t.v FROM t, gate()', tags => ARRAY['t'])";
    let (first, _) = call(&database, statement)?;
    until_waiting(&mut client, AT_GATE, 1)?;
    client.batch_execute("UPDATE t SET v = 2")?;
    gate.open()?;
    ensure!(ended(first)?? == Some(json!(1)));
    let cached: Option<Value> = client.query_one("SELECT enough.cache_get('key')", &[])?.get(0);
    ensure!(cached.is_none(), "the cache has {cached:?}");
    ensure!(client.query_one(stale, &[])?.get::<_, i64>(0) == before + 1);
    ensure!(client.query_one(statement, &[])?.get::<_, Value>(0) == json!(2));
    // An old transaction's query sees the table as it is now, where each statement has a snapshot of its own.
    client.batch_execute("BEGIN; SELECT enough.cache_get('another')")?;
    database.client()?.batch_execute("UPDATE t SET v = 3")?;
    ensure!(client.query_one(statement, &[])?.get::<_, Value>(0) == json!(3));
    client.batch_execute("COMMIT")?;
    let cached: Option<Value> = client.query_one("SELECT enough.cache_get('key')", &[])?.get(0);
    ensure!(cached == Some(json!(3)), "the cache has {cached:?}");
    Ok(())
}

#[test]
fn who_waits_can_be_cancelled_and_has_no_part_in_it_any_more() -> Result<()> {
    let database = database()?;
    let mut client = database.client()?;
    let gate = Gate::shut(&database)?;
    let statement = "SELECT enough.cache_fetch('key', '1 hour', 'SELECT run(''reads'')')";
    let (first, _) = call(&database, statement)?;
    until_waiting(&mut client, AT_GATE, 1)?;
    let (second, pid) = call(&database, statement)?;
    until_waiting(&mut client, FOR_TURN, 1)?;
    client.execute("SELECT pg_cancel_backend($1)", &[&i32::try_from(pid)?])?;
    refused(ended(second)?, "57014")?;
    gate.open()?;
    ensure!(ended(first)?? == Some(json!(1)));
    Ok(())
}

#[test]
fn sessions_that_need_each_others_values_dont_wait_forever() -> Result<()> {
    let database = database()?;
    let mut client = database.client()?;
    client.batch_execute(
        "CREATE FUNCTION fetched(key text, other text) RETURNS jsonb LANGUAGE sql AS $$
             SELECT enough.cache_fetch(key, '1 hour', format('SELECT fetched(%L, %L) FROM gate()', other, key))
         $$",
    )?;
    let gate = Gate::shut(&database)?;
    let (one, _) = call(&database, "SELECT fetched('a', 'b')")?;
    let (two, _) = call(&database, "SELECT fetched('b', 'a')")?;
    until_waiting(&mut client, AT_GATE, 2)?;
    gate.open()?;
    let mut states = Vec::new();
    for caller in [one, two] {
        match ended(caller)? {
            Ok(value) => bail!("a value that needs itself is {value:?}"),
            Err(error) => states.push(state(&error).to_owned()),
        }
    }
    states.sort();
    ensure!(states == ["22023", "40P01"], "{states:?}");
    Ok(())
}

#[test]
fn one_that_had_written_before_keeps_nobody_waiting() -> Result<()> {
    let database = database()?;
    let (mut open, mut client) = (database.client()?, database.client()?);
    let statement = "SELECT enough.cache_fetch('key', '1 hour', 'SELECT count(*) FROM t')";
    client.batch_execute("CREATE TABLE t ()")?;
    open.batch_execute("BEGIN; INSERT INTO t DEFAULT VALUES")?;
    ensure!(open.query_one(statement, &[])?.get::<_, Value>(0) == json!(1));
    ensure!(client.query_one(statement, &[])?.get::<_, Value>(0) == json!(0), "uncommitted rows were seen");
    open.batch_execute("COMMIT")?;
    ensure!(client.query_one(statement, &[])?.get::<_, Value>(0) == json!(1), "it is stored at the commit");
    Ok(())
}

fn uncached(client: &mut Client) -> Result<i64> {
    Ok(client.query_one("SELECT fetch_uncached FROM enough.cache_stats()", &[])?.get(0))
}

#[test]
fn a_value_over_the_limit_is_its_callers_and_makes_nobody_wait() -> Result<()> {
    let database = database()?;
    let mut client = database.client()?;
    let before = uncached(&mut client)?;
    // Of two megabytes, with the number of the run in front.
    let large = |gate: &str| {
        format!(
            "SELECT octet_length(enough.cache_fetch('key', '1 hour', \
             'SELECT enough.cache_incr(''runs'') || repeat(''x'', 2000000){gate}')::text)"
        )
    };
    let statement = large("");
    for _ in 0..2 {
        ensure!(client.query_one(&statement, &[])?.get::<_, i32>(0) > 2_000_000);
        ensure!(client.query_one("SELECT enough.cache_get('key')", &[])?.get::<_, Option<Value>>(0).is_none());
    }
    for own_writes in ["SELECT nextval('written')", "SELECT enough.cache_delete('key')"] {
        client.batch_execute(&format!("BEGIN; {own_writes}"))?;
        ensure!(client.query_one(&statement, &[])?.get::<_, i32>(0) > 2_000_000);
        client.batch_execute("COMMIT")?;
        ensure!(client.query_one("SELECT enough.cache_get('key')", &[])?.get::<_, Option<Value>>(0).is_none());
    }
    ensure!(uncached(&mut client)? >= before + 4);
    // The second caller doesn't wait for the first one, who is in its query.
    let gate = Gate::shut(&database)?;
    let slow = large(" FROM gate()").replace("::text)", "::text) AS octet_length");
    let mut session = database.client()?;
    let first = thread::spawn(move || session.query_one(&slow, &[]).map(|row| row.get::<_, i32>(0)));
    until_waiting(&mut client, AT_GATE, 1)?;
    ensure!(client.query_one(&statement, &[])?.get::<_, i32>(0) > 2_000_000);
    gate.open()?;
    ensure!(first.join().map_err(|_| anyhow::anyhow!("the first panicked"))?? > 2_000_000);
    // What fits by now is stored.
    client.batch_execute("SELECT enough.cache_fetch('key', '1 hour', 'SELECT 1')")?;
    let stored: Option<Value> = client.query_one("SELECT enough.cache_get('key')", &[])?.get(0);
    ensure!(stored == Some(json!(1)));
    Ok(())
}

/// A call whose query fails where `fails` says so.
fn failing(fails: &str, ttl: &str, arguments: &str) -> String {
    format!("SELECT enough.cache_fetch('key', '{ttl}', 'SELECT enough.cache_incr(''tried'') / {fails}'{arguments})")
}

#[test]
fn where_the_query_fails_an_expired_value_may_serve() -> Result<()> {
    let database = database()?;
    let mut client = database.client()?;
    let got = |client: &mut Client, statement: &str| -> Result<Value, Error> {
        client.query_one(statement, &[]).map(|row| row.get(0))
    };
    let tried = |client: &mut Client| got(client, "SELECT enough.cache_get('tried')");
    let stale = ", stale_if_error => '1 hour'";
    // Nothing there yet: the error is the caller's.
    refused(got(&mut client, &failing("0", "1 ms", stale)), "22012")?;
    ensure!(got(&mut client, &failing("1", "1 ms", stale))? == json!(2));
    thread::sleep(std::time::Duration::from_millis(20));
    ensure!(client.query_one("SELECT enough.cache_get('key')", &[])?.get::<_, Option<Value>>(0).is_none());
    // Who doesn't ask for it gets the error, also for what has been over for too long.
    refused(got(&mut client, &failing("0", "1 ms", "")), "22012")?;
    refused(got(&mut client, &failing("0", "1 ms", ", stale_if_error => '1 ms'")), "22012")?;
    ensure!(got(&mut client, &failing("0", "1 ms", stale))? == json!(2));
    let before = tried(&mut client)?;
    // For a while nobody tries again, and nobody waits.
    for _ in 0..3 {
        ensure!(got(&mut client, &failing("0", "1 ms", stale))? == json!(2));
    }
    ensure!(tried(&mut client)? == before, "the query was tried again at once");
    ensure!(got(&mut client, &failing("0", "1 ms", "")).is_err(), "who doesn't take an old value tries");
    eventually("it is tried again", || {
        ensure!(got(&mut client, &failing("0", "1 ms", stale))? == json!(2));
        Ok((tried(&mut client)? != before).then_some(()))
    })?;
    // What the query has done before it failed is undone; the rest of the transaction isn't.
    client.batch_execute(
        "CREATE TABLE t (v int); SELECT pg_sleep(1.1); BEGIN; INSERT INTO t VALUES (1); SELECT enough.cache_set('own', '1')",
    )?;
    let writes = "SELECT enough.cache_fetch('key', '1 ms', \
                  'WITH w AS (INSERT INTO t VALUES (2) RETURNING enough.cache_set(''inner'', ''1'')::int) SELECT 1 / (count(*) - 1) FROM w', \
                  stale_if_error => '1 hour')";
    ensure!(got(&mut client, writes)? == json!(2));
    client.batch_execute("COMMIT")?;
    let row = client.query_one(
        "SELECT (SELECT array_agg(v) FROM t), enough.cache_exists('own'), enough.cache_exists('inner')",
        &[],
    )?;
    let found: (Vec<i32>, bool, bool) = (row.get(0), row.get(1), row.get(2));
    ensure!(found == (vec![1], true, false), "{found:?}");
    // Removed is removed, and a cancel is no failure.
    client.batch_execute("SELECT pg_sleep(1.1); SET statement_timeout = '100 ms'")?;
    let sleeps = "SELECT enough.cache_fetch('key', '1 ms', 'SELECT 1 FROM pg_sleep(60)', stale_if_error => '1 hour')";
    refused(got(&mut client, sleeps), "57014")?;
    client.batch_execute("RESET statement_timeout; SELECT enough.cache_delete('key')")?;
    refused(got(&mut client, &failing("0", "1 ms", stale)), "22012")?;
    Ok(())
}

#[test]
fn of_many_callers_of_a_query_that_fails_one_tries() -> Result<()> {
    let database = database()?;
    let mut client = database.client()?;
    client.batch_execute(
        "SELECT enough.cache_fetch('key', '1 ms', 'SELECT ''old''::text', stale_if_error => '1 hour'); SELECT pg_sleep(0.01)",
    )?;
    let gate = Gate::shut(&database)?;
    let statement = "SELECT enough.cache_fetch('key', '1 hour', 'SELECT run(''fails'')', stale_if_error => '1 hour')";
    let (first, _) = call(&database, statement)?;
    until_waiting(&mut client, AT_GATE, 1)?;
    let others = (1..8).map(|_| call(&database, statement)).collect::<Result<Vec<_>>>()?;
    until_waiting(&mut client, FOR_TURN, 7)?;
    gate.open()?;
    ensure!(ended(first)?? == Some(json!("old")));
    for (other, _) in others {
        ensure!(ended(other)?? == Some(json!("old")));
    }
    let runs: Value = client.query_one("SELECT enough.cache_get('runs')", &[])?.get(0);
    ensure!(runs == json!(1), "the query was tried {runs} times");
    Ok(())
}

//! pgbouncer in transaction mode: what a lease, a heartbeat, a long poll and a prepared statement are behind it.

use crate::trial;
use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{self, eventually, refused};
use enough_pg_test::pgbouncer::{self, PREPARES_SINCE, Pooler, TRANSACTION_MODE};
use enough_pg_test::queue;
use enough_pg_test::server::{Database, backend, shared};
use libtest_mimic::Trial;
use postgres::Client;
use postgres::types::Type;
use serde_json::json;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use xtask::server::{Signal, signal};

/// A test's name, what is missing for it besides a pooler, and the test.
type Test = (&'static str, Option<&'static str>, fn() -> Result<()>);

pub(crate) fn trials() -> Result<Vec<Trial>> {
    let (no_pooler, old) = {
        let server = shared()?;
        if pgbouncer::is_there(&server) {
            let pooler = Pooler::start(&server, &pgbouncer::database("app", &server, "postgres", ""), "")?;
            (None, (pooler.version()? < PREPARES_SINCE).then_some("pgbouncer 1.21"))
        } else {
            (Some("pgbouncer"), None)
        }
    };
    let tests: [Test; 10] = [
        ("any_connection_serves_a_lease", None, any_connection_serves_a_lease),
        ("a_wait_holds_a_connection_of_its_pool_alone", None, a_wait_holds_a_connection_of_its_pool_alone),
        ("a_client_killed_behind_the_pooler_takes_nothing", None, a_client_killed_behind_the_pooler_takes_nothing),
        ("a_cancel_goes_through_the_pooler", None, a_cancel_goes_through_the_pooler),
        ("a_pooler_that_gives_up_on_a_wait_leaves_nothing", None, a_pooler_that_gives_up_on_a_wait_leaves_nothing),
        ("named_statements_need_the_poolers_help", None, named_statements_need_the_poolers_help),
        ("the_pooler_keeps_named_statements", old, the_pooler_keeps_named_statements),
        ("nothing_depends_on_a_sessions_state", None, nothing_depends_on_a_sessions_state),
        ("statements_outlive_the_extension", None, statements_outlive_the_extension),
        ("named_columns_outlive_a_longer_row", None, named_columns_outlive_a_longer_row),
    ];
    let trials = tests.into_iter();
    Ok(trials.map(|(name, missing, test)| trial(&format!("pooler::{name}"), no_pooler.or(missing), test)).collect())
}

/// A database with a queue `q`, and a pooler before it whose pool `app` has `size` connections and `app_waiting` two.
fn made(size: u32, settings: &str) -> Result<(Database, Pooler)> {
    let database = Database::new()?;
    database.client()?.batch_execute("SELECT enough.queue_create('q', visibility_timeout => '1 hour')")?;
    let server = shared()?;
    let pool = |name: &str, size: u32| pgbouncer::database(name, &server, &database.name, &format!("pool_size={size}"));
    let databases = pool("app", size) + &pool("app_waiting", 2);
    let pooler = Pooler::start(&server, &databases, &format!("{TRANSACTION_MODE}{settings}"))?;
    Ok((database, pooler))
}

/// Reads for a lease of a minute, waiting if need be: message and lease.
fn read(client: &mut Client, wait: f64) -> Result<Option<(i64, i64)>, postgres::Error> {
    let sql = "SELECT msg_id, lease FROM enough.queue_read('q', visibility_timeout => '1 minute', wait => make_interval(secs => $1))";
    let rows = client.query_typed(sql, &[(&wait, Type::FLOAT8)])?;
    Ok(rows.first().map(|row| (row.get(0), row.get(1))))
}

fn send(client: &mut Client) -> Result<i64, postgres::Error> {
    Ok(client.query_typed("SELECT enough.queue_send('q', $1)", &[(&json!(1), Type::JSONB)])?[0].get(0))
}

/// Waits until so many sessions of a database sleep in a read.
fn until_waiting(database: &Database, wanted: i64) -> Result<()> {
    let mut client = database.client()?;
    eventually("the readers wait", || {
        let count: i64 = client
            .query_one(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' \
                 AND wait_event_type = 'Extension'",
                &[],
            )?
            .get(0);
        Ok((count == wanted).then_some(()))
    })
}

/// The next message goes to the next reader, as its first delivery, and is the only one.
fn next_is_free(database: &Database) -> Result<()> {
    let mut client = database.client()?;
    let sent = send(&mut client)?;
    let read = queue::read(&mut client, "q", 10)?;
    ensure!(queue::ids(&read) == [sent] && read[0].attempts == 1, "{read:?}");
    ensure!(queue::delete(&mut client, "q", sent, read[0].lease)?);
    Ok(())
}

/// The number of a server connection that `client` has now.
fn backend_now(client: &mut Client) -> Result<i32> {
    Ok(client.query_typed("SELECT pg_backend_pid()", &[])?[0].get(0))
}

fn any_connection_serves_a_lease() -> Result<()> {
    let (database, pooler) = made(2, "")?;
    let (mut reader, mut other) = (pooler.client("app")?, pooler.client("app")?);
    let sent = send(&mut other)?;
    let (msg_id, lease) = read(&mut reader, 0.0)?.context("nothing to read")?;
    ensure!(msg_id == sent);
    // That connection is taken by a transaction of the other client's; what follows runs on the pool's second one.
    let mut transaction = other.transaction()?;
    let taken: i32 = transaction.query_typed("SELECT pg_backend_pid()", &[])?[0].get(0);
    ensure!(backend_now(&mut reader)? != taken, "one connection for two transactions");
    let extend = "SELECT enough.queue_extend('q', $1, '1 hour', $2) > now() + interval '50 minutes'";
    let extended = reader.query_typed(extend, &[(&msg_id, Type::INT8), (&lease, Type::INT8)])?;
    ensure!(extended[0].get::<_, Option<bool>>(0) == Some(true), "the heartbeat found no lease");
    // The client that read is gone, its lease isn't.
    drop(reader);
    let delete = "SELECT enough.queue_delete('q', $1, $2)";
    let deleted = transaction.query_typed(delete, &[(&msg_id, Type::INT8), (&lease, Type::INT8)])?;
    ensure!(deleted[0].get::<_, bool>(0), "the lease was lost");
    transaction.commit()?;
    next_is_free(&database)
}

fn a_wait_holds_a_connection_of_its_pool_alone() -> Result<()> {
    let (database, pooler) = made(2, "")?;
    let wait = |pool: &'static str, seconds: f64| -> Result<_> {
        let mut client = pooler.client(pool)?;
        Ok(thread::spawn(move || read(&mut client, seconds)))
    };
    // In the pool of the others: while two wait, a third client gets no connection.
    let waiting = [wait("app", 2.0)?, wait("app", 2.0)?];
    until_waiting(&database, 2)?;
    let began = Instant::now();
    let mut client = pooler.client("app")?;
    let third = thread::spawn(move || send(&mut client).map(|_| began.elapsed()));
    eventually("the third is in the pooler's queue", || Ok((pooler.queued("app")? == 1).then_some(())))?;
    for reader in waiting {
        reader.join().expect("a reader panicked")?;
    }
    let waited = third.join().expect("the sender panicked")?;
    ensure!(waited > Duration::from_millis(500), "the send came through after {waited:?}");
    queue::drain(&mut database.client()?, "q")?;
    // In a pool of their own: sends go at once, and each wakes a reader.
    let waiting = [wait("app_waiting", 600.0)?, wait("app_waiting", 600.0)?];
    until_waiting(&database, 2)?;
    let mut client = pooler.client("app")?;
    let sent = [send(&mut client)?, send(&mut client)?];
    let mut got = Vec::new();
    for reader in waiting {
        got.extend(reader.join().expect("a reader panicked")?.map(|(msg_id, _)| msg_id));
    }
    got.sort_unstable();
    ensure!(got == sent, "{got:?} of {sent:?}");
    Ok(())
}

fn a_client_killed_behind_the_pooler_takes_nothing() -> Result<()> {
    let (database, pooler) = made(2, "")?;
    let mut psql = psql_that_reads(&pooler)?;
    until_waiting(&database, 1)?;
    psql.kill()?;
    psql.wait()?;
    // The pooler sees it, closes the server's connection, and the server sees that.
    until_waiting(&database, 0)?;
    next_is_free(&database)?;
    // Its place in the pool is free, too.
    let mut client = pooler.client("app")?;
    send(&mut client)?;
    ensure!(read(&mut client, 0.0)?.is_some());
    Ok(())
}

/// By psql, which waits until its request was heard. The driver of this program doesn't, which pgbouncer 1.18 doesn't survive.
fn a_cancel_goes_through_the_pooler() -> Result<()> {
    let (database, pooler) = made(2, "")?;
    let psql = psql_that_reads(&pooler)?;
    until_waiting(&database, 1)?;
    signal(psql.id(), Signal::SIGINT)?;
    let output = psql.wait_with_output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(error.contains("57014: canceling statement due to user request"), "{error}");
    until_waiting(&database, 0)?;
    next_is_free(&database)?;
    send(&mut pooler.client("app")?)?;
    Ok(())
}

/// A psql that waits for a message behind the pooler, for an hour.
fn psql_that_reads(pooler: &Pooler) -> Result<Child> {
    let mut psql = shared()?.command("psql")?;
    psql.env("PGHOST", "127.0.0.1").env("PGPORT", pooler.port().to_string());
    psql.args(["-X", "-v", "VERBOSITY=verbose", "-d", "app"]);
    psql.args(["-c", "SELECT * FROM enough.queue_read('q', wait => '1 hour')"]);
    psql.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    Ok(psql.spawn()?)
}

fn a_pooler_that_gives_up_on_a_wait_leaves_nothing() -> Result<()> {
    let (database, pooler) = made(2, "query_timeout = 1")?;
    let began = Instant::now();
    let error = read(&mut pooler.client("app")?, 600.0).err().context("the pooler let it wait")?;
    ensure!(began.elapsed() < Duration::from_mins(1), "{error}");
    until_waiting(&database, 0)?;
    next_is_free(&database)
}

/// Calls by a name, that of a statement which this client has prepared, while the pool's connections change.
fn by_name(pooler: &Pooler) -> Result<()> {
    let (mut client, mut other) = (pooler.client("app")?, pooler.client("app")?);
    let statement = client.prepare("SELECT enough.cache_get($1), pg_backend_pid()")?;
    let first: i32 = client.query_one(&statement, &[&"k"])?.get(1);
    // The pool hands out the connection that came back last: taken by another client, it isn't there.
    let mut transaction = other.transaction()?;
    let taken: i32 = transaction.query_typed("SELECT pg_backend_pid()", &[])?[0].get(0);
    let second: i32 = client.query_one(&statement, &[&"k"])?.get(1);
    ensure!(taken == first && second != first, "{taken} {first} {second}");
    transaction.rollback()?;
    Ok(())
}

fn named_statements_need_the_poolers_help() -> Result<()> {
    let (_database, pooler) = made(2, "")?;
    let settings = if pooler.version()? < PREPARES_SINCE { "" } else { "max_prepared_statements = 0" };
    let (_database, pooler) = made(2, settings)?;
    let error = by_name(&pooler).err().context("a prepared statement was found on another connection")?;
    let state = error.downcast_ref::<postgres::Error>().map(check::state).unwrap_or_default().to_owned();
    ensure!(state == "26000", "{error:?}");
    // What has no name works, whatever the connection.
    let mut clients = [pooler.client("app")?, pooler.client("app")?];
    for n in 0..20 {
        let client = &mut clients[n % 2];
        client.query_typed("SELECT enough.cache_set($1, $2)", &[(&"k", Type::TEXT), (&json!(n), Type::JSONB)])?;
        send(client)?;
        let (msg_id, lease) = read(client, 0.0)?.context("nothing to read")?;
        let message: [(&(dyn postgres::types::ToSql + Sync), Type); 2] = [(&msg_id, Type::INT8), (&lease, Type::INT8)];
        ensure!(client.query_typed("SELECT enough.queue_delete('q', $1, $2)", &message)?[0].get::<_, bool>(0));
    }
    Ok(())
}

fn the_pooler_keeps_named_statements() -> Result<()> {
    let (database, pooler) = made(2, "max_prepared_statements = 100")?;
    by_name(&pooler)?;
    // A worker's life by named statements, each call on the connection that another client has left it.
    let (mut worker, mut other) = (pooler.client("app")?, pooler.client("app")?);
    let mut read = worker.prepare(
        "SELECT msg_id, lease, pg_backend_pid() FROM enough.queue_read('q', wait => make_interval(secs => $1))",
    )?;
    let extend = worker.prepare("SELECT enough.queue_extend('q', $1, '1 hour', $2) IS NOT NULL, pg_backend_pid()")?;
    let delete = worker.prepare("SELECT enough.queue_delete('q', $1, $2), pg_backend_pid()")?;
    let mut served = Vec::new();
    for _ in 0..2 {
        // The wait begins before there is anything to read.
        let waiting = thread::spawn(move || {
            let rows = worker.query(&read, &[&60.0]);
            (worker, read, rows)
        });
        until_waiting(&database, 1)?;
        let sent = send(&mut other)?;
        let rows;
        (worker, read, rows) = waiting.join().expect("the worker panicked");
        let row = rows?.pop().context("nothing was read")?;
        let (msg_id, lease): (i64, i64) = (row.get(0), row.get(1));
        ensure!(msg_id == sent);
        served.push(row.get::<_, i32>(2));
        for statement in [&extend, &delete] {
            // A transaction of the other client's takes the connection that the worker has had last.
            let mut transaction = other.transaction()?;
            transaction.query_typed("SELECT 1", &[])?;
            let row = worker.query_one(statement, &[&msg_id, &lease])?;
            ensure!(row.get::<_, bool>(0), "the lease was lost");
            served.push(row.get(1));
            transaction.commit()?;
        }
    }
    served.dedup();
    ensure!(served.len() > 1, "one connection served all: {served:?}");
    next_is_free(&database)
}

fn nothing_depends_on_a_sessions_state() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('q')")?;
    queue::send(&mut client, "q", &json!(1))?;
    client.batch_execute("SELECT enough.cache_set('k', '1'); SELECT * FROM enough.rate_limit('k', 1, '1 hour')")?;
    let read = queue::read(&mut client, "q", 1)?;
    // What poolers run between two clients: it ends advisory locks, prepared statements, settings and temporary tables.
    client.batch_execute("DISCARD ALL")?;
    let row = client.query_one(
        "SELECT enough.cache_get('k') = '1', (enough.rate_limit_peek('k', 1, '1 hour')).allowed, \
         enough.queue_delete('q', $1, $2)",
        &[&read[0].msg_id, &read[0].lease],
    )?;
    let answers: (bool, bool, bool) = (row.get(0), row.get(1), row.get(2));
    ensure!(answers == (true, false, true), "{answers:?}");
    Ok(())
}

fn statements_outlive_the_extension() -> Result<()> {
    let database = Database::new()?;
    let (mut client, mut admin) = (database.client()?, database.client()?);
    admin.batch_execute("SELECT enough.queue_create('q')")?;
    let send = client.prepare("SELECT enough.queue_send('q', $1)")?;
    let read = client.prepare("SELECT msg_id, message FROM enough.queue_read('q')")?;
    let get = client.prepare("SELECT enough.cache_get('k')")?;
    for round in 0..3 {
        client.query_one(&send, &[&json!(round)])?;
        let row = client.query_one(&read, &[])?;
        ensure!(row.get::<_, serde_json::Value>(1) == json!(round));
        client.query_one(&get, &[])?;
        let pid = backend(&mut client)?;
        admin.batch_execute(
            "DROP EXTENSION pg_enough CASCADE; DROP SCHEMA IF EXISTS enough CASCADE; CREATE EXTENSION pg_enough; \
             SELECT enough.queue_create('q')",
        )?;
        ensure!(backend(&mut client)? == pid, "the session was lost");
    }
    Ok(())
}

/// The documents' advice: name the columns. A statement with `*` fails once its function returns another column.
fn named_columns_outlive_a_longer_row() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute("CREATE FUNCTION f() RETURNS TABLE (a int) LANGUAGE sql AS 'SELECT 1'")?;
    let (all, named) = (client.prepare("SELECT * FROM f()")?, client.prepare("SELECT a FROM f()")?);
    let mut admin = database.client()?;
    admin.batch_execute(
        "DROP FUNCTION f(); CREATE FUNCTION f() RETURNS TABLE (a int, b int) LANGUAGE sql AS 'SELECT 1, 2'",
    )?;
    client.query_one(&named, &[])?;
    refused(client.query_one(&all, &[]), "0A000")?;
    Ok(())
}

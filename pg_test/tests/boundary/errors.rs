//! Errors that the server raises while a function of the extension runs statements of its own or of the user's: they
//! arrive as if the statement had been run by hand.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::healthy;
use enough_pg_test::server::{self, Database};
use postgres::Client;
use postgres::error::{DbError, ErrorPosition};
use std::time::{Duration, Instant};
use xtask::server::Server;

/// Raises an error with everything in it where a row says so.
const RAISING: &str = "
    CREATE FUNCTION raise() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'no room for %', NEW.message USING
            ERRCODE = 'EN042', DETAIL = 'the detail', HINT = 'the hint', SCHEMA = 'a schema', TABLE = 'a table',
            COLUMN = 'a column', DATATYPE = 'a type', CONSTRAINT = 'a constraint';
    END $$";

fn made() -> Result<(Server, Database, Client)> {
    let server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('q')")?;
    client.batch_execute(RAISING)?;
    Ok((server, database, client))
}

fn error_of(client: &mut Client, statement: &str) -> Result<DbError> {
    let error = client.simple_query(statement).err().with_context(|| format!("no error from {statement}"))?;
    error.as_db_error().cloned().with_context(|| format!("not the server's error: {error}"))
}

/// What a client is told, without the context.
fn told(error: &DbError) -> [Option<String>; 9] {
    let some = |text: Option<&str>| text.map(str::to_owned);
    [
        Some(error.code().code().to_owned()),
        Some(error.message().to_owned()),
        some(error.detail()),
        some(error.hint()),
        some(error.schema()),
        some(error.table()),
        some(error.column()),
        some(error.datatype()),
        some(error.constraint()),
    ]
}

#[test]
fn a_triggers_error_keeps_all_of_its_fields() -> Result<()> {
    let (server, _database, mut client) = made()?;
    client.batch_execute(
        "CREATE TRIGGER raise BEFORE INSERT OR UPDATE ON enough.q_q FOR EACH ROW EXECUTE FUNCTION raise(); \
         CREATE TABLE plain (message jsonb); \
         CREATE TRIGGER raise BEFORE INSERT ON plain FOR EACH ROW EXECUTE FUNCTION raise()",
    )?;
    let by_hand = error_of(&mut client, "INSERT INTO plain VALUES ('7')")?;
    ensure!(by_hand.code().code() == "EN042" && by_hand.constraint() == Some("a constraint"), "{by_hand:?}");
    for call in [
        "enough.queue_send('q', '7')",
        "enough.queue_send('q', '7', dedup_key => 'k')",
        "enough.queue_send_batch('q', ARRAY['7']::jsonb[])",
        "enough.cache_fetch('k', NULL, 'INSERT INTO plain VALUES (''7'') RETURNING 1')",
    ] {
        let error = error_of(&mut client, &format!("SELECT {call}"))?;
        ensure!(told(&error) == told(&by_hand), "{call}: {error:?}");
        let context = error.where_().unwrap_or_default();
        ensure!(context.contains("PL/pgSQL function raise() line 3 at RAISE"), "{call}: {context}");
        ensure!(context.contains("SQL statement \"INSERT INTO"), "{call}: {context}");
    }
    // Each line of the context once, from the innermost to the outermost.
    client.batch_execute(
        "CREATE FUNCTION outermost() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RETURN enough.queue_send('q', '7'); END $$",
    )?;
    let error = error_of(&mut client, "SELECT enough.cache_fetch('k', NULL, 'SELECT outermost()')")?;
    let context: Vec<&str> = error.where_().unwrap_or_default().lines().collect();
    ensure!(context.len() == 4, "{context:?}");
    ensure!(
        context[0].starts_with("PL/pgSQL function raise()") && context[1].starts_with("SQL statement \"INSERT INTO")
    );
    ensure!(context[2].starts_with("PL/pgSQL function outermost()"), "{context:?}");
    ensure!(context[3] == "SQL statement \"SELECT outermost()\"", "{context:?}");
    healthy(&server.log(), false)
}

#[test]
fn a_constraint_of_the_queues_table_is_named() -> Result<()> {
    let (server, _database, mut client) = made()?;
    // Rows that somebody has put there by hand are in the way of the numbers to come.
    client.batch_execute("INSERT INTO enough.q_q (msg_id, message) SELECT n, '1' FROM generate_series(1, 500) AS n")?;
    for call in ["enough.queue_send('q', '1')", "enough.queue_send_batch('q', array_fill('1'::jsonb, ARRAY[7]))"] {
        let error = error_of(&mut client, &format!("SELECT {call}"))?;
        ensure!(error.code().code() == "23505", "{error:?}");
        ensure!((error.table(), error.constraint()) == (Some("q_q"), Some("i_q_key")), "{error:?}");
        ensure!(error.detail().is_some_and(|detail| detail.starts_with("Key (msg_id)=")), "{error:?}");
    }
    client.batch_execute("ALTER TABLE enough.q_q ADD CONSTRAINT small CHECK (message <> '\"large\"')")?;
    let error = error_of(&mut client, "SELECT enough.queue_send('q', '\"large\"')")?;
    ensure!(error.code().code() == "23514" && error.constraint() == Some("small"), "{error:?}");
    healthy(&server.log(), false)
}

#[test]
fn a_query_that_is_wrong_is_shown_where_it_is() -> Result<()> {
    let (server, _database, mut client) = made()?;
    for (query, at) in [("SELECT 1 +", 11), ("SELECT a FROM nowhere", 15), ("SELECT $2", 8)] {
        let error = error_of(&mut client, &format!("SELECT enough.cache_fetch('k', NULL, '{query}')"))?;
        let Some(ErrorPosition::Internal { position, query: shown }) = error.position() else {
            anyhow::bail!("{query} is not shown: {error:?}");
        };
        ensure!(shown == query && *position == at, "{query}: {position} in {shown}");
    }
    let error = error_of(&mut client, "SELECT enough.cache_fetch('k', NULL, 'SELECT 1 / 0')")?;
    ensure!(error.code().code() == "22012" && error.where_() == Some("SQL statement \"SELECT 1 / 0\""), "{error:?}");
    healthy(&server.log(), false)
}

#[test]
fn an_error_that_was_caught_leaves_no_trace_in_the_next_one() -> Result<()> {
    let (server, _database, mut client) = made()?;
    client.batch_execute(
        "CREATE FUNCTION catching() RETURNS int LANGUAGE plpgsql AS $$ \
         BEGIN PERFORM 1 / 0; RETURN 1; EXCEPTION WHEN division_by_zero THEN RAISE NOTICE 'caught'; RETURN 2; END $$",
    )?;
    let value: serde_json::Value =
        client.query_one("SELECT enough.cache_fetch('k', NULL, 'SELECT catching()')", &[])?.get(0);
    ensure!(value == serde_json::json!(2));
    // An error of the extension's own after one that the server has raised and somebody has caught.
    let error = error_of(&mut client, "SELECT enough.cache_fetch('l', NULL, 'SELECT catching(), 1')")?;
    ensure!(error.code().code() == "22023" && error.where_().is_none(), "{error:?}");
    // Many of them don't pile up.
    client.batch_execute(
        "SELECT enough.cache_fetch('m', NULL, 'SELECT sum(catching()) FROM generate_series(1, 20000)')",
    )?;
    healthy(&server.log(), false)
}

#[test]
fn an_error_from_hundreds_of_calls_within_one_another_arrives_soon() -> Result<()> {
    let (server, _database, mut client) = made()?;
    client.batch_execute(
        "CREATE FUNCTION deep(level int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN \
             RETURN enough.cache_fetch('level ' || level, NULL, format('SELECT deep(%s)', level + 1)); END $$",
    )?;
    let began = Instant::now();
    let error = error_of(&mut client, "SELECT deep(1)")?;
    ensure!(error.code().code() == "54001", "{error:?}");
    let lines = error.where_().unwrap_or_default().lines().filter(|line| line.contains("function deep(")).count();
    ensure!(lines > 100, "{lines} calls within one another");
    ensure!(began.elapsed() < Duration::from_secs(20), "{lines} calls took {:?}", began.elapsed());
    client.batch_execute("SELECT enough.cache_fetch('k', NULL, 'SELECT 1')")?;
    healthy(&server.log(), false)
}

#[test]
fn no_backtrace_reaches_a_client_or_the_log() -> Result<()> {
    let (server, _database, mut client) = made()?;
    // The server's environment asks for backtraces.
    let environment = std::fs::read(format!("/proc/{}/environ", server.pid()?))?;
    ensure!(String::from_utf8_lossy(&environment).contains("RUST_BACKTRACE=1"));
    client.batch_execute("SET log_error_verbosity = verbose; SET client_min_messages = debug1")?;
    for statement in [
        "SELECT enough.cache_fetch('k', NULL, 'SELECT 1 / 0')",
        "SELECT enough.queue_send('nope', '1')",
        "SELECT enough.queue_create('q')",
        "SELECT enough.queue_create('a', archive_for => '1 day'); DROP TABLE enough.a_a; SELECT enough.queue_dead('a')",
    ] {
        let error = error_of(&mut client, statement)?;
        let all = format!("{error:?}");
        ensure!(
            !all.contains("pgrx") && !all.contains("src/") && error.detail().is_none_or(|detail| !detail.is_empty())
        );
    }
    let log = server.log();
    for words in ["pgrx", "std::", "core::", "backtrace", ".rs:"] {
        ensure!(!log.contains(words), "{words} in the log:\n{log}");
    }
    healthy(&log, false)
}

#[test]
fn a_message_from_within_a_critical_section_is_only_told() -> Result<()> {
    // A server with assertions goes down where anything is allocated there.
    let mut server = server::start(&server::options()?)?;
    server.configure("wal_recycle = off")?;
    server.restart(xtask::server::Shutdown::Fast)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('q'); SET log_min_messages = debug2")?;
    // The server says so while it writes a record for which there is no file yet.
    let message = "done creating and filling new WAL file";
    let noise = "(SELECT to_jsonb(string_agg(md5(random()::text), '')) FROM generate_series(1, 20000 + 0 * n))";
    // Within one call, more than the server's buffers for it hold.
    client.batch_execute(&format!(
        "SELECT enough.queue_send_batch('q', array_agg({noise})) FROM generate_series(1, 100) AS n"
    ))?;
    let log = server.log();
    ensure!(log.contains(message), "nothing was said in a critical section");
    healthy(&log, false)
}

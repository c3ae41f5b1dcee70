//! Workers in SQL: `CALL enough.queue_work(...)`.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{PATIENCE, eventually, refused, state};
use enough_pg_test::queue::{self, made};
use enough_pg_test::server::{Database, backend, options, start, until_waiting};
use postgres::{Client, Error};
use serde_json::{Value, json};
use std::thread;
use std::time::{Duration, Instant};

/// A handler whose work is a row of `work`, and which does as the message says.
const HANDLER: &str = "
    CREATE TABLE IF NOT EXISTS work (message jsonb, xid xid8 DEFAULT pg_current_xact_id(), at timestamptz DEFAULT clock_timestamp());
    CREATE TABLE IF NOT EXISTS referred (n int PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS referring (n int REFERENCES referred DEFERRABLE INITIALLY DEFERRED);
    CREATE FUNCTION \"Handle it\"(message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO public.work (message) VALUES (message);
        IF message ? 'sleep' THEN PERFORM pg_sleep((message ->> 'sleep')::float8); END IF;
        IF message ? 'fail' THEN RAISE EXCEPTION '%', message ->> 'fail'; END IF;
        IF message ? 'assert' THEN ASSERT false, 'not so'; END IF;
        IF message ? 'later' THEN INSERT INTO public.referring VALUES (7); END IF;
        RETURN message -> 'result';
    END $$";

fn with_handler(options: &str) -> Result<(Database, Client, Client)> {
    let (database, mut client, other) = made(options)?;
    client.batch_execute(HANDLER)?;
    Ok((database, client, other))
}

fn send(client: &mut Client, messages: &[Value]) -> Result<Vec<i64>> {
    messages.iter().map(|message| Ok(queue::send(client, "q", message)?)).collect()
}

fn work(client: &mut Client, rest: &str) -> Result<(), Error> {
    client.batch_execute(&format!("CALL enough.queue_work('q', '\"Handle it\"'{rest})"))
}

/// State, error and result; an empty state where the message is deleted.
type State = (String, Option<String>, Option<Value>);

fn states(client: &mut Client, ids: &[i64]) -> Result<Vec<State>> {
    let sql = "SELECT state, error, result FROM unnest($1::bigint[]) WITH ORDINALITY AS i (id, n) \
               LEFT JOIN LATERAL enough.queue_status('q', id) ON true ORDER BY n";
    let rows = client.query(sql, &[&ids])?;
    Ok(rows.iter().map(|row| (row.get::<_, Option<_>>(0).unwrap_or_default(), row.get(1), row.get(2))).collect())
}

#[test]
fn each_message_is_handled_with_a_commit_of_its_own() -> Result<()> {
    for batch in [1, 3, 100] {
        let (_database, mut client, mut other) = with_handler(", retry_backoff => '1 hour'")?;
        let ids = send(
            &mut other,
            &[
                json!({"result": {"ok": 1}}),
                json!({"n": 2}),
                json!({"fail": "no luck"}),
                json!({"assert": 1}),
                json!({"later": 1}),
                json!("the last"),
            ],
        )?;
        work(&mut client, &format!(", {batch}, '100 ms'")).with_context(|| batch.to_string())?;
        let states = states(&mut other, &ids)?;
        ensure!(states[0] == ("done".into(), None, Some(json!({"ok": 1}))), "{states:?}");
        ensure!(states[1].0.is_empty() && states[5].0.is_empty(), "{states:?}");
        ensure!(states[2].0 == "delayed" && states[2].1.as_deref() == Some("no luck"), "{states:?}");
        ensure!(states[3].0 == "delayed" && states[3].1.as_deref() == Some("not so"), "{states:?}");
        ensure!(states[4].0 == "delayed" && states[4].1.as_deref().is_some_and(|e| e.contains("referr")), "{states:?}");
        // What failed has left nothing; each that did not has a transaction of its own.
        let row = other.query_one("SELECT count(*), count(DISTINCT xid) FROM work", &[])?;
        ensure!((row.get::<_, i64>(0), row.get::<_, i64>(1)) == (3, 3), "{row:?}");
        ensure!(queue::stats(&mut other, "q")?.leased == 0);
    }
    Ok(())
}

#[test]
fn attempt_by_attempt_a_message_that_fails_becomes_a_dead_letter() -> Result<()> {
    let (_database, mut client, mut other) = with_handler(", max_attempts => 3, retry_backoff => '1 ms'")?;
    let ids = send(&mut other, &[json!({"fail": "never"})])?;
    work(&mut client, ", for_duration => '1 s'")?;
    let states = states(&mut other, &ids)?;
    ensure!(states[0].0 == "dead" && states[0].1.as_deref() == Some("never"), "{states:?}");
    let attempts: i32 = other.query_one("SELECT attempts FROM enough.queue_dead('q')", &[])?.get(0);
    ensure!(attempts == 3);
    Ok(())
}

#[test]
fn it_waits_for_messages_and_ends_in_time_and_gives_back_what_it_has_not_begun() -> Result<()> {
    let (_database, mut client, mut other) = with_handler(", visibility_timeout => '1 hour'")?;
    let began = Instant::now();
    thread::scope(|scope| {
        let worker = scope.spawn(|| work(&mut client, ", 10, '2 seconds'"));
        thread::sleep(Duration::from_millis(300));
        send(&mut other, &[json!(1)])?;
        eventually("the message is handled while the worker waits", || {
            Ok(other.query_opt("SELECT FROM work", &[])?.map(drop))
        })?;
        ensure!(began.elapsed() < Duration::from_secs(2), "it was handled at the end");
        worker.join().map_err(|_| anyhow::anyhow!("the worker panicked"))??;
        Ok(())
    })?;
    ensure!(began.elapsed() >= Duration::from_secs(2) && began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    let slow = json!({"sleep": 0.4});
    send(&mut other, &[slow.clone(), slow.clone(), slow.clone(), slow])?;
    work(&mut client, ", 10, '500 ms'")?;
    let stats = queue::stats(&mut other, "q")?;
    ensure!((stats.ready, stats.leased) == (2, 0), "{stats:?}");
    let left = queue::read(&mut other, "q", 10)?;
    ensure!(left.iter().all(|message| message.attempts == 1), "one not begun counts as delivered: {left:?}");
    // Without any time it handles one.
    other.batch_execute("DELETE FROM enough.q_q; DELETE FROM work")?;
    send(&mut other, &[json!(1), json!(2)])?;
    work(&mut client, ", 10, '0'")?;
    ensure!(queue::stats(&mut other, "q")?.ready == 1);
    Ok(())
}

#[test]
fn leases_of_a_long_batch_are_renewed_and_a_handler_that_is_too_slow_is_undone() -> Result<()> {
    let (_database, mut client, mut other) =
        with_handler(", visibility_timeout => '600 ms', retry_backoff => '1 hour'")?;
    let slow = vec![json!({"sleep": 0.2}); 8];
    send(&mut other, &slow)?;
    work(&mut client, ", 10, '1.5 s'")?;
    let counts = other.query_one("SELECT count(*), (SELECT max(attempts) FROM enough.q_q) FROM work", &[])?;
    ensure!(counts.get::<_, i64>(0) >= 6, "{counts:?}");
    ensure!(counts.get::<_, Option<i32>>(1).unwrap_or(0) == 0, "a lease ran out: {counts:?}");
    other.batch_execute("DELETE FROM enough.q_q; DELETE FROM work")?;
    send(&mut other, &[json!({"sleep": 1.2})])?;
    work(&mut client, ", 1, '0'")?;
    ensure!(other.query("SELECT FROM work", &[])?.is_empty(), "work of a message that others may have");
    ensure!(queue::read(&mut other, "q", 1)?.first().is_some_and(|message| message.attempts == 2));
    Ok(())
}

/// Lets a worker begin a message that takes long, with others of its batch behind, and does something to it: what the call came
/// to.
fn at_work(database: &Database, then: impl FnOnce(&mut Client, i32) -> Result<()>) -> Result<Result<(), Error>> {
    let (mut client, mut other) = (database.client()?, database.client()?);
    send(&mut other, &[json!({"sleep": 30}), json!(2), json!(3)])?;
    let pid = i32::try_from(backend(&mut client)?)?;
    thread::scope(|scope| {
        let worker = scope.spawn(|| work(&mut client, ", 10, '1 hour'"));
        eventually("the handler sleeps", || {
            let sleeps = "SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'";
            Ok(other.query_opt(sleeps, &[&pid])?.map(drop))
        })?;
        then(&mut other, pid)?;
        worker.join().map_err(|_| anyhow::anyhow!("the worker panicked"))
    })
}

#[test]
fn a_worker_that_is_cancelled_holds_nothing() -> Result<()> {
    let (database, _, mut other) = with_handler(", visibility_timeout => '1 hour', retry_backoff => '1 ms'")?;
    let outcome = at_work(&database, |other, pid| {
        other.execute("SELECT pg_cancel_backend($1)", &[&pid])?;
        Ok(())
    })?;
    ensure!(outcome.as_ref().is_err_and(|error| state(error) == "57014"), "{outcome:?}");
    ensure!(other.query("SELECT FROM work", &[])?.is_empty());
    let got = eventually("all three are ready", || {
        Ok((queue::stats(&mut other, "q")?.ready == 3).then_some(()))
            .and_then(|ready| ready.map(|()| queue::read(&mut other, "q", 10)).transpose().map_err(Into::into))
    })?;
    let mut attempts: Vec<i32> = got.iter().map(|message| message.attempts).collect();
    attempts.sort_unstable();
    ensure!(attempts == [1, 1, 2], "{attempts:?}");
    // One that waits has nothing to give back.
    let (mut client, pid) = {
        let mut client = database.client()?;
        let pid = backend(&mut client)?;
        (client, pid)
    };
    let outcome = thread::scope(|scope| {
        let worker = scope.spawn(|| work(&mut client, ", 10, '1 hour'"));
        until_waiting(&mut other, pid)?;
        other.execute("SELECT pg_cancel_backend($1)", &[&i32::try_from(pid)?])?;
        worker.join().map_err(|_| anyhow::anyhow!("the worker panicked"))
    })?;
    ensure!(outcome.as_ref().is_err_and(|error| state(error) == "57014"), "{outcome:?}");
    Ok(())
}

#[test]
fn it_ends_when_its_queue_goes() -> Result<()> {
    // While it waits.
    for change in ["SELECT enough.queue_drop('q')", "SELECT enough.queue_rename('q', 'new')"] {
        let (_database, mut client, mut other) = with_handler("")?;
        let pid = backend(&mut client)?;
        thread::scope(|scope| {
            let worker = scope.spawn(|| work(&mut client, ", 10, '1 hour'"));
            until_waiting(&mut other, pid)?;
            // The first read has no message for it: then the end is one in the middle.
            send(&mut other, &[json!(1)])?;
            eventually("it is handled", || Ok(other.query_opt("SELECT FROM work", &[])?.map(drop)))?;
            until_waiting(&mut other, pid)?;
            other.batch_execute(change)?;
            worker.join().map_err(|_| anyhow::anyhow!("the worker panicked"))?.with_context(|| change.to_owned())
        })?;
        refused(work(&mut client, ""), "42704")?;
    }
    // While a handler is at work.
    let (_database, mut client, mut other) = with_handler("")?;
    client.batch_execute(
        "CREATE OR REPLACE FUNCTION \"Handle it\"(message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ \
         BEGIN INSERT INTO public.work VALUES (message); PERFORM enough.queue_drop('q'); RETURN NULL; END $$",
    )?;
    send(&mut other, &[json!(1), json!(2)])?;
    // The handler's own drop goes with its failure: the queue is there, and the message with its error.
    work(&mut client, ", 1, '0'")?;
    let error: Option<String> = other.query_one("SELECT error FROM enough.queue_status('q', 1)", &[])?.get(0);
    ensure!(error.is_some_and(|error| error.contains("does not exist")));
    Ok(())
}

#[test]
fn a_call_that_cannot_work_says_why_and_takes_nothing() -> Result<()> {
    let (database, mut client, mut other) = with_handler("")?;
    let role = database.role("user");
    client.batch_execute(&format!(
        "CREATE FUNCTION text_in(text) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb'; \
         CREATE FUNCTION nothing_out(jsonb) RETURNS void LANGUAGE sql AS 'SELECT'; \
         CREATE FUNCTION two_in(jsonb, int) RETURNS jsonb LANGUAGE sql AS 'SELECT $1'; \
         CREATE FUNCTION set_out(jsonb) RETURNS SETOF jsonb LANGUAGE sql AS 'SELECT $1'; \
         CREATE FUNCTION others(jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb'; \
         REVOKE ALL ON FUNCTION others FROM PUBLIC; \
         CREATE ROLE {role} LOGIN; SELECT enough.queue_grant('q', '{role}', 'consume')"
    ))?;
    let ids = send(&mut client, &[json!(1)])?;
    let good = "'\"Handle it\"'";
    for (call, code) in [
        (format!("NULL, {good}"), "22004"),
        ("'q', NULL".into(), "22004"),
        (format!("'nope', {good}"), "42704"),
        (format!("'', {good}"), "22023"),
        ("'q', 'no_such_function'".into(), "42883"),
        ("'q', 'text_in'".into(), "22023"),
        ("'q', 'nothing_out'".into(), "22023"),
        ("'q', 'two_in'".into(), "22023"),
        ("'q', 'set_out'".into(), "22023"),
        ("'q', 0".into(), "22023"),
        (format!("'q', {good}, 0"), "22023"),
        (format!("'q', {good}, 10001"), "22023"),
        (format!("'q', {good}, 1, '-1 ms'"), "22023"),
        (format!("'q', {good}, 1, '367 days'"), "22023"),
    ] {
        let hint =
            refused(client.batch_execute(&format!("CALL enough.queue_work({call})")), code).context(call.clone())?;
        ensure!(code == "42883" || !hint.is_empty(), "{call} has no hint");
    }
    let call = format!("CALL enough.queue_work('q', {good})");
    client.batch_execute("BEGIN")?;
    let hint = refused(client.batch_execute(&call), "25001")?;
    ensure!(hint.contains("autocommit"), "{hint}");
    client.batch_execute("ROLLBACK")?;
    refused(client.batch_execute(&format!("SELECT 1; {call}")), "25001")?;
    client
        .batch_execute(&format!("CREATE FUNCTION calls() RETURNS void LANGUAGE plpgsql AS $$ BEGIN {call}; END $$"))?;
    refused(client.batch_execute("SELECT calls()"), "2D000")?;
    client.batch_execute("SET default_transaction_read_only = on")?;
    refused(client.batch_execute(&call), "25006")?;
    client.batch_execute("RESET default_transaction_read_only")?;
    let mut user = database.client_as(&role)?;
    let hint = refused(user.batch_execute("CALL enough.queue_work('q', 'others')"), "42501")?;
    ensure!(hint.contains("rights"), "{hint}");
    // Nothing was taken; NULLs stand for the defaults, and a DO block that is no transaction may call it.
    ensure!(queue::stats(&mut other, "q")?.ready == 1);
    client.batch_execute(&format!("DO $$ BEGIN CALL enough.queue_work('q', {good}, NULL, '0'); END $$"))?;
    ensure!(states(&mut other, &ids)?[0].0.is_empty());
    Ok(())
}

#[test]
fn the_callers_search_path_has_no_say() -> Result<()> {
    let (database, mut client, mut other) = with_handler("")?;
    let role = database.role("evil");
    client.batch_execute(&format!(
        "CREATE ROLE {role} LOGIN; CREATE SCHEMA {role} AUTHORIZATION {role}; SELECT enough.queue_create('{role}')"
    ))?;
    let mut evil = database.client_as(&role)?;
    for (kind, types) in [
        ("+", "int, int"),
        ("<", "int, int"),
        (">", "int, int"),
        ("<>", "bigint, bigint"),
        ("=", "int, int"),
        (">=", "timestamptz, timestamptz"),
        ("+", "timestamptz, interval"),
        ("<", "interval, interval"),
    ] {
        let parts: Vec<&str> = types.split(", ").collect();
        evil.batch_execute(&format!(
            "CREATE OR REPLACE FUNCTION {role}.f({types}) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'as %', current_user; END $$; \
             CREATE OPERATOR {role}.{kind} (LEFTARG = {}, RIGHTARG = {}, FUNCTION = {role}.f)", parts[0], parts[1]
        ))?;
    }
    evil.batch_execute(&format!(
        "CREATE FUNCTION {role}.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE 'as %', current_user; END $$; \
         CREATE FUNCTION {role}.unnest(enough.queue_message[]) RETURNS SETOF enough.queue_message LANGUAGE plpgsql AS $$ BEGIN RAISE 'as %', current_user; END $$"
    ))?;
    send(&mut other, &[json!(1), json!({"result": 2})])?;
    client.batch_execute(&format!("SET search_path = {role}, pg_catalog, public"))?;
    client.batch_execute("CALL enough.queue_work('q', 'public.\"Handle it\"', 10, '50 ms')")?;
    ensure!(queue::stats(&mut other, "q")?.ready == 0);
    Ok(())
}

#[test]
fn four_workers_at_once_handle_each_message_once() -> Result<()> {
    let (database, mut client, mut other) = with_handler("")?;
    queue::send_numbers(&mut other, "q", 1_000)?;
    let workers: Vec<_> = (0..4)
        .map(|number| {
            let database = database.clone();
            thread::spawn(move || -> Result<()> {
                Ok(work(&mut database.client()?, &format!(", {}, '1 s'", 1 + number * 7))?)
            })
        })
        .collect();
    for worker in workers {
        worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))??;
    }
    work(&mut client, ", 1000, '0.1 s'")?;
    while queue::stats(&mut other, "q")?.ready > 0 {
        work(&mut client, ", 1000, '1 s'")?;
    }
    let row = other.query_one("SELECT count(*), count(DISTINCT message) FROM work", &[])?;
    ensure!((row.get::<_, i64>(0), row.get::<_, i64>(1)) == (1_000, 1_000), "{row:?}");
    Ok(())
}

#[test]
fn pg_cron_runs_a_worker() -> Result<()> {
    let server = start(
        &options()?
            .preload("pg_cron")
            .conf("cron.database_name", "postgres")
            .conf("cron.use_background_workers", "on")
            .conf("max_worker_processes", "20"),
    )?;
    let database = Database::named(&server, "postgres");
    let mut client = database.client()?;
    client.batch_execute("CREATE EXTENSION pg_enough; CREATE EXTENSION pg_cron; SELECT enough.queue_create('q')")?;
    client.batch_execute(HANDLER)?;
    let ids = send(&mut client, &[json!({"result": 1}), json!(2), json!({"fail": "no luck"})])?;
    client.batch_execute(
        "SELECT cron.schedule('work', '* * * * *', $$CALL enough.queue_work('q', '\"Handle it\"', 10, '2 seconds')$$)",
    )?;
    let deadline = Instant::now() + Duration::from_mins(3);
    loop {
        let run = eventually("the job has run", || {
            Ok(client
                .query_opt("SELECT status, return_message FROM cron.job_run_details WHERE end_time IS NOT NULL", &[])?)
        });
        match run {
            Ok(run) => {
                ensure!(run.get::<_, &str>(0) == "succeeded", "{run:?} {}", server.log());
                break;
            }
            Err(error) if Instant::now() > deadline => return Err(error.context(server.log())),
            Err(_) => {}
        }
    }
    let states = states(&mut client, &ids)?;
    ensure!(states[0].0 == "done" && states[1].0.is_empty() && states[2].1.as_deref() == Some("no luck"), "{states:?}");
    Ok(())
}

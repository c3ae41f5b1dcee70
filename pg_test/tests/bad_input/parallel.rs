//! Every function in a parallel worker, where it is called by one that is wrongly marked PARALLEL SAFE: refused, as the
//! server's own commands are.

use crate::cases::FUNCTIONS;
use crate::run::call;
use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{healthy, refused};
use enough_pg_test::queue;
use enough_pg_test::server::{self, Database};
use postgres::Client;
use serde_json::json;

/// Makes the planner let a worker do what may be done by one.
fn forced(client: &mut Client) -> Result<()> {
    let version: String = client.query_one("SHOW server_version_num", &[])?.get(0);
    let setting = if version.parse::<i32>()? < 160_000 { "force_parallel_mode" } else { "debug_parallel_query" };
    client.batch_execute(&format!("SET {setting} = on"))?;
    Ok(())
}

#[test]
fn every_function_refuses_to_run_in_a_parallel_worker() -> Result<()> {
    let server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute(
        "SELECT enough.queue_create('q'), enough.queue_send('q', '1'), enough.rate_limit_policy_set('strict', 10, '1 hour'); \
         SELECT enough.cache_set('key', '\"value\"'), enough.cache_set('good', '1'), enough.cache_set_bytes('bytes', '\\x00'); \
         CREATE TABLE good_table (a int)",
    )?;
    let written_in_c: Vec<String> = client
        .query(
            "SELECT proname FROM pg_proc JOIN pg_language AS l ON l.oid = prolang \
             WHERE pronamespace = 'enough'::regnamespace AND lanname = 'c' AND prorettype <> 'trigger'::regtype",
            &[],
        )?
        .iter()
        .map(|row| row.get(0))
        .collect();
    client.batch_execute(
        "DO $$ DECLARE f regprocedure; BEGIN \
             FOR f IN SELECT oid FROM pg_proc WHERE pronamespace = 'enough'::regnamespace AND prokind = 'f' LOOP \
                 EXECUTE format('ALTER FUNCTION %s PARALLEL SAFE', f); \
             END LOOP; END $$",
    )?;
    // What is asked for is what is found again afterwards.
    let count = |client: &mut Client| -> Result<String> {
        let counts = "SELECT (SELECT count(*) FROM enough.q_q) || ' ' || (SELECT count(*) FROM enough.rate_limit_policy) \
                      || ' ' || (SELECT count(*) FROM pg_trigger)";
        Ok(client.query_one(counts, &[])?.get(0))
    };
    let before = count(&mut client)?;
    let mut other = database.client()?;
    forced(&mut client)?;
    let mut tried = 0;
    for function in FUNCTIONS.iter().filter(|function| written_in_c.iter().any(|name| name == function.name)) {
        let call = call(function, None);
        let outcome = client.query(&format!("SELECT * FROM enough.{call}"), &[]);
        let message = outcome.as_ref().err().map_or_else(String::new, ToString::to_string);
        let hint = refused(outcome, "25000").with_context(|| call.clone())?;
        ensure!(hint.contains("PARALLEL UNSAFE"), "{call}: {hint}");
        ensure!(message.contains("db error") || message.contains(function.name), "{call}: {message}");
        tried += 1;
    }
    ensure!(tried > 50, "{tried} of {} functions", written_in_c.len());
    ensure!(count(&mut other)? == before);
    ensure!(queue::read(&mut other, "q", 10)?.len() == 1, "a message was touched");
    healthy(&server.log(), false)
}

#[test]
fn the_session_itself_may_use_the_cache_beside_its_workers_but_no_queue() -> Result<()> {
    let server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let (mut client, mut other) = (database.client()?, database.client()?);
    client.batch_execute(
        "SELECT enough.queue_create('q'), enough.queue_send('q', '1'); \
         CREATE TABLE numbers AS SELECT n FROM generate_series(1, 20000) AS n; ANALYZE numbers; \
         SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; \
         CREATE FUNCTION restricted(statement text) RETURNS text LANGUAGE plpgsql PARALLEL RESTRICTED AS $$ \
         DECLARE answer text; BEGIN EXECUTE 'SELECT ' || statement INTO answer; RETURN answer; END $$",
    )?;
    let mut beside =
        |statement: &str| client.query(&format!("SELECT restricted($s${statement}$s$) FROM numbers WHERE n = 7"), &[]);
    let plan = beside("1")?;
    ensure!(plan.len() == 1);
    for statement in ["enough.cache_set('k', '1')", "enough.cache_set('l', to_jsonb(repeat('x', 100000)))"] {
        ensure!(beside(statement)?[0].get::<_, &str>(0) == "true", "{statement}");
    }
    ensure!(beside("enough.cache_get('k')")?[0].get::<_, &str>(0) == "1");
    ensure!(beside("enough.rate_limit('k', 10, '1 hour')")?.len() == 1);
    for call in ["queue_send('q', '1')", "queue_read('q')", "queue_delete('q', 1)", "queue_stats()", "maintain()"] {
        refused(beside(&format!("enough.{call}")), "25000").with_context(|| call.to_owned())?;
    }
    let get = "SELECT enough.cache_get('k'), length(enough.cache_get('l')::text)";
    let row = other.query_one(get, &[])?;
    ensure!((row.get::<_, Option<serde_json::Value>>(0), row.get::<_, i32>(1)) == (Some(json!(1)), 100_002));
    ensure!(queue::read(&mut other, "q", 10)?.len() == 1);
    healthy(&server.log(), false)
}

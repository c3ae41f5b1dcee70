//! Sessions whose address space is limited, as by `ulimit -v`, a container's limit or strict overcommit.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{eventually, healthy, state};
use enough_pg_test::server::{self, Database, backend};
use postgres::Client;
use std::fs;
use std::process::Command;
use xtask::account::Account;

const MIB: u64 = 1 << 20;

/// Lets the process `pid` map `room` bytes more than it has mapped now.
fn limit_memory(pid: u32, room: u64) -> Result<()> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).context("can't see the session's memory")?;
    let pages: u64 = statm.split(' ').next().context("an empty statm")?.parse()?;
    // Pages of 4 KiB, as on every machine that this runs on.
    let limit = (pages * 4096 + room).to_string();
    let mut command = Command::new("setpriv");
    command.args(Account::for_servers()?.setpriv_arguments(None));
    command.args(["prlimit", "--pid", &pid.to_string(), &format!("--as={limit}:{limit}")]);
    ensure!(command.status().context("no setpriv")?.success(), "can't limit the session's memory");
    Ok(())
}

/// A statement, and the megabytes that its session may still map when it begins. What the statement hands in takes some of
/// them.
struct Attempt {
    room: u64,
    statement: &'static str,
}

const fn attempt(room: u64, statement: &'static str) -> Attempt {
    Attempt { room, statement }
}

const ATTEMPTS: &[Attempt] = &[
    // What waits for the commit.
    attempt(
        40,
        "SELECT count(enough.cache_set('k' || i, to_jsonb(repeat('x', 100000)))) FROM generate_series(1, 8000) i",
    ),
    attempt(
        6,
        "SELECT count(enough.cache_set('k' || i, to_jsonb(repeat('x', 100000)))) FROM generate_series(1, 8000) i",
    ),
    attempt(8, "SELECT count(enough.cache_set('k' || i, '1')) FROM generate_series(1, 1000000) i"),
    attempt(
        8,
        "SELECT count(enough.cache_set('k' || i, '1', tags => ARRAY['t' || i])) FROM generate_series(1, 300000) i",
    ),
    attempt(8, "SELECT count(enough.cache_delete('k' || i)) FROM generate_series(1, 1000000) i"),
    attempt(8, "SELECT count(enough.cache_invalidate('t' || i)) FROM generate_series(1, 1000000) i"),
    attempt(8, "SELECT count(enough.queue_send('q', '1')) FROM generate_series(1, 300000) i"),
    attempt(
        8,
        "SELECT count(*) FROM (SELECT enough.queue_send_batch('q', array_fill('1'::jsonb, ARRAY[10000])) \
                FROM generate_series(1, 30)) AS sent",
    ),
    attempt(
        8,
        "DO $$ BEGIN FOR i IN 1 .. 300000 LOOP \
                    BEGIN PERFORM enough.cache_set('k' || i, '1'); EXCEPTION WHEN division_by_zero THEN NULL; END; \
                END LOOP; END $$",
    ),
    // What a call is given.
    attempt(80, "SELECT count(*) FROM (SELECT enough.cache_mget(array_fill('k'::text, ARRAY[4000000]))) AS got"),
    attempt(80, "SELECT enough.cache_mdelete(array_fill('k'::text, ARRAY[4000000]))"),
    attempt(80, "SELECT enough.cache_mdelete((SELECT array_agg('k' || i) FROM generate_series(1, 1000000) AS i))"),
    attempt(180, "SELECT enough.queue_delete_batch('q', array_fill(1::bigint, ARRAY[6000000]))"),
    attempt(180, "SELECT enough.queue_send_batch('q', array_fill('1'::jsonb, ARRAY[4000000]))"),
    attempt(
        180,
        "SELECT enough.queue_send_batch('q', array_fill('1'::jsonb, ARRAY[10]), \
                  group_keys => array_fill('g'::text, ARRAY[4000000]))",
    ),
    attempt(180, "SELECT enough.queue_redrive('q', array_fill(1::bigint, ARRAY[6000000]))"),
    attempt(180, "SELECT enough.rate_limit_all(array_fill('k'::text, ARRAY[4000000]), '{1}', '{1 hour}')"),
    attempt(180, "SELECT enough.rate_limit_all('{k}', array_fill(1, ARRAY[8000000]), '{1 hour}')"),
    attempt(180, "SELECT enough.rate_limit_all('{k}', '{1}', array_fill('1 hour'::interval, ARRAY[3000000]))"),
    attempt(250, "SELECT enough.cache_set('k', '1', tags => array_fill('t'::text, ARRAY[4000000]))"),
    attempt(
        250,
        "SELECT enough.cache_mset((SELECT jsonb_object_agg('k' || i, i) FROM generate_series(1, 300000) AS i))",
    ),
    attempt(430, "SELECT enough.cache_set('k', '1', mode => repeat('x', 100000000))"),
    attempt(430, "SELECT enough.cache_get(repeat('x', 100000000))"),
    attempt(430, "SELECT enough.queue_send(repeat('x', 100000000), '1')"),
    attempt(430, "SELECT enough.queue_peek('q', state => repeat('x', 100000000))"),
    attempt(430, "SELECT enough.queue_create(repeat('x', 100000000))"),
    attempt(430, "SELECT enough.rate_limit('k', 1, '1 hour', algorithm => repeat('x', 100000000))"),
    attempt(430, "SELECT enough.rate_limit_policy_set(repeat('x', 100000000), 1, '1 hour')"),
    attempt(430, "SELECT enough.rate_limit_by(repeat('x', 100000000), 'k')"),
    attempt(430, "SELECT enough.cache_fetch('k', '1 hour', repeat('x', 100000000))"),
    // What a call finds.
    attempt(180, "SELECT enough.cache_fetch('k', '1 hour', 'SELECT to_jsonb(repeat(''x'', 50000000))')"),
    attempt(60, "SELECT count(*) FROM (SELECT enough.queue_peek('q', 10000)) AS seen"),
    attempt(60, "SELECT count(*) FROM (SELECT enough.queue_read('q', 10000)) AS got"),
    attempt(60, "SELECT enough.queue_purge('q')"),
];

fn session(database: &Database) -> Result<(Client, u32)> {
    let mut client = database.client()?;
    // What a session needs in any case: the library, the segment, the plans of a call's own statements.
    client.batch_execute(
        "SELECT enough.cache_set('warm', '1'), enough.cache_delete('warm'), enough.queue_send('q', '1'); \
         SELECT enough.queue_peek('q'), enough.rate_limit('warm', 1, '1 hour')",
    )?;
    let pid = backend(&mut client)?;
    Ok((client, pid))
}

#[test]
fn a_session_without_memory_gets_an_error_and_goes_on() -> Result<()> {
    let server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut witness = database.client()?;
    witness.batch_execute("SELECT enough.queue_create('q')")?;
    for _ in 0..10 {
        witness.batch_execute("SELECT enough.queue_send_batch('q', array_fill('1'::jsonb, ARRAY[10000]))")?;
    }
    let mut wrong = Vec::new();
    for Attempt { room, statement } in ATTEMPTS {
        let (mut client, pid) = eventually("the server is there", || Ok(session(&database).ok()))?;
        limit_memory(pid, room * MIB)?;
        client.batch_execute("BEGIN")?;
        let outcome = client.batch_execute(statement);
        let code = outcome.as_ref().err().map_or("", state).to_owned();
        let lost = outcome.is_err() && code.is_empty();
        if lost {
            wrong.push(format!("{room} MB: {statement}: the session is lost"));
        } else if !matches!(code.as_str(), "" | "53200" | "54000" | "22023" | "42704" | "42601") {
            wrong.push(format!("{room} MB: {statement}: {:?}", outcome.err()));
        }
        let answers = "ROLLBACK; SELECT enough.cache_set('after', '1'), enough.queue_send('q', '1')";
        if !lost && let Err(error) = client.batch_execute(answers) {
            wrong.push(format!("{room} MB: after {statement}: {error}"));
        }
        if witness.batch_execute("SELECT").is_err() {
            wrong.push(format!("{room} MB: {statement}: the server has restarted"));
            witness = eventually("the server is back", || Ok(database.client().ok()))?;
        }
    }
    ensure!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), ATTEMPTS.len(), wrong.join("\n"));
    healthy(&server.log(), false)
}

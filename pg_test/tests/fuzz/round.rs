//! One round: a database, its sessions, and what has to hold when they are through.

use crate::arguments::QUEUES;
use crate::calls;
use crate::ddl::{self, REPAIR};
use crate::findings::{Answers, Findings};
use crate::session::{self, NAME, Surroundings, connect, vanish};
use anyhow::{Context, Result};
use enough_pg_test::check::is_lost;
use enough_pg_test::server::Database;
use fastrand::Rng;
use postgres::Client;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};
use xtask::server::{Server, Shutdown};

/// Sessions that call functions.
const SESSIONS: u64 = 4;

/// Statements of each session in a round.
const STATEMENTS: usize = 120;

/// A round takes some seconds; this long only where a session hangs.
const PATIENCE: Duration = Duration::from_secs(90);

/// Between two cancels or terminations.
const HIT_EVERY: Duration = Duration::from_millis(60);

/// What the sessions use besides queues.
const TABLES: &str = "
    CREATE TABLE t (a int);
    INSERT INTO t VALUES (1), (2);
    CREATE INDEX t_index ON t (a);
    CREATE SEQUENCE t_sequence;
    CREATE VIEW v AS SELECT * FROM t;
    CREATE TABLE pt (a int) PARTITION BY LIST (a);
    CREATE TABLE t_parallel AS SELECT n AS a FROM generate_series(1, 2000) AS n;
    ALTER TABLE t_parallel SET (parallel_workers = 2);
    CREATE FUNCTION fuzz_trigger() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_sleep(0.001); IF random() < 0.1 THEN RETURN NULL; END IF; RETURN coalesce(NEW, OLD); END';
    CREATE FUNCTION fuzz_event() RETURNS event_trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM count(*) FROM pg_event_trigger_ddl_commands(); END';
    GRANT ALL ON ALL TABLES IN SCHEMA public TO fuzz_app;
    GRANT CREATE ON SCHEMA public TO fuzz_app;
    SELECT enough.queue_create('a', visibility_timeout => '100 ms', retry_backoff => '10 ms', max_attempts => 3);
    SELECT enough.queue_create('b', visibility_timeout => '1 s', max_in_flight => 5, max_attempts => 1);
    SELECT enough.queue_create('c', unlogged => true, archive_for => '100 ms');
    SELECT enough.queue_grant(q, 'fuzz_app', 'all') FROM unnest('{a,b,c}'::text[]) AS q;
    SELECT enough.queue_send(q, to_jsonb(n)) FROM unnest('{a,b,c}'::text[]) AS q, generate_series(1, 10) AS n;
    SELECT enough.rate_limit_policy_set('p1', 5, '1 s'), enough.rate_limit_policy_set('p2', 100, '1 hour', 'token_bucket');
";

/// What the round's sessions did.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Done {
    pub(crate) ddl: usize,
    pub(crate) hits: usize,
}

/// Runs the round `seed`. What may not happen goes to `findings`; an error is one of the test itself.
pub(crate) fn run(server: &mut Server, seed: u64, findings: &Findings, answers: &Answers) -> Result<Done> {
    let mut rng = Rng::with_seed(seed);
    findings.extension_dropped(false);
    let log_before = server.log().len();
    let Some(database) = prepared(server, &mut rng, seed, findings)? else { return Ok(Done::default()) };
    let functions = calls::functions(&mut database.client()?)?;
    findings.called(&functions);
    let surroundings = Surroundings { database: &database, functions: &functions, findings, answers, seed };
    let stop = AtomicBool::new(false);
    let restarts = rng.u8(..4) == 0;
    let done = thread::scope(|scope| -> Result<Done> {
        let (sender, finished) = mpsc::channel();
        for number in 0..SESSIONS {
            let (sender, surroundings) = (sender.clone(), &surroundings);
            // The receiver is there until all have sent, or nobody wants to know any more.
            scope.spawn(move || drop(sender.send(session::run(surroundings, number, STATEMENTS))));
        }
        drop(sender);
        let ddl = scope.spawn(|| change(&surroundings, &stop));
        let hits = scope.spawn(|| hit(&surroundings, &stop));
        let outcome = watch(server, &finished, restarts, &surroundings);
        stop.store(true, Relaxed);
        if outcome.is_err() {
            // Whoever hangs must come to an end, or this would.
            server.crash()?;
            server.launch()?;
        }
        outcome?;
        let ddl = ddl.join().map_err(|_| anyhow::anyhow!("the session that does DDL panicked"))??;
        let hits = hits.join().map_err(|_| anyhow::anyhow!("the session that hits others panicked"))?;
        Ok(Done { ddl, hits })
    });
    server.wait_until_up()?;
    let done = match done {
        Ok(done) => done,
        Err(error) => {
            findings.add("a session", &format!("seed {seed}: {error:#}"));
            Done::default()
        }
    };
    agree(&database, seed, findings)?;
    server.client()?.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", database.name))?;
    findings.judge_log(server.log().get(log_before..).unwrap_or_default(), seed);
    Ok(done)
}

/// A database with queues and tables in it; `None` where the extension couldn't be made, which is a finding.
fn prepared(server: &Server, rng: &mut Rng, seed: u64, findings: &Findings) -> Result<Option<Database>> {
    let encoding = match rng.u8(..8) {
        0 => "LATIN1",
        1 => "SQL_ASCII",
        2 => "EUC_JP",
        _ => "UTF8",
    };
    let mut admin = server.client()?;
    let name = format!("fuzz_{seed}");
    admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))?;
    for gid in admin.query("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()", &[])? {
        admin.batch_execute(&format!("ROLLBACK PREPARED '{}'", gid.get::<_, &str>(0)))?;
    }
    admin.batch_execute(&format!("CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0"))?;
    let database = Database::named(server, &name);
    let mut client = database.client()?;
    if let Err(error) = client.batch_execute("CREATE EXTENSION pg_enough") {
        findings.add(&format!("CREATE EXTENSION in {encoding}"), &format!("seed {seed}: {error:?}"));
        return Ok(None);
    }
    client.batch_execute(TABLES).context("can't prepare the round")?;
    // Where it can be had: it finds rows that an index misses, and entries without a row.
    let _ = client.batch_execute("CREATE EXTENSION IF NOT EXISTS amcheck SCHEMA public");
    Ok(Some(database))
}

/// Waits for the sessions, and restarts the server once if `restarts`. An error where one of the sessions hangs or doesn't
/// answer.
fn watch(
    server: &mut Server,
    finished: &mpsc::Receiver<Result<()>>,
    restarts: bool,
    surroundings: &Surroundings<'_>,
) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    if restarts {
        sleep(Duration::from_millis(1500));
        server.restart(Shutdown::Fast).context("at a planned restart")?;
    }
    loop {
        match finished.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(outcome) => outcome?,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => anyhow::bail!("hangs: {}", hanging(surroundings.database)?),
        }
    }
}

/// What the sessions that haven't finished are at.
fn hanging(database: &Database) -> Result<String> {
    let rows = database.client()?.query(
        "SELECT format('%s %s %s since %s: %s', pid, wait_event_type, wait_event, now() - query_start, left(query, 300)) \
         FROM pg_stat_activity WHERE application_name = $1 AND state <> 'idle'",
        &[&NAME],
    )?;
    Ok(rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n"))
}

/// Does DDL until `stop`; how many statements succeeded.
fn change(surroundings: &Surroundings<'_>, stop: &AtomicBool) -> Result<usize> {
    let mut rng = Rng::with_seed(surroundings.seed.wrapping_mul(1000) + 500);
    let mut client = connect(surroundings.database, "postgres")?;
    let mut succeeded = 0;
    while !stop.load(Relaxed) {
        let (statements, held) = ddl::transaction(&mut rng);
        // VACUUM and others want no transaction around them.
        let alone = held == 0 && statements.len() == 1;
        let mut all: Vec<String> = statements;
        if !alone {
            all.insert(0, "BEGIN".to_owned());
            all.push(format!("SELECT pg_sleep({})", f64::from(u32::try_from(held)?) / 1000.0));
            all.push(if rng.u8(..4) > 0 { "COMMIT" } else { "ROLLBACK" }.to_owned());
        }
        if rng.u8(..5) == 0 {
            let queue = QUEUES[rng.usize(..QUEUES.len())];
            all = REPAIR.iter().map(|text| text.replace("{n}", queue)).collect();
        }
        for text in all {
            if text.contains("DROP EXTENSION") || text.contains("DROP SCHEMA") {
                surroundings.findings.extension_dropped(true);
            }
            match client.simple_query(&text) {
                Ok(_) => succeeded += 1,
                Err(error) => {
                    let ours = text.contains("SELECT enough.");
                    surroundings.findings.judge(&error, &text, surroundings.seed, ours);
                    if is_lost(&error) {
                        client = connect(surroundings.database, "postgres")?;
                    }
                }
            }
        }
        let _ = client.simple_query("ROLLBACK");
        sleep(Duration::from_millis(rng.u64(..15)));
    }
    Ok(succeeded)
}

/// Cancels and terminates sessions, and makes clients vanish, until `stop`; how many.
fn hit(surroundings: &Surroundings<'_>, stop: &AtomicBool) -> usize {
    let mut rng = Rng::with_seed(surroundings.seed.wrapping_mul(1000) + 600);
    let mut client: Option<Client> = None;
    let mut hits = 0;
    while !stop.load(Relaxed) {
        sleep(HIT_EVERY);
        if rng.u8(..4) == 0 {
            // While the server restarts it can't be reached.
            hits += usize::from(vanish(surroundings.database, &mut rng).is_ok());
            continue;
        }
        let Some(watcher) = &mut client else {
            client = surroundings.database.client().ok();
            continue;
        };
        let function = if rng.u8(..4) == 0 { "pg_terminate_backend" } else { "pg_cancel_backend" };
        let query = format!(
            "SELECT {function}(pid) FROM pg_stat_activity WHERE application_name = $1 ORDER BY state <> 'active', random() LIMIT 1"
        );
        match watcher.execute(&query, &[&NAME]) {
            Ok(_) => hits += 1,
            Err(_) => client = None,
        }
    }
    hits
}

/// Every index must agree with its table, and no partition of the memory may have been found damaged.
fn agree(database: &Database, seed: u64, findings: &Findings) -> Result<()> {
    let mut client = database.client()?;
    // A transaction that was prepared may hold any lock.
    for row in client.query("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()", &[])? {
        client.batch_execute(&format!("ROLLBACK PREPARED '{}'", row.get::<_, &str>(0)))?;
    }
    let checked = client.query(
        "SELECT i.indexrelid::regclass::text, i.indrelid::regclass::text FROM pg_index AS i \
         JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS a ON a.oid = c.relam JOIN pg_extension ON extname = 'amcheck' \
         WHERE a.amname = 'btree' AND c.relkind = 'i' AND i.indisvalid AND i.indisready AND i.indrelid >= 16384 \
           AND i.indrelid::regclass::text ~ 'enough|q_|gone_'",
        &[],
    )?;
    for row in checked {
        let (index, table): (&str, &str) = (row.get(0), row.get(1));
        if let Err(error) = client.simple_query(&format!("SELECT public.bt_index_check('{index}', true)")) {
            findings.add(
                "an index that doesn't agree with its table",
                &format!("seed {seed}: {index} of {table}: {error:?}"),
            );
        }
    }
    // Without the extension there is nothing to ask.
    let _ = client.batch_execute("CREATE EXTENSION IF NOT EXISTS pg_enough");
    let resets =
        client.query("SELECT item, value FROM enough.status() WHERE item LIKE '%resets' AND value <> '0'", &[]);
    match resets {
        Ok(rows) => {
            for row in rows {
                let (item, value): (&str, &str) = (row.get(0), row.get(1));
                findings.add("a damaged partition", &format!("seed {seed}: {item} {value}"));
            }
        }
        // `enough` may be a schema by now that isn't the extension's.
        Err(error) => findings.judge(&error, "SELECT enough.status()", seed, true),
    }
    Ok(())
}

//! `cargo xtask demo`: the main job on real input, from nothing to a table of results.
//!
//! Every record becomes a message. Four workers, each a process, drain the queue; one of them is killed midway, with
//! messages in its hands. In the end each message sent must have been recorded exactly once.

mod input;
mod report;
pub mod worker;

use anyhow::{Context, Result, ensure};
use postgres::Client;
use report::{Progress, Results};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use worker::Counters;
use xtask::pg::Pg;
use xtask::server::{SUPERUSER, Server, ServerOptions};
use xtask::shell::say;

/// The demo's queue.
const QUEUE: &str = "packages";

/// The demo's database.
const DATABASE: &str = "demo";

/// How long a message that was read stays out of sight: as long as the killed worker's messages take to come back.
const VISIBILITY: Duration = Duration::from_secs(5);

/// How many messages of one maintainer may be delivered per [`MAINTAINER_PERIOD`].
const MAINTAINER_LIMIT: u32 = 500;

/// The limiter's period.
const MAINTAINER_PERIOD: &str = "1 second";

/// How many workers there are.
const WORKERS: usize = 4;

/// The one that is killed.
const VICTIM: usize = 1;

/// Messages in one call of `queue_send_batch`.
const SEND_BATCH: usize = 1000;

/// The demo gives up when nothing was delivered for so long.
const PATIENCE: Duration = Duration::from_mins(1);

/// Between two looks at what has been delivered.
const LOOK: Duration = Duration::from_millis(200);

const TABLES: &str = "
    CREATE EXTENSION pg_enough;
    CREATE TABLE maintainers (address text PRIMARY KEY, name text NOT NULL, packages bigint NOT NULL);
    CREATE TABLE sent (msg_id bigint PRIMARY KEY);
    CREATE TABLE delivered (msg_id bigint PRIMARY KEY, worker int NOT NULL, attempts int NOT NULL);
    SELECT enough.queue_create('packages');
";

/// Runs the demo with `pg`.
pub fn run(pg: Pg, input: Option<&Path>, keep: bool) -> Result<ExitCode> {
    crate::install(pg)?;
    let records = input::records(input)?;
    say(&format!("starting a private PostgreSQL {pg}, stock settings, durable commits"));
    let options = ServerOptions::new(pg);
    let server = Server::start(&if keep { options.outlives() } else { options })?;
    server.client()?.batch_execute(&format!("CREATE DATABASE {DATABASE}"))?;
    let mut client = server.client_for(DATABASE, SUPERUSER)?;
    client.batch_execute(TABLES).context("can't create the extension and the demo's tables")?;
    fill_maintainers(&mut client, &records)?;
    say(&format!("queueing {} records", records.len()));
    let began = Instant::now();
    send(&mut client, &records)?;
    let sending = began.elapsed();
    say(&format!("draining with {WORKERS} workers; one of them will be killed midway"));
    let results = drain(&server, &mut client, sending)?;
    print!("\n{results}");
    if keep {
        let (url, pid) = (server.url_for(DATABASE, SUPERUSER), server.pid()?);
        let psql = server.psql_program();
        let dir = server.leave();
        println!("\nthe server stays up: {} '{url}'", psql.display());
        println!("stop it: kill {pid}; its files: {}", dir.display());
    }
    Ok(if results.lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The table that a cache miss goes to.
fn fill_maintainers(client: &mut Client, records: &[Value]) -> Result<()> {
    let mut packages = BTreeMap::<&str, i64>::new();
    for record in records {
        *packages.entry(input::maintainer(record)).or_default() += 1;
    }
    let addresses: Vec<&str> = packages.keys().copied().collect();
    let counts: Vec<i64> = packages.values().copied().collect();
    client
        .execute(
            "INSERT INTO maintainers SELECT address, trim(split_part(address, '<', 1)), packages \
             FROM unnest($1::text[], $2::bigint[]) AS m(address, packages)",
            &[&addresses, &counts],
        )
        .context("can't fill the table of maintainers")?;
    Ok(())
}

/// Sends every record and keeps the numbers that the messages got.
fn send(client: &mut Client, records: &[Value]) -> Result<()> {
    let send = client
        .prepare(&format!("INSERT INTO sent SELECT * FROM enough.queue_send_batch('{QUEUE}', $1::text[]::jsonb[])"))?;
    let mut progress = Progress::new("sent", records.len() as u64);
    let mut sent = 0;
    for batch in records.chunks(SEND_BATCH) {
        let messages: Vec<String> = batch.iter().map(Value::to_string).collect();
        sent += client.execute(&send, &[&messages]).context("can't send a batch")?;
        progress.show(sent);
    }
    progress.end(sent);
    ensure!(sent == records.len() as u64, "{} records gave {sent} messages", records.len());
    Ok(())
}

/// A running worker.
struct Running {
    child: Child,
    counters: Arc<Mutex<Counters>>,
}

impl Running {
    fn start(url: &str, number: usize) -> Result<Self> {
        let program = std::env::current_exe().context("can't find this program")?;
        let mut child = Command::new(program)
            .args(["demo-worker", "--number", &number.to_string(), "--url", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("can't start a worker")?;
        let output = child.stdout.take().context("no pipe to a worker")?;
        let counters = Arc::new(Mutex::new(Counters::default()));
        let latest = Arc::clone(&counters);
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // A line that the kill cut off says nothing.
                if let Ok(counters) = line.parse() {
                    *lock(&latest) = counters;
                }
            }
        });
        Ok(Self { child, counters })
    }

    fn counters(&self) -> Counters {
        *lock(&self.counters)
    }

    /// Kills the worker while it works: right after it has read a batch that it hasn't finished.
    fn kill_with_messages_in_hand(&mut self) -> Result<()> {
        let before = self.counters().read;
        let deadline = Instant::now() + PATIENCE;
        while self.counters().read == before && self.child.try_wait()?.is_none() && Instant::now() < deadline {
            thread::sleep(Duration::from_micros(200));
        }
        self.child.kill().context("can't kill a worker")?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Closing its input is how a worker is told to end; an error means that it has ended.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn lock(counters: &Mutex<Counters>) -> MutexGuard<'_, Counters> {
    counters.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(client: &mut Client, query: &str) -> Result<u64> {
    let count: i64 = client.query_one(query, &[])?.get(0);
    Ok(u64::try_from(count)?)
}

/// Lets the workers drain the queue, kills one of them midway, and counts.
fn drain(server: &Server, client: &mut Client, sending: Duration) -> Result<Results> {
    let sent = count(client, "SELECT count(*) FROM sent")?;
    let url = server.url_for(DATABASE, SUPERUSER);
    let began = Instant::now();
    let mut workers = (0..WORKERS).map(|number| Running::start(&url, number)).collect::<Result<Vec<_>>>()?;
    let mut progress = Progress::new("delivered", sent);
    let (mut delivered, mut advanced, mut killed_at) = (0, Instant::now(), None);
    while delivered < sent {
        thread::sleep(LOOK);
        let now = count(client, "SELECT count(*) FROM delivered")?;
        if now > delivered {
            advanced = Instant::now();
        } else if advanced.elapsed() > PATIENCE {
            break;
        }
        delivered = now;
        if killed_at.is_none() && delivered >= sent / 2 {
            workers[VICTIM].kill_with_messages_in_hand()?;
            killed_at = Some(delivered);
            progress.note(&format!("worker {VICTIM} killed by SIGKILL at {delivered}"));
        }
        for (number, worker) in workers.iter_mut().enumerate() {
            let alive = worker.child.try_wait()?.is_none();
            ensure!(alive || (number == VICTIM && killed_at.is_some()), "worker {number} ended by itself");
        }
        progress.show(delivered);
    }
    let draining = began.elapsed();
    progress.end(delivered);
    let mut counters = Counters::default();
    for worker in &workers {
        counters.add(worker.counters());
    }
    drop(workers);
    Ok(Results {
        sent,
        delivered: count(client, "SELECT count(*) FROM delivered")?,
        redelivered: count(client, "SELECT count(*) FROM delivered WHERE attempts > 1")?,
        lost: count(client, "SELECT count(*) FROM sent LEFT JOIN delivered d USING (msg_id) WHERE d.msg_id IS NULL")?,
        left: count(client, &format!("SELECT count(*) FROM enough.q_{QUEUE}"))?,
        sending,
        draining,
        counters,
    })
}

//! The rate over time while something holds back VACUUM, so that no dead row goes away.

use super::heading::{MESSAGE, OURS};
use super::life;
use crate::comparison::{Candidate, Comparison, Heading, Relation};
use crate::fixture::{self, Fixture};
use crate::peers::pgmq;
use crate::pgbench::{Load, Pgbench};
use crate::results::{Results, Series, Subject};
use crate::stats::Target;
use anyhow::{Context, Result, ensure};
use postgres::Client;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use xtask::server::ServerOptions;

const CLIENTS: usize = 8;
/// Makes a transaction one that has written.
pub(super) const WRITES: &str = "CREATE TABLE written (x int)";
/// Rates of so many seconds at either end are compared.
const END: usize = 10;

/// A transaction that has only read.
pub(super) fn by_snapshot(fixture: &Fixture) -> Result<Results> {
    let holder = transactions(fixture, fixture::DATABASE, "SELECT count(*) FROM pg_class")?;
    measured(fixture, "held_snapshot", "a transaction that only reads", holder)
}

/// A transaction that has written.
pub(super) fn by_writer(fixture: &Fixture) -> Result<Results> {
    let holder = transactions(fixture, fixture::DATABASE, WRITES)?;
    measured(fixture, "held_xid", "a transaction that has written", holder)
}

/// A replication slot whose standby is gone, and which holds back what that last read.
pub(super) fn by_slot(fixture: &Fixture) -> Result<Results> {
    let mut client = fixture.client()?;
    client.execute("SELECT pg_create_physical_replication_slot('abandoned', true)", &[])?;
    let options = ServerOptions::new(fixture.server().pg());
    let options = options.conf("hot_standby_feedback", "on").conf("primary_slot_name", "abandoned");
    let standby = fixture.server().standby(&options.conf("wal_receiver_status_interval", "1s"))?;
    let mut reader = standby.client()?;
    reader.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class")?;
    until(|| {
        let held = "SELECT xmin IS NOT NULL FROM pg_replication_slots WHERE slot_name = 'abandoned'";
        Ok(client.query_one(held, &[])?.get(0))
    })?;
    // Killed while it reads: it doesn't say that it needs nothing any more.
    drop(standby);
    drop(reader);
    until(|| {
        let abandoned =
            "SELECT NOT active AND xmin IS NOT NULL FROM pg_replication_slots WHERE slot_name = 'abandoned'";
        Ok(client.query_one(abandoned, &[])?.get(0))
    })?;
    let found = measured(fixture, "held_slot", "a replication slot that nobody consumes", ());
    client.execute("SELECT pg_drop_replication_slot('abandoned')", &[])?;
    found
}

/// A `pg_dump` that is slow to come to its end, of each side's database.
pub(super) fn by_dump(fixture: &Fixture) -> Result<Results> {
    pgmq::install(fixture)?;
    let dumps = [dump(fixture, fixture::DATABASE)?, dump(fixture, pgmq::DATABASE)?];
    measured(fixture, "held_dump", "a pg_dump", dumps)
}

fn dump(fixture: &Fixture, database: &str) -> Result<Dump> {
    let mut client = fixture.client_for(database)?;
    // More than fits into the pipe, which nobody reads: the dump stands still in the middle of it.
    client.batch_execute(
        "CREATE TABLE IF NOT EXISTS large AS SELECT i, repeat(md5(i::text), 8) FROM generate_series(1, 20000) AS i",
    )?;
    let mut command = fixture.server().command("pg_dump")?;
    command.arg("--data-only").arg("--table=large").arg(database);
    let dump = Dump(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("can't start pg_dump")?);
    until(|| {
        let at_work = "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'pg_dump' \
                       AND datname = current_database() AND backend_xmin IS NOT NULL AND wait_event = 'ClientWrite'";
        Ok(client.query_one(at_work, &[])?.get(0))
    })?;
    Ok(dump)
}

/// A dump at work, ended when dropped.
struct Dump(Child);

impl Drop for Dump {
    fn drop(&mut self) {
        // Where it has ended already there is nothing to be done.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An open transaction in our database and in pgmq's: one that only reads holds back VACUUM in its own alone.
pub(super) fn transactions(fixture: &Fixture, ours: &str, statement: &str) -> Result<[Client; 2]> {
    pgmq::install(fixture)?;
    let open = |database| -> Result<Client> {
        let mut client = fixture.client_for(database)?;
        client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ")?;
        client.batch_execute(statement)?;
        Ok(client)
    };
    Ok([open(ours)?, open(pgmq::DATABASE)?])
}

fn until(mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition()? {
        ensure!(Instant::now() < deadline, "what should hold back VACUUM didn't come about");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// The whole life of messages while `holder` holds back VACUUM, with ours and, for a quarter of the time, with pgmq.
fn measured<H>(fixture: &Fixture, queue: &str, holds: &str, holder: H) -> Result<Results> {
    pgmq::install(fixture)?;
    fixture.client()?.batch_execute(&format!("SELECT enough.queue_create('{queue}')"))?;
    fixture.client_for(pgmq::DATABASE)?.batch_execute(&format!("SELECT pgmq.create('{queue}')"))?;
    let (our_script, their_script) = (life::ours(queue), life::pgmqs(queue));
    let ours = Side { name: OURS, database: fixture::DATABASE, script: &our_script };
    let found = over_time(fixture, holds, &ours, &their_script)?;
    drop(holder);
    Ok(found)
}

/// One side of a measurement over time.
pub(super) struct Side<'a> {
    pub(super) name: &'a str,
    pub(super) database: &'a str,
    pub(super) script: &'a str,
}

/// Rates over time of ours and, for a quarter of the time, of pgmq, whose script is `pgmqs`.
pub(super) fn over_time(fixture: &Fixture, holds: &str, ours: &Side<'_>, pgmqs: &str) -> Result<Results> {
    let seconds = fixture.effort().either(120, 24);
    let conditions = format!("{CLIENTS} clients, durable, VACUUM held back by {holds}");
    let their_name = pgmq::name();
    let mut found = Results::default();
    let theirs = Side { name: &their_name, database: pgmq::DATABASE, script: pgmqs };
    for (side, seconds, target) in [(ours, seconds, Some(Target::AtLeast(0.95))), (&theirs, seconds / 4, None)] {
        let Side { name, database, script } = *side;
        let variables = &[("body", MESSAGE)];
        let load = Load { name, database, script, variables, clients: CLIENTS, ..Load::default() };
        let mut load = Pgbench::new(fixture, load)?;
        load.warm_up()?;
        let rates = load.rates(seconds)?;
        let subject = Subject::new("queue send + read + delete over time", &conditions, name, "messages/s");
        let seconds = (1..=rates.len() as u32).map(f64::from);
        found.series.push(Series { subject, along: "s".into(), points: seconds.zip(rates.iter().copied()).collect() });
        found.comparisons.extend(ends(name, &conditions, &rates, target)?);
    }
    Ok(found)
}

/// The last seconds against the first ones.
fn ends(name: &str, conditions: &str, rates: &[f64], target: Option<Target>) -> Result<Option<Comparison>> {
    if rates.len() < 2 * END {
        return Ok(None);
    }
    let heading = Heading {
        title: format!("queue send + read + delete over time, {name}"),
        conditions: conditions.to_owned(),
        unit: "messages/s".into(),
        relation: Relation::Ratio,
        target,
    };
    let last = (format!("{name}, last {END} s"), rates[rates.len() - END..].to_vec());
    let first = (format!("{name}, first {END} s"), rates[..END].to_vec());
    Comparison::of(&heading, last, first).map(Some)
}

//! What a message costs besides time: WAL, dead rows, memory; and how soon the index is back after a restart.

use super::heading::{MESSAGE, OURS};
use super::life;
use crate::comparison::Candidate;
use crate::fixture::{self, Fixture};
use crate::peers::pgmq;
use crate::pgbench::{Load, Pgbench};
use crate::results::{Figure, Results, Subject};
use crate::stats::{Estimate, Target};
use anyhow::{Context, Result, ensure};
use postgres::Client;
use postgres::error::SqlState;
use std::thread;
use std::time::{Duration, Instant};

/// Lives that are counted.
const LIVES: u32 = 5_000;

/// Bytes of WAL and dead row versions that a message's life leaves, against pgmq.
pub(super) fn written(fixture: &Fixture) -> Result<Results> {
    // A server of its own: autovacuum, at work on what other measurements have left, writes WAL, too.
    let fixture = &Fixture::start(fixture.server().pg(), fixture.effort())?;
    pgmq::install(fixture)?;
    let (our_script, their_script, their_name) = (life::ours("cost"), life::pgmqs("cost"), pgmq::name());
    fixture.client()?.batch_execute("SELECT enough.queue_create('cost')")?;
    fixture.client_for(pgmq::DATABASE)?.batch_execute("SELECT pgmq.create('cost')")?;
    let sides = [
        (OURS, fixture::DATABASE, &our_script, "enough.q_cost"),
        (their_name.as_str(), pgmq::DATABASE, &their_script, "pgmq.q_cost"),
    ];
    let mut found = Results::default();
    for (name, database, script, table) in sides {
        let mut client = fixture.client_for(database)?;
        client.batch_execute(&format!("ALTER TABLE {table} SET (autovacuum_enabled = off)"))?;
        let load = Load { name, database, script, variables: &[("body", MESSAGE)], clients: 1, ..Load::default() };
        let mut load = Pgbench::new(fixture, Load { times: Some(LIVES), ..load })?;
        // Pages that are changed for the first time since a checkpoint are in the WAL as a whole.
        load.round()?;
        let before = (wal(&mut client)?, dead(&mut client, table)?);
        load.round()?;
        let after = (wal(&mut client)?, dead(&mut client, table)?);
        let conditions = "send + read + delete, no checkpoint in between";
        for (title, unit, bytes) in [
            ("queue: WAL of a message's life", "bytes", after.0 - before.0),
            ("queue: dead row versions that a message's life leaves", "rows", after.1 - before.1),
        ] {
            let subject = Subject::new(title, conditions, name, unit);
            #[allow(clippy::cast_precision_loss, reason = "far below 2⁵³")]
            found.figures.push(Figure::counted(subject, bytes as f64 / f64::from(LIVES), None));
        }
    }
    Ok(found)
}

/// How far the WAL has come, in bytes.
fn wal(client: &mut Client) -> Result<i64> {
    Ok(client.query_one("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint", &[])?.get(0))
}

/// Row versions that have died in a table so far.
fn dead(client: &mut Client, table: &str) -> Result<i64> {
    // Sessions report what they have done when they have been idle, or end; the last one's report takes a moment.
    thread::sleep(Duration::from_secs(1));
    let count = "SELECT n_tup_upd + n_tup_del FROM pg_stat_all_tables WHERE relid = $1::text::regclass";
    Ok(client.query_one(count, &[&table])?.get(0))
}

/// Bytes of the index a leased message takes: the whole of its memory filled with leases.
pub(super) fn memory(fixture: &Fixture) -> Result<Results> {
    const BATCH: i64 = 10_000;
    let mut client = fixture.client()?;
    // A library that no function of the session has needed yet has no settings.
    client.batch_execute("LOAD 'pg_enough'")?;
    let bytes: i64 = client.query_one("SELECT pg_size_bytes(current_setting('enough.queue_memory'))", &[])?.get(0);
    client.batch_execute("SELECT enough.queue_create('memory', visibility_timeout => '1 hour')")?;
    let send = format!(
        "SELECT count(*) FROM enough.queue_send_batch('memory', array_fill('{MESSAGE}'::jsonb, ARRAY[{BATCH}]))"
    );
    // No entry is smaller than 32 bytes: these are more than there can be.
    for _ in 0..=bytes / 32 / BATCH {
        client.query_one(&send, &[])?;
    }
    // A read that finds no room for any lease is an error.
    let read = "SELECT count(*) FROM enough.queue_read('memory', 100)";
    while let Some(row) = unless_full(client.query_one(read, &[]))? {
        ensure!(row.get::<_, i64>(0) > 0, "all messages found room");
    }
    let leases: i64 = client.query_one("SELECT leased FROM enough.queue_stats('memory')", &[])?.get(0);
    client.batch_execute("SELECT enough.queue_drop('memory')")?;
    let mut found = Results::default();
    let conditions = format!("enough.queue_memory = {} MiB, leased in it until no more fit", bytes >> 20);
    #[allow(clippy::cast_precision_loss, reason = "far below 2⁵³")]
    let (each, leases) = (bytes as f64 / leases as f64, leases as f64);
    let subject = |title, unit| Subject::new(title, &conditions, OURS, unit);
    found.figures.push(Figure::counted(subject("queue: memory of a leased message, all in all", "bytes"), each, None));
    found.figures.push(Figure::counted(subject("queue: messages leased at the same time", "messages"), leases, None));
    Ok(found)
}

/// An answer; `None` where the memory is full.
fn unless_full<T>(answer: Result<T, postgres::Error>) -> Result<Option<T>> {
    match answer {
        Err(error) if error.code() == Some(&SqlState::CONFIGURATION_LIMIT_EXCEEDED) => Ok(None),
        answer => Ok(Some(answer?)),
    }
}

/// The first read after a restart, when nothing is in the index.
pub(super) fn rebuild(fixture: &Fixture) -> Result<Results> {
    let effort = fixture.effort();
    let (ready, delayed, restarts) = effort.either((1_000_000, 100_000, 7), (100_000, 10_000, 3));
    // A server of its own: the others' tables aren't to be found again.
    let mut own = Fixture::start(fixture.server().pg(), effort)?;
    own.client()?.batch_execute("SELECT enough.queue_create('rebuild')")?;
    for (count, delay) in [(ready, "0"), (delayed, "1 day")] {
        for _ in 0..count / 10_000 {
            own.client()?.batch_execute(&format!(
                "SELECT count(*) FROM enough.queue_send_batch('rebuild', \
                 array_fill('{MESSAGE}'::jsonb, ARRAY[10000]), delay => '{delay}')"
            ))?;
        }
    }
    own.client()?.batch_execute("VACUUM ANALYZE enough.q_rebuild")?;
    own.settle()?;
    let mut times = Vec::with_capacity(restarts);
    for _ in 0..restarts {
        own.restart()?;
        let mut client = own.client()?;
        let began = Instant::now();
        let read = client.query_one("SELECT count(*) FROM enough.queue_read('rebuild')", &[])?;
        times.push(began.elapsed().as_secs_f64());
        ensure!(read.get::<_, i64>(0) == 1, "nothing was read after the restart");
    }
    let subject =
        Subject::new("queue: first read after a restart", &format!("{ready} ready, {delayed} delayed"), OURS, "s");
    let mut found = Results::default();
    found.figures.push(Figure::estimated(
        subject,
        Estimate::of(&times).context("no restarts")?,
        Some(Target::AtMost(1.0)),
    ));
    Ok(found)
}

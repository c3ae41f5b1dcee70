//! The whole life of messages, one at a time and in batches, against what does the same.

use super::heading::{MESSAGE, OURS, heading};
use crate::comparison::{Candidate, Comparison, compare, compare_all};
use crate::fixture::{self, Fixture};
use crate::peers::{job_table, pgmq, raw_table};
use crate::pgbench::{Load, Pgbench};
use crate::results::Results;
use crate::stats::Target;
use anyhow::Result;

/// Send, read and delete, each its own transaction, in the queue `queue`.
pub(super) fn ours(queue: &str) -> String {
    // An aggregate always has a row: a read that finds nothing then counts as a read, and deletes nothing.
    format!(
        "SELECT enough.queue_send('{queue}', :body);\n\
         SELECT coalesce(max(msg_id), 0) AS msg_id FROM enough.queue_read('{queue}') \\gset\n\
         SELECT enough.queue_delete('{queue}', :msg_id::bigint);\n"
    )
}

/// The same by pgmq.
pub(super) fn pgmqs(queue: &str) -> String {
    format!(
        "SELECT pgmq.send('{queue}', :body);\n\
         SELECT coalesce(max(msg_id), 0) AS msg_id FROM pgmq.read('{queue}', 30, 1) \\gset\n\
         SELECT pgmq.delete('{queue}', :msg_id::bigint);\n"
    )
}

/// The same by a table of jobs.
fn jobs(table: &str) -> String {
    format!(
        "INSERT INTO jobs.{table} (payload) VALUES (:body);\n\
         WITH taken AS ({}) SELECT coalesce(max(id), 0) AS id FROM taken \\gset\n\
         DELETE FROM jobs.{table} WHERE id = :id::bigint;\n",
        job_table::take(table, 1)
    )
}

/// Against pgmq alone, as the smoke suite has it.
pub(super) fn against_pgmq(fixture: &Fixture, clients: usize, target: f64) -> Result<Comparison> {
    let sides = Sides::new(fixture, "smoke")?;
    let [mut ours, mut theirs, ..] = sides.loads(fixture, clients, &[])?;
    let heading = heading("queue send + read + delete", clients, "durable", target);
    let mut comparison = compare(&heading, &mut ours, &mut theirs, fixture.effort().rounds)?;
    comparison.notes.push(sides.left(fixture)?);
    Ok(comparison)
}

/// One message at a time, against pgmq and a table of jobs.
pub(super) fn single(fixture: &Fixture) -> Result<Results> {
    let sides = Sides::new(fixture, "life")?;
    let mut found = Results::default();
    let off: &[(&str, &str)] = &[("synchronous_commit", "off")];
    let runs = [(1, "durable", &[][..], 3.0), (8, "durable", &[], 3.0), (32, "durable", &[], 3.0)];
    for (clients, durability, settings, target) in runs.into_iter().chain([(8, "synchronous_commit off", off, 4.0)]) {
        fixture.settle()?;
        let [mut ours, mut pgmq, mut jobs, mut raw] = sides.loads(fixture, clients, settings)?;
        let heading = heading("queue send + read + delete", clients, durability, target);
        let references: &mut [(_, &mut dyn Candidate)] =
            &mut [(Some(Target::AtLeast(target)), &mut pgmq), (None, &mut jobs), (None, &mut raw)];
        found.comparisons.extend(compare_all(&heading, &mut ours, references, fixture.effort().rounds)?);
    }
    // A message's life that waits for one commit.
    fixture.client()?.batch_execute("SELECT enough.queue_alter('life', ack => 'async')")?;
    for clients in [1, 8] {
        fixture.settle()?;
        let [mut ours, mut pgmq, ..] = sides.loads(fixture, clients, &[])?;
        let heading = heading("queue send + read + delete", clients, "durable but for ack => 'async'", 3.0);
        found.comparisons.push(compare(&heading, &mut ours, &mut pgmq, fixture.effort().rounds)?);
    }
    found.notes.push(sides.left(fixture)?);
    Ok(found)
}

/// A queue of ours, one of pgmq's, a table of jobs and a raw one, all of one name, and the scripts for them.
struct Sides {
    name: &'static str,
    pgmq: String,
    scripts: [String; 4],
}

impl Sides {
    fn new(fixture: &Fixture, name: &'static str) -> Result<Self> {
        pgmq::install(fixture)?;
        job_table::create(fixture, name)?;
        fixture.client()?.batch_execute(&format!("SELECT enough.queue_create('{name}')"))?;
        raw_table::create(fixture, name)?;
        fixture.client_for(pgmq::DATABASE)?.batch_execute(&format!("SELECT pgmq.create('{name}')"))?;
        Ok(Self { name, pgmq: pgmq::name(), scripts: [ours(name), pgmqs(name), jobs(name), raw_table::life(name)] })
    }

    fn loads<'a>(
        &'a self,
        fixture: &'a Fixture,
        clients: usize,
        settings: &'a [(&'a str, &'a str)],
    ) -> Result<[Pgbench<'a>; 4]> {
        let [ours, pgmqs, jobs, raw] = &self.scripts;
        let load = |name, database, script| {
            let variables = &[("body", MESSAGE)];
            Pgbench::new(fixture, Load { name, database, script, variables, clients, settings, times: None })
        };
        Ok([
            load(OURS, fixture::DATABASE, ours)?,
            load(&self.pgmq, pgmq::DATABASE, pgmqs)?,
            load(job_table::NAME, fixture::DATABASE, jobs)?,
            load(raw_table::NAME, fixture::DATABASE, raw)?,
        ])
    }

    fn left(&self, fixture: &Fixture) -> Result<String> {
        let left = |database, table: &str| -> Result<i64> {
            let count = format!("SELECT count(*) FROM {table}{}", self.name);
            Ok(fixture.client_for(database)?.query_one(&count, &[])?.get(0))
        };
        Ok(format!(
            "messages left behind, because a read found none or a round ended: {OURS} {}, pgmq {}, {} {}",
            left(fixture::DATABASE, "enough.q_")?,
            left(pgmq::DATABASE, "pgmq.q_")?,
            job_table::NAME,
            left(fixture::DATABASE, "jobs.")?
        ))
    }
}

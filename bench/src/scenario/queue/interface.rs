//! pgmq's own statements: by pgmq, and by the extension `pgmq` on queues of ours (`compat/pgmq`).

use super::heading::{MESSAGE, heading};
use super::held::{self, Side};
use super::{batch, life};
use crate::comparison::{Comparison, Heading, compare};
use crate::fixture::Fixture;
use crate::peers::pgmq;
use crate::pgbench::{Load, Pgbench};
use crate::results::Results;
use anyhow::Result;

/// The database in which the extension is.
const HERE: &str = "pgmq_here";
/// What tables call it.
const NAME: &str = "pgmq's interface";
/// Messages of the queue that is read by groups, and its groups.
const GROUPED: (i32, i32) = (20_000, 200);

/// Both extensions, each in its database.
fn install(fixture: &Fixture) -> Result<()> {
    pgmq::install(fixture)?;
    fixture.client()?.batch_execute(&format!("DROP DATABASE IF EXISTS {HERE}"))?;
    fixture.client()?.batch_execute(&format!("CREATE DATABASE {HERE}"))?;
    Ok(fixture.client_for(HERE)?.batch_execute("CREATE EXTENSION pgmq CASCADE")?)
}

/// The rate over time while a transaction that has written holds back VACUUM.
pub(super) fn held_back(fixture: &Fixture) -> Result<Results> {
    install(fixture)?;
    for database in [HERE, pgmq::DATABASE] {
        fixture.client_for(database)?.batch_execute("SELECT pgmq.create('interface_held')")?;
    }
    let holder = held::transactions(fixture, HERE, held::WRITES)?;
    let script = life::pgmqs("interface_held");
    let ours = Side { name: NAME, database: HERE, script: &script };
    let found = held::over_time(fixture, "a transaction that has written, pgmq's statements", &ours, &script)?;
    drop(holder);
    Ok(found)
}

/// A message's life, one at a time and in batches, and grouped reads.
pub(super) fn both(fixture: &Fixture) -> Result<Results> {
    install(fixture)?;
    let (messages, groups) = GROUPED;
    for database in [HERE, pgmq::DATABASE] {
        fixture.client_for(database)?.batch_execute(&format!(
            "SELECT pgmq.create('interface'), pgmq.create('grouped'), pgmq.create_fifo_index('grouped'); \
             SELECT pgmq.send_batch('grouped', array_agg('{{}}'::jsonb), array_agg(jsonb_build_object('x-pgmq-group', n % {groups}))) \
               FROM generate_series(1, {messages}) AS n; ANALYZE"
        ))?;
    }
    let mut found = Results::default();
    let (single, batches) = (life::pgmqs("interface"), batch::pgmqs("interface"));
    let off: &[(&str, &str)] = &[("synchronous_commit", "off")];
    for (clients, durability, settings) in
        [(1, "durable", &[][..]), (8, "durable", &[]), (8, "synchronous_commit off", off)]
    {
        let heading = heading("pgmq.send + read + delete", clients, durability, 1.8);
        found.comparisons.push(side_by_side(fixture, &heading, clients, &single, settings)?);
    }
    for clients in [1, 8] {
        let heading = heading("pgmq.send + read + delete in batches of 100", clients, "durable", 3.0);
        let heading = Heading { unit: "batches/s".into(), ..heading };
        found.comparisons.push(side_by_side(fixture, &heading, clients, &batches, &[])?);
    }
    for kind in ["read_grouped", "read_grouped_rr", "read_grouped_head"] {
        let title = format!("pgmq.{kind} of 10 out of {messages} messages in {groups} groups");
        let script = format!("SELECT count(*) FROM pgmq.{kind}('grouped', 0, 10);\n");
        // A message that is read again and again has its deliveries written to its row, by both.
        let heading = heading(&title, 1, "synchronous_commit off", 20.0);
        let heading = Heading { unit: "reads/s".into(), ..heading };
        found.comparisons.push(side_by_side(fixture, &heading, 1, &script, off)?);
    }
    Ok(found)
}

fn side_by_side(
    fixture: &Fixture,
    heading: &Heading,
    clients: usize,
    script: &str,
    settings: &[(&str, &str)],
) -> Result<Comparison> {
    fixture.settle()?;
    let (bodies, name) = (batch::bodies(batch::BATCH), pgmq::name());
    let variables = [("body", MESSAGE), ("bodies", bodies.as_str())];
    let load = |name, database| {
        Pgbench::new(fixture, Load { name, database, script, variables: &variables, clients, settings, times: None })
    };
    let (mut ours, mut theirs) = (load(NAME, HERE)?, load(&name, pgmq::DATABASE)?);
    compare(heading, &mut ours, &mut theirs, fixture.effort().rounds)
}

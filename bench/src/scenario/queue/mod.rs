//! The queue.

mod batch;
mod cost;
mod depth;
mod dispatch;
mod heading;
mod held;
mod interface;
mod life;
mod patterns;
mod pipeline;

use super::entry::Scenario;
use crate::comparison::{Comparison, compare};
use crate::fixture::{self, Fixture};
use crate::peers::raw_table;
use crate::pgbench::{Load, Pgbench};
use crate::results::Results;
use anyhow::Result;
use heading::{MESSAGE, OURS, heading};

/// What pgmq's interface promises.
pub(super) const PGMQ: &[Scenario] = &[
    Scenario {
        name: "interface",
        about: "pgmq's own statements, by pgmq and by the extension of its interface",
        run: interface::both,
    },
    Scenario {
        name: "held",
        about: "the same over time while a transaction that has written holds back VACUUM",
        run: interface::held_back,
    },
];

/// What the queue promises.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "life",
        about: "send, read, delete one message at a time, against pgmq and a SKIP LOCKED table",
        run: life::single,
    },
    Scenario { name: "batch", about: "the same in batches of 100, against pgmq", run: batch::batches },
    Scenario {
        name: "pipeline",
        about: "single sends and a consumer of batches, against PgQ and pgmq",
        run: pipeline::end_to_end,
    },
    Scenario {
        name: "depth",
        about: "one message read by how many are ready, leased and delayed, against pgmq",
        run: depth::reading,
    },
    Scenario {
        name: "held_snapshot",
        about: "the rate over time while a transaction that only reads holds back VACUUM",
        run: held::by_snapshot,
    },
    Scenario { name: "held_xid", about: "the same with a transaction that has written", run: held::by_writer },
    Scenario { name: "held_slot", about: "the same with a replication slot that nobody consumes", run: held::by_slot },
    Scenario { name: "held_dump", about: "the same with a pg_dump", run: held::by_dump },
    Scenario {
        name: "dispatch",
        about: "from a send to the row at a reader that waits, against polling by pgmq",
        run: dispatch::latency,
    },
    Scenario { name: "wake", about: "readers that a message wakes where 50 wait", run: dispatch::wake_ups },
    Scenario { name: "wal", about: "bytes of WAL and dead rows a message, against pgmq", run: cost::written },
    Scenario { name: "memory", about: "bytes of the index a leased message", run: cost::memory },
    Scenario { name: "rebuild", about: "the first read after a restart", run: cost::rebuild },
];

/// What stands beside a plain queue.
pub(super) const PATTERNS: &[Scenario] = &[
    Scenario { name: "topics", about: "a message to 50 queues, against 50 to one", run: patterns::topics },
    Scenario { name: "workers", about: "messages that workers in SQL get through", run: patterns::workers },
    Scenario {
        name: "fairness",
        about: "how soon small tenants are served beside a large one",
        run: patterns::fairness,
    },
];

/// Sending against a raw INSERT, and a message's whole life against pgmq.
pub(super) fn smoke(fixture: &Fixture) -> Result<Results> {
    Ok(Results::from(vec![send(fixture, 32)?, life::against_pgmq(fixture, 8, 2.5)?]))
}

/// Durable sends, one a transaction, against an INSERT into a table of the same shape.
fn send(fixture: &Fixture, clients: usize) -> Result<Comparison> {
    fixture.client()?.batch_execute("SELECT enough.queue_create('send')")?;
    raw_table::create(fixture, "send")?;
    let load = |name, script| {
        let variables = &[("body", MESSAGE)];
        let database = fixture::DATABASE;
        Pgbench::new(fixture, Load { name, database, script, variables, clients, ..Load::default() })
    };
    let mut ours = load(OURS, "SELECT enough.queue_send('send', :body);\n")?;
    let insert = format!("{};\n", raw_table::insert("send"));
    let mut insert = load("raw INSERT", &insert)?;
    compare(&heading("queue send", clients, "durable", 0.95), &mut ours, &mut insert, fixture.effort().rounds)
}

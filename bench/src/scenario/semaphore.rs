//! Semaphores.

use super::against_noop::{NTH_KEY, in_one_statement, inside};
use super::entry::Scenario;
use crate::comparison::{Candidate, Heading, Relation, compare_all};
use crate::fixture::{self, Fixture};
use crate::noop::{self, Answer};
use crate::peers::lock_table::LockTable;
use crate::pgbench::{Load, Pgbench};
use crate::results::Results;
use crate::stats::Target;
use anyhow::Result;

/// What semaphores promise.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "locks",
        about: "acquire and release one of 100,000 names, against two functions that do nothing and locks in tables",
        run: locks,
    },
    Scenario {
        name: "limit",
        about: "many sessions that acquire and release one name with room for all, against two functions that do nothing",
        run: limit,
    },
    Scenario {
        name: "inside",
        about: "an acquire inside the server, over a function that does nothing",
        run: acquire_inside,
    },
];

/// What tables call the extension.
const OURS: &str = "pg_enough";
/// The first of the names.
const FIRST: u64 = 4_000_000_000_000_000;
/// Names in use.
const NAMES: u32 = 100_000;
/// Calls of one statement.
const CALLS: u32 = 200_000;

/// Acquires and releases in two statements, in pgbench's language. `name` is an expression.
fn take_and_release(name: &str, max_holders: u32) -> String {
    format!(
        "SELECT enough.semaphore_acquire({name}, {max_holders}) AS token \\gset\n\
         SELECT enough.semaphore_release({name}, :token);\n"
    )
}

fn create_noops(fixture: &Fixture) -> Result<()> {
    noop::create(fixture, "semaphore_acquire", Answer::Number)?;
    noop::create(fixture, "semaphore_release", Answer::Boolean)
}

fn load<'a>(fixture: &'a Fixture, name: &'a str, script: &'a str, clients: usize) -> Result<Pgbench<'a>> {
    Pgbench::new(fixture, Load { name, database: fixture::DATABASE, script, clients, ..Load::default() })
}

fn heading(title: &str, clients: usize) -> Heading {
    Heading {
        title: title.to_owned(),
        conditions: format!("{clients} clients, prepared"),
        unit: "pairs/s".to_owned(),
        relation: Relation::Ratio,
        target: None,
    }
}

fn locks(fixture: &Fixture) -> Result<Results> {
    const CLIENTS: usize = 8;
    create_noops(fixture)?;
    // Each client has names of its own, so that every call succeeds.
    let own = NAMES / CLIENTS as u32;
    let pick = format!("\\set name {FIRST} + {CLIENTS} * random(0, {}) + :client_id\n", own - 1);
    let ours = format!("{pick}{}", take_and_release(":name", 1));
    let theirs = ours.replace("enough.", &format!("{}.", noop::SCHEMA));
    let tables = [LockTable::Durable, LockTable::Unlogged];
    for table in tables {
        table.create(fixture, FIRST, NAMES)?;
    }
    let [durable, unlogged] = tables.map(|table| format!("{pick}{}", table.take_and_release(":name::text")));
    let mut ours = load(fixture, OURS, &ours, CLIENTS)?;
    let mut noop = load(fixture, "no-op", &theirs, CLIENTS)?;
    let mut durable = load(fixture, tables[0].name(), &durable, CLIENTS)?;
    let mut unlogged = load(fixture, tables[1].name(), &unlogged, CLIENTS)?;
    let references: &mut [(_, &mut dyn Candidate)] = &mut [
        (Some(Target::AtLeast(0.9)), &mut noop),
        (Some(Target::AtLeast(5.0)), &mut durable),
        (None, &mut unlogged),
    ];
    let heading = heading("semaphore, acquire and release, 100,000 names", CLIENTS);
    Ok(compare_all(&heading, &mut ours, references, fixture.effort().rounds)?.into())
}

fn limit(fixture: &Fixture) -> Result<Results> {
    const CLIENTS: usize = 32;
    create_noops(fixture)?;
    let ours = take_and_release("'limit'", CLIENTS as u32);
    let theirs = ours.replace("enough.", &format!("{}.", noop::SCHEMA));
    let mut ours = load(fixture, OURS, &ours, CLIENTS)?;
    let mut noop = load(fixture, "no-op", &theirs, CLIENTS)?;
    let references: &mut [(_, &mut dyn Candidate)] = &mut [(Some(Target::AtLeast(0.9)), &mut noop)];
    let heading = heading("semaphore, acquire and release, one name with room for all", CLIENTS);
    Ok(compare_all(&heading, &mut ours, references, fixture.effort().rounds)?.into())
}

fn acquire_inside(fixture: &Fixture) -> Result<Results> {
    create_noops(fixture)?;
    // A call that finds the name taken, and one that takes it and releases it.
    let denied = "enough.semaphore_acquire(left('held' || i, 4), 1, '1 hour')".to_owned();
    let pair = format!("enough.semaphore_release({NTH_KEY}, enough.semaphore_acquire({NTH_KEY}))");
    let mut found = Results::default();
    for (conditions, call, calls) in [("denied", denied, 1), ("acquire and release", pair, 2)] {
        let statement = in_one_statement(&call, CALLS);
        found.comparisons.push(inside(fixture, "semaphore", conditions, &statement, CALLS * calls)?);
    }
    Ok(found)
}

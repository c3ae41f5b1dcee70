//! Functions of the extension beside a no-op that is called in the same way; and the keys that all suites use.

use crate::comparison::{Comparison, Heading, Relation, compare};
use crate::fixture::{self, Fixture};
use crate::inside::Inside;
use crate::noop;
use crate::pgbench::{Load, Pgbench};
use crate::stats::Target;
use anyhow::Result;

/// Keys in use. Together with their 16 digits: what fits into the caches of a processor only in part.
pub(super) const KEYS: u32 = 10_000;

/// pgbench's line that picks a key.
pub(super) const PICK_KEY: &str = "\\set key 4000000000000000 + random(0, 9999)\n";

/// The key of the i-th call in SQL, another one each time.
pub(super) const NTH_KEY: &str = "(4000000000000000 + i % 10000)::text";

/// How often a statement inside the server is repeated in a round.
pub(super) const REPEATS: u32 = 2;

/// A function of the extension and its no-op, called in the same way by 8 clients.
pub(super) fn against_noop(
    fixture: &Fixture,
    title: &str,
    call: &str,
    variables: &[(&str, &str)],
) -> Result<Comparison> {
    const CLIENTS: usize = 8;
    let ours = format!("{PICK_KEY}{call};\n");
    let theirs = ours.replace("enough.", &format!("{}.", noop::SCHEMA));
    let load = Load {
        name: "pg_enough",
        database: fixture::DATABASE,
        script: &ours,
        variables,
        clients: CLIENTS,
        ..Load::default()
    };
    let mut ours = Pgbench::new(fixture, load)?;
    let mut noop = Pgbench::new(fixture, Load { name: "no-op", script: &theirs, ..load })?;
    let heading = Heading {
        title: title.to_owned(),
        conditions: format!("{CLIENTS} clients, prepared"),
        unit: "calls/s".to_owned(),
        relation: Relation::Ratio,
        target: Some(Target::AtLeast(0.95)),
    };
    compare(&heading, &mut ours, &mut noop, fixture.effort().rounds)
}

/// A statement that makes `calls` calls to a function of the extension, and the same with the no-op.
pub(super) fn inside(
    fixture: &Fixture,
    title: &str,
    conditions: &str,
    statement: &str,
    calls: u32,
) -> Result<Comparison> {
    let mut ours = Inside::new(fixture, "pg_enough", statement, calls, REPEATS)?;
    let theirs = statement.replace("enough.", &format!("{}.", noop::SCHEMA));
    let mut noop = Inside::new(fixture, "no-op", &theirs, calls, REPEATS)?;
    let heading = Heading {
        title: format!("{title}, inside the server"),
        conditions: conditions.to_owned(),
        unit: "µs/call".to_owned(),
        relation: Relation::Difference,
        target: Some(Target::AtMost(0.3)),
    };
    compare(&heading, &mut ours, &mut noop, fixture.effort().rounds)
}

/// A statement that calls `call`, which may use [`NTH_KEY`], `calls` times.
pub(super) fn in_one_statement(call: &str, calls: u32) -> String {
    // A volatile function of a changing argument is called for every row: nothing is folded or remembered.
    format!("SELECT count({call}) FROM generate_series(1, {calls}) AS i")
}

//! The rate limiter.

mod check;
mod held;
mod memory;

use super::against_noop::{NTH_KEY, against_noop, in_one_statement, inside};
use super::entry::Scenario;
use crate::comparison::{Candidate, Heading, Relation, compare, compare_all};
use crate::fixture::Fixture;
use crate::noop::{self, Answer};
use crate::peers::limit_table::{self, FOR_UPDATE, UPSERT};
use crate::results::Results;
use crate::stats::Target;
use anyhow::Result;
use check::{FIRST_KEY, OURS, check, load};

/// What the rate limiter promises.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "many_keys",
        about: "a check of one of 100,000 keys, against a function that does nothing and limits in tables",
        run: many_keys,
    },
    Scenario { name: "hot_key", about: "many sessions at one key, against a limit in a table", run: hot_key },
    Scenario { name: "inside", about: "a check inside the server, over a function that does nothing", run: inside_all },
    Scenario {
        name: "open_transaction",
        about: "callers of a key that another session's open transaction has used",
        run: held::open_transaction,
    },
    Scenario { name: "memory", about: "bytes a key, and keys in 64 MB", run: memory::of_a_key },
];

/// Calls of one statement.
const CALLS: u32 = 200_000;

/// Keys of [`many_keys`].
const KEYS: u32 = 100_000;
/// A check against a function that does nothing.
pub(super) fn smoke(fixture: &Fixture) -> Result<Results> {
    noop::create(fixture, "rate_limit", Answer::Limit)?;
    let call = format!("enough.rate_limit({NTH_KEY}, 1000000, '1 minute')");
    Ok(Results::from(vec![
        against_noop(fixture, "rate_limit", "SELECT * FROM enough.rate_limit(:key, 1000000, '1 minute')", &[])?,
        inside(fixture, "rate_limit", "many keys", &in_one_statement(&call, CALLS), CALLS)?,
    ]))
}

fn heading(title: &str, clients: usize, target: Option<Target>) -> Heading {
    Heading {
        title: title.to_owned(),
        conditions: format!("{clients} clients, prepared"),
        unit: "calls/s".to_owned(),
        relation: Relation::Ratio,
        target,
    }
}

fn many_keys(fixture: &Fixture) -> Result<Results> {
    const CLIENTS: usize = 8;
    noop::create(fixture, "rate_limit", Answer::Limit)?;
    limit_table::create(fixture, FIRST_KEY, KEYS)?;
    let pick = format!("\\set key {FIRST_KEY} + random(0, {})\n", KEYS - 1);
    let ours = format!("{pick}{}", check(":key"));
    let theirs = ours.replace("enough.", &format!("{}.", noop::SCHEMA));
    let [upsert, for_update] =
        [limit_table::upsert(":key"), limit_table::for_update(":key")].map(|s| pick.clone() + &s);
    let mut ours = load(fixture, OURS, &ours, CLIENTS)?;
    let mut noop = load(fixture, "no-op", &theirs, CLIENTS)?;
    let mut upsert = load(fixture, UPSERT, &upsert, CLIENTS)?;
    let mut for_update = load(fixture, FOR_UPDATE, &for_update, CLIENTS)?;
    let references: &mut [(_, &mut dyn Candidate)] = &mut [
        (Some(Target::AtLeast(0.95)), &mut noop),
        (Some(Target::AtLeast(2.0)), &mut upsert),
        (Some(Target::AtLeast(4.0)), &mut for_update),
    ];
    let heading = heading("rate limit, 100,000 keys", CLIENTS, None);
    Ok(compare_all(&heading, &mut ours, references, fixture.effort().rounds)?.into())
}

fn hot_key(fixture: &Fixture) -> Result<Results> {
    const CLIENTS: usize = 32;
    limit_table::create(fixture, FIRST_KEY, 1)?;
    let (ours, theirs) = (check("'hot'"), limit_table::upsert("'hot'"));
    let mut ours = load(fixture, OURS, &ours, CLIENTS)?;
    let mut upsert = load(fixture, UPSERT, &theirs, CLIENTS)?;
    let heading = heading("rate limit, one hot key", CLIENTS, Some(Target::AtLeast(3.0)));
    Ok(vec![compare(&heading, &mut ours, &mut upsert, fixture.effort().rounds)?].into())
}

fn inside_all(fixture: &Fixture) -> Result<Results> {
    noop::create(fixture, "rate_limit", Answer::Limit)?;
    let mut found = Results::default();
    let many = format!("({FIRST_KEY} + i % {KEYS})::text");
    for (conditions, key) in [("100,000 keys", many.as_str()), ("one key", "left('hot' || i, 3)")] {
        let call = format!("enough.rate_limit({key}, 1000000, '1 minute')");
        found.comparisons.push(inside(fixture, "rate limit", conditions, &in_one_statement(&call, CALLS), CALLS)?);
    }
    Ok(found)
}

//! The cache.

mod statements;
mod suite;

pub(super) use suite::SCENARIOS;

use super::against_noop::{NTH_KEY, against_noop, in_one_statement, inside};
use crate::fixture::Fixture;
use crate::noop::{self, Answer, VALUE};
use crate::results::Results;
use anyhow::Result;
use statements::{CALLS, CALLS_IN_TRANSACTIONS, fill, in_transactions};

/// Calls of one transaction where that holds many: writes wait in the backend's memory until the commit.
const CALLS_PER_TRANSACTION: u32 = 1_000;

/// Get and set against functions that do nothing.
pub(super) fn smoke(fixture: &Fixture) -> Result<Results> {
    noop::create(fixture, "cache_get", Answer::Json)?;
    noop::create(fixture, "cache_set", Answer::Boolean)?;
    fill(fixture)?;
    let value = VALUE.replace('\'', "''");
    let get = format!("enough.cache_get({NTH_KEY})");
    let set = format!("enough.cache_set({NTH_KEY}, '{value}')");
    let body = [("body", VALUE)];
    Ok(Results::from(vec![
        against_noop(fixture, "cache get", "SELECT enough.cache_get(:key)", &[])?,
        against_noop(fixture, "cache set", "SELECT enough.cache_set(:key, :body)", &body)?,
        inside(fixture, "cache get", "hits", &in_one_statement(&get, CALLS), CALLS)?,
        inside(fixture, "cache set", "a commit each", &in_transactions(&set, 1), CALLS_IN_TRANSACTIONS)?,
        inside(
            fixture,
            "cache set",
            &format!("{CALLS_PER_TRANSACTION} a commit"),
            &in_transactions(&set, CALLS_PER_TRANSACTION),
            CALLS_IN_TRANSACTIONS,
        )?,
    ]))
}

//! The cache.

mod common;
mod suite;

pub(super) use suite::SCENARIOS;

use super::common::{NTH_KEY, against_noop, in_one_statement, inside};
use crate::findings::Findings;
use crate::noop::{self, Answer, VALUE};
use crate::stage::Stage;
use anyhow::Result;
use common::{CALLS, CALLS_IN_TRANSACTIONS, fill, in_transactions};

/// Calls of one transaction where that holds many: writes wait in the backend's memory until the commit.
const CALLS_PER_TRANSACTION: u32 = 1_000;

/// Get and set against functions that do nothing.
pub(super) fn smoke(stage: &Stage) -> Result<Findings> {
    noop::create(stage, "cache_get", Answer::Json)?;
    noop::create(stage, "cache_set", Answer::Boolean)?;
    fill(stage)?;
    let value = VALUE.replace('\'', "''");
    let get = format!("enough.cache_get({NTH_KEY})");
    let set = format!("enough.cache_set({NTH_KEY}, '{value}')");
    let body = [("body", VALUE)];
    Ok(Findings::from(vec![
        against_noop(stage, "cache get", "SELECT enough.cache_get(:key)", &[])?,
        against_noop(stage, "cache set", "SELECT enough.cache_set(:key, :body)", &body)?,
        inside(stage, "cache get", "hits", &in_one_statement(&get, CALLS), CALLS)?,
        inside(stage, "cache set", "a commit each", &in_transactions(&set, 1), CALLS_IN_TRANSACTIONS)?,
        inside(
            stage,
            "cache set",
            &format!("{CALLS_PER_TRANSACTION} a commit"),
            &in_transactions(&set, CALLS_PER_TRANSACTION),
            CALLS_IN_TRANSACTIONS,
        )?,
    ]))
}

//! The rate limiter.

use super::{NTH_KEY, against_noop, in_one_statement, inside};
use crate::findings::Findings;
use crate::noop::{self, Answer};
use crate::stage::Stage;
use anyhow::Result;

/// Calls of one statement.
const CALLS: u32 = 200_000;

/// A check against a function that does nothing.
pub(super) fn smoke(stage: &Stage) -> Result<Findings> {
    noop::create(stage, "rate_limit", Answer::Limit)?;
    let call = format!("enough.rate_limit({NTH_KEY}, 1000000, '1 minute')");
    Ok(Findings::from(vec![
        against_noop(stage, "rate_limit", "SELECT * FROM enough.rate_limit(:key, 1000000, '1 minute')", &[])?,
        inside(stage, "rate_limit", "many keys", &in_one_statement(&call, CALLS), CALLS)?,
    ]))
}

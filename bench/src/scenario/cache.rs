//! The cache.

mod suite;

pub(super) use suite::SCENARIOS;

use super::{KEYS, NTH_KEY, against_noop, in_one_statement, inside};
use crate::findings::Findings;
use crate::noop::{self, Answer, VALUE};
use crate::stage::Stage;
use anyhow::{Result, ensure};

/// Calls of one statement.
const CALLS: u32 = 200_000;

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

/// Calls of [`in_transactions`].
const CALLS_IN_TRANSACTIONS: u32 = 50_000;

/// A block that calls `call` with a commit after every `each` calls.
fn in_transactions(call: &str, each: u32) -> String {
    format!(
        "DO $do$ DECLARE answer boolean; BEGIN \
           FOR i IN 1 .. {CALLS_IN_TRANSACTIONS} LOOP \
             answer := {call}; \
             IF i % {each} = 0 THEN COMMIT; END IF; \
           END LOOP; \
         END $do$"
    )
}

/// Gives every key its value, and makes sure that a get then finds it.
fn fill(stage: &Stage) -> Result<()> {
    let mut client = stage.client()?;
    let set =
        format!("SELECT count(enough.cache_set({NTH_KEY}, $1::text::jsonb)) FROM generate_series(1, {KEYS}) AS i");
    client.query_one(&set, &[&VALUE])?;
    let found = format!("SELECT count(enough.cache_get({NTH_KEY})) FROM generate_series(1, {KEYS}) AS i");
    let found: i64 = client.query_one(&found, &[])?.get(0);
    ensure!(found == i64::from(KEYS), "only {found} of {KEYS} keys are found in the cache after they were set");
    Ok(())
}

//! The statements that the cache's scenarios time, and the values that they find.

use super::super::against_noop::{KEYS, NTH_KEY};
use crate::fixture::Fixture;
use crate::noop::VALUE;
use anyhow::{Result, ensure};

/// Calls of one statement.
pub(super) const CALLS: u32 = 200_000;

/// Calls of [`in_transactions`].
pub(super) const CALLS_IN_TRANSACTIONS: u32 = 50_000;

/// A block that calls `call` with a commit after every `each` calls.
pub(super) fn in_transactions(call: &str, each: u32) -> String {
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
pub(super) fn fill(fixture: &Fixture) -> Result<()> {
    let mut client = fixture.client()?;
    let set =
        format!("SELECT count(enough.cache_set({NTH_KEY}, $1::text::jsonb)) FROM generate_series(1, {KEYS}) AS i");
    client.query_one(&set, &[&VALUE])?;
    let found = format!("SELECT count(enough.cache_get({NTH_KEY})) FROM generate_series(1, {KEYS}) AS i");
    let found: i64 = client.query_one(&found, &[])?.get(0);
    ensure!(found == i64::from(KEYS), "only {found} of {KEYS} keys are found in the cache after they were set");
    Ok(())
}

//! A check by the rate limiter, as the scenarios time it.

use crate::fixture::{self, Fixture};
use crate::pgbench::{Load, Pgbench};
use anyhow::Result;

/// What tables call the extension.
pub(super) const OURS: &str = "pg_enough";

/// A check as a client asks for it. `key` is an expression.
pub(super) fn check(key: &str) -> String {
    format!("SELECT * FROM enough.rate_limit({key}, 1000000, '1 minute');\n")
}

pub(super) fn load<'a>(fixture: &'a Fixture, name: &'a str, script: &'a str, clients: usize) -> Result<Pgbench<'a>> {
    Pgbench::new(fixture, Load { name, database: fixture::DATABASE, script, clients, ..Load::default() })
}

/// The first of the keys.
pub(super) const FIRST_KEY: u64 = 4_000_000_000_000_000;

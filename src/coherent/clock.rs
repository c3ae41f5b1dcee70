//! The server's clock as the engine counts.

use crate::pg::server;
use enough_engine::cache::NEVER;

/// The server's clock as the engine counts: microseconds since `PostgreSQL`'s epoch.
pub fn now() -> u64 {
    u64::try_from(server::now()).unwrap_or(0)
}

/// Whether `expiry` has come.
pub fn is_over(expiry: u64, now: u64) -> bool {
    expiry != NEVER && expiry <= now
}

//! `pg_enough`: a message queue, a cache, a rate limiter, semaphores and a key-value store inside PostgreSQL.
//!
//! One idea carries it: the durable truth lives in ordinary tables, everything fast lives in one shared-memory segment,
//! and nothing in that segment is the only copy of anything durable.
//!
//! | module | what it is |
//! |---|---|
//! | [`queue`] | durable messages in a table, with an index of what is ready, leased and delayed in the segment |
//! | [`cache`] | values with a TTL, in the segment alone |
//! | [`kv`] | values by key, durable in a table, with copies in the segment |
//! | [`rate_limit`] | limiter states, in the segment alone |
//! | [`semaphore`] | locks and limits on what runs at once, in the segment alone |
//! | [`coherent`] | copies in the segment that are never older than what is committed |
//! | [`maintenance`] | time-based housekeeping that no call has done yet |
//! | [`shmem`] | the shared memory segment: found, laid out, locked |
//! | [`pg`] | the boundary to PostgreSQL: safe calls of its C interface |
//! | [`capability`] | what makes a capability, in one place |
//! | [`cron`] | statements that `pg_cron` runs |
//! | [`error`] | what can go wrong, with its SQLSTATE |
//! | [`guc`] | the settings |
//!
//! Dependencies point one way: a capability's `sql.rs` → the capability → `shmem` → `pg`; the crate `enough_engine`, below all,
//! has the data structures and knows nothing of PostgreSQL. A capability never imports another one.

#[cfg(not(target_pointer_width = "64"))]
compile_error!("pg_enough needs a 64-bit machine: the segment's words are 64-bit atomics that processes share");

mod cache;
mod capability;
mod coherent;
mod cron;
mod error;
mod guc;
mod kv;
mod maintenance;
mod pg;
mod queue;
mod rate_limit;
mod semaphore;
mod shmem;

use capability::Capability;
use pgrx::prelude::*;

pgrx::pg_module_magic!();

// The order in which CREATE EXTENSION runs them.
extension_sql_file!("../sql/schema.sql", name = "schema", bootstrap);
extension_sql_file!("../sql/tables.sql", name = "tables", requires = ["schema"]);
extension_sql_file!("../sql/cache.sql", name = "cache", requires = ["tables"]);
extension_sql_file!("../sql/rate_limit.sql", name = "rate_limit", requires = ["cache"]);
extension_sql_file!("../sql/semaphore.sql", name = "semaphore", requires = ["rate_limit"]);
extension_sql_file!("../sql/kv.sql", name = "kv", requires = ["semaphore"]);
extension_sql_file!("../sql/queue.sql", name = "queue", requires = ["kv"]);
extension_sql_file!("../sql/topics.sql", name = "topics", requires = ["queue"]);
extension_sql_file!("../sql/sources.sql", name = "sources", requires = ["topics"]);
extension_sql_file!("../sql/workers.sql", name = "workers", requires = ["sources"]);
extension_sql_file!("../sql/importing.sql", name = "importing", requires = ["workers"]);
extension_sql_file!("../sql/maintenance.sql", name = "maintenance", requires = ["importing"]);
extension_sql_file!("../sql/access.sql", name = "access", requires = ["maintenance"], finalize);

/// The capabilities, in the order in which they lie in the segment: `docs/adding-a-capability.md`.
static CAPABILITIES: [&Capability; 4] =
    [&queue::CAPABILITY, &cache::CAPABILITY, &rate_limit::CAPABILITY, &semaphore::CAPABILITY];
const _: () =
    assert!(queue::REGION.0 == 0 && cache::REGION.0 == 1 && rate_limit::REGION.0 == 2 && semaphore::REGION.0 == 3);
// The key-value store has no region, and takes part in the end of transactions behind those that have.
const _: () = assert!(kv::NUMBER as usize == CAPABILITIES.len());
const _: () = shmem::version::check(&[
    enough_engine::queue::LAYOUT,
    enough_engine::cache::LAYOUT,
    enough_engine::limiter::LAYOUT,
    enough_engine::semaphore::LAYOUT,
]);

/// Called by the server when it loads the library: at its start where `pg_enough` is preloaded, else when a session
/// first calls one of its functions.
#[pg_guard]
#[allow(non_snake_case, reason = "the server looks for this name")]
pub extern "C-unwind" fn _PG_init() {
    cache::settings::define();
    queue::define();
    capability::init(&CAPABILITIES);
    let spaces: &'static dyn pg::xact::Participant = &kv::PARTICIPANT;
    pg::xact::init(CAPABILITIES.iter().map(|capability| capability.participant).chain([Some(spaces)]));
    shmem::init();
}

//! The cache: values under text keys, with a time to live, in the segment alone.
//!
//! No table, no WAL: a value that is lost is a miss. What is promised is that nothing wrong is ever returned: a set, a
//! delete or a touch shows in its own transaction at once, to others when that commits, and never if it (or its
//! savepoint) rolls back. How that is done stands in [`coherent`](crate::coherent).
//!
//! Where a decision must hold among sessions (`mode => 'if_absent'`, [`take`](crate::coherent::store::take)), it is made at once, in the
//! segment, and a rollback doesn't undo it.
//!
//! | file | subject |
//! |---|---|
//! | `functions.rs`, `arguments.rs` | arguments in, rows out |
//! | `settings.rs` | the settings that may change while the server runs |
//! | `fast_path.rs` | get and set in their plain cases |
//! | `transactional.rs` | what a transaction sees: its pending writes over what is committed |
//! | `atomic.rs`, `count.rs` | changes that depend on what is there; counters |
//! | `fetch.rs`, `notes.rs` | read through: one session computes what isn't there, others wait for it; keys for which that can't be done |
//! | `tables.rs` | tables whose changes end entries |
//! | `names.rs` | listing the keys whose text is kept |
//! | `jsonb/` | the binary form of a jsonb, without the server: counters, the entries of `cache_mset` |

mod arguments;
mod atomic;
mod count;
mod fast_path;
mod fetch;
mod functions;
mod jsonb;
mod names;
mod notes;
pub mod settings;
mod tables;
mod transactional;

pub use crate::coherent::settings::REGION;

use crate::capability::{Capability, Warning};
use crate::coherent::{pending, settings as memory, store, undecided};
use crate::error::Error;
use crate::pg::server;
use crate::shmem::segment;

/// The cache.
pub static CAPABILITY: Capability = Capability {
    name: "cache",
    wait_event: c"EnoughCache",
    sizes: &memory::SIZES,
    smallest_partition: memory::smallest_partition,
    format: |words, made| enough_engine::cache::format(words, made.floor, server::takes_prepared_transactions()),
    keeps_waiters: false,
    participant: Some(&pending::PARTICIPANT),
    tasks: &[("cache_expired", |deadline| sweep(deadline).map(|(items, whole)| (items.cast_signed(), whole)))],
    warnings,
};

/// Evictions from which on they may be warned of.
const MANY_EVICTIONS: u64 = 1000;

/// A full cache is what it should be; one that gives up most entries before anybody asks for them is too small.
fn warnings() -> Result<Vec<Warning>, Error> {
    let stats = store::stats(segment()?)?;
    let churns = stats.evictions >= MANY_EVICTIONS && stats.evictions > stats.sets / 2 && stats.misses > stats.hits;
    let warning = churns.then(|| {
        let text = format!(
            "{} of {} entries had to give way to others before they were over, and most lookups found nothing: raise \
             enough.cache_memory",
            stats.evictions, stats.sets
        );
        ("cache_memory_too_small", text)
    });
    Ok(warning.into_iter().collect())
}

/// Frees the memory of entries that have expired or been cleared, for maintenance. Until `deadline` (microseconds of
/// the server's clock); how many entries were removed, and whether it got to the end.
pub fn sweep(deadline: i64) -> Result<(u64, bool), Error> {
    let segment = segment()?;
    undecided::look(segment)?;
    let before = store::stats(segment)?.expirations;
    let finished = store::sweep(segment, deadline)?;
    Ok((store::stats(segment)?.expirations.saturating_sub(before), finished))
}

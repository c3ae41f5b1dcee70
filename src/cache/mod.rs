//! The cache: values under text keys, with a time to live, in the segment alone.
//!
//! No table, no WAL: a value that is lost is a miss. What is promised is that nothing wrong is ever returned: a set, a
//! delete or a touch shows in its own transaction at once, to others when that commits, and never if it (or its
//! savepoint) rolls back. So it waits in this process's memory ([`pending`]); before the commit its memory in the
//! segment is reserved, and the commit callback, which can't fail, publishes it.
//!
//! Once a transaction that has removed an entry has committed, no value that was computed before can be stored ([`barrier`]).
//!
//! Where a decision must hold among sessions (`mode => 'if_absent'`, [`take`](store::take)), it is made at once, in the
//! segment, and a rollback doesn't undo it.
//!
//! | file | subject |
//! |---|---|
//! | `functions.rs`, `arguments.rs` | arguments in, rows out |
//! | `settings.rs` | its settings |
//! | `fast_path.rs` | get and set in their plain cases |
//! | `transactional.rs` | what a transaction sees: its pending writes over what is committed |
//! | `atomic.rs` | changes that depend on what is there |
//! | `log/` | what a transaction has done, by savepoint |
//! | `pending.rs` | what waits for the commit, and how it is carried out |
//! | `fetch.rs` | read through: one session computes what isn't there, others wait for it |
//! | `computing.rs` | the values that a session is computing, and the tags of what they are made of |
//! | `barrier.rs` | keeps a value that was computed before a removal from being stored after it |
//! | `removal.rs` | the removals of a transaction, carried out under barriers |
//! | `undecided.rs`, `settled.rs` | those of transactions that are prepared, until they are decided |
//! | `clock.rs` | the time as the engine counts it |
//! | `tables.rs` | tables whose changes end entries |
//! | `key.rs`, `names.rs` | keys, and listing those whose text is kept |
//! | `store.rs` | what is committed: the calls into the segment |
//! | `jsonb/` | the binary form of a jsonb, without the server: counters, the entries of `cache_mset` |

mod arguments;
mod atomic;
mod barrier;
mod clock;
mod computing;
mod fast_path;
mod fetch;
mod functions;
mod jsonb;
mod key;
mod log;
mod names;
mod pending;
mod removal;
pub mod settings;
mod settled;
mod store;
mod tables;
mod transactional;
mod undecided;

pub use settings::REGION;

use crate::capability::{Capability, Warning};
use crate::error::Error;
use crate::pg::server;
use crate::shmem::segment;

/// The cache.
pub static CAPABILITY: Capability = Capability {
    name: "cache",
    wait_event: c"EnoughCache",
    sizes: &settings::SIZES,
    smallest_partition: settings::smallest_partition,
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

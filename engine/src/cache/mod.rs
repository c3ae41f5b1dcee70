//! One partition of the cache: an arena of scattered values, a hash table over it, expiry and eviction.
//!
//! # Locks
//! A [`Partition`] is a view over words that one lock guards. What only reads ([`Partition::find`],
//! [`Partition::copy`], [`Partition::names`], [`Partition::count_hit`], [`Partition::count_miss`], [`Partition::stats`]) and
//! [`Partition::fill`], which writes only what its caller has reserved, are for holders of the *shared* lock; everything
//! else is for the holder of the *exclusive* lock. Each call does a bounded amount of work; what may need more says so
//! with [`Progress::More`], so that the caller can let others in between. [`Partition::read_optimistic`] needs no lock, but a
//! version that tells whether anybody has written meanwhile.
//!
//! # A write in two halves
//! [`Partition::reserve`] finds memory, evicting where it must, and may be repeated; [`Partition::fill`] copies the
//! value; [`Partition::publish`] links it under its key and frees what it replaces. Publishing needs no memory and has
//! no way to refuse, so it may run in a commit callback. A partition formatted in between voids its reservations (they
//! carry its epoch); publishing a void one leaves the key absent.
//!
//! # Memory
//! | words | what |
//! |---|---|
//! | header, 104 blocks | magic, epoch, counters, the free lists, the expiry lists, clear stamps ([`layout`]), records of prepared transactions ([`undecided`]) |
//! | buckets | a `u32` per 3 blocks: the first entry of the chain |
//! | tags | the records of invalidations ([`tags`]), a block in 128 |
//! | barriers | when which keys and tags were removed last ([`barrier`]), 3 blocks in 512 |
//! | blocks | runs of 64-byte blocks ([`arena`]): free, the head of an entry, or a continuation of one |
//!
//! A value lies in as many runs as it takes, so every free block can serve every value and memory can't fragment. The
//! CLOCK hand ([`evict`]) moves in address order, so that what it frees coalesces and large values mostly find one run.
//! What has expired is found by its own lists ([`expiry`]) and goes first.

mod arena;
mod barrier;
mod check;
mod entry;
mod evict;
mod expiry;
mod layout;
mod logical_time;
mod names;
mod optimistic;
mod stats;
mod table;
mod tags;
#[cfg(test)]
mod tests;
mod undecided;
mod write;

use crate::fingerprint;
use crate::words::Words;

pub use barrier::Removal;
pub use check::CheckReport;
pub use entry::{Found, Item, Kind, NEVER};
pub use layout::{MAX_TAGS, MAX_VALUE, Partition};
pub use logical_time::LogicalTime;
pub use names::{MAX_NAME, Named};
pub use optimistic::OptimisticRead;
pub use stats::Stats;
pub use tags::Tags;
pub use undecided::Trust;
pub use write::{Progress, Reservation};

/// The fingerprint of what lies where in the words: where it changes, so does the layout version.
pub const LAYOUT: u64 = fingerprint![
    arena::LAYOUT,
    entry::LAYOUT,
    expiry::LAYOUT,
    barrier::LAYOUT,
    layout::LAYOUT,
    stats::LAYOUT,
    tags::LAYOUT,
    undecided::LAYOUT
];

/// Makes `words` an empty partition, whatever they held, which refuses values computed before `floor`, and with `distrusted` all
/// others too ([`Partition::distrust`]). Exclusive lock. Words that are too few for one are left as they are: [`Partition::open`]
/// refuses them.
pub fn format(words: Words<'_>, floor: LogicalTime, distrusted: bool) {
    let _ = Partition::format(words, floor).and_then(|made| if distrusted { made.distrust() } else { Ok(()) });
}

//! Semaphores: who holds a name until when, and who waits for it in which order.
//!
//! A name is known while somebody holds it or waits for it, and takes no memory otherwise. What outlives it is the last token:
//! each is greater than all before it of the whole partition, and no less than the clock's microseconds, so that tokens go on
//! growing when the memory was made anew.
//!
//! **The order.** Only the first in line may take, also where there is room for a caller that isn't in line: with limits that
//! differ from call to call, callers that ask for more would otherwise keep the first one waiting for ever. A session that
//! takes turns its place in line into that of a holder, so a session that waits never fails for want of memory.
//!
//! **Nobody polls.** The first in line sleeps until the earliest holder expires, the others until their wait ends. Whatever
//! changes which one is first, or makes the first one's moment earlier, names the session to wake.
//!
//! **A clock that steps back.** What runs is brought back with it, so that it lasts no longer. The caller reads the clock after
//! it has locked the partition.
//!
//! | file | subject |
//! |---|---|
//! | `records.rs` | the memory: records, free ones, lists and the names' buckets |
//! | `table.rs` | taking, waiting, extending and releasing |
//! | `look.rs` | who holds what, and what was counted |
//! | `check.rs` | whether the memory is whole, where none is left |

mod check;
mod look;
mod records;
mod table;
#[cfg(test)]
mod tests;

pub use look::{Holder, Seen, Stats, stats};
pub use records::MAX_NAME;
pub use table::{Answer, Ask, Changed, Key, Table, Wait};

use crate::fingerprint;
use crate::words::{Words, zero};

/// The fingerprint of what lies where in the words: where it changes, so does the layout version.
pub const LAYOUT: u64 = fingerprint![records::LAYOUT];

/// Makes a partition of `words` in which nobody holds anything, whatever they held. Where none fits, every attempt to open it is
/// answered by [`Corrupt`](crate::words::Corrupt).
pub fn format(words: Words<'_>) {
    if records::Records::format(words).is_err() {
        zero(words);
    }
}

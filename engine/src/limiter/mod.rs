//! Rate limiting: the arithmetic of the algorithms, and the [`table`] that keeps a state per key.
//!
//! The arithmetic is pure: a [`Limit`], the [`State`] that earlier grants left (or none) and the time go in, a decision
//! and the new state come out. Integers only, so every answer is exact to the microsecond.
//!
//! All algorithms are one question, "how much may be consumed now?" ([`Limit::available`]), and its inverse, "how
//! long until so much may be?" ([`Limit::wait`]); a request of cost `n` is allowed if and only if `n` is available.
//! Hence `retry_after` is the wait for the request's cost, and `reset_after` the wait for the whole capacity.
//!
//! **What changes a state.** Only grants and refunds do, and nothing that was denied leaves a trace. So the limits of a
//! call apply to all that was consumed so far, whatever the limits were then.
//!
//! **A clock that steps back.** A state never lies in the future: a state whose time is after `now` is moved to `now`
//! ([`State::rebase`]). What was consumed stays consumed, and ages from then on, so that the key gets no fresh
//! limit, and waits no longer than if it had consumed all of it just now. The caller therefore has to read the clock
//! *after* it has locked the table: an older reading would look like a step back.

pub mod all;
pub mod table;

mod arithmetic;
mod convert;
mod entries;
mod evict;
mod fixed_window;
mod limit;
mod notes;
mod sliding_window;
mod stored;
#[cfg(test)]
mod tests;
mod token_bucket;

pub(crate) use sliding_window::Narrow;

pub use limit::{Algorithm, Decision, Limit, MAX_PERIOD, MAX_REQUESTS, MIN_PERIOD, OutOfRange, Request, State};

use crate::fingerprint;
use crate::words::{Words, zero};

/// The fingerprint of what lies where in the words: where it changes, so does the layout version.
pub const LAYOUT: u64 =
    fingerprint![entries::LAYOUT, notes::LAYOUT, sliding_window::LAYOUT, crate::window::LAYOUT, limit::LAYOUT];

/// Makes an empty table of `words`, whatever they held. Where a table doesn't fit it stays without one, and every
/// attempt to open it is answered by [`Corrupt`](crate::words::Corrupt).
pub fn format(words: Words<'_>) {
    if table::Table::format(words).is_err() {
        zero(words);
    }
}

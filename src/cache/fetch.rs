//! Read through: what isn't cached is computed by a query, by one session, while others wait for it.
//!
//! A session whose turn it is ([`KeyLock`]) looks once more, then runs the query and stores the value. Sessions that come
//! meanwhile take an expired value that is still kept, if they may and don't compute another one of it, or wait until the
//! turn has ended, and look again: all at once, and where there is still nothing one after the other, each computing if
//! the one before it failed.
//!
//! The value is stored at once: it is made of what is committed, so others may have it before this transaction commits,
//! and should. But a transaction that has written sees its own rows, so what it computes is stored when it commits. If it
//! had written before, it makes nobody wait for that. If it is the query itself that writes, others wait: that is how
//! long computing the value takes.
//!
//! A value ends with the tables that the query has read, where those are tagged, and with the entries of the cache that it
//! has read ([`Computing`]): it gets their tags beside the caller's. With more than an entry can have it isn't stored, for
//! it could be stale.
//!
//! Of a value that can't be stored, and of a query that has failed, a note is kept for a while ([`Note`]), so
//! that sessions that ask for it don't wait for one another, each to compute it once more in turn.

use super::notes::{self, Note};
use super::transactional;
use super::{jsonb, tables};
use crate::coherent::barrier::{self, ComputedFrom};
use crate::coherent::clock;
use crate::coherent::computing::{self, Computing};
use crate::coherent::key::Key;
use crate::coherent::log::Effect;
use crate::coherent::store::Hit;
use crate::coherent::{pending, store, undecided};
use crate::error::Error;
use crate::pg::fmgr::{Buffer, Jsonb};
use crate::pg::key_lock::KeyLock;
use crate::pg::reads::Reads;
use crate::pg::savepoint::attempt;
use crate::pg::{query, server};
use crate::shmem::Segment;
use enough_engine::cache::{Item, Kind, Reservation, Tags};
use enough_engine::hash::KeyHash;

/// What to compute, and how to store it.
pub struct Fetch<'c> {
    /// Its text, in the database's encoding.
    pub query: &'c [u8],
    /// `$1`
    pub args: Option<Jsonb<'c>>,
    /// What it may be invalidated by.
    pub tags: Tags,
    /// How long past its time a value may be returned while another session computes, in microseconds.
    pub stale_for: u64,
    /// And where the query fails.
    pub stale_if_error: u64,
}

/// When a value is over, and when it goes: it is kept for callers that take one that is over.
#[derive(Debug, Clone, Copy)]
pub struct Life {
    /// See [`Life`].
    pub over: u64,
    /// See [`Life`].
    pub until: u64,
}

/// For how long a value isn't tried to be stored that was too large or had too many tags, in microseconds: its callers don't wait for each
/// other.
const LARGE_FOR: u64 = 10_000_000;
/// For how long a query that has failed isn't tried again, by callers that take an older value.
const FAILED_FOR: u64 = 1_000_000;

/// What is cached, or else what the query says; the latter is stored, with a life that begins when it has been computed.
pub fn fetch(
    segment: &Segment,
    key: Key<'_>,
    fetch: &Fetch<'_>,
    life: impl Fn() -> Result<Life, Error>,
) -> Result<(Buffer, Kind), Error> {
    if let Some(found) = transactional::get_or_make(segment, key.hash, clock::now())? {
        return Ok(found);
    }
    let own = pending::concerns(key.hash);
    let made = make(segment, key, fetch, life)?;
    if !own {
        // Of what is committed. A call that fails has changed nothing, not even this.
        store::count(segment, key.hash, |cache, stripe| cache.count_miss(stripe))?;
    }
    Ok(made)
}

fn make(
    segment: &Segment,
    key: Key<'_>,
    fetch: &Fetch<'_>,
    life: impl Fn() -> Result<Life, Error>,
) -> Result<(Buffer, Kind), Error> {
    // What is made of it would have the expired value for longer still.
    let stale_for = if computing::is_going_on() { 0 } else { fetch.stale_for };
    undecided::settle(segment)?;
    let computing = Computing::begin(key.hash, fetch.tags)?;
    let mut turn = None;
    let mut older = None;
    // What this transaction has removed isn't there for it, whatever others put there.
    if !pending::concerns(key.hash) {
        let note = notes::note(segment, key.hash)?;
        if fetch.stale_if_error > 0 {
            older = store::look(segment, key.hash, clock::now(), fetch.stale_if_error)?;
        }
        if note == Some(Note::Failed)
            && let Some(older) = older
        {
            return Ok(taken(older));
        }
        if note != Some(Note::TooLarge) {
            match await_turn(segment, key.hash, stale_for)? {
                Outcome::Found(hit) => return Ok(taken(hit)),
                Outcome::Turn(given) if server::has_written() => given.end(),
                Outcome::Turn(given) => turn = Some(given),
            }
        }
        // The session that had the lock before may have failed.
        if older.is_some()
            && notes::note(segment, key.hash)? == Some(Note::Failed)
            && let Some(older) = older
        {
            end(turn);
            return Ok(taken(older));
        }
    }
    let since = if server::has_one_snapshot() { barrier::since() } else { server::logical_time() };
    let reads = Reads::begin();
    let query = || query::one_value(fetch.query, fetch.args);
    let value = match older {
        None => query()?,
        Some(older) => match attempt(query) {
            Ok(value) => value,
            Err(failure) if failure.may_be_answered() => {
                notes::put_note(segment, key.hash, Note::Failed, clock::now() + FAILED_FOR)?;
                end(turn);
                failure.warn("cache_fetch() returns an expired value, because its query has failed");
                return Ok(taken(older));
            }
            Err(failure) => failure.pass_on()?,
        },
    };
    let tags = match computing.tags() {
        Some(tags) => tables::with_those_of(segment, tags, &reads)?,
        None => None,
    };
    drop((reads, computing));
    let buffer = value.unwrap_or_else(|| Buffer::holding(&jsonb::null()));
    let value: &[u8] = buffer.bytes();
    let Life { over, until } = life()?;
    let transactional = server::has_written() || pending::concerns(key.hash);
    let fits = value.len() <= store::largest_value(segment)?;
    let Some(tags) = tags.filter(|_| fits) else {
        store::count(segment, key.hash, |cache, stripe| cache.count_uncached(stripe))?;
        if !transactional {
            notes::put_note(segment, key.hash, Note::TooLarge, over.min(clock::now() + LARGE_FOR))?;
        }
        end(turn);
        return Ok((buffer, Kind::Json));
    };
    if transactional {
        pending::write(key, Effect::SetStale { value, over, until, tags: &tags })?;
        if let Some(turn) = turn {
            turn.end_with_transaction();
            pending::keep_turn(key.hash);
        }
    } else {
        let request = Reservation::kept(value.len(), tags, (until > over).then_some(over));
        let mut reservation = store::reserve(segment, key, value, request, clock::now())?;
        let item = Item { key: key.hash, database: server::database(), expiry: until, kind: Kind::Json };
        // Where it is refused, it is still what the caller's snapshot says.
        store::publish(segment, &mut reservation, &item, &ComputedFrom::at(since))?;
        end(turn);
    }
    Ok((buffer, Kind::Json))
}

fn end(turn: Option<KeyLock>) {
    if let Some(turn) = turn {
        turn.end();
    }
}

/// A value that is there, as one that what is being computed around it is made of.
fn taken(hit: Hit) -> (Buffer, Kind) {
    computing::uses(&hit.tags);
    (hit.buffer, hit.found.kind)
}

enum Outcome {
    Found(Hit),
    Turn(KeyLock),
}

/// Waits for this session's turn to compute, unless there is a value before.
fn await_turn(segment: &Segment, key: KeyHash, stale_for: u64) -> Result<Outcome, Error> {
    let look = |stale_for| store::look(segment, key, clock::now(), stale_for);
    let turn = if let Some(turn) = KeyLock::try_acquire(key) {
        turn
    } else {
        if let (1.., Some(hit)) = (stale_for, look(stale_for)?) {
            return Ok(Outcome::Found(hit));
        }
        store::count(segment, key, |cache, stripe| cache.count_wait(stripe))?;
        KeyLock::wait_for_others(key);
        if let Some(hit) = look(0)? {
            return Ok(Outcome::Found(hit));
        }
        KeyLock::acquire(key)
    };
    // The session that had the lock before may have put it there.
    if let Some(hit) = look(0)? {
        turn.end();
        return Ok(Outcome::Found(hit));
    }
    Ok(Outcome::Turn(turn))
}

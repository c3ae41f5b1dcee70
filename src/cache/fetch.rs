//! Read through: what isn't cached is computed by a query, by one session, while others wait for it.
//!
//! A session whose turn it is ([`Turn`]) looks once more, then runs the query and stores the value. Those who come
//! meanwhile take an expired value that is still kept, if they may, or wait until the turn has ended, and look again: all at
//! once, and where there is still nothing one after the other, each computing if the one before it failed.
//!
//! The value is stored at once: it is made of what is committed, so others may have it before this transaction commits,
//! and should. But a transaction that has written sees its own rows, so what it computes is stored when it commits. If it
//! had written before, it makes nobody wait for that. If it is the query itself that writes, others wait: that is how
//! long computing the value takes.

use super::fence::{self, Origin};
use super::log::Effect;
use super::transactional;
use super::{jsonb, pending, store};
use crate::error::Error;
use crate::segment::call::{Buffer, Jsonb};
use crate::segment::turn::Turn;
use crate::segment::{Segment, query, server};
use enough_engine::cache::{Item, Kind, NEVER, Reservation, Tags};
use enough_engine::hash::KeyHash;
use std::cell::RefCell;

/// What to compute, and how to store it.
pub struct Fetch<'c> {
    /// Its text, in the database's encoding.
    pub query: &'c [u8],
    /// `$1`
    pub args: Option<Jsonb<'c>>,
    /// What it may be invalidated by.
    pub tags: Tags,
    /// How long past its time the value is kept, and one that is there may be returned while another session computes,
    /// in microseconds.
    pub stale_for: u64,
}

thread_local! {
    /// The keys for which this session is computing values, one within the other.
    static COMPUTING: RefCell<Vec<KeyHash>> = const { RefCell::new(Vec::new()) };
}

/// A key for which this session is computing; no longer once this is dropped, be it by an error that passes through.
struct Computing;

impl Computing {
    fn begin(key: KeyHash) -> Result<Self, Error> {
        COMPUTING.with_borrow_mut(|keys| {
            if keys.contains(&key) {
                return Err(Error::invalid(
                    "query",
                    "it fetches its own key",
                    "a query that doesn't need its own value",
                ));
            }
            keys.push(key);
            Ok(Self)
        })
    }
}

impl Drop for Computing {
    fn drop(&mut self) {
        COMPUTING.with_borrow_mut(Vec::pop);
    }
}

/// What is cached, or else what the query says; the latter is stored, unless `over` refuses it, which is to say when its
/// time is over.
pub fn fetch(
    segment: &Segment,
    key: KeyHash,
    fetch: &Fetch<'_>,
    over: impl Fn(&[u8]) -> Result<u64, Error>,
) -> Result<(Buffer, Kind), Error> {
    if let Some(found) = transactional::get_or_make(segment, key, pending::now())? {
        return Ok(found);
    }
    let own = pending::concerns(key);
    let made = make(segment, key, fetch, over)?;
    if !own {
        // Of what is committed. A call that fails has changed nothing, not even this.
        store::count(segment, key, |cache, stripe| cache.count_miss(stripe))?;
    }
    Ok(made)
}

fn make(
    segment: &Segment,
    key: KeyHash,
    fetch: &Fetch<'_>,
    over: impl Fn(&[u8]) -> Result<u64, Error>,
) -> Result<(Buffer, Kind), Error> {
    let computing = Computing::begin(key)?;
    let mut turn = None;
    // What this transaction has removed isn't there for it, whatever others put there.
    if !pending::concerns(key) {
        match await_turn(segment, key, fetch.stale_for)? {
            Outcome::Found(buffer, kind) => return Ok((buffer, kind)),
            Outcome::Turn(given) if server::has_written() => given.end(),
            Outcome::Turn(given) => turn = Some(given),
        }
    }
    let since = if server::has_one_snapshot() { fence::since() } else { server::moment() };
    let value = query::one_value(fetch.query, fetch.args)?;
    drop(computing);
    let buffer = value.unwrap_or_else(|| Buffer::holding(&jsonb::null()));
    let value: &[u8] = buffer.bytes();
    let over = over(value)?;
    let until = if over == NEVER { NEVER } else { over.saturating_add(fetch.stale_for) };
    if server::has_written() || pending::concerns(key) {
        pending::write(key, Effect::Keep { value, over, until, tags: &fetch.tags })?;
        if let Some(turn) = turn {
            turn.end_with_transaction();
        }
    } else {
        let request = Reservation::kept(value.len(), fetch.tags, (until > over).then_some(over));
        let mut reservation = store::reserve(segment, key, value, request, pending::now())?;
        let item = Item { key, database: server::database(), expiry: until, kind: Kind::Json };
        // Where it is refused, it is still what the caller's snapshot says.
        store::publish(segment, &mut reservation, &item, &Origin::at(since))?;
        if let Some(turn) = turn {
            turn.end();
        }
    }
    Ok((buffer, Kind::Json))
}

enum Outcome {
    Found(Buffer, Kind),
    Turn(Turn),
}

/// Waits for this session's turn to compute, unless there is a value before.
fn await_turn(segment: &Segment, key: KeyHash, stale_for: u64) -> Result<Outcome, Error> {
    let look = |stale_for| store::look(segment, key, pending::now(), stale_for);
    let turn = if let Some(turn) = Turn::at_once(key) {
        turn
    } else {
        if let (1.., Some((buffer, kind))) = (stale_for, look(stale_for)?) {
            return Ok(Outcome::Found(buffer, kind));
        }
        store::count(segment, key, |cache, stripe| cache.count_wait(stripe))?;
        Turn::wait_for_others(key);
        if let Some((buffer, kind)) = look(0)? {
            return Ok(Outcome::Found(buffer, kind));
        }
        Turn::after_others(key)
    };
    // Whoever had the turn before may have put it there.
    if let Some((buffer, kind)) = look(0)? {
        turn.end();
        return Ok(Outcome::Found(buffer, kind));
    }
    Ok(Outcome::Turn(turn))
}

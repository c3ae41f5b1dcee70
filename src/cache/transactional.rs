//! What a transaction sees and does: its own pending writes over what is committed.

use crate::coherent::barrier::{self, ComputedFrom};
use crate::coherent::clock::{is_over, now};
use crate::coherent::computing;
use crate::coherent::key::Key;
use crate::coherent::log::{Effect, Own, Seen};
use crate::coherent::pending;
use crate::coherent::store::{self, Hit, Offer};
use crate::coherent::undecided;
use crate::error::Error;
use crate::pg::fmgr::Buffer;
use crate::pg::server;
use crate::shmem::Segment;
use enough_engine::cache::{Item, Kind, Reservation, Tags};
use enough_engine::hash::KeyHash;

/// When a value is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Whatever is there.
    Always,
    /// Only where nothing is there; decided at once, atomically among sessions.
    IfAbsent,
    /// Only where something is there.
    IfPresent,
}

/// What this transaction has made of a key.
pub(super) enum View {
    /// Gone, for this transaction.
    Absent,
    /// A value of its own.
    Own(Own),
    /// What is committed, maybe with another expiry.
    Committed { touched: Option<u64> },
}

#[inline]
pub(super) fn view(segment: &Segment, key: KeyHash, now: u64) -> Result<View, Error> {
    if pending::is_empty() {
        return Ok(View::Committed { touched: None });
    }
    let touched = match pending::seen(key) {
        None => None,
        Some(Seen::Touched(expiry)) if !is_over(expiry, now) => Some(expiry),
        Some(Seen::Own(own)) if !is_over(own.over, now) => return Ok(View::Own(own)),
        Some(_) => return Ok(View::Absent),
    };
    if pending::has_marks() && pending::invalidates(&store::tags(segment, key, now)?) {
        return Ok(View::Absent);
    }
    Ok(View::Committed { touched })
}

/// A value of this transaction's own, as one that what is being computed is made of, if anything is.
fn taken(own: &Own) -> (Buffer, Kind) {
    computing::uses(&own.tags);
    (pending::copy(own), own.kind)
}

/// The same of what is committed.
fn taken_of(hit: Hit) -> (Buffer, Kind) {
    computing::uses(&hit.tags);
    (hit.buffer, hit.found.kind)
}

/// The value under a key; `now` as [`clock::now`] tells it.
#[inline]
pub fn get(segment: &Segment, key: KeyHash, now: u64) -> Result<Option<(Buffer, Kind)>, Error> {
    match view(segment, key, now)? {
        View::Absent => Ok(None),
        View::Own(own) => Ok(Some(taken(&own))),
        View::Committed { .. } => Ok(store::read(segment, key, now, None)?.map(taken_of)),
    }
}

/// The same without counting a miss, for a caller that then makes up for it.
pub fn get_or_make(segment: &Segment, key: KeyHash, now: u64) -> Result<Option<(Buffer, Kind)>, Error> {
    match view(segment, key, now)? {
        View::Absent => Ok(None),
        View::Own(own) => Ok(Some(taken(&own))),
        View::Committed { .. } => {
            let found = store::look(segment, key, now, 0)?;
            if found.is_some() {
                store::count(segment, key, |cache, stripe| cache.count_hit(stripe))?;
            }
            Ok(found.map(taken_of))
        }
    }
}

/// The same, where a hit of that kind also moves the expiry: of what is committed at once, of what isn't with it.
pub fn get_and_slide(
    segment: &Segment,
    key: Key<'_>,
    kind: Kind,
    expiry: u64,
) -> Result<Option<(Buffer, Kind)>, Error> {
    let now = now();
    match view(segment, key.hash, now)? {
        View::Absent => Ok(None),
        View::Own(own) => {
            let found = taken(&own);
            if own.kind == kind {
                pending::rewrite(key, &own, expiry)?;
            }
            Ok(Some(found))
        }
        View::Committed { touched } => {
            if touched.is_some() {
                pending::write(key, Effect::Touch { expiry })?;
            }
            Ok(store::read(segment, key.hash, now, Some((kind, expiry)))?.map(taken_of))
        }
    }
}

/// When the entry under a key is over; `None` where there is no entry.
pub fn expiry(segment: &Segment, key: KeyHash, now: u64) -> Result<Option<u64>, Error> {
    match view(segment, key, now)? {
        View::Absent => Ok(None),
        View::Own(own) => Ok(Some(own.over)),
        View::Committed { touched } => {
            let expiry = store::expiry(segment, key, now)?;
            Ok(expiry.map(|expiry| touched.unwrap_or(expiry)))
        }
    }
}

/// When an entry of others is over that was found to be over at `expiry`; `None` where it isn't there for this transaction, or
/// there is another of its own.
pub fn committed_expiry(segment: &Segment, key: KeyHash, expiry: u64) -> Result<Option<u64>, Error> {
    match view(segment, key, now())? {
        View::Committed { touched } => Ok(Some(touched.unwrap_or(expiry))),
        View::Absent | View::Own(_) => Ok(None),
    }
}

/// A value as it is to be stored.
#[derive(Debug, Clone, Copy)]
pub struct NewValue<'v> {
    /// Its bytes.
    pub bytes: &'v [u8],
    /// What they mean.
    pub kind: Kind,
    /// When it is over.
    pub expiry: u64,
    /// What it may be invalidated by.
    pub tags: Tags,
}

impl NewValue<'_> {
    fn effect(&self) -> Effect<'_> {
        Effect::Set { value: self.bytes, kind: self.kind, expiry: self.expiry, tags: &self.tags }
    }
}

/// Stores a value; true where it was, or will be when the transaction commits.
pub fn set(segment: &Segment, key: Key<'_>, value: NewValue<'_>, mode: Mode, keep_ttl: bool) -> Result<bool, Error> {
    let mut value = value;
    if mode == Mode::IfAbsent {
        return set_if_absent(segment, key, value);
    }
    if keep_ttl || mode == Mode::IfPresent {
        let present = expiry(segment, key.hash, now())?;
        if present.is_none() && mode == Mode::IfPresent {
            return Ok(false);
        }
        value.expiry = present.filter(|_| keep_ttl).unwrap_or(value.expiry);
    }
    pending::write(key, value.effect())?;
    Ok(true)
}

fn set_if_absent(segment: &Segment, key: Key<'_>, value: NewValue<'_>) -> Result<bool, Error> {
    undecided::settle(segment)?;
    let now = now();
    match view(segment, key.hash, now)? {
        View::Own(_) => Ok(false),
        // It is this transaction that has removed the key, and that shows at its commit, as this does.
        View::Absent => {
            pending::write(key, value.effect())?;
            Ok(true)
        }
        View::Committed { .. } => {
            if store::expiry(segment, key.hash, now)?.is_some() {
                return Ok(false);
            }
            let request = Reservation::tagged(value.bytes.len(), value.tags);
            let mut reservation = store::reserve(segment, key, value.bytes, request, now)?;
            let item = Item { key: key.hash, database: server::database(), expiry: value.expiry, kind: value.kind };
            let origin = ComputedFrom::at(barrier::since_for(key.hash));
            let offer = store::publish_if_absent(segment, &mut reservation, &item, &origin, now)?;
            if offer == Offer::Stale {
                barrier::refused_at_once(key.hash);
            }
            Ok(offer == Offer::Taken)
        }
    }
}

/// Removes a key; true where it was there. Even where it wasn't, the removal is carried out at the commit: whatever
/// another session puts there until then was computed before it.
pub fn delete(segment: &Segment, key: KeyHash, now: u64) -> Result<bool, Error> {
    let present = expiry(segment, key, now)?.is_some();
    pending::write(key, Effect::Delete)?;
    Ok(present)
}

/// Reads and removes a key, if it is of that kind. What others have committed is removed at once, so that one session alone
/// gets it.
pub fn take(segment: &Segment, key: KeyHash, kind: Kind) -> Result<Option<(Buffer, Kind)>, Error> {
    let now = now();
    match view(segment, key, now)? {
        View::Absent => Ok(None),
        View::Own(own) => {
            let buffer = pending::copy(&own);
            if own.kind == kind {
                pending::write(key, Effect::Delete)?;
            }
            Ok(Some((buffer, own.kind)))
        }
        View::Committed { .. } => {
            let taken = store::take(segment, key, kind, now)?;
            if taken.as_ref().is_some_and(|(_, found)| *found == kind) {
                pending::write(key, Effect::Removed)?;
            }
            Ok(taken)
        }
    }
}

/// Changes when an entry is over; true where there is one.
pub fn touch(segment: &Segment, key: Key<'_>, expiry: u64) -> Result<bool, Error> {
    let now = now();
    match view(segment, key.hash, now)? {
        View::Absent => Ok(false),
        View::Own(own) => {
            pending::rewrite(key, &own, expiry)?;
            Ok(true)
        }
        View::Committed { .. } => {
            let present = store::expiry(segment, key.hash, now)?.is_some();
            if present {
                pending::write(key, Effect::Touch { expiry })?;
            }
            Ok(present)
        }
    }
}

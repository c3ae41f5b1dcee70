//! Changes that depend on what is there, decided atomically among sessions.
//!
//! Of what others have committed they are carried out at once, and stay when the transaction rolls back; of what this
//! transaction itself has written they wait for the commit with it.

use super::count::{self, Count};
use super::jsonb::number;
use super::transactional::{View, view};
use crate::coherent::barrier::{self, ComputedFrom};
use crate::coherent::clock::now;
use crate::coherent::key::Key;
use crate::coherent::log::{Effect, Own};
use crate::coherent::pending;
use crate::coherent::store::{self, Offer};
use crate::coherent::undecided;
use crate::error::Error;
use crate::pg::fmgr::Buffer;
use crate::pg::server;
use crate::shmem::Segment;
use enough_engine::cache::{Item, Kind, Reservation, Tags};
use std::num::IntErrorKind;

/// What is there.
pub struct Current<'c> {
    /// Its bytes.
    pub bytes: &'c [u8],
    /// What they mean.
    pub kind: Kind,
    /// When it is over.
    pub expiry: u64,
}

/// A value that comes in its place.
pub enum Payload<'v> {
    /// The caller's.
    Given(&'v [u8]),
    /// Made of what was there.
    Made(Buffer),
}

impl Payload<'_> {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Payload::Given(bytes) => bytes,
            Payload::Made(buffer) => buffer.bytes(),
        }
    }
}

/// What is to become of it.
pub enum Change<'v> {
    /// It stays as it is.
    None,
    /// It goes.
    Remove,
    /// Another value comes in its place. The tags stay.
    Put { value: Payload<'v>, kind: Kind, expiry: u64 },
}

/// What has become of it.
pub enum Outcome<'v> {
    /// It stays as it is.
    Unchanged,
    /// It was removed.
    Removed,
    /// This value has come in its place.
    Put(Payload<'v>),
    /// The value is refused: its key, or a tag, was removed since this transaction began.
    Refused,
}

/// Does to a key what `decide` says, which is asked again where another session was faster. Fails as that does.
pub fn update<'v>(
    segment: &Segment,
    key: Key<'_>,
    mut decide: impl FnMut(Option<Current<'_>>) -> Result<Change<'v>, Error>,
) -> Result<Outcome<'v>, Error> {
    undecided::settle(segment)?;
    loop {
        let now = now();
        let touched = match view(segment, key.hash, now)? {
            View::Absent => return own(key, decide(None)?, &Tags::default()),
            View::Own(found) => {
                let buffer = pending::copy(&found);
                let current = Current { bytes: buffer.bytes(), kind: found.kind, expiry: found.over };
                return own(key, decide(Some(current))?, &found.tags);
            }
            View::Committed { touched } => touched,
        };
        let there = store::read(segment, key.hash, now, None)?;
        let change = decide(there.as_ref().map(|hit| Current {
            bytes: hit.buffer.bytes(),
            kind: hit.found.kind,
            expiry: touched.unwrap_or(hit.found.expiry),
        }))?;
        let found = there.map(|hit| hit.found);
        match change {
            Change::None => return Ok(Outcome::Unchanged),
            Change::Remove => match found {
                None => return Ok(Outcome::Unchanged),
                Some(found) if store::remove_found(segment, key.hash, found, now)? => {
                    pending::write(key, Effect::Removed)?;
                    return Ok(Outcome::Removed);
                }
                Some(_) => {}
            },
            Change::Put { value, kind, expiry } => {
                // Should the entry be another one by now, it isn't replaced.
                let tags = if found.is_some() { store::tags(segment, key.hash, now)? } else { Tags::default() };
                let request = Reservation::tagged(value.bytes().len(), tags);
                let mut reservation = store::reserve(segment, key, value.bytes(), request, now)?;
                let item = Item { key: key.hash, database: server::database(), expiry, kind };
                let origin = ComputedFrom::at(barrier::since_for(key.hash));
                let offer = match found {
                    Some(found) => store::publish_in_place_of(segment, found, &mut reservation, &item, &origin, now)?,
                    None => store::publish_if_absent(segment, &mut reservation, &item, &origin, now)?,
                };
                match offer {
                    Offer::Taken => return Ok(Outcome::Put(value)),
                    Offer::Late => {}
                    Offer::Stale => {
                        barrier::refused_at_once(key.hash);
                        return Ok(Outcome::Refused);
                    }
                }
            }
        }
        // Another session was faster: look at what it has put there.
        server::check_for_interrupts();
    }
}

/// The same for what this transaction itself has written or removed.
fn own<'v>(key: Key<'_>, change: Change<'v>, tags: &Tags) -> Result<Outcome<'v>, Error> {
    Ok(match change {
        Change::None => Outcome::Unchanged,
        Change::Remove => {
            pending::write(key, Effect::Delete)?;
            Outcome::Removed
        }
        Change::Put { value, kind, expiry } => {
            pending::write(key, Effect::Set { value: value.bytes(), kind, expiry, tags })?;
            Outcome::Put(value)
        }
    })
}

/// Adds to the number under a key. One that isn't there counts as 0 and gets `new`, the expiry of a new entry; without
/// that it stays absent.
pub fn add(segment: &Segment, key: Key<'_>, by: i64, new: Option<u64>) -> Result<Count, Error> {
    let now = now();
    let (old, expiry, tags) = match (view(segment, key.hash, now)?, new) {
        (View::Committed { .. }, new) => return count::add(segment, key, by, new, now),
        (View::Absent, None) => return Ok(Count::Absent),
        (View::Absent, Some(new)) => (Ok(0), new, Tags::default()),
        (View::Own(Own { kind: Kind::Bytes, .. }), _) => return Ok(Count::NotANumber),
        (View::Own(own), _) => (number::decode(pending::copy(&own).bytes()), own.over, own.tags),
    };
    match old.map(|old| old.checked_add(by)) {
        Ok(Some(new)) => {
            let value = number::encode(new);
            pending::write(key, Effect::Set { value: value.bytes(), kind: Kind::Json, expiry, tags: &tags })?;
            Ok(Count::Is(new))
        }
        Ok(None) | Err(IntErrorKind::PosOverflow | IntErrorKind::NegOverflow) => Ok(Count::OutOfRange),
        Err(_) => Ok(Count::NotANumber),
    }
}

//! The single write of a transaction: most that set something set one small value and commit. It is kept here until
//! then, without an allocation and a log; whatever comes on top of it moves it into the log first
//! ([`super::pending`]).

use super::fence::{self, Origin};
use super::{pending, store};
use crate::segment::process::Process;
use crate::segment::xact::{self, Joined};
use crate::segment::{known, server};
use enough_engine::cache::{Item, Kind, Moment, NEVER};
use enough_engine::hash::KeyHash;
use pgrx::pg_sys::SubTransactionId;

/// The largest value, in bytes.
pub(super) const ROOM: usize = 1000;

/// A small value without tags that the commit puts under its key.
struct Single {
    /// Whether there is one.
    waits: bool,
    owner: SubTransactionId,
    len: usize,
    item: Item,
    since: Moment,
    bytes: [u8; ROOM],
}

static SINGLE: Process<Single> = Process::new(Single {
    waits: false,
    owner: 0,
    len: 0,
    item: Item { key: KeyHash { high: 0, low: 0 }, database: 0, expiry: NEVER, kind: Kind::Json },
    since: Moment { time: 0, ended: 0 },
    bytes: [0; ROOM],
});

/// Keeps a value for the commit, as the first write of its transaction; none where it is too large.
#[inline(always)]
pub(super) fn keep(key: KeyHash, expiry: u64, value: &[u8], kind: Kind) -> Option<()> {
    let mut single = SINGLE.get()?;
    single.bytes.get_mut(..value.len())?.copy_from_slice(value);
    single.len = value.len();
    single.item = Item { key, database: server::database(), expiry, kind };
    single.owner = xact::current();
    single.since = fence::since();
    single.waits = true;
    xact::join(Joined::CacheWrite);
    Some(())
}

/// Carries it out, in the commit callback: it can't fail, and a value for which there is no memory is absent.
pub fn commit_write() {
    let (Some(mut single), Some(segment)) = (SINGLE.get(), known()) else { return };
    let single = &mut *single;
    if std::mem::take(&mut single.waits)
        && let Some(value) = single.bytes.get(..single.len)
    {
        // An error says that the partition was damaged and is empty now: then the key is absent, too.
        let _ = store::put(segment, &single.item, value, &Origin::at(single.since), pending::now);
    }
}

/// Forgets it.
pub(super) fn forget() {
    if let Some(mut single) = SINGLE.get() {
        single.waits = false;
    }
}

/// Hands it over to the log, if there is one.
pub(super) fn hand_over(log: impl FnOnce(&Item, SubTransactionId, Moment, &[u8])) {
    let Some(mut single) = SINGLE.get() else { return };
    let single = &mut *single;
    if std::mem::take(&mut single.waits) {
        log(&single.item, single.owner, single.since, single.bytes.get(..single.len).unwrap_or_default());
    }
}

//! Listing keys, where entries keep their text.
//!
//! The cache is looked at bucket by bucket, a few under each hold of a lock, so that nobody waits long. A key that is there all
//! the time is met; what comes or goes meanwhile may be or not.

use super::settings;
use super::transactional;
use crate::coherent::clock;
use crate::coherent::settings::REGION;
use crate::coherent::{pending, store};
use crate::error::Error;
use crate::pg::memory::PgVec;
use crate::pg::server;
use crate::shmem::Segment;
use enough_engine::cache::Named;
use enough_engine::hash::KeyHash;

/// Bytes of names that are copied under one hold of a lock, at the least.
const ROOM: usize = 64 << 10;
/// Buckets that are looked at before somebody else may want something.
const BUCKETS: usize = 64;

/// A key that was met.
#[derive(Debug, Clone, Copy)]
pub struct Met {
    pub hash: KeyHash,
    /// Where its name lies among the others.
    at: usize,
    name_len: usize,
    /// Bytes of its value.
    pub len: usize,
    /// When it is over.
    pub expiry: u64,
}

/// Keys that were met, with their names.
#[derive(Default)]
pub struct Keys {
    met: PgVec<Met>,
    names: PgVec<u8>,
}

impl Keys {
    fn name(&self, met: &Met) -> &[u8] {
        self.names.get(met.at..met.at + met.name_len).unwrap_or_default()
    }

    fn clear(&mut self) {
        self.met.clear();
        self.names.clear();
    }

    /// Adds a key, if there is room for it without growing.
    fn add(&mut self, hash: KeyHash, name: &[u8], len: usize, expiry: u64) -> bool {
        if self.met.room() == 0 || self.names.room() < name.len() {
            return false;
        }
        self.met.push(Met { hash, at: self.names.len(), name_len: name.len(), len, expiry });
        self.names.extend_from_slice(name);
        true
    }

    /// The keys and their names.
    pub fn iter(&self) -> impl Iterator<Item = (&Met, &[u8])> {
        self.met.iter().map(|met| (met, self.name(met)))
    }

    /// Keeps the first `most` in the order of their bytes, in that order.
    fn keep_first(&mut self, most: usize) {
        let names = &*self.names;
        let name = |met: &Met| names.get(met.at..met.at + met.name_len).unwrap_or_default();
        self.met.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        self.met.truncate(most);
        // What is left behind is copied without the rest.
        let mut kept = PgVec::with_capacity(self.met.iter().map(|met| met.name_len).sum());
        for met in &mut *self.met {
            let at = kept.len();
            kept.extend_from_slice(self.names.get(met.at..met.at + met.name_len).unwrap_or_default());
            met.at = at;
        }
        self.names = kept;
    }
}

/// Fails where keys aren't kept.
pub fn require() -> Result<(), Error> {
    if settings::keep_keys() {
        return Ok(());
    }
    Err(Error::NotReady {
        problem: "the cache does not keep the text of its keys".into(),
        hint:
            "Set enough.cache_keep_keys = on in the configuration and reload it; what is stored from then on is found."
                .into(),
    })
}

/// Calls `each` with some committed entries of this database at a time, whose keys `wanted` wants. That is asked under a lock,
/// so it must not fail.
fn each_committed(
    segment: &Segment,
    wanted: impl Fn(&[u8]) -> bool,
    mut each: impl FnMut(&Keys) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut some = Keys::default();
    let mut room = ROOM;
    for partition in segment.partitions(REGION) {
        let mut bucket = 0;
        loop {
            server::check_for_interrupts();
            some.clear();
            // Before the lock is taken.
            some.names.reserve(room);
            some.met.reserve(room / 64);
            let now = clock::now();
            let (mut fits, mut more) = (true, true);
            for _ in 0..BUCKETS {
                let before = (some.met.len(), some.names.len());
                more = store::names(partition, bucket, now, |named: &Named<'_>| {
                    fits &= !wanted(named.name) || some.add(named.key, named.name, named.len, named.expiry);
                })?;
                if !fits {
                    // Once more, with what the others have left.
                    some.met.truncate(before.0);
                    some.names.truncate(before.1);
                }
                if !fits || !more {
                    break;
                }
                bucket += 1;
            }
            if !fits && some.met.is_empty() {
                room *= 2;
                continue;
            }
            // Another database's key has another hash.
            let names = &*some.names;
            let ours = |met: &Met| {
                let name = names.get(met.at..met.at + met.name_len).unwrap_or_default();
                segment.hash(REGION, name) == met.hash
            };
            some.met.retain(ours);
            each(&some)?;
            if fits && !more {
                break;
            }
        }
    }
    Ok(())
}

/// The first `most` keys with `prefix` after the key `after`, in the order of their bytes, as this transaction sees them.
pub fn list(segment: &Segment, prefix: &[u8], after: Option<&[u8]>, most: usize) -> Result<Keys, Error> {
    let mut keys = Keys::default();
    let is_wanted = |name: &[u8]| name.starts_with(prefix) && after.is_none_or(|after| name > after);
    pending::names(|hash, name, len, expiry| {
        if is_wanted(name) && !clock::is_over(expiry, clock::now()) {
            keys.met.reserve(1);
            keys.names.reserve(name.len());
            keys.add(hash, name, len, expiry);
        }
    });
    each_committed(segment, is_wanted, |some| {
        for (met, name) in some.iter() {
            if let Some(expiry) = transactional::committed_expiry(segment, met.hash, met.expiry)? {
                keys.met.reserve(1);
                keys.names.reserve(name.len());
                keys.add(met.hash, name, met.len, expiry);
            }
        }
        if keys.met.len() > 2 * most {
            keys.keep_first(most);
        }
        Ok(())
    })?;
    keys.keep_first(most);
    Ok(keys)
}

/// Removes the entries whose keys have `prefix`, at the commit; how many there were.
pub fn delete(segment: &Segment, prefix: &[u8]) -> Result<i64, Error> {
    let mut own = PgVec::new();
    pending::names(|hash, name, _, _| {
        if name.starts_with(prefix) {
            own.push(hash);
        }
    });
    let (mut deleted, now) = (0, clock::now());
    let mut delete = |hash| -> Result<(), Error> {
        deleted += i64::from(transactional::delete(segment, hash, now)?);
        Ok(())
    };
    own.iter().try_for_each(|&hash| delete(hash))?;
    each_committed(
        segment,
        |name| name.starts_with(prefix),
        |some| some.iter().try_for_each(|(met, _)| delete(met.hash)),
    )?;
    Ok(deleted)
}

//! Notes of keys for which no value can be had, so that nobody waits for it once more.

use crate::coherent::barrier::ComputedFrom;
use crate::coherent::clock;
use crate::coherent::settings::REGION;
use crate::coherent::store;
use crate::error::Error;
use crate::pg::server;
use crate::shmem::Segment;
use enough_engine::cache::{Item, Kind, Partition as Cache};
use enough_engine::hash::KeyHash;

/// What is remembered of a key for which no value can be had: an entry of its own, which nobody can ask for by a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Note {
    /// Its value is too large to be stored.
    TooLarge = 1,
    /// The query for it has failed.
    Failed = 2,
}

/// What a key's note is known by: in the same partition and chain.
fn noted(key: KeyHash) -> KeyHash {
    KeyHash { low: !key.low, ..key }
}

/// The note of a key.
pub fn note(segment: &Segment, key: KeyHash) -> Result<Option<Note>, Error> {
    let now = clock::now();
    let byte = segment.partition_of(REGION, key).shared(|words| {
        let cache = Cache::open(words)?;
        let mut byte = [0];
        if let Some(found) = cache.find(noted(key), now)?.filter(|found| found.len == byte.len()) {
            cache.copy(found, &mut byte)?;
        }
        Ok(byte[0])
    })?;
    Ok([Note::TooLarge, Note::Failed].into_iter().find(|&note| note as u8 == byte))
}

/// Keeps a note of a key until then.
pub fn put_note(segment: &Segment, key: KeyHash, note: Note, until: u64) -> Result<(), Error> {
    let item = Item { key: noted(key), database: server::database(), expiry: until, kind: Kind::Bytes };
    store::put(segment, &item, None, &[note as u8], &ComputedFrom::at(server::logical_time()), clock::now).map(drop)
}

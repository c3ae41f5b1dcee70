//! Where a name lies, and work on it: a short section under its partition's lock, then the wake-up that it makes due.

use crate::capability::Region;
use crate::error::Error;
use crate::pg::{latch, server};
use crate::shmem::{Partition, known, segment};
use enough_engine::hash::KeyHash;
use enough_engine::semaphore::{Changed, Key, Table};
use enough_engine::words::{Corrupt, Words};

/// The place of the semaphores in the segment.
pub const REGION: Region = Region(3);

/// A partition as it is now; for a caller that has its lock. The clock is read here: read before, it could lie behind what another session
/// has noted meanwhile, which would look like a step back.
pub(super) fn open(words: Words<'static>) -> Result<(Table<'static>, i64), Corrupt> {
    let now = server::now();
    Table::open(words, now, latch::is_session).map(|table| (table, now))
}

/// Does `work` with a name of this database, at the time that it is given, and wakes whom it names.
pub(super) fn with_name<R>(
    name: &[u8],
    mut work: impl FnMut(&Table<'static>, &Key<'_>, i64) -> Result<Changed<R>, Corrupt>,
) -> Result<R, Error> {
    let segment = segment()?;
    let key = Key { hash: segment.hash(REGION, name), database: server::database(), name };
    let Changed { answer, wake } = segment.partition_of(REGION, key.hash).exclusive(|words| {
        let (table, now) = open(words)?;
        work(&table, &key, now)
    })?;
    if let Some(process) = wake {
        latch::wake(&[process]);
    }
    Ok(answer)
}

/// What a name of this database is known by.
pub(super) fn hash(name: &[u8]) -> Result<KeyHash, Error> {
    Ok(segment()?.hash(REGION, name))
}

/// The partition of a name that this session has worked with; for callers that must not fail.
pub(super) fn known_partition(hash: KeyHash) -> Option<&'static Partition> {
    known()?.place_of(REGION, hash)
}

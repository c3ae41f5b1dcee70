//! Where the index of a queue lies, and taking a queue out of it.

use crate::capability::Region;
use crate::error::Error;
use crate::pg::{latch, server};
use crate::shmem::{Partition, segment};
use enough_engine::queue::{Partition as Index, QueueKey, Wake};
use enough_engine::words::Corrupt;

/// The place of the queues in the segment.
pub const REGION: Region = Region(0);

/// Records freed under one hold of a lock.
pub(in crate::queue) const RECORDS: usize = 1024;

/// The partition that a queue belongs to.
pub(in crate::queue) fn partition(key: QueueKey) -> Result<&'static Partition, Error> {
    let partitions = segment()?.partitions(REGION);
    partitions.get(key.partition(partitions.len())).ok_or(Error::Damaged { region: REGION.name() })
}

/// Does `work` at a queue's place in the index, under the rules of [`Partition::exclusive`], and wakes the sessions that it has
/// put on its list; `None` where the queue isn't in the index.
pub(in crate::queue) fn at<R>(
    key: QueueKey,
    mut work: impl FnMut(&Index<'static>, u32, &mut Wake) -> Result<R, Corrupt>,
) -> Result<Option<R>, Error> {
    let mut wake = Wake::default();
    let done = partition(key)?.exclusive(|words| {
        // Work that is done a second time, on a partition that was emptied, has nobody to wake from the first.
        wake = Wake::default();
        let index = Index::new(words);
        index.find(key)?.map(|slot| work(&index, slot, &mut wake)).transpose()
    });
    latch::wake(wake.processes());
    done
}

/// Takes a queue out of the index, in steps.
pub(in crate::queue) fn forget(key: QueueKey) -> Result<(), Error> {
    while at(key, |index, slot, wake| index.detach(slot, RECORDS, server::now(), wake))? == Some(false) {}
    Ok(())
}

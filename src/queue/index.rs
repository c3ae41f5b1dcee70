//! Where the index of a queue lies, and taking a queue out of it.

use crate::capability::Region;
use crate::error::Error;
use crate::pg::{latch, server};
use crate::shmem::{Partition, segment};
use enough_engine::queue::{Partition as Index, QueueKey, Wake};

/// The place of the queues in the segment.
pub const REGION: Region = Region(0);

/// Records freed under one hold of a lock.
pub(in crate::queue) const RECORDS: usize = 1024;

/// The partition that a queue belongs to.
pub(in crate::queue) fn partition(key: QueueKey) -> Result<&'static Partition, Error> {
    let partitions = segment()?.partitions(REGION);
    partitions.get(key.partition(partitions.len())).ok_or(Error::Damaged { region: REGION.name() })
}

/// Takes a queue out of the index, in steps.
pub(in crate::queue) fn forget(key: QueueKey) -> Result<(), Error> {
    loop {
        let mut wake = Wake::default();
        let gone = partition(key)?.exclusive(|words| {
            wake = Wake::default();
            let index = Index::new(words);
            match index.find(key)? {
                Some(slot) => index.detach(slot, RECORDS, server::now(), &mut wake),
                None => Ok(true),
            }
        })?;
        latch::wake(wake.processes());
        if gone {
            return Ok(());
        }
    }
}

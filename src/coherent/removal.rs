//! The removals of a transaction: carried out before its commit, under barriers that are lowered after it; see `barrier.rs`.

use super::barrier::{self, Barrier};
use super::log::{Action, Log, Removed};
use super::settings::REGION;
use super::store;
use crate::pg::server;
use crate::shmem::Segment;
use enough_engine::cache::{Partition as Cache, Removal};
use enough_engine::words::Corrupt;

/// Barriers or tags handled under one hold of a lock.
const CHUNK: usize = 256;

/// Carries out the removals of a transaction that is about to commit, and raises their barriers.
pub fn begin(segment: &Segment, log: &mut Log) {
    let mut barriers = std::mem::take(&mut log.barriers);
    let partitions = segment.partitions(REGION);
    let slot = |removal| {
        let words = partitions.first().map_or(0, |partition| partition.words().len());
        Cache::barrier_in(words, removal).unwrap_or(0)
    };
    for mark in &*log.invalidations {
        let slot = slot(match mark.what {
            Removed::Tag(tag) => Removal::Tag(tag),
            Removed::Everything | Removed::Tagged => Removal::Everything(server::database()),
        });
        barriers.extend((0..partitions.len()).map(|partition| Barrier {
            partition: partition as u32,
            slot,
            epoch: None,
        }));
    }
    for (_, write) in log.effective(log.len()).filter(|(_, write)| write.removes) {
        let partition = write.key.partition(partitions.len()) as u32;
        barriers.push(Barrier { partition, slot: slot(Removal::Key(write.key)), epoch: None });
    }
    barriers.sort_unstable();
    barriers.dedup();
    // What follows can't fail: a partition that is found damaged has become empty, which removes as well.
    each_run(segment, &mut barriers, |cache, barriers| {
        barriers.iter_mut().try_for_each(|barrier| {
            barrier.epoch = Some(cache.raise(barrier.slot)?);
            Ok(())
        })
    });
    log.barriers = barriers;
    remove(segment, log);
}

/// Does `work` for the barriers of each partition, some under each hold of its lock; false where one was found damaged.
fn each_run(
    segment: &Segment,
    barriers: &mut [Barrier],
    mut work: impl FnMut(&Cache<'_>, &mut [Barrier]) -> Result<(), Corrupt>,
) -> bool {
    let mut sound = true;
    for run in barriers.chunk_by_mut(|a, b| a.partition == b.partition).flat_map(|run| run.chunks_mut(CHUNK)) {
        let Some(partition) = segment.partitions(REGION).get(run[0].partition as usize) else { continue };
        sound &= partition.exclusive(|words| work(&Cache::open(words)?, run)).is_ok();
    }
    sound
}

fn remove(segment: &Segment, log: &Log) {
    for partition in segment.partitions(REGION) {
        for invalidations in log.invalidations.chunks(CHUNK) {
            // An error says that the partition was damaged and is empty now.
            let _ = partition.exclusive(|words| {
                let cache = Cache::open(words)?;
                invalidations.iter().try_for_each(|mark| match mark.what {
                    Removed::Everything => cache.clear(server::database()),
                    Removed::Tagged => cache.clear_tagged(server::database()),
                    Removed::Tag(tag) => cache.invalidate(tag),
                })
            });
        }
    }
    for (_, write) in log.effective(log.len()) {
        // What has been taken is gone already, and what is there by now came later.
        if write.removes && write.action != Action::Removed {
            // As above.
            let _ = store::remove(segment, write.key, log.now);
        }
    }
}

/// Lowers the barriers. Where the transaction has committed, they keep the time of that.
pub fn end(segment: &Segment, log: &mut Log, committed: bool) {
    if log.barriers.is_empty() {
        return;
    }
    let removed_at = committed.then(server::logical_time);
    let mut lost = false;
    let sound = each_run(segment, &mut log.barriers, |cache, barriers| {
        for barrier in barriers {
            if let Some(epoch) = barrier.epoch.or(removed_at.map(|_| 0)) {
                lost |= !cache.lower(barrier.slot, epoch, removed_at)?;
            }
        }
        Ok(())
    });
    if let Some(moment) = removed_at {
        barrier::removed_at(moment);
        if lost || !sound {
            // A partition has been emptied since, and its barriers with it: what has come in between must go.
            remove(segment, log);
        }
    }
    log.barriers.clear();
}

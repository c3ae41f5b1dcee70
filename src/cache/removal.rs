//! The removals of a transaction: carried out before its commit, under fences that are raised after it; see `fence.rs`.

use super::fence::{self, Fence};
use super::log::{Action, Log, Removed};
use super::store;
use crate::cache::settings::REGION;
use crate::pg::server;
use crate::shmem::Segment;
use enough_engine::cache::{Partition as Cache, Removal};
use enough_engine::words::Corrupt;

/// Fences or tags handled under one hold of a lock.
const CHUNK: usize = 256;

/// Carries out the removals of a transaction that is about to commit, and holds their fences.
pub fn begin(segment: &Segment, log: &mut Log) {
    let mut fences = std::mem::take(&mut log.fences);
    let partitions = segment.partitions(REGION);
    let slot = |removal| {
        let words = partitions.first().map_or(0, |partition| partition.words().len());
        Cache::fence_in(words, removal).unwrap_or(0)
    };
    for mark in &*log.marks {
        let slot = slot(match mark.what {
            Removed::Tag(tag) => Removal::Tag(tag),
            Removed::Everything | Removed::Tagged => Removal::Everything(server::database()),
        });
        fences.extend((0..partitions.len()).map(|partition| Fence { partition: partition as u32, slot, epoch: None }));
    }
    for (_, write) in log.effective(log.len()).filter(|(_, write)| write.removes) {
        let partition = write.key.partition(partitions.len()) as u32;
        fences.push(Fence { partition, slot: slot(Removal::Key(write.key)), epoch: None });
    }
    fences.sort_unstable();
    fences.dedup();
    // What follows can't fail: a partition that is found damaged has become empty, which removes as well.
    each_run(segment, &mut fences, |cache, fences| {
        fences.iter_mut().try_for_each(|fence| {
            fence.epoch = Some(cache.hold(fence.slot)?);
            Ok(())
        })
    });
    log.fences = fences;
    remove(segment, log);
}

/// Does `work` for the fences of each partition, some under each hold of its lock; false where one was found damaged.
fn each_run(
    segment: &Segment,
    fences: &mut [Fence],
    mut work: impl FnMut(&Cache<'_>, &mut [Fence]) -> Result<(), Corrupt>,
) -> bool {
    let mut sound = true;
    for run in fences.chunk_by_mut(|a, b| a.partition == b.partition).flat_map(|run| run.chunks_mut(CHUNK)) {
        let Some(partition) = segment.partitions(REGION).get(run[0].partition as usize) else { continue };
        sound &= partition.exclusive(|words| work(&Cache::open(words)?, run)).is_ok();
    }
    sound
}

fn remove(segment: &Segment, log: &Log) {
    for partition in segment.partitions(REGION) {
        for marks in log.marks.chunks(CHUNK) {
            // An error says that the partition was damaged and is empty now.
            let _ = partition.exclusive(|words| {
                let cache = Cache::open(words)?;
                marks.iter().try_for_each(|mark| match mark.what {
                    Removed::Everything => cache.clear(server::database()),
                    Removed::Tagged => cache.clear_tagged(server::database()),
                    Removed::Tag(tag) => cache.invalidate(tag),
                })
            });
        }
    }
    for (_, write) in log.effective(log.len()) {
        // What has been taken is gone already, and what is there by now came later.
        if write.removes && write.action != Action::Taken {
            // As above.
            let _ = store::remove(segment, write.key, log.now);
        }
    }
}

/// Lets go of the fences, raised where the transaction has committed.
pub fn end(segment: &Segment, log: &mut Log, committed: bool) {
    if log.fences.is_empty() {
        return;
    }
    let raised = committed.then(server::moment);
    let mut lost = false;
    let sound = each_run(segment, &mut log.fences, |cache, fences| {
        for fence in fences {
            if let Some(epoch) = fence.epoch.or(raised.map(|_| 0)) {
                lost |= !cache.let_go(fence.slot, epoch, raised)?;
            }
        }
        Ok(())
    });
    if let Some(moment) = raised {
        fence::removed_at(moment);
        if lost || !sound {
            // A partition has been emptied since, and its fences with it: what has come in between must go.
            remove(segment, log);
        }
    }
    log.fences.clear();
}

//! Who holds what, what was counted, and what an operator is warned of.

use super::held::may_act_for;
use super::place::{REGION, open};
use crate::capability::Warning;
use crate::error::Error;
use crate::pg::fmgr::{Rows, Value};
use crate::pg::{level, server};
use crate::shmem::{Partition, segment};
use enough_engine::semaphore::{Holder, MAX_NAME, Stats, stats};
use std::collections::HashMap;

/// Records looked at under one hold of a lock: some microseconds.
const LOOKS: u32 = 1024;
/// A part of the memory that is taken to more than so many percent is warned of.
const MUCH: u64 = 90;

/// Adds a row for each that holds a name of this database: of one name, or of all, as far as the current role may see them.
pub(super) fn holders(only: Option<&[u8]>, rows: &mut Rows<'_>) -> Result<(), Error> {
    let segment = segment()?;
    let hash = only.map(|name| segment.hash(REGION, name));
    // A caller that knows a name may see who holds it. The names themselves may tell something.
    let all = only.is_some() || level::is_monitor()? || level::is_operator();
    let mut own: HashMap<u32, bool> = HashMap::new();
    let partitions = match hash {
        Some(hash) => std::slice::from_ref(segment.partition_of(REGION, hash)),
        None => segment.partitions(REGION),
    };
    for partition in partitions {
        let mut next = Some(1);
        while let Some(start) = next {
            server::check_for_interrupts();
            let mut text = [0; MAX_NAME];
            let seen = partition
                .exclusive(|words| open(words)?.0.holder_from(server::database(), hash, start, LOOKS, &mut text))?;
            next = seen.next;
            let Some(holder) = seen.holder else { continue };
            let own = *own.entry(holder.role).or_insert_with(|| may_act_for(holder.role));
            if all || own {
                push(rows, &holder, text.get(..holder.len).unwrap_or_default(), own)?;
            }
        }
    }
    Ok(())
}

/// The row of a holder; with the token where the current role could use it.
fn push(rows: &mut Rows<'_>, holder: &Holder, name: &[u8], own: bool) -> Result<(), Error> {
    rows.push(&[
        Value::Bytes(name),
        if own { Value::I64(holder.token) } else { Value::Null },
        Value::I32(holder.pid.cast_signed()),
        Value::Instant(holder.since),
        Value::Instant(holder.expires_at),
    ])
}

/// How full the memory is, and what was counted since it was made.
pub(super) fn whole() -> Result<Stats, Error> {
    let mut sum = Stats::default();
    for partition in segment()?.partitions(REGION) {
        sum = sum + partition.shared(stats)?;
    }
    Ok(sum)
}

/// Frees what has expired, until `deadline` (microseconds of the server's clock) has come. How many tokens had, and whether it got
/// to the end.
pub(super) fn sweep(deadline: i64) -> Result<(u64, bool), Error> {
    let mut expired = 0;
    for partition in segment()?.partitions_from_any(REGION) {
        if server::now() >= deadline {
            return Ok((expired, false));
        }
        server::check_for_interrupts();
        expired += partition.exclusive(|words| open(words)?.0.sweep())?;
    }
    Ok((expired, true))
}

/// What an operator is warned of.
pub(super) fn warnings() -> Result<Vec<Warning>, Error> {
    let mut most = 0;
    for partition in segment()?.partitions(REGION) {
        most = most.max(percent(partition)?);
    }
    if most <= MUCH {
        return Ok(Vec::new());
    }
    Ok(vec![(
        "semaphore_memory_nearly_full",
        format!(
            "{most}% of a part of the semaphores' memory is taken: release what isn't needed, shorten the ttl, or raise \
             enough.semaphore_memory"
        ),
    )])
}

/// How much of a partition is taken, without what has expired.
fn percent(partition: &Partition) -> Result<u64, Error> {
    let share = |stats: Stats| stats.bytes_used.saturating_mul(100) / stats.bytes_max.max(1);
    let before = share(partition.shared(stats)?);
    if before <= MUCH {
        return Ok(before);
    }
    partition.exclusive(|words| {
        open(words)?.0.sweep()?;
        stats(words).map(share)
    })
}

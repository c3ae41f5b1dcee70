//! What a queue has seen and holds.

use crate::error::Error;
use crate::pg::catalog::{self, Privilege};
use crate::pg::fmgr::{Rows, Value};
use crate::pg::spi::{as_owner_of, read_rows, text};
use crate::pg::{level, own, server};
use crate::queue::consume::bury;
use crate::queue::doubt;
use crate::queue::handle::Queue;
use crate::queue::index::REGION;
use crate::queue::pending;
use crate::shmem::segment;
use enough_engine::queue::{Counters, Histogram, Partition as Index};

/// How often rows are counted while prepared transactions are decided; then the next call counts again.
const RECOUNTS: usize = 3;

/// The names of all queues.
pub fn names() -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    own::check(c"queue", &own::QUEUE_READ)?;
    read_rows("SELECT name FROM enough.queue ORDER BY name", &[], |row| {
        names.extend(text(row, 1)?);
        Ok(())
    })?;
    Ok(names)
}

/// Adds a queue's row. The counts of rows are exact from the first call on: that one counts, later ones cost nothing.
pub(in crate::queue) fn describe(queue: &Queue, rows: &mut Rows<'_>) -> Result<(), Error> {
    bury::expire(queue, i64::MAX)?;
    let counters = counters(queue)?;
    let (options, durations) = queue.index(|index, slot| Ok((index.options(slot)?, index.durations(slot)?)))?;
    let now = server::now();
    let quantile = |of: &Histogram, per_mille| Value::or_null(of.quantile(per_mille), Value::Interval);
    let live = counters.live.unwrap_or(0);
    rows.push(&[
        Value::Bytes(queue.name.as_bytes()),
        Value::I64((live - counters.leased - counters.delayed - counters.used_up).max(0)),
        Value::I64(counters.leased),
        Value::I64(counters.delayed),
        // Nobody has buried some of them yet.
        Value::I64(counters.dead.saturating_add(counters.used_up)),
        Value::I64(counters.archived),
        Value::or_null(oldest_ready(queue)?, Value::Interval),
        Value::I64(counters.sent),
        Value::I64(counters.delivered),
        Value::I64(counters.finished),
        Value::I64(counters.failed),
        Value::Bool(options.paused),
        quantile(&durations.waits, 500),
        quantile(&durations.waits, 990),
        quantile(&durations.runs, 500),
        quantile(&durations.runs, 990),
        Value::or_null(durations.oldest_lease.map(|began| now.saturating_sub(began).max(0)), Value::Interval),
    ])
}

fn counters(queue: &Queue) -> Result<Counters, Error> {
    if queue.index(|index, slot| index.in_doubt(slot))? {
        // What is decided by now is in the tables already.
        doubt::settle(queue.key)?;
    }
    let known = queue.index(|index, slot| index.counters(slot))?;
    if known.live.is_some() {
        return Ok(known);
    }
    recount(queue)
}

/// Counts the rows of a queue's tables. Decisions of prepared transactions that are known by now are to be carried out before
/// ([`doubt::settle`]): what the count has seen must not be added to it later.
pub(in crate::queue) fn recount(queue: &Queue) -> Result<Counters, Error> {
    for _ in 0..RECOUNTS {
        let undecided = queue.index(|index, slot| index.doubts(slot))?;
        let counters = count_once(queue)?;
        if !doubt::any_is_decided(&undecided)? {
            return Ok(counters);
        }
        // The rows that were counted may be those of before the decision or of after it.
        doubt::settle(queue.key)?;
    }
    let counters = queue.index(|index, slot| index.counters(slot))?;
    queue.index(|index, slot| index.start_counting(slot))?;
    Ok(counters)
}

fn count_once(queue: &Queue) -> Result<Counters, Error> {
    let pending = pending::is_waiting(queue.key);
    let counting = queue.index(|index, slot| index.start_counting(slot))?;
    let started = server::now();
    let found = count(queue)?;
    queue.index(|index, slot| {
        let now = server::now();
        index.counted(slot, counting, found, now.saturating_sub(started), now)?;
        let counters = index.counters(slot)?;
        if server::in_recovery() || pending {
            // What the primary sends isn't counted here: each call counts again, also the first one after a promotion. What
            // this transaction has done was seen already, and is counted when it commits.
            index.start_counting(slot)?;
        }
        Ok(counters)
    })
}

/// Counts rows: live, delayed, done and dead. A role that may read the queue's table may see its counts, those of the archive
/// among them, so each table is counted with its owner's rights.
fn count(queue: &Queue) -> Result<[i64; 4], Error> {
    let live = format!(
        "SELECT pg_catalog.count(*) AS one, pg_catalog.count(*) FILTER (WHERE deliver_at OPERATOR(pg_catalog.>) \
                pg_catalog.clock_timestamp()) AS other FROM {}",
        queue.relation("q_")
    );
    let ended = format!(
        "SELECT pg_catalog.count(*) FILTER (WHERE outcome OPERATOR(pg_catalog.=) 'done') AS one, \
                pg_catalog.count(*) FILTER (WHERE outcome OPERATOR(pg_catalog.=) 'dead') AS other FROM {}",
        queue.relation("a_")
    );
    let pair = |owner: u32, statement: &str| {
        let mut counts = [0; 2];
        as_owner_of(owner, || {
            read_rows(statement, &[], |row| {
                counts = [row.get::<i64>(1)?.unwrap_or(0), row.get::<i64>(2)?.unwrap_or(0)];
                Ok(())
            })
        })?;
        Ok::<_, Error>(counts)
    };
    let (table, archive) = (queue.table.live.relation, queue.table.archive);
    if archive != 0 {
        // It may have been dropped by hand, or be about to be.
        catalog::lock(archive, false);
    }
    if catalog::same_owner(table, archive) {
        // By one snapshot: a message that is archived meanwhile is counted once.
        let mut counts = [0; 4];
        as_owner_of(table, || {
            read_rows(
                &format!("SELECT l.one, l.other, a.one, a.other FROM ({live}) AS l, ({ended}) AS a"),
                &[],
                |row| {
                    for (count, number) in counts.iter_mut().zip(1..) {
                        *count = row.get::<i64>(number)?.unwrap_or(0);
                    }
                    Ok(())
                },
            )
        })?;
        return Ok(counts);
    }
    let [live, delayed] = pair(table, &live)?;
    let [done, dead] = if catalog::relation_exists(archive) { pair(archive, &ended)? } else { [0; 2] };
    Ok([live, delayed, done, dead])
}

/// How much of its memory the fullest partition uses for leases, in percent.
pub fn leased_percent() -> Result<u64, Error> {
    let mut most = 0;
    for partition in segment()?.partitions(REGION) {
        let (leased, places) = partition.shared(|words| Index::new(words).leased_places())?;
        most = most.max(leased * 100 / places.max(1));
    }
    Ok(most)
}

/// How long the oldest ready message has been there, since it was sent or due, in microseconds.
fn oldest_ready(queue: &Queue) -> Result<Option<i64>, Error> {
    let heads = queue.index(|index, slot| index.heads(slot))?;
    let table = queue.open_table(false)?;
    let rows = heads.iter().flatten().filter_map(|&(msg_id, tid)| table.fetch(msg_id, tid));
    Ok(rows
        .map(|row| row.deliver_at.unwrap_or(row.enqueued_at))
        .min()
        .map(|oldest| server::now().saturating_sub(oldest).max(0)))
}

/// Whether the current role may see a queue's counters: roles that may read its table, and monitors (`sql/access.sql`).
pub(in crate::queue) fn visible(queue: &Queue) -> bool {
    queue.may(Privilege::Observe) || level::is_monitor().unwrap_or(false)
}

/// Fails where the current role may not see a queue's counters.
pub(in crate::queue) fn require_visible(queue: &Queue) -> Result<(), Error> {
    if visible(queue) { Ok(()) } else { queue.require(Privilege::Observe) }
}

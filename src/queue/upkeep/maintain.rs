//! Maintenance of queues, one after the other: those first where it came by longest ago, each for a share of the time. How
//! far it has got with each is noted in the queue's slot, so that short runs come to the end of large queues as well.

use super::{cleanup, reconcile};
use crate::error::Error;
use crate::pg::catalog::{self, Privilege, TableLock};
use crate::pg::level::is_operator;
use crate::pg::savepoint::attempt;
use crate::pg::server;
use crate::pg::spi::as_owner_of;
use crate::queue::admin::sequence;
use crate::queue::consume::bury;
use crate::queue::doubt;
use crate::queue::handle::Queue;
use crate::queue::index::partition;
use crate::queue::inspect::stats;
use crate::queue::name::relation;
use crate::queue::notify;
use enough_engine::queue::{Partition as Index, QueueKey};
use std::rc::Rc;

/// Counts of groups' deliveries that are looked at whether they say anything.
const COUNTS: usize = 1024;

/// What one task has done for a queue.
#[derive(Debug, Clone, Copy, Default)]
pub struct Work {
    /// How many messages or rows.
    pub items: i64,
    /// In microseconds.
    pub elapsed: i64,
}

/// What came of the visit of a queue.
#[derive(Debug, Default)]
pub struct Visit {
    /// Messages that the index didn't know.
    pub reconciled: Work,
    /// Messages that were used up and are in the archive now.
    pub buried: Work,
    /// Rows of the archive that were removed.
    pub archived: Work,
    /// Sequences that were moved.
    pub numbers: Work,
    /// Why there is more to be done: the time was up, or another session has the table.
    pub unfinished: Option<Unfinished>,
}

/// Why a queue isn't done with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfinished {
    /// The time was up.
    Time,
    /// Another session has a lock, or changes the table.
    Locked,
    /// An error, in the server's words or the extension's; what the visit has done is undone.
    Failed(String),
}

/// The queues that the role may maintain: those first where maintenance came by longest ago.
pub fn queues() -> Result<Vec<String>, Error> {
    let mut queues = Vec::new();
    for name in stats::names()? {
        // One that has no slot yet, or whose partition has just been emptied, is due.
        let visited = relation("q_", &name).map_or(Ok(0), visited)?;
        queues.push((visited, name));
    }
    queues.sort();
    Ok(queues.into_iter().map(|(_, name)| name).collect())
}

fn visited(relation: u32) -> Result<i64, Error> {
    let key = QueueKey { database: server::database(), relation };
    partition(key)?.shared(|words| {
        let index = Index::new(words);
        index.find(key)?.map_or(Ok(0), |slot| Ok(index.maintenance(slot)?.visited))
    })
}

/// Does what is due for a queue, until `deadline`; `None` where it isn't the role's to maintain, or no queue any more. Never
/// waits for a lock. What is on the tables (triggers, say) runs with their owners' rights.
pub fn visit(name: &str, deadline: i64) -> Result<Option<Visit>, Error> {
    // One queue on which something fails doesn't keep the others from being maintained.
    match attempt(|| visit_one(name, deadline)) {
        Ok(visit) => Ok(visit),
        Err(failure) => Ok(Some(Visit::failed(failure.answered()?.1))),
    }
}

impl Visit {
    fn locked() -> Self {
        Visit { unfinished: Some(Unfinished::Locked), ..Visit::default() }
    }

    fn failed(message: String) -> Self {
        Visit { unfinished: Some(Unfinished::Failed(message)), ..Visit::default() }
    }
}

fn visit_one(name: &str, deadline: i64) -> Result<Option<Visit>, Error> {
    let Some(table) = relation("q_", name) else { return Ok(None) };
    // Before anything else is done with the tables: to look at what they are takes a lock, too.
    let archive = relation("a_", name).map(|archive| (archive, TableLock::Write));
    let locks: Vec<_> = [(table, TableLock::Read)].into_iter().chain(archive).collect();
    let taken = locks.iter().take_while(|&&(relation, lock)| catalog::try_lock(relation, lock)).count();
    let visit = if taken < locks.len() { Ok(Some(Visit::locked())) } else { visit_locked(name, table, deadline) };
    // Not until the transaction ends: it may go on for long with other queues.
    for &(relation, lock) in &locks[..taken] {
        catalog::release(relation, lock);
    }
    visit
}

fn visit_locked(name: &str, table: u32, deadline: i64) -> Result<Option<Visit>, Error> {
    let queue = Queue::open(name.as_bytes())?;
    if queue.table.live.relation != table || !queue.is_current()? {
        return Ok(Some(Visit::locked()));
    }
    if !is_operator() && !catalog::is_owner(table) && !queue.may(Privilege::Consume) {
        return Ok(None);
    }
    work(&queue, deadline).map(Some)
}

fn work(queue: &Rc<Queue>, deadline: i64) -> Result<Visit, Error> {
    let mut visit = Visit::default();
    let mut reached = queue.index(|index, slot| {
        let mut reached = index.maintenance(slot)?;
        reached.visited = server::now();
        // Noted first: another run that begins meanwhile takes other queues first.
        index.set_maintenance(slot, reached)?;
        index.forget_counts(slot, server::now(), COUNTS)?;
        Ok(reached)
    })?;
    doubt::settle(queue.key)?;
    reconcile::count_again(queue)?;
    let (mut whole, mut locked) = (true, false);
    // What is leased or delayed for ever would keep its place in memory.
    bury::expire(queue, deadline)?;
    if server::may_write() {
        visit.numbers = timed(|| move_sequence(queue, &mut locked))?;
        let now = server::now();
        let half = now.saturating_add(deadline.saturating_sub(now) / 2);
        visit.archived = timed(|| cleanup::expire(queue, &mut reached.archive, half, &mut whole))?;
    }
    visit.reconciled = timed(|| reconcile::queue(queue, &mut reached, deadline, &mut whole))?;
    let mut failed = None;
    if server::may_write() {
        visit.buried = timed(|| bury_all(queue, deadline, &mut locked, &mut failed))?;
    }
    queue.index(|index, slot| index.set_maintenance(slot, reached))?;
    if queue.options.notify && server::may_write() {
        remind(queue)?;
    }
    visit.unfinished = match (whole, locked) {
        _ if failed.is_some() => failed.map(Unfinished::Failed),
        (true, false) => None,
        (true, true) => Some(Unfinished::Locked),
        (false, _) => Some(Unfinished::Time),
    };
    Ok(visit)
}

/// Tells listeners of what is ready, which may have come due by itself.
fn remind(queue: &Queue) -> Result<(), Error> {
    let due = queue.index(|index, slot| {
        let now = server::now();
        let due = index.should_remind(slot, now)?;
        if due {
            index.notified(slot, now)?;
        }
        Ok(due)
    })?;
    if due {
        notify::tell(&queue.name);
    }
    Ok(())
}

fn timed(work: impl FnOnce() -> Result<i64, Error>) -> Result<Work, Error> {
    let started = server::now();
    let items = work()?;
    Ok(Work { items, elapsed: server::now().saturating_sub(started) })
}

/// Buries what is used up, with the rights of the table's owner; how many messages. Where that fails, `failed` says why: the
/// rest of the visit stands.
fn bury_all(queue: &Queue, deadline: i64, locked: &mut bool, failed: &mut Option<String>) -> Result<i64, Error> {
    if !queue.index(|index, slot| index.has_used_up(slot))? {
        return Ok(0);
    }
    // Kept until the transaction ends, because rows change.
    if !catalog::try_lock(queue.table.live.relation, TableLock::Write) {
        *locked = true;
        return Ok(0);
    }
    match attempt(|| as_owner_of(queue.table.live.relation, || bury::bury(queue, i64::MAX, deadline))) {
        Ok(buried) => Ok(buried),
        Err(failure) => {
            *failed = Some(failure.answered()?.1);
            Ok(0)
        }
    }
}

/// Moves a queue's sequence past the greatest number in its tables: identity sequences aren't replicated, so a subscriber that
/// is promoted would give all its numbers again. How many sequences were moved.
fn move_sequence(queue: &Queue, locked: &mut bool) -> Result<i64, Error> {
    let (table, archive) = (queue.table.live.relation, queue.table.archive);
    // Each table is read with its owner's rights.
    let greatest = |relation: u32, prefix: &str| match relation {
        0 => Ok(None),
        relation => as_owner_of(relation, || sequence::greatest(&queue.relation(prefix))),
    };
    let greatest = greatest(table, "q_")?.max(greatest(archive, "a_")?);
    let Some(greatest) = greatest else { return Ok(0) };
    as_owner_of(table, || {
        if !sequence::gives_again(&queue.name, greatest)? {
            return Ok(0);
        }
        // Senders are kept out, for as long as it takes to set the sequence: one that takes numbers in between might be
        // given the same ones twice.
        if !catalog::try_lock(table, TableLock::NoWrites) {
            *locked = true;
            return Ok(0);
        }
        let moved = sequence::pass(&queue.name, greatest);
        catalog::release(table, TableLock::NoWrites);
        moved.map(i64::from)
    })
}

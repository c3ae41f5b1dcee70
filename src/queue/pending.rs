//! What waits for the end of the transaction: messages that become ready, leases that are given back, rows that are gone.
//!
//! All of it lives in this session's memory and needs none at the end: the lists are made when the calls are.

use super::ack;
pub(super) use super::action::{Action, Ending};
pub(super) use super::backoff::backoff;
use super::doubt;
use super::index::{self, REGION, forget, partition};
use super::notify;
use crate::error::Error;
use crate::pg::memory::PgVec;
use crate::pg::{latch, server, xact};
use crate::shmem::segment;
use enough_engine::queue::{Delivery, Entry, Partition as Index, QueueKey, Range, Undecided, Wake};
use enough_engine::words::Corrupt;
use pgrx::pg_sys::SubTransactionId;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

/// With what the queues enlist.
const ENLISTED: xact::Enlisted = xact::Enlisted::of(REGION.0);

#[derive(Debug, Clone, Copy)]
struct Item {
    savepoint: SubTransactionId,
    key: QueueKey,
    action: Action,
}

impl Item {
    /// Whether it is what the transaction has made of that message.
    fn changes(&self, key: QueueKey, msg_id: i64) -> bool {
        let changed = match self.action {
            Action::Finished { msg_id, .. } => msg_id,
            Action::Failed { entry, .. } => entry.msg_id,
            _ => return false,
        };
        self.key == key && changed == msg_id
    }
}

/// Something that this session holds in a queue while one call works, and that an error must give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// How far it has come, by number and by delivery time; `None` where it hasn't begun.
    Refill { numbers: Option<i64>, times: Option<i64> },
    /// A place among those that wait, and once it was woken there, what it was woken for.
    Place(u32),
    /// A place among those that wait for the end of a message.
    End(u32),
}

#[derive(Default)]
struct Pending {
    items: PgVec<Item>,
    held: Vec<(QueueKey, Held)>,
}

impl Pending {
    /// Makes one of two items where the transaction has sent a message and ended it.
    fn join_passing(&mut self) {
        let outside = |item: &Item| match item.action {
            Action::Finished { msg_id, busy: false, ending, .. } => Some(((item.key, msg_id), ending)),
            _ => None,
        };
        let mut ended: HashMap<(QueueKey, i64), Ending> = self.items.iter().filter_map(outside).collect();
        if ended.is_empty() {
            return;
        }
        let mut passing = HashSet::new();
        for item in self.items.iter_mut() {
            if let Action::Sent(entry) = item.action
                && let Some(ending) = ended.remove(&(item.key, entry.msg_id))
            {
                passing.insert((item.key, entry.msg_id));
                item.action = Action::Passing(ending);
            }
        }
        self.items.retain(|item| match item.action {
            Action::Failed { entry, busy: false, .. } => !passing.contains(&(item.key, entry.msg_id)),
            _ => outside(item).is_none_or(|(message, _)| !passing.contains(&message)),
        });
    }
}

thread_local! {
    static PENDING: RefCell<Pending> = const { RefCell::new(Pending { items: PgVec::new(), held: Vec::new() }) };
}

/// Messages handled under one hold of a lock.
const CHUNK: usize = 256;

/// Finds memory for as many actions as can become due before they are remembered. What the index has been told must not be
/// forgotten for lack of memory, so every call comes by here first.
pub(super) fn prepare() {
    PENDING.with_borrow_mut(|pending| pending.items.reserve(CHUNK));
}

/// Whether the end of this transaction changes what is counted of a queue.
pub(super) fn is_waiting(key: QueueKey) -> bool {
    PENDING.with_borrow(|pending| {
        pending.items.iter().any(|item| item.key == key && !matches!(item.action, Action::Leased { .. }))
    })
}

/// Whether anything waits for the end of this transaction.
pub(super) fn waits() -> bool {
    PENDING.with_borrow(|pending| !pending.items.is_empty())
}

/// Remembers an action until the end of the transaction.
pub(super) fn remember(key: QueueKey, action: Action) {
    if matches!(action, Action::Created | Action::Dropped | Action::Altered(_)) {
        // Later it can't be had (`segment::attach`); without it nobody has anything to be told.
        let _ = segment();
    }
    xact::enlist(ENLISTED);
    let savepoint = xact::current();
    PENDING.with_borrow_mut(|pending| {
        pending.items.push(Item { savepoint, key, action });
        // Not before: it must have been remembered should this fail.
        pending.items.reserve(CHUNK);
    });
}

/// Remembers that a scan has passed over a row that this transaction has deleted, and that the index doesn't know.
pub(super) fn passed_over(key: QueueKey, entry: &Entry) {
    let add = |ranges: &mut [Option<Range>; 2]| {
        let (which, place) = entry.deliver_at.map_or((0, entry.msg_id), |at| (1, at));
        ranges[which] = Some(Range::with(ranges[which], place));
    };
    let savepoint = xact::current();
    let added = PENDING.with_borrow_mut(|pending| match pending.items.last_mut() {
        Some(Item { savepoint: at, key: of, action: Action::PassedOver(ranges) }) if (*at, *of) == (savepoint, key) => {
            add(ranges);
            true
        }
        _ => false,
    });
    if !added {
        let mut ranges = [None; 2];
        add(&mut ranges);
        remember(key, Action::PassedOver(ranges));
    }
}

/// Forgets that a message was to be finished, or had failed: nothing was changed. What triggers have sent meanwhile
/// stands.
pub(super) fn forget_finished(key: QueueKey, msg_id: i64) {
    PENDING.with_borrow_mut(|pending| {
        if let Some(place) = pending.items.iter().rposition(|item| item.changes(key, msg_id)) {
            pending.items.remove(place);
        }
    });
}

/// Whether this transaction has finished a message, or given it back.
pub(super) fn is_changed_here(key: QueueKey, msg_id: i64) -> bool {
    PENDING.with_borrow(|pending| pending.items.iter().rev().any(|item| item.changes(key, msg_id)))
}

/// The messages of a queue that this transaction has sent, or given back, in the order of their numbers.
pub(super) fn written_here(key: QueueKey) -> PgVec<i64> {
    let written = |item: &Item| match item.action {
        Action::Sent(entry) | Action::Failed { entry, .. } | Action::Redriven(entry) if item.key == key => {
            Some(entry.msg_id)
        }
        _ => None,
    };
    let mut numbers: PgVec<i64> = PENDING.with_borrow(|pending| pending.items.iter().filter_map(written).collect());
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Forgets leases that have been given back.
pub(super) fn forget_leased(key: QueueKey, given_back: &[Delivery]) {
    if given_back.is_empty() {
        return;
    }
    let leases: HashSet<u64> = given_back.iter().map(|taken| taken.lease).collect();
    let is_one =
        |item: &Item| item.key == key && matches!(item.action, Action::Leased { lease, .. } if leases.contains(&lease));
    PENDING.with_borrow_mut(|pending| pending.items.retain(|item| !is_one(item)));
}

fn hold(key: QueueKey, held: Held) {
    xact::enlist(ENLISTED);
    PENDING.with_borrow_mut(|pending| pending.held.push((key, held)));
}

/// Notes that this session waits for the end of a message at a place in a queue's list, until [`left_end`].
pub(super) fn awaiting(key: QueueKey, place: u32) {
    hold(key, Held::End(place));
}

/// That place has been left.
pub(super) fn left_end() {
    give_up(|held| matches!(held, Held::End(_)));
}

fn give_up(is_it: impl Fn(Held) -> bool) {
    PENDING.with_borrow_mut(|pending| pending.held.retain(|&(_, held)| !is_it(held)));
}

/// Notes that this session refills a queue, until [`refilled`].
pub(super) fn refilling(key: QueueKey) {
    hold(key, Held::Refill { numbers: None, times: None });
}

/// The refill has come so far. An error, or a cancel, doesn't make the next one begin where this one began: what is slow would
/// never come to its end.
pub(super) fn scanned(numbers: Option<i64>, times: Option<i64>) {
    PENDING.with_borrow_mut(|pending| {
        if let Some((_, held @ Held::Refill { .. })) = pending.held.last_mut() {
            *held = Held::Refill { numbers, times };
        }
    });
}

/// The refill has been ended.
pub(super) fn refilled() {
    give_up(|held| matches!(held, Held::Refill { .. }));
}

/// Notes that this session waits at a place in a queue's list, until it has another one, or [`left`].
pub(super) fn waiting(key: QueueKey, place: u32) {
    left();
    hold(key, Held::Place(place));
}

/// The same at one more place, in another queue's list.
pub(super) fn waiting_too(key: QueueKey, place: u32) {
    hold(key, Held::Place(place));
}

/// The place has been left, and nobody needs to look in this session's stead.
pub(super) fn left() {
    give_up(|held| matches!(held, Held::Place(_)));
}

/// Does `step` for all items, by runs of the same queue, in chunks under its lock; then wakes whom it woke. A queue that
/// isn't in the index has nothing to be told: its first refill finds everything.
fn apply(items: &[Item], step: impl Fn(&Index<'static>, u32, &Item, i64, &mut Wake) -> Result<(), Corrupt>) {
    for run in items.chunk_by(|a, b| a.key == b.key) {
        for chunk in run.chunks(CHUNK) {
            let mut done = 0;
            // The list of sessions to wake is of fixed size: when it is full, they are woken in between.
            while let Some(rest) = chunk.get(done..).filter(|rest| !rest.is_empty()) {
                let mut wake = Wake::default();
                let Ok(partition) = partition(rest[0].key) else { return };
                let outcome = partition.exclusive(|words| {
                    let index = Index::new(words);
                    let Some(slot) = index.find(rest[0].key)? else { return Ok(rest.len()) };
                    let (now, mut count) = (server::now(), 0);
                    for item in rest {
                        if wake.is_full() {
                            break;
                        }
                        step(&index, slot, item, now, &mut wake)?;
                        count += 1;
                    }
                    Ok(count)
                });
                latch::wake(wake.processes());
                match outcome {
                    Ok(count) => done += count.max(1),
                    // The partition was damaged and is empty now: refills find everything.
                    Err(_) => break,
                }
            }
        }
    }
}

fn commit_one(index: &Index<'_>, slot: u32, item: &Item, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
    match item.action {
        Action::Sent(entry) => index.sent(slot, &entry, now, wake),
        Action::Finished { msg_id, tag, busy, timed, group, ending } => {
            // What wasn't set aside may have been brought in, or read, meanwhile; its row is gone in any case.
            if busy && ending == Ending::Purged {
                index.end_purged(slot, msg_id, tag, now, wake)?;
            } else if busy {
                index.end_busy(slot, msg_id, tag, true, now, wake)?;
            } else {
                index.left_outside(slot, msg_id, timed, group)?;
                index.drop_message(slot, msg_id, tag, now, wake)?;
            }
            index.ended(slot, msg_id, wake)?;
            count_ending(index, slot, ending)
        }
        Action::Passing(ending) => {
            index.count_sent(slot)?;
            count_ending(index, slot, ending)
        }
        Action::Failed { entry, timed, released, .. } => {
            index.left_outside(slot, entry.msg_id, timed, 0)?;
            index.failed(slot, i64::from(!released))?;
            index.schedule_retry(slot, &entry, now, wake)
        }
        Action::Purged { rows, timed } => {
            index.all_ended(slot, wake)?;
            index.purged(slot, rows, timed)
        }
        Action::Redriven(entry) => index.redriven(slot, &entry, now, wake),
        Action::Forgotten { done, dead } => index.forgotten(slot, done, dead),
        Action::Altered(options) => index.set_options(slot, options, now),
        Action::Notified => index.notified(slot, now),
        Action::Leased { .. } | Action::PassedOver(_) | Action::Created | Action::Dropped => Ok(()),
    }
}

fn count_ending(index: &Index<'_>, slot: u32, ending: Ending) -> Result<(), Corrupt> {
    match ending {
        Ending::Deleted => index.finished(slot, 1),
        Ending::Archived => index.archived(slot, 1),
        Ending::Buried => index.buried(slot, 1),
        Ending::Failed => index.failed(slot, 1).and_then(|()| index.buried(slot, 1)),
        Ending::Purged => Ok(()),
    }
}

fn abort_one(index: &Index<'_>, slot: u32, item: &Item, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
    match item.action {
        Action::Leased { msg_id, lease, attempts } => {
            let options = index.options(slot)?;
            if options.forgets_deliveries() {
                return index.undo_lease(slot, msg_id, lease, now, wake);
            }
            index.release_with_backoff(slot, msg_id, lease, now, backoff(&options, attempts, lease), wake)
        }
        Action::Finished { msg_id, tag, busy: true, .. } => index.end_busy(slot, msg_id, tag, false, now, wake),
        Action::Failed { entry, busy: true, .. } => index.end_busy(slot, entry.msg_id, entry.tag, false, now, wake),
        Action::PassedOver(ranges) => index.passed_over(slot, ranges, wake),
        Action::Sent(_)
        | Action::Finished { .. }
        | Action::Failed { .. }
        | Action::Passing(_)
        | Action::Purged { .. }
        | Action::Redriven(_)
        | Action::Forgotten { .. }
        | Action::Altered(_)
        | Action::Notified
        | Action::Created
        | Action::Dropped => Ok(()),
    }
}

/// What was set aside stays so until the prepared transaction is decided.
fn prepare_one(index: &Index<'_>, slot: u32, item: &Item, transaction: u64, wake: &mut Wake) -> Result<(), Corrupt> {
    let (msg_id, tag, what) = match item.action {
        Action::Finished { msg_id, tag, busy: true, .. } => (msg_id, tag, Undecided::Ended),
        Action::Failed { entry, busy: true, .. } => {
            (entry.msg_id, entry.tag, Undecided::Returned { attempts: entry.attempts })
        }
        // Others see these rows until then, and leave them alone where they meet them.
        Action::PassedOver(ranges) => return index.passed_over(slot, ranges, wake),
        _ => return Ok(()),
    };
    index.leave_undecided(slot, msg_id, tag, transaction, what, doubt::has_read(item.key, msg_id))
}

/// Queues that this transaction's end takes away leave the index in steps, each under its own hold of the lock; a damaged
/// partition has forgotten them already.
fn forget_all(items: &[Item], gone: impl Fn(&Action) -> bool) {
    for item in items.iter().filter(|item| gone(&item.action)) {
        let _ = forget(item.key);
    }
}

/// Tells the listeners of queues that are empty and become ready with this transaction.
fn notify_listeners() -> Result<(), Error> {
    for (key, name) in notify::touched() {
        let now = server::now();
        let ready = PENDING.with_borrow(|pending| {
            let of_queue = || pending.items.iter().filter(|item| item.key == key).map(|item| item.action);
            let keeps_from =
                |action| matches!(action, Action::Dropped) || matches!(action, Action::Altered(to) if to.paused);
            let changed = |action: &Action| matches!(action, Action::Altered(_) | Action::Dropped);
            of_queue().any(|action| action.makes_ready(now)) && !of_queue().rfind(changed).is_some_and(keeps_from)
        });
        if ready {
            // A queue that isn't in the index knows of nothing.
            if index::at(key, |index, slot, _| index.should_notify(slot, now))?.unwrap_or(true) {
                notify::tell(&name);
                remember(key, Action::Notified);
            }
        }
    }
    Ok(())
}

/// Waiting sessions look again: the queue has other options now.
fn wake_all(key: QueueKey) {
    // Where the partition was damaged nobody has a place in it any more.
    while matches!(index::at(key, |index, slot, wake| index.wake_all(slot, wake)), Ok(Some(false))) {}
}

/// Undoes the items from the `keep`-th on, and forgets them.
fn roll_back(items: &mut PgVec<Item>, keep: usize) {
    let undone = items.get_mut(keep..).unwrap_or_default();
    // The last one first: a message that was leased and then deleted is leased again before it is given back.
    undone.reverse();
    apply(undone, abort_one);
    forget_all(undone, |action| matches!(action, Action::Created));
    items.truncate(keep);
}

fn give_up_all() {
    let held = PENDING.with_borrow_mut(|pending| std::mem::take(&mut pending.held));
    let process = latch::process();
    for (key, what) in held {
        let mut wake = Wake::default();
        let Ok(partition) = partition(key) else { return };
        // Where the partition was damaged nothing is left to be given up.
        let _ = partition.exclusive(|words| {
            let index = Index::new(words);
            let Some(slot) = index.find(key)? else { return Ok(()) };
            match what {
                Held::Refill { numbers, times } => index.end_refill(slot, process, numbers, times, &mut wake),
                Held::Place(place) => {
                    if !index.leave(slot, place, process)? {
                        // Woken for a message that this session won't take any more.
                        index.forward_wakeup(slot, &mut wake)?;
                    }
                    index.watch(slot, server::now(), &mut wake)
                }
                Held::End(place) => index.leave_end(slot, place, process),
            }
        });
        latch::wake(wake.processes());
    }
}

/// The queue's part in the end of transactions.
pub struct Queues;

/// See [`Queues`].
pub static PARTICIPANT: Queues = Queues;

impl xact::Participant for Queues {
    fn name(&self) -> &'static str {
        "queues"
    }

    fn waiting(&self) -> bool {
        waits()
    }

    fn pre_commit(&self) -> Result<(), Error> {
        PENDING.with_borrow_mut(Pending::join_passing);
        notify_listeners()?;
        ack::before_commit();
        Ok(())
    }

    fn prepare(&self) -> Result<(), Error> {
        PENDING.with_borrow_mut(|pending| {
            pending.join_passing();
            doubt::prepare(pending.items.iter().map(|item| (item.key, item.action)))
        })
    }

    fn prepared(&self) {
        ack::ended();
        give_up_all();
        let items = PENDING.with_borrow_mut(|pending| std::mem::take(&mut pending.items));
        let (transaction, any) = doubt::prepared();
        apply(&items, |index, slot, item, _, wake| prepare_one(index, slot, item, transaction, wake));
        keep_capacity(items);
        if any {
            xact::enlist(ENLISTED);
        }
    }

    fn commit(&self) {
        ack::ended();
        let items = PENDING.with_borrow_mut(|pending| {
            // Leases stand; what is left must be told.
            pending.items.retain(|item| !matches!(item.action, Action::Leased { .. } | Action::Created));
            std::mem::take(&mut pending.items)
        });
        apply(&items, commit_one);
        forget_all(&items, |action| matches!(action, Action::Dropped));
        for item in items.iter().filter(|item| matches!(item.action, Action::Altered(_))) {
            wake_all(item.key);
        }
        keep_capacity(items);
        if doubt::look_for_decisions() {
            xact::enlist(ENLISTED);
        }
    }

    fn abort(&self) {
        ack::ended();
        notify::touched();
        give_up_all();
        let mut items = PENDING.with_borrow_mut(|pending| std::mem::take(&mut pending.items));
        roll_back(&mut items, 0);
        keep_capacity(items);
        if doubt::not_prepared() {
            xact::enlist(ENLISTED);
        }
    }

    fn merge(&self, from: SubTransactionId, to: SubTransactionId) {
        PENDING.with_borrow_mut(|pending| {
            for item in pending.items.iter_mut().rev().take_while(|item| item.savepoint >= from) {
                item.savepoint = to;
            }
        });
    }

    fn undo(&self, from: SubTransactionId) {
        give_up_all();
        let mut items = PENDING.with_borrow_mut(|pending| std::mem::take(&mut pending.items));
        // Numbers of savepoints grow, and those inside of `from` have ended before it.
        let keep = items.iter().rposition(|item| item.savepoint < from).map_or(0, |last| last + 1);
        roll_back(&mut items, keep);
        PENDING.with_borrow_mut(|pending| pending.items = items);
    }
}

/// Gives the list back, empty, so that the next transaction needn't allocate one; unless it was a large one.
fn keep_capacity(mut items: PgVec<Item>) {
    items.empty(4 * CHUNK);
    PENDING.with_borrow_mut(|pending| pending.items = items);
}

//! One look of a session at a queue: messages are leased by the index, their rows are fetched, and what isn't there goes from the
//! index.

use super::claim::permitted;
use super::wait::{Stand, stand};
use super::{finish, groups, refill};
use crate::error::Error;
use crate::pg::catalog::Privilege;
use crate::pg::fmgr::{Rows, Value};
use crate::pg::spi::{Parameter, as_owner_of, each_row};
use crate::pg::table::snapshot::fixed_snapshot;
use crate::pg::{latch, server};
use crate::queue::doubt;
use crate::queue::entry::{ENTRY, entry_of};
use crate::queue::handle::Queue;
use crate::queue::heap::rows::{OpenTable, Row};
use crate::queue::pending::{self, Action, remember};
use enough_engine::queue::{Delivery, Met, QueueState, Yielded};
use std::cell::Cell;
use std::collections::HashSet;

/// Messages leased under one hold of the lock.
pub(super) const LEASES: usize = 256;
/// Timers that one read lets run out.
pub(super) const TIMERS: usize = 256;
/// How long a reader sleeps at the most while another one refills.
pub(super) const REFILL_SLEEP: i64 = 10_000;
/// How long a reader sleeps at the most while another transaction is changing the rows that are ready.
const CONTENDED_SLEEP: i64 = 20_000;
/// How long it sleeps at the most where what is ready isn't for its snapshot to see: it has no place among those that wait.
const HIDDEN_SLEEP: i64 = 1_000_000;
/// So many messages that aren't for this transaction are enough for one look.
const MOST_HIDDEN: usize = 1024;

/// What a read wants.
pub(in crate::queue) struct ReadRequest {
    /// At most so many messages.
    pub qty: usize,
    /// How long the leases last, in microseconds; `None` for the queue's own.
    pub timeout: Option<i64>,
    /// How long to wait for the first message, in microseconds.
    pub wait: i64,
    /// Delete what is read, in the same transaction.
    pub delete: bool,
    /// After a message of a group the next ones of it, as many as there are.
    pub whole_groups: bool,
    /// For errors.
    pub function: &'static str,
}

/// Fails where the session may not read the queue's messages.
pub(super) fn require_read(queue: &Queue, wish: &ReadRequest) -> Result<(), Error> {
    queue.require(Privilege::Consume)?;
    if server::in_recovery() || (wish.delete && !server::may_write()) {
        return Err(Error::ReadOnly { function: wish.function });
    }
    if !server::may_write() && queue.index(|index, slot| index.durable_attempts(slot))? {
        // Nobody would know of the delivery after a crash.
        return Err(Error::ReadOnly { function: wish.function });
    }
    Ok(())
}

#[allow(clippy::struct_excessive_bools, reason = "each says something else")]
pub(super) struct Reader<'q> {
    queue: &'q Queue,
    wish: &'q ReadRequest,
    /// When it first looked: what runs out later is left to other reads.
    began: Option<i64>,
    /// The queue's place in the index, and when messages were last taken from it.
    taken: (u32, i64),
    /// What it has given to the caller so far, and when the first of those leases runs out: from then on another session may
    /// have made them ready again, and nobody is to get a message twice by one call.
    given: Vec<i64>,
    ends: i64,
    /// It has met one of those again.
    repeats: bool,
    /// Opened when the first row is looked at.
    table: Option<OpenTable<'q>>,
    /// Leased, but not for this transaction to have: given back at the end, for others.
    pub(super) hidden: Vec<Delivery>,
    /// Some of the hidden ones are only hidden while another transaction is changing their rows.
    contended: bool,
    /// Messages wait to be buried.
    pub(super) used_up: bool,
    /// Each delivery is noted in the row.
    pub(super) durable: bool,
    /// Whether this session has stood in the queue's list of waiting ones.
    waited: &'q Cell<bool>,
    /// Prepared transactions have changed the queue.
    pub(super) in_doubt: bool,
    /// Messages given to the caller.
    pub(super) got: usize,
    /// Whether each is given with its queue's name before it.
    pub(super) names: bool,
    /// Whether this session has looked what has become of prepared transactions.
    settled: bool,
}

impl<'q> Reader<'q> {
    pub(super) fn new(queue: &'q Queue, wish: &'q ReadRequest, waited: &'q Cell<bool>) -> Self {
        Reader {
            queue,
            wish,
            began: None,
            taken: (0, 0),
            given: Vec::new(),
            ends: i64::MAX,
            repeats: false,
            table: None,
            hidden: Vec::new(),
            contended: false,
            used_up: false,
            durable: false,
            in_doubt: false,
            waited,
            got: 0,
            names: false,
            settled: false,
        }
    }

    pub(super) fn table(&mut self) -> Result<&OpenTable<'q>, Error> {
        let table = match self.table.take() {
            Some(table) => table,
            None => self.queue.open_table(self.wish.delete)?,
        };
        Ok(self.table.insert(table))
    }

    pub(super) fn unlock(&mut self) {
        if let Some(table) = self.table.take() {
            table.unlock();
        }
    }

    /// Reads what is there now. `None` when something was read; else how the queue stands.
    pub(super) fn attempt(&mut self, rows: &mut Rows<'_>) -> Result<Option<QueueState>, Error> {
        let mut got = 0;
        let mut taken: Vec<Delivery> = Vec::new();
        loop {
            let want = if self.wish.whole_groups { 1 } else { (self.wish.qty - got).min(LEASES) };
            taken.clear();
            taken.reserve(want);
            let queue_state = self.take(want, &mut taken)?;
            let any = !taken.is_empty();
            let given = self.deliver_all(&taken, rows)?;
            got += given;
            if self.wish.whole_groups && given == 1 && got < self.wish.qty {
                got += self.follow_group(taken[0], self.wish.qty - got, rows)?;
            }
            if self.repeats {
                return Ok(None);
            }
            if got == self.wish.qty {
                // With messages ready, what the table may hold besides is delayed ones that have come due.
                if queue_state.refill && queue_state.ready > 0 {
                    self.refill(&queue_state)?;
                }
                return Ok(None);
            }
            let more_due = queue_state.next.is_some_and(|next| self.began.is_some_and(|began| next <= began));
            if queue_state.paused {
                return Ok(if got > 0 { None } else { Some(queue_state) });
            }
            if queue_state.refill {
                if !any && !self.refill(&queue_state)? {
                    if self.settle()? {
                        // What is decided may make room.
                        continue;
                    }
                    if got == 0 && self.used_up {
                        // To bury them makes room.
                        return Ok(Some(queue_state));
                    }
                    return if got > 0 { Ok(None) } else { Err(Error::QueueMemory) };
                }
            } else if !any && self.settle()? {
                // What has been decided may have to be fetched.
            } else if !any && !more_due && queue_state.ready == 0 {
                return Ok(if got > 0 { None } else { Some(queue_state) });
            }
            // Rows that turned out to be gone, timers that are due, a refill: look again.
            if self.hidden.len() >= MOST_HIDDEN {
                return Ok(if got > 0 { None } else { Some(queue_state) });
            }
            server::check_for_interrupts();
        }
    }

    /// Looks what has become of prepared transactions; once a look, and false where it has.
    pub(super) fn settle(&mut self) -> Result<bool, Error> {
        if !self.in_doubt || self.settled {
            return Ok(false);
        }
        self.settled = true;
        doubt::settle(self.queue.key)?;
        Ok(true)
    }

    fn take(&mut self, want: usize, taken: &mut Vec<Delivery>) -> Result<QueueState, Error> {
        let (queue_state, used_up, durable) = self.queue.index_and_wake(|index, slot, wake| {
            let now = server::now();
            self.taken = (slot, now);
            taken.clear();
            index.expire(slot, *self.began.get_or_insert(now), TIMERS, wake)?;
            let timeout = match self.wish.timeout {
                Some(timeout) => timeout,
                None => index.options(slot)?.visibility_timeout,
            };
            index.take(slot, latch::process(), now, want, timeout, taken, wake)?;
            index.delivered(slot, taken.len())?;
            let queue_state = index.queue_state(slot, 1, now)?;
            if queue_state.refill && !taken.is_empty() {
                // This session leaves with what it has; the next one that waits may refill.
                index.forward_wakeup(slot, wake)?;
            }
            if !taken.is_empty() {
                index.watch(slot, now, wake)?;
            }
            Ok((queue_state, index.has_used_up(slot)?, index.durable_attempts(slot)?))
        })?;
        self.used_up |= used_up;
        self.durable = durable;
        self.in_doubt = queue_state.in_doubt;
        if !taken.is_empty() && self.waited.get() {
            pending::left();
        }
        Ok(queue_state)
    }

    /// Gives to the caller up to `most` messages that follow on one of a group, which it has; how many there were.
    fn follow_group(&mut self, first: Delivery, most: usize, rows: &mut Rows<'_>) -> Result<usize, Error> {
        let (mut last, mut got) = (first, 0);
        while got < most {
            let next = self.queue.index_and_wake(|index, slot, wake| {
                let now = server::now();
                let timeout = match self.wish.timeout {
                    Some(timeout) => timeout,
                    None => index.options(slot)?.visibility_timeout,
                };
                let next = index.take_next(slot, last.msg_id, last.lease, latch::process(), now, timeout, wake)?;
                if next.is_some() {
                    self.taken = (slot, now);
                    index.delivered(slot, 1)?;
                    index.watch(slot, now, wake)?;
                }
                Ok(next)
            })?;
            let Some(next) = next else { break };
            if self.deliver_all(&[next], rows)? == 0 {
                break;
            }
            (last, got) = (next, got + 1);
            server::check_for_interrupts();
        }
        Ok(got)
    }

    /// This session has waited, and goes away with nothing: another one keeps watch in its place.
    pub(super) fn retire(&self) -> Result<(), Error> {
        self.queue.index_and_wake(|index, slot, wake| index.watch(slot, server::now(), wake))?;
        pending::left();
        Ok(())
    }

    /// Gives leased messages to the caller; how many there were to give.
    pub(super) fn deliver_all(&mut self, taken: &[Delivery], rows: &mut Rows<'_>) -> Result<usize, Error> {
        for one in taken {
            // Before any row is looked at: an error gives them all back.
            let (msg_id, lease, attempts) = (one.msg_id, one.lease, one.attempts);
            remember(self.queue.key, Action::Leased { msg_id, lease, attempts });
        }
        let mut got = 0;
        let repeated = self.repeated(taken);
        self.repeats = !repeated.is_empty();
        for one in taken {
            if repeated.contains(&one.msg_id) {
                self.hidden.push(*one);
            } else if self.deliver(one, rows)? {
                got += 1;
                if self.wish.qty > 1 {
                    self.given.push(one.msg_id);
                    self.ends = self.ends.min(one.until);
                }
            }
        }
        self.got += got;
        let missed = taken.len() - got;
        if missed > 0 {
            self.queue.index(|index, slot| index.not_delivered(slot, missed, server::now()))?;
        }
        Ok(got)
    }

    /// Those of them that have been given already.
    fn repeated(&self, taken: &[Delivery]) -> HashSet<i64> {
        if self.given.is_empty() || server::now() < self.ends {
            return HashSet::new();
        }
        let taken: HashSet<i64> = taken.iter().map(|one| one.msg_id).collect();
        self.given.iter().copied().filter(|id| taken.contains(id)).collect()
    }

    /// Gives one leased message to the caller; false where there was nothing to give.
    fn deliver(&mut self, taken: &Delivery, rows: &mut Rows<'_>) -> Result<bool, Error> {
        let Some(row) = self.table()?.fetch(taken.msg_id, taken.tid) else {
            return self.vanished(taken, None).map(|()| false);
        };
        if !taken.tag.matches(row.tag()) {
            return self.vanished(taken, Some(&row)).map(|()| false);
        }
        if self.in_doubt {
            if self.is_undecided(taken, &row)? {
                return Ok(false);
            }
            // What has deleted the row may have been committed between the two looks.
            if self.table()?.fetch(taken.msg_id, taken.tid).is_none() {
                return self.vanished(taken, None).map(|()| false);
            }
        }
        let shown = (!fixed_snapshot() || self.table()?.shown(&row))
            && (self.queue.table.live.plain || permitted(self.queue, row.msg_id)?);
        if !shown {
            self.hidden.push(*taken);
            return Ok(false);
        }
        if row.deliver_at.is_some_and(|at| at > server::now()) {
            if row.is_own() {
                // By this transaction, which may be rolled back.
                self.hidden.push(*taken);
            } else {
                self.postpone(taken, &row)?;
            }
            return Ok(false);
        }
        if row.has_limits() && self.is_over(taken, &row)? {
            return Ok(false);
        }
        if (self.wish.delete || self.durable) && row.is_being_changed() {
            // A read doesn't wait for other transactions: others may get it later.
            self.contended = true;
            self.hidden.push(*taken);
            return Ok(false);
        }
        if taken.may_overtake && groups::look_for_earlier(self.queue, self.table()?, taken, &row)? == Yielded::Overtaken
        {
            return Ok(false);
        }
        if let Some(after) = taken.find_next {
            groups::look_for_next(self.queue, self.table()?, &row, after)?;
        }
        if self.wish.delete {
            let queue = self.queue;
            if !finish::delete(queue, self.table()?, taken.msg_id, Some(taken.lease))? {
                return Ok(false);
            }
        } else if !self.note_delivery(taken, &row)? {
            self.contended = true;
            self.hidden.push(*taken);
            return Ok(false);
        }
        let leased = |value| if self.wish.delete { Value::Null } else { value };
        let message = [
            Value::I64(taken.msg_id),
            Value::I32(i32::try_from(taken.attempts).unwrap_or(i32::MAX)),
            Value::Instant(row.enqueued_at),
            leased(Value::Instant(taken.until)),
            leased(Value::I64(taken.lease.cast_signed())),
            Value::I16(row.priority),
            Value::or_null(row.group_key, Value::Raw),
            Value::or_null(row.headers, Value::Raw),
            Value::or_null(row.message, Value::Raw),
        ];
        if self.names {
            let [a, b, c, d, e, f, g, h, i] = message;
            rows.push(&[Value::Bytes(self.queue.name.as_bytes()), a, b, c, d, e, f, g, h, i])?;
        } else {
            rows.push(&message)?;
        }
        self.note_wait(taken, &row);
        Ok(true)
    }

    /// Counts how long a message has waited for its first delivery. A redriven one has been delivered before.
    fn note_wait(&self, taken: &Delivery, row: &Row) {
        if taken.attempts == 1 && !row.has_failed {
            let (slot, now) = self.taken;
            self.queue.note_wait(slot, now.saturating_sub(row.deliver_at.unwrap_or(row.enqueued_at)));
        }
    }

    /// Whether a message is not to be delivered by its own limits: then it is used up, to be buried.
    fn is_over(&mut self, taken: &Delivery, row: &Row) -> Result<bool, Error> {
        let now = server::now();
        if !row.has_expired(now) && row.max_attempts.is_none_or(|most| taken.attempts <= most) {
            return Ok(false);
        }
        if row.is_own() {
            // By this transaction, which may be rolled back.
            self.hidden.push(*taken);
            return Ok(true);
        }
        self.queue.index_and_wake(|index, slot, wake| {
            index.end_unused(slot, taken.msg_id, taken.lease, server::now(), wake)
        })?;
        pending::forget_leased(self.queue.key, std::slice::from_ref(taken));
        self.used_up = true;
        Ok(true)
    }

    /// Whether a prepared transaction has deleted the row: the message waits for the decision.
    #[cold]
    fn is_undecided(&mut self, taken: &Delivery, row: &Row) -> Result<bool, Error> {
        let Some(transaction) = self.table()?.deleted_by_other(row) else { return Ok(false) };
        let met = self.queue.index_and_wake(|index, slot, wake| {
            index.meet_undecided(slot, taken.msg_id, taken.lease, transaction, server::now(), wake)
        })?;
        if met == Met::Aside {
            pending::forget_leased(self.queue.key, std::slice::from_ref(taken));
        }
        Ok(met == Met::Aside)
    }

    /// A leased message has no row any more, or another row has its number.
    fn vanished(&mut self, taken: &Delivery, other: Option<&Row>) -> Result<(), Error> {
        if self.queue.table.live.own_storage || self.table()?.is_there_for_others(taken.msg_id, taken.tag) {
            // By this transaction, which may be rolled back.
            self.hidden.push(*taken);
            return Ok(());
        }
        self.queue.index_and_wake(|index, slot, wake| {
            index.drop_leased(slot, taken.msg_id, taken.lease, server::now(), wake)
        })?;
        other.map_or(Ok(()), |row| self.queue.meet(row))
    }

    /// Somebody has given the row a later delivery time by hand: back to the index with it, as what it is now.
    fn postpone(&self, taken: &Delivery, row: &Row) -> Result<(), Error> {
        let entry = row.entry();
        self.queue.index_and_wake(|index, slot, wake| {
            let now = server::now();
            index.not_delivered_of_group(slot, taken.msg_id, taken.lease, now)?;
            index.drop_message(slot, row.msg_id, entry.tag, now, wake)?;
            index.insert_or_leave_out(slot, &entry, now, wake)
        })?;
        Ok(())
    }

    /// From the second delivery on the number of deliveries is durable, or from the first one where the queue has it so;
    /// where this transaction may write and nobody else is changing the row. False where it must be, and can't.
    fn note_delivery(&self, taken: &Delivery, row: &Row) -> Result<bool, Error> {
        if (taken.attempts < 2 && !self.durable) || !server::may_write() {
            return Ok(true);
        }
        if !self.queue.table.live.plain {
            // For the others the memory's count must do: triggers and policies would have a say in each.
            return if self.durable { self.note_by_executor(taken) } else { Ok(true) };
        }
        let Some(writer) = self.queue.open_for_notes()? else { return Ok(!self.durable) };
        let Some(tid) = writer.write_attempts(row, taken.attempts) else { return Ok(!self.durable) };
        self.queue.index(|index, slot| index.moved(slot, taken.msg_id, taken.lease, tid))?;
        Ok(true)
    }

    /// As the table's owner, because a consumer needn't have UPDATE.
    fn note_by_executor(&self, taken: &Delivery) -> Result<bool, Error> {
        let statement = format!(
            "UPDATE {} SET attempts = $2 WHERE msg_id OPERATOR(pg_catalog.=) $1 RETURNING {ENTRY}",
            self.queue.relation("q_")
        );
        let attempts = Parameter::I32(i32::try_from(taken.attempts).unwrap_or(i32::MAX));
        let mut noted = None;
        as_owner_of(self.queue.table.live.relation, || {
            each_row(&statement, &[Parameter::I64(taken.msg_id), attempts], |row| {
                noted = Some(entry_of(row, true)?);
                Ok(())
            })
        })?;
        let Some(entry) = noted else { return Ok(false) };
        self.queue.index(|index, slot| index.moved(slot, taken.msg_id, taken.lease, entry.tid))?;
        Ok(true)
    }

    pub(super) fn put_back_hidden(&self) -> Result<(), Error> {
        for taken in self.hidden.iter().rev() {
            let now = server::now();
            self.queue
                .index_and_wake(|index, slot, wake| index.undo_lease(slot, taken.msg_id, taken.lease, now, wake))?;
        }
        pending::forget_leased(self.queue.key, &self.hidden);
        Ok(())
    }

    /// Brings more messages from the table into the index, or waits for the session that does. False where not a single one found room.
    fn refill(&mut self, queue_state: &QueueState) -> Result<bool, Error> {
        let process = latch::process();
        let gone = queue_state.refiller.filter(|&other| other == process || !latch::is_alive(other));
        let refill = self.queue.index(|index, slot| index.start_refill(slot, process, server::now(), gone))?;
        let Some(refill) = refill else {
            latch::forget_wake_ups();
            self.sleep_in_place(|now| now.saturating_add(REFILL_SLEEP))?;
            return Ok(true);
        };
        let queue = self.queue;
        pending::refilling(queue.key);
        let room = refill::refill(queue, self.table()?, &refill)?;
        pending::refilled();
        Ok(room)
    }

    /// Sleeps until there may be something to read.
    pub(super) fn sleep(&self, deadline: i64) -> Result<(), Error> {
        if !self.hidden.is_empty() {
            latch::sleep(deadline.saturating_sub(server::now()).min(self.patience()));
            return Ok(());
        }
        self.sleep_in_place(|now| deadline.min(now.saturating_add(latch::patience(now))))
    }

    /// For how long to sleep where what is ready isn't for this transaction's snapshot to see, or being changed by another.
    pub(super) fn patience(&self) -> i64 {
        if self.contended { CONTENDED_SLEEP } else { HIDDEN_SLEEP }
    }

    /// Sleeps until the time that `until` says, at the longest, while this session stands in the queue's list of waiting ones;
    /// not at all where there is something to read by now.
    fn sleep_in_place(&self, until: impl Fn(i64) -> i64) -> Result<(), Error> {
        let (process, now) = (latch::process(), server::now());
        let place = match stand(self.queue, process, until)? {
            Stand::In(place) => place,
            Stand::NotIdle => return Ok(()),
            Stand::NoRoom => {
                // Look again soon.
                latch::sleep(REFILL_SLEEP);
                return Ok(());
            }
        };
        pending::waiting(self.queue.key, place.record);
        self.waited.set(true);
        latch::sleep(place.alarm.saturating_sub(now));
        // A session that was woken has to read what it was woken for; an error on the way to the next look passes that on.
        self.queue.index(|index, slot| index.leave(slot, place.record, process))?;
        Ok(())
    }
}

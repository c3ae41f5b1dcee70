//! What a queue holds and who holds it, by its promises alone: no index, no window, no memory that could be short.
//!
//! Where the promises leave freedom (which message is next, near enough; what has happened by a moment that lies between a
//! question and its answer) the model knows bounds, and what the server does narrows them down. Everything else it insists
//! on: each call of the model says what the server did, and fails with the promise that is broken.

use crate::limits::Rate;
use crate::message::{AT_ONCE, Bounds, Is, Lease, Message, passed};
use crate::session::Span;
use anyhow::{Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};

/// What the queue was made with; times in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) visibility_timeout: i64,
    pub(crate) max_attempts: u32,
    pub(crate) retry_backoff: i64,
    pub(crate) retry_backoff_max: i64,
    pub(crate) max_in_flight: Option<u32>,
    /// Deliveries in a time.
    pub(crate) max_rate: Option<(u32, i64)>,
}

impl Options {
    /// How long a message rests after its delivery number `attempts` has failed: doubling, capped, ±10 %.
    pub(crate) fn rest(&self, attempts: u32) -> Bounds<i64> {
        let doubled = i128::from(self.retry_backoff) << attempts.saturating_sub(1).min(62);
        let capped = i64::try_from(doubled.min(i128::from(self.retry_backoff_max))).unwrap_or(i64::MAX);
        Bounds { least: capped / 10 * 9 - 1, most: (capped + capped / 10 + 1).min(self.retry_backoff_max) }
    }
}

/// What becomes of a message once its transaction commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Deleted,
    Done,
    Dead,
    /// It isn't over: it rests until then.
    Retry(Bounds<i64>),
    /// The same, and the delivery doesn't count.
    Released(Bounds<i64>),
}

/// What a transaction has done, in order.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Effect {
    Sent(i64),
    Leased {
        id: i64,
        lease: Lease,
    },
    Ends {
        id: i64,
        how: Ending,
    },
    /// The number of deliveries was written to the row; not for sure where somebody else was changing it.
    Noted {
        id: i64,
        attempts: u32,
        sure: bool,
    },
}

/// A session's transaction.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    pub(crate) open: bool,
    /// Nothing but a rollback, also one to a savepoint, is possible.
    pub(crate) failed: bool,
    /// Commits up to this one are all that it sees.
    pub(crate) snapshot: Option<u64>,
    pub(crate) effects: Vec<Effect>,
    /// How many effects there were at each savepoint.
    pub(crate) savepoints: Vec<usize>,
}

/// A message that a read returned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivery {
    pub(crate) id: i64,
    pub(crate) attempts: u32,
    pub(crate) until: Option<i64>,
    pub(crate) lease: Option<i64>,
    pub(crate) priority: i16,
    pub(crate) payload: i64,
}

/// How messages were read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Read {
    pub(crate) qty: usize,
    pub(crate) timeout: i64,
    /// By `queue_pop`.
    pub(crate) pop: bool,
    /// It waited: what came when isn't known.
    pub(crate) waited: bool,
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) options: Options,
    /// Whether all messages fit into the memory, so that their order is strict.
    pub(crate) roomy: bool,
    pub(crate) messages: BTreeMap<i64, Message>,
    pub(crate) dead: BTreeMap<i64, Message>,
    pub(crate) done: BTreeSet<i64>,
    pub(crate) paused: bool,
    pub(crate) transactions: Vec<Transaction>,
    pub(crate) commits: u64,
    rate: Option<Rate>,
    leases: BTreeSet<i64>,
}

impl Model {
    pub(crate) fn new(options: Options, sessions: usize, roomy: bool) -> Self {
        Self {
            options,
            roomy,
            messages: BTreeMap::new(),
            dead: BTreeMap::new(),
            done: BTreeSet::new(),
            paused: false,
            transactions: (0..sessions).map(|_| Transaction::default()).collect(),
            commits: 0,
            rate: options.max_rate.map(|(most, period)| Rate::new(most, period)),
            leases: BTreeSet::new(),
        }
    }

    pub(crate) fn begin(&mut self, session: usize, fixed_snapshot: bool) {
        self.transactions[session] =
            Transaction { open: true, snapshot: fixed_snapshot.then_some(self.commits), ..Transaction::default() };
    }

    pub(crate) fn savepoint(&mut self, session: usize) {
        let transaction = &mut self.transactions[session];
        transaction.savepoints.push(transaction.effects.len());
    }

    pub(crate) fn release(&mut self, session: usize, savepoint: usize) {
        self.transactions[session].savepoints.truncate(savepoint);
    }

    pub(crate) fn rollback_to(&mut self, session: usize, savepoint: usize, span: Span) {
        let transaction = &mut self.transactions[session];
        transaction.failed = false;
        transaction.savepoints.truncate(savepoint + 1);
        let keep = transaction.savepoints[savepoint];
        self.undo(session, keep, span);
    }

    /// Also what becomes of a session that ends.
    pub(crate) fn rollback(&mut self, session: usize, span: Span) {
        self.undo(session, 0, span);
        self.transactions[session] = Transaction::default();
    }

    /// A statement has failed: what was done since the last savepoint is undone already.
    pub(crate) fn fail(&mut self, session: usize, span: Span) {
        let transaction = &mut self.transactions[session];
        transaction.failed = transaction.open;
        let keep = transaction.savepoints.last().copied().unwrap_or(0);
        self.undo(session, keep, span);
    }

    fn undo(&mut self, session: usize, keep: usize, span: Span) {
        let undone = self.transactions[session].effects.split_off(keep);
        for effect in undone.into_iter().rev() {
            match effect {
                Effect::Sent(id) => drop(self.messages.remove(&id)),
                Effect::Ends { id, .. } => {
                    let back = self.commits + 1;
                    let message = self.of(id);
                    message.ending = None;
                    message.fresh = false;
                    // It was out of its group's order, so another may have had its turn, and keeps it.
                    message.sent = message.sent.max(back);
                }
                Effect::Leased { id, lease } => self.give_back(id, lease, span),
                Effect::Noted { .. } => {}
            }
        }
    }

    /// A lease whose transaction was rolled back: the message rests, unless the lease had come to an end before.
    fn give_back(&mut self, id: i64, taken: Lease, span: Span) {
        // After the last one there is nothing to rest for.
        let last = taken.attempts >= self.options.max_attempts;
        let rest = if last { Bounds::exactly(0) } else { self.options.rest(taken.attempts) };
        let Some(message) = self.messages.get_mut(&id) else { return };
        let Some(lease) = message.lease.filter(|lease| lease.number == taken.number) else { return };
        let due =
            if rest.most <= 0 { AT_ONCE } else { Bounds { least: span.from + rest.least, most: span.to + rest.most } };
        if message.ending.is_some() {
            // Another open transaction is finishing it. Should that be rolled back, too, the lease may go on to its end.
            message.lease = Some(Lease { until: Bounds { least: i64::MIN, ..lease.until }, ..lease });
            message.due = Bounds { least: i64::MIN, ..due };
            return;
        }
        (message.lease, message.due, message.given_back) = (None, due, taken.number);
        if !matches!(passed(lease.until, span, ""), Is::Not(_)) {
            // Whether anybody had seen by then that it had run out isn't known.
            message.due.least = i64::MIN;
        }
    }

    pub(crate) fn commit(&mut self, session: usize) {
        self.commits += 1;
        let transaction = std::mem::take(&mut self.transactions[session]);
        for effect in transaction.effects {
            match effect {
                Effect::Sent(id) => {
                    let now = self.commits;
                    let message = self.of(id);
                    message.sender = None;
                    message.sent = now;
                    message.changed = Bounds::exactly(now);
                }
                Effect::Ends { id, how } => self.ended(id, how),
                Effect::Noted { id, attempts, sure } => {
                    let now = self.commits;
                    let Some(message) = self.messages.get_mut(&id) else { continue };
                    message.durable.most = message.durable.most.max(attempts);
                    message.changed.most = now;
                    if sure {
                        message.durable.least = attempts;
                        message.changed.least = now;
                    }
                }
                Effect::Leased { .. } => {}
            }
        }
    }

    pub(crate) fn of(&mut self, id: i64) -> &mut Message {
        self.messages.get_mut(&id).expect("a message of an open transaction is known")
    }

    /// The server has crashed: what was open is rolled back, and what only memory knew is gone.
    pub(crate) fn crash(&mut self) {
        for session in 0..self.transactions.len() {
            for effect in std::mem::take(&mut self.transactions[session]).effects {
                match effect {
                    Effect::Sent(id) => drop(self.messages.remove(&id)),
                    Effect::Ends { id, .. } => {
                        if let Some(message) = self.messages.get_mut(&id) {
                            message.ending = None;
                        }
                    }
                    Effect::Leased { .. } | Effect::Noted { .. } => {}
                }
            }
        }
        for message in self.messages.values_mut() {
            message.due = message.row_due;
            message.attempts = message.durable;
            message.fresh = false;
            message.lease = message.lease.filter(|_| !self.roomy);
            message.given_back = None;
            if let Some(lease) = &mut message.lease {
                // Where memory was short the lease may be in the row, and goes on.
                lease.until.least = i64::MIN;
            }
        }
        if let Some(rate) = &mut self.rate {
            rate.forget();
        }
    }

    /// A message was sent, to be delivered at `due` where that is given.
    pub(crate) fn send(
        &mut self,
        session: usize,
        span: Span,
        id: i64,
        payload: i64,
        (priority, group, dedup): (i16, Option<u8>, Option<u8>),
        due: Option<Bounds<i64>>,
    ) -> Result<()> {
        ensure!(!self.messages.contains_key(&id) && !self.dead.contains_key(&id), "number {id} was given twice");
        let row_due = due.unwrap_or(AT_ONCE);
        self.messages.insert(
            id,
            Message {
                payload,
                priority,
                group,
                dedup,
                sender: Some(session),
                sent: 0,
                changed: Bounds::exactly(u64::MAX),
                attempts: Bounds::exactly(0),
                durable: Bounds::exactly(0),
                due: row_due,
                row_due,
                lease: None,
                given_back: None,
                ending: None,
                began: span.from,
                fresh: due.is_none(),
                leased_at: None,
            },
        );
        self.transactions[session].effects.push(Effect::Sent(id));
        Ok(())
    }

    /// Whether another session's open transaction has written that message's row, so that changing it would have to wait.
    pub(crate) fn locked_by_another(&self, session: usize, id: i64) -> bool {
        let others = self.transactions.iter().enumerate().filter(|(other, _)| *other != session);
        others.flat_map(|(_, transaction)| &transaction.effects).any(|effect| match effect {
            Effect::Noted { id: other, .. } | Effect::Ends { id: other, .. } => *other == id,
            _ => false,
        })
    }

    /// The messages of each group.
    fn groups(&self) -> BTreeMap<u8, Vec<i64>> {
        let mut groups = BTreeMap::<u8, Vec<i64>>::new();
        for (id, message) in &self.messages {
            if let Some(group) = message.group {
                groups.entry(group).or_default().push(*id);
            }
        }
        groups
    }

    /// Whether a read by that session in `span` may, or must, return that message.
    fn ready_one(&self, session: usize, span: Span, id: i64, groups: &BTreeMap<u8, Vec<i64>>) -> Is {
        if self.paused {
            return Is::Not("the queue is paused");
        }
        let message = &self.messages[&id];
        let most = self.options.max_attempts;
        let mut ready = message.ready(self.transactions[session].snapshot, span);
        match message.used_up(most, span) {
            Is::Sure => return Is::Not("it is used up"),
            Is::Possible => ready = ready.and(Is::Possible),
            Is::Not(_) => {}
        }
        let others = message.group.and_then(|group| groups.get(&group)).into_iter().flatten();
        for &other in others.filter(|other| **other != id) {
            if matches!(ready, Is::Not(_)) {
                break;
            }
            ready = ready.and(self.messages[&other].lets(other < id, message, most, span));
        }
        ready
    }

    /// Messages that a read by that session in `span` may return (`Possible`), or must if it asks for enough (`Sure`).
    pub(crate) fn ready(&self, session: usize, span: Span, is: Is) -> Vec<i64> {
        let groups = self.groups();
        let ready = |id: &i64| {
            let ready = self.ready_one(session, span, *id, &groups);
            ready == is || (is == Is::Possible && ready == Is::Sure)
        };
        self.messages.keys().copied().filter(ready).collect()
    }

    /// How many messages the limits let a read in `span` return.
    fn allowance(&self, span: Span) -> Bounds<usize> {
        let mut allowance = self.rate.as_ref().map_or(Bounds::exactly(usize::MAX), |rate| rate.allowance(span));
        if let Some(most) = self.options.max_in_flight {
            let sure = self.messages.values().filter(|one| one.leased(None, span) == Is::Sure).count();
            // The lease of one that an open transaction is finishing doesn't run out.
            let flies = |one: &&Message| {
                !matches!(one.leased(None, span), Is::Not(_)) || (one.ending.is_some() && one.lease.is_some())
            };
            let possible = self.messages.values().filter(flies).count();
            let most = most as usize;
            allowance.least = allowance.least.min(most.saturating_sub(possible));
            allowance.most = allowance.most.min(most.saturating_sub(sure));
        }
        allowance
    }

    /// Messages that are (`Sure`), or may be, used up during `span`, and that nobody is burying.
    pub(crate) fn used_up(&self, span: Span, is: Is) -> Vec<i64> {
        let most = self.options.max_attempts;
        let free = self.messages.iter().filter(|(_, message)| message.ending.is_none() && message.sender.is_none());
        let state = |message: &Message| message.used_up(most, span);
        free.filter(|(_, message)| state(message) == is || (is == Is::Possible && state(message) == Is::Sure))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Maintenance, or a redrive, has buried what was used up, in a transaction of its own.
    pub(crate) fn all_buried(&mut self, buried: &[i64]) {
        self.commits += 1;
        for id in buried {
            let message = self.messages.remove(id).expect("a message that is used up is known");
            self.dead.insert(*id, message);
        }
    }

    /// Messages that a read by that session in `span` must return if it asks for enough. One that would have to write a row
    /// leaves those to others that another transaction is changing.
    fn due(&self, session: usize, span: Span, pop: bool) -> Vec<i64> {
        let mut due = self.ready(session, span, Is::Sure);
        due.retain(|id| !pop || !self.locked_by_another(session, *id));
        due
    }

    /// Whether leases, rests and changes under way may fill the memory, so that a read gives up after the first messages.
    fn crowded(&self, span: Span) -> bool {
        let held = |one: &&Message| {
            one.lease.is_some() || one.ending.is_some() || matches!(passed(one.due, span, ""), Is::Not(_))
        };
        !self.roomy && self.messages.values().filter(held).count() > 80
    }

    /// Whether a read by that session, now, must return something.
    pub(crate) fn must_return(&self, session: usize, span: Span, pop: bool) -> bool {
        self.allowance(span).least > 0 && !self.due(session, span, pop).is_empty()
    }

    /// A read returned `rows`, and buried `buried`.
    pub(crate) fn read(
        &mut self,
        session: usize,
        span: Span,
        read: Read,
        rows: &[Delivery],
        buried: &[i64],
    ) -> Result<()> {
        ensure!(rows.len() <= read.qty, "{} messages where {} were asked for", rows.len(), read.qty);
        let due = self.due(session, span, read.pop);
        let may_bury = self.roomy && self.transactions[session].snapshot.is_none();
        let used_up = if may_bury { self.used_up(span, Is::Sure) } else { Vec::new() };
        for id in used_up {
            let left = !buried.contains(&id) && !self.locked_by_another(session, id);
            ensure!(!left, "message {id} is used up, and not buried: {:?}", self.messages[&id]);
        }
        let allowance = self.allowance(span);
        // Of several who waited nobody knows who was first.
        ensure!(
            rows.len() <= allowance.most || read.waited,
            "{} messages, where the limits allow {allowance:?}",
            rows.len()
        );
        let before = self.roomy.then(|| self.messages.clone());
        for row in rows {
            self.deliver(session, span, read, row)?;
        }
        for &id in buried {
            self.bury(session, span, id)?;
        }
        if read.pop && span.to - span.from > read.timeout {
            // What it has taken and lost again, because it took longer than its leases last, was tried once more.
            for id in &due {
                if let Some(message) = self.messages.get_mut(id).filter(|message| message.ending.is_none()) {
                    message.attempts.most += 1 + u32::try_from((span.to - span.from) / read.timeout).unwrap_or(1000);
                }
            }
        }
        if let Some(rate) = &mut self.rate {
            rate.spend(span, rows.len());
        }
        let left: Vec<i64> =
            due.iter().copied().filter(|id| !buried.contains(id) && rows.iter().all(|row| row.id != *id)).collect();
        // What is met and left to others is in flight meanwhile.
        let locked = self.messages.keys().any(|id| self.locked_by_another(session, *id));
        let hides = locked || self.transactions[session].snapshot.is_some();
        let allowed = if hides { 0 } else { allowance.least };
        let most =
            if self.options.max_in_flight.is_some() { read.qty.min(allowed) } else { read.qty.min(allowance.least) };
        // What has run out in the reader's own hands, because the call took longer than its leases last, is in flight again.
        let slow = span.to - span.from > read.timeout;
        let most = if slow { 0 } else { most };
        // Others who waited may have taken what was ready, too.
        let most = if read.waited || self.crowded(span) { most.min(1) } else { most };
        ensure!(
            left.is_empty() || rows.len() >= most,
            "no false empties: {} of {most} were returned, while {} more were ready: {}",
            rows.len(),
            left.len(),
            self.describe(&left)
        );
        match before {
            Some(before) if !read.waited => in_order(&before, &due, &left, rows),
            _ => Ok(()),
        }
    }

    fn describe(&self, ids: &[i64]) -> String {
        let some = ids.iter().take(5).map(|id| format!("{id}: {:?}", self.messages.get(id)));
        some.collect::<Vec<_>>().join(", ")
    }

    fn deliver(&mut self, session: usize, span: Span, read: Read, row: &Delivery) -> Result<()> {
        let id = row.id;
        let sure = !self.locked_by_another(session, id);
        let now = self.commits;
        ensure!(
            self.messages.contains_key(&id),
            "message {id} was delivered, which isn't there: it was finished, taken back, or never sent"
        );
        let span = match row.until {
            Some(until) => {
                let at = until - read.timeout;
                ensure!(span.from <= at && at <= span.to, "message {id}: a lease until {until}, in {span:?}");
                Span { from: at, to: at }
            }
            None => span,
        };
        if let Is::Not(why) = self.ready_one(session, span, id, &self.groups()) {
            bail!("message {id} was delivered, but {why}: {:?}", self.messages[&id]);
        }
        let most = self.options.max_attempts;
        let message = self.messages.get_mut(&id).expect("looked for above");
        ensure!(
            (message.payload, message.priority) == (row.payload, row.priority),
            "message {id} isn't what was sent: {row:?}, {message:?}"
        );
        // A pop that takes longer than its leases last takes what ran out in its hands once more.
        let again = if read.pop { (span.to - span.from) / read.timeout.max(1) } else { 0 };
        let again = u32::try_from(again).unwrap_or(u32::MAX - 1000);
        let counted = Bounds { least: message.attempts.least + 1, most: message.attempts.most + 1 + again };
        ensure!(counted.holds(row.attempts), "message {id}: attempts {}, where {counted:?} were due", row.attempts);
        ensure!(row.attempts <= most, "message {id} was delivered {} times, of at most {most}", row.attempts);
        ensure!(row.until.is_none() == read.pop && row.lease.is_none() == read.pop, "message {id}: {row:?}");
        message.attempts = Bounds::exactly(row.attempts);
        message.fresh = false;
        message.leased_at = message.leased_at.or(Some(now));
        let until = row.until.map_or(Bounds { least: i64::MAX, most: i64::MAX }, Bounds::exactly);
        let lease = Lease { number: row.lease, until, attempts: row.attempts };
        (message.lease, message.given_back) = (Some(lease), None);
        if let Some(number) = row.lease {
            ensure!(self.leases.insert(number), "lease {number} was given twice");
        }
        let effects = &mut self.transactions[session].effects;
        effects.push(Effect::Leased { id, lease });
        if read.pop {
            message.ending = Some(session);
            effects.push(Effect::Ends { id, how: Ending::Deleted });
        } else if row.attempts > 1 {
            effects.push(Effect::Noted { id, attempts: row.attempts, sure });
        }
        Ok(())
    }

    /// A read, or a send with its dedup key, has buried a message.
    pub(crate) fn bury(&mut self, session: usize, span: Span, id: i64) -> Result<()> {
        let most = self.options.max_attempts;
        ensure!(self.messages.contains_key(&id), "message {id} is dead, and it isn't there");
        let message = self.messages.get_mut(&id).expect("looked for above");
        if let Is::Not(why) = message.used_up(most, span) {
            bail!("message {id} is dead, but {why}: {message:?}");
        }
        ensure!(message.ending.is_none() && message.sender.is_none(), "message {id} is somebody's: {message:?}");
        message.attempts.least = most;
        (message.lease, message.given_back) = (None, None);
        message.due = AT_ONCE;
        message.ending = Some(session);
        message.fresh = false;
        self.transactions[session].effects.push(Effect::Ends { id, how: Ending::Dead });
        Ok(())
    }

    /// Whether a change of that message conflicts with what the transaction's snapshot shows.
    pub(crate) fn conflicts(&self, session: usize, id: i64) -> bool {
        let message = self.messages.get(&id);
        let snapshot = self.transactions[session].snapshot;
        snapshot.is_some_and(|snapshot| message.is_none_or(|message| message.changed.most > snapshot))
    }

    /// `queue_extend` answered.
    pub(crate) fn extend(
        &mut self,
        span: Span,
        id: i64,
        timeout: i64,
        lease: Option<i64>,
        answer: Option<i64>,
    ) -> Result<()> {
        let leased = match self.messages.get(&id) {
            None => Is::Not("it isn't there"),
            Some(message) if message.ending.is_some() => Is::Not("an open transaction is finishing it"),
            Some(message) => message.leased(lease, span),
        };
        match (leased, answer) {
            (Is::Not(why), Some(_)) => {
                bail!("message {id}'s lease was extended, but {why}: {:?}", self.messages.get(&id))
            }
            (Is::Sure, None) => bail!("message {id}'s lease was not extended: {:?}", self.messages.get(&id)),
            _ => {}
        }
        let Some(until) = answer else { return Ok(()) };
        let at = until - timeout;
        ensure!(span.from <= at && at <= span.to, "message {id}: extended to {until}, in {span:?}");
        let message = self.of(id);
        message.due = AT_ONCE;
        message.lease = message.lease.filter(|_| timeout > 0);
        if let Some(lease) = &mut message.lease {
            lease.until = Bounds::exactly(until);
        }
        Ok(())
    }

    /// The committed rows: how many, and the sum of their numbers.
    pub(crate) fn rows(&self) -> (i64, i64) {
        let committed = self.messages.iter().filter(|(_, message)| message.sender.is_none());
        committed.fold((0, 0), |(count, sum), (id, _)| (count + 1, sum + id))
    }

    /// A moment at which a lease or a delay ends, if there is one after `now`.
    pub(crate) fn next_moment(&self, now: i64) -> Option<i64> {
        let moments = self.messages.values().flat_map(|message| {
            [message.lease.map(|lease| lease.until.most), Some(message.due.most)].into_iter().flatten()
        });
        moments.filter(|moment| *moment > now).min()
    }
}

/// Higher priorities come first, and of one priority those first that were sent and committed first, as far as they wait
/// in their places. What was due before another was sent comes before it.
fn in_order(before: &BTreeMap<i64, Message>, due: &[i64], left: &[i64], rows: &[Delivery]) -> Result<()> {
    let overtakes = |first: i64, second: i64| {
        // `first` came, and `second`, which was ready, did not, or later.
        let (a, b) = (&before[&first], &before[&second]);
        let alone = a.group.or(b.group).is_none();
        let older = b.sent < a.sent && second < first && a.fresh && b.fresh && alone;
        let due_before = a.fresh && alone && b.was_due_before(a);
        // A group's turn comes when its first message has come into the index, whatever its priority.
        (b.priority > a.priority && b.group.is_none()) || (b.priority == a.priority && (older || due_before))
    };
    for (place, row) in rows.iter().enumerate() {
        let later = rows[place + 1..].iter().map(|row| row.id).filter(|id| due.contains(id));
        if let Some(overtaken) = left.iter().copied().chain(later).find(|id| overtakes(row.id, *id)) {
            bail!("message {} came before {overtaken}: {:?}, {:?}", row.id, before[&row.id], before[&overtaken]);
        }
    }
    Ok(())
}

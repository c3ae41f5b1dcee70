//! What producers and consumers know for sure, and what follows from it.

use anyhow::{Result, ensure};
use enough_pg_test::queue::Message;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// What became of a transaction, as its client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Committed,
    RolledBack,
    /// The connection was lost while it committed.
    Unknown,
}

/// One delivery. Times are in microseconds since the Unix epoch, by this machine's clock, which is also the server's.
#[derive(Debug, Clone)]
struct Delivery {
    lease: i64,
    /// When the server gave the lease: where it ends, less how long it lasts.
    from: i64,
    /// When it ends by itself.
    until: i64,
    /// Before when its holder has done nothing to end it sooner.
    released: i64,
    /// Before when its holder has done nothing to finish the message.
    ending: i64,
    /// The group of its message.
    group: Option<i64>,
    /// Which life of the server gave it: leases don't outlive one.
    life: String,
}

#[derive(Default)]
struct Book {
    /// Payload → what became of its send.
    sent: BTreeMap<i64, Outcome>,
    /// Payloads that a consumer has got.
    received: BTreeSet<i64>,
    /// Message → its deliveries under leases.
    deliveries: HashMap<i64, Vec<Delivery>>,
    /// Message → when its delete was known to have committed.
    deleted: HashMap<i64, i64>,
    /// Message → since when a prepared transaction has ended it.
    held: HashMap<i64, i64>,
    /// Message → the result with which it was archived for sure.
    results: BTreeMap<i64, i64>,
    violations: Vec<String>,
    counts: BTreeMap<&'static str, u64>,
}

/// At most so many of one group are leased at a time,
pub(crate) const GROUP_LIMIT: usize = 2;
/// and so many are delivered
pub(crate) const GROUP_RATE: usize = 30;
/// in so many microseconds.
pub(crate) const GROUP_PERIOD: i64 = 1_000_000;

/// The group of the message with that payload; the same in SQL.
pub(crate) fn group_of(payload: i64) -> Option<i64> {
    (payload % 16 < 4).then_some(payload % 4)
}

pub(crate) const GROUP_OF: &str = "CASE WHEN n % 16 < 4 THEN (n % 4)::text END";

/// The book that all of them write.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<Book>);

/// This machine's clock, in microseconds since the Unix epoch.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

impl Ledger {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an event, for people.
    pub(crate) fn count(&self, what: &'static str) {
        *self.book().counts.entry(what).or_default() += 1;
    }

    /// Something happened that may not.
    pub(crate) fn violated(&self, what: &str) {
        self.book().violations.push(what.to_owned());
    }

    /// The transaction that sent these payloads has ended.
    pub(crate) fn sent(&self, payloads: impl IntoIterator<Item = i64>, outcome: Outcome) {
        let mut book = self.book();
        for payload in payloads {
            book.sent.insert(payload, outcome);
        }
    }

    /// A consumer got a message by a call that began at `asked`; `timeout` is how long its lease lasts, `None` for a pop.
    pub(crate) fn received(&self, message: &Message, asked: i64, timeout: Option<i64>, life: &str) {
        let mut book = self.book();
        let Some(payload) = message.message.as_i64() else {
            book.violations.push(format!("a message that nobody sent: {message:?}"));
            return;
        };
        book.received.insert(payload);
        if let Some(deleted) = book.deleted.get(&message.msg_id)
            && *deleted < asked
        {
            let late = asked - deleted;
            book.violations.push(format!("delivered {late} µs after its delete had committed: {message:?}"));
        }
        if let Some(held) = book.held.get(&message.msg_id)
            && *held < asked
        {
            let late = asked - held;
            book.violations.push(format!("delivered {late} µs after a prepared transaction had ended it: {message:?}"));
        }
        let (Some(timeout), Some(lease), Some(until)) = (timeout, message.lease, message.until) else { return };
        let delivery = Delivery {
            lease,
            from: until - timeout,
            until,
            released: i64::MAX,
            ending: i64::MAX,
            group: group_of(payload),
            life: life.to_owned(),
        };
        book.deliveries.entry(message.msg_id).or_default().push(delivery);
    }

    /// The holder of a lease is about to do what may end it, at `at`.
    pub(crate) fn releasing(&self, msg_id: i64, lease: Option<i64>, at: i64) {
        self.change(msg_id, lease, |delivery| delivery.released = delivery.released.min(at));
    }

    /// The holder of a lease is about to commit the end of its message.
    pub(crate) fn ending(&self, msg_id: i64, lease: Option<i64>) {
        let at = now();
        self.change(msg_id, lease, |delivery| delivery.ending = delivery.ending.min(at));
    }

    /// A lease was extended to `until` for sure.
    pub(crate) fn extended(&self, msg_id: i64, lease: Option<i64>, until: i64) {
        self.change(msg_id, lease, |delivery| delivery.until = until);
    }

    fn change(&self, msg_id: i64, lease: Option<i64>, change: impl Fn(&mut Delivery)) {
        let mut book = self.book();
        for delivery in book.deliveries.entry(msg_id).or_default() {
            if Some(delivery.lease) == lease {
                change(delivery);
            }
        }
    }

    /// The transaction that deleted a message has committed before now.
    pub(crate) fn deleted(&self, msg_id: i64) {
        self.book().deleted.insert(msg_id, now());
    }

    /// The transaction that archived a message with a result has committed.
    pub(crate) fn archived(&self, msg_id: i64, result: i64) {
        self.book().results.insert(msg_id, result);
    }

    /// Looks into the archive, once all is over: what was archived for sure has its result, and what was deleted isn't there.
    pub(crate) fn judge_archive(&self, archive: &BTreeMap<i64, Option<i64>>) -> Result<()> {
        let book = self.book();
        for (msg_id, result) in &book.results {
            let found = archive.get(msg_id);
            ensure!(found == Some(&Some(*result)), "message {msg_id} was archived with {result}: {found:?}");
        }
        for msg_id in archive.keys() {
            let deleted = book.deleted.contains_key(msg_id) && !book.results.contains_key(msg_id);
            ensure!(!deleted, "message {msg_id} was deleted, and is in the archive");
        }
        println!("{} messages archived with results", book.results.len());
        Ok(())
    }

    /// A transaction that has ended a message is prepared: nobody gets it, for good or until [`Self::let_go`].
    pub(crate) fn held(&self, msg_id: i64) {
        self.book().held.insert(msg_id, now());
    }

    /// That transaction is about to be rolled back.
    pub(crate) fn let_go(&self, msg_id: i64) {
        self.book().held.remove(&msg_id);
    }

    /// Payloads that were sent for sure and that no consumer has got yet.
    pub(crate) fn missing(&self) -> usize {
        let book = self.book();
        book.sent
            .iter()
            .filter(|(payload, how)| **how == Outcome::Committed && !book.received.contains(payload))
            .count()
    }

    /// The verdict, once the queue is empty.
    pub(crate) fn judge(&self) -> Result<()> {
        let mut book = self.book();
        let counts = std::mem::take(&mut book.counts);
        println!("{counts:?}");
        let known = |outcome| book.sent.iter().filter(move |(_, how)| **how == outcome).map(|(payload, _)| *payload);
        let lost: Vec<i64> = known(Outcome::Committed).filter(|payload| !book.received.contains(payload)).collect();
        let unborn: Vec<i64> = known(Outcome::RolledBack).filter(|payload| book.received.contains(payload)).collect();
        let strange: Vec<&i64> = book.received.iter().filter(|payload| !book.sent.contains_key(payload)).collect();
        let committed = known(Outcome::Committed).count();
        let deliveries: usize = book.deliveries.values().map(Vec::len).sum();
        let mut violations = book.violations.clone();
        for (msg_id, deliveries) in &book.deliveries {
            overlaps(*msg_id, deliveries, &mut violations);
        }
        limits(book.deliveries.values().flatten(), &mut violations);
        println!(
            "{committed} committed sends, {} of unknown outcome, {deliveries} deliveries under leases, {} deletes",
            known(Outcome::Unknown).count(),
            book.deleted.len()
        );
        ensure!(
            lost.is_empty(),
            "{} committed messages were lost, the first: {:?}",
            lost.len(),
            &lost[..lost.len().min(5)]
        );
        ensure!(unborn.is_empty(), "messages of rolled back sends were delivered: {unborn:?}");
        ensure!(strange.is_empty(), "messages that nobody sent were delivered: {strange:?}");
        none(&violations)?;
        ensure!(committed > 0 && deliveries > 0 && !book.deleted.is_empty(), "nothing happened");
        Ok(())
    }
}

/// Fails with the first of what has happened that may not.
pub(crate) fn none(violations: &[String]) -> Result<()> {
    let (count, first) = (violations.len(), violations[..violations.len().min(10)].join("\n"));
    ensure!(count == 0, "{count} violations:\n{first}");
    Ok(())
}

/// Two leases of one message in one life of the server may not be alive at once.
fn overlaps(msg_id: i64, deliveries: &[Delivery], violations: &mut Vec<String>) {
    for (number, a) in deliveries.iter().enumerate() {
        for b in &deliveries[number + 1..] {
            let (first, second) = if a.from <= b.from { (a, b) } else { (b, a) };
            if first.life == second.life && second.from < first.until.min(first.released) {
                violations.push(format!("message {msg_id} under two live leases: {first:?}, {second:?}"));
            }
        }
    }
}

/// What groups are allowed, in each life of the server: so many live leases at a time, so many deliveries in a period.
fn limits<'a>(deliveries: impl Iterator<Item = &'a Delivery>, violations: &mut Vec<String>) {
    let mut groups: BTreeMap<(&str, i64), Vec<&Delivery>> = BTreeMap::new();
    for delivery in deliveries {
        if let Some(group) = delivery.group {
            groups.entry((&delivery.life, group)).or_default().push(delivery);
        }
    }
    for ((_, group), mut deliveries) in groups {
        deliveries.sort_by_key(|delivery| delivery.from);
        for (number, one) in deliveries.iter().enumerate() {
            let alive = |other: &&&Delivery| one.from < other.until.min(other.released).min(other.ending);
            let before = deliveries[..number].iter().filter(alive).count();
            if before >= GROUP_LIMIT {
                violations.push(format!("group {group}: {before} leases are alive when another one begins: {one:?}"));
            }
            let recent = deliveries[..number].iter().filter(|other| one.from - other.from < GROUP_PERIOD).count();
            if recent >= GROUP_RATE {
                violations
                    .push(format!("group {group}: {recent} deliveries in the period before another one: {one:?}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message(payload: i64, lease: i64, until: i64) -> Message {
        let headers = None;
        Message {
            msg_id: payload,
            attempts: 1,
            lease: Some(lease),
            until: Some(until),
            priority: 0,
            headers,
            message: json!(payload),
        }
    }

    /// A book in which all is well: sent, delivered twice one after the other, deleted.
    fn well() -> Ledger {
        let ledger = Ledger::default();
        ledger.sent([1], Outcome::Committed);
        ledger.received(&message(1, 10, 200), 90, Some(100), "a");
        ledger.received(&message(1, 11, 300), 190, Some(100), "a");
        ledger.deleted(1);
        ledger
    }

    #[test]
    fn a_good_book_passes() -> Result<()> {
        well().judge()
    }

    #[test]
    fn each_broken_promise_is_seen() {
        let lost = well();
        lost.sent([2], Outcome::Committed);
        let unborn = well();
        unborn.sent([1], Outcome::RolledBack);
        let overlapping = well();
        overlapping.received(&message(1, 12, 350), 240, Some(100), "a");
        let late = well();
        late.received(&message(1, 13, i64::MAX), now() + 1_000_000, Some(100), "b");
        let strange = well();
        strange.received(&message(9, 14, 200), 90, Some(100), "a");
        // Payload 16 is of a group.
        let crowded = well();
        for id in 0..3 {
            crowded.sent([16 + 64 * id], Outcome::Committed);
            crowded.received(&message(16 + 64 * id, 20 + id, 200), 90, Some(100), "a");
        }
        let fast = well();
        for id in 0..31 {
            fast.sent([16 + 64 * id], Outcome::Committed);
            fast.received(&message(16 + 64 * id, 20 + id, 200 + id), 90, Some(100), "a");
            fast.releasing(16 + 64 * id, Some(20 + id), 0);
        }
        for (number, ledger) in [lost, unborn, overlapping, late, strange, crowded, fast].iter().enumerate() {
            assert!(ledger.judge().is_err(), "violation {number} passes");
        }
    }

    #[test]
    fn what_is_in_the_archive_is_what_was_put_there() {
        let ledger = well();
        ledger.archived(2, 5);
        assert!(ledger.judge_archive(&BTreeMap::from([(2, Some(5)), (3, None)])).is_ok());
        for archive in [vec![], vec![(2, None)], vec![(2, Some(6))], vec![(2, Some(5)), (1, None)]] {
            assert!(ledger.judge_archive(&archive.into_iter().collect()).is_err());
        }
    }

    #[test]
    fn a_lease_that_was_released_or_died_with_its_server_is_not_alive() -> Result<()> {
        let ledger = well();
        ledger.releasing(1, Some(11), 220);
        ledger.received(&message(1, 12, 320), 210, Some(100), "a");
        ledger.received(&message(1, 13, 330), 220, Some(100), "b");
        ledger.judge()
    }
}

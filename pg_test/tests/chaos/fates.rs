//! What becomes of messages, in the same storms: who asks for a result gets it, of a key one message is sent in each window, and messages
//! that die, expire, are ended in batches and go back from the dead, to their queue or to another one, are neither lost nor doubled,
//! whoever pages through them meanwhile.

use crate::ledger::{Outcome, none, now};
use crate::others::{Storm, Workers};
use crate::session::connect;
use anyhow::{Result, ensure};
use enough_pg_test::check::eventually;
use enough_pg_test::queue;
use enough_pg_test::server::Database;
use fastrand::Rng;
use postgres::{Client, Error};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{Scope, sleep};
use std::time::Duration;

/// How long a key is taken, in microseconds.
const WINDOW: i64 = 500_000;

/// Where messages die and go back to, and where some of them go instead.
const DEADLY: [&str; 2] = ["again", "elsewhere"];

/// The queues.
pub(crate) fn create() -> String {
    format!(
        "SELECT enough.queue_create('calls', visibility_timeout => '300 milliseconds', max_attempts => 1000000);
         SELECT enough.queue_create('once', visibility_timeout => '300 milliseconds', max_attempts => 1000000,
                                    dedup => 'window', dedup_for => '{WINDOW} microseconds');
         SELECT enough.queue_create(name, visibility_timeout => '300 milliseconds', max_attempts => 2, retry_backoff => '5 milliseconds')
           FROM unnest('{{{}}}'::text[]) AS name",
        DEADLY.join(",")
    )
}

/// What ends a delivery.
struct End {
    /// Returns the numbers of those that it has ended.
    call: &'static str,
    finishes: bool,
}

/// Most of them die.
const ENDS: [End; 7] = [
    End { call: "queue_delete_batch($1, $2, $3)", finishes: true },
    End { call: "queue_archive_batch($1, $2, $3)", finishes: true },
    End { call: "queue_release_batch($1, $2, $3, '2 milliseconds')", finishes: false },
    End { call: "queue_fail_batch($1, $2, $3, 'for now')", finishes: false },
    End { call: "queue_fail_batch($1, $2, $3, 'for good', dead => true)", finishes: false },
    End { call: "queue_fail_batch($1, $2, $3, 'for good', dead => true)", finishes: false },
    End { call: "queue_extend_batch($1, $2, $3, '50 milliseconds')", finishes: false },
];

/// The limits of a message's own, of which it may have some.
const LIMITS: [&str; 4] =
    ["", ", max_attempts => 1", ", expires_in => '20 milliseconds'", ", expires_in => '1 second', max_attempts => 1"];

/// A message that was sent, and what its sender knows of it.
#[derive(Debug, Clone, Copy)]
struct Sent {
    msg_id: i64,
    outcome: Outcome,
}

/// A send under a key: `from` before it began, `to` after it had ended.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    key: i64,
    sent: Sent,
    from: i64,
    to: i64,
    /// Whether another one was told to have the key.
    kept: bool,
}

#[derive(Default)]
struct Book {
    /// By what they ask for.
    calls: BTreeMap<i64, Sent>,
    attempts: Vec<Attempt>,
    /// Messages of the deadly queues, by their payloads: what became of the send,
    sent: BTreeMap<i64, Outcome>,
    /// of what finished it,
    finished: BTreeMap<i64, Outcome>,
    /// and whether somebody has seen it.
    seen: BTreeSet<i64>,
    violations: Vec<String>,
}

impl Book {
    /// Notes what a call over a queue has come to; `None` for no answer at all. Whether it is over.
    fn answered(&mut self, payload: i64, answer: Option<(&str, Option<i64>)>) -> bool {
        let right = match answer {
            Some(("done", result)) => result == Some(payload + 1),
            Some((state, _)) => matches!(state, "ready" | "leased" | "delayed"),
            None => false,
        };
        if !right {
            self.violations.push(format!("the call {payload} has come to {answer:?}"));
        }
        answer.is_none_or(|(state, _)| state == "done")
    }

    /// Judges what was sent under keys.
    fn judge_keys(&mut self) {
        let undone = undone(self.attempts.iter().filter(|attempt| !attempt.kept).map(|attempt| attempt.sent));
        for (number, one) in self.attempts.iter().enumerate() {
            if one.kept {
                if undone.contains(&one.sent.msg_id) {
                    self.violations.push(format!("{one:?} was told of a message that was rolled back"));
                }
                continue;
            }
            let within = |other: &&Attempt| {
                let (from, to) = (one.from.min(other.from), one.to.max(other.to));
                !other.kept && other.key == one.key && other.sent.outcome == Outcome::Committed && to - from < WINDOW
            };
            if one.sent.outcome == Outcome::Committed
                && let Some(other) = self.attempts[number + 1..].iter().find(within)
            {
                self.violations.push(format!("{one:?} and {other:?} are of one window"));
            }
        }
    }

    /// Judges what became of the messages of the deadly queues, of which those were left at the end.
    fn judge_dead(&mut self, left: &[i64]) {
        let mut once = BTreeSet::new();
        for payload in left {
            if !once.insert(*payload) {
                self.violations.push(format!("{payload} is there twice"));
            }
            if self.finished.get(payload) == Some(&Outcome::Committed) {
                self.violations.push(format!("{payload}, which was finished, is there"));
            }
        }
        for (payload, outcome) in &self.sent {
            match outcome {
                Outcome::Committed if !once.contains(payload) && !self.finished.contains_key(payload) => {
                    self.violations.push(format!("{payload} is lost"));
                }
                Outcome::RolledBack if once.contains(payload) || self.seen.contains(payload) => {
                    self.violations.push(format!("{payload}, which was rolled back, was there"));
                }
                _ => {}
            }
        }
    }
}

/// What is known of them.
#[derive(Default)]
pub(crate) struct Fates(Mutex<Book>);

impl Fates {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sessions.
    pub(crate) fn spawn<'s>(&'s self, scope: &'s Scope<'s, '_>, storm: Storm<'s>) -> Workers<'s> {
        let mut all = vec![
            scope.spawn(move || self.call(storm)),
            scope.spawn(move || answer(storm, "calls")),
            scope.spawn(move || answer(storm, "once")),
            scope.spawn(move || self.send(storm)),
            scope.spawn(move || redrive(storm)),
            scope.spawn(move || self.page(storm)),
        ];
        all.extend((0..2).map(|_| scope.spawn(move || self.send_once(storm))));
        all.extend(DEADLY.map(|queue| scope.spawn(move || self.end(storm, queue))));
        all
    }

    /// Asks, and waits for the answer.
    fn call(&self, storm: Storm<'_>) -> Result<()> {
        let (mut rng, mut session, mut next) = (Rng::new(), connect(storm.database)?, 0);
        while !storm.is_over() {
            next += 1;
            let (outcome, msg_id) = storm
                .transact(&mut session, rng.u8(..6) > 0, |client| queue::send(client, "calls", &Value::from(next)))?;
            let Some(msg_id) = msg_id else { continue };
            self.book().calls.insert(next, Sent { msg_id, outcome });
            while outcome == Outcome::Committed && !storm.is_over() {
                let Some(answer) = storm.attempt(&mut session, |client| result(client, msg_id, "300 milliseconds"))?
                else {
                    continue;
                };
                if self.book().answered(next, answer.as_ref().map(|(state, result)| (state.as_str(), *result))) {
                    storm.ledger.count("calls over a queue");
                    break;
                }
            }
        }
        Ok(())
    }

    /// Sends under few keys, which others send under as well.
    fn send_once(&self, storm: Storm<'_>) -> Result<()> {
        let (mut rng, mut session) = (Rng::new(), connect(storm.database)?);
        while !storm.is_over() {
            let (key, from) = (rng.i64(0..3), now());
            let (outcome, answer) = storm.transact(&mut session, rng.u8(..4) > 0, |client| {
                let send = "SELECT msg_id, outcome FROM enough.queue_send_unique('once', to_jsonb($1::bigint), $2)";
                let row = client.query_one(send, &[&key, &key.to_string()])?;
                Ok((row.get::<_, i64>(0), row.get::<_, String>(1) == "kept"))
            })?;
            if let Some((msg_id, kept)) = answer {
                storm.ledger.count(if kept { "keys that were taken" } else { "keys that were free" });
                let sent = Sent { msg_id, outcome };
                self.book().attempts.push(Attempt { key, sent, from, to: now(), kept });
            }
            sleep(Duration::from_millis(rng.u64(..60)));
        }
        Ok(())
    }

    /// Sends messages, some of which expire or have but one attempt.
    fn send(&self, storm: Storm<'_>) -> Result<()> {
        let (mut rng, mut session, mut next) = (Rng::new(), connect(storm.database)?, 0);
        while !storm.is_over() {
            next += 1;
            let limits = LIMITS[rng.usize(..LIMITS.len())];
            let call = format!("SELECT enough.queue_send($1, to_jsonb($2::bigint){limits})");
            let (outcome, _) =
                storm.transact(&mut session, rng.u8(..5) > 0, |client| client.execute(&call, &[&DEADLY[0], &next]))?;
            self.book().sent.insert(next, outcome);
            sleep(Duration::from_millis(rng.u64(..30)));
        }
        Ok(())
    }

    /// Reads messages and lets most of them die, one by one or all that have come at once.
    fn end(&self, storm: Storm<'_>, queue: &'static str) -> Result<()> {
        let (mut rng, mut session) = (Rng::new(), connect(storm.database)?);
        while !storm.is_over() {
            let call = format!("queue_read('{queue}', {}, wait => '100 milliseconds')", rng.u8(1..5));
            let messages = storm.attempt(&mut session, |client| queue::receive(client, &call))?.unwrap_or_default();
            self.book().seen.extend(messages.iter().filter_map(|message| message.message.as_i64()));
            let at_once = if rng.bool() { 1 } else { messages.len().max(1) };
            for some in messages.chunks(at_once) {
                // Or it is forgotten.
                let Some(way) = ENDS.get(rng.usize(..=ENDS.len())) else { continue };
                let (numbers, leases): (Vec<_>, Vec<_>) =
                    some.iter().map(|message| (message.msg_id, message.lease)).unzip();
                let (outcome, done) = storm.transact(&mut session, rng.u8(..5) > 0, |client| {
                    let rows =
                        client.query(&format!("SELECT * FROM enough.{}", way.call), &[&queue, &numbers, &leases])?;
                    Ok(rows.iter().map(|row| row.get(0)).collect::<BTreeSet<i64>>())
                })?;
                if !way.finishes || outcome == Outcome::RolledBack {
                    continue;
                }
                let done = done.unwrap_or_default();
                let payloads = some.iter().filter(|message| done.contains(&message.msg_id));
                self.book().finished.extend(payloads.filter_map(|message| Some((message.message.as_i64()?, outcome))));
            }
        }
        Ok(())
    }

    /// Pages through what is there, in any state.
    fn page(&self, storm: Storm<'_>) -> Result<()> {
        let (mut rng, mut session) = (Rng::new(), connect(storm.database)?);
        while !storm.is_over() {
            let (queue, state) = (DEADLY[rng.usize(..2)], ["ready", "leased", "delayed", "dead"][rng.usize(..4)]);
            let mut after = 0;
            loop {
                let call = format!("queue_peek('{queue}', 5, '{state}', {after})");
                let page = storm.attempt(&mut session, |client| queue::receive(client, &call))?.unwrap_or_default();
                let mut book = self.book();
                for message in &page {
                    if message.msg_id <= after {
                        book.violations.push(format!("{message:?} is on a page that is after {after}"));
                    }
                    after = message.msg_id;
                    book.seen.extend(message.message.as_i64());
                }
                if page.len() < 5 {
                    break;
                }
            }
            storm.ledger.count("walks through pages");
            sleep(Duration::from_millis(rng.u64(..20)));
        }
        Ok(())
    }

    /// Works off what is left, and judges.
    pub(crate) fn judge(&self, database: &Database) -> Result<()> {
        let mut client = database.client()?;
        eventually("all calls are answered", || {
            let calls = queue::receive(&mut client, "queue_read('calls', 1000, wait => '50 milliseconds')")?;
            for message in &calls {
                finish(&mut client, "calls", message)?;
            }
            let stats = queue::stats(&mut client, "calls")?;
            Ok((stats.ready + stats.leased + stats.delayed == 0).then_some(()))
        })?;
        let mut left = Vec::new();
        eventually("nothing is dead", || {
            let mut there = 0;
            for queue in DEADLY {
                client.execute("SELECT enough.queue_redrive($1)", &[&queue])?;
                let popped = queue::receive(&mut client, &format!("queue_pop('{queue}', 1000)"))?;
                left.extend(popped.iter().filter_map(|message| message.message.as_i64()));
                let stats = queue::stats(&mut client, queue)?;
                there += stats.ready + stats.leased + stats.delayed + stats.dead;
            }
            Ok((there == 0).then_some(()))
        })?;
        let calls: Vec<_> = self.book().calls.iter().map(|(payload, sent)| (*payload, *sent)).collect();
        let undone = undone(calls.iter().map(|(_, sent)| *sent));
        for (payload, sent) in calls {
            let answer = result(&mut client, sent.msg_id, "0")?;
            let answer = answer.as_ref().map(|(state, result)| (state.as_str(), *result));
            let mut book = self.book();
            match sent.outcome {
                Outcome::Committed if !book.answered(payload, answer) => {
                    book.violations.push(format!("the call {payload} has no end: {answer:?}"));
                }
                Outcome::RolledBack if answer.is_some() && undone.contains(&sent.msg_id) => {
                    book.violations.push(format!("the call {payload}, which was rolled back, has come to {answer:?}"));
                }
                _ => {}
            }
        }
        let mut book = self.book();
        let kept = book.attempts.iter().filter(|attempt| attempt.kept).count();
        println!(
            "{} calls; {} sends under a key, {kept} of them kept; {} of {} that may die are finished, {} left",
            book.calls.len(),
            book.attempts.len(),
            book.finished.len(),
            book.sent.len(),
            left.len()
        );
        ensure!(!book.calls.is_empty() && kept > 0 && !left.is_empty(), "nothing happened");
        book.judge_keys();
        book.judge_dead(&left);
        none(&book.violations)
    }
}

/// The numbers of messages that were rolled back. One that was drawn shortly before a crash may have been drawn again after it.
fn undone(all: impl Iterator<Item = Sent>) -> BTreeSet<i64> {
    let (undone, others): (Vec<_>, Vec<_>) = all.partition(|sent| sent.outcome == Outcome::RolledBack);
    let of = |some: Vec<Sent>| some.iter().map(|sent| sent.msg_id).collect::<BTreeSet<i64>>();
    &of(undone) - &of(others)
}

/// What has come of a call.
fn result(client: &mut Client, msg_id: i64, wait: &str) -> Result<Option<(String, Option<i64>)>, Error> {
    let call = format!("SELECT state, result::bigint FROM enough.queue_result('calls', $1, '{wait}')");
    Ok(client.query_opt(&call, &[&msg_id])?.map(|row| (row.get(0), row.get(1))))
}

/// Archives a message with the number after its own.
fn finish(client: &mut Client, queue: &str, message: &queue::Message) -> Result<(), Error> {
    let archive = "SELECT enough.queue_archive($1, $2, to_jsonb($3::bigint), $4)";
    let answer = message.message.as_i64().unwrap_or_default() + 1;
    client.execute(archive, &[&queue, &message.msg_id, &answer, &message.lease]).map(drop)
}

/// Finishes what comes, most of the time.
fn answer(storm: Storm<'_>, queue: &str) -> Result<()> {
    let (mut rng, mut session) = (Rng::new(), connect(storm.database)?);
    while !storm.is_over() {
        let call = format!("queue_read('{queue}', {}, wait => '100 milliseconds')", rng.u8(1..5));
        for message in storm.attempt(&mut session, |client| queue::receive(client, &call))?.unwrap_or_default() {
            if rng.u8(..8) > 0 {
                storm.transact(&mut session, rng.u8(..6) > 0, |client| finish(client, queue, &message))?;
            }
        }
    }
    Ok(())
}

/// Puts dead letters back, or elsewhere.
fn redrive(storm: Storm<'_>) -> Result<()> {
    let (mut rng, mut session) = (Rng::new(), connect(storm.database)?);
    while !storm.is_over() {
        let (from, to) = match rng.u8(..4) {
            0 => (DEADLY[0], DEADLY[1]),
            1 => (DEADLY[1], DEADLY[0]),
            2 => (DEADLY[0], DEADLY[0]),
            _ => (DEADLY[1], DEADLY[1]),
        };
        let (_, moved) = storm.transact(&mut session, rng.u8(..4) > 0, |client| {
            let call = "SELECT enough.queue_redrive($1, to_queue => NULLIF($2, $1), max => $3)";
            Ok(client.query_one(call, &[&from, &to, &rng.i32(1..6)])?.get::<_, i64>(0))
        })?;
        if moved.is_some_and(|moved| moved > 0) {
            storm.ledger.count("redrives");
        }
        sleep(Duration::from_millis(rng.u64(..60)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(msg_id: i64, outcome: Outcome, from: i64, kept: bool) -> Attempt {
        Attempt { key: 1, sent: Sent { msg_id, outcome }, from, to: from + 10, kept }
    }

    /// All is well: the second send comes after the window, and the third one is told of that.
    fn well() -> Book {
        let attempts = vec![
            attempt(1, Outcome::Committed, 0, false),
            attempt(2, Outcome::RolledBack, 100, false),
            attempt(3, Outcome::Committed, WINDOW, false),
            attempt(3, Outcome::Committed, WINDOW + 100, true),
        ];
        let sent = [Outcome::Committed, Outcome::Committed, Outcome::RolledBack, Outcome::Unknown];
        let finished = [(1, Outcome::Committed), (2, Outcome::Unknown)].into();
        Book { attempts, sent: (1..).zip(sent).collect(), finished, ..Book::default() }
    }

    fn verdict(mut book: Book, left: &[i64]) -> Result<()> {
        book.judge_keys();
        book.judge_dead(left);
        none(&book.violations)
    }

    #[test]
    fn a_good_book_passes() -> Result<()> {
        verdict(well(), &[2])?;
        verdict(well(), &[4])?;
        let mut book = well();
        assert!(!book.answered(5, Some(("ready", None))) && book.answered(5, Some(("done", Some(6)))));
        verdict(book, &[])
    }

    #[test]
    fn each_broken_promise_is_seen() {
        for left in [&[1][..], &[2, 2], &[3]] {
            assert!(verdict(well(), left).is_err(), "{left:?} passes");
        }
        let mut lost = well();
        lost.finished.remove(&2);
        let mut shown = well();
        shown.seen.insert(3);
        let mut twice = well();
        twice.attempts.push(attempt(4, Outcome::Committed, WINDOW + 50, false));
        let mut undone = well();
        undone.attempts.push(attempt(2, Outcome::Committed, 200, true));
        let [mut wrong, mut dead, mut gone] = [(); 3].map(|()| well());
        wrong.answered(5, Some(("done", Some(5))));
        dead.answered(5, Some(("dead", None)));
        gone.answered(5, None);
        for (number, book) in [lost, shown, twice, undone, wrong, dead, gone].into_iter().enumerate() {
            assert!(verdict(book, &[]).is_err(), "violation {number} passes");
        }
    }
}

//! What else queues do, in the same storms: topics, workers in SQL, keys of which one message waits, notifications, whole groups, dead
//! letters, tables as sources. Each has a queue of its own, and a verdict.

use crate::ledger::{Ledger, Outcome, none, now};
use crate::producer::EACH;
use crate::session::{Session, broken, connect, end, recover};
use anyhow::{Result, ensure};
use enough_pg_test::check::eventually;
use enough_pg_test::queue::{self, Message};
use enough_pg_test::server::Database;
use fastrand::Rng;
use postgres::fallible_iterator::FallibleIterator;
use postgres::{Client, Error};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{Scope, ScopedJoinHandle, sleep};
use std::time::Duration;

/// The queues, and what workers do: a row for each message, and an error now and then.
pub(crate) const CREATE: &str = "
    SELECT enough.queue_create(name, visibility_timeout => '300 milliseconds', max_attempts => 1000000,
                               retry_backoff => '20 milliseconds', retry_backoff_max => '200 milliseconds',
                               notify => name = 'told', dedup => CASE name WHEN 'keyed' THEN 'waiting' ELSE 'live' END)
      FROM unnest('{all_news,local_news,jobs,keyed,told}'::text[]) AS name;
    SELECT enough.topic_subscribe('news.#', 'all_news'), enough.topic_subscribe('news.local.*', 'local_news');
    SELECT enough.queue_create('graves', visibility_timeout => '300 milliseconds', max_attempts => 1000000);
    SELECT enough.queue_create('brittle', visibility_timeout => '300 milliseconds', max_attempts => 2, retry_backoff => '5 milliseconds',
                               dead_letter_queue => 'graves');
    SELECT enough.queue_create('orders', visibility_timeout => '300 milliseconds', max_attempts => 1000000, ack => 'async');
    CREATE TABLE placed (id bigint PRIMARY KEY);
    SELECT enough.queue_send_on('placed', 'orders', '{insert}');
    CREATE TABLE handled (message bigint);
    CREATE FUNCTION handle(message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO public.handled VALUES (message::bigint);
        IF random() < 0.2 THEN RAISE EXCEPTION 'no luck'; END IF;
        RETURN message;
    END $$";

/// The two that news go to.
const NEWS: [&str; 2] = ["all_news", "local_news"];
/// How long the one that is told of messages sleeps without being told,
const DEAF: Duration = Duration::from_secs(4);
/// and how long a message has lain there then, in microseconds, that nobody has told it of.
const OVERDUE: i64 = 3_000_000;

#[derive(Default)]
struct Book {
    /// Payload → what became of its send, by the queue.
    sent: BTreeMap<&'static str, BTreeMap<i64, Outcome>>,
    /// Payloads that came, by the queue.
    received: BTreeMap<&'static str, BTreeSet<i64>>,
    violations: Vec<String>,
}

/// What is known of them.
#[derive(Default)]
pub(crate) struct Others(Mutex<Book>);

/// Sessions at work.
pub(crate) type Workers<'s> = Vec<ScopedJoinHandle<'s, Result<()>>>;

/// Where the sessions of one storm work.
#[derive(Clone, Copy)]
pub(crate) struct Storm<'s> {
    pub database: &'s Database,
    pub ledger: &'s Ledger,
    pub stop: &'s AtomicBool,
}

impl Storm<'_> {
    /// A worker in SQL.
    fn work(self) -> Result<()> {
        let (mut rng, mut session) = (Rng::new(), connect(self.database)?);
        while !self.is_over() {
            let call = format!("CALL enough.queue_work('jobs', 'handle', {}, '300 milliseconds')", rng.u8(1..5));
            self.attempt(&mut session, |client| client.batch_execute(&call))?;
        }
        Ok(())
    }

    pub(crate) fn is_over(self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Does `work` in a transaction, which is then committed, or not; what became of it, and what `work` answered.
    pub(crate) fn transact<T>(
        self,
        session: &mut Session,
        commit: bool,
        work: impl FnOnce(&mut Client) -> Result<T, Error>,
    ) -> Result<(Outcome, Option<T>)> {
        let client = &mut session.client;
        let (outcome, answer, how) = match client.batch_execute("BEGIN").and_then(|()| work(client)) {
            Err(error) => (Outcome::RolledBack, None, Some(broken(&error, self.ledger)?)),
            Ok(answer) => {
                let (outcome, how) = end(client, commit, self.ledger)?;
                (outcome, Some(answer), how)
            }
        };
        if let Some(how) = how {
            recover(session, how, self.database, self.ledger)?;
        }
        Ok((outcome, answer))
    }

    /// The answer of a statement that is a transaction of its own; `None` where the session or the statement came to grief.
    pub(crate) fn attempt<T>(
        self,
        session: &mut Session,
        work: impl FnOnce(&mut Client) -> Result<T, Error>,
    ) -> Result<Option<T>> {
        match work(&mut session.client) {
            Ok(answer) => Ok(Some(answer)),
            Err(error) => {
                let how = broken(&error, self.ledger)?;
                recover(session, how, self.database, self.ledger)?;
                Ok(None)
            }
        }
    }
}

impl Others {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sent(&self, queue: &'static str, payloads: RangeInclusive<i64>, outcome: Outcome) {
        self.book().sent.entry(queue).or_default().extend(payloads.map(|payload| (payload, outcome)));
    }

    fn received(&self, queue: &'static str, messages: &[Message]) {
        let mut book = self.book();
        let payloads =
            messages.iter().filter_map(|message| message.message.as_i64().or(message.message["new"]["id"].as_i64()));
        // A dead letter has come, if it was read by nobody who lived to tell.
        let queue = if queue == "graves" { "brittle" } else { queue };
        book.received.entry(queue).or_default().extend(payloads);
    }

    /// The sessions.
    pub(crate) fn spawn<'s>(&'s self, scope: &'s Scope<'s, '_>, storm: Storm<'s>) -> Workers<'s> {
        let mut all = vec![
            scope.spawn(move || self.publish(storm)),
            scope.spawn(move || self.send(storm, "jobs", 5, 80)),
            // So seldom that the queue is empty in between.
            scope.spawn(move || self.send(storm, "told", 3, 400)),
            scope.spawn(move || self.listen(storm)),
            scope.spawn(move || self.consume_any(storm)),
            scope.spawn(move || self.send(storm, "brittle", 8, 60)),
            scope.spawn(move || self.send(storm, "orders", 5, 60)),
        ];
        all.extend((0..2).map(|_| scope.spawn(move || self.break_some(storm))));
        all.extend((0..2).map(|number| scope.spawn(move || self.repeat(storm, number))));
        all.extend((0..2).map(|_| scope.spawn(move || storm.work())));
        all
    }

    /// Publishes: to both queues, or to one.
    fn publish(&self, storm: Storm<'_>) -> Result<()> {
        let (mut rng, mut session, mut next) = (Rng::new(), connect(storm.database)?, 0);
        while !storm.is_over() {
            next += 1;
            let local = rng.bool();
            let topic = if local { "news.local.town" } else { "news.world" };
            let (outcome, _) = storm.transact(&mut session, rng.u8(..5) > 0, |client| {
                client.execute("SELECT enough.topic_publish($1, to_jsonb($2::bigint))", &[&topic, &next])
            })?;
            for &queue in &NEWS[..if local { 2 } else { 1 }] {
                self.sent(queue, next..=next, outcome);
            }
            sleep(Duration::from_millis(rng.u64(..40)));
        }
        Ok(())
    }

    /// Sends up to `most` messages at a time, and pauses for less than so many milliseconds.
    fn send(&self, storm: Storm<'_>, queue: &'static str, most: i64, pause: u64) -> Result<()> {
        let statement = match queue {
            // By its table.
            "orders" => "INSERT INTO placed SELECT generate_series($1::bigint, $2::bigint)".to_owned(),
            // Groups are of those that are read whole; elsewhere they are in nobody's way.
            "brittle" => sending(queue, ", group_key => (n % 3)::text"),
            _ => sending(queue, ""),
        };
        let (mut rng, mut session, mut next) = (Rng::new(), connect(storm.database)?, 0);
        while !storm.is_over() {
            let (first, last) = (next + 1, next + rng.i64(1..=most));
            next = last;
            let (outcome, _) =
                storm.transact(&mut session, rng.u8(..5) > 0, |client| client.execute(&statement, &[&first, &last]))?;
            self.sent(queue, first..=last, outcome);
            sleep(Duration::from_millis(rng.u64(..pause)));
        }
        Ok(())
    }

    /// Reads whole groups of messages that may die, and finishes, fails or releases each, or forgets it.
    fn break_some(&self, storm: Storm<'_>) -> Result<()> {
        let (mut rng, mut session) = (Rng::new(), connect(storm.database)?);
        while !storm.is_over() {
            let call = format!(
                "queue_read('brittle', {}, wait => '100 milliseconds', whole_groups => {})",
                rng.u8(1..9),
                rng.bool()
            );
            let messages = storm.attempt(&mut session, |client| queue::receive(client, &call))?.unwrap_or_default();
            self.received("brittle", &messages);
            for message in &messages {
                let end = match rng.u8(..8) {
                    0 => continue,
                    1 => "queue_fail('brittle', $1, 'broken', lease => $2)",
                    2 => "queue_fail('brittle', $1, 'broken', lease => $2, dead => true)",
                    3 => "queue_release('brittle', $1, '2 milliseconds', $2)",
                    4 => "queue_archive('brittle', $1, lease => $2)",
                    _ => "queue_delete('brittle', $1, $2)",
                };
                storm.transact(&mut session, rng.u8(..6) > 0, |client| {
                    client.execute(&format!("SELECT enough.{end}"), &[&message.msg_id, &message.lease])
                })?;
            }
        }
        Ok(())
    }

    /// Sends one payload after the other under its own key: of those that wait the last one counts.
    fn repeat(&self, storm: Storm<'_>, number: i64) -> Result<()> {
        let (mut rng, mut session, mut next) = (Rng::new(), connect(storm.database)?, number * EACH);
        while !storm.is_over() {
            next += 1;
            let (outcome, answer) = storm.transact(&mut session, rng.u8(..5) > 0, |client| {
                let send = "SELECT outcome FROM enough.queue_send_unique('keyed', to_jsonb($1::bigint), $2, 'replace')";
                Ok(client.query_one(send, &[&next, &number.to_string()])?.get::<_, String>(0))
            })?;
            if answer.is_some_and(|answer| answer == "kept") {
                self.book().violations.push(format!("{next} was not taken, although nothing that waits has to stay"));
            }
            self.sent("keyed", next..=next, outcome);
            sleep(Duration::from_millis(rng.u64(..30)));
        }
        Ok(())
    }

    /// Consumes all but what is told of, by one call for several queues.
    fn consume_any(&self, storm: Storm<'_>) -> Result<()> {
        let (mut rng, mut session) = (Rng::new(), connect(storm.database)?);
        while !storm.is_over() {
            let call = format!(
                "SELECT queue, {} FROM enough.queue_read_any('{{all_news,keyed,local_news,orders,graves}}', {}, wait => '100 milliseconds')",
                queue::COLUMNS,
                rng.u8(1..9)
            );
            let rows = storm.attempt(&mut session, |client| client.query(&call, &[]))?.unwrap_or_default();
            for row in &rows {
                let (from, message) = (row.get::<_, String>(0), Message::from(row));
                if let Some(&queue) = NEWS.iter().chain(&["keyed", "orders", "graves"]).find(|&&queue| queue == from) {
                    self.received(queue, std::slice::from_ref(&message));
                }
                if rng.u8(..6) > 0 {
                    storm
                        .attempt(&mut session, |client| queue::delete(client, &from, message.msg_id, message.lease))?;
                }
            }
        }
        Ok(())
    }

    /// Reads when it is told to, until nothing comes; and after it has come back.
    fn listen(&self, storm: Storm<'_>) -> Result<()> {
        let mut session = connect(storm.database)?;
        let mut listening = false;
        while !storm.is_over() {
            // A session that is another one by now listens anew.
            if !listening {
                let listen = |client: &mut Client| client.batch_execute("LISTEN enough_told");
                listening = storm.attempt(&mut session, listen)?.is_some();
                continue;
            }
            listening = self.empty(storm, &mut session, None)?.is_some();
            if !listening {
                continue;
            }
            let asleep = now();
            let sleep = |client: &mut Client| Ok(client.notifications().timeout_iter(DEAF).next()?.is_some());
            listening = match storm.attempt(&mut session, sleep)? {
                None => false,
                Some(true) => true,
                Some(false) => self.empty(storm, &mut session, Some(asleep))?.is_some(),
            };
        }
        Ok(())
    }

    /// Takes all there is until nothing has come for as long as nobody is told again; for a session that has slept since a moment
    /// nothing may have been there for long. `None` where the session came to grief.
    fn empty(&self, storm: Storm<'_>, session: &mut Session, asleep: Option<i64>) -> Result<Option<()>> {
        loop {
            let call = format!(
                "SELECT {}, (EXTRACT(EPOCH FROM enqueued_at) * 1000000)::bigint FROM enough.queue_read('told', 20, wait => '300 milliseconds')",
                queue::COLUMNS
            );
            let Some(rows) = storm.attempt(session, |client| client.query(&call, &[]))? else { return Ok(None) };
            if rows.is_empty() {
                return Ok(Some(()));
            }
            let messages: Vec<_> = rows.iter().map(Message::from).collect();
            for row in &rows {
                let (enqueued, attempts): (i64, i32) = (row.get(7), row.get("attempts"));
                // One that comes again has become ready when a lease ran out, which is told by whoever comes by next.
                if asleep.is_some_and(|asleep| enqueued.max(asleep) + OVERDUE < now()) && attempts == 1 {
                    self.book().violations.push(format!("nobody was told of {:?} of {enqueued}", Message::from(row)));
                }
            }
            self.received("told", &messages);
            for message in &messages {
                if storm
                    .attempt(session, |client| queue::delete(client, "told", message.msg_id, message.lease))?
                    .is_none()
                {
                    return Ok(None);
                }
            }
        }
    }

    /// Works off what is left, and judges.
    pub(crate) fn judge(&self, database: &Database) -> Result<()> {
        let mut client = database.client()?;
        // What dies goes on to the last one.
        let queues: &[&'static str] = &["all_news", "local_news", "keyed", "told", "orders", "brittle", "graves"];
        for &queue in queues {
            eventually("a queue is empty", || {
                let popped =
                    queue::receive(&mut client, &format!("queue_pop('{queue}', 1000, wait => '50 milliseconds')"))?;
                self.received(queue, &popped);
                let stats = queue::stats(&mut client, queue)?;
                Ok((stats.ready + stats.leased + stats.delayed == 0).then_some(()))
            })?;
        }
        eventually("all is done", || {
            client.batch_execute("CALL enough.queue_work('jobs', 'handle', 100, '300 milliseconds')")?;
            let stats = queue::stats(&mut client, "jobs")?;
            Ok((stats.ready + stats.leased + stats.delayed == 0).then_some(()))
        })?;
        let rows = client.query("SELECT message, count(*) FROM handled GROUP BY message", &[])?;
        self.verdict(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// The verdict, once all is worked off; with how often each message was handled by workers.
    fn verdict(&self, handled: BTreeMap<i64, i64>) -> Result<()> {
        let mut book = self.book();
        let mut violations = std::mem::take(&mut book.violations);
        if let Some((payload, times)) = handled.iter().find(|&(_, &times)| times > 1) {
            violations.push(format!("{payload} was handled {times} times"));
        }
        book.received.insert("jobs", handled.into_keys().collect());
        for (queue, sent) in &book.sent {
            let received = book.received.get(queue).cloned().unwrap_or_default();
            let with =
                |wanted| sent.iter().filter(move |(_, outcome)| **outcome == wanted).map(|(payload, _)| *payload);
            println!("{queue}: {} sent for sure, {} came", with(Outcome::Committed).count(), received.len());
            if let Some(unborn) = with(Outcome::RolledBack).find(|payload| received.contains(payload)) {
                violations.push(format!("{queue}: {unborn}, which was rolled back, came"));
            }
            let lost = if *queue == "keyed" {
                // Each but the last of a sender's may have been replaced.
                let is_last = |payload: &i64| {
                    !with(Outcome::Committed).any(|later| later > *payload && later / EACH == *payload / EACH)
                };
                let came =
                    |payload: &i64| received.iter().any(|other| other >= payload && other / EACH == *payload / EACH);
                with(Outcome::Committed).find(|payload| is_last(payload) && !came(payload))
            } else {
                with(Outcome::Committed).find(|payload| !received.contains(payload))
            };
            if let Some(lost) = lost {
                violations.push(format!("{queue}: {lost} is lost"));
            }
            ensure!(with(Outcome::Committed).count() > 0, "nothing happened in {queue}");
        }
        none(&violations)
    }
}

/// The statement that sends the numbers from `$1` to `$2`.
fn sending(queue: &str, options: &str) -> String {
    format!(
        "SELECT enough.queue_send('{queue}', to_jsonb(n){options}) FROM generate_series($1::bigint, $2::bigint) AS n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn came(others: &Others, queue: &'static str, payload: i64) {
        let (lease, until, headers) = (None, None, None);
        let message = Message { msg_id: 1, attempts: 1, lease, until, priority: 0, headers, message: json!(payload) };
        others.received(queue, &[message]);
    }

    /// All is well: one of three was replaced.
    fn well() -> Others {
        let others = Others::default();
        others.sent("jobs", 1..=2, Outcome::Committed);
        others.sent("told", 1..=1, Outcome::Committed);
        others.sent("keyed", 1..=2, Outcome::Committed);
        others.sent("keyed", 3..=3, Outcome::RolledBack);
        came(&others, "told", 1);
        came(&others, "keyed", 2);
        others
    }

    fn handled(times: [i64; 2]) -> BTreeMap<i64, i64> {
        (1..).zip(times).filter(|(_, times)| *times > 0).collect()
    }

    #[test]
    fn a_good_book_passes() -> Result<()> {
        well().verdict(handled([1, 1]))
    }

    #[test]
    fn each_broken_promise_is_seen() {
        assert!(well().verdict(handled([1, 0])).is_err(), "a lost message");
        assert!(well().verdict(handled([1, 2])).is_err(), "one that was handled twice");
        let unborn = well();
        came(&unborn, "keyed", 3);
        let forgotten = well();
        forgotten.sent("keyed", EACH..=EACH, Outcome::Committed);
        let late = well();
        late.sent("keyed", 4..=4, Outcome::Committed);
        let deaf = well();
        deaf.book().violations.push("nobody was told".into());
        for (number, others) in [unborn, forgotten, late, deaf].iter().enumerate() {
            assert!(others.verdict(handled([1, 1])).is_err(), "violation {number} passes");
        }
    }
}

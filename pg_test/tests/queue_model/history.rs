//! One history: a queue, sessions that use it at random, and the model that looks at each answer.

use crate::message::{Bounds, Is, Message};
use crate::model::{Delivery, Model, Options, Read};
use crate::session::{Reply, Row, Session, Span, now};
use anyhow::{Context, Result, bail, ensure};
use enough_pg_test::check::{eventually, state};
use enough_pg_test::server::Database;
use fastrand::Rng;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

/// How long a reader that waits may take to notice that there is something: only a failure ever waits so long.
const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const SECOND: i64 = 1_000_000;
pub(crate) const HOUR: i64 = 3600 * SECOND;

/// What kind of histories there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Everything fits into the memory: the order is strict.
    Roomy,
    /// More messages than the memory holds.
    Tiny,
}

/// The sessions of all histories, which come and go less often than queues.
pub(crate) struct Stage<'d> {
    pub(crate) database: &'d Database,
    pub(crate) sessions: Vec<Session>,
    pub(crate) observer: Session,
}

impl<'d> Stage<'d> {
    pub(crate) fn new(database: &'d Database, sessions: usize) -> Result<Self> {
        let observer = Session::open(database)?;
        let sessions = (0..sessions).map(|_| Session::open(database)).collect::<Result<_>>()?;
        Ok(Self { database, sessions, observer })
    }

    /// How often the queues' memory was found damaged.
    pub(crate) fn resets(&self) -> Result<i64> {
        let rows = self.observer.run("SELECT value FROM enough.status() WHERE item = 'queue_resets'")?.rows?;
        number(rows.first().context("no such item")?, 0)
    }
}

/// A history under way.
pub(crate) struct History<'s, 'd> {
    pub(crate) stage: &'s mut Stage<'d>,
    pub(crate) rng: Rng,
    pub(crate) kind: Kind,
    pub(crate) model: Model,
    /// Reads that wait, by session.
    pub(crate) waiting: Vec<Option<Read>>,
    pub(crate) log: String,
    pub(crate) next_payload: i64,
}

pub(crate) fn interval(micros: i64) -> String {
    format!("interval '{micros} microseconds'")
}

pub(crate) fn number<T: std::str::FromStr>(row: &Row, column: usize) -> Result<T> {
    let text = row.get(column).and_then(Option::as_deref).context("no value")?;
    text.parse().ok().with_context(|| format!("not a number: {text}"))
}

fn optional(row: &Row, column: usize) -> Result<Option<i64>> {
    row.get(column).and_then(Option::as_deref).map(|text| Ok(text.parse()?)).transpose()
}

/// The columns of a delivery, as [`delivery`] takes them apart.
const COLUMNS: &str =
    "msg_id, attempts, (EXTRACT(EPOCH FROM leased_until) * 1000000)::bigint, lease, priority, message";

fn delivery(row: &Row) -> Result<Delivery> {
    Ok(Delivery {
        id: number(row, 0)?,
        attempts: number(row, 1)?,
        until: optional(row, 2)?,
        lease: optional(row, 3)?,
        priority: number(row, 4)?,
        payload: number(row, 5)?,
    })
}

impl<'s, 'd> History<'s, 'd> {
    /// A new queue.
    pub(crate) fn new(stage: &'s mut Stage<'d>, kind: Kind, seed: u64) -> Result<Self> {
        let mut rng = Rng::with_seed(seed);
        let backoff = [0, 2_000, 20_000, HOUR][rng.usize(0..4)];
        let options = Options {
            visibility_timeout: [HOUR, HOUR, HOUR, 40_000, 3_000][rng.usize(0..5)],
            max_attempts: [1, 2, 3, 5, 1000, 1000][rng.usize(0..6)],
            retry_backoff: backoff,
            retry_backoff_max: if rng.bool() { backoff * 3 } else { HOUR },
            max_in_flight: [None, None, None, Some(1), Some(3), Some(20)][rng.usize(0..6)],
            max_rate: [None, None, None, None, Some((3, 20_000)), Some((10, HOUR))][rng.usize(0..6)],
        };
        let sessions = stage.sessions.len();
        let model = Model::new(options, sessions, kind == Kind::Roomy);
        let waiting = vec![None; sessions];
        let mut history = Self { stage, rng, kind, model, waiting, log: String::new(), next_payload: 1 };
        history.observe(&format!(
            "SELECT enough.queue_create('q', visibility_timeout => {}, max_attempts => {}, retry_backoff => {}, \
             retry_backoff_max => {}, max_in_flight => {}, max_rate => {}, rate_period => {})",
            interval(options.visibility_timeout),
            options.max_attempts,
            interval(options.retry_backoff),
            interval(options.retry_backoff_max),
            options.max_in_flight.unwrap_or(0),
            options.max_rate.map_or(0, |(most, _)| most),
            interval(options.max_rate.map_or(SECOND, |(_, period)| period)),
        ))?;
        // The first call counts.
        history.observe("SELECT enough.queue_stats('q')")?;
        Ok(history)
    }

    /// Does a statement in the session that takes no part.
    pub(crate) fn observe(&mut self, statement: &str) -> Result<Vec<Row>> {
        let reply = self.stage.observer.run(statement)?;
        let _ = writeln!(self.log, "observer: {statement} -> {:?}", reply.rows);
        Ok(reply.rows?)
    }

    pub(crate) fn note(&mut self, session: usize, statement: &str, reply: &Reply) {
        let _ = writeln!(
            self.log,
            "{}..{} session {session}: {statement} -> {}",
            reply.span.from,
            reply.span.to,
            match &reply.rows {
                Ok(rows) if rows.len() > 200 => format!("{} rows", rows.len()),
                Ok(rows) => format!("{rows:?}").replace("Some(\"", "").replace("\")", ""),
                Err(error) => error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned()),
            }
        );
    }

    /// Does a statement.
    pub(crate) fn ask(&mut self, session: usize, statement: &str) -> Result<Reply> {
        let reply = self.stage.sessions[session].run(statement)?;
        self.note(session, statement, &reply);
        Ok(reply)
    }

    /// Does a statement that must not fail.
    pub(crate) fn call(&mut self, session: usize, statement: &str) -> Result<(Span, Vec<Row>)> {
        let reply = self.ask(session, statement)?;
        let rows = reply.rows.with_context(|| format!("session {session}: {statement}"))?;
        Ok((reply.span, rows))
    }

    /// Does `work` in the session's transaction, or in one of its own.
    pub(crate) fn within(&mut self, session: usize, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let alone = !self.model.transactions[session].open;
        if alone {
            self.model.begin(session, false);
        }
        work(self)?;
        if alone {
            self.model.commit(session);
        }
        Ok(())
    }

    pub(crate) fn begin(&mut self, session: usize, fixed_snapshot: bool) -> Result<()> {
        let level = if fixed_snapshot { "REPEATABLE READ" } else { "READ COMMITTED" };
        self.call(session, &format!("BEGIN ISOLATION LEVEL {level}"))?;
        // Here the snapshot is taken.
        self.call(session, "SELECT 1")?;
        self.model.begin(session, fixed_snapshot);
        Ok(())
    }

    pub(crate) fn end(&mut self, session: usize, commit: bool) -> Result<()> {
        let (span, _) = self.call(session, if commit { "COMMIT" } else { "ROLLBACK" })?;
        if commit && !self.model.transactions[session].failed {
            self.model.commit(session);
        } else {
            self.model.rollback(session, span);
        }
        Ok(())
    }

    pub(crate) fn savepoint(&mut self, session: usize) -> Result<()> {
        let depth = self.model.transactions[session].savepoints.len();
        self.call(session, &format!("SAVEPOINT s{depth}"))?;
        self.model.savepoint(session);
        Ok(())
    }

    pub(crate) fn end_savepoint(&mut self, session: usize, savepoint: usize, rollback: bool) -> Result<()> {
        let verb = if rollback { "ROLLBACK TO" } else { "RELEASE" };
        let (span, _) = self.call(session, &format!("{verb} s{savepoint}"))?;
        if rollback {
            self.model.rollback_to(session, savepoint, span);
        } else {
            self.model.release(session, savepoint);
        }
        Ok(())
    }

    /// An error, which leaves an open transaction nothing but a rollback.
    pub(crate) fn fail(&mut self, session: usize) -> Result<()> {
        let reply = self.ask(session, "SELECT 1 / 0")?;
        ensure!(reply.rows.is_err_and(|error| state(&error) == "22012"));
        self.model.fail(session, reply.span);
        Ok(())
    }

    /// Sends `count` messages.
    pub(crate) fn send(&mut self, session: usize, count: i64, delay: i64, order: (i16, Option<u8>)) -> Result<()> {
        let (priority, group) = order;
        let group_key = group.map_or("NULL".to_owned(), |group| format!("'group {group}'"));
        let first = self.next_payload;
        self.next_payload += count;
        let payloads: Vec<i64> = (first..self.next_payload).collect();
        let statement = if count == 1 {
            format!(
                "SELECT enough.queue_send('q', '{first}', delay => {}, priority => {priority}, group_key => {group_key})",
                interval(delay)
            )
        } else {
            format!(
                "SELECT enough.queue_send_batch('q', ARRAY(SELECT to_jsonb(n) FROM generate_series({first}, {}) AS n), \
                 delay => {}, priority => {priority}, group_keys => array_fill({group_key}::text, ARRAY[{count}]))",
                self.next_payload - 1,
                interval(delay)
            )
        };
        self.within(session, |history| {
            let (span, rows) = history.call(session, &statement)?;
            ensure!(rows.len() == payloads.len(), "{} numbers for {} messages", rows.len(), payloads.len());
            let due = (delay > 0).then_some(Bounds { least: span.from + delay, most: span.to + delay });
            for (row, payload) in rows.iter().zip(payloads) {
                history.model.send(session, span, number(row, 0)?, payload, (priority, group, None), due)?;
            }
            Ok(())
        })
    }

    /// The statement of a read.
    fn read_statement(read: Read, own_timeout: bool, wait: i64) -> String {
        let wait = interval(wait);
        if read.pop {
            format!("SELECT {COLUMNS} FROM enough.queue_pop('q', {}, wait => {wait})", read.qty)
        } else if own_timeout {
            format!("SELECT {COLUMNS} FROM enough.queue_read('q', {}, wait => {wait})", read.qty)
        } else {
            let timeout = interval(read.timeout);
            format!("SELECT {COLUMNS} FROM enough.queue_read('q', {}, {timeout}, wait => {wait})", read.qty)
        }
    }

    pub(crate) fn read(&mut self, session: usize, qty: usize, timeout: Option<i64>, pop: bool) -> Result<()> {
        let own = self.model.options.visibility_timeout;
        let read = Read { qty, timeout: timeout.filter(|_| !pop).unwrap_or(own), pop, waited: false };
        let statement = Self::read_statement(read, timeout.is_none(), 0);
        self.within(session, |history| {
            let reply = history.ask(session, &statement)?;
            history.was_read(session, read, reply)
        })
    }

    fn was_read(&mut self, session: usize, read: Read, reply: Reply) -> Result<()> {
        if self.kind == Kind::Tiny && reply.rows.as_ref().is_err_and(|error| state(error) == "53400") {
            // Leases and what open transactions hold fill the memory.
            self.model.fail(session, reply.span);
            return Ok(());
        }
        let rows = reply.rows.with_context(|| format!("session {session} reads"))?;
        let rows: Vec<Delivery> = rows.iter().map(delivery).collect::<Result<_>>()?;
        let most = self.model.options.max_attempts;
        // A lease that is shorter than the read itself may have been the last one, too.
        let exhausted = rows.iter().any(|row| row.attempts >= most)
            || self.model.messages.values().any(|message| message.attempts.most >= most);
        let buried = if exhausted { self.buried(session, &rows)? } else { Vec::new() };
        self.model.read(session, reply.span, read, &rows, &buried)
    }

    /// Messages that a read of this session has just moved to the archive.
    fn buried(&mut self, session: usize, read: &[Delivery]) -> Result<Vec<i64>> {
        let (_, rows) =
            self.call(session, "SELECT msg_id FROM enough.a_q WHERE outcome = 'dead' ORDER BY finished_at")?;
        let ids: Vec<i64> = rows.iter().map(|row| number(row, 0)).collect::<Result<_>>()?;
        let most = self.model.options.max_attempts;
        let snapshot = self.model.transactions[session].snapshot;
        let new = |id: &i64| {
            let now = read.iter().any(|row| row.id == *id && row.attempts >= most);
            let exhausted =
                |message: &Message| message.ending != Some(session) && (now || message.attempts.most >= most);
            // An old snapshot shows dead letters that have been redriven since.
            let shown = |message: &Message| snapshot.is_none_or(|snapshot| message.changed.least <= snapshot);
            self.model.messages.get(id).is_some_and(|message| exhausted(message) && shown(message))
        };
        Ok(ids.into_iter().filter(new).collect())
    }

    /// Starts a read that waits.
    pub(crate) fn wait(&mut self, session: usize, qty: usize, pop: bool) -> Result<()> {
        let read = Read { qty, timeout: self.model.options.visibility_timeout, pop, waited: true };
        let statement = Self::read_statement(read, true, 40 * SECOND);
        let _ = writeln!(self.log, "{} session {session}: {statement} …", now());
        self.stage.sessions[session].start(&statement)?;
        self.waiting[session] = Some(read);
        self.settle()
    }

    fn waiting_now(&self) -> Vec<usize> {
        (0..self.waiting.len()).filter(|session| self.waiting[*session].is_some()).collect()
    }

    fn was_woken(&mut self, session: usize, reply: Reply) -> Result<()> {
        let Some(read) = self.waiting[session].take() else { bail!("session {session} doesn't wait") };
        self.note(session, "…", &reply);
        self.within(session, |history| {
            let rows = reply.rows.as_ref().map_or(0, Vec::len);
            history.was_read(session, read, reply)?;
            ensure!(rows > 0, "a reader came back with nothing");
            Ok(())
        })
    }

    /// Takes the answers of readers that waited. While something is ready, nobody may wait on.
    pub(crate) fn settle(&mut self) -> Result<()> {
        let begun = std::time::Instant::now();
        loop {
            let waiting = self.waiting_now();
            if waiting.is_empty() {
                return Ok(());
            }
            let moment = now();
            let span = Span { from: moment, to: moment };
            let pops = waiting.iter().any(|session| self.waiting[*session].is_some_and(|read| read.pop));
            let due = self.model.must_return(waiting[0], span, pops);
            let mut woken = false;
            for session in waiting {
                let patience = if due { Duration::from_millis(2) } else { Duration::ZERO };
                if let Some(reply) = self.stage.sessions[session].answer(patience)? {
                    self.was_woken(session, reply)?;
                    woken = true;
                    break;
                }
            }
            if !woken && !due {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "a message is ready, and readers go on waiting");
        }
    }

    /// Cancels a read that waits.
    pub(crate) fn cancel(&mut self, session: usize) -> Result<()> {
        let pid = self.stage.sessions[session].pid;
        let mut reply = None;
        for _ in 0..100 {
            self.observe(&format!("SELECT pg_cancel_backend({pid})"))?;
            // A cancel that comes before the statement has begun is lost.
            reply = self.stage.sessions[session].answer(Duration::from_millis(100))?;
            if reply.is_some() {
                break;
            }
        }
        let reply = reply.context("a read that waits can't be cancelled")?;
        if reply.rows.is_ok() {
            return self.was_woken(session, reply);
        }
        self.note(session, "…", &reply);
        ensure!(reply.rows.is_err_and(|error| state(&error) == "57014"));
        self.waiting[session] = None;
        self.model.fail(session, reply.span);
        Ok(())
    }

    /// Ends a session the hard way, whatever it is at, and opens a new one in its place.
    pub(crate) fn terminate(&mut self, session: usize) -> Result<()> {
        let pid = self.stage.sessions[session].pid;
        let from = now();
        self.observe(&format!("SELECT pg_terminate_backend({pid})"))?;
        if self.waiting[session].is_some() {
            let reply = self.stage.sessions[session].finish()?;
            if reply.rows.is_ok() {
                self.was_woken(session, reply)?;
            }
            self.waiting[session] = None;
        }
        eventually("the session is gone", || {
            let rows = self.stage.observer.run(&format!("SELECT 1 FROM pg_stat_activity WHERE pid = {pid}"))?.rows?;
            Ok(rows.is_empty().then_some(()))
        })?;
        self.model.rollback(session, Span { from, to: now() });
        self.stage.sessions[session] = Session::open(self.stage.database)?;
        Ok(())
    }

    pub(crate) fn extend(&mut self, session: usize, id: i64, timeout: i64, lease: Option<i64>) -> Result<()> {
        let lease_text = lease.map_or("NULL".to_owned(), |lease| lease.to_string());
        let call = format!("enough.queue_extend('q', {id}, {}, {lease_text})", interval(timeout));
        let (span, rows) = self.call(session, &format!("SELECT (EXTRACT(EPOCH FROM {call}) * 1000000)::bigint"))?;
        let answer = optional(&rows[0], 0)?;
        self.model.extend(span, id, timeout, lease, answer)
    }

    /// Compares the committed rows, and what the statistics say of them.
    pub(crate) fn compare(&mut self) -> Result<()> {
        let rows = self.observe(
            "SELECT count(*), coalesce(sum(msg_id), 0), (SELECT ready + leased + delayed + dead FROM enough.queue_stats('q')) \
             - (SELECT count(*) FROM enough.a_q WHERE outcome = 'dead') FROM enough.q_q",
        )?;
        let (count, sum, counted) = (number(&rows[0], 0)?, number(&rows[0], 1)?, number::<i64>(&rows[0], 2)?);
        ensure!((count, sum) == self.model.rows(), "{count} rows, where {:?} are due", self.model.rows());
        ensure!(counted == count, "the statistics count {counted} messages, and there are {count}");
        self.compare_state()
    }

    /// The server is about to go down: who is to be killed.
    pub(crate) fn blow(&mut self) -> Result<u32> {
        // Nobody would know what came in the last moment for one who waits.
        for session in self.waiting_now() {
            self.cancel(session)?;
        }
        let victim = self.rng.usize(0..self.stage.sessions.len());
        let _ = writeln!(self.log, "{} the server goes down, by session {victim} if it crashes", now());
        Ok(self.stage.sessions[victim].pid)
    }

    /// The server is up again.
    pub(crate) fn recover(&mut self) -> Result<()> {
        *self.stage = Stage::new(self.stage.database, self.stage.sessions.len())?;
        self.model.crash();
        self.compare()
    }

    /// Ends all transactions, reads whatever is left, and compares every row.
    pub(crate) fn conclude(&mut self) -> Result<()> {
        self.pause(false)?;
        self.settle()?;
        for session in self.waiting_now() {
            self.cancel(session)?;
        }
        for session in 0..self.model.transactions.len() {
            if self.model.transactions[session].open {
                let commit = self.rng.bool();
                self.end(session, commit)?;
            }
        }
        self.compare()?;
        let leased: Vec<i64> =
            self.model.messages.iter().filter(|(_, message)| message.lease.is_some()).map(|(id, _)| *id).collect();
        for id in leased {
            self.extend(0, id, 0, None)?;
        }
        // In parts, so that leases don't fill the memory, and deleted for the same reason.
        loop {
            let moment = now();
            let span = Span { from: moment, to: moment };
            if !self.model.must_return(0, span, true) && self.model.used_up(span, Is::Sure).is_empty() {
                break;
            }
            self.read(0, 50, Some(HOUR), true)?;
        }
        self.compare_rows()?;
        self.observe("SELECT enough.queue_drop('q')")?;
        Ok(())
    }

    fn compare_rows(&mut self) -> Result<()> {
        let rows = self.observe("SELECT msg_id, message, attempts FROM enough.q_q ORDER BY 1")?;
        ensure!(rows.len() == self.model.messages.len(), "{} rows: {:?}", rows.len(), self.model.messages);
        for (row, (id, message)) in rows.iter().zip(&self.model.messages) {
            let found: (i64, i64, u32) = (number(row, 0)?, number(row, 1)?, number(row, 2)?);
            let right = found.0 == *id && found.1 == message.payload && message.durable.holds(found.2);
            ensure!(right, "message {id}: the row has {found:?}, {message:?}");
        }
        for (outcome, due) in [("dead", self.model.dead.keys().copied().collect()), ("done", self.model.done.clone())] {
            let statement = format!("SELECT msg_id FROM enough.a_q WHERE outcome = '{outcome}' ORDER BY 1");
            let rows = self.observe(&statement)?;
            let found: BTreeSet<i64> = rows.iter().map(|row| number(row, 0)).collect::<Result<_>>()?;
            ensure!(found == due, "{outcome} are {found:?}, where {due:?} are due");
        }
        Ok(())
    }
}

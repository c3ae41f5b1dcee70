//! Looking at messages without taking any: how one stands, and which stand so.

use crate::error::Error;
use crate::pg::catalog::Privilege;
use crate::pg::fmgr::{Rows, Value};
use crate::pg::server;
use crate::pg::spi::{Parameter, column, read_rows};
use crate::queue::handle::Queue;
use enough_engine::queue::{Seen, State, Tag};
use std::collections::{HashMap, HashSet};

/// Timers that one look lets run out under one hold of the lock.
const TIMERS: usize = 256;
/// Rows of the table asked for by one statement, where the index knows too few messages.
const PAGE: i64 = 1000;

/// States that a message can be asked for by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::queue) enum Wanted {
    /// In the table.
    Live(State),
    /// In the archive, with that outcome.
    Ended(&'static str),
}

impl Wanted {
    /// The state of that name.
    pub(in crate::queue) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "ready" => Wanted::Live(State::Ready),
            "leased" => Wanted::Live(State::Leased),
            "delayed" => Wanted::Live(State::Delayed),
            "done" => Wanted::Ended("done"),
            "dead" => Wanted::Ended("dead"),
            _ => return None,
        })
    }
}

fn name(state: State) -> &'static str {
    match state {
        State::Ready => "ready",
        State::Leased => "leased",
        State::Delayed => "delayed",
        State::UsedUp => "dead",
    }
}

/// What is said of a message that is used up, and that nobody has buried yet.
const USED_UP: &str = "its last lease ran out";

/// Adds the row that says how a message stands; none where there is none.
pub(in crate::queue) fn status(queue: &Queue, msg_id: i64, rows: &mut Rows<'_>) -> Result<(), Error> {
    queue.require(Privilege::Observe)?;
    // A message that moves from one table to the other between two looks is found by the third.
    if live_status(queue, msg_id, rows)? || ended_status(queue, msg_id, rows)? {
        return Ok(());
    }
    live_status(queue, msg_id, rows).map(drop)
}

fn live_status(queue: &Queue, msg_id: i64, rows: &mut Rows<'_>) -> Result<bool, Error> {
    let (now, most) = expire(queue)?;
    let seen = queue.index(|index, slot| index.seen(slot, msg_id, now))?;
    let found = read_rows(
        &format!(
            "SELECT deliver_at, attempts, last_error, enqueued_at FROM {} WHERE msg_id OPERATOR(pg_catalog.=) $1",
            queue.relation("q_")
        ),
        &[Parameter::I64(msg_id)],
        |row| {
            let sent = row.get::<pgrx::datum::TimestampWithTimeZone>(4)?.map_or(0, i64::from);
            let seen = seen.filter(|seen| seen.tag.was_sent_at(sent));
            let seen = seen.map_or_else(|| row_seen(row, msg_id, now, most), Ok)?;
            let due = Value::or_null(seen.due, Value::Instant);
            let (until, at) = match seen.state {
                State::Leased => (due, Value::Null),
                State::Delayed => (Value::Null, due),
                State::Ready | State::UsedUp => (Value::Null, Value::Null),
            };
            let error = match column(row, 3)? {
                Value::Null if seen.state == State::UsedUp => Value::Bytes(USED_UP.as_bytes()),
                error => error,
            };
            let state = Value::Bytes(name(seen.state).as_bytes());
            let attempts = Value::I32(i32::try_from(seen.attempts).unwrap_or(i32::MAX));
            rows.push(&[state, attempts, at, until, Value::Null, error, Value::Null])
        },
    )?;
    Ok(found > 0)
}

/// How a message that the index doesn't know stands, by its row's `deliver_at` and `attempts`; `most` is how often it may be
/// delivered.
fn row_seen(row: &pgrx::spi::SpiHeapTupleData<'_>, msg_id: i64, now: i64, most: u32) -> Result<Seen, Error> {
    let due = row.get::<pgrx::datum::TimestampWithTimeZone>(1)?.map(i64::from).filter(|&at| at > now);
    let attempts = row.get::<i32>(2)?.unwrap_or(0).max(0).cast_unsigned();
    let state = match due {
        Some(_) => State::Delayed,
        None if attempts >= most => State::UsedUp,
        None => State::Ready,
    };
    Ok(Seen { msg_id, state, attempts, due, lease: None, tag: Tag::default() })
}

fn ended_status(queue: &Queue, msg_id: i64, rows: &mut Rows<'_>) -> Result<bool, Error> {
    let found = queue.in_archive(|| {
        read_rows(
            &format!(
                "SELECT outcome, attempts, finished_at, error, result FROM {} WHERE msg_id OPERATOR(pg_catalog.=) $1",
                queue.relation("a_")
            ),
            &[Parameter::I64(msg_id)],
            |row| {
                let [outcome, attempts, finished_at, error, result] =
                    [column(row, 1)?, column(row, 2)?, column(row, 3)?, column(row, 4)?, column(row, 5)?];
                rows.push(&[outcome, attempts, Value::Null, Value::Null, finished_at, error, result])
            },
        )
    })?;
    Ok(found > 0)
}

/// Lets what is due run out; the time that this holds for, and how often a message may be delivered.
fn expire(queue: &Queue) -> Result<(i64, u32), Error> {
    queue.index_and_wake(|index, slot, wake| {
        let now = server::now();
        index.expire(slot, now, TIMERS, wake)?;
        Ok((now, index.options(slot)?.max_attempts))
    })
}

/// Adds up to `qty` messages that stand so.
pub(in crate::queue) fn peek(queue: &Queue, qty: usize, wanted: Wanted, rows: &mut Rows<'_>) -> Result<(), Error> {
    queue.require(Privilege::Observe)?;
    match wanted {
        Wanted::Live(state) => Peek::new(queue, qty, state)?.all(rows),
        Wanted::Ended(outcome) => peek_archive(queue, qty, outcome, rows),
    }
}

fn peek_archive(queue: &Queue, qty: usize, outcome: &str, rows: &mut Rows<'_>) -> Result<(), Error> {
    queue.in_archive(|| {
        read_rows(
            &format!(
                "SELECT msg_id, attempts, enqueued_at, priority, group_key, headers, message FROM {} \
                 WHERE outcome OPERATOR(pg_catalog.=) $1 ORDER BY finished_at DESC LIMIT $2",
                queue.relation("a_")
            ),
            &[Parameter::Text(outcome), Parameter::I64(qty as i64)],
            |row| {
                let [msg_id, attempts, sent] = [column(row, 1)?, column(row, 2)?, column(row, 3)?];
                let [priority, group] = [column(row, 4)?, column(row, 5)?];
                let [headers, message] = [column(row, 6)?, column(row, 7)?];
                rows.push(&[msg_id, attempts, sent, Value::Null, Value::Null, priority, group, headers, message])
            },
        )
    })?;
    Ok(())
}

/// A look at live messages: first by what the index knows, then at what it has left in the table.
struct Peek<'q> {
    queue: &'q Queue,
    left: usize,
    state: State,
    now: i64,
    /// How often a message may be delivered.
    most: u32,
    seen: Vec<Seen>,
    shown: HashSet<i64>,
    /// How far the index knows the table: by number, and by delivery time.
    reach: (i64, i64),
}

impl<'q> Peek<'q> {
    fn new(queue: &'q Queue, qty: usize, state: State) -> Result<Self, Error> {
        let (now, most) = expire(queue)?;
        let mut seen = Vec::with_capacity(qty);
        let (reach, has_groups) = queue.index(|index, slot| {
            seen.clear();
            index.look(slot, state, now, &mut seen)?;
            Ok((index.reach(slot)?, index.has_groups(slot)?))
        })?;
        seen.retain(|one| one.state == state);
        // What is behind the heads of groups isn't in the index, whatever the marks say.
        let reach = if has_groups { (i64::MIN, i64::MIN) } else { reach };
        Ok(Peek { queue, left: qty, state, now, most, seen, shown: HashSet::new(), reach })
    }

    fn all(mut self, rows: &mut Rows<'_>) -> Result<(), Error> {
        let seen = std::mem::take(&mut self.seen);
        self.show(&seen, rows)?;
        let by_number = self.state != State::Leased && self.reach.0 != i64::MAX;
        if by_number {
            self.outside(Outside::Number, self.reach.0, rows)?;
        }
        let due = if self.state == State::Ready { self.reach.1 } else { self.now };
        self.outside(Outside::Time, due, rows)
    }

    /// Adds messages by their numbers, as far as the caller may see their rows.
    fn show(&mut self, seen: &[Seen], rows: &mut Rows<'_>) -> Result<(), Error> {
        let by_number: HashMap<i64, Seen> = seen.iter().map(|one| (one.msg_id, *one)).collect();
        let numbers: Vec<i64> = seen.iter().map(|one| one.msg_id).collect();
        if numbers.is_empty() {
            return Ok(());
        }
        let (state, now, most) = (self.state, self.now, self.most);
        let shown = &mut self.shown;
        let before = shown.len();
        read_rows(
            &format!(
                "SELECT q.deliver_at, q.attempts, q.msg_id, q.enqueued_at, q.priority, q.group_key, q.headers, q.message \
                 FROM pg_catalog.unnest($1) WITH ORDINALITY AS w(id, place) \
                 JOIN {} AS q ON q.msg_id OPERATOR(pg_catalog.=) w.id ORDER BY w.place",
                self.queue.relation("q_")
            ),
            &[Parameter::Numbers(&numbers)],
            |row| {
                let msg_id = row.get::<i64>(3)?.unwrap_or(0);
                let sent = row.get::<pgrx::datum::TimestampWithTimeZone>(4)?.map_or(0, i64::from);
                let known =
                    by_number.get(&msg_id).filter(|seen| seen.tag == Tag::default() || seen.tag.was_sent_at(sent));
                let one = known.map_or_else(|| row_seen(row, msg_id, now, most), |seen| Ok(*seen))?;
                if one.state != state {
                    return Ok(());
                }
                shown.insert(msg_id);
                let until = one.due.filter(|_| state == State::Leased);
                rows.push(&[
                    Value::I64(msg_id),
                    Value::I32(i32::try_from(one.attempts).unwrap_or(i32::MAX)),
                    column(row, 4)?,
                    Value::or_null(until, Value::Instant),
                    Value::or_null(one.lease.map(u64::cast_signed), Value::I64),
                    column(row, 5)?,
                    column(row, 6)?,
                    column(row, 7)?,
                    column(row, 8)?,
                ])
            },
        )?;
        self.left = self.left.saturating_sub(self.shown.len() - before);
        Ok(())
    }

    /// Adds messages that the index may not know, page by page.
    fn outside(&mut self, by: Outside, from: i64, rows: &mut Rows<'_>) -> Result<(), Error> {
        let relation = self.queue.relation("q_");
        // Pages by time go on at the time of the last row, of which there may be several.
        let (mut after, mut last) = (from, i64::MIN);
        while self.left > 0 {
            let mut page: Vec<(i64, Seen)> = Vec::new();
            let (now, most) = (self.now, self.most);
            let statement = match by {
                Outside::Number => format!(
                    "SELECT deliver_at, attempts, msg_id FROM {relation} WHERE deliver_at IS NULL \
                     AND ($1 IS NULL OR msg_id OPERATOR(pg_catalog.>) $1) AND $2 IS NOT NULL ORDER BY msg_id LIMIT $3"
                ),
                Outside::Time => format!(
                    "SELECT deliver_at, attempts, msg_id FROM {relation} WHERE deliver_at IS NOT NULL \
                     AND ($1 IS NULL OR ROW(deliver_at, msg_id) OPERATOR(pg_catalog.>) ROW($1, $2)) \
                     ORDER BY deliver_at, msg_id LIMIT $3"
                ),
            };
            let start = match by {
                Outside::Number => Parameter::OptionalI64((after != i64::MIN).then_some(after)),
                Outside::Time => Parameter::Instant((after != i64::MIN).then_some(after)),
            };
            let count = read_rows(&statement, &[start, Parameter::I64(last), Parameter::I64(PAGE)], |row| {
                let msg_id = row.get::<i64>(3)?.unwrap_or(0);
                let at = row.get::<pgrx::datum::TimestampWithTimeZone>(1)?.map_or(msg_id, i64::from);
                page.push((at, row_seen(row, msg_id, now, most)?));
                Ok(())
            })?;
            let Some(&(at, end)) = page.last() else { return Ok(()) };
            (after, last) = (at, end.msg_id);
            let mut fresh = Vec::new();
            for (_, by_row) in page {
                let one = self.known(by_row)?;
                if one.state == self.state && !self.shown.contains(&one.msg_id) && fresh.len() < self.left {
                    fresh.push(one);
                }
            }
            self.show(&fresh, rows)?;
            // What is due comes first: behind the last due one there is none that is ready.
            if (count as i64) < PAGE || (by == Outside::Time && self.state == State::Ready && at > now) {
                return Ok(());
            }
            server::check_for_interrupts();
        }
        Ok(())
    }

    /// A message of the table as the index knows it, where it does.
    fn known(&self, by_row: Seen) -> Result<Seen, Error> {
        let known = self.queue.index(|index, slot| index.seen(slot, by_row.msg_id, self.now))?;
        Ok(known.unwrap_or(by_row))
    }
}

/// In which order the table is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outside {
    /// Messages without a delivery time, by number.
    Number,
    /// Those with one, by that time.
    Time,
}

//! Looking at a message: how it stands.

use crate::error::Error;
use crate::pg::catalog::{self, Privilege};
use crate::pg::fmgr::{Rows, Value};
use crate::pg::server;
use crate::pg::spi::{Parameter, column, read_rows};
use crate::queue::consume::bury::why_expired;
use crate::queue::handle::Queue;
use enough_engine::queue::{Seen, State, Tag, Tid};

/// Timers that one look lets run out under one hold of the lock.
const TIMERS: usize = 256;

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
    live(queue, msg_id, |seen, error| {
        let due = Value::or_null(seen.due, Value::Instant);
        let (until, at) = match seen.state {
            State::Leased => (due, Value::Null),
            State::Delayed => (Value::Null, due),
            State::Ready | State::UsedUp => (Value::Null, Value::Null),
        };
        let state = Value::Bytes(name(seen.state).as_bytes());
        let attempts = Value::I32(i32::try_from(seen.attempts).unwrap_or(i32::MAX));
        rows.push(&[state, attempts, at, until, Value::Null, error, Value::Null])
    })
}

/// How a message stands by limits of its own: not to be delivered after a time, nor more often than `most`. And whether it is
/// the time that is over.
fn limited(seen: Seen, expires_at: Option<i64>, most: u32, now: i64) -> (Seen, bool) {
    let expired = expires_at.is_some_and(|at| at <= now) && seen.attempts < most;
    if seen.state == State::Leased || !(expired || seen.attempts >= most) {
        return (seen, false);
    }
    (Seen { state: State::UsedUp, due: None, ..seen }, expired)
}

/// Tells `each` how a live message stands and why its last delivery failed, if that did; false where there is none.
fn live(queue: &Queue, msg_id: i64, mut each: impl FnMut(Seen, Value<'_>) -> Result<(), Error>) -> Result<bool, Error> {
    let (now, most) = expire(queue)?;
    let seen = queue.index(|index, slot| index.seen(slot, msg_id, now))?;
    let found = read_rows(
        &format!(
            "SELECT deliver_at, attempts, last_error, enqueued_at, {} FROM {} WHERE msg_id OPERATOR(pg_catalog.=) $1",
            if queue.table.live.has_extra() {
                "expires_at, max_attempts"
            } else {
                "NULL::pg_catalog.timestamptz, NULL::pg_catalog.int4"
            },
            queue.relation("q_")
        ),
        &[Parameter::I64(msg_id)],
        |row| {
            let sent = row.get::<pgrx::datum::TimestampWithTimeZone>(4)?.map_or(0, i64::from);
            let seen = seen.filter(|seen| seen.tag.was_sent_at(sent));
            let expires_at = row.get::<pgrx::datum::TimestampWithTimeZone>(5)?.map(i64::from);
            let seen = seen.map_or_else(|| row_seen(row, msg_id, now, most), Ok)?;
            let own = row.get::<i32>(6)?.and_then(|own| u32::try_from(own).ok()).unwrap_or(u32::MAX);
            let (seen, has_expired) = limited(seen, expires_at, most.min(own), now);
            let error = match column(row, 3)? {
                _ if has_expired => Value::Bytes(why_expired(expires_at).as_bytes()),
                Value::Null if seen.state == State::UsedUp => Value::Bytes(USED_UP.as_bytes()),
                error => error,
            };
            each(seen, error)
        },
    )?;
    Ok(found > 0)
}

/// How a message stands for a session that waits for its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::queue) enum Standing {
    /// It is not over; its last lease, where one runs, ends then.
    Live { ends: Option<i64> },
    /// It is done or dead.
    Ended,
    /// It was deleted, or never was.
    Gone,
}

/// How a message stands. Adds a row (state, result, error) where it has ended, or in `any` case that it is there.
pub(in crate::queue) fn standing(
    queue: &Queue,
    msg_id: i64,
    any: bool,
    rows: &mut Rows<'_>,
) -> Result<Standing, Error> {
    // As in `status`.
    if let Some(live) = live_standing(queue, msg_id, any, rows)? {
        return Ok(live);
    }
    let ended = queue.in_archive(|| {
        read_rows(
            &format!(
                "SELECT outcome, result, error FROM {} WHERE msg_id OPERATOR(pg_catalog.=) $1",
                queue.relation("a_")
            ),
            &[Parameter::I64(msg_id)],
            |row| rows.push(&[column(row, 1)?, column(row, 2)?, column(row, 3)?]),
        )
    })?;
    if ended > 0 {
        return Ok(Standing::Ended);
    }
    Ok(live_standing(queue, msg_id, any, rows)?.unwrap_or(Standing::Gone))
}

/// How a message stands that is not over, by its row as it is committed now; holds no lock afterwards. `None` where a statement
/// has to look: it may be over, or policies decide who sees it.
pub(in crate::queue) fn not_over(queue: &Queue, msg_id: i64) -> Result<Option<Standing>, Error> {
    if catalog::row_security(queue.table.live.relation) {
        return Ok(None);
    }
    let (now, most) = expire(queue)?;
    let seen = queue.index(|index, slot| index.seen(slot, msg_id, now))?;
    let table = queue.open_table(false)?;
    let row = table.fetch(msg_id, Tid::default());
    table.unlock();
    Ok(row.and_then(|row| {
        let seen = seen.filter(|seen| seen.tag.was_sent_at(row.enqueued_at));
        let seen = seen.unwrap_or_else(|| seen_by(msg_id, row.deliver_at, row.attempts, now, most));
        let seen = limited(seen, row.expires_at, row.max_attempts.map_or(most, |own| own.min(most)), now).0;
        let ends = seen.due.filter(|_| seen.state == State::Leased).or(row.expires_at);
        (seen.state != State::UsedUp).then_some(Standing::Live { ends })
    }))
}

fn live_standing(queue: &Queue, msg_id: i64, any: bool, rows: &mut Rows<'_>) -> Result<Option<Standing>, Error> {
    let mut standing = None;
    live(queue, msg_id, |seen, error| {
        let ended = seen.state == State::UsedUp;
        if ended || any {
            rows.push(&[Value::Bytes(name(seen.state).as_bytes()), Value::Null, error])?;
        }
        // Of one that may still expire a statement looks no further than this.
        let ends = seen.due.filter(|_| seen.state == State::Leased);
        standing = Some(if ended { Standing::Ended } else { Standing::Live { ends } });
        Ok(())
    })?;
    Ok(standing)
}

/// How a message that the index doesn't know stands, by its row's `deliver_at` and `attempts`; `most` is how often it may be
/// delivered.
pub(super) fn row_seen(row: &pgrx::spi::SpiHeapTupleData<'_>, msg_id: i64, now: i64, most: u32) -> Result<Seen, Error> {
    let due = row.get::<pgrx::datum::TimestampWithTimeZone>(1)?.map(i64::from);
    Ok(seen_by(msg_id, due, row.get::<i32>(2)?.unwrap_or(0), now, most))
}

fn seen_by(msg_id: i64, due: Option<i64>, attempts: i32, now: i64, most: u32) -> Seen {
    let due = due.filter(|&at| at > now);
    let attempts = attempts.max(0).cast_unsigned();
    let state = match due {
        Some(_) => State::Delayed,
        None if attempts >= most => State::UsedUp,
        None => State::Ready,
    };
    Seen { msg_id, state, attempts, due, lease: None, tag: Tag::default() }
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
pub(super) fn expire(queue: &Queue) -> Result<(i64, u32), Error> {
    queue.index_and_wake(|index, slot, wake| {
        let now = server::now();
        index.expire(slot, now, TIMERS, wake)?;
        Ok((now, index.options(slot)?.max_attempts))
    })
}

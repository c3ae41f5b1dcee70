//! Looking at the messages that stand in some way, without taking any.

use super::look::{expire, row_seen};
use crate::error::Error;
use crate::pg::catalog::Privilege;
use crate::pg::fmgr::{Jsonb, Rows, Text, Value};
use crate::pg::server;
use crate::pg::setting::by_index;
use crate::pg::spi::{Parameter, column, read_rows};
use crate::queue::handle::Queue;
use enough_engine::queue::{Seen, State, Tag};
use std::collections::{HashMap, HashSet};

/// The most rows of the table that one statement asks for, where the index knows too few messages.
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

/// Which messages are to be shown: all that fit each of these.
#[derive(Clone, Copy)]
pub(in crate::queue) struct Filter<'c> {
    /// Greater numbers, in their order.
    pub after: Option<i64>,
    /// Payloads that contain this.
    pub matching: Option<Jsonb<'c>>,
    /// Messages of that group.
    pub group_key: Option<Text<'c>>,
}

impl Filter<'_> {
    /// Whether it leaves out nothing.
    fn is_none(&self) -> bool {
        self.after.is_none() && self.matching.is_none() && self.group_key.is_none()
    }

    /// The parameters from `$1` on, for [`FILTERED`].
    fn parameters(&self) -> Vec<Parameter<'_>> {
        vec![
            Parameter::OptionalI64(self.after),
            Parameter::Json(self.matching),
            Parameter::TextArgument(self.group_key),
        ]
    }
}

/// What a [`Filter`] means.
const FILTERED: &str = "($1 IS NULL OR msg_id OPERATOR(pg_catalog.>) $1) \
    AND ($2 IS NULL OR message OPERATOR(pg_catalog.@>) $2) AND ($3 IS NULL OR group_key OPERATOR(pg_catalog.=) $3)";

/// Adds up to `qty` messages that stand so.
pub(in crate::queue) fn peek(
    queue: &Queue,
    qty: usize,
    wanted: Wanted,
    filter: &Filter<'_>,
    rows: &mut Rows<'_>,
) -> Result<(), Error> {
    queue.require(Privilege::Observe)?;
    by_index(|| match wanted {
        Wanted::Live(state) if filter.is_none() => Peek::new(queue, qty, state)?.all(rows),
        Wanted::Live(state) => Peek::new(queue, qty, state)?.filtered(filter, rows),
        Wanted::Ended(outcome) => peek_archive(queue, qty, outcome, filter, rows),
    })
}

fn peek_archive(
    queue: &Queue,
    qty: usize,
    outcome: &str,
    filter: &Filter<'_>,
    rows: &mut Rows<'_>,
) -> Result<(), Error> {
    let order = if filter.after.is_some() { "msg_id" } else { "finished_at DESC" };
    let mut parameters = filter.parameters();
    parameters.extend([Parameter::Text(outcome), Parameter::I64(qty as i64)]);
    queue.in_archive(|| {
        read_rows(
            &format!(
                "SELECT msg_id, attempts, enqueued_at, priority, group_key, headers, message FROM {} \
                 WHERE outcome OPERATOR(pg_catalog.=) $4 AND {FILTERED} ORDER BY {order} LIMIT $5",
                queue.relation("a_")
            ),
            &parameters,
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
        // What is behind the heads of groups isn't in the index, whatever the marks say.
        let reach = if has_groups { (i64::MIN, i64::MIN) } else { reach };
        Ok(Peek { queue, left: qty, state, now, most, seen, shown: HashSet::new(), reach })
    }

    fn all(mut self, rows: &mut Rows<'_>) -> Result<(), Error> {
        let seen = std::mem::take(&mut self.seen);
        self.show(&seen, rows)?;
        // One without a delivery time waits only where the index knows of it.
        if self.state == State::Ready && self.reach.0 != i64::MAX {
            self.outside(Outside::Number, self.reach.0, rows)?;
        }
        let due = if self.state == State::Ready { self.reach.1 } else { self.now };
        self.outside(Outside::Time, due, rows)
    }

    /// Adds messages that a filter lets through, in the order of their numbers.
    fn filtered(mut self, filter: &Filter<'_>, rows: &mut Rows<'_>) -> Result<(), Error> {
        let relation = self.queue.relation("q_");
        // Of leases the index knows all.
        let leased = if self.state == State::Leased { Some(self.leased()?) } else { None };
        let statement = format!(
            "SELECT deliver_at, attempts, msg_id FROM {relation} WHERE {FILTERED} {} ORDER BY msg_id LIMIT $4",
            leased.as_ref().map_or("", |_| "AND msg_id OPERATOR(pg_catalog.=) ANY ($5)"),
        );
        let (mut filter, now, most) = (*filter, self.now, self.most);
        // Mostly as many as are wanted will do.
        let mut page_size = PAGE.min(self.left as i64);
        while self.left > 0 {
            let mut parameters = filter.parameters();
            parameters.push(Parameter::I64(page_size));
            parameters.extend(leased.as_deref().map(Parameter::Numbers));
            let mut page: Vec<Seen> = Vec::new();
            let count = read_rows(&statement, &parameters, |row| {
                page.push(row_seen(row, row.get::<i64>(3)?.unwrap_or(0), now, most)?);
                Ok(())
            })?;
            let Some(last) = page.last() else { return Ok(()) };
            filter.after = Some(last.msg_id);
            self.show_new(page, rows)?;
            if (count as i64) < page_size {
                return Ok(());
            }
            page_size = PAGE.min(page_size * 4);
            server::check_for_interrupts();
        }
        Ok(())
    }

    /// The numbers of all messages that are leased.
    fn leased(&self) -> Result<Vec<i64>, Error> {
        let count = self.queue.index(|index, slot| Ok(index.counters(slot)?.leased))?;
        // Some may be leased meanwhile.
        let mut seen = Vec::with_capacity(usize::try_from(count).unwrap_or(0) + 64);
        self.queue.index(|index, slot| {
            seen.clear();
            index.look(slot, State::Leased, self.now, &mut seen)
        })?;
        Ok(seen.iter().map(|one| one.msg_id).collect())
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
            self.show_new(page.into_iter().map(|(_, by_row)| by_row), rows)?;
            // What is due comes first: behind the last due one there is none that is ready.
            if (count as i64) < PAGE || (by == Outside::Time && self.state == State::Ready && at > now) {
                return Ok(());
            }
            server::check_for_interrupts();
        }
        Ok(())
    }

    /// Adds those of the messages that a page of the table has that stand as they should and aren't shown yet.
    fn show_new(&mut self, page: impl IntoIterator<Item = Seen>, rows: &mut Rows<'_>) -> Result<(), Error> {
        let mut new = Vec::new();
        for by_row in page {
            let one = self.known(by_row)?;
            if one.state == self.state && !self.shown.contains(&one.msg_id) && new.len() < self.left {
                new.push(one);
            }
        }
        self.show(&new, rows)
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

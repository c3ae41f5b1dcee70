//! New rows for a queue's table.

use super::columns::COUNT;
use super::table::{QueueTable, group_number, tid_of};
use crate::pg::fmgr::{Jsonb, Text};
use crate::pg::table::{self, Values};
use enough_engine::queue::{Entry, Tag};
use pgrx::pg_sys::Datum;

/// What is to be inserted.
pub struct NewRow<'c> {
    /// In microseconds.
    pub enqueued_at: i64,
    /// Not before, in microseconds.
    pub deliver_at: Option<i64>,
    /// 0 to 9.
    pub priority: i16,
    /// Messages of a group are delivered one after the other.
    pub group_key: Option<Text<'c>>,
    /// Unique among the table's messages. A row that has one is inserted by the executor.
    pub dedup_key: Option<Text<'c>>,
    /// Optional.
    pub headers: Option<Jsonb<'c>>,
    /// The payload.
    pub message: Jsonb<'c>,
    /// A row that has any is inserted by the executor.
    pub limits: Limits,
}

/// A message's own limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// No delivery from then on, in microseconds.
    pub expires_at: Option<i64>,
    /// Not more deliveries than this, whatever the queue allows.
    pub max_attempts: Option<i32>,
}

impl Limits {
    /// Whether it has none.
    pub fn is_none(&self) -> bool {
        *self == Limits::default()
    }
}

impl<'c> NewRow<'c> {
    /// A message with a payload and nothing else.
    pub fn new(enqueued_at: i64, message: Jsonb<'c>) -> Self {
        NewRow {
            enqueued_at,
            deliver_at: None,
            priority: 0,
            group_key: None,
            dedup_key: None,
            headers: None,
            message,
            limits: Limits::default(),
        }
    }
}

impl table::NewRow for NewRow<'_> {
    fn values(&self, msg_id: i64) -> Values {
        let columns: [Option<Datum>; COUNT] = [
            Some(Datum::from(msg_id)),
            Some(Datum::from(self.enqueued_at)),
            self.deliver_at.map(Datum::from),
            Some(Datum::from(0_i32)),
            Some(Datum::from(self.priority)),
            self.group_key.map(Text::datum),
            None,
            self.headers.map(Jsonb::datum),
            Some(self.message.datum()),
            None,
        ];
        Values::of(columns)
    }

    fn size(&self) -> usize {
        self.message.size() + self.headers.map_or(0, Jsonb::size)
    }
}

impl QueueTable {
    /// Inserts rows without a `dedup_key`, by the given numbers and then by the next ones; what each has become goes to
    /// `inserted`. False where the table is gone.
    pub fn insert(&self, rows: &[NewRow<'_>], given: &[i64], mut inserted: impl FnMut(Entry)) -> bool {
        self.live.insert(rows, given, |row, msg_id, place, writer| {
            inserted(Entry {
                msg_id,
                tid: tid_of(place),
                priority: row.priority as u8,
                attempts: 0,
                deliver_at: row.deliver_at,
                group: group_number(row.group_key.map(Text::payload)),
                tag: Tag::new(row.enqueued_at, Some(writer.into())),
            });
        })
    }
}

//! Scans of a queue's table by its indexes.

use super::columns::{ATTEMPTS, BY_GROUP, BY_NUMBER, BY_TIME, DELIVER_AT, ENQUEUED_AT, GROUP_KEY, MSG_ID, PRIORITY};
use super::rows::{OpenTable, tag};
use super::table::{group_number, tid_of};
use crate::pg::argument::payload;
use crate::pg::server;
use crate::pg::table::relation::Relation;
use crate::pg::table::rows::Tuple;
use crate::pg::table::snapshot::{Latest, scanned_by, shows};
use enough_engine::queue::{Entry, Range};
use pgrx::pg_sys::{self, Datum, Oid};

impl OpenTable<'_> {
    /// Reads rows in an order and a range, until `each` says that it has enough; whether it came to the range's end. In the
    /// order of the numbers of all, rows with a delivery time are only passed by; in that of the times there are none
    /// without.
    pub fn scan(
        &self,
        snapshot: &Latest,
        order: Order,
        range: Range,
        mut each: impl FnMut(Scanned<'_>) -> bool,
    ) -> bool {
        let (index, column, greater, most) = match order {
            Order::Number => (BY_NUMBER, MSG_ID, pg_sys::F_INT8GT, pg_sys::F_INT8LE),
            Order::Time => (BY_TIME, DELIVER_AT, pg_sys::F_TIMESTAMPTZ_GT, pg_sys::F_TIMESTAMPTZ_LE),
            Order::Group(_) => (BY_GROUP, MSG_ID, pg_sys::F_INT8GT, pg_sys::F_INT8LE),
        };
        let index = Relation::index_to_read(self.0.facts().indexes[index]);
        // SAFETY: the keys fit the index's columns; each tuple is read before the next is asked for.
        unsafe {
            let mut keys: [pg_sys::ScanKeyData; 3] = std::mem::zeroed();
            let mut used = 0;
            if let Order::Group(group) = order {
                let (equal, text_eq) = (pg_sys::BTEqualStrategyNumber as u16, Oid::from(pg_sys::F_TEXTEQ));
                pg_sys::ScanKeyInit(&raw mut keys[used], GROUP_KEY, equal, text_eq, group);
                // As the column was made.
                keys[used].sk_collation = pg_sys::C_COLLATION_OID;
                used += 1;
            }
            // From the very beginning there is no key: a delivery time of `-infinity` isn't above any.
            if range.after != i64::MIN {
                let above = pg_sys::BTGreaterStrategyNumber as u16;
                pg_sys::ScanKeyInit(&raw mut keys[used], column, above, Oid::from(greater), Datum::from(range.after));
                used += 1;
            }
            if range.end != i64::MAX {
                let until = pg_sys::BTLessEqualStrategyNumber as u16;
                pg_sys::ScanKeyInit(&raw mut keys[used], column, until, Oid::from(most), Datum::from(range.end));
                used += 1;
            }
            let (by, check) = scanned_by(snapshot.0);
            let scan =
                pg_sys::systable_beginscan_ordered(self.0.relation().0, index.0, by, used as i32, keys.as_mut_ptr());
            let mut ended = false;
            loop {
                server::check_for_interrupts();
                let tuple = pg_sys::systable_getnext_ordered(scan, pg_sys::ScanDirection::ForwardScanDirection);
                if tuple.is_null() {
                    ended = true;
                    break;
                }
                if check && !shows(scan, snapshot.0) {
                    continue;
                }
                let row = Tuple::at(tuple);
                let columns = self.0.deform(row);
                let number = |column| columns.get(column).map_or(0, Datum::value);
                let deliver_at = columns.get(DELIVER_AT).map(|at| at.value() as i64);
                match order {
                    Order::Number if deliver_at.is_some() => {
                        if each(Scanned::Delayed(number(MSG_ID) as i64)) {
                            continue;
                        }
                        break;
                    }
                    // An index that has all rows has these behind the others.
                    Order::Time if deliver_at.is_none() => {
                        ended = true;
                        break;
                    }
                    _ => {}
                }
                let sent = number(ENQUEUED_AT) as i64;
                let entry = Entry {
                    msg_id: number(MSG_ID) as i64,
                    tid: tid_of(row.place()),
                    priority: (number(PRIORITY) as i16).clamp(0, 9) as u8,
                    attempts: (number(ATTEMPTS) as i32).max(0) as u32,
                    deliver_at,
                    group: group_number(columns.get(GROUP_KEY).map(|key| payload(key))),
                    tag: tag(row, sent),
                };
                let scanned =
                    if self.0.is_deleted_here(row) { Scanned::Deleted(&entry) } else { Scanned::Message(&entry, sent) };
                if !each(scanned) {
                    break;
                }
            }
            pg_sys::systable_endscan_ordered(scan);
            ended
        }
    }
}

/// What a scan has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scanned<'e> {
    /// A row that belongs to the order, and when it was sent.
    Message(&'e Entry, i64),
    /// One that this transaction has deleted, and that is back where it is rolled back.
    Deleted(&'e Entry),
    /// In the order of the numbers of all: a row with a delivery time, with that number.
    Delayed(i64),
}

/// In which order rows are read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Order {
    /// By message number.
    Number,
    /// By delivery time.
    Time,
    /// By message number, of one group alone, whose key is given.
    Group(Datum),
}

//! What the index has to know of a row that a statement has written.

use crate::error::Error;
use crate::pg::spi::text_bytes;
use crate::queue::heap::table::group_number;
use enough_engine::queue::Entry;
use enough_engine::queue::Tag;
use enough_engine::queue::Tid;
use pgrx::pg_sys;
use pgrx::spi::SpiHeapTupleData;

/// What the index has to know of a row, for [`entry_of`].
pub(in crate::queue) const ENTRY: &str = "msg_id, deliver_at, attempts, priority, ctid, group_key, enqueued_at, xmin";

/// The columns [`ENTRY`] of a row that an INSERT has written, or an UPDATE.
pub(in crate::queue) fn entry_of(row: &SpiHeapTupleData<'_>, updated: bool) -> Result<Entry, Error> {
    let writer = row.get::<pg_sys::TransactionId>(8)?.filter(|_| !updated);
    let enqueued_at = row.get::<pgrx::datum::TimestampWithTimeZone>(7)?.map_or(0, i64::from);
    let deliver_at = row.get::<pgrx::datum::TimestampWithTimeZone>(2)?;
    let place = row.get::<pg_sys::ItemPointerData>(5)?.unwrap_or_default();
    let (block, offset) = pgrx::itemptr::item_pointer_get_both(place);
    Ok(Entry {
        msg_id: row.get::<i64>(1)?.unwrap_or(0),
        tid: Tid { block, offset },
        priority: row.get::<i16>(4)?.unwrap_or(0).clamp(0, 9) as u8,
        attempts: row.get::<i32>(3)?.unwrap_or(0).max(0).cast_unsigned(),
        deliver_at: deliver_at.map(i64::from),
        group: group_number(text_bytes(row, 6)?),
        tag: Tag::new(enqueued_at, writer.map(u32::from)),
    })
}

//! A queue's table as `queue_create` makes it, past the executor: for where the executor would have nothing to decide.
//! [`QueueTable::plain`] says whether that holds, by the comparison in `shape.rs`; where it doesn't, the capability goes
//! through SQL instead. Inserting rows is in `insert.rs`, looking at them and changing them in `rows.rs`.

use super::call::{Jsonb, Text};
use super::encoding::decode;
use super::rows::OpenTable;
use super::shape::{Fit, Role, fit, has_columns, is_exact};
use super::{catalog, segment};
use crate::error::Error;
use enough_engine::queue::{Storage, Tid};
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::CStr;

// OIDs of types, which never change.
pub const INT2: u32 = pg_sys::INT2OID.to_u32();
pub const INT4: u32 = pg_sys::INT4OID.to_u32();
pub const INT8: u32 = pg_sys::INT8OID.to_u32();
pub const TEXT: u32 = pg_sys::TEXTOID.to_u32();
pub const JSONB: u32 = pg_sys::JSONBOID.to_u32();
pub const TIMESTAMPTZ: u32 = pg_sys::TIMESTAMPTZOID.to_u32();

/// The columns of `q_<name>`, in their order.
pub const COLUMNS: [(&CStr, Oid); 10] = [
    (c"msg_id", pg_sys::INT8OID),
    (c"enqueued_at", pg_sys::TIMESTAMPTZOID),
    (c"deliver_at", pg_sys::TIMESTAMPTZOID),
    (c"attempts", pg_sys::INT4OID),
    (c"priority", pg_sys::INT2OID),
    (c"group_key", pg_sys::TEXTOID),
    (c"dedup_key", pg_sys::TEXTOID),
    (c"headers", pg_sys::JSONBOID),
    (c"message", pg_sys::JSONBOID),
    (c"last_error", pg_sys::TEXTOID),
];
/// With those that upgrades have dropped, of which the server keeps the places.
pub(super) const MOST_COLUMNS: usize = 16;
// Their numbers.
pub(super) const MSG_ID: i16 = 1;
pub(super) const ENQUEUED_AT: i16 = 2;
pub const DELIVER_AT: i16 = 3;
pub const ATTEMPTS: i16 = 4;
pub(super) const PRIORITY: i16 = 5;
pub(super) const GROUP_KEY: i16 = 6;
pub(super) const DEDUP_KEY: i16 = 7;
pub(super) const HEADERS: i16 = 8;
pub(super) const MESSAGE: i16 = 9;
pub const LAST_ERROR: i16 = 10;

/// What the catalogs say of a queue's table; true for the [`generation`](super::catalog::generation) in which it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueTable {
    /// OID of the table.
    pub relation: u32,
    /// OID of the archive's table; 0 where there is none.
    pub archive: u32,
    /// Whether the executor has nothing to decide here.
    pub plain: bool,
    pub(super) key_index: Oid,
    pub(super) timed_index: Oid,
    pub(super) group_index: Oid,
    pub(super) dedup_index: Oid,
    pub(super) sequence: Oid,
    /// Where its rows are; whether there are any is not known here.
    pub storage: Storage,
    /// Whether this transaction has given it that storage, which nobody else sees.
    pub own_storage: bool,
}

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
    /// Unique among the table's messages.
    pub dedup_key: Option<Text<'c>>,
    /// Optional.
    pub headers: Option<Jsonb<'c>>,
    /// The payload.
    pub message: Jsonb<'c>,
}

/// An open relation, closed when dropped. Where rows are looked at or changed the lock stays until the transaction ends,
/// as the server does it; else it goes with the value, so that a session that waits for messages hinders nobody.
pub(super) struct Open(pub pg_sys::Relation, u32);

impl Open {
    /// `None` where the table is gone.
    pub(super) fn table(relation: u32, mode: i32) -> Option<Self> {
        // SAFETY: any OID may be asked for.
        let table = unsafe { pg_sys::try_table_open(Oid::from(relation), mode) };
        (!table.is_null()).then(|| Open(table, pg_sys::NoLock))
    }

    /// For what the catalogs say of it.
    pub(super) fn facts_of_table(relation: u32) -> Option<Self> {
        Self::table(relation, catalog::lock_mode(false)).map(|mut table| {
            table.1 = pg_sys::AccessShareLock;
            table
        })
    }

    /// For writing into it.
    pub(super) fn index(index: Oid) -> Self {
        // SAFETY: as above.
        Open(unsafe { pg_sys::index_open(index, pg_sys::RowExclusiveLock as _) }, pg_sys::NoLock)
    }

    /// For reading by it.
    pub(super) fn index_to_read(index: Oid) -> Self {
        // SAFETY: as above.
        Open(unsafe { pg_sys::index_open(index, pg_sys::AccessShareLock as _) }, pg_sys::AccessShareLock)
    }

    /// The relation's name, for messages.
    pub(super) fn name(&self) -> String {
        // SAFETY: an open relation has a name, which is a C string.
        unsafe { decode(CStr::from_ptr((*(*self.0).rd_rel).relname.data.as_ptr()).to_bytes()).into_owned() }
    }

    pub(super) fn descriptor(&self) -> pg_sys::TupleDesc {
        // SAFETY: an open relation has a descriptor.
        unsafe { (*self.0).rd_att }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // SAFETY: opened by this value. `relation_close` serves tables and indexes alike.
        unsafe { pg_sys::relation_close(self.0, self.1 as _) };
    }
}

pub(super) fn item_pointer(tid: Tid) -> pg_sys::ItemPointerData {
    pg_sys::ItemPointerData {
        ip_blkid: pg_sys::BlockIdData { bi_hi: (tid.block >> 16) as u16, bi_lo: tid.block as u16 },
        ip_posid: tid.offset,
    }
}

pub(super) fn tid_of(pointer: pg_sys::ItemPointerData) -> Tid {
    let block = u32::from(pointer.ip_blkid.bi_hi) << 16 | u32::from(pointer.ip_blkid.bi_lo);
    Tid { block, offset: pointer.ip_posid }
}

impl QueueTable {
    /// Reads the catalogs about the table with that OID; `None` where it is gone.
    pub fn read(relation: u32, archive: u32) -> Result<Option<Self>, Error> {
        let Some(table) = Open::facts_of_table(relation) else {
            return Ok(None);
        };
        // SAFETY: the table is open.
        if !unsafe { has_columns(table.descriptor()) } {
            return Err(Error::NotReady {
                problem: format!("the table enough.\"{}\" has lost a column of a queue", table.name()),
                hint: "It needs the columns that queue_create gives it, with their names and types.".into(),
            });
        }
        let (mut found, mut count) = ([(Fit::No, Oid::INVALID); Role::ALL.len()], 0);
        // SAFETY: the list's cells are OIDs, as the server makes them; each index is open while it is looked at.
        unsafe {
            let indexes = pg_sys::RelationGetIndexList(table.0);
            count += if indexes.is_null() { 0 } else { (*indexes).length as usize };
            for cell in 0..count {
                let index = Open::index_to_read((*(*indexes).elements.add(cell)).oid_value);
                for (best, role) in found.iter_mut().zip(Role::ALL) {
                    let fit = fit(&index, role);
                    if fit > best.0 {
                        *best = (fit, (*index.0).rd_id);
                    }
                }
            }
        }
        if let Some((_, role)) = found.iter().zip(Role::ALL).find(|(best, _)| best.0 == Fit::No) {
            return Err(Error::NotReady {
                problem: format!("the table enough.\"{}\" has lost an index of a queue", table.name()),
                hint: format!("{};", role.statement(&table.name())),
            });
        }
        let sequence = sequence(&table);
        let exact_indexes = count == found.len() && found.iter().all(|best| best.0 == Fit::Exact);
        // SAFETY: the table is open and has the columns.
        let plain = sequence != Oid::INVALID && exact_indexes && unsafe { is_exact(&table) };
        let [key_index, timed_index, group_index, dedup_index] = found.map(|best| best.1);
        // SAFETY: an open relation has its row of the catalog.
        let form = unsafe { &*(*table.0).rd_rel };
        let storage = Storage { file: form.relfilenode.to_u32(), toast: form.reltoastrelid.to_u32(), empty: false };
        Ok(Some(QueueTable {
            relation,
            archive,
            plain,
            key_index,
            timed_index,
            group_index,
            dedup_index,
            sequence,
            storage,
            own_storage: has_own_storage(&table),
        }))
    }

    /// Whether message numbers come from a sequence of the table's own.
    pub fn has_sequence(&self) -> bool {
        self.sequence != Oid::INVALID
    }

    /// The table, opened for looking at rows and changing them; `None` where it is gone.
    pub fn open(&self, write: bool) -> Option<OpenTable<'_>> {
        let table = Open::table(self.relation, catalog::lock_mode(write))?;
        // SAFETY: the relation is open.
        let blocks = unsafe { pg_sys::RelationGetNumberOfBlocksInFork(table.0, pg_sys::ForkNumber::MAIN_FORKNUM) };
        Some(OpenTable { facts: self, table, write, blocks })
    }
}

/// What a group is known by in the index; 0 for none.
pub(super) fn group_number(key: Option<&[u8]>) -> u64 {
    // Whoever looks at rows has found the segment before; were it not so, all groups would be taken for one.
    segment().map_or(1, |segment| segment.group(key))
}

/// # Safety
/// `number` is below the descriptor's count of columns.
pub(super) unsafe fn column(descriptor: pg_sys::TupleDesc, number: usize) -> *const pg_sys::FormData_pg_attribute {
    // SAFETY: the caller's promise. Since 18 the columns stand behind as many short descriptions of them.
    unsafe {
        #[cfg(feature = "pg18")]
        let columns = (*descriptor).compact_attrs.as_ptr().add((*descriptor).natts as usize);
        #[cfg(not(feature = "pg18"))]
        let columns = (*descriptor).attrs.as_ptr();
        columns.cast::<pg_sys::FormData_pg_attribute>().add(number)
    }
}

fn has_own_storage(table: &Open) -> bool {
    // SAFETY: the relation is open.
    unsafe {
        #[cfg(feature = "pg15")]
        let since = (*table.0).rd_newRelfilenodeSubid;
        #[cfg(not(feature = "pg15"))]
        let since = (*table.0).rd_newRelfilelocatorSubid;
        since != 0
    }
}

fn sequence(table: &Open) -> Oid {
    // SAFETY: the relation is open.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        let sequence = pg_sys::getIdentitySequence((*table.0).rd_id, MSG_ID, true);
        #[cfg(not(any(feature = "pg15", feature = "pg16")))]
        let sequence = pg_sys::getIdentitySequence(table.0, MSG_ID, true);
        sequence
    }
}

/// # Safety
/// `info` belongs to `index`, an index of `table` with so many columns, which has none but these values, and `place` is where the row was just inserted.
pub(super) unsafe fn insert_into_index<const COLUMNS: usize>(
    index: &Open,
    info: *mut pg_sys::IndexInfo,
    table: &Open,
    mut values: [Datum; COLUMNS],
    place: &mut pg_sys::ItemPointerData,
    unique: bool,
) {
    use pg_sys::IndexUniqueCheck as Check;
    let check = if unique { Check::UNIQUE_CHECK_YES } else { Check::UNIQUE_CHECK_NO };
    let mut nulls = [false; COLUMNS];
    // SAFETY: the caller's promise.
    unsafe {
        pg_sys::index_insert(index.0, values.as_mut_ptr(), nulls.as_mut_ptr(), place, table.0, check, false, info);
    }
}

//! A queue's table as `queue_create` makes it, past the executor: for where the executor would have nothing to decide.
//! [`QueueTable::plain`] says whether that holds, by the comparison in `shape.rs`; where it doesn't, the capability goes
//! through SQL instead. Inserting rows is in `insert.rs`, looking at them and changing them in `rows.rs`.

use super::columns::MSG_ID;
use super::shape::{Fit, Role, fit, has_columns, is_exact};
use crate::error::Error;
use crate::pg::fmgr::{Jsonb, Text};
use crate::pg::relation::Relation;
use crate::queue::index::REGION;
use crate::shmem::segment;
use enough_engine::queue::{Storage, Tid};
use pgrx::pg_sys::{self, Oid};

/// What the catalogs say of a queue's table; true for the [`relcache_epoch`](crate::pg::catalog::relcache_epoch) in which it was read.
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
        let Some(table) = Relation::facts_of_table(relation) else {
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
                let index = Relation::index_to_read((*(*indexes).elements.add(cell)).oid_value);
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
}

/// What a group is known by in the index; 0 for none.
pub(in crate::queue) fn group_number(key: Option<&[u8]>) -> u64 {
    // Whoever looks at rows has found the segment before; were it not so, all groups would be taken for one.
    let number = |key| segment().map_or(1, |segment| segment.hash(REGION, key).high.max(1));
    key.map_or(0, number)
}

fn has_own_storage(table: &Relation) -> bool {
    // SAFETY: the relation is open.
    unsafe {
        #[cfg(feature = "pg15")]
        let since = (*table.0).rd_newRelfilenodeSubid;
        #[cfg(not(feature = "pg15"))]
        let since = (*table.0).rd_newRelfilelocatorSubid;
        since != 0
    }
}

fn sequence(table: &Relation) -> Oid {
    // SAFETY: the relation is open.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        let sequence = pg_sys::getIdentitySequence((*table.0).rd_id, MSG_ID, true);
        #[cfg(not(any(feature = "pg15", feature = "pg16")))]
        let sequence = pg_sys::getIdentitySequence(table.0, MSG_ID, true);
        sequence
    }
}

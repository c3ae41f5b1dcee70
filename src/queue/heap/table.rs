//! A queue's table as a session knows it.

use super::columns::DESIGN;
use crate::error::Error;
use crate::pg::table::{PlainTable, Unfit};
use crate::queue::index::REGION;
use crate::shmem::segment;
use enough_engine::queue::{Storage, Tid};
use pgrx::pg_sys;

/// What the catalogs say of a queue's tables; true for the [`relcache_epoch`](crate::pg::catalog::relcache_epoch) in which
/// it was read. Where the live one isn't [plain](PlainTable::plain), the queue's statements go through the executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueTable {
    /// The live messages.
    pub live: PlainTable,
    /// OID of the archive's table; 0 where there is none.
    pub archive: u32,
}

/// A place as the server has it.
pub(super) fn item_pointer(tid: Tid) -> pg_sys::ItemPointerData {
    pg_sys::ItemPointerData {
        ip_blkid: pg_sys::BlockIdData { bi_hi: (tid.block >> 16) as u16, bi_lo: tid.block as u16 },
        ip_posid: tid.offset,
    }
}

/// A place as the index has it.
pub(super) fn tid_of(pointer: pg_sys::ItemPointerData) -> Tid {
    let block = u32::from(pointer.ip_blkid.bi_hi) << 16 | u32::from(pointer.ip_blkid.bi_lo);
    Tid { block, offset: pointer.ip_posid }
}

impl QueueTable {
    /// Reads the catalogs about the table with that OID; `None` where it is gone.
    pub fn read(relation: u32, archive: u32) -> Result<Option<Self>, Error> {
        match PlainTable::read(&DESIGN, relation) {
            Ok(live) => Ok(live.map(|live| QueueTable { live, archive })),
            Err(Unfit::Column(table)) => Err(Error::NotReady {
                problem: format!("the table enough.\"{table}\" has lost a column of a queue"),
                hint: "It needs the columns that queue_create gives it, with their names and types.".into(),
            }),
            Err(Unfit::Index(table, statement)) => Err(Error::NotReady {
                problem: format!("the table enough.\"{table}\" has lost an index of a queue"),
                hint: format!("{statement};"),
            }),
        }
    }

    /// Where its rows are; whether there are any is not known here.
    pub fn storage(&self) -> Storage {
        Storage { file: self.live.file, toast: self.live.toast, empty: false }
    }
}

/// What a group is known by in the index; 0 for none.
pub(in crate::queue) fn group_number(key: Option<&[u8]>) -> u64 {
    // A call that looks at rows has found the segment before; were it not so, all groups would be taken for one.
    let number = |key| segment().map_or(1, |segment| segment.hash(REGION, key).high.max(1));
    key.map_or(0, number)
}

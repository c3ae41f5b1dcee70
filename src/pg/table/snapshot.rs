//! Which versions of rows are seen: snapshots, and looking at rows without predicate locks.

use pgrx::pg_sys;

/// A registered snapshot that shows everything committed by now.
pub struct Latest(pub pg_sys::Snapshot);

impl Latest {
    /// Takes it.
    pub fn take() -> Self {
        // SAFETY: no preconditions; registered until dropped.
        Latest(unsafe { pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot()) })
    }

    /// The same without anything that this transaction has done: its rows aren't there, and what it has deleted or changed
    /// is as it was. So the index learns only what is true whether the transaction commits or not.
    pub fn of_others() -> Self {
        let latest = Self::take();
        // SAFETY: a registered snapshot is this value's own copy. Of what this transaction has done it shows what commands
        // before `curcid` did, and there is none before the first.
        unsafe { (*latest.0).curcid = pg_sys::FirstCommandId };
        latest
    }
}

impl Drop for Latest {
    fn drop(&mut self) {
        // SAFETY: registered by `take`.
        unsafe { pg_sys::UnregisterSnapshot(self.0) };
    }
}

/// A snapshot that shows what is committed at the very moment of each look, and what this transaction has done.
pub fn snapshot_self() -> pg_sys::Snapshot {
    &raw mut pg_sys::SnapshotSelfData
}

/// The snapshot to scan with where `snapshot` says which rows are there, and whether each row's visibility is then to be
/// looked at. In SERIALIZABLE transactions the server locks all that a scan by an MVCC snapshot reads, down to pages: what a
/// refill passes over is none of the transaction's business, and workers would fail for one another's.
pub fn scanned_by(snapshot: pg_sys::Snapshot) -> (pg_sys::Snapshot, bool) {
    // SAFETY: a snapshot is there as long as its user.
    if is_serializable() && unsafe { (*snapshot).snapshot_type } == pg_sys::SnapshotType::SNAPSHOT_MVCC {
        (&raw mut pg_sys::SnapshotAnyData, true)
    } else {
        (snapshot, false)
    }
}

/// Whether the transaction is SERIALIZABLE.
pub fn is_serializable() -> bool {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::XactIsoLevel == pg_sys::XACT_SERIALIZABLE as i32 }
}

/// Whether a snapshot shows the row that a scan stands at, without a predicate lock.
///
/// # Safety
/// `scan` has just returned a row by [`SnapshotAnyData`](pg_sys::SnapshotAnyData), and `snapshot` is registered or active.
pub unsafe fn shows(scan: pg_sys::SysScanDesc, snapshot: pg_sys::Snapshot) -> bool {
    // SAFETY: the caller's promise.
    unsafe { shows_slot((*scan).heap_rel, (*scan).slot, snapshot) }
}

/// # Safety
/// `slot` is of the table's own kind and holds a row of it with a pin on its buffer, and `snapshot` is registered or active.
pub unsafe fn shows_slot(
    table: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
    snapshot: pg_sys::Snapshot,
) -> bool {
    // SAFETY: the caller's promise, which is what the table's method wants.
    unsafe {
        let Some(satisfies) = (*(*table).rd_tableam).tuple_satisfies_snapshot else { return false };
        pg_sys::ffi::pg_guard_ffi_boundary(|| satisfies(table, slot, snapshot))
    }
}

/// Whether the transaction reads from one snapshot throughout (REPEATABLE READ, SERIALIZABLE).
pub fn fixed_snapshot() -> bool {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

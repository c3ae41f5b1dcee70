//! Relation relations, and what is done to them past the executor whatever they hold.

use super::design::MOST_KEYS;
use crate::pg::catalog;
use crate::pg::encoding::decode;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::CStr;

// OIDs of types, which never change.
pub const INT2: u32 = pg_sys::INT2OID.to_u32();
pub const INT4: u32 = pg_sys::INT4OID.to_u32();
pub const INT8: u32 = pg_sys::INT8OID.to_u32();
pub const TEXT: u32 = pg_sys::TEXTOID.to_u32();
pub const JSONB: u32 = pg_sys::JSONBOID.to_u32();
pub const TIMESTAMPTZ: u32 = pg_sys::TIMESTAMPTZOID.to_u32();

/// An open relation, closed when dropped. Where rows are looked at or changed the lock stays until the transaction ends,
/// as the server does it; else it goes with the value, so that a session that waits for messages hinders nobody.
pub struct Relation(pub pg_sys::Relation, u32);

impl Relation {
    /// `None` where the table is gone.
    pub fn table(relation: u32, mode: i32) -> Option<Self> {
        // SAFETY: any OID may be asked for.
        let table = unsafe { pg_sys::try_table_open(Oid::from(relation), mode) };
        (!table.is_null()).then(|| Relation(table, pg_sys::NoLock))
    }

    /// For what the catalogs say of it.
    pub fn facts_of_table(relation: u32) -> Option<Self> {
        Self::table(relation, catalog::lock_mode(false)).map(|mut table| {
            table.1 = pg_sys::AccessShareLock;
            table
        })
    }

    /// For writing into it.
    pub fn index(index: Oid) -> Self {
        // SAFETY: as above.
        Relation(unsafe { pg_sys::index_open(index, pg_sys::RowExclusiveLock as _) }, pg_sys::NoLock)
    }

    /// For reading by it.
    pub fn index_to_read(index: Oid) -> Self {
        // SAFETY: as above.
        Relation(unsafe { pg_sys::index_open(index, pg_sys::AccessShareLock as _) }, pg_sys::AccessShareLock)
    }

    /// Whether statements on a table do more than what they say; true where it is gone.
    pub fn has_triggers_or_rules(relation: u32) -> bool {
        Self::facts_of_table(relation).is_none_or(|table| {
            // SAFETY: an open relation has its row of the catalog.
            unsafe {
                let form = &*(*table.0).rd_rel;
                form.relhastriggers || form.relhasrules
            }
        })
    }

    /// The relation's name, for messages.
    pub fn name(&self) -> String {
        // SAFETY: an open relation has a name, which is a C string.
        unsafe { decode(CStr::from_ptr((*(*self.0).rd_rel).relname.data.as_ptr()).to_bytes()).into_owned() }
    }

    pub fn descriptor(&self) -> pg_sys::TupleDesc {
        // SAFETY: an open relation has a descriptor.
        unsafe { (*self.0).rd_att }
    }
}

impl Drop for Relation {
    fn drop(&mut self) {
        // SAFETY: opened by this value. `relation_close` serves tables and indexes alike.
        unsafe { pg_sys::relation_close(self.0, self.1 as _) };
    }
}

/// An index that is open for new entries, and what the server wants to know of it.
pub struct Target(Relation, *mut pg_sys::IndexInfo);

impl Target {
    /// Opens it.
    pub fn open(index: Oid) -> Self {
        let index = Relation::index(index);
        // SAFETY: the index is open.
        let info = unsafe { pg_sys::BuildIndexInfo(index.0) };
        Target(index, info)
    }

    /// Adds a row's entry; `unique`: no other row may have it. `unchanged`: the row had it in its last version.
    ///
    /// # Safety
    /// It is an index of `table` whose columns have the types of the leading values, and the row was just put at `place`.
    pub unsafe fn insert(
        &self,
        table: &Relation,
        mut values: [Datum; MOST_KEYS],
        place: &mut pg_sys::ItemPointerData,
        unique: bool,
        unchanged: bool,
    ) {
        use pg_sys::IndexUniqueCheck as Check;
        let Target(index, info) = self;
        // Whoever would give another row what this one has waits for this transaction, and whoever has done so before has kept this one
        // from being changed.
        let check = if unique && !unchanged { Check::UNIQUE_CHECK_YES } else { Check::UNIQUE_CHECK_NO };
        let mut nulls = [false; MOST_KEYS];
        let (values, nulls) = (values.as_mut_ptr(), nulls.as_mut_ptr());
        // SAFETY: the caller's promise.
        unsafe { pg_sys::index_insert(index.0, values, nulls, place, table.0, check, unchanged, *info) };
    }
}

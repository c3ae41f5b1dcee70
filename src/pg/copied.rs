//! Tables of whose rows copies are kept: whether a trigger tells of every change of a row, and what tells the rows that a table has now
//! from those that it had under the same keys.

use super::catalog::{self, is_own_function};
use super::row::column;
use super::table::relation::Relation;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::{CStr, c_char};

/// What a capability makes such a table as.
pub struct Design {
    /// The trigger that tells of each row that is changed or deleted, by its name.
    pub trigger: &'static CStr,
    /// The function that it calls, of the schema `enough`.
    pub function: &'static CStr,
    /// What copies are made of, and known by: each column's number, name and type.
    pub columns: &'static [(i16, &'static CStr, Oid)],
}

/// A table, as the catalogs have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopiedTable {
    /// What all copies of its rows are known by. A change of rows of which the trigger doesn't tell comes with another one:
    /// where the table gets a new file (TRUNCATE, ALTER TABLE, VACUUM FULL), and where somebody has had his hands on the trigger, be
    /// it to switch it off and on again.
    pub generation: [u32; 4],
    /// Whether a copy is what a SELECT would show to each role that may read all columns.
    pub plain: bool,
}

impl CopiedTable {
    /// Reads the catalogs about the table with that OID; `None` where it is gone, or has no such trigger.
    pub fn read(relation: u32, design: &Design) -> Option<Self> {
        let table = Relation::facts_of_table(relation)?;
        let (trigger, writer, exact) = trigger(relation, design)?;
        // SAFETY: an open relation has its row of the catalog.
        let form = unsafe { &*(*table.0).rd_rel };
        let plain = exact
            && form.relkind == pg_sys::RELKIND_RELATION as c_char
            && !form.relrowsecurity
            // The rows of others would be shown as well, and their changes not told of.
            && !form.relhassubclass
            && !form.relispartition
            && has_columns(&table, design);
        Some(CopiedTable { generation: [relation, form.relfilenode.to_u32(), trigger, writer], plain })
    }
}

/// The OID of a table's trigger, which transaction has written its row of the catalog, and whether it tells of every change.
fn trigger(relation: u32, design: &Design) -> Option<(u32, u32, bool)> {
    const AFTER_EACH_CHANGE: u32 = pg_sys::TRIGGER_TYPE_ROW | pg_sys::TRIGGER_TYPE_UPDATE | pg_sys::TRIGGER_TYPE_DELETE;
    // SAFETY: the keys fit the columns of the index. The row is read before the scan ends.
    unsafe {
        let lock = catalog::lock_mode(false);
        let triggers = pg_sys::table_open(pg_sys::TriggerRelationId, lock);
        let mut keys: [pg_sys::ScanKeyData; 2] = std::mem::zeroed();
        let equals = [
            (pg_sys::Anum_pg_trigger_tgrelid, pg_sys::F_OIDEQ, Datum::from(Oid::from(relation))),
            (pg_sys::Anum_pg_trigger_tgname, pg_sys::F_NAMEEQ, Datum::from(design.trigger.as_ptr())),
        ];
        for (key, (column, equal, value)) in keys.iter_mut().zip(equals) {
            let strategy = pg_sys::BTEqualStrategyNumber as u16;
            pg_sys::ScanKeyInit(key, column as i16, strategy, Oid::from(equal), value);
        }
        let index = Oid::from(pg_sys::TriggerRelidNameIndexId);
        let none = std::ptr::null_mut();
        let scan = pg_sys::systable_beginscan(triggers, index, true, none, keys.len() as i32, keys.as_mut_ptr());
        let tuple = pg_sys::systable_getnext(scan);
        let found = (!tuple.is_null()).then(|| {
            let form = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_trigger>();
            let exact = form.tgenabled == pg_sys::TRIGGER_FIRES_ALWAYS as c_char
                && form.tgtype as u32 & AFTER_EACH_CHANGE == AFTER_EACH_CHANGE
                && form.tgtype as u32 & pg_sys::TRIGGER_TYPE_TIMING_MASK == pg_sys::TRIGGER_TYPE_AFTER
                && !form.tgdeferrable
                // Neither of some columns alone, nor under a condition.
                && form.tgattr.dim1 == 0
                && pg_sys::heap_attisnull(tuple, pg_sys::Anum_pg_trigger_tgqual as i32, (*triggers).rd_att)
                && is_own_function(form.tgfoid, design.function);
            // The server leaves the number in place when it freezes a row.
            let writer = (*(*tuple).t_data).t_choice.t_heap.t_xmin;
            (form.oid.to_u32(), u32::from(writer), exact)
        });
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(triggers, lock);
        found
    }
}

/// Whether what copies are made of are still the columns that they were: under these names, and never replaced by others.
fn has_columns(table: &Relation, design: &Design) -> bool {
    let columns = table.descriptor();
    // SAFETY: the table is open; the numbers are compared with the count of its columns. A name is a C string.
    unsafe {
        design.columns.iter().all(|&(number, name, kind)| {
            i32::from(number) <= (*columns).natts && {
                let column = column(columns, number as usize - 1);
                !(*column).attisdropped
                    && (*column).atttypid == kind
                    && (*column).attgenerated == 0
                    && CStr::from_ptr((*column).attname.data.as_ptr()) == name
            }
        })
    }
}

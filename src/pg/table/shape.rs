//! Whether a table is exactly its design, and which of its indexes serve for what.
//!
//! The way past the executor (`insert.rs`, `rows.rs`) does what the executor would do for such a table and nothing else, so
//! everything that the executor would look at is compared here: columns with their collations, type modifiers and
//! defaults, constraints, triggers, indexes down to operator classes and predicates, publications. Expressions are compared as
//! trees, because their text depends on the search path. The comparison is made once for each change that the server
//! announces ([`relcache_epoch`](crate::pg::catalog::relcache_epoch)).
//!
//! A table that isn't exactly so is written by the executor. It is still scanned by its indexes, so each scan needs one
//! that has all rows in the scan's order, whatever else that index has.

use super::design::{Column, Design, EXTRA, Given, Index, MOST_COLUMNS};
use super::expression::{gives, is_not_null, is_range, list, relation_argument};
use super::relation::Relation;
use crate::pg::catalog::is_own_function;
use crate::pg::row::column;
use pgrx::pg_sys::{self, Oid};
use std::ffi::{CStr, c_char};

/// How well an index serves in the place of one of the design's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// Not at all.
    No,
    /// It can be scanned, or keep keys apart; only the executor knows how to write it.
    Usable,
    /// It is what the design says.
    Exact,
}

/// The operator family that has a type's usual order (`pg_opfamily.dat`).
fn usual_order(kind: Oid) -> u32 {
    const INTEGER: u32 = 1976;
    const DATETIME: u32 = 434;
    const TEXT: u32 = 1994;
    match kind {
        pg_sys::INT8OID => INTEGER,
        pg_sys::TIMESTAMPTZOID => DATETIME,
        _ => TEXT,
    }
}

fn collation_of(design: &Design, number: i16) -> Oid {
    let column = design.column(number);
    match (column.kind == pg_sys::TEXTOID, column.bytewise) {
        (false, _) => Oid::INVALID,
        (true, true) => pg_sys::C_COLLATION_OID,
        (true, false) => pg_sys::DEFAULT_COLLATION_OID,
    }
}

/// How well an index serves.
///
/// # Safety
/// `index` is an open index of a table that [has the columns](has_columns).
pub(super) unsafe fn fit(design: &Design, index: &Relation, role: &Index) -> Fit {
    let wanted = role.columns;
    // SAFETY: the caller's promise; an index has as many column numbers as columns, and as many families, types,
    // collations and options as key columns.
    unsafe {
        let relation = &*index.0;
        let shape = &*relation.rd_index;
        let (all, keys) = (shape.indnatts as usize, shape.indnkeyatts as usize);
        let usable = shape.indisvalid && shape.indisready && shape.indislive;
        if !usable || (*relation.rd_rel).relam != pg_sys::BTREE_AM_OID || keys < wanted.len() {
            return Fit::No;
        }
        let numbers = std::slice::from_raw_parts(shape.indkey.values.as_ptr(), all);
        let in_order = wanted.iter().enumerate().all(|(place, &number)| {
            let kind = design.column(number).kind;
            numbers[place] == number
                && (*relation.rd_opfamily.add(place)).to_u32() == usual_order(kind)
                && *relation.rd_opcintype.add(place) == kind
                && *relation.rd_indcollation.add(place) == collation_of(design, number)
                // Ascending, NULLs last.
                && *relation.rd_indoption.add(place) == 0
        });
        let predicate = pg_sys::RelationGetIndexPredicate(index.0);
        let partial = match list(predicate) {
            [] => false,
            [only] if role.partial && is_not_null(*only, wanted[0]) => true,
            _ => return Fit::No,
        };
        let keeps_apart = shape.indisunique && shape.indimmediate && keys == wanted.len();
        if !in_order || role.conflicts && !keeps_apart {
            return Fit::No;
        }
        let exact = all == wanted.len()
            && partial == role.partial
            && shape.indisunique == role.unique
            && shape.indisprimary == std::ptr::eq(role, &raw const design.indexes[0])
            && shape.indimmediate
            && !shape.indisexclusion
            && !shape.indnullsnotdistinct;
        if exact { Fit::Exact } else { Fit::Usable }
    }
}

/// Whether the table has the columns that every statement names, in their order: it may have others behind them.
///
/// # Safety
/// `descriptor` is valid.
pub(super) unsafe fn has_columns(design: &Design, descriptor: pg_sys::TupleDesc) -> bool {
    // SAFETY: the caller's promise; the count is compared before each access. A name is a C string.
    unsafe {
        (*descriptor).natts as usize >= design.columns.len()
            && design.columns.iter().enumerate().all(|(place, wanted)| {
                let column = column(descriptor, place);
                (*column).atttypid == wanted.kind
                    && !(*column).attisdropped
                    && CStr::from_ptr((*column).attname.data.as_ptr()) == wanted.name
            })
    }
}

/// Whether there is nothing about the table, its indexes apart, that the design doesn't say.
///
/// # Safety
/// `table` is open and [has the columns](has_columns).
pub(super) unsafe fn is_exact(design: &Design, table: &Relation) -> bool {
    // SAFETY: the caller's promise; an open relation's fields are valid.
    unsafe {
        let form = &*(*table.0).rd_rel;
        form.relkind == pg_sys::RELKIND_RELATION as c_char
            && form.relam == pg_sys::HEAP_TABLE_AM_OID
            && form.relreplident == pg_sys::REPLICA_IDENTITY_DEFAULT as c_char
            && has_exact_triggers(design, table)
            && !form.relhasrules
            && !form.relrowsecurity
            && !form.relhassubclass
            && !form.relispartition
            && has_exact_columns(design, table.descriptor())
            && has_exact_constraints(design, table.descriptor())
            && is_published_as_it_is(table)
    }
}

/// # Safety
/// `descriptor` is that of a table that [has the columns](has_columns).
unsafe fn has_exact_columns(design: &Design, descriptor: pg_sys::TupleDesc) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let (own, all) = (design.columns.len(), (*descriptor).natts as usize);
        (own..=MOST_COLUMNS).contains(&all)
            // An upgrade drops columns that a release no longer has; the server keeps their places.
            && (own..all).all(|place| {
                let column = column(descriptor, place);
                (*column).attisdropped
                    || is_extra(design, column).is_some() && !(*column).attnotnull && (*column).attgenerated == 0
            })
            && (1..).zip(design.columns).all(|(number, wanted)| {
                let column = column(descriptor, number as usize - 1);
                let numbered = design.identity == Some(number);
                let identity = if numbered { pg_sys::ATTRIBUTE_IDENTITY_BY_DEFAULT as c_char } else { 0 };
                (*column).attnotnull == wanted.not_null
                    && (*column).atttypmod == -1
                    && (*column).attcollation == collation_of(design, number)
                    && (*column).attidentity == identity
                    && (*column).attgenerated == 0
            })
    }
}

/// Which of the extra columns it is.
///
/// # Safety
/// `column` is valid.
unsafe fn is_extra(design: &Design, column: *const pg_sys::FormData_pg_attribute) -> Option<usize> {
    // SAFETY: the caller's promise; a name is a C string.
    unsafe {
        design.extra.iter().position(|&(name, kind)| {
            !(*column).attisdropped
                && (*column).atttypid == kind
                && (*column).atttypmod == -1
                && CStr::from_ptr((*column).attname.data.as_ptr()) == name
        })
    }
}

/// The numbers of the extra columns; 0 for one that the table hasn't got.
///
/// # Safety
/// `descriptor` is valid.
pub(super) unsafe fn extra_columns(design: &Design, descriptor: pg_sys::TupleDesc) -> [i16; EXTRA] {
    let mut numbers = [0; EXTRA];
    // SAFETY: the caller's promise.
    unsafe {
        for place in design.columns.len()..((*descriptor).natts as usize).min(MOST_COLUMNS) {
            if let Some(which) = is_extra(design, column(descriptor, place)) {
                numbers[which] = place as i16 + 1;
            }
        }
    }
    numbers
}

/// Whether rows are checked for nothing but the design's range, and get by default what `insert.rs` gives them.
///
/// # Safety
/// `descriptor` is valid.
unsafe fn has_exact_constraints(design: &Design, descriptor: pg_sys::TupleDesc) -> bool {
    // SAFETY: the caller's promise; both arrays are as long as said. What is in them was written by the server.
    unsafe {
        let wanted =
            design.columns.iter().filter(|column| !matches!(column.given, Given::Always | Given::Null)).count();
        let Some(constraints) = (*descriptor).constr.as_ref() else {
            return design.range.is_none() && wanted == 0;
        };
        let mut found = 0;
        for default in array(constraints.defval, constraints.num_defval) {
            match design.columns.get(default.adnum as usize - 1).map(|column| column.given) {
                Some(Given::Always) => {}
                Some(given) if gives(pg_sys::stringToNode(default.adbin).cast(), given) => found += 1,
                _ => return false,
            }
        }
        let checked = match (array(constraints.check, constraints.num_check), &design.range) {
            ([], None) => true,
            ([check], Some(range)) => {
                #[cfg(feature = "pg18")]
                let enforced = check.ccenforced;
                #[cfg(not(feature = "pg18"))]
                let enforced = true;
                enforced && check.ccvalid && is_range(pg_sys::stringToNode(check.ccbin).cast(), range)
            }
            _ => false,
        };
        found == wanted && checked
    }
}

/// The sequence that the default of a column draws from; invalid where it is none such.
///
/// # Safety
/// `descriptor` is valid.
pub(super) unsafe fn sequence_of_default(design: &Design, descriptor: pg_sys::TupleDesc) -> Oid {
    let is_next = |column: &Column| matches!(column.given, Given::Next(_));
    // SAFETY: the caller's promise; the array is as long as said. What is in it was written by the server.
    unsafe {
        let (Some(place), Some(constraints)) = (design.columns.iter().position(is_next), (*descriptor).constr.as_ref())
        else {
            return Oid::INVALID;
        };
        array(constraints.defval, constraints.num_defval)
            .iter()
            .find(|default| default.adnum as usize == place + 1)
            .and_then(|default| relation_argument(pg_sys::stringToNode(default.adbin).cast()))
            .unwrap_or(Oid::INVALID)
    }
}

/// Whether the table's triggers are those of the design.
///
/// # Safety
/// `table` is open.
unsafe fn has_exact_triggers(design: &Design, table: &Relation) -> bool {
    // SAFETY: the caller's promise; a description has as many triggers as it says, whose names are C strings.
    unsafe {
        let triggers: &[pg_sys::Trigger] =
            (*table.0).trigdesc.as_ref().map_or(&[], |all| array(all.triggers, all.numtriggers as u16));
        triggers.len() == design.triggers.len()
            && design.triggers.iter().all(|wanted| {
                let fires = if wanted.always { pg_sys::TRIGGER_FIRES_ALWAYS } else { pg_sys::TRIGGER_FIRES_ON_ORIGIN };
                triggers.iter().any(|trigger| {
                    CStr::from_ptr(trigger.tgname) == wanted.name
                        && trigger.tgtype as u32 == wanted.fires
                        && trigger.tgenabled == fires as c_char
                        && !trigger.tgdeferrable
                        && trigger.tgnattr == 0
                        && is_own_function(trigger.tgfoid, wanted.function)
                })
            })
    }
}

/// Whether the server would let rows be deleted and updated, whatever the publications that the table is in.
///
/// # Safety
/// `table` is open.
unsafe fn is_published_as_it_is(table: &Relation) -> bool {
    // SAFETY: the caller's promise. The server fills the description, and keeps it with the relation. With the default
    // replica identity, and a primary key, these are all reasons for which `CheckCmdReplicaIdentity` would refuse.
    unsafe {
        let mut published: pg_sys::PublicationDesc = std::mem::zeroed();
        pg_sys::RelationBuildPublicationDesc(table.0, &raw mut published);
        #[cfg(feature = "pg18")]
        let generated = published.gencols_valid_for_update && published.gencols_valid_for_delete;
        #[cfg(not(feature = "pg18"))]
        let generated = true;
        generated
            && published.rf_valid_for_update
            && published.rf_valid_for_delete
            && published.cols_valid_for_update
            && published.cols_valid_for_delete
    }
}

/// # Safety
/// `first` is NULL or the first of `len`.
unsafe fn array<'a, T>(first: *mut T, len: u16) -> &'a [T] {
    // SAFETY: the caller's promise.
    if first.is_null() { &[] } else { unsafe { std::slice::from_raw_parts(first, usize::from(len)) } }
}

//! Whether a queue's table is exactly as `queue_create` makes it, and which of its indexes serve for what.
//!
//! The way past the executor (`insert.rs`, `rows.rs`) does what the executor would do for such a table and nothing else, so
//! everything that the executor would look at is compared here: columns with their collations, type modifiers and
//! defaults, constraints, indexes down to operator classes and predicates, publications. Expressions are compared as
//! trees, because their text depends on the search path. The comparison is made once for each change that the server
//! announces ([`relcache_epoch`](crate::pg::catalog::relcache_epoch)).
//!
//! A table that isn't exactly so is written by the executor. It is still scanned by its indexes, so each scan needs one
//! that has all rows in the scan's order, whatever else that index has.

use super::columns::{
    ATTEMPTS, COLUMNS, DEDUP_KEY, DELIVER_AT, ENQUEUED_AT, GROUP_KEY, HEADERS, MESSAGE, MOST_COLUMNS, MSG_ID, PRIORITY,
};
use crate::pg::relation::Relation;
use crate::pg::row::column;
use pgrx::pg_sys::{self, Node, NodeTag, Oid};
use std::ffi::{CStr, c_char};

/// The columns that can't be null.
const NOT_NULL: [i16; 5] = [MSG_ID, ENQUEUED_AT, ATTEMPTS, PRIORITY, MESSAGE];
/// The columns that every message is sent with. What the others get by default is up to the table.
const SENT: [i16; 8] = [MSG_ID, ENQUEUED_AT, DELIVER_AT, PRIORITY, GROUP_KEY, DEDUP_KEY, HEADERS, MESSAGE];
/// The columns whose texts are compared byte by byte.
const BYTEWISE: [i16; 2] = [GROUP_KEY, DEDUP_KEY];

/// What an index is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Messages by number.
    Key,
    /// Those with a delivery time, by that.
    Timed,
    /// Those of groups, by group and number.
    Group,
    /// One live message a deduplication key.
    Dedup,
}

impl Role {
    pub(super) const ALL: [Role; 4] = [Role::Key, Role::Timed, Role::Group, Role::Dedup];

    /// The index's columns.
    fn columns(self) -> &'static [i16] {
        match self {
            Role::Key => &[MSG_ID],
            Role::Timed => &[DELIVER_AT],
            Role::Group => &[GROUP_KEY, MSG_ID],
            Role::Dedup => &[DEDUP_KEY],
        }
    }

    /// The column that isn't NULL where a row is in the index; `None`: all rows are.
    fn only_with(self) -> Option<i16> {
        (self != Role::Key).then(|| self.columns()[0])
    }

    fn unique(self) -> bool {
        matches!(self, Role::Key | Role::Dedup)
    }

    /// What somebody would write who has lost it.
    pub(super) fn statement(self, table: &str) -> String {
        let bytewise = |number: i16| if BYTEWISE.contains(&number) { " COLLATE \"C\"" } else { "" };
        let names: Vec<_> =
            self.columns().iter().map(|&number| format!("{}{}", name(number), bytewise(number))).collect();
        let unique = if self.unique() { "UNIQUE " } else { "" };
        let only = self.only_with().map_or_else(String::new, |number| format!(" WHERE {} IS NOT NULL", name(number)));
        format!("CREATE {unique}INDEX ON enough.\"{table}\" ({}){only}", names.join(", "))
    }
}

fn name(number: i16) -> &'static str {
    COLUMNS[number as usize - 1].0.to_str().unwrap_or_default()
}

/// How well an index serves a [`Role`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// Not at all.
    No,
    /// It can be scanned, or keep keys apart; only the executor knows how to write it.
    Usable,
    /// It is what `queue_create` makes.
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

fn collation_of(number: i16) -> Oid {
    let text = COLUMNS[number as usize - 1].1 == pg_sys::TEXTOID;
    match (text, BYTEWISE.contains(&number)) {
        (false, _) => Oid::INVALID,
        (true, true) => pg_sys::C_COLLATION_OID,
        (true, false) => pg_sys::DEFAULT_COLLATION_OID,
    }
}

/// How well an index serves.
///
/// # Safety
/// `index` is an open index of a queue's table.
pub(super) unsafe fn fit(index: &Relation, role: Role) -> Fit {
    let wanted = role.columns();
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
            let kind = COLUMNS[number as usize - 1].1;
            numbers[place] == number
                && (*relation.rd_opfamily.add(place)).to_u32() == usual_order(kind)
                && *relation.rd_opcintype.add(place) == kind
                && *relation.rd_indcollation.add(place) == collation_of(number)
                // Ascending, NULLs last.
                && *relation.rd_indoption.add(place) == 0
        });
        let predicate = pg_sys::RelationGetIndexPredicate(index.0);
        let partial = match (role.only_with(), list(predicate)) {
            (_, []) => false,
            (Some(number), [only]) if is_not_null(*only, number) => true,
            _ => return Fit::No,
        };
        let keeps_apart = shape.indisunique && shape.indimmediate && keys == wanted.len();
        if !in_order || role == Role::Dedup && !keeps_apart {
            return Fit::No;
        }
        let exact = all == wanted.len()
            && partial == role.only_with().is_some()
            && shape.indisunique == role.unique()
            && shape.indisprimary == (role == Role::Key)
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
pub(super) unsafe fn has_columns(descriptor: pg_sys::TupleDesc) -> bool {
    // SAFETY: the caller's promise; the count is compared before each access. A name is a C string.
    unsafe {
        (*descriptor).natts as usize >= COLUMNS.len()
            && COLUMNS.iter().enumerate().all(|(place, (name, kind))| {
                let column = column(descriptor, place);
                (*column).atttypid == *kind
                    && !(*column).attisdropped
                    && CStr::from_ptr((*column).attname.data.as_ptr()) == *name
            })
    }
}

/// Whether there is nothing about the table, its indexes apart, that `queue_create` hasn't put there.
///
/// # Safety
/// `table` is open and [has the columns](has_columns).
pub(super) unsafe fn is_exact(table: &Relation) -> bool {
    // SAFETY: the caller's promise; an open relation's fields are valid.
    unsafe {
        let form = &*(*table.0).rd_rel;
        form.relkind == pg_sys::RELKIND_RELATION as c_char
            && form.relam == pg_sys::HEAP_TABLE_AM_OID
            && form.relreplident == pg_sys::REPLICA_IDENTITY_DEFAULT as c_char
            && !form.relhastriggers
            && !form.relhasrules
            && !form.relrowsecurity
            && !form.relhassubclass
            && !form.relispartition
            && has_exact_columns(table.descriptor())
            && has_exact_constraints(table.descriptor())
            && is_published_as_it_is(table)
    }
}

/// # Safety
/// `descriptor` is that of a table that [has the columns](has_columns).
unsafe fn has_exact_columns(descriptor: pg_sys::TupleDesc) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let all = (*descriptor).natts as usize;
        (COLUMNS.len()..=MOST_COLUMNS).contains(&all)
            // An upgrade drops columns that a release no longer has; the server keeps their places.
            && (COLUMNS.len()..all).all(|place| (*column(descriptor, place)).attisdropped)
            && (1..).zip(COLUMNS).all(|(number, _)| {
                let column = column(descriptor, number as usize - 1);
                let identity = if number == MSG_ID { pg_sys::ATTRIBUTE_IDENTITY_BY_DEFAULT as c_char } else { 0 };
                (*column).attnotnull == NOT_NULL.contains(&number)
                    && (*column).atttypmod == -1
                    && (*column).attcollation == collation_of(number)
                    && (*column).attidentity == identity
                    && (*column).attgenerated == 0
            })
    }
}

/// Whether the only constraint that rows are checked for is the range of their priority, and what they get by default is
/// what `insert.rs` gives them.
///
/// # Safety
/// `descriptor` is valid.
unsafe fn has_exact_constraints(descriptor: pg_sys::TupleDesc) -> bool {
    // SAFETY: the caller's promise; both arrays are as long as said. What is in them was written by the server.
    unsafe {
        let Some(constraints) = (*descriptor).constr.as_ref() else { return false };
        let defaults = array(constraints.defval, constraints.num_defval);
        let mut counted = false;
        for default in defaults.iter().filter(|default| !SENT.contains(&default.adnum)) {
            if default.adnum != ATTEMPTS || !is_number(pg_sys::stringToNode(default.adbin).cast(), 0) {
                return false;
            }
            counted = true;
        }
        let [check] = array(constraints.check, constraints.num_check) else { return false };
        #[cfg(feature = "pg18")]
        let enforced = check.ccenforced;
        #[cfg(not(feature = "pg18"))]
        let enforced = true;
        counted && enforced && check.ccvalid && is_priority_range(pg_sys::stringToNode(check.ccbin).cast())
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

/// # Safety
/// `list` is NULL (the empty list) or a list of nodes.
unsafe fn list<'a>(list: *mut pg_sys::List) -> &'a [*mut Node] {
    if list.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise; a cell of such a list is a pointer.
    unsafe { std::slice::from_raw_parts((*list).elements.cast(), (*list).length as usize) }
}

/// The node as what its tag says.
///
/// # Safety
/// `node` is NULL or valid, and `T` is what nodes with that tag are.
unsafe fn node<'a, T>(node: *mut Node, tag: NodeTag) -> Option<&'a T> {
    // SAFETY: the caller's promise.
    unsafe { if !node.is_null() && (*node).type_ == tag { node.cast::<T>().as_ref() } else { None } }
}

/// Whether an expression is that column.
///
/// # Safety
/// `expression` is NULL or a valid node, as in all of these.
unsafe fn is_column(expression: *mut Node, number: i16) -> bool {
    // SAFETY: the caller's promise.
    unsafe { node::<pg_sys::Var>(expression, NodeTag::T_Var) }
        .is_some_and(|var| var.varattno == number && var.varlevelsup == 0)
}

/// Whether an expression is that `int`.
///
/// # Safety
/// As above.
unsafe fn is_number(expression: *mut Node, number: i32) -> bool {
    // SAFETY: the caller's promise.
    unsafe { node::<pg_sys::Const>(expression, NodeTag::T_Const) }.is_some_and(|constant| {
        constant.consttype == pg_sys::INT4OID && !constant.constisnull && constant.constvalue.value() as i32 == number
    })
}

/// Whether an expression is `column IS NOT NULL`.
///
/// # Safety
/// As above.
unsafe fn is_not_null(expression: *mut Node, number: i16) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        node::<pg_sys::NullTest>(expression, NodeTag::T_NullTest).is_some_and(|test| {
            test.nulltesttype == pg_sys::NullTestType::IS_NOT_NULL
                && !test.argisrow
                && is_column(test.arg.cast(), number)
        })
    }
}

/// Whether an expression is `priority >= 0 AND priority <= 9`, by the server's own operators.
///
/// # Safety
/// As above.
unsafe fn is_priority_range(expression: *mut Node) -> bool {
    // SAFETY: the caller's promise.
    let compares = |expression: *mut Node, function: u32, number: i32| unsafe {
        node::<pg_sys::OpExpr>(expression, NodeTag::T_OpExpr).is_some_and(|comparison| {
            let [left, right] = list(comparison.args) else { return false };
            comparison.opfuncid.to_u32() == function && is_column(*left, PRIORITY) && is_number(*right, number)
        })
    };
    // SAFETY: the caller's promise.
    unsafe {
        node::<pg_sys::BoolExpr>(expression, NodeTag::T_BoolExpr).is_some_and(|both| {
            let [least, most] = list(both.args) else { return false };
            both.boolop == pg_sys::BoolExprType::AND_EXPR
                && compares(*least, pg_sys::F_INT24GE, 0)
                && compares(*most, pg_sys::F_INT24LE, 9)
        })
    }
}

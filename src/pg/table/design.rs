//! What a capability makes a table as.

use pgrx::pg_sys::Oid;
use std::ffi::CStr;

/// The most columns of a table, with those that upgrades have dropped, of which the server keeps the places.
pub const MOST_COLUMNS: usize = 16;
/// The columns that a table may have or not.
pub const EXTRA: usize = 2;
/// The most indexes.
pub const MOST_INDEXES: usize = 4;
/// The most columns of an index.
pub const MOST_KEYS: usize = 2;

/// A table: its columns, and everything else that the executor would look at. What isn't named here isn't there: other
/// constraints, triggers, rules, policies, partitions, a replica identity of its own.
pub struct Design {
    /// The columns in their order. Their numbers begin at 1.
    pub columns: &'static [Column],
    /// Columns that it may have behind those, at any place: NULL unless a statement says otherwise. Up to [`EXTRA`].
    pub extra: &'static [(&'static CStr, Oid)],
    /// Its indexes; the first is the primary key.
    pub indexes: &'static [Index],
    /// How many of them it can't do without, which come first.
    pub required: usize,
    /// The column whose values come from a sequence of the table's own.
    pub identity: Option<i16>,
    /// The only CHECK.
    pub range: Option<Range>,
    /// Its triggers. Who writes past the executor does what they would do.
    pub triggers: &'static [Trigger],
}

impl PartialEq for Design {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Design {}

impl std::fmt::Debug for Design {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.columns.iter().map(|column| column.name)).finish()
    }
}

/// A column.
pub struct Column {
    /// Its name.
    pub name: &'static CStr,
    /// Its type.
    pub kind: Oid,
    /// Whether it can't be NULL.
    pub not_null: bool,
    /// Whether texts are compared byte by byte (the collation "C").
    pub bytewise: bool,
    /// What new rows have in it.
    pub given: Given,
}

/// What new rows have in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// A value, or NULL, that every insertion gives; whatever default the table has.
    Always,
    /// NULL: there is no default.
    Null,
    /// The number 0, by a default.
    Zero,
    /// What every insertion gives, as the default would: a function of the server's, by its OID.
    Server(u32),
    /// The same by a function of the schema `enough`.
    Own(&'static CStr),
    /// The same by such a function of a sequence.
    Next(&'static CStr),
}

/// An index, a B-tree in the usual order of its columns.
pub struct Index {
    /// The numbers of its columns.
    pub columns: &'static [i16],
    /// Whether it has only those rows in which its first column isn't NULL.
    pub partial: bool,
    /// Whether it keeps keys apart.
    pub unique: bool,
    /// Whether statements rely on that, besides the scans (`ON CONFLICT`).
    pub conflicts: bool,
}

/// A trigger that calls a function of the schema `enough`, whatever its condition is.
pub struct Trigger {
    /// Its name.
    pub name: &'static CStr,
    /// The function.
    pub function: &'static CStr,
    /// When it fires, as `pg_trigger.tgtype` has it.
    pub fires: u32,
    /// Whether it fires also in sessions that apply what is replicated.
    pub always: bool,
}

/// `CHECK (column >= least AND column <= most)`.
pub struct Range {
    /// The column's number.
    pub column: i16,
    /// Whether it is a text, whose `octet_length` is meant; else a `smallint`.
    pub of_length: bool,
    /// The least value.
    pub least: i32,
    /// The greatest.
    pub most: i32,
}

impl Design {
    /// The column of a number.
    pub(super) fn column(&self, number: i16) -> &'static Column {
        &self.columns[number as usize - 1]
    }

    fn name(&self, number: i16) -> &'static str {
        self.column(number).name.to_str().unwrap_or_default()
    }

    /// What an owner would write that has lost the index.
    pub(super) fn statement(&self, index: &Index, table: &str) -> String {
        let bytewise = |number: i16| if self.column(number).bytewise { " COLLATE \"C\"" } else { "" };
        let names: Vec<_> =
            index.columns.iter().map(|&number| format!("{}{}", self.name(number), bytewise(number))).collect();
        let unique = if index.unique { "UNIQUE " } else { "" };
        let only =
            if index.partial { format!(" WHERE {} IS NOT NULL", self.name(index.columns[0])) } else { String::new() };
        format!("CREATE {unique}INDEX ON enough.\"{table}\" ({}){only}", names.join(", "))
    }
}

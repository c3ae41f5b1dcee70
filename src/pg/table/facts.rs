//! What the catalogs say of a table.

use super::design::{Design, EXTRA, Index, MOST_INDEXES};
use super::relation::Relation;
use super::shape::{Fit, extra_columns, fit, has_columns, is_exact, sequence_of_default};
use pgrx::pg_sys::{self, Oid};

/// A table by its design; true for the [`relcache_epoch`](crate::pg::catalog::relcache_epoch) in which it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainTable {
    /// What it was made as.
    pub design: &'static Design,
    /// OID of the table.
    pub relation: u32,
    /// Whether the executor has nothing to decide here.
    pub plain: bool,
    /// The numbers of the design's extra columns; 0 where it hasn't got one.
    pub extra: [i16; EXTRA],
    /// OIDs of the indexes, in the order of the design; invalid for one that its owner does without.
    pub indexes: [Oid; MOST_INDEXES],
    /// OID of the sequence of its identity column, or of the column whose default draws from one; invalid where there is none.
    pub sequence: Oid,
    /// The number of the file that its rows are in.
    pub file: u32,
    /// OID of its TOAST table; 0 for none.
    pub toast: u32,
    /// Whether this transaction has given it that file, which nobody else sees.
    pub own_storage: bool,
}

/// Why a table can't be used, not even by statements.
pub enum Unfit {
    /// It has lost a column. With the table's name.
    Column(String),
    /// No index serves in the place of one of the design's. With the table's name and the statement that makes one.
    Index(String, String),
}

impl PlainTable {
    /// Reads the catalogs about the table with that OID; `None` where it is gone.
    pub fn read(design: &'static Design, relation: u32) -> Result<Option<Self>, Unfit> {
        let Some(table) = Relation::facts_of_table(relation) else {
            return Ok(None);
        };
        // SAFETY: the table is open.
        if !unsafe { has_columns(design, table.descriptor()) } {
            return Err(Unfit::Column(table.name()));
        }
        let (mut found, mut count) = ([(Fit::No, Oid::INVALID); MOST_INDEXES], 0);
        // SAFETY: the list's cells are OIDs, as the server makes them; each index is open while it is looked at.
        unsafe {
            let indexes = pg_sys::RelationGetIndexList(table.0);
            count += if indexes.is_null() { 0 } else { (*indexes).length as usize };
            for cell in 0..count {
                let index = Relation::index_to_read((*(*indexes).elements.add(cell)).oid_value);
                for (best, wanted) in found.iter_mut().zip(design.indexes) {
                    let fit = fit(design, &index, wanted);
                    if fit > best.0 {
                        *best = (fit, (*index.0).rd_id);
                    }
                }
            }
        }
        let fits = &found[..design.indexes.len()];
        let mut required = fits.iter().zip(design.indexes).take(design.required);
        if let Some((_, lost)) = required.find(|(best, _)| best.0 == Fit::No) {
            return Err(Unfit::Index(table.name(), design.statement(lost, &table.name())));
        }
        let there = fits.iter().filter(|best| best.0 == Fit::Exact).count();
        let exact_indexes = count == there && fits.iter().all(|best| best.0 != Fit::Usable);
        let sequence = match design.identity {
            Some(column) => sequence(&table, column),
            // SAFETY: the table is open.
            None => unsafe { sequence_of_default(design, table.descriptor()) },
        };
        let numbered = design.identity.is_none() || sequence != Oid::INVALID;
        // SAFETY: the table is open and has the columns.
        let plain = numbered && exact_indexes && unsafe { is_exact(design, &table) };
        // SAFETY: an open relation has its row of the catalog.
        let form = unsafe { &*(*table.0).rd_rel };
        Ok(Some(PlainTable {
            design,
            relation,
            plain,
            // SAFETY: the table is open.
            extra: unsafe { extra_columns(design, table.descriptor()) },
            indexes: found.map(|best| best.1),
            sequence,
            file: form.relfilenode.to_u32(),
            toast: form.reltoastrelid.to_u32(),
            own_storage: has_own_storage(&table),
        }))
    }

    /// Its indexes that are there.
    pub fn indexes(&self) -> impl Iterator<Item = (&'static Index, Oid)> {
        self.design.indexes.iter().zip(self.indexes).filter(|(_, index)| *index != Oid::INVALID)
    }

    /// Whether it has all of the extra columns.
    pub fn has_extra(&self) -> bool {
        !self.extra.contains(&0)
    }

    /// Whether the numbers of its identity column come from a sequence of the table's own.
    pub fn has_sequence(&self) -> bool {
        self.sequence != Oid::INVALID
    }
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

fn sequence(table: &Relation, column: i16) -> Oid {
    // SAFETY: the relation is open.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        let sequence = pg_sys::getIdentitySequence((*table.0).rd_id, column, true);
        #[cfg(not(any(feature = "pg15", feature = "pg16")))]
        let sequence = pg_sys::getIdentitySequence(table.0, column, true);
        sequence
    }
}

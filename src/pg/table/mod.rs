//! Plain tables: what the server's executor would do with a table that is exactly as the extension has made it, without the
//! executor's price. A capability says by a [`Design`] what it makes.
//!
//! # Rules
//! * Only a table that is exactly its design is written here: `shape.rs` compares it once for each change that the server
//!   announces. Everything else goes through the executor, by a statement of the capability's.
//! * Every index gets the entries that the executor would give it, in the executor's order: the row first.
//! * `heap_update` can't be asked not to wait: a caller that doesn't want to wait locks the row first.
//!
//! | file | subject |
//! |---|---|
//! | `design.rs` | what a table is made as |
//! | `shape.rs` | whether a table is as it was made, and which of its indexes serve |
//! | `expression.rs` | defaults, conditions and predicates |
//! | `facts.rs` | what the catalogs say of a table |
//! | `relation.rs` | open relations, and new entries in their indexes |
//! | `snapshot.rs` | which versions of rows are seen |
//! | `insert.rs` | new rows |
//! | `rows.rs` | rows that are there: found, locked, deleted, updated |

mod design;
mod expression;
mod facts;
mod insert;
pub mod relation;
pub mod rows;
mod shape;
pub mod snapshot;

pub use design::{Column, Design, Given, Index, Range, Trigger};
pub use facts::{PlainTable, Unfit};
pub use insert::{NewRow, Values};

//! A queue's table past the executor: what the server's executor would do with a plain row, without its price.
//!
//! # Rules
//! * Only a table that is exactly as `queue_create` makes it is written here (`shape.rs` compares it once a change of it
//!   that the server announces); everything else goes through the executor.
//! * A row is locked before it is changed, and every index gets the entries that the executor would give it.
//!
//! | file | subject |
//! |---|---|
//! | `columns.rs` | its columns |
//! | `table.rs` | a queue's table, and what is known of it |
//! | `shape.rs` | whether it is as it was made |
//! | `insert.rs` | new rows |
//! | `rows.rs` | rows that are there |
//! | `scan.rs` | scans of its indexes |

#![allow(unsafe_code, reason = "heap and index access by the server's C interface")]
#![allow(clippy::cast_ptr_alignment, reason = "the server aligns what it allocates")]

pub mod columns;
mod insert;
pub mod rows;
pub mod scan;
mod shape;
pub mod table;

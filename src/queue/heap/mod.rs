//! A queue's table past the executor; [`pg::table`](crate::pg::table) has what isn't the queue's own, and the rules.
//!
//! | file | subject |
//! |---|---|
//! | `columns.rs` | what it is made as |
//! | `table.rs` | the table as a session knows it |
//! | `insert.rs` | new rows |
//! | `rows.rs` | rows that are there |
//! | `scan.rs` | scans of its indexes |

#![allow(unsafe_code, reason = "values of rows by the server's C interface")]

pub mod columns;
pub mod insert;
pub mod rows;
pub mod scan;
pub mod table;

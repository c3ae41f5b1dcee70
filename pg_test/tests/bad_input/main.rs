//! Every function with arguments that make no sense (the SQLSTATE of the conventions, and nothing changed), and while its
//! tables are changed, and in parallel workers.
//!
//! The functions are those that the catalog has: one without cases fails the test.

mod arguments;
mod cases;
mod meanwhile;
mod parallel;
mod run;

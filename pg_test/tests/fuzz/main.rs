//! Every function with nasty arguments, in four sessions, while tables are dropped and altered.
//!
//! A round is one database and one seed: four sessions call what the catalog has in the schema; a fifth does DDL on the
//! queues' tables and on the extension, and holds its locks for a moment; a sixth cancels and terminates the others; now
//! and then the server is restarted as planned. Whatever the calls answer, the server may not crash, no session may hang
//! or end by itself, no error may be an internal one, and the indexes must agree with their tables afterwards.
//!
//! `ENOUGH_FUZZ_SECONDS` says how long it goes on (20 by default; an hour on `--pg 15-assert` is what a release is tested
//! with) and `ENOUGH_FUZZ_SEED` does one round alone. The same seed gives the same statements; how those of different
//! sessions meet is up to the scheduler.

mod arguments;
mod calls;
mod ddl;
mod findings;
mod round;
mod run;
mod session;

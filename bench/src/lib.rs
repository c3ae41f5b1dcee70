//! Side-by-side benchmarks: the extension against what it has to be compared with, in turns, on one server.
//!
//! | module | subject |
//! |---|---|
//! | [`stats`] | medians, how far they can be trusted, and whether a target is met |
//! | [`comparison`] | what a comparison is, and how candidates take turns |
//! | [`results`] | the shapes that a result can have: comparisons, series, distributions, single numbers |
//! | [`pgbench`] | a candidate that is a script for pgbench: throughput as clients see it |
//! | [`wire`] | a candidate that asks a server over TCP: the same client for every protocol |
//! | [`inside`] | a candidate that is a statement in one session: what a call costs inside the server |
//! | [`noop`] | the functions that do nothing, compiled for the server at hand |
//! | [`peers`] | other software that is compared with, and how it gets onto the server |
//! | [`scenario`] | the measurements themselves, by suite |
//! | [`fixture`] | the server that all of it runs on |
//! | [`machine`] | what the numbers were measured on |
//! | [`compare`] | what got worse from one saved run to another |
//! | [`plot`] | pictures of saved results |
//! | [`tool`] | both on the command line |
//! | [`report`] | the JSON that is saved |
//! | [`number`] | numbers as they are shown |
//! | [`text`] | the tables that are printed |
//!
//! A new measurement is an entry in its suite's list in [`scenario`]; a new kind of load implements
//! [`comparison::Candidate`].

pub mod compare;
pub mod comparison;
pub mod fixture;
pub mod inside;
pub mod machine;
pub mod noop;
pub mod number;
pub mod peers;
pub mod pgbench;
pub mod plot;
pub mod report;
pub mod results;
pub mod scenario;
pub mod stats;
pub mod text;
pub mod tool;
pub mod wire;

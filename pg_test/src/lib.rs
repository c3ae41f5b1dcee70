//! What the black-box tests share: servers, databases with the extension in them, and waiting for a condition.
//!
//! | module | subject |
//! |---|---|
//! | [`server`] | a server that the tests of one program share, and databases in it |
//! | [`queue`] | sending and reading by a driver |
//! | [`check`] | what must hold: SQLSTATEs, conditions that come true, a log without a crash in it |
//! | [`vanish`] | a client that is killed |
//! | [`markdown`] | examples in documents |
//! | [`pgbouncer`] | a pooler before a server |
//! | [`segment`] | the shared memory of a server, seen from outside |
//!
//! The version is that which `ENOUGH_PG` names; an installation has to be there, as `cargo xtask install` leaves it.

pub mod check;
pub mod markdown;
pub mod pgbouncer;
pub mod queue;
pub mod segment;
pub mod server;
pub mod vanish;

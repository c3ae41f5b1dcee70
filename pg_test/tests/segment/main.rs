//! The shared memory: each way to it, two that make it at once, crashes, damage, no room,
//! and readers without a lock.
//!
//! On a plain server the way is the version's own (the slack of the main shared memory up to PostgreSQL 16, the registry
//! of named segments since 17); one server preloads the library.

mod common;
mod crash;
mod damage;
mod glimpse;
mod making;
mod no_room;

//! The shared memory: each way to it, two that make it at once, crashes, damage, no room,
//! and readers without a lock.
//!
//! On a plain server the segment is dynamic; other servers preload the library.

mod common;
mod crash;
mod damage;
mod glimpse;
mod making;
mod no_room;

//! What semaphores promise, seen by many sessions at once.

mod acquire;
mod chaos;
mod common;
mod ends;
mod line;
mod memory;
mod restart;
mod roles;

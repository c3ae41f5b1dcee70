//! What a queue does, seen by a driver.

mod at_once;
mod batches;
mod cancel;
mod changed;
mod contended;
mod counted;
mod dead;
mod dedup;
mod ending;
mod groups;
mod identity;
mod idle;
mod isolation;
mod lease;
mod limits;
mod memory;
mod order;
mod poison;
mod refill;
mod roles;
mod savepoint;
mod sending;
mod table;
mod used_up;
mod wait;
mod wait_end;

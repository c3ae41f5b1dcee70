//! What a queue does, seen by a driver.

mod dead;
mod isolation;
mod lease;
mod roles;
mod savepoint;
mod sending;
mod table;
mod wait;
mod wait_end;

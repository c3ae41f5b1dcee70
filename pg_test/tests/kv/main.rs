//! What the key-value store promises.

mod common;
mod entries;
mod history;
mod keys;
mod roles;
mod spaces;
mod ttl;
mod versions;

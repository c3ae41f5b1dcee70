//! What the key-value store promises.

mod by_hand;
mod common;
mod entries;
mod history;
mod kept;
mod keys;
mod roles;
mod spaces;
mod ttl;
mod versions;
mod watch;
mod watch_history;
mod watch_wait;

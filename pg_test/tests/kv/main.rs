//! What the key-value store promises.

mod by_hand;
mod common;
mod copies;
mod entries;
mod history;
mod kept;
mod keys;
mod nearly;
mod roles;
mod servers;
mod spaces;
mod stale;
mod ttl;
mod versions;
mod watch;
mod watch_history;
mod watch_wait;

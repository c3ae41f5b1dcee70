//! What outlives the server: standbys and their promotion, dumps, backups; and other databases beside.

mod databases;
mod dump;
mod rebuild;
mod replication;
mod spaces;
mod standby;

//! Other software that is compared with, and how it gets onto the server.

pub mod job_table;
pub mod limit_table;
pub mod lock_table;
pub mod memory_server;
pub mod pgmq;
pub mod pgq;
pub mod raw_table;

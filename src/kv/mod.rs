//! A key-value store: values by key in plain tables, so durable, transactional and under the tables' own privileges.
//!
//! One table is a *space*, `enough.kv_<space>`. A row's version is drawn from the space's sequence, so that of two writes of one key the
//! later one, which waits for the row's lock, has the greater version. A key that is deleted keeps its row for a day, without a value:
//! whoever has drawn a version before meets that row, and takes a new one.
//!
//! Each row has a *fence*: the number that the next transaction was to get when its version had been drawn. A writer has its own
//! transaction number before it draws. So where every transaction below the fence has ended, all versions up to this one
//! are decided: nothing smaller can appear any more.
//!
//! | file | subject |
//! |---|---|
//! | `functions.rs`, `arguments.rs` | arguments in, rows out; their ranges and defaults |
//! | `space.rs` | making, dropping and finding a space |
//! | `read.rs`, `write.rs` | the statements on one |
//! | `upkeep.rs` | rows that are over |

mod arguments;
mod functions;
mod read;
mod space;
mod upkeep;
mod write;

pub use upkeep::expire;

//! The data structures of `pg_enough`'s shared-memory segment, without PostgreSQL in them.
//!
//! Each structure is a view over a slice of 64-bit words ([`words`]) plus a clock that the caller passes in. It never
//! allocates, never blocks and never panics: the caller holds the lock of the slice, and an index that is out of
//! bounds comes back as [`words::Corrupt`], upon which the caller formats that slice again. Nothing here is the only
//! copy of anything durable, so formatting is always allowed.
//!
//! | module | structure |
//! |---|---|
//! | [`words`] | the memory: a slice of atomic words and what can go wrong in it |
//! | [`mod@fingerprint`] | a number that changes with the layout of the words |
//! | [`seqlock`] | the version by which a partition is read without its lock |
//! | [`hash`] | keyed 128-bit hashes, by which keys are known inside the segment |
//! | [`limiter`] | the arithmetic of the three rate-limit algorithms and the table of their states |
//! | [`cache`] | the arena, the hash table over it and eviction |
//! | [`semaphore`] | who holds a name until when, and who waits for it |
//! | [`window`] | a strict sliding window |
//! | [`queue`] | the window of ready messages, the leases and the timers |
//! | [`topic`] | patterns of topics |
#![forbid(unsafe_code)]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("enough_engine needs a 64-bit machine: word numbers and lengths of up to 8 GiB are kept in a usize");

pub mod cache;
pub mod fingerprint;
pub mod hash;
pub mod limiter;
pub mod queue;
pub mod semaphore;
pub mod seqlock;
pub mod topic;
pub mod window;
pub mod words;

//! What the limiter promises, seen by many sessions at once.

mod concurrent;
mod enforce;
mod exact;
mod memory;
mod policy;

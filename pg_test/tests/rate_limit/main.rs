//! What the limiter promises, seen by many sessions at once.

mod concurrent;
mod enforce;
mod memory;

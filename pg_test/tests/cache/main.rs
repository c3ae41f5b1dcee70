//! The cache as clients see it.

mod fetch;
mod stale;

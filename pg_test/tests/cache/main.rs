//! The cache as clients see it.

mod stale;

//! The cache as clients see it.

mod atomic;
mod churn;
mod fetch;
mod invalidation;
mod names;
mod stale;

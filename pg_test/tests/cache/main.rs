//! The cache as clients see it.

mod churn;
mod fetch;
mod invalidation;
mod stale;

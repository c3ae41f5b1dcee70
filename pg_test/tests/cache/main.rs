//! The cache as clients see it.

mod atomic;
mod auto;
mod churn;
mod fetch;
mod invalidation;
mod names;
mod nested;
mod prepared;
mod stale;

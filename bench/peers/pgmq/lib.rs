//! Holds a place: cargo wants a target in every package.

//! Names of queues, and of their tables.

use crate::error::Error;
use crate::pg::catalog;
pub(in crate::queue) use crate::pg::name::{LONGEST_NAME, valid_name_of};
use std::ffi::CString;

/// A queue's name, or the error that says what a name is.
pub(in crate::queue) fn valid_name(name: &[u8]) -> Result<&str, Error> {
    valid_name_of("queue", name)
}

pub(in crate::queue) fn missing(name: &str) -> Error {
    Error::Missing { what: "queue", name: name.into(), hint: "Create it with enough.queue_create()." }
}

pub(in crate::queue) fn relation(prefix: &str, name: &str) -> Option<u32> {
    // A valid name has no NUL byte.
    CString::new(format!("{prefix}{name}")).ok().and_then(|name| catalog::relation_named(&name))
}

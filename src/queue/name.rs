//! Names of queues, and of their tables.

use crate::error::Error;
use crate::pg::catalog;
use crate::pg::encoding::decode_start;
use std::ffi::CString;

/// The longest name of a queue, in bytes; `q_` and an index's suffix must fit beside it into 63.
pub(in crate::queue) const LONGEST_NAME: usize = 48;

/// A queue's name, or the error that says what a name is.
pub(in crate::queue) fn valid_name(name: &[u8]) -> Result<&str, Error> {
    valid_name_of("queue", name)
}

pub(in crate::queue) fn valid_name_of<'n>(what: &'static str, name: &'n [u8]) -> Result<&'n str, Error> {
    let first = name.first().is_some_and(|c| c.is_ascii_alphabetic() || *c == b'_');
    let rest = name.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'));
    match std::str::from_utf8(name) {
        Ok(text) if first && rest && name.len() <= LONGEST_NAME => Ok(text),
        _ => Err(Error::Name {
            what,
            name: decode_start(name, LONGEST_NAME),
            expected: "1 to 48 letters, digits, '_', '.' or '-', the first a letter or '_'",
        }),
    }
}

pub(in crate::queue) fn missing(name: &str) -> Error {
    Error::Missing { what: "queue", name: name.into(), hint: "Create it with enough.queue_create()." }
}

pub(in crate::queue) fn relation(prefix: &str, name: &str) -> Option<u32> {
    // A valid name has no NUL byte.
    CString::new(format!("{prefix}{name}")).ok().and_then(|name| catalog::relation_named(&name))
}

//! Names of what tables of the extension are called after: queues, spaces.

use super::encoding::decode_start;
use crate::error::Error;

/// The longest name, in bytes; a prefix and an index's suffix must fit beside it into 63.
pub const LONGEST_NAME: usize = 48;

/// A name, or the error that says what the name of a `what` is.
pub fn valid_name_of<'n>(what: &'static str, name: &'n [u8]) -> Result<&'n str, Error> {
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

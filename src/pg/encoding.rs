//! Text between the database's encoding and Rust's, which is UTF-8.
//!
//! What decides something (names, keys, whatever is compared or stored) stays in the database's encoding, as bytes. Rust's
//! strings are for people: messages, notes, and what those name. In a UTF-8 database, and for ASCII in any, nothing is converted.
//! Where a byte or a character has no equivalent, it is written as `\xNN` or `?`, since a message is worth more than its
//! spelling.

use pgrx::pg_sys::{self, Oid};
use std::borrow::Cow;
use std::ffi::{CStr, CString};
use std::fmt::Write as _;

const UTF8: i32 = pg_sys::pg_enc::PG_UTF8 as i32;
const SQL_ASCII: i32 = pg_sys::pg_enc::PG_SQL_ASCII as i32;
/// The most that a text grows when it is converted: `MAX_CONVERSION_GROWTH`.
const GROWTH: usize = 4;

/// Text of the database's as Rust has it, for people.
pub fn decode(bytes: &[u8]) -> Cow<'_, str> {
    // SAFETY: reads a variable of this process.
    let encoding = unsafe { pg_sys::GetDatabaseEncoding() };
    if bytes.is_ascii() || matches!(encoding, UTF8 | SQL_ASCII) {
        return decode_utf8(bytes);
    }
    let unknown = |rest: &[u8], out: &mut Vec<u8>| {
        let mut escaped = String::new();
        escape(rest[0], &mut escaped);
        out.extend_from_slice(escaped.as_bytes());
        1
    };
    let converted = convert(bytes, encoding, UTF8, unknown);
    Cow::Owned(decode_utf8(&converted).into_owned())
}

/// The first `most` characters of a text of the database's, for people.
pub fn decode_start(bytes: &[u8], most: usize) -> String {
    /// The longest character of any encoding.
    const LONGEST: usize = 4;
    decode(&bytes[..bytes.len().min(most.saturating_mul(LONGEST))]).chars().take(most).collect()
}

/// A text that a user has given, for a message; a long one is cut off.
pub fn shown(text: &[u8]) -> String {
    const MOST: usize = 200;
    let start = decode_start(text, MOST + 1);
    match start.char_indices().nth(MOST) {
        Some((end, _)) => format!("\"{}...\"", &start[..end]),
        None => format!("\"{start}\""),
    }
}

/// Rust's text as the database has it.
pub fn encode(text: &str) -> Cow<'_, [u8]> {
    // SAFETY: reads a variable of this process.
    let encoding = unsafe { pg_sys::GetDatabaseEncoding() };
    if text.is_ascii() || matches!(encoding, UTF8 | SQL_ASCII) {
        return Cow::Borrowed(text.as_bytes());
    }
    let unknown = |rest: &[u8], out: &mut Vec<u8>| {
        out.push(b'?');
        // The whole character: its first byte and those that continue it.
        1 + rest[1..].iter().take_while(|&&byte| byte & 0xc0 == 0x80).count()
    };
    Cow::Owned(convert(text.as_bytes(), UTF8, encoding, unknown))
}

/// The same as a C string; up to the first zero byte, which no text of the server's has.
pub fn encode_c(text: &str) -> CString {
    let bytes = encode(text);
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    CString::new(&bytes[..end]).unwrap_or_default()
}

/// UTF-8, with what is none of it escaped.
fn decode_utf8(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len() * 2);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|&byte| escape(byte, &mut text));
    }
    Cow::Owned(text)
}

fn escape(byte: u8, text: &mut String) {
    // Writing into a String can't fail.
    let _ = write!(text, "\\x{byte:02x}");
}

/// Converts as far as the server can; `unknown` answers for what it can't: it adds something instead of the first bytes, and says
/// how many those are.
fn convert(bytes: &[u8], from: i32, to: i32, unknown: impl Fn(&[u8], &mut Vec<u8>) -> usize) -> Vec<u8> {
    let mut converted = Vec::with_capacity(bytes.len() * 2);
    // SAFETY: plain look-ups. A conversion is found in the catalogs, so only where those can be read.
    let procedure = unsafe {
        if pg_sys::IsTransactionState() { pg_sys::FindDefaultConversionProc(from, to) } else { Oid::INVALID }
    };
    let mut rest = bytes;
    while !rest.is_empty() {
        if procedure != Oid::INVALID {
            let mut room = vec![0_u8; rest.len() * GROWTH + 1];
            // SAFETY: source and destination have those lengths. Told to, it raises no error for what it can't convert, but
            // answers how far it came, and ends the result with a zero.
            let done = unsafe {
                pg_sys::pg_do_encoding_conversion_buf(
                    procedure,
                    from,
                    to,
                    rest.as_ptr().cast_mut(),
                    i32::try_from(rest.len()).unwrap_or(i32::MAX),
                    room.as_mut_ptr(),
                    i32::try_from(room.len()).unwrap_or(i32::MAX),
                    true,
                )
            };
            converted.extend_from_slice(CStr::from_bytes_until_nul(&room).map_or(&[][..], CStr::to_bytes));
            rest = rest.get(usize::try_from(done).unwrap_or(0)..).unwrap_or_default();
        }
        if !rest.is_empty() {
            let taken = unknown(rest, &mut converted).clamp(1, rest.len());
            rest = &rest[taken..];
        }
    }
    converted
}

#[cfg(test)]
mod tests {
    use super::decode_utf8;

    #[test]
    fn what_is_not_utf8_is_escaped() {
        assert_eq!(decode_utf8(b"plain"), "plain");
        assert_eq!(decode_utf8("b\u{e9}".as_bytes()), "b\u{e9}");
        assert_eq!(decode_utf8(b"b\xe9n\xc3"), "b\\xe9n\\xc3");
    }
}

//! The binary form of a `jsonb`, read and written without the server: under a lock, and without a way through text.
//!
//! It is described in the server's `utils/jsonb.h`: a container is a word of flags and a count, then a word for each child
//! (its type and its length, or now and then its end), then the children. A scalar by itself is an array of one, marked as
//! such.
//!
//! | file | subject |
//! |---|---|
//! | `number.rs` | whole numbers |
//! | `members.rs` | the members of an object, one by one |

mod members;
pub mod number;

pub use members::members;

/// Of a container's first word: how many children it has (of an object, twice that), and what it is.
const COUNT: u32 = 0x0FFF_FFFF;
const SCALAR: u32 = 0x1000_0000;
const OBJECT: u32 = 0x2000_0000;
const ARRAY: u32 = 0x4000_0000;
/// The first word of a scalar by itself.
const ONE_SCALAR: u32 = 1 | SCALAR | ARRAY;

/// Of a child's word: its length, or where it ends, and what it is.
const LENGTH: u32 = 0x0FFF_FFFF;
const TYPE: u32 = 0x7000_0000;
const TYPE_NUMERIC: u32 = 0x1000_0000;
const TYPE_NULL: u32 = 0x4000_0000;
const TYPE_CONTAINER: u32 = 0x5000_0000;
/// That it tells where the child ends, which the first child's does.
const IS_END: u32 = 0x8000_0000;

/// The binary form of the `jsonb` `null`.
pub fn null() -> [u8; 8] {
    let mut bytes = [0; 8];
    let (words, _) = bytes.as_chunks_mut();
    words.iter_mut().zip([ONE_SCALAR, TYPE_NULL | IS_END]).for_each(|(to, word)| *to = word.to_ne_bytes());
    bytes
}

/// The `index`-th word.
fn word(bytes: &[u8], index: usize) -> Option<u32> {
    bytes.get(index * 4..)?.first_chunk::<4>().map(|word| u32::from_ne_bytes(*word))
}

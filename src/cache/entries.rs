//! The members of a `jsonb` object, each value as a `jsonb` of its own, without a way through text.
//!
//! The binary form is described in the server's `utils/jsonb.h`: a container is a word of flags and a count, then a word
//! for each child (its type and its length, or now and then its end), then the children. A scalar by itself is stored
//! as an array of one, marked as such.

use crate::error::Error;

const COUNT: u32 = 0x0FFF_FFFF;
const SCALAR: u32 = 0x1000_0000;
const OBJECT: u32 = 0x2000_0000;
const ARRAY: u32 = 0x4000_0000;

const LENGTH: u32 = 0x0FFF_FFFF;
const TYPE: u32 = 0x7000_0000;
const TYPE_NUMERIC: u32 = 0x1000_0000;
const TYPE_CONTAINER: u32 = 0x5000_0000;
const IS_END: u32 = 0x8000_0000;

/// The words and children of a container.
struct Container<'j> {
    bytes: &'j [u8],
    count: usize,
    /// Where the children start.
    data: usize,
}

impl<'j> Container<'j> {
    fn word(&self, index: usize) -> Option<u32> {
        let bytes = self.bytes.get(index * 4..)?.first_chunk::<4>()?;
        Some(u32::from_ne_bytes(*bytes))
    }

    /// The `index`-th child's type and bytes, given where the one before it ends.
    fn child(&self, index: usize, start: &mut usize) -> Option<(u32, &'j [u8])> {
        let entry = self.word(index + 1)?;
        let size = (entry & LENGTH) as usize;
        let end = if entry & IS_END == 0 { start.checked_add(size)? } else { size };
        let kind = entry & TYPE;
        // Numbers and containers are aligned, and the padding before them counts as theirs.
        let padded = matches!(kind, TYPE_NUMERIC | TYPE_CONTAINER);
        let from = if padded { start.next_multiple_of(4) } else { *start };
        *start = end;
        Some((kind, self.bytes.get(self.data.checked_add(from)?..self.data.checked_add(end)?)?))
    }
}

/// A child as a `jsonb` of its own.
fn standalone(kind: u32, bytes: &[u8]) -> Option<Vec<u8>> {
    if kind == TYPE_CONTAINER {
        return Some(bytes.to_vec());
    }
    let length = u32::try_from(bytes.len()).ok()?;
    let words = [1 | SCALAR | ARRAY, kind | length | IS_END];
    Some(words.into_iter().flat_map(u32::to_ne_bytes).chain(bytes.iter().copied()).collect())
}

/// Names, and values as `jsonb` of their own.
pub type Members<'j> = Vec<(&'j [u8], Vec<u8>)>;

/// The members of an object; `None` where the bytes are laid out otherwise.
fn parse(bytes: &[u8]) -> Option<Members<'_>> {
    let mut container = Container { bytes, count: 0, data: 0 };
    container.count = (container.word(0)? & COUNT) as usize;
    container.data = container.count.checked_mul(8)?.checked_add(4)?;
    let mut start = 0;
    // All keys come before all values.
    let keys: Option<Vec<_>> =
        (0..container.count).map(|index| container.child(index, &mut start).map(|(_, key)| key)).collect();
    keys?
        .into_iter()
        .enumerate()
        .map(|(index, key)| {
            let (kind, bytes) = container.child(container.count + index, &mut start)?;
            Some((key, standalone(kind, bytes)?))
        })
        .collect()
}

fn is_object(bytes: &[u8]) -> bool {
    bytes.first_chunk::<4>().is_some_and(|word| u32::from_ne_bytes(*word) & OBJECT != 0)
}

/// The keys and values of the object that `argument` must be.
pub fn members<'j>(argument: &'static str, bytes: &'j [u8]) -> Result<Members<'j>, Error> {
    if !is_object(bytes) {
        return Err(Error::invalid(argument, "not an object", "a jsonb object: its members are the entries"));
    }
    parse(bytes).ok_or_else(|| Error::Internal { problem: "a jsonb is not laid out as expected".into() })
}

#[cfg(test)]
mod tests {
    use super::members;

    #[test]
    fn damaged_or_foreign_bytes_are_an_error() {
        let object: Vec<u8> =
            [0x2000_0001_u32, 0x8000_0001, 0x4000_0000].into_iter().flat_map(u32::to_ne_bytes).chain([b'k']).collect();
        let null: Vec<u8> = [0x5000_0001_u32, 0xC000_0000].into_iter().flat_map(u32::to_ne_bytes).collect();
        assert_eq!(members("entries", &object), Ok(vec![(&b"k"[..], null.clone())]));
        assert!(members("entries", &null).is_err());
        for len in 0..object.len() {
            assert!(members("entries", &object[..len]).is_err(), "{len} bytes");
        }
    }
}

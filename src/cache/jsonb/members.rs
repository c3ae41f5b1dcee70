//! The members of an object, one by one, each value as a `jsonb` of its own.

use super::{COUNT, IS_END, LENGTH, OBJECT, ONE_SCALAR, TYPE, TYPE_CONTAINER, TYPE_NUMERIC, word};
use crate::error::Error;
use crate::pg::memory::PgVec;

/// The members of an object that haven't been looked at yet.
#[derive(Debug, Clone)]
pub struct Members<'j> {
    bytes: &'j [u8],
    count: usize,
    /// Where the children start.
    data: usize,
    next: usize,
    /// Where the next key and the next value start, counted from the first child: all keys come before all values.
    key: usize,
    value: usize,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub struct Member<'j> {
    /// Its name.
    pub key: &'j [u8],
    kind: u32,
    bytes: &'j [u8],
}

impl<'j> Members<'j> {
    /// The `index`-th child's type and bytes; `start` is where the one before it ends, and becomes where it ends itself.
    fn child(&self, index: usize, start: &mut usize) -> Option<(u32, &'j [u8])> {
        let entry = word(self.bytes, index + 1)?;
        let size = (entry & LENGTH) as usize;
        let end = if entry & IS_END == 0 { start.checked_add(size)? } else { size };
        let kind = entry & TYPE;
        // Numbers and containers are aligned, and the padding before them counts as theirs.
        let padded = matches!(kind, TYPE_NUMERIC | TYPE_CONTAINER);
        let from = if padded { start.next_multiple_of(4) } else { *start };
        *start = end;
        Some((kind, self.bytes.get(self.data.checked_add(from)?..self.data.checked_add(end)?)?))
    }

    fn parse(bytes: &'j [u8]) -> Option<Self> {
        let count = (word(bytes, 0)? & COUNT) as usize;
        let data = count.checked_mul(8)?.checked_add(4)?;
        let mut members = Members { bytes, count, data, next: 0, key: 0, value: 0 };
        let mut end = 0;
        for index in 0..count {
            members.child(index, &mut end)?;
        }
        members.value = end;
        Some(members)
    }

    fn member(&mut self) -> Option<Member<'j>> {
        let (index, mut key_end, mut value_end) = (self.next, self.key, self.value);
        let (_, key) = self.child(index, &mut key_end)?;
        let (kind, bytes) = self.child(self.count + index, &mut value_end)?;
        (self.next, self.key, self.value) = (index + 1, key_end, value_end);
        Some(Member { key, kind, bytes })
    }
}

fn misshapen() -> Error {
    Error::Internal { problem: "a jsonb is not laid out as expected".into() }
}

impl<'j> Iterator for Members<'j> {
    type Item = Result<Member<'j>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.count {
            return None;
        }
        let member = self.member();
        if member.is_none() {
            self.next = self.count;
        }
        Some(member.ok_or_else(misshapen))
    }
}

impl<'j> Member<'j> {
    /// Its value as a `jsonb` of its own, in `room` where it must be made.
    pub fn value<'v>(&self, room: &'v mut PgVec<u8>) -> Result<&'v [u8], Error>
    where
        'j: 'v,
    {
        if self.kind == TYPE_CONTAINER {
            return Ok(self.bytes);
        }
        let length = u32::try_from(self.bytes.len()).map_err(|_| misshapen())?;
        room.clear();
        room.extend_from_slice(&ONE_SCALAR.to_ne_bytes());
        room.extend_from_slice(&(self.kind | length | IS_END).to_ne_bytes());
        room.extend_from_slice(self.bytes);
        Ok(room)
    }
}

/// The members of the object that `argument` must be.
pub fn members<'j>(argument: &'static str, bytes: &'j [u8]) -> Result<Members<'j>, Error> {
    if word(bytes, 0).is_none_or(|word| word & OBJECT == 0) {
        return Err(Error::invalid(argument, "not an object", "a jsonb object: its members are the entries"));
    }
    Members::parse(bytes).ok_or_else(misshapen)
}

#[cfg(test)]
mod tests {
    use super::super::null;
    use super::members;
    use crate::error::Error;
    use crate::pg::memory::PgVec;

    type Parsed = Result<Vec<(Vec<u8>, Vec<u8>)>, Error>;

    fn parsed(bytes: &[u8]) -> Parsed {
        let mut room = PgVec::new();
        members("entries", bytes)?
            .map(|one| one.and_then(|one| Ok((one.key.to_vec(), one.value(&mut room)?.to_vec()))))
            .collect()
    }

    #[test]
    fn damaged_or_foreign_bytes_are_an_error() {
        let object: Vec<u8> =
            [0x2000_0001_u32, 0x8000_0001, 0x4000_0000].into_iter().flat_map(u32::to_ne_bytes).chain([b'k']).collect();
        assert_eq!(parsed(&object), Ok(vec![(b"k".to_vec(), null().to_vec())]));
        assert!(members("entries", &null()).is_err());
        for len in 0..object.len() {
            assert!(parsed(&object[..len]).is_err(), "{len} bytes");
        }
    }
}

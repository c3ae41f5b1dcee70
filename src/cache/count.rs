//! Counters: whole numbers that many sessions add to.

use super::jsonb::number;
use crate::coherent::key::Key;
use crate::coherent::settings::REGION;
use crate::error::Error;
use crate::pg::server;
use crate::shmem::Segment;
use enough_engine::cache::{Item, Kind, Partition as Cache, Progress, Reservation, Tags};
use std::num::IntErrorKind;

/// What became of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Its new value.
    Is(i64),
    /// There is no entry, and none is to be made.
    Absent,
    /// The entry isn't a whole number.
    NotANumber,
    /// The new value, or the old one, has more than 64 bits.
    OutOfRange,
    /// Some memory must be freed first.
    Again,
    /// There is no memory that isn't reserved.
    Full,
}

/// Adds to the number under a key, atomically among sessions. One that isn't there counts as 0 and gets `new`, the expiry
/// of a new entry; without that it stays absent.
pub fn add(segment: &Segment, key: Key<'_>, by: i64, new: Option<u64>, now: u64) -> Result<Count, Error> {
    let Key { hash: key, name } = key;
    let partition = segment.partition_of(REGION, key);
    loop {
        let count = partition.exclusive(|words| {
            let cache = Cache::open(words)?;
            let found = cache.find(key, now)?;
            // A number may have come with two bytes more than it needs.
            let mut bytes = [0; number::LONGEST + 2];
            let Some(expiry) = found.map(|found| found.expiry).or(new) else {
                cache.count_miss(server::stripe());
                return Ok(Count::Absent);
            };
            let old = match found {
                None => Ok(0),
                Some(found) if found.kind != Kind::Json => return Ok(Count::NotANumber),
                Some(found) => match bytes.get_mut(..found.len) {
                    Some(bytes) => {
                        cache.copy(found, bytes)?;
                        number::decode(bytes)
                    }
                    None => return Ok(Count::NotANumber),
                },
            };
            let new = match old.map(|old| old.checked_add(by)) {
                Ok(Some(new)) => new,
                Ok(None) | Err(IntErrorKind::PosOverflow | IntErrorKind::NegOverflow) => return Ok(Count::OutOfRange),
                Err(_) => return Ok(Count::NotANumber),
            };
            let encoded = number::encode(new);
            let tags = found.map_or(Ok(Tags::default()), |found| cache.tags(found))?;
            let mut request = Reservation::tagged(encoded.bytes().len(), tags);
            request.keep_name(name);
            match cache.reserve(&mut request, now)? {
                Progress::Ready => {}
                Progress::Full => return Ok(Count::Full),
                Progress::More => {
                    cache.release(&mut request)?;
                    return Ok(Count::Again);
                }
            }
            cache.fill_named(&request, name, encoded.bytes())?;
            let item = Item { key, database: server::database(), expiry, kind: Kind::Json };
            cache.publish(&mut request, &item)?;
            Ok(Count::Is(new))
        })?;
        if count != Count::Again {
            return Ok(count);
        }
    }
}

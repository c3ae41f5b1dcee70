//! Entries as they lie in the segment: copies of rows, which stand for them where a SELECT of the caller's would see what is committed and
//! nothing else. Else, and where there is no copy, the table is read; a session that reads it so that a copy could stand for it, leaves one.

use super::arguments::LONGEST_KEY;
use super::known;
use super::read::{self, Entry};
use super::table::{MADE_BY, Space};
use crate::coherent::rows::{self, Filling};
use crate::error::Error;
use crate::pg::fmgr::{Buffer, Call, FastResult, Text, Value};
use crate::shmem::{self, Domain, segment};
use enough_engine::cache::NEVER;

/// Behind the value of a copy stand the version and the moment of the last change, 8 bytes each.
const STAMP: usize = 16;

/// A copy.
struct Copied {
    buffer: Buffer,
    expiry: u64,
}

impl Copied {
    fn value(&self) -> &[u8] {
        let bytes = self.buffer.bytes();
        bytes.get(..bytes.len().saturating_sub(STAMP)).unwrap_or_default()
    }

    /// The version, and the moment of the last change.
    fn stamp(&self) -> (i64, i64) {
        match self.buffer.bytes().as_rchunks::<8>().1 {
            [.., version, updated_at] => (i64::from_ne_bytes(*version), i64::from_ne_bytes(*updated_at)),
            _ => (0, 0),
        }
    }
}

/// What is found under a key.
enum Found {
    Copy(Copied),
    Row(Option<Entry>),
}

/// `kv_get`, of a small value that is asked for often.
#[inline(always)]
pub(super) fn get_fast(call: &Call<'_>) -> Option<FastResult> {
    let key = call.plain_bytes(0).filter(|key| (1..=LONGEST_KEY).contains(&key.len()))?;
    let space = if call.is_null(1) { b"default" } else { call.plain_bytes(1)? };
    let segment = shmem::known()?;
    let domain = known::readable(space)?;
    let mut buffer = rows::read_optimistic(segment, segment.hash_in(domain, key))?;
    buffer.cut(STAMP);
    Some(FastResult::buffer(buffer))
}

/// The value of a key.
pub(super) fn value(space: &Space, key: Text<'_>) -> Result<Value<'static>, Error> {
    let made = |value: Vec<u8>| Buffer::holding(&value).into_value();
    // What copies are made of takes a right on more columns.
    let Some(domain) = known::look(&space.name) else { return Ok(Value::or_null(read::value(space, key)?, made)) };
    Ok(match find(space, domain, key)? {
        Found::Copy(Copied { mut buffer, .. }) => {
            buffer.cut(STAMP);
            buffer.into_value()
        }
        Found::Row(entry) => Value::or_null(entry, |entry| made(entry.value)),
    })
}

/// A key's entry, to be put into a row: value, version, last change, end.
pub(super) fn entry(
    space: &Space,
    key: Text<'_>,
    put: impl FnOnce(&[Value<'_>; 4]) -> Result<(), Error>,
) -> Result<(), Error> {
    let row = |value: &[u8], version, updated_at, expires_at| {
        put(&[
            Value::Bytes(value),
            Value::I64(version),
            Value::Instant(updated_at),
            Value::or_null(expires_at, Value::Instant),
        ])
    };
    let found = match known::look(&space.name) {
        Some(domain) => find(space, domain, key)?,
        None => Found::Row(read::entry(space, key)?),
    };
    match found {
        Found::Copy(copy) => {
            let (version, updated_at) = copy.stamp();
            let expires_at = (copy.expiry != NEVER).then_some(copy.expiry.cast_signed());
            row(copy.value(), version, updated_at, expires_at)
        }
        Found::Row(Some(entry)) => row(&entry.value, entry.version, entry.updated_at, entry.expires_at),
        Found::Row(None) => Ok(()),
    }
}

/// Whether a key has an entry.
pub(super) fn has(space: &Space, key: Text<'_>) -> Result<bool, Error> {
    if let Some(domain) = known::look(&space.name) {
        let segment = segment()?;
        if rows::is_there(segment, segment.hash_in(domain, key.payload()))? {
            return Ok(true);
        }
    }
    read::has(space, key)
}

/// What is found under a key by a session that may take and leave copies.
fn find(space: &Space, domain: Domain, key: Text<'_>) -> Result<Found, Error> {
    let segment = segment()?;
    let row = segment.hash_in(domain, key.payload());
    if let Some((buffer, expiry)) = rows::read(segment, row)? {
        return Ok(Found::Copy(Copied { buffer, expiry }));
    }
    // Before the snapshot that the row is seen by.
    let filling = Filling::begin(segment)?;
    let mut entry = read::entry(space, key)?;
    if let (Some(filling), Some(Entry { value, version, updated_at, expires_at })) = (filling, &mut entry) {
        let len = value.len();
        value.extend(version.to_ne_bytes());
        value.extend(updated_at.to_ne_bytes());
        let expiry = expires_at.map_or(NEVER, |at| u64::try_from(at).unwrap_or(0));
        filling.store(segment, row, value, expiry)?;
        value.truncate(len);
    }
    Ok(Found::Row(entry))
}

/// `_kv_copies`, of a row as it was.
pub(super) fn changed(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let trigger = call.required_trigger("_kv_copies", MADE_BY)?;
    let Some([before, _]) = trigger.rows() else { return Ok(Value::VOID) };
    // A key that isn't a text has never had a copy since the table has its file.
    if let Some(key) = before.and_then(|row| row.text_at(known::KEY))
        && let Some(domain) = known::of_table(trigger.relation())?
    {
        rows::end(domain, key)?;
    }
    Ok(Value::VOID)
}

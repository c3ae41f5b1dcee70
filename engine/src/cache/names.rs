//! Names: the text of an entry's key, which else is known by its hash alone, for listing what is there.
//!
//! A name lies between an entry's tags and its value. Entries are listed by buckets: an entry stays in its bucket as long as
//! it lives, so a walk from bucket to bucket meets each that is there all the time, and none twice.

use super::entry::read_bytes;
use super::entry::{EXPIRY, KEPT, META, NAME_MASK, NAME_SHIFT, tag_count};
use super::layout::{NIL, Partition, at};
use crate::hash::KeyHash;
use crate::words::Corrupt;

/// Longest name in bytes.
pub const MAX_NAME: usize = 512;

const _: () = assert!(MAX_NAME < NAME_MASK as usize);

/// What META says of a name.
#[inline]
pub(super) fn name_bits(name: Option<&[u8]>) -> u64 {
    name.map_or(0, |name| name.len() as u64 + 1) << NAME_SHIFT
}

/// An entry with a name.
#[derive(Debug)]
pub struct Named<'n> {
    /// What it is known by.
    pub key: KeyHash,
    /// The name that it was given, which may be another database's.
    pub name: &'n [u8],
    /// Bytes of its value.
    pub len: usize,
    /// When it is over.
    pub expiry: u64,
}

impl Partition<'_> {
    /// Calls `each` with the entries in the `bucket`-th bucket that have names, are neither expired nor cleared, and aren't only
    /// kept. False where there is no such bucket. Shared lock.
    pub fn names(&self, bucket: usize, now: u64, each: &mut dyn FnMut(&Named<'_>)) -> Result<bool, Corrupt> {
        if bucket >= self.buckets as usize {
            return Ok(false);
        }
        let mut name = [0; MAX_NAME];
        let mut block = self.bucket(bucket)?;
        // A chain longer than the arena has blocks runs in a circle.
        for _ in self.first..self.end {
            if block == NIL {
                return Ok(true);
            }
            let meta = self.get(at(block, META))?;
            if let Some(len) = (meta >> NAME_SHIFT & NAME_MASK).checked_sub(1)
                && !self.is_gone(block, now)?
            {
                let expiry = self.get(at(block, EXPIRY))?;
                let expiry = if meta & KEPT == 0 { expiry } else { expiry.min(self.over_at(block)?) };
                let name = self.read_name(block, meta, name.get_mut(..len as usize).ok_or(Corrupt)?)?;
                if expiry > now {
                    each(&Named { key: self.key(block)?, name, len: self.value_len(block)?, expiry });
                }
            }
            block = self.chained(block)?;
        }
        Err(Corrupt)
    }

    fn read_name<'n>(&self, block: u32, meta: u64, out: &'n mut [u8]) -> Result<&'n [u8], Corrupt> {
        let skip = usize::from(meta & KEPT != 0) + tag_count(meta)?;
        let mut rest: &mut [u8] = out;
        self.each_piece(block, skip, rest.len(), |piece, len| {
            let (now, later) = std::mem::take(&mut rest).split_at_mut_checked(len).ok_or(Corrupt)?;
            read_bytes(piece, now);
            rest = later;
            Ok(())
        })?;
        Ok(out)
    }
}

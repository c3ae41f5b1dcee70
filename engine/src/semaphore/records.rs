//! The memory of a partition: a head, the names' buckets, and records of one size. A record is free, a name, a part of a name's
//! text, a holder, or a waiter.

use crate::hash::KeyHash;
use crate::words::{Corrupt, Words, load, part, store, zero};
use crate::{fingerprint, fingerprint_of_fields};
use std::ops::Range;

/// The longest name, in bytes.
pub const MAX_NAME: usize = 512;

/// "semaphor"
const MAGIC: u64 = 0x7365_6d61_7068_6f72;
/// Words of the head.
const HEAD: usize = 16;
/// Words of a record.
pub(super) const RECORD: usize = 8;
/// Records a bucket.
const SHARE: usize = 4;
/// Words of a record that hold a name's text.
const TEXT: usize = RECORD - 1;

/// The words of the head.
#[derive(Clone, Copy)]
pub(super) enum Head {
    Magic,
    /// When the partition was last looked at.
    Clock,
    /// The last token or ticket.
    Token,
    /// The first free record.
    Free,
    /// How many are free; then, in the order of the kinds, how many are each of the others.
    Left,
    Names,
    Pieces,
    Holders,
    Waiters,
    /// Tokens given.
    Taken,
    /// Calls that got none.
    Denied,
    /// Tokens that have expired.
    Expired,
}

/// The words of a record. The first says what it is, and which is next in its list.
#[derive(Clone, Copy)]
pub(super) enum R {
    Next,
    /// Of a name: its hash.
    High,
    Low,
    /// Its database and its length.
    Database,
    /// The first part of its text, and its first holder.
    Lists,
    /// The first and the last of its waiters.
    Line,
    /// How many hold it.
    Held,
}

/// The words of a holder or a waiter.
#[derive(Clone, Copy)]
pub(super) enum E {
    Next,
    /// Its name's record, and its process number.
    Owner,
    /// Its process ID and its role.
    Who,
    /// A token, or a ticket.
    Token,
    Since,
    /// When it expires, or stops waiting.
    Until,
    /// Of a waiter: at most so many holders.
    Max,
}

/// What a record is.
pub(super) const FREE: u32 = 0;
pub(super) const NAME: u32 = 1;
pub(super) const PIECE: u32 = 2;
pub(super) const HOLDER: u32 = 3;
pub(super) const WAITER: u32 = 4;

pub(super) const LAYOUT: u64 = fingerprint![
    MAGIC,
    HEAD,
    RECORD,
    SHARE,
    TEXT,
    MAX_NAME,
    FREE,
    NAME,
    PIECE,
    HOLDER,
    WAITER,
    fingerprint_of_fields!(Head {
        Magic,
        Clock,
        Token,
        Free,
        Left,
        Names,
        Pieces,
        Holders,
        Waiters,
        Taken,
        Denied,
        Expired
    }),
    fingerprint_of_fields!(R { Next, High, Low, Database, Lists, Line, Held }),
    fingerprint_of_fields!(E { Next, Owner, Who, Token, Since, Until, Max }),
];

fn join(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn split(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

/// A partition's records. Numbers of records count from 1; 0 is none.
#[derive(Clone, Copy)]
pub(super) struct Records<'a> {
    words: Words<'a>,
    pub(super) count: usize,
    buckets: usize,
}

impl<'a> Records<'a> {
    fn view(words: Words<'a>) -> Result<Self, Corrupt> {
        let room = words.len().checked_sub(HEAD).ok_or(Corrupt)?;
        let records = room * SHARE / (RECORD * SHARE + 1);
        // A name of the longest text, a holder and a session that waits.
        if records < 3 + MAX_NAME / 8 / TEXT || u32::try_from(records).is_err() {
            return Err(Corrupt);
        }
        Ok(Records { words, count: records, buckets: records / SHARE })
    }

    pub(super) fn format(words: Words<'a>) -> Result<(), Corrupt> {
        let all = Self::view(words)?;
        zero(words);
        for record in 1..=all.count as u32 {
            let next = if record as usize == all.count { 0 } else { record + 1 };
            all.set_pair(record, R::Next as usize, FREE, next)?;
        }
        all.set_head(Head::Free, 1)?;
        all.set_head(Head::Left, all.count as u64)?;
        all.set_head(Head::Magic, MAGIC)
    }

    pub(super) fn open(words: Words<'a>) -> Result<Self, Corrupt> {
        let all = Self::view(words)?;
        if all.head(Head::Magic)? == MAGIC { Ok(all) } else { Err(Corrupt) }
    }

    pub(super) fn head(&self, field: Head) -> Result<u64, Corrupt> {
        load(self.words, field as usize)
    }

    pub(super) fn set_head(&self, field: Head, value: u64) -> Result<(), Corrupt> {
        store(self.words, field as usize, value)
    }

    fn record(&self, record: u32) -> Result<Words<'a>, Corrupt> {
        let before = (record as usize).checked_sub(1).filter(|&at| at < self.count).ok_or(Corrupt)?;
        part(self.words, HEAD + self.buckets + before * RECORD, RECORD)
    }

    pub(super) fn get(&self, record: u32, field: usize) -> Result<u64, Corrupt> {
        load(self.record(record)?, field)
    }

    pub(super) fn set(&self, record: u32, field: usize, value: u64) -> Result<(), Corrupt> {
        store(self.record(record)?, field, value)
    }

    /// The two halves of a word.
    pub(super) fn pair(&self, record: u32, field: usize) -> Result<(u32, u32), Corrupt> {
        self.get(record, field).map(split)
    }

    pub(super) fn set_pair(&self, record: u32, field: usize, high: u32, low: u32) -> Result<(), Corrupt> {
        self.set(record, field, join(high, low))
    }

    pub(super) fn kind(&self, record: u32) -> Result<u32, Corrupt> {
        Ok(self.pair(record, R::Next as usize)?.0)
    }

    /// What follows a record of that kind in its list.
    pub(super) fn next(&self, record: u32, kind: u32) -> Result<u32, Corrupt> {
        let (found, next) = self.pair(record, R::Next as usize)?;
        if found == kind { Ok(next) } else { Err(Corrupt) }
    }

    pub(super) fn set_next(&self, record: u32, kind: u32, next: u32) -> Result<(), Corrupt> {
        self.set_pair(record, R::Next as usize, kind, next)
    }

    /// Adds to one of the counters.
    pub(super) fn count(&self, counter: Head, more: u64) -> Result<(), Corrupt> {
        self.set_head(counter, self.head(counter)?.wrapping_add(more))
    }

    /// A record of one kind has become one of another.
    pub(super) fn recount(&self, from: u32, to: u32) -> Result<(), Corrupt> {
        let (from, to) = (Self::counter(from)?, Self::counter(to)?);
        store(self.words, from, load(self.words, from)?.checked_sub(1).ok_or(Corrupt)?)?;
        store(self.words, to, load(self.words, to)?.wrapping_add(1))
    }

    /// The word that has how many records are of a kind.
    fn counter(kind: u32) -> Result<usize, Corrupt> {
        if kind > WAITER { Err(Corrupt) } else { Ok(Head::Left as usize + kind as usize) }
    }

    /// How many records are of a kind.
    pub(super) fn how_many(&self, kind: u32) -> Result<u64, Corrupt> {
        load(self.words, Self::counter(kind)?)
    }

    /// How many records are free.
    pub(super) fn left(&self) -> Result<usize, Corrupt> {
        self.how_many(FREE).map(|left| left as usize)
    }

    /// A free record; the caller has seen that one is left.
    pub(super) fn allocate(&self, kind: u32) -> Result<u32, Corrupt> {
        let record = u32::try_from(self.head(Head::Free)?).map_err(|_| Corrupt)?;
        let next = self.next(record, FREE)?;
        self.set_head(Head::Free, u64::from(next))?;
        self.recount(FREE, kind)?;
        self.set_next(record, kind, 0)?;
        Ok(record)
    }

    pub(super) fn free(&self, record: u32) -> Result<(), Corrupt> {
        let kind = self.kind(record)?;
        if kind == FREE {
            return Err(Corrupt);
        }
        self.set_next(record, FREE, self.head(Head::Free)? as u32)?;
        self.set_head(Head::Free, u64::from(record))?;
        self.recount(kind, FREE)
    }

    /// The words of the buckets.
    pub(super) fn buckets(&self) -> Range<usize> {
        HEAD..HEAD + self.buckets
    }

    /// The word of the bucket of a hash.
    pub(super) fn bucket(&self, high: u64) -> usize {
        HEAD + (high as u32 as usize) % self.buckets
    }

    pub(super) fn bucket_head(&self, bucket: usize) -> Result<u32, Corrupt> {
        load(self.words, bucket).map(|word| word as u32)
    }

    pub(super) fn find(&self, hash: KeyHash) -> Result<Option<u32>, Corrupt> {
        let mut name = self.bucket_head(self.bucket(hash.high))?;
        for _ in 0..=self.count {
            if name == 0 {
                return Ok(None);
            }
            let next = self.next(name, NAME)?;
            if self.get(name, R::High as usize)? == hash.high && self.get(name, R::Low as usize)? == hash.low {
                return Ok(Some(name));
            }
            name = next;
        }
        Err(Corrupt)
    }

    /// How many records a name of that length takes.
    pub(super) fn size(len: usize) -> usize {
        1 + len.div_ceil(TEXT * 8)
    }

    /// A name's record, with its text; the caller has seen that there is room.
    pub(super) fn add_name(&self, hash: KeyHash, database: u32, text: &[u8]) -> Result<u32, Corrupt> {
        let name = self.allocate(NAME)?;
        let mut first = 0;
        for bytes in text.chunks(TEXT * 8).rev() {
            let piece = self.allocate(PIECE)?;
            for (at, word) in bytes.chunks(8).enumerate() {
                let word = word.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
                self.set(piece, 1 + at, word)?;
            }
            self.set_next(piece, PIECE, first)?;
            first = piece;
        }
        self.set(name, R::High as usize, hash.high)?;
        self.set(name, R::Low as usize, hash.low)?;
        self.set_pair(name, R::Database as usize, database, u32::try_from(text.len()).map_err(|_| Corrupt)?)?;
        self.set_pair(name, R::Lists as usize, first, 0)?;
        self.set(name, R::Line as usize, 0)?;
        self.set(name, R::Held as usize, 0)?;
        let bucket = self.bucket(hash.high);
        self.set_next(name, NAME, self.bucket_head(bucket)?)?;
        store(self.words, bucket, u64::from(name))?;
        Ok(name)
    }

    /// Writes a name's text to `text`; its length.
    pub(super) fn text(&self, name: u32, text: &mut [u8; MAX_NAME]) -> Result<usize, Corrupt> {
        let len = self.pair(name, R::Database as usize)?.1 as usize;
        let mut piece = self.pair(name, R::Lists as usize)?.0;
        for bytes in text.get_mut(..len).ok_or(Corrupt)?.chunks_mut(TEXT * 8) {
            let next = self.next(piece, PIECE)?;
            for (at, into) in bytes.chunks_mut(8).enumerate() {
                let word = self.get(piece, 1 + at)?.to_le_bytes();
                into.copy_from_slice(word.get(..into.len()).ok_or(Corrupt)?);
            }
            piece = next;
        }
        Ok(len)
    }

    /// Takes a name that nobody holds or waits for out of its bucket.
    pub(super) fn remove_name(&self, name: u32) -> Result<(), Corrupt> {
        let bucket = self.bucket(self.get(name, R::High as usize)?);
        let after = self.next(name, NAME)?;
        let mut before = 0;
        let mut at = self.bucket_head(bucket)?;
        for _ in 0..=self.count {
            if at == name {
                break;
            }
            before = at;
            at = self.next(at, NAME)?;
        }
        match (at == name, before) {
            (false, _) => return Err(Corrupt),
            (true, 0) => store(self.words, bucket, u64::from(after))?,
            (true, before) => self.set_next(before, NAME, after)?,
        }
        let mut piece = self.pair(name, R::Lists as usize)?.0;
        for _ in 0..=MAX_NAME {
            if piece == 0 {
                return self.free(name);
            }
            let next = self.next(piece, PIECE)?;
            self.free(piece)?;
            piece = next;
        }
        Err(Corrupt)
    }
}

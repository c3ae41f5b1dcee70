//! Records: taking and freeing them, finding one by its message, the lists they are in.

use super::layout::{BUSY, Head, LEASED, Partition, Q, R, READY, spread};
use crate::fingerprint;
use crate::words::Corrupt;

/// What a record's word `Kind` says: list (5 bits), priority (4), origin (5), two flags, half of the row's tag (16), and
/// in the upper half the owner.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Kind {
    pub list: usize,
    pub priority: usize,
    pub timed: bool,
    /// Whether the lease that runs was counted as an attempt.
    pub counted: bool,
    /// The list that a busy message came from; what a group knows (`group.rs`).
    pub origin: usize,
    /// The second half of the row's tag.
    pub writer: u16,
    /// The waiting session's process number; the group's record of a message that has one; the process number of a group's prober, plus 1.
    pub owner: u32,
}

/// Message numbers with buckets in a row: 8 cache lines.
const ROW: u64 = 64;

impl Kind {
    /// The bits of `list`.
    const LIST: u64 = 31;

    #[inline]
    fn pack(self) -> u64 {
        self.list as u64 & Self::LIST
            | (self.priority as u64 & 15) << 5
            | (self.origin as u64 & 31) << 9
            | u64::from(self.timed) << 14
            | u64::from(self.counted) << 15
            | u64::from(self.writer) << 16
            | u64::from(self.owner) << 32
    }

    #[inline]
    fn unpack(word: u64) -> Self {
        Kind {
            list: (word & Self::LIST) as usize,
            priority: (word >> 5 & 15) as usize,
            origin: (word >> 9 & 31) as usize,
            timed: word >> 14 & 1 == 1,
            counted: word >> 15 & 1 == 1,
            writer: (word >> 16) as u16,
            owner: (word >> 32) as u32,
        }
    }
}

impl Partition<'_> {
    #[inline(always)]
    pub(super) fn kind(&self, record: u32) -> Result<Kind, Corrupt> {
        Ok(Kind::unpack(self.r(record, R::Kind)?))
    }

    #[inline(always)]
    pub(super) fn set_kind(&self, record: u32, kind: Kind) -> Result<(), Corrupt> {
        self.set_r(record, R::Kind, kind.pack())
    }

    /// A free record, if there is one. It is in no list.
    pub(super) fn allocate(&self) -> Result<Option<u32>, Corrupt> {
        let record = self.head(Head::FreeRecord)? as u32;
        if record == 0 {
            return Ok(None);
        }
        self.set_head(Head::FreeRecord, u64::from(self.half(record, R::Chain, true)?))?;
        self.set_head(Head::FreeRecords, self.head(Head::FreeRecords)?.saturating_sub(1))?;
        self.set_r(record, R::Chain, 0)?;
        self.set_r(record, R::Links, 0)?;
        Ok(Some(record))
    }

    /// Gives a record back that is in no list.
    pub(super) fn free(&self, record: u32) -> Result<(), Corrupt> {
        self.set_r(record, R::Kind, 0)?;
        self.set_r(record, R::Attempts, 0)?;
        self.set_r(record, R::Chain, 0)?;
        self.set_half(record, R::Chain, true, self.head(Head::FreeRecord)? as u32)?;
        self.set_head(Head::FreeRecord, u64::from(record))?;
        self.set_head(Head::FreeRecords, self.head(Head::FreeRecords)?.saturating_add(1))
    }

    /// Where the chain of a message begins. Messages of successive numbers, which come and go together, have successive
    /// buckets: a few cache lines instead of one each. Where their row of buckets begins is as good as random, so chains
    /// are no longer for it.
    #[inline]
    fn bucket(&self, slot: u32, msg_id: i64) -> usize {
        let (row, place) = (msg_id.cast_unsigned() / ROW, msg_id.cast_unsigned() % ROW);
        let hash = spread(row ^ u64::from(slot) << 48);
        let bucket = ((u64::from(hash) * self.records as u64) >> 32) as usize + place as usize;
        let buckets = self.records;
        if bucket < buckets { bucket } else { bucket.checked_rem(buckets).unwrap_or(0) }
    }

    /// The record of a message; with [`g::BIT`](super::layout::g::BIT) in `slot`, of a group by its hash.
    #[inline]
    pub(super) fn lookup(&self, slot: u32, msg_id: i64) -> Result<Option<u32>, Corrupt> {
        let mut record = self.slot_half(self.bucket(slot, msg_id), true)?;
        for _ in 0..=self.records {
            if record == 0 {
                return Ok(None);
            }
            if self.r(record, R::MsgId)?.cast_signed() == msg_id && self.half(record, R::Attempts, false)? == slot {
                return Ok(Some(record));
            }
            record = self.half(record, R::Chain, true)?;
        }
        Err(Corrupt)
    }

    pub(super) fn hash_in(&self, record: u32, slot: u32, msg_id: i64) -> Result<(), Corrupt> {
        let bucket = self.bucket(slot, msg_id);
        self.set_half(record, R::Chain, true, self.slot_half(bucket, true)?)?;
        self.set_slot_half(bucket, true, record)
    }

    pub(super) fn hash_out(&self, record: u32, slot: u32, msg_id: i64) -> Result<(), Corrupt> {
        let bucket = self.bucket(slot, msg_id);
        let next = self.half(record, R::Chain, true)?;
        let mut at = self.slot_half(bucket, true)?;
        if at == record {
            return self.set_slot_half(bucket, true, next);
        }
        for _ in 0..=self.records {
            let following = self.half(at, R::Chain, true)?;
            if following == record {
                return self.set_half(at, R::Chain, true, next);
            }
            at = following;
        }
        Err(Corrupt)
    }

    /// Puts a record into a list of its queue, at its front or its end.
    pub(super) fn link(&self, slot: u32, record: u32, list: usize, front: bool) -> Result<(), Corrupt> {
        let (first, last, len) = self.list(slot, list)?;
        if len == 0 {
            self.set_r(record, R::Links, 0)?;
            self.set_list(slot, list, record, record, 1)?;
        } else if front {
            self.set_r(record, R::Links, u64::from(first) << 32)?;
            self.set_half(first, R::Links, false, record)?;
            self.set_list(slot, list, record, last, len.saturating_add(1))?;
        } else {
            self.set_r(record, R::Links, u64::from(last))?;
            self.set_half(last, R::Links, true, record)?;
            self.set_list(slot, list, first, record, len.saturating_add(1))?;
        }
        if list < READY && len == 0 {
            self.set_q(slot, Q::Bitmap, self.q(slot, Q::Bitmap)? | 1 << list)?;
        }
        let kind = self.r(record, R::Kind)? & !Kind::LIST | list as u64 & Kind::LIST;
        self.set_r(record, R::Kind, kind)?;
        if kind >> 32 == 0 { Ok(()) } else { self.enter_lane(record) }
    }

    /// Puts a record, which is in no list, behind another one of a list.
    pub(super) fn link_behind(&self, slot: u32, record: u32, list: usize, before: u32) -> Result<(), Corrupt> {
        let (first, last, len) = self.list(slot, list)?;
        let next = self.half(before, R::Links, true)?;
        self.set_r(record, R::Links, u64::from(next) << 32 | u64::from(before))?;
        self.set_half(before, R::Links, true, record)?;
        if next == 0 {
            self.set_list(slot, list, first, record, len.saturating_add(1))?;
        } else {
            self.set_half(next, R::Links, false, record)?;
            self.set_list(slot, list, first, last, len.saturating_add(1))?;
        }
        self.set_r(record, R::Kind, self.r(record, R::Kind)? & !Kind::LIST | list as u64 & Kind::LIST)
    }

    /// Takes a record out of the list it is in.
    pub(super) fn unlink(&self, slot: u32, record: u32) -> Result<(), Corrupt> {
        let Kind { list, origin, owner, .. } = self.kind(record)?;
        if owner != 0 {
            self.leave_lane(slot, record)?;
        }
        if list == BUSY && self.half(record, R::Chain, false)? != 0 {
            self.leave_doubt(slot, record)?;
        }
        let (mut first, mut last, len) = self.list(slot, list)?;
        let links = self.r(record, R::Links)?;
        let (next, previous) = ((links >> 32) as u32, links as u32);
        if next == 0 {
            last = previous;
        } else {
            self.set_half(next, R::Links, false, previous)?;
        }
        if previous == 0 {
            first = next;
        } else {
            self.set_half(previous, R::Links, true, next)?;
        }
        self.set_list(slot, list, first, last, len.checked_sub(1).ok_or(Corrupt)?)?;
        if list == BUSY && origin != LEASED {
            self.count(slot, Q::BusyUnleased, -1)?;
        }
        if list < READY && len == 1 {
            self.set_q(slot, Q::Bitmap, self.q(slot, Q::Bitmap)? & !(1 << list))?;
        }
        self.set_r(record, R::Links, 0)
    }
}

/// What of this file the layout version depends on.
pub(super) const LAYOUT: u64 = fingerprint![ROW, Kind::LIST];

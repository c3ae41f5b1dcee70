//! What lies where in a queue partition, and access to it by name.
//!
//! ```text
//! head | queue buckets | queues | rates | message buckets and links of timers | records
//! ```
//! A record is a message in the index (ready, leased, delayed, or busy while an open transaction changes it), a session
//! that waits for one or for its end, a group of messages, or what was delivered of one lately. Links are record numbers from 1 on; 0 ends a list.
//! Two links share a word.

use crate::window::{COUNTS, Window};
use crate::words::{Corrupt, Words, load, store};
use crate::{fingerprint, fingerprint_of_fields};

/// Words of a record.
const RECORD: usize = 8;
/// Words of a queue.
const QUEUE: usize = 200;
/// Words of a histogram, each of two buckets; and how many a queue has (`durations.rs`).
pub(super) const HISTOGRAM: usize = 16;
pub(super) const HISTOGRAM_COUNT: usize = 2;
/// Words of a queue's rate: when the running step of its window started, then the steps' counts, two to a word.
const RATE: usize = 1 + COUNTS.div_ceil(2);
/// Words of the partition's head.
const HEAD: usize = 16;
/// A partition has room for one queue in so many words (8 KiB).
const WORDS_PER_QUEUE: usize = 1024;

/// Priorities go from 0 to 9; a higher one is delivered first.
pub const PRIORITIES: usize = 10;

/// Fields of the head.
#[derive(Clone, Copy)]
pub(super) enum Head {
    FreeRecord,
    FreeRecords,
    FreeQueue,
    NextLease,
    ReclaimHand,
    /// The time at which somebody has read last (`clock.rs`).
    Clock,
    /// Since when the numbers of leases follow the clock, and by how much they are ahead of it (`durations.rs`).
    LeaseSince,
    LeaseOffset,
}

/// Fields of a queue. A list takes two: its first and last record (halves of one word), and its length.
#[derive(Clone, Copy)]
#[repr(usize)]
pub(super) enum Q {
    /// Database and relation; 0 where the slot is free.
    Key = 0,
    /// The next queue in the bucket, or in the list of free slots.
    Next = 1,
    Flags = 2,
    Frontier = 3,
    Horizon = 4,
    /// The session that refills: process number + 1.
    Refiller = 5,
    /// While a refill runs: everything above was dropped since it began.
    FrontierFloor = 6,
    HorizonFloor = 7,
    Live = 8,
    /// Rows with a delivery time that aren't in the index. Those that come due are counted until a refill finds them.
    TimedOutside = 9,
    Sent = 10,
    Delivered = 11,
    Finished = 12,
    Failed = 13,
    VisibilityTimeout = 14,
    /// Upper half: how many of a group may be leased at a time (`lanes.rs`).
    MaxAttempts = 15,
    Backoff = 16,
    BackoffMax = 17,
    ArchiveFor = 18,
    Archived = 19,
    Dead = 20,
    Bitmap = 21,
    /// Upper half: the most messages in flight; lower half: the most deliveries in a period. 0 for no limit.
    Limits = 22,
    RatePeriod = 23,
    /// Busy messages that weren't leased: not in flight, as the others of them are.
    BusyUnleased = 24,
    /// Groups that have a record.
    Groups = 25,
    /// The table's file and its TOAST table (`identity.rs`); 0 where nobody has said yet.
    Files = 26,
    /// Nothing is outside above these; without a meaning where the frontier, or the horizon, is `i64::MAX`.
    FrontierEnd = 27,
    HorizonEnd = 28,
    /// The record on top of the timers (`timers.rs`).
    Timers = 29,
    /// When maintenance came by last, in microseconds.
    Maintained = 30,
    /// Where it goes on in the table, by number and by time, and in the archive; 0 for the beginning.
    ReconcileNumber = 31,
    ReconcileTime = 32,
    CleanArchive = 33,
    /// How often counting has begun.
    Counting = 34,
    /// When the last count was over, and how long it took.
    CountedAt = 35,
    CountTook = 36,
    /// When the first timer runs out.
    FirstDue = 37,
    /// When somebody has read last, or tried to; 0 for never.
    LastRead = 38,
    /// How many prepared transactions have changed the queue, and the records of them (`doubt.rs`).
    InDoubt = 39,
    Doubts = 40,
    /// When listeners were told last that the queue is ready.
    Notified = 104,
    /// How many messages of one group may be delivered in a period (`rates.rs`); 0 for no limit.
    GroupRate = 105,
    GroupRatePeriod = 106,
    /// The first lease that was counted by that: none was while there was no limit.
    GroupCounted = 107,
    /// Two words a list from here on.
    Lists = 108,
}

/// The most prepared transactions that may have changed a queue, and the words of each (`doubt.rs`).
pub const DOUBTS: usize = 8;
pub(super) const DOUBT: usize = 8;
const _: () = assert!(Q::Doubts as usize + DOUBTS * DOUBT <= Q::Notified as usize);

/// Lists of ready messages: two for each priority. The second one, which is read first, is for those that had their turn
/// before (`line_up`).
pub(super) const READY: usize = 2 * PRIORITIES;
/// The other lists of a queue.
pub(super) const LEASED: usize = READY;
pub(super) const DELAYED: usize = READY + 1;
pub(super) const BUSY: usize = READY + 2;
pub(super) const WAITING: usize = READY + 3;
pub(super) const USED_UP: usize = READY + 4;
/// Messages that could be read but for others of their group, which take all its lanes (`lanes.rs`).
pub(super) const PARKED: usize = READY + 5;
/// Sessions that wait for the end of a message (`awaited.rs`).
pub(super) const AWAITED: usize = READY + 6;
/// Messages that could be read but for the rate of their group (`rates.rs`).
pub(super) const HELD: usize = READY + 7;
/// No messages: what was delivered of groups lately.
pub(super) const RATED: usize = READY + 8;
pub(super) const LISTS: usize = READY + 9;
/// What the kind of a record says that is in no list: it is a group.
pub(super) const GROUP: usize = LISTS;
/// Where a busy message came from that was behind the head of its group, and in no list.
pub(super) const FOLLOWER: usize = LISTS + 1;
/// What the kind of a record says that is in no list: it belongs to one of [`RATED`].
pub(super) const EXTENSION: usize = LISTS + 2;
/// Where the histograms of a queue begin, one after the other (`durations.rs`).
const HISTOGRAMS: usize = Q::Lists as usize + 2 * LISTS;
const _: () = assert!(HISTOGRAMS + HISTOGRAM_COUNT * HISTOGRAM <= QUEUE);
// What `records.rs` gives them.
const _: () = assert!(EXTENSION < 32 && PRIORITIES <= 16);

/// Fields of a record.
#[derive(Clone, Copy)]
#[repr(usize)]
pub(super) enum R {
    MsgId = 0,
    /// Half of the row's tag << 48 | block << 16 | offset
    Tid = 1,
    /// When the lease ends, the delay is over, or the session that waits looks again, in microseconds.
    Due = 2,
    Lease = 3,
    /// Upper half: attempts; lower half: the queue's slot.
    Attempts = 4,
    /// List links: next, previous.
    Links = 5,
    /// Next in the bucket (or of the free records); the timer's later child, and whether it runs (`timers.rs`), or the next that
    /// is parked, or what a prepared transaction has done (`undecided.rs`).
    Chain = 6,
    /// See `records.rs`.
    Kind = 7,
}

/// The same words in the record of a group.
pub(super) mod g {
    use super::R;

    /// The hash of the group's key.
    pub const HASH: R = R::MsgId;
    /// The number of the message behind the head. Its priority, and whether it has a delivery time, are in `R::Kind`.
    pub const NEXT: R = R::Lease;
    /// Where its row is.
    pub const NEXT_TID: R = R::Tid;
    /// Its delivery time.
    pub const NEXT_DUE: R = R::Due;
    /// Upper half: its attempts.
    pub const NEXT_ATTEMPTS: R = R::Attempts;
    /// Upper half: the record of the head; 0 where there is none.
    pub const HEAD: R = R::Links;
    /// Lower half: how many messages in the index belong to it besides the head.
    pub const MEMBERS: R = R::Links;
    /// Lower half: how many of its messages are in flight.
    pub const RUNNING: R = R::Chain;
    /// Beside the queue's slot, in the lower half of `R::Attempts`: so that a group is no message.
    pub const BIT: u32 = 1 << 31;
}

/// The same words in a record of what was delivered of a group lately, a window of counts (`rates.rs`).
pub(super) mod w {
    use super::R;

    /// The hash of the group's key.
    pub const HASH: R = R::MsgId;
    /// When the running step started.
    pub const START: R = R::Due;
    /// Upper half: the count of the running step.
    pub const RUNNING: R = R::Attempts;
    /// The counts of those before: 8 bytes a word, or 2 halves a word where there is an extension.
    pub const BEFORE: [R; 2] = [R::Tid, R::Lease];
    /// Lower half: the extension; 0 where there is none.
    pub const EXTENSION: R = R::Chain;
    /// Of the extension: the counts that don't fit, 2 halves a word.
    pub const FURTHER: [R; 6] = [R::MsgId, R::Tid, R::Due, R::Lease, R::Links, R::Chain];
    /// Beside the queue's slot, in the lower half of `R::Attempts`: so that it is neither a message nor a group.
    pub const BIT: u32 = 3 << 30;
}

/// A partition of the queues' region.
#[derive(Clone, Copy)]
pub struct Partition<'a> {
    pub(super) words: Words<'a>,
    pub(super) queues: usize,
    pub(super) records: usize,
    at_queue_buckets: usize,
    at_queues: usize,
    at_rates: usize,
    at_halves: usize,
    at_records: usize,
}

impl<'a> Partition<'a> {
    /// The partition in these words, which [`format`](super::format) has been through.
    #[inline]
    pub fn new(words: Words<'a>) -> Self {
        let queues = (words.len() / WORDS_PER_QUEUE).max(1);
        let at_queue_buckets = HEAD;
        let at_queues = at_queue_buckets + queues;
        let at_rates = at_queues + queues * QUEUE;
        let at_halves = at_rates + queues * RATE;
        // A record needs its own words, half a word in the buckets, and half a word for its timer's earlier child.
        let records = words.len().saturating_sub(at_halves) / (RECORD + 1);
        let at_records = at_halves + records;
        Partition { words, queues, records, at_queue_buckets, at_queues, at_rates, at_halves, at_records }
    }

    /// Makes it empty. Lease numbers start at `first_lease`.
    pub(super) fn clear(&self, first_lease: u64) -> Result<(), Corrupt> {
        crate::words::zero(self.words);
        self.set_head(Head::NextLease, first_lease)?;
        for record in (1..=self.records as u32).rev() {
            self.set_half(record, R::Chain, true, self.head(Head::FreeRecord)? as u32)?;
            self.set_head(Head::FreeRecord, u64::from(record))?;
        }
        self.set_head(Head::FreeRecords, self.records as u64)?;
        for slot in (1..=self.queues as u32).rev() {
            self.set_q(slot, Q::Next, self.head(Head::FreeQueue)?)?;
            self.set_head(Head::FreeQueue, u64::from(slot))?;
        }
        Ok(())
    }

    #[inline]
    pub(super) fn head(&self, field: Head) -> Result<u64, Corrupt> {
        load(self.words, field as usize)
    }

    #[inline]
    pub(super) fn set_head(&self, field: Head, value: u64) -> Result<(), Corrupt> {
        store(self.words, field as usize, value)
    }

    #[inline]
    fn q_place(&self, slot: u32, offset: usize) -> Result<usize, Corrupt> {
        if slot == 0 || slot as usize > self.queues || offset >= QUEUE {
            return Err(Corrupt);
        }
        Ok(self.at_queues + (slot as usize - 1) * QUEUE + offset)
    }

    #[inline]
    pub(super) fn q(&self, slot: u32, field: Q) -> Result<u64, Corrupt> {
        load(self.words, self.q_place(slot, field as usize)?)
    }

    #[inline]
    pub(super) fn set_q(&self, slot: u32, field: Q, value: u64) -> Result<(), Corrupt> {
        store(self.words, self.q_place(slot, field as usize)?, value)
    }

    /// Where a word of a queue's histogram is.
    #[inline]
    pub(super) fn histogram_place(&self, slot: u32, histogram: usize, word: usize) -> Result<usize, Corrupt> {
        self.q_place(slot, HISTOGRAMS + histogram * HISTOGRAM + word)
    }

    /// The words of a queue's histogram.
    pub(super) fn histogram(&self, slot: u32, histogram: usize) -> Result<Words<'a>, Corrupt> {
        crate::words::part(self.words, self.histogram_place(slot, histogram, 0)?, HISTOGRAM)
    }

    /// A word of the records of prepared transactions.
    pub(super) fn doubt_word(&self, slot: u32, offset: usize) -> Result<u64, Corrupt> {
        load(self.words, self.q_place(slot, Q::Doubts as usize + offset)?)
    }

    pub(super) fn set_doubt_word(&self, slot: u32, offset: usize, value: u64) -> Result<(), Corrupt> {
        store(self.words, self.q_place(slot, Q::Doubts as usize + offset)?, value)
    }

    /// Sets everything but the lists to zero.
    pub(super) fn clear_fields(&self, slot: u32) -> Result<(), Corrupt> {
        let fields = crate::words::part(self.words, self.q_place(slot, 0)?, Q::Lists as usize)?;
        crate::words::zero(fields);
        for histogram in 0..HISTOGRAM_COUNT {
            crate::words::zero(self.histogram(slot, histogram)?);
        }
        crate::words::zero(crate::words::part(self.words, self.rate_place(slot)?, RATE)?);
        Ok(())
    }

    #[inline]
    pub(super) fn q_i64(&self, slot: u32, field: Q) -> Result<i64, Corrupt> {
        Ok(self.q(slot, field)?.cast_signed())
    }

    #[inline]
    pub(super) fn set_q_i64(&self, slot: u32, field: Q, value: i64) -> Result<(), Corrupt> {
        self.set_q(slot, field, value.cast_unsigned())
    }

    /// Counters never go below zero nor wrap around: they are for people, and begin again with each restart.
    pub(super) fn count(&self, slot: u32, field: Q, by: i64) -> Result<(), Corrupt> {
        let value = self.q_i64(slot, field)?.saturating_add(by);
        self.set_q_i64(slot, field, value)
    }

    fn rate_place(&self, slot: u32) -> Result<usize, Corrupt> {
        if slot == 0 || slot as usize > self.queues {
            return Err(Corrupt);
        }
        Ok(self.at_rates + (slot as usize - 1) * RATE)
    }

    /// What a queue has delivered lately.
    pub(super) fn rate_window(&self, slot: u32) -> Result<Window, Corrupt> {
        let place = self.rate_place(slot)?;
        let mut window = Window { start: load(self.words, place)?.cast_signed(), counts: [0; COUNTS] };
        for (at, pair) in window.counts.chunks_mut(2).enumerate() {
            let word = load(self.words, place + 1 + at)?;
            for (count, half) in pair.iter_mut().zip([word as u32, (word >> 32) as u32]) {
                *count = half;
            }
        }
        Ok(window)
    }

    pub(super) fn set_rate_window(&self, slot: u32, window: &Window) -> Result<(), Corrupt> {
        let place = self.rate_place(slot)?;
        store(self.words, place, window.start.cast_unsigned())?;
        for (at, pair) in window.counts.chunks(2).enumerate() {
            let word = pair.iter().rev().fold(0, |word, &count| word << 32 | u64::from(count));
            store(self.words, place + 1 + at, word)?;
        }
        Ok(())
    }

    /// First and last record of a list, and its length.
    #[inline]
    pub(super) fn list(&self, slot: u32, list: usize) -> Result<(u32, u32, u64), Corrupt> {
        let place = self.q_place(slot, Q::Lists as usize + 2 * list)?;
        let ends = load(self.words, place)?;
        Ok(((ends >> 32) as u32, ends as u32, load(self.words, place + 1)?))
    }

    /// The length of a list.
    #[inline]
    pub(super) fn list_len(&self, slot: u32, list: usize) -> Result<u64, Corrupt> {
        load(self.words, self.q_place(slot, Q::Lists as usize + 2 * list + 1)?)
    }

    #[inline]
    pub(super) fn set_list(&self, slot: u32, list: usize, first: u32, last: u32, len: u64) -> Result<(), Corrupt> {
        let place = self.q_place(slot, Q::Lists as usize + 2 * list)?;
        store(self.words, place, u64::from(first) << 32 | u64::from(last))?;
        store(self.words, place + 1, len)
    }

    #[inline]
    fn r_place(&self, record: u32, field: R) -> Result<usize, Corrupt> {
        if record == 0 || record as usize > self.records {
            return Err(Corrupt);
        }
        Ok(self.at_records + (record as usize - 1) * RECORD + field as usize)
    }

    #[inline]
    pub(super) fn r(&self, record: u32, field: R) -> Result<u64, Corrupt> {
        load(self.words, self.r_place(record, field)?)
    }

    #[inline]
    pub(super) fn set_r(&self, record: u32, field: R, value: u64) -> Result<(), Corrupt> {
        store(self.words, self.r_place(record, field)?, value)
    }

    /// The upper or lower half of a record's word.
    #[inline]
    pub(super) fn half(&self, record: u32, field: R, upper: bool) -> Result<u32, Corrupt> {
        let word = self.r(record, field)?;
        Ok(if upper { (word >> 32) as u32 } else { word as u32 })
    }

    #[inline]
    pub(super) fn set_half(&self, record: u32, field: R, upper: bool, value: u32) -> Result<(), Corrupt> {
        let place = self.r_place(record, field)?;
        store(self.words, place, with_half(load(self.words, place)?, upper, value))
    }

    /// Bucket `index` of the messages (upper halves); of record `index + 1` the earlier child of its timer, the one that was parked
    /// before it, or, of a group, the one that was parked first (lower halves).
    #[inline]
    pub(super) fn slot_half(&self, index: usize, upper: bool) -> Result<u32, Corrupt> {
        if index >= self.records {
            return Err(Corrupt);
        }
        let word = load(self.words, self.at_halves + index)?;
        Ok(if upper { (word >> 32) as u32 } else { word as u32 })
    }

    #[inline]
    pub(super) fn set_slot_half(&self, index: usize, upper: bool, value: u32) -> Result<(), Corrupt> {
        if index >= self.records {
            return Err(Corrupt);
        }
        let place = self.at_halves + index;
        store(self.words, place, with_half(load(self.words, place)?, upper, value))
    }

    /// The first queue in a bucket of queues.
    #[inline]
    pub(super) fn queue_bucket(&self, index: usize) -> Result<u32, Corrupt> {
        if index >= self.queues {
            return Err(Corrupt);
        }
        Ok(load(self.words, self.at_queue_buckets + index)? as u32)
    }

    #[inline]
    pub(super) fn set_queue_bucket(&self, index: usize, slot: u32) -> Result<(), Corrupt> {
        if index >= self.queues {
            return Err(Corrupt);
        }
        store(self.words, self.at_queue_buckets + index, u64::from(slot))
    }
}

#[inline]
fn with_half(word: u64, upper: bool, value: u32) -> u64 {
    if upper { word & 0xffff_ffff | u64::from(value) << 32 } else { word & !0xffff_ffff | u64::from(value) }
}

/// Spreads a number over 32 bits (the finaliser of `MurmurHash3`, Appleby 2011). Message numbers aren't chosen by
/// users, so no secret is needed here.
#[inline]
pub(super) fn spread(value: u64) -> u32 {
    let mut mixed = value;
    mixed ^= mixed >> 33;
    mixed = mixed.wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^= mixed >> 33;
    mixed = mixed.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (mixed >> 32) as u32
}

/// What of this file the layout version depends on.
pub(super) const LAYOUT: u64 = fingerprint![
    RECORD,
    QUEUE,
    RATE,
    HEAD,
    WORDS_PER_QUEUE,
    PRIORITIES,
    DOUBTS,
    DOUBT,
    READY,
    LEASED,
    DELAYED,
    BUSY,
    WAITING,
    USED_UP,
    PARKED,
    AWAITED,
    HELD,
    RATED,
    LISTS,
    GROUP,
    FOLLOWER,
    EXTENSION,
    HISTOGRAM,
    HISTOGRAM_COUNT,
    HISTOGRAMS,
    fingerprint_of_fields!(Head {
        FreeRecord,
        FreeRecords,
        FreeQueue,
        NextLease,
        ReclaimHand,
        Clock,
        LeaseSince,
        LeaseOffset
    }),
    fingerprint_of_fields!(Q {
        Key,
        Next,
        Flags,
        Frontier,
        Horizon,
        Refiller,
        FrontierFloor,
        HorizonFloor,
        Live,
        TimedOutside,
        Sent,
        Delivered,
        Finished,
        Failed,
        VisibilityTimeout,
        MaxAttempts,
        Backoff,
        BackoffMax,
        ArchiveFor,
        Archived,
        Dead,
        Bitmap,
        Limits,
        RatePeriod,
        BusyUnleased,
        Groups,
        Files,
        FrontierEnd,
        HorizonEnd,
        Timers,
        Maintained,
        ReconcileNumber,
        ReconcileTime,
        CleanArchive,
        Counting,
        CountedAt,
        CountTook,
        FirstDue,
        LastRead,
        InDoubt,
        Doubts,
        Notified,
        GroupRate,
        GroupRatePeriod,
        GroupCounted,
        Lists
    }),
    fingerprint_of_fields!(R { MsgId, Tid, Due, Lease, Attempts, Links, Chain, Kind }),
    g::HASH,
    g::NEXT,
    g::NEXT_TID,
    g::NEXT_DUE,
    g::NEXT_ATTEMPTS,
    g::HEAD,
    g::MEMBERS,
    g::RUNNING,
    g::BIT,
    w::HASH,
    w::START,
    w::RUNNING,
    w::BEFORE[0],
    w::BEFORE[1],
    w::EXTENSION,
    w::FURTHER[0],
    w::FURTHER[1],
    w::FURTHER[2],
    w::FURTHER[3],
    w::FURTHER[4],
    w::FURTHER[5],
    w::BIT,
];

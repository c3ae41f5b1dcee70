//! The queues of a partition: finding one by its table, adding, dropping; its options and counters.

use super::layout::{
    AWAITED, BUSY, DELAYED, Head, LEASED, LISTS, Partition, Q, R, RATED, READY, USED_UP, WAITING, spread,
};
use super::marks::{NUMBERS, TIMES};
use super::timers::NEVER;
use crate::fingerprint;
use crate::words::Corrupt;

/// What a queue is known by: its database and its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueKey {
    /// OID of the database.
    pub database: u32,
    /// OID of the table.
    pub relation: u32,
}

impl QueueKey {
    fn pack(self) -> u64 {
        u64::from(self.database) << 32 | u64::from(self.relation)
    }

    pub(super) fn unpack(word: u64) -> Self {
        QueueKey { database: (word >> 32) as u32, relation: word as u32 }
    }

    /// A number that spreads queues over partitions.
    pub fn partition(self, count: usize) -> usize {
        ((u64::from(spread(self.pack())) * count as u64) >> 32) as usize
    }
}

/// What a queue's creator chose. Times in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// How long a lease lasts.
    pub visibility_timeout: i64,
    /// After so many deliveries a message is dead.
    pub max_attempts: u32,
    /// How long a message rests after its first failed delivery; doubles with each further one.
    pub retry_backoff: i64,
    /// The longest rest.
    pub retry_backoff_max: i64,
    /// How long the archive is kept; `i64::MAX` for ever.
    pub archive_for: i64,
    /// Whether reads return nothing.
    pub paused: bool,
    /// The most messages under a lease at a time; 0 for no limit.
    pub max_in_flight: u32,
    /// The most deliveries in `rate_period`; 0 for no limit.
    pub max_rate: u32,
    /// In microseconds.
    pub rate_period: i64,
    /// Whether each delivery is noted in the row, also the first one.
    pub durable_attempts: bool,
    /// Whether the end of a message needs to be on no disk when its transaction commits.
    pub ack_async: bool,
    /// How many messages of one group may be under a lease at a time; with 0 it is one as well.
    pub group_limit: u32,
    /// The most deliveries of messages of one group in `group_rate_period`; 0 for no limit.
    pub group_rate: u32,
    /// In microseconds.
    pub group_rate_period: i64,
}

impl Options {
    /// Whether a message is what its number says, however often it was delivered: then a delivery whose transaction is
    /// rolled back leaves no trace, and what comes back stands in line by its number (`numbered.rs`).
    pub fn forgets_deliveries(&self) -> bool {
        self.max_attempts == u32::MAX && self.retry_backoff == 0
    }
}

/// What a queue has seen and holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Rows in the table; `None` until they have been counted once.
    pub live: Option<i64>,
    /// Messages under a lease, or being changed by an open transaction.
    pub leased: i64,
    /// Messages whose time has not come.
    pub delayed: i64,
    /// Messages that are used up and not buried yet.
    pub used_up: i64,
    /// Since the segment was made.
    pub sent: i64,
    /// Since the segment was made.
    pub delivered: i64,
    /// Since the segment was made.
    pub finished: i64,
    /// Since the segment was made.
    pub failed: i64,
    /// Rows of the archive with the outcome "done".
    pub archived: i64,
    /// Rows of the archive with the outcome "dead".
    pub dead: i64,
}

/// How far maintenance has got with a queue. All zero at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Maintenance {
    /// When it came by last, in microseconds.
    pub visited: i64,
    /// The number after which it goes on comparing the table with the index; 0 for the beginning.
    pub number: i64,
    /// The same by delivery time, in microseconds.
    pub time: i64,
    /// When the rows ended that it goes on removing from the archive with, in microseconds; 0 for the beginning.
    pub archive: i64,
}

const PAUSED: u64 = 1;
const COUNTED: u64 = 2;
/// The table was rewritten, so the second half of tags says nothing (`identity.rs`).
pub(super) const REWRITTEN: u64 = 4;
/// Messages were met whose rows nobody has counted out.
pub(super) const MISCOUNTED: u64 = 8;
/// Each delivery is noted in the row.
const DURABLE: u64 = 16;
/// More sessions were to be woken than have place in a list (`wait.rs`).
pub(super) const OWED: u64 = 32;
/// Acknowledgements needn't be on disk.
const ASYNC: u64 = 64;
/// Its messages stand in line by their numbers.
const NUMBERED: u64 = 128;
/// A count that takes no longer than this, in microseconds, may be repeated at every opportunity; others may take this
/// part of the time.
const QUICK: u64 = 100_000;
const PART: u64 = 20;

impl Partition<'_> {
    fn key_bucket(&self, key: u64) -> usize {
        ((u64::from(spread(key)) * self.queues as u64) >> 32) as usize
    }

    /// The first queue in a slot after `from` (0 for all), and its slot.
    pub fn key_from(&self, from: u32) -> Result<Option<(QueueKey, u32)>, Corrupt> {
        for slot in from.saturating_add(1)..=self.queues as u32 {
            let key = self.q(slot, Q::Key)?;
            if key != 0 {
                return Ok(Some((QueueKey::unpack(key), slot)));
            }
        }
        Ok(None)
    }

    /// The slot of a queue.
    #[inline]
    pub fn find(&self, key: QueueKey) -> Result<Option<u32>, Corrupt> {
        let key = key.pack();
        let mut slot = self.queue_bucket(self.key_bucket(key))?;
        for _ in 0..=self.queues {
            if slot == 0 {
                return Ok(None);
            }
            if self.q(slot, Q::Key)? == key {
                return Ok(Some(slot));
            }
            slot = self.q(slot, Q::Next)? as u32;
        }
        Err(Corrupt)
    }

    /// The slot of a queue, added where it wasn't there; `None` when there is no room for another queue. A new queue
    /// knows of no message yet: the first refill finds them.
    pub fn attach(&self, key: QueueKey, options: Options) -> Result<Option<u32>, Corrupt> {
        if let Some(slot) = self.find(key)? {
            return Ok(Some(slot));
        }
        let slot = self.head(Head::FreeQueue)? as u32;
        if slot == 0 {
            return Ok(None);
        }
        self.set_head(Head::FreeQueue, self.q(slot, Q::Next)?)?;
        let bucket = self.key_bucket(key.pack());
        self.clear_fields(slot)?;
        for list in 0..LISTS {
            self.set_list(slot, list, 0, 0, 0)?;
        }
        self.set_q(slot, Q::Key, key.pack())?;
        self.set_q(slot, Q::Next, u64::from(self.queue_bucket(bucket)?))?;
        self.set_queue_bucket(bucket, slot)?;
        for marks in [NUMBERS, TIMES] {
            self.set_q_i64(slot, marks.mark, i64::MIN)?;
            self.set_q_i64(slot, marks.end, i64::MAX)?;
        }
        self.set_q_i64(slot, Q::FirstDue, NEVER)?;
        self.write_options(slot, options)?;
        Ok(Some(slot))
    }

    /// Forgets a queue in steps: frees up to `limit` of its records, and the slot after the last of them. True when
    /// the queue is gone. Sessions that wait for it go to `wake`.
    pub fn detach(&self, slot: u32, limit: usize, now: i64, wake: &mut super::Wake) -> Result<bool, Corrupt> {
        let mut left = limit;
        if !self.all_ended(slot, wake)? {
            return Ok(false);
        }
        // The head of a group that goes may bring the next one into a list.
        while let Some(list) = self.first_list(slot, true)? {
            if left == 0 || (list == WAITING && wake.is_full()) {
                return Ok(false);
            }
            left -= 1;
            let (first, _, _) = self.list(slot, list)?;
            if list == RATED {
                self.drop_counts(slot, 1)?;
            } else if list == WAITING {
                wake.push(self.kind(first)?.owner);
                self.unlink(slot, first)?;
                self.free(first)?;
            } else {
                self.forget(slot, first, now, &mut super::Wake::none())?;
            }
        }
        let bucket = self.key_bucket(self.q(slot, Q::Key)?);
        let next = self.q(slot, Q::Next)?;
        let mut at = self.queue_bucket(bucket)?;
        if at == slot {
            self.set_queue_bucket(bucket, next as u32)?;
        } else {
            let mut steps = 0;
            while self.q(at, Q::Next)? as u32 != slot {
                at = self.q(at, Q::Next)? as u32;
                steps += 1;
                if steps > self.queues {
                    return Err(Corrupt);
                }
            }
            self.set_q(at, Q::Next, next)?;
        }
        self.set_q(slot, Q::Key, 0)?;
        self.set_q(slot, Q::Next, self.head(Head::FreeQueue)?)?;
        self.set_head(Head::FreeQueue, u64::from(slot))?;
        Ok(true)
    }

    /// The first list of a queue that isn't empty, of those that hold messages, and, with `all`, of all.
    pub(super) fn first_list(&self, slot: u32, all: bool) -> Result<Option<usize>, Corrupt> {
        for list in 0..LISTS {
            if (all || ![WAITING, AWAITED, RATED].contains(&list)) && self.list(slot, list)?.2 > 0 {
                return Ok(Some(list));
            }
        }
        Ok(None)
    }

    /// Takes a message out of the index: what it kept from being read may be now.
    pub(super) fn forget(&self, slot: u32, record: u32, now: i64, wake: &mut super::Wake) -> Result<(), Corrupt> {
        let kind = self.kind(record)?;
        let (group, number) = (self.group_of(record)?, self.r(record, R::MsgId)?.cast_signed());
        self.unlink(slot, record)?;
        self.erase(slot, record)?;
        if group != 0 {
            self.leave_group(slot, group, record, number, now, wake)?;
        }
        if kind.list == LEASED || (kind.list == BUSY && kind.origin == LEASED) {
            self.in_flight_decreased(slot, wake)?;
        }
        Ok(())
    }

    /// Frees the record of a message, which is in no list.
    pub(super) fn erase(&self, slot: u32, record: u32) -> Result<(), Corrupt> {
        self.clear_timer(slot, record)?;
        self.hash_out(record, slot, self.r(record, R::MsgId)?.cast_signed())?;
        self.free(record)
    }

    /// A queue's options.
    pub fn options(&self, slot: u32) -> Result<Options, Corrupt> {
        Ok(Options {
            visibility_timeout: self.q_i64(slot, Q::VisibilityTimeout)?,
            max_attempts: self.q(slot, Q::MaxAttempts)? as u32,
            retry_backoff: self.q_i64(slot, Q::Backoff)?,
            retry_backoff_max: self.q_i64(slot, Q::BackoffMax)?,
            archive_for: self.q_i64(slot, Q::ArchiveFor)?,
            paused: self.q(slot, Q::Flags)? & PAUSED != 0,
            max_in_flight: (self.q(slot, Q::Limits)? >> 32) as u32,
            max_rate: self.q(slot, Q::Limits)? as u32,
            rate_period: self.q_i64(slot, Q::RatePeriod)?,
            durable_attempts: self.durable_attempts(slot)?,
            ack_async: self.ack_async(slot)?,
            group_limit: self.lanes(slot)?,
            group_rate: self.q(slot, Q::GroupRate)? as u32,
            group_rate_period: self.q_i64(slot, Q::GroupRatePeriod)?,
        })
    }

    /// Changes a queue's options. What was delivered so far counts on. Nobody is woken: the caller wakes all that wait.
    pub fn set_options(&self, slot: u32, options: Options, now: i64) -> Result<(), Corrupt> {
        self.change_rate_period(slot, options.rate_period, now)?;
        let (former, lanes) = (self.q(slot, Q::MaxAttempts)? as u32, self.lanes(slot)?);
        let (rate, period) = (self.q(slot, Q::GroupRate)? as u32, self.q_i64(slot, Q::GroupRatePeriod)?);
        self.write_options(slot, options)?;
        if options.max_attempts > former {
            self.put_in_line_again(slot, now)?;
        }
        if rate == 0 {
            self.set_q(slot, Q::GroupCounted, self.head(Head::NextLease)?)?;
        }
        if (options.group_rate, options.group_rate_period) != (rate, period) {
            self.change_group_rate(slot, period, now)?;
        }
        if options.group_limit > lanes { self.widen(slot, now) } else { Ok(()) }
    }

    fn write_options(&self, slot: u32, options: Options) -> Result<(), Corrupt> {
        self.set_q_i64(slot, Q::VisibilityTimeout, options.visibility_timeout)?;
        let lanes = options.group_limit.max(1);
        self.set_q(slot, Q::MaxAttempts, u64::from(lanes) << 32 | u64::from(options.max_attempts))?;
        self.set_q_i64(slot, Q::Backoff, options.retry_backoff)?;
        self.set_q_i64(slot, Q::BackoffMax, options.retry_backoff_max)?;
        self.set_q_i64(slot, Q::ArchiveFor, options.archive_for)?;
        self.set_q(slot, Q::Limits, u64::from(options.max_in_flight) << 32 | u64::from(options.max_rate))?;
        self.set_q_i64(slot, Q::RatePeriod, options.rate_period)?;
        self.set_q(slot, Q::GroupRate, u64::from(options.group_rate))?;
        self.set_q_i64(slot, Q::GroupRatePeriod, options.group_rate_period)?;
        let mut flags = self.q(slot, Q::Flags)? & !(PAUSED | DURABLE | ASYNC | NUMBERED);
        let options = [
            (options.paused, PAUSED),
            (options.durable_attempts, DURABLE),
            (options.ack_async, ASYNC),
            (options.forgets_deliveries(), NUMBERED),
        ];
        for (set, flag) in options {
            flags |= if set { flag } else { 0 };
        }
        self.set_q(slot, Q::Flags, flags)
    }

    /// How far maintenance has got.
    pub fn maintenance(&self, slot: u32) -> Result<Maintenance, Corrupt> {
        Ok(Maintenance {
            visited: self.q_i64(slot, Q::Maintained)?,
            number: self.q_i64(slot, Q::ReconcileNumber)?,
            time: self.q_i64(slot, Q::ReconcileTime)?,
            archive: self.q_i64(slot, Q::CleanArchive)?,
        })
    }

    /// Notes how far maintenance has got.
    pub fn set_maintenance(&self, slot: u32, reached: Maintenance) -> Result<(), Corrupt> {
        self.set_q_i64(slot, Q::Maintained, reached.visited)?;
        self.set_q_i64(slot, Q::ReconcileNumber, reached.number)?;
        self.set_q_i64(slot, Q::ReconcileTime, reached.time)?;
        self.set_q_i64(slot, Q::CleanArchive, reached.archive)
    }

    /// Whether messages stand in line by their numbers.
    #[inline]
    pub(super) fn is_numbered(&self, slot: u32) -> Result<bool, Corrupt> {
        Ok(self.q(slot, Q::Flags)? & NUMBERED != 0)
    }

    /// Whether each delivery is noted in the row, also the first one.
    #[inline]
    pub fn durable_attempts(&self, slot: u32) -> Result<bool, Corrupt> {
        Ok(self.q(slot, Q::Flags)? & DURABLE != 0)
    }

    /// Whether the end of a message needs to be on no disk when its transaction commits.
    #[inline]
    pub(super) fn ack_async(&self, slot: u32) -> Result<bool, Corrupt> {
        Ok(self.q(slot, Q::Flags)? & ASYNC != 0)
    }

    pub(super) fn paused(&self, slot: u32) -> Result<bool, Corrupt> {
        Ok(self.q(slot, Q::Flags)? & PAUSED != 0)
    }

    /// A queue's counters.
    pub fn counters(&self, slot: u32) -> Result<Counters, Corrupt> {
        let len = |list| Ok(self.list(slot, list)?.2.cast_signed());
        let counted = self.q(slot, Q::Flags)? & COUNTED != 0;
        Ok(Counters {
            live: if counted { Some(self.q_i64(slot, Q::Live)?) } else { None },
            leased: i64::saturating_add(len(LEASED)?, len(BUSY)?),
            delayed: len(DELAYED)?.saturating_add(self.q_i64(slot, Q::TimedOutside)?),
            used_up: len(USED_UP)?,
            sent: self.q_i64(slot, Q::Sent)?,
            delivered: self.q_i64(slot, Q::Delivered)?,
            finished: self.q_i64(slot, Q::Finished)?,
            failed: self.q_i64(slot, Q::Failed)?,
            archived: self.q_i64(slot, Q::Archived)?,
            dead: self.q_i64(slot, Q::Dead)?,
        })
    }

    /// Places that leased messages take, those included that open transactions are changing, and all places.
    pub fn leased_places(&self) -> Result<(u64, u64), Corrupt> {
        let mut leased = 0_u64;
        for slot in 1..=self.queues as u32 {
            if self.q(slot, Q::Key)? != 0 {
                for list in [LEASED, BUSY] {
                    leased = leased.saturating_add(self.list(slot, list)?.2);
                }
            }
        }
        Ok((leased, self.records as u64))
    }

    /// Counts from zero on, until [`counted`](Self::counted) adds what a snapshot taken after this call holds. The answer
    /// tells that count from others.
    pub fn start_counting(&self, slot: u32) -> Result<u64, Corrupt> {
        self.set_q(slot, Q::Flags, self.q(slot, Q::Flags)? & !COUNTED)?;
        let counting = self.q(slot, Q::Counting)?.wrapping_add(1);
        self.set_q(slot, Q::Counting, counting)?;
        for field in [Q::Live, Q::TimedOutside, Q::Archived, Q::Dead] {
            self.set_q(slot, field, 0)?;
        }
        Ok(counting)
    }

    /// What a count of the tables found that took so long, in microseconds; nothing comes of it where another count has
    /// begun since.
    pub fn counted(&self, slot: u32, counting: u64, found: [i64; 4], took: i64, now: i64) -> Result<(), Corrupt> {
        let [live, delayed, archived, dead] = found;
        if self.q(slot, Q::Counting)? != counting {
            return Ok(());
        }
        self.count(slot, Q::Live, live)?;
        self.count(slot, Q::TimedOutside, delayed.saturating_sub(self.list(slot, DELAYED)?.2.cast_signed()).max(0))?;
        self.count(slot, Q::Archived, archived)?;
        self.count(slot, Q::Dead, dead)?;
        self.set_q_i64(slot, Q::CountedAt, now)?;
        self.set_q_i64(slot, Q::CountTook, took.max(0))?;
        self.set_q(slot, Q::Flags, self.q(slot, Q::Flags)? & !MISCOUNTED | COUNTED)
    }

    /// Whether the tables should be counted again at this opportunity: messages have vanished, or may have where the index
    /// doesn't hold all of them, as it never does of the archive. Never before they were counted once.
    pub fn should_count(&self, slot: u32, now: i64) -> Result<bool, Corrupt> {
        let flags = self.q(slot, Q::Flags)?;
        if flags & COUNTED == 0 {
            return Ok(false);
        }
        let took = self.q(slot, Q::CountTook)?;
        let since = now.saturating_sub(self.q_i64(slot, Q::CountedAt)?).max(0).cast_unsigned();
        let affordable = took <= QUICK || since >= took.saturating_mul(PART);
        let all_inside = !self.outside(slot)? && !self.has_groups(slot)?;
        let archive = self.q_i64(slot, Q::Archived)? != 0 || self.q_i64(slot, Q::Dead)? != 0;
        Ok(flags & MISCOUNTED != 0 || (affordable && (archive || !all_inside)))
    }

    /// Ready messages in the index.
    pub(super) fn ready(&self, slot: u32) -> Result<u64, Corrupt> {
        let mut bitmap = self.q(slot, Q::Bitmap)? & ((1 << READY) - 1);
        let mut ready = 0;
        while bitmap != 0 {
            ready = u64::saturating_add(ready, self.list(slot, bitmap.trailing_zeros() as usize)?.2);
            bitmap &= bitmap - 1;
        }
        Ok(ready)
    }
}

/// What of this file the layout version depends on.
pub(super) const LAYOUT: u64 = fingerprint![PAUSED, COUNTED, REWRITTEN, MISCOUNTED, DURABLE, OWED, ASYNC, NUMBERED];

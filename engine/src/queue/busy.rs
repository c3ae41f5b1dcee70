//! Messages that open transactions are changing: set aside, so that nobody else gets them, until the transaction ends.

use super::layout::{BUSY, DELAYED, FOLLOWER, HELD, LEASED, PARKED, Partition, Q, R, READY, USED_UP};
use super::{Entry, Found, Tag, Tid, Wake};
use crate::words::Corrupt;

/// Under which lease a message is to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fence {
    /// Whatever its lease.
    None,
    /// Only under that one, which is running.
    Running(u64),
    /// Only under that one, which is running, or was given back by a rollback and the message rests since.
    Last(u64),
}

impl From<Option<u64>> for Fence {
    fn from(lease: Option<u64>) -> Self {
        lease.map_or(Fence::None, Fence::Running)
    }
}

/// What became of the wish to change a message in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    /// It is the caller's now, until it says how its transaction ended.
    Yours(Claimed),
    /// An open transaction is changing it.
    Others,
    /// The lease that the caller named isn't the current one.
    Stale,
    /// It isn't in the index.
    Unknown,
}

/// A message that is set aside for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimed {
    /// Where its row was when it was last seen.
    pub tid: Tid,
    /// What tells its row from others of the number.
    pub tag: Tag,
    /// Deliveries so far.
    pub attempts: u32,
    /// The next message of its group isn't known: the session that takes this one out of the queue looks for it first (`probe.rs`).
    pub find_next: bool,
    /// Whether its end needs to be on no disk when its transaction commits.
    pub ack_async: bool,
}

/// A message that was set aside with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aside {
    /// Its number.
    pub msg_id: i64,
    /// Where its row was when it was last seen.
    pub tid: Tid,
    /// What tells its row from others of the number.
    pub tag: Tag,
    /// Deliveries so far.
    pub attempts: u32,
    /// Whether its row has a delivery time.
    pub timed: bool,
}

impl Partition<'_> {
    /// Sets a message aside while the caller's transaction changes its row: nobody gets it, and its lease doesn't run
    /// out, until [`end_busy`](Self::end_busy).
    pub fn start_busy(&self, slot: u32, msg_id: i64, fence: impl Into<Fence>, now: i64) -> Result<Busy, Corrupt> {
        let Some(record) = self.lookup(slot, msg_id)? else {
            return Ok(Busy::Unknown);
        };
        let kind = self.kind(record)?;
        let fence = fence.into();
        if let Fence::Running(lease) | Fence::Last(lease) = fence {
            // A message that rests knows of a lease only where that was given back, and nobody has had it since.
            let holds = match kind.list {
                LEASED => self.r(record, R::Due)?.cast_signed() > now,
                DELAYED | USED_UP => fence == Fence::Last(lease),
                list => list == BUSY,
            };
            if self.r(record, R::Lease)? != lease || !holds {
                return Ok(Busy::Stale);
            }
        }
        if kind.list == BUSY {
            return Ok(Busy::Others);
        }
        self.put_aside(slot, record)?;
        Ok(Busy::Yours(Claimed {
            tid: Tid::unpack(self.r(record, R::Tid)?),
            tag: self.tag(slot, record)?,
            attempts: self.half(record, R::Attempts, true)?,
            find_next: kind.owner != 0 && self.lacks_next(record)?,
            ack_async: self.ack_async(slot)?,
        }))
    }

    pub(super) fn put_aside(&self, slot: u32, record: u32) -> Result<(), Corrupt> {
        let mut kind = self.kind(record)?;
        self.unlink(slot, record)?;
        self.clear_timer(slot, record)?;
        kind.origin = kind.list;
        self.set_kind(record, kind)?;
        self.link(slot, record, BUSY, false)?;
        if kind.owner != 0 && (kind.origin < READY || kind.origin == HELD) {
            // In its place another one of its group; the session that was woken for it is woken for that.
            self.unpark(slot, self.group_of(record)?)?;
        }
        if kind.origin != LEASED {
            self.count(slot, Q::BusyUnleased, 1)?;
        }
        Ok(())
    }

    /// Sets a message aside; what its caller is told.
    pub(super) fn put_one_aside(&self, slot: u32, record: u32) -> Result<Aside, Corrupt> {
        self.put_aside(slot, record)?;
        Ok(Aside {
            msg_id: self.r(record, R::MsgId)?.cast_signed(),
            tid: Tid::unpack(self.r(record, R::Tid)?),
            tag: self.tag(slot, record)?,
            attempts: self.half(record, R::Attempts, true)?,
            timed: self.kind(record)?.timed,
        })
    }

    /// Sets aside messages of the queue, as many as fit into what `aside` has reserved; false when there is no other left.
    pub fn set_all_aside(&self, slot: u32, aside: &mut Vec<Aside>) -> Result<bool, Corrupt> {
        // Those that are parked first, because they come into line when others are set aside.
        for list in [PARKED, HELD].into_iter().chain(0..READY).chain([LEASED, DELAYED, USED_UP]) {
            while aside.len() < aside.capacity() {
                let (record, _, len) = self.list(slot, list)?;
                if len == 0 {
                    break;
                }
                aside.push(self.put_one_aside(slot, record)?);
            }
        }
        Ok(aside.len() == aside.capacity())
    }

    /// Sets a message aside that may not be in the index, by its row; `Unknown` where there is no room for it.
    pub fn set_aside(&self, slot: u32, entry: &Entry, now: i64) -> Result<Busy, Corrupt> {
        if self.record_of_row(slot, entry, now, &mut Wake::none())?.is_none() {
            if entry.group != 0 {
                let aside = self.put_follower_aside(slot, entry, now)?;
                let find_next = aside && self.group_lacks_next(slot, entry.group)?;
                let Entry { tid, tag, attempts, .. } = *entry;
                let claimed = Claimed { tid, tag, attempts, find_next, ack_async: self.ack_async(slot)? };
                return Ok(if aside { Busy::Yours(claimed) } else { Busy::Unknown });
            }
            // Put in to be set aside: there is nothing to wake up for.
            if self.found(slot, entry, now, &mut Wake::none())? == Found::NoRoom {
                return Ok(Busy::Unknown);
            }
        }
        self.start_busy(slot, entry.msg_id, None, now)
    }

    /// The transaction that set the message with that tag aside has ended: with `finished`, the row is gone; else the
    /// message is what it was before.
    pub fn end_busy(
        &self,
        slot: u32,
        msg_id: i64,
        tag: Tag,
        finished: bool,
        now: i64,
        wake: &mut Wake,
    ) -> Result<(), Corrupt> {
        let Some(record) = self.lookup(slot, msg_id)? else {
            return Ok(());
        };
        let kind = self.kind(record)?;
        if kind.list != BUSY || !self.tag(slot, record)?.matches(tag) {
            return Ok(());
        }
        if finished {
            if kind.origin == LEASED {
                self.note_run(slot, self.r(record, R::Lease)?, now)?;
            }
            return self.forget(slot, record, now, wake);
        }
        self.unlink(slot, record)?;
        match kind.origin {
            USED_UP => self.link(slot, record, USED_UP, false),
            FOLLOWER => {
                let entry = self.entry(record, self.r(record, R::Lease)?)?;
                self.erase(slot, record)?;
                self.return_follower(slot, &entry, now, wake)
            }
            LEASED => {
                // In front: `oldest_lease` looks there first.
                self.link(slot, record, LEASED, true)?;
                self.set_timer(slot, record)?;
                self.watch(slot, now, wake)
            }
            _ if self.yield_head(slot, record, now, wake)? => Ok(()),
            DELAYED => self.delay(slot, record, now, wake),
            PARKED | HELD => self.line_up(slot, record, true, wake),
            _ if self.is_numbered(slot)? => self.line_up_by_number(slot, record, wake),
            was => {
                self.link(slot, record, was.min(READY - 1), true)?;
                self.wake_one(slot, wake).map(drop)
            }
        }
    }

    /// The committed transaction has deleted a message that it had set aside with all others of the queue.
    pub fn end_purged(&self, slot: u32, msg_id: i64, tag: Tag, now: i64, wake: &mut Wake) -> Result<(), Corrupt> {
        if let Some(record) = self.lookup(slot, msg_id)?
            && self.kind(record)?.list == BUSY
            && self.tag(slot, record)?.matches(tag)
        {
            self.forget_followers_of(slot, record, wake)?;
            self.forget(slot, record, now, wake)?;
        }
        Ok(())
    }
}

//! Looking at messages without taking any.

use super::layout::{AWAITED, BUSY, DELAYED, LEASED, LISTS, Partition, Q, R, RATED, READY, USED_UP, WAITING};
use super::{Tag, Tid};
use crate::words::Corrupt;

/// How a live message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The next reads get it.
    Ready,
    /// A reader has it, or an open transaction is changing it.
    Leased,
    /// Its time has not come.
    Delayed,
    /// It has been delivered as often as it may be, and is to be buried.
    UsedUp,
}

/// A message as the index knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its number.
    pub msg_id: i64,
    /// How it stands.
    pub state: State,
    /// Deliveries so far.
    pub attempts: u32,
    /// When the lease ends or the delay is over, in microseconds; `None` where nothing of the kind runs.
    pub due: Option<i64>,
    /// The number of the lease that runs.
    pub lease: Option<u64>,
    /// Of the row that this is known of.
    pub tag: Tag,
}

/// A message in the index, for a comparison with its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Its number.
    pub msg_id: i64,
    /// Where its row was when it was last seen.
    pub tid: Tid,
    /// What tells its row from others of the number.
    pub tag: Tag,
}

impl Partition<'_> {
    /// Adds the queue's messages to `listed` that the records from `from` (0 at first) on hold, as many as fit into what it
    /// has reserved, but for those in an open transaction's hands. From where to go on; `None` at the end.
    pub fn list_from(&self, slot: u32, from: u32, listed: &mut Vec<Listed>) -> Result<Option<u32>, Corrupt> {
        let mut messages = 0_u64;
        for list in (0..LISTS).filter(|list| ![WAITING, AWAITED, RATED].contains(list)) {
            messages = messages.saturating_add(self.list(slot, list)?.2);
        }
        if messages == 0 {
            return Ok(None);
        }
        let first = from.max(1);
        // Others' records are looked at in passing, but not without end.
        let end = first.saturating_add(listed.capacity() as u32 * 8);
        for record in first..end {
            if record as usize > self.records {
                return Ok(None);
            }
            if listed.len() == listed.capacity() {
                return Ok(Some(record));
            }
            let list = self.kind(record)?.list;
            if self.half(record, R::Attempts, false)? == slot && list != WAITING && list != BUSY {
                let msg_id = self.r(record, R::MsgId)?.cast_signed();
                let (tid, tag) = (Tid::unpack(self.r(record, R::Tid)?), self.tag(slot, record)?);
                listed.push(Listed { msg_id, tid, tag });
            }
        }
        Ok(Some(end))
    }

    /// How a message stands at the time `now`; `None` where it isn't in the index.
    pub fn seen(&self, slot: u32, msg_id: i64, now: i64) -> Result<Option<Seen>, Corrupt> {
        self.lookup(slot, msg_id)?.map(|record| self.describe(slot, record, now)).transpose()
    }

    /// Adds messages that stand so to `seen`, as many as fit into what it has reserved: ready ones in the order in which
    /// they will be read, but for those behind the heads of their groups. What has run out counts once [`expire`](Self::expire) has been told.
    pub fn look(&self, slot: u32, state: State, now: i64, seen: &mut Vec<Seen>) -> Result<(), Corrupt> {
        let ready: [usize; READY] = std::array::from_fn(|list| READY - 1 - list);
        let lists: &[usize] = match state {
            State::Ready => &ready,
            State::Leased => &[LEASED, BUSY],
            State::Delayed => &[DELAYED],
            State::UsedUp => &[USED_UP],
        };
        for &list in lists {
            let (mut record, _, len) = self.list(slot, list)?;
            for _ in 0..len {
                if seen.len() == seen.capacity() {
                    return Ok(());
                }
                let one = self.describe(slot, record, now)?;
                if one.state == state {
                    seen.push(one);
                }
                record = self.half(record, R::Links, true)?;
            }
        }
        Ok(())
    }

    /// Whether messages may stand behind the heads of groups, where the index doesn't know them one by one.
    pub fn has_groups(&self, slot: u32) -> Result<bool, Corrupt> {
        Ok(self.q_i64(slot, Q::Groups)? > 0)
    }

    fn describe(&self, slot: u32, record: u32, now: i64) -> Result<Seen, Corrupt> {
        let kind = self.kind(record)?;
        let due = self.r(record, R::Due)?.cast_signed();
        let runs = due > now;
        let (state, timer) = match (kind.list, kind.origin) {
            (LEASED, _) if runs => (State::Leased, true),
            (BUSY, LEASED) => (State::Leased, true),
            (BUSY, _) => (State::Leased, false),
            (DELAYED, _) if runs => (State::Delayed, true),
            (USED_UP, _) => (State::UsedUp, false),
            _ if self.is_used_up(slot, self.half(record, R::Attempts, true)?)? => (State::UsedUp, false),
            _ => (State::Ready, false),
        };
        Ok(Seen {
            msg_id: self.r(record, R::MsgId)?.cast_signed(),
            state,
            attempts: self.half(record, R::Attempts, true)?,
            due: timer.then_some(due),
            lease: if timer && state == State::Leased { Some(self.r(record, R::Lease)?) } else { None },
            tag: self.tag(slot, record)?,
        })
    }
}

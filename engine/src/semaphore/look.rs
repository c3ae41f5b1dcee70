//! Who holds what, and what was counted.

use super::records::{E, HOLDER, Head, MAX_NAME, R, RECORD, Records};
use super::table::Table;
use crate::hash::KeyHash;
use crate::words::{Corrupt, Words};
use std::ops::Add;

/// One that holds a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The length of the name.
    pub len: usize,
    /// Its token.
    pub token: i64,
    /// The process ID of the session that took it.
    pub pid: u32,
    /// The role that took it.
    pub role: u32,
    /// Since when.
    pub since: i64,
    /// Until when at the most.
    pub expires_at: i64,
}

/// What a look at some of the records has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The first holder among them.
    pub holder: Option<Holder>,
    /// The record to go on with; `None` behind the last one.
    pub next: Option<u32>,
}

/// What the names of some partitions are, and what was counted since they were made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Names that somebody holds or waits for.
    pub names: u64,
    /// Tokens that stand for something, those included that have expired since anybody has looked.
    pub holders: u64,
    /// Sessions in line.
    pub waiters: u64,
    /// Bytes that are taken.
    pub bytes_used: u64,
    /// Bytes that there are.
    pub bytes_max: u64,
    /// Tokens given.
    pub taken: u64,
    /// Calls that got none.
    pub denied: u64,
    /// Tokens that have expired.
    pub expired: u64,
}

impl Add for Stats {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        // The counters are whatever lies in the memory.
        Stats {
            names: self.names.wrapping_add(other.names),
            holders: self.holders.wrapping_add(other.holders),
            waiters: self.waiters.wrapping_add(other.waiters),
            bytes_used: self.bytes_used.wrapping_add(other.bytes_used),
            bytes_max: self.bytes_max.wrapping_add(other.bytes_max),
            taken: self.taken.wrapping_add(other.taken),
            denied: self.denied.wrapping_add(other.denied),
            expired: self.expired.wrapping_add(other.expired),
        }
    }
}

/// What was counted in a partition; nothing is changed, so that a shared lock will do.
pub fn stats(words: Words<'_>) -> Result<Stats, Corrupt> {
    let all = Records::open(words)?;
    let bytes = |records: usize| records as u64 * (RECORD * size_of::<u64>()) as u64;
    Ok(Stats {
        names: all.head(Head::Names)?,
        holders: all.head(Head::Holders)?,
        waiters: all.head(Head::Waiters)?,
        bytes_used: bytes(all.count.checked_sub(all.left()?).ok_or(Corrupt)?),
        bytes_max: bytes(all.count),
        taken: all.head(Head::Taken)?,
        denied: all.head(Head::Denied)?,
        expired: all.head(Head::Expired)?,
    })
}

impl Table<'_> {
    /// The first holder of a name of `database`, of that name where one is given, among `most` records from `start` on, with
    /// its name in `text`. The first record is 1.
    pub fn holder_from(
        &self,
        database: u32,
        only: Option<KeyHash>,
        start: u32,
        most: u32,
        text: &mut [u8; MAX_NAME],
    ) -> Result<Seen, Corrupt> {
        let (start, count) = (start.max(1), self.all.count as u32);
        let end = start.saturating_add(most.max(1)).min(count.saturating_add(1));
        let next = |record: u32| (record <= count).then_some(record);
        for record in start..end {
            if self.all.kind(record)? != HOLDER || self.until(record)? <= self.now {
                continue;
            }
            let name = self.all.pair(record, E::Owner as usize)?.0;
            if self.all.pair(name, R::Database as usize)?.0 != database {
                continue;
            }
            if let Some(hash) = only
                && (self.all.get(name, R::High as usize)?, self.all.get(name, R::Low as usize)?)
                    != (hash.high, hash.low)
            {
                continue;
            }
            let len = self.all.text(name, text)?;
            return Ok(Seen { holder: Some(self.holder(record, len)?), next: next(record + 1) });
        }
        Ok(Seen { holder: None, next: next(end) })
    }

    /// The role that holds a name by that token; `None` where nobody does any more.
    pub fn role_of(&self, hash: KeyHash, token: i64) -> Result<Option<u32>, Corrupt> {
        let held = self.held_by(hash, token, None)?;
        held.map(|(_, _, record)| self.all.pair(record, E::Who as usize).map(|who| who.1)).transpose()
    }

    fn holder(&self, record: u32, len: usize) -> Result<Holder, Corrupt> {
        let (pid, role) = self.all.pair(record, E::Who as usize)?;
        Ok(Holder {
            len,
            token: self.all.get(record, E::Token as usize)?.cast_signed(),
            pid,
            role,
            since: self.all.get(record, E::Since as usize)?.cast_signed(),
            expires_at: self.until(record)?,
        })
    }
}

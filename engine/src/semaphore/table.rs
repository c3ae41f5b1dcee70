//! Taking, waiting, extending and releasing.

use super::records::{E, HOLDER, Head, NAME, R, Records, WAITER};
use crate::hash::KeyHash;
use crate::words::{Corrupt, Words};

/// A name of a database.
#[derive(Debug, Clone, Copy)]
pub struct Key<'k> {
    /// What it is found by.
    pub hash: KeyHash,
    /// The database.
    pub database: u32,
    /// At most [`MAX_NAME`](super::MAX_NAME) bytes.
    pub name: &'k [u8],
}

/// What a session asks for.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// At most so many holders, this one included.
    pub max: u32,
    /// For so many microseconds.
    pub ttl: i64,
    /// The session's process number.
    pub process: u32,
    /// Its process ID.
    pub pid: u32,
    /// Its role.
    pub role: u32,
}

/// Whether a session waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// It wants an answer now.
    No,
    /// Until that moment, at the end of the line.
    Until(i64),
    /// It has this ticket, and goes on waiting until its moment; until the given one, at the end of the line, where the ticket
    /// is gone because the memory was made anew.
    Again(u64, i64),
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The session holds the name, with this token.
    Taken(i64),
    /// It doesn't, and isn't in line.
    Denied,
    /// It stands in line with this ticket, and looks again at `alarm`.
    Waits {
        /// For [`Wait::Again`].
        ticket: u64,
        /// When to look again where nobody wakes it.
        alarm: i64,
    },
    /// There is no memory.
    Full,
}

/// What a call has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed<T> {
    /// The answer.
    pub answer: T,
    /// The process number of the session to wake, once the lock is released.
    pub wake: Option<u32>,
}

/// A partition at a moment.
pub struct Table<'a> {
    pub(super) all: Records<'a>,
    pub(super) now: i64,
    /// Whether a session of that process number and process ID is there.
    alive: fn(u32, u32) -> bool,
}

impl<'a> Table<'a> {
    /// The partition in `words`, at the time `now`.
    pub fn open(words: Words<'a>, now: i64, alive: fn(u32, u32) -> bool) -> Result<Self, Corrupt> {
        let table = Table { all: Records::open(words)?, now, alive };
        let before = table.all.head(Head::Clock)?.cast_signed();
        table.all.set_head(Head::Clock, now.cast_unsigned())?;
        if now < before {
            table.bring_back(before.saturating_sub(now))?;
        }
        Ok(table)
    }

    /// The clock was set back by so much.
    #[cold]
    fn bring_back(&self, by: i64) -> Result<(), Corrupt> {
        for record in 1..=self.all.count as u32 {
            if matches!(self.all.kind(record)?, HOLDER | WAITER) {
                self.set_until(record, self.until(record)?.saturating_sub(by))?;
            }
        }
        Ok(())
    }

    pub(super) fn until(&self, record: u32) -> Result<i64, Corrupt> {
        self.all.get(record, E::Until as usize).map(u64::cast_signed)
    }

    fn set_until(&self, record: u32, until: i64) -> Result<(), Corrupt> {
        self.all.set(record, E::Until as usize, until.cast_unsigned())
    }

    /// The next token: greater than all before it, and than those of a memory that was made before this one.
    fn token(&self) -> Result<u64, Corrupt> {
        let last = self.all.head(Head::Token)?;
        let token = last.saturating_add(1).max(u64::try_from(self.now).unwrap_or(0)).min(i64::MAX as u64);
        self.all.set_head(Head::Token, token)?;
        Ok(token)
    }

    /// Takes a name, stands in line for it, or leaves the line where the wait has ended.
    pub fn acquire(&self, key: &Key<'_>, ask: &Ask, wait: Wait) -> Result<Changed<Answer>, Corrupt> {
        let name = if let Some(name) = self.all.find(key.hash)? {
            self.drop_expired(name)?;
            name
        } else {
            // A record for the holder, too.
            if !self.make_room(Records::size(key.name.len()) + 1, 0)? {
                return Ok(Changed { answer: Answer::Full, wake: None });
            }
            self.all.add_name(key.hash, key.database, key.name)?
        };
        let before = self.line(name)?.0;
        let first = self.first(name)?;
        let ticket = if let Wait::Again(ticket, _) = wait { self.in_line(name, ticket)? } else { None };
        let may_take = self.held(name)? < u64::from(ask.max) && (first == 0 || ticket == Some(first));
        if may_take {
            return self.take(name, ask, ticket, before);
        }
        let until = match (wait, ticket) {
            (Wait::No, _) => self.now,
            // Where the clock was set back, the moment in the record went with it.
            (_, Some(record)) => self.until(record)?,
            (Wait::Until(until) | Wait::Again(_, until), None) => until,
        };
        if until <= self.now {
            self.all.count(Head::Denied, 1)?;
            let wake = self.give_up(name, ticket, before)?;
            return Ok(Changed { answer: Answer::Denied, wake });
        }
        let record = if let Some(record) = ticket {
            record
        } else {
            if !self.make_room(1, name)? {
                let wake = self.give_up(name, None, before)?;
                return Ok(Changed { answer: Answer::Full, wake });
            }
            self.line_up(name, ask)?
        };
        self.set_until(record, until)?;
        self.all.set(record, E::Max as usize, u64::from(ask.max))?;
        let alarm = if self.first(name)? == record { until.min(self.earliest(name)?) } else { until };
        let wake = self.new_first(name, before)?.filter(|&process| process != ask.process);
        Ok(Changed { answer: Answer::Waits { ticket: self.all.get(record, E::Token as usize)?, alarm }, wake })
    }

    /// Makes a session a holder, and its place in line that of one.
    fn take(&self, name: u32, ask: &Ask, place: Option<u32>, before: u32) -> Result<Changed<Answer>, Corrupt> {
        let record = if let Some(record) = place {
            self.unlink_waiter(name, record)?;
            self.all.recount(WAITER, HOLDER)?;
            record
        } else {
            if !self.make_room(1, name)? {
                let wake = self.give_up(name, None, before)?;
                return Ok(Changed { answer: Answer::Full, wake });
            }
            self.all.allocate(HOLDER)?
        };
        let token = self.token()?;
        let (text, holders) = self.all.pair(name, R::Lists as usize)?;
        self.write(record, name, ask, token)?;
        self.set_until(record, self.now.saturating_add(ask.ttl))?;
        self.all.set_next(record, HOLDER, holders)?;
        self.all.set_pair(name, R::Lists as usize, text, record)?;
        self.all.set(name, R::Held as usize, self.held(name)? + 1)?;
        self.all.count(Head::Taken, 1)?;
        Ok(Changed { answer: Answer::Taken(token.cast_signed()), wake: self.new_first(name, before)? })
    }

    fn write(&self, record: u32, name: u32, ask: &Ask, token: u64) -> Result<(), Corrupt> {
        self.all.set_pair(record, E::Owner as usize, name, ask.process)?;
        self.all.set_pair(record, E::Who as usize, ask.pid, ask.role)?;
        self.all.set(record, E::Token as usize, token)?;
        self.all.set(record, E::Since as usize, self.now.cast_unsigned())
    }

    /// Puts a session at the end of the line.
    fn line_up(&self, name: u32, ask: &Ask) -> Result<u32, Corrupt> {
        let record = self.all.allocate(WAITER)?;
        self.write(record, name, ask, self.token()?)?;
        let (first, last) = self.line(name)?;
        if last == 0 {
            self.all.set_pair(name, R::Line as usize, record, record)?;
        } else {
            self.all.set_next(last, WAITER, record)?;
            self.all.set_pair(name, R::Line as usize, first, record)?;
        }
        Ok(record)
    }

    /// Has a token last from now on for `ttl` microseconds; false where it isn't held any more, or is another role's than `role`.
    pub fn extend(&self, hash: KeyHash, token: i64, ttl: i64, role: Option<u32>) -> Result<Changed<bool>, Corrupt> {
        let Some((name, _, record)) = self.held_by(hash, token, role)? else {
            return Ok(Changed { answer: false, wake: None });
        };
        let (before, until) = (self.until(record)?, self.now.saturating_add(ttl));
        self.set_until(record, until)?;
        // The first in line has set its alarm by the moment before.
        let wake = if until < before { self.to_wake(name)? } else { None };
        Ok(Changed { answer: true, wake })
    }

    /// Ends what a token stands for; false where it isn't held any more, or is another role's than `role`.
    pub fn release(&self, hash: KeyHash, token: i64, role: Option<u32>) -> Result<Changed<bool>, Corrupt> {
        let Some((name, before, record)) = self.held_by(hash, token, role)? else {
            return Ok(Changed { answer: false, wake: None });
        };
        self.drop_holder(name, before, record)?;
        let wake = self.to_wake(name)?;
        self.drop_unused(name)?;
        Ok(Changed { answer: true, wake })
    }

    /// Leaves the line.
    pub fn leave(&self, hash: KeyHash, ticket: u64) -> Result<Option<u32>, Corrupt> {
        let Some(name) = self.all.find(hash)? else { return Ok(None) };
        let (place, before) = (self.in_line(name, ticket)?, self.line(name)?.0);
        self.give_up(name, place, before)
    }

    /// Frees what has expired; how many tokens had.
    pub fn sweep(&self) -> Result<u64, Corrupt> {
        self.reclaim(0)
    }

    /// Ends a call that has got nothing: the place in line, if any, goes, and a name that nobody needs.
    fn give_up(&self, name: u32, place: Option<u32>, before: u32) -> Result<Option<u32>, Corrupt> {
        if let Some(record) = place {
            self.unlink_waiter(name, record)?;
            self.all.free(record)?;
        }
        let wake = self.new_first(name, before)?;
        self.drop_unused(name)?;
        Ok(wake)
    }

    fn held(&self, name: u32) -> Result<u64, Corrupt> {
        self.all.get(name, R::Held as usize)
    }

    /// The first and the last in line.
    fn line(&self, name: u32) -> Result<(u32, u32), Corrupt> {
        self.all.pair(name, R::Line as usize)
    }

    /// The session to wake where another one was first before: it may be able to take, or has to set its alarm.
    fn new_first(&self, name: u32, before: u32) -> Result<Option<u32>, Corrupt> {
        if self.first(name)? == before { Ok(None) } else { self.to_wake(name) }
    }

    /// The session that has to look: the first in line, which may take now or has to set its alarm.
    fn to_wake(&self, name: u32) -> Result<Option<u32>, Corrupt> {
        match self.first(name)? {
            0 => Ok(None),
            first => self.all.pair(first, E::Owner as usize).map(|(_, process)| Some(process)),
        }
    }

    /// The first in line, once those that are gone have left it; 0 for none.
    fn first(&self, name: u32) -> Result<u32, Corrupt> {
        for _ in 0..=self.all.count {
            let (first, _) = self.line(name)?;
            if first == 0 {
                return Ok(0);
            }
            let process = self.all.pair(first, E::Owner as usize)?.1;
            if (self.alive)(process, self.all.pair(first, E::Who as usize)?.0) {
                return Ok(first);
            }
            self.unlink_waiter(name, first)?;
            self.all.free(first)?;
        }
        Err(Corrupt)
    }

    /// The record of a ticket of this name.
    fn in_line(&self, name: u32, ticket: u64) -> Result<Option<u32>, Corrupt> {
        let (mut record, _) = self.line(name)?;
        for _ in 0..=self.all.count {
            if record == 0 {
                return Ok(None);
            }
            if self.all.get(record, E::Token as usize)? == ticket {
                return Ok(Some(record));
            }
            record = self.all.next(record, WAITER)?;
        }
        Err(Corrupt)
    }

    fn unlink_waiter(&self, name: u32, record: u32) -> Result<(), Corrupt> {
        let (first, last) = self.line(name)?;
        let (mut before, mut at) = (0, first);
        for _ in 0..=self.all.count {
            if at == record {
                break;
            }
            before = at;
            at = self.all.next(at, WAITER)?;
        }
        if at != record {
            return Err(Corrupt);
        }
        let after = self.all.next(record, WAITER)?;
        if before != 0 {
            self.all.set_next(before, WAITER, after)?;
        }
        let first = if before == 0 { after } else { first };
        let last = if after == 0 { before } else { last };
        self.all.set_pair(name, R::Line as usize, first, last)
    }

    /// The holder of a token that hasn't expired: its name, the holder before it in the list, and its record.
    pub(super) fn held_by(
        &self,
        hash: KeyHash,
        token: i64,
        role: Option<u32>,
    ) -> Result<Option<(u32, u32, u32)>, Corrupt> {
        let Some(name) = self.all.find(hash)? else { return Ok(None) };
        let (mut before, mut record) = (0, self.all.pair(name, R::Lists as usize)?.1);
        for _ in 0..=self.all.count {
            if record == 0 {
                return Ok(None);
            }
            if self.all.get(record, E::Token as usize)?.cast_signed() == token {
                let may = role.is_none_or(|role| self.all.pair(record, E::Who as usize).is_ok_and(|who| who.1 == role));
                return Ok((may && self.until(record)? > self.now).then_some((name, before, record)));
            }
            before = record;
            record = self.all.next(record, HOLDER)?;
        }
        Err(Corrupt)
    }

    fn drop_holder(&self, name: u32, before: u32, record: u32) -> Result<(), Corrupt> {
        let after = self.all.next(record, HOLDER)?;
        if before == 0 {
            let (text, _) = self.all.pair(name, R::Lists as usize)?;
            self.all.set_pair(name, R::Lists as usize, text, after)?;
        } else {
            self.all.set_next(before, HOLDER, after)?;
        }
        self.all.set(name, R::Held as usize, self.held(name)?.checked_sub(1).ok_or(Corrupt)?)?;
        self.all.free(record)
    }

    /// When the first of a name's holders expires.
    fn earliest(&self, name: u32) -> Result<i64, Corrupt> {
        let (mut record, mut earliest) = (self.all.pair(name, R::Lists as usize)?.1, i64::MAX);
        for _ in 0..=self.all.count {
            if record == 0 {
                return Ok(earliest);
            }
            earliest = earliest.min(self.until(record)?);
            record = self.all.next(record, HOLDER)?;
        }
        Err(Corrupt)
    }

    fn drop_expired(&self, name: u32) -> Result<u64, Corrupt> {
        let (mut before, mut record) = (0, self.all.pair(name, R::Lists as usize)?.1);
        let mut dropped = 0;
        for _ in 0..=self.all.count {
            if record == 0 {
                self.all.count(Head::Expired, dropped)?;
                return Ok(dropped);
            }
            let next = self.all.next(record, HOLDER)?;
            if self.until(record)? <= self.now {
                self.drop_holder(name, before, record)?;
                dropped += 1;
            } else {
                before = record;
            }
            record = next;
        }
        Err(Corrupt)
    }

    /// Frees a name that nobody holds or waits for.
    fn drop_unused(&self, name: u32) -> Result<(), Corrupt> {
        if self.held(name)? == 0 && self.line(name)?.0 == 0 { self.all.remove_name(name) } else { Ok(()) }
    }

    /// Whether so many records are free, once what has expired is; `keep`: a name that stays. It fails where they are not, and the
    /// partition isn't whole.
    fn make_room(&self, records: usize, keep: u32) -> Result<bool, Corrupt> {
        if self.all.left()? >= records {
            return Ok(true);
        }
        self.reclaim(keep)?;
        if self.all.left()? >= records {
            return Ok(true);
        }
        self.check()?;
        Ok(false)
    }

    /// Frees what has expired. The first in line of its names looks at that moment anyway.
    #[cold]
    fn reclaim(&self, keep: u32) -> Result<u64, Corrupt> {
        let mut dropped = 0;
        for record in 1..=self.all.count as u32 {
            if record != keep && self.all.kind(record)? == NAME {
                dropped += self.drop_expired(record)?;
                self.drop_unused(record)?;
            }
        }
        Ok(dropped)
    }
}

//! What a history does next, by chance.

use crate::history::{HOUR, History, Kind, SECOND};
use crate::message::{Is, Message};
use crate::model::Ending;
use crate::session::{Span, now};
use anyhow::Result;
use std::time::Duration;

/// Leases at the most while the memory is tiny.
const TINY_LEASES: usize = 150;

impl History<'_, '_> {
    /// One step, and what must hold after it.
    pub(crate) fn step(&mut self) -> Result<()> {
        let idle: Vec<usize> = (0..self.waiting.len()).filter(|session| self.waiting[*session].is_none()).collect();
        match self.rng.choice(&idle).copied() {
            Some(session) if self.model.transactions[session].failed => self.leave_failed(session)?,
            Some(session) => self.act(session)?,
            None => {
                let session = self.rng.usize(0..self.waiting.len());
                self.cancel(session)?;
            }
        }
        self.settle()?;
        if self.rng.u8(0..4) == 0 { self.compare() } else { Ok(()) }
    }

    fn leave_failed(&mut self, session: usize) -> Result<()> {
        let savepoints = self.model.transactions[session].savepoints.len();
        if savepoints > 0 && self.rng.bool() {
            let to = self.rng.usize(0..savepoints);
            return self.end_savepoint(session, to, true);
        }
        let commit = self.rng.bool();
        self.end(session, commit)
    }

    fn act(&mut self, session: usize) -> Result<()> {
        let open = self.model.transactions[session].open;
        let savepoints = self.model.transactions[session].savepoints.len();
        match self.rng.u8(0..100) {
            0..4 => {
                let key = self.rng.u8(0..3);
                self.send_once(session, key)
            }
            4..18 => self.send_some(session),
            18..45 => self.read_some(session),
            45..58 => self.end_leased(session),
            58..61 => self.end_any(session),
            61 => self.queue_at_large(),
            62..68 => self.extend_some(session),
            68..71 => self.wait_some(session),
            71..73 => self.delete_contended(session),
            73 => {
                if self.rng.bool() {
                    self.end_hard()
                } else {
                    self.by_hand()
                }
            }
            74..76 => {
                self.sleep();
                Ok(())
            }
            76..78 if open => self.fail(session),
            78..82 if open && savepoints < 3 => self.savepoint(session),
            82..86 if savepoints > 0 => {
                let to = self.rng.usize(0..savepoints);
                let rollback = self.rng.u8(0..3) > 0;
                self.end_savepoint(session, to, rollback)
            }
            86.. if open => {
                let commit = self.rng.u8(0..5) > 1;
                self.end(session, commit)
            }
            _ if !open => {
                let fixed_snapshot = self.rng.u8(0..4) == 0;
                self.begin(session, fixed_snapshot)
            }
            _ => Ok(()),
        }
    }

    fn send_some(&mut self, session: usize) -> Result<()> {
        let delay = [0, 0, 0, 0, 0, 1, 5_000, 30_000, HOUR][self.rng.usize(0..9)];
        let priority = if self.rng.u8(0..3) == 0 { self.rng.i16(0..10) } else { 0 };
        let most = if self.kind == Kind::Tiny { 60 } else { 5 };
        let count = if self.rng.bool() { 1 } else { self.rng.i64(2..most) };
        let group = (self.rng.u8(0..3) == 0).then(|| self.rng.u8(0..4));
        self.send(session, count, delay, (priority, group))
    }

    fn leases(&self) -> Vec<(i64, Option<i64>)> {
        let leased = |(id, message): (&i64, &Message)| Some((*id, message.lease?.number));
        self.model.messages.iter().filter_map(leased).collect()
    }

    fn read_some(&mut self, session: usize) -> Result<()> {
        // Who waits gets what becomes ready meanwhile; a second reader would only blur who is due.
        if self.waiting.iter().any(Option::is_some) {
            return Ok(());
        }
        if self.kind == Kind::Tiny && self.leases().len() > TINY_LEASES {
            return self.end_leased(session);
        }
        let qty = if self.rng.bool() { 1 } else { self.rng.usize(1..12) };
        let timeout = [None, None, Some(HOUR), Some(1_000), Some(20_000)][self.rng.usize(0..5)];
        let pop = self.rng.u8(0..6) == 0;
        self.read(session, qty, timeout, pop)
    }

    fn wait_some(&mut self, session: usize) -> Result<()> {
        // What a fixed snapshot doesn't show is not waited for.
        // What somebody gets who waits in a transaction that stays open leaves much open for all the others; the model
        // says too little of that yet, so it is for those who look closely at what it finds.
        let fixed = self.model.transactions[session].snapshot.is_some();
        if fixed || self.model.options.max_attempts < 1000 || std::env::var_os("ENOUGH_MODEL_WAITING").is_none() {
            return Ok(());
        }
        let moment = now();
        if !self.model.ready(session, Span { from: moment, to: moment }, Is::Possible).is_empty() {
            return self.read_some(session);
        }
        let qty = self.rng.usize(1..4);
        let pop = self.rng.u8(0..4) == 0;
        self.wait(session, qty, pop)
    }

    /// Whether changing that message would wait for another session, or conflict with it.
    fn is_free(&self, session: usize, id: i64) -> bool {
        // What a transaction does to a message that it has failed itself isn't for this model.
        let failed = self.model.messages.get(&id).is_some_and(|message| message.ending == Some(session));
        !failed && !self.model.locked_by_another(session, id) && !self.model.conflicts(session, id)
    }

    fn end_leased(&mut self, session: usize) -> Result<()> {
        let mut leases = self.leases();
        if self.rng.u8(0..4) == 0 {
            let given_back = |(id, message): (&i64, &Message)| Some((*id, Some(message.given_back?)));
            leases = self.model.messages.iter().filter_map(given_back).collect();
        }
        let Some((id, lease)) = self.rng.choice(&leases).copied() else { return Ok(()) };
        if !self.is_free(session, id) {
            return Ok(());
        }
        let lease = match self.rng.u8(0..8) {
            0 => None,
            // One that never was, and one that was another message's.
            1 => Some(1),
            2 => self.rng.choice(&leases).and_then(|(_, lease)| *lease),
            _ => lease,
        };
        self.end_one(session, id, lease)
    }

    /// Finishes a message, or lets it fail.
    fn end_one(&mut self, session: usize, id: i64, lease: Option<i64>) -> Result<()> {
        match self.rng.u8(0..10) {
            0..3 => {
                let rest = [None, None, Some(0), Some(5_000), Some(HOUR)][self.rng.usize(0..5)];
                self.fail_one(session, id, lease, rest)
            }
            3..5 => self.finish(session, id, lease, Ending::Done),
            5 => {
                let delay = [0, 0, 5_000, HOUR][self.rng.usize(0..4)];
                self.release_one(session, id, lease, delay)
            }
            _ => self.finish(session, id, lease, Ending::Deleted),
        }
    }

    /// What concerns the queue as a whole.
    fn queue_at_large(&mut self) -> Result<()> {
        match self.rng.u8(0..8) {
            0..3 if !self.model.any_locked() && !self.model.dead.is_empty() => self.redrive(),
            3 if !self.model.any_locked() => self.purge(),
            4..6 => {
                // Who waits may have been given a message just before.
                let paused = !self.model.paused;
                if self.waiting.iter().all(Option::is_none) { self.pause(paused) } else { Ok(()) }
            }
            6 => {
                let most = [None, Some(2), Some(10)][self.rng.usize(0..3)];
                let timeout = [HOUR, 30_000][self.rng.usize(0..2)];
                // Who waits has its timeout already.
                if self.waiting.iter().all(Option::is_none) { self.alter(most, timeout) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    fn end_any(&mut self, session: usize) -> Result<()> {
        let last = self.model.messages.keys().next_back().copied().unwrap_or(1);
        let id = self.rng.i64(1..=last);
        if self.model.transactions[session].snapshot.is_some() || !self.is_free(session, id) {
            return Ok(());
        }
        self.end_one(session, id, None)
    }

    fn delete_contended(&mut self, session: usize) -> Result<()> {
        if self.model.transactions[session].snapshot.is_some() {
            return Ok(());
        }
        // What its own transaction has sent nobody else sees.
        let there = self.model.messages.iter().filter(|(_, message)| message.sender.is_none());
        let ending = there.filter_map(|(id, message)| Some((*id, message.ending?)));
        let contended: Vec<_> = ending.filter(|(_, holder)| *holder != session).collect();
        let Some((id, holder)) = self.rng.choice(&contended).copied() else { return Ok(()) };
        // Who waits in an open transaction may be given the message when the holder's ends, and keep its row locked then.
        if self.waiting.iter().any(Option::is_some) {
            return Ok(());
        }
        let commit = self.rng.bool();
        self.delete_after(session, id, holder, commit)
    }

    fn extend_some(&mut self, session: usize) -> Result<()> {
        let leases = self.leases();
        let Some((id, lease)) = self.rng.choice(&leases).copied() else { return Ok(()) };
        let timeout = [0, 0, 5_000, HOUR][self.rng.usize(0..4)];
        let lease = if self.rng.u8(0..6) == 0 { Some(2) } else { lease };
        self.extend(session, id, timeout, lease)
    }

    fn end_hard(&mut self) -> Result<()> {
        let moment = now();
        if self.model.next_moment(moment).is_some_and(|next| next < moment + 2 * SECOND) {
            // Whether one who waits has got something in its last moment nobody would know.
            return Ok(());
        }
        let session = self.rng.usize(0..self.waiting.len());
        if self.waiting[session].is_some() && self.rng.bool() { self.cancel(session) } else { self.terminate(session) }
    }

    /// Sleeps, at best until a lease or a delay has come to its end.
    fn sleep(&mut self) {
        let moment = now();
        let until = self.model.next_moment(moment).map_or(1_000, |next| next - moment + 100);
        std::thread::sleep(Duration::from_micros(until.clamp(0, 50_000).unsigned_abs()));
    }
}

//! Further calls: finishing and failing messages, and what concerns the queue as a whole.

use crate::endings::Fate;
use crate::history::{History, Kind, interval, number};
use crate::message::Is;
use crate::model::Ending;
use crate::session::{Span, now};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::time::Duration;

fn argument(lease: Option<i64>) -> String {
    lease.map_or("NULL".to_owned(), |lease| lease.to_string())
}

/// A statement that finishes a message: by itself, or as one of a batch beside another one that never was.
fn end_statement(id: i64, lease: Option<i64>, how: Ending, batch: bool) -> String {
    let lease = argument(lease);
    match (how == Ending::Done, batch) {
        (true, false) => format!("SELECT enough.queue_archive('q', {id}, '{{\"of\": {id}}}', {lease})"),
        (false, false) => format!("SELECT enough.queue_delete('q', {id}, {lease})"),
        (true, true) => batch_statement("queue_archive_batch", id, &lease, ", ARRAY['0', NULL]::jsonb[]"),
        (false, true) => batch_statement("queue_delete_batch", id, &lease, ""),
    }
}

/// Whether a batch of a message, and of another one that never was, has changed that message.
fn batch_statement(function: &str, id: i64, lease: &str, more: &str) -> String {
    let call = format!("enough.{function}('q', ARRAY[{id}, -1], ARRAY[{lease}, 1]{more})");
    format!("SELECT coalesce(array_agg(id), '{{}}') = ARRAY[{id}::bigint] FROM {call} AS id")
}

impl History<'_, '_> {
    /// Deletes or archives a message.
    pub(crate) fn finish(&mut self, session: usize, id: i64, lease: Option<i64>, how: Ending) -> Result<()> {
        let statement = end_statement(id, lease, how, self.rng.bool());
        self.within(session, |history| {
            let (span, rows) = history.call(session, &statement)?;
            let answer = rows[0][0].as_deref() == Some("t");
            history.model.end((session, span), (id, lease), how, answer)
        })
    }

    /// Deletes a message that `holder`'s open transaction is changing, and ends that.
    pub(crate) fn delete_after(&mut self, session: usize, id: i64, holder: usize, commit: bool) -> Result<()> {
        let statement = end_statement(id, None, Ending::Deleted, self.rng.bool());
        self.stage.sessions[session].start(&statement)?;
        // It comes to wait, or to an end before: what may come of it is the same.
        std::thread::sleep(Duration::from_millis(1));
        self.end(holder, commit)?;
        let reply = self.stage.sessions[session].finish()?;
        self.note(session, &statement, &reply);
        self.within(session, |history| {
            let rows = reply.rows.context("a delete that waited")?;
            let answer = rows[0][0].as_deref() == Some("t");
            history.model.end((session, reply.span), (id, None), Ending::Deleted, answer)
        })
    }

    /// Lets a message's delivery fail.
    pub(crate) fn fail_one(
        &mut self,
        session: usize,
        id: i64,
        lease: Option<i64>,
        retry_in: Option<i64>,
    ) -> Result<()> {
        let rest = retry_in.map_or("NULL".to_owned(), interval);
        let lease_text = argument(lease);
        let statement = format!("SELECT enough.queue_fail('q', {id}, 'as planned', {rest}, {lease_text})");
        self.within(session, |history| {
            let (span, rows) = history.call(session, &statement)?;
            let answer = match rows[0][0].as_deref() {
                None => None,
                Some("retry") => Some(Fate::Retry),
                Some("dead") => Some(Fate::Dead),
                Some(other) => bail!("queue_fail says {other}"),
            };
            history.model.fail_one((session, span), (id, lease), retry_in, answer)
        })
    }

    /// Gives a message back.
    pub(crate) fn release_one(&mut self, session: usize, id: i64, lease: Option<i64>, delay: i64) -> Result<()> {
        let (rest, lease_text) = (interval(delay), argument(lease));
        let statement = if self.rng.bool() {
            format!("SELECT enough.queue_release('q', {id}, {rest}, {lease_text})")
        } else {
            batch_statement("queue_release_batch", id, &lease_text, &format!(", {rest}"))
        };
        self.within(session, |history| {
            let (span, rows) = history.call(session, &statement)?;
            let answer = rows[0][0].as_deref() == Some("t");
            history.model.release_one((session, span), (id, lease), delay, answer)
        })
    }

    /// Brings all dead letters back, and first buries what is used up.
    pub(crate) fn redrive(&mut self) -> Result<()> {
        let moment = now();
        let before = Span { from: moment, to: moment + 20_000 };
        let used_up = self.model.used_up(before, Is::Possible);
        if used_up != self.model.used_up(Span { from: moment, to: moment }, Is::Sure)
            || (self.kind == Kind::Tiny && !used_up.is_empty())
        {
            // Nobody would know which of them came back.
            return Ok(());
        }
        let rows = self.observe("SELECT enough.queue_redrive('q')")?;
        if now() <= before.to || used_up == self.model.used_up(Span { from: moment, to: now() }, Is::Possible) {
            self.model.all_buried(&used_up);
            return self.model.redriven(number(&rows[0], 0)?);
        }
        bail!("a redrive that took so long that other leases ran out meanwhile isn't for this model")
    }

    /// Maintenance has come by: what has been buried, and whether that is all that is used up.
    fn was_maintained(&mut self, from: i64) -> Result<()> {
        let span = Span { from, to: now() };
        let rows = self.observe("SELECT msg_id FROM enough.a_q WHERE outcome = 'dead'")?;
        let dead: BTreeSet<i64> = rows.iter().map(|row| number(row, 0)).collect::<Result<_>>()?;
        let possible = self.model.used_up(span, Is::Possible);
        let buried: Vec<i64> = possible.into_iter().filter(|id| dead.contains(id)).collect();
        if self.kind == Kind::Roomy {
            let left: Vec<i64> =
                self.model.used_up(span, Is::Sure).into_iter().filter(|id| !buried.contains(id)).collect();
            ensure!(left.is_empty(), "{left:?} are used up, and maintenance has left them");
        }
        self.model.all_buried(&buried);
        Ok(())
    }

    pub(crate) fn purge(&mut self) -> Result<()> {
        let rows = self.observe("SELECT enough.queue_purge('q')")?;
        self.model.purged(number(&rows[0], 0)?)
    }

    pub(crate) fn pause(&mut self, paused: bool) -> Result<()> {
        self.observe(if paused { "SELECT enough.queue_pause('q')" } else { "SELECT enough.queue_resume('q')" })?;
        self.model.paused = paused;
        Ok(())
    }

    /// Changes how many may be leased at a time, and for how long.
    pub(crate) fn alter(&mut self, max_in_flight: Option<u32>, visibility_timeout: i64) -> Result<()> {
        let most = max_in_flight.unwrap_or(0);
        let timeout = interval(visibility_timeout);
        self.observe(&format!(
            "SELECT enough.queue_alter('q', max_in_flight => {most}, visibility_timeout => {timeout})"
        ))?;
        self.model.options.max_in_flight = max_in_flight;
        self.model.options.visibility_timeout = visibility_timeout;
        Ok(())
    }

    /// Sends a message with a dedup key.
    pub(crate) fn send_once(&mut self, session: usize, key: u8) -> Result<()> {
        let live = self.model.holder_of(key).map(|(id, message)| (id, message.sender, message.ending));
        let held = live.is_some_and(|(_, sender, ending)| [sender, ending].iter().flatten().any(|by| *by != session));
        let locked = live.is_some_and(|(id, ..)| self.model.locked_by_another(session, id));
        // Who waits in an open transaction may pop the one that has the key.
        let may_be_popped = live.is_some() && self.waiting.iter().any(Option::is_some);
        // One that its own transaction fails lives on, one that it finishes doesn't.
        let changing = live.is_some_and(|(_, _, ending)| ending.is_some());
        if held || locked || changing || may_be_popped || self.model.transactions[session].snapshot.is_some() {
            // It would have to wait for another transaction's end, or to fail.
            return Ok(());
        }
        let live = live.filter(|(_, _, ending)| ending.is_none()).map(|(id, ..)| id);
        let payload = self.next_payload;
        self.next_payload += 1;
        self.within(session, |history| {
            let statement = format!("SELECT enough.queue_send('q', '{payload}', dedup_key => 'key {key}')");
            let (span, rows) = history.call(session, &statement)?;
            let id: i64 = number(&rows[0], 0)?;
            if let Some(first) = live {
                let used_up = history.model.messages[&first].used_up(history.model.options.max_attempts, span);
                if first == id {
                    ensure!(used_up != Is::Sure, "message {first} is used up and has its key still");
                    return Ok(());
                }
                // Fails where it isn't used up.
                history.model.bury(session, span, first)?;
            }
            history.model.send(session, span, id, payload, (0, None, Some(key)), None)
        })
    }

    /// Does to the table what an administrator may do behind the queue's back: empties it, deletes a row, puts another one in
    /// its place.
    pub(crate) fn by_hand(&mut self) -> Result<()> {
        let busy = self.model.transactions.iter().any(|transaction| transaction.open);
        if busy || self.waiting.iter().any(Option::is_some) {
            return Ok(());
        }
        let ids: Vec<i64> = self.model.messages.keys().copied().collect();
        let Some(id) = self.rng.choice(&ids).copied() else { return Ok(()) };
        match self.rng.u8(0..4) {
            0 => {
                // A number that the archive has, too, would be for another model.
                let archived = !self.model.dead.is_empty() || !self.model.done.is_empty();
                let restart = if archived { "" } else { " RESTART IDENTITY" };
                self.observe(&format!("TRUNCATE enough.q_q{restart}"))?;
                self.model.emptied();
                return Ok(());
            }
            1 => {
                self.observe(&format!("DELETE FROM enough.q_q WHERE msg_id = {id}"))?;
                self.model.replaced(id, None);
            }
            _ => {
                let payload = self.next_payload;
                self.next_payload += 1;
                self.observe(&format!("DELETE FROM enough.q_q WHERE msg_id = {id}"))?;
                self.observe(&format!("INSERT INTO enough.q_q (msg_id, message) VALUES ({id}, '{payload}')"))?;
                self.model.replaced(id, Some(payload));
            }
        }
        let from = now();
        self.observe("SELECT enough.maintain()")?;
        self.was_maintained(from)
    }

    /// Compares what `queue_status` says of a message, one of the last.
    pub(crate) fn compare_state(&mut self) -> Result<()> {
        let last = self.model.messages.keys().next_back().copied().unwrap_or(1) + 2;
        let id = self.rng.i64(1..=last);
        let from = now();
        let rows = self.observe(&format!("SELECT state FROM enough.queue_status('q', {id})"))?;
        let found = rows.first().and_then(|row| row[0].as_deref()).unwrap_or("none");
        let due = self.model.state(id, Span { from, to: now() });
        ensure!(
            due.is_none_or(|due| due == found),
            "message {id} is {found}, where it must be {due:?}: {:?}",
            self.model.messages.get(&id)
        );
        Ok(())
    }
}

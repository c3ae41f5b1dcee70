//! How deliveries end: finished, failed, dead, and back again.

use crate::message::{AT_ONCE, Bounds, Is, Message, passed};
use crate::model::{Effect, Ending, Model};
use crate::session::Span;
use anyhow::{Result, bail, ensure};

/// What `queue_fail` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Retry,
    Dead,
}

impl Model {
    /// Whether finishing that message must succeed (`Possible`: may). With `fails`, letting its delivery fail.
    fn can_end(&self, session: usize, span: Span, id: i64, lease: Option<i64>, fails: bool) -> Is {
        let Some(message) = self.messages.get(&id) else { return Is::Not("it isn't there") };
        if message.sender.is_some_and(|sender| sender != session) {
            return Is::Not("its send is not committed");
        }
        if message.ending == Some(session) {
            return Is::Not("this transaction has finished it");
        }
        if lease.is_none() {
            return Is::Sure;
        }
        if fails && message.lease.is_none() && message.given_back == lease {
            // As long as it rests, and the memory has kept it.
            let rests = matches!(passed(message.due, span, ""), Is::Not(_));
            return if rests && self.roomy { Is::Sure } else { Is::Possible };
        }
        message.leased(lease, span)
    }

    /// `queue_delete` (or `queue_archive`, as `how` says) answered.
    pub(crate) fn end(
        &mut self,
        (session, span): (usize, Span),
        (id, lease): (i64, Option<i64>),
        how: Ending,
        answer: bool,
    ) -> Result<()> {
        let fails = matches!(how, Ending::Retry(_) | Ending::Dead);
        match (self.can_end(session, span, id, lease, fails), answer) {
            (Is::Not(why), true) => bail!("message {id} was finished, but {why}: {:?}", self.messages.get(&id)),
            (Is::Sure, false) => bail!("message {id} was not finished: {:?}", self.messages.get(&id)),
            _ => {}
        }
        if answer {
            self.of(id).ending = Some(session);
            self.transactions[session].effects.push(Effect::Ends { id, how });
        }
        Ok(())
    }

    /// `queue_fail` answered.
    pub(crate) fn fail_one(
        &mut self,
        (session, span): (usize, Span),
        (id, lease): (i64, Option<i64>),
        retry_in: Option<i64>,
        answer: Option<Fate>,
    ) -> Result<()> {
        let how = match answer {
            None | Some(Fate::Dead) => Ending::Dead,
            Some(Fate::Retry) => {
                let attempts = self.messages.get(&id).map_or(0, |message| message.attempts.most);
                let rest = retry_in.map_or_else(|| self.options.rest(attempts), Bounds::exactly);
                Ending::Retry(Bounds { least: span.from + rest.least, most: span.to + rest.most })
            }
        };
        if let (Some(fate), Some(message)) = (answer, self.messages.get_mut(&id)) {
            let most = self.options.max_attempts;
            let right = match fate {
                Fate::Retry => message.attempts.least < most,
                Fate::Dead => message.attempts.most >= most,
            };
            ensure!(right, "message {id} is for {fate:?}: {message:?}");
        }
        self.end((session, span), (id, lease), how, answer.is_some())
    }

    /// `queue_release` answered.
    pub(crate) fn release_one(
        &mut self,
        (session, span): (usize, Span),
        (id, lease): (i64, Option<i64>),
        delay: i64,
        answer: bool,
    ) -> Result<()> {
        let leased = self.messages.get(&id).map_or(Is::Not("it isn't there"), |message| message.leased(lease, span));
        match (leased, answer) {
            (Is::Not(why), true) => bail!("message {id} was released, but {why}: {:?}", self.messages.get(&id)),
            // What the transaction has finished is not leased any more.
            (_, false) if leased != Is::Sure || lease.is_none() => return Ok(()),
            _ => {}
        }
        let due = Bounds { least: span.from + delay, most: span.to + delay };
        self.end((session, span), (id, lease), Ending::Released(due), answer)
    }

    /// The transaction that has ended a message so commits.
    pub(crate) fn ended(&mut self, id: i64, how: Ending) {
        let now = self.commits;
        if let Ending::Retry(due) | Ending::Released(due) = how {
            let message = self.of(id);
            if matches!(how, Ending::Released(_)) {
                let Bounds { least, most } = message.attempts;
                message.attempts = Bounds { least: least.saturating_sub(1), most: most.saturating_sub(1) };
            }
            (message.ending, message.lease, message.given_back, message.fresh) = (None, None, None, false);
            (message.due, message.row_due) = (due, due);
            message.durable = message.attempts;
            message.changed = Bounds::exactly(now);
            return;
        }
        let message = self.messages.remove(&id).expect("who ends a message holds it");
        match how {
            Ending::Done => drop(self.done.insert(id)),
            Ending::Dead => drop(self.dead.insert(id, message)),
            Ending::Deleted | Ending::Retry(_) | Ending::Released(_) => {}
        }
    }

    /// `queue_redrive`, in a transaction of its own, has brought so many dead letters back.
    pub(crate) fn redriven(&mut self, count: i64) -> Result<()> {
        self.commits += 1;
        let mut back = 0;
        for (id, message) in std::mem::take(&mut self.dead) {
            if message.dedup.is_some_and(|key| self.holder_of(key).is_some()) {
                self.dead.insert(id, message);
                continue;
            }
            back += 1;
            let again = Message {
                sender: None,
                sent: self.commits,
                changed: Bounds::exactly(self.commits),
                attempts: Bounds::exactly(0),
                durable: Bounds::exactly(0),
                due: AT_ONCE,
                row_due: AT_ONCE,
                lease: None,
                given_back: None,
                ending: None,
                fresh: false,
                leased_at: None,
                ..message
            };
            self.messages.insert(id, again);
        }
        ensure!(count == back, "{count} messages were redriven, where {back} were dead");
        Ok(())
    }

    /// The live message that has a dedup key, and who holds it open.
    pub(crate) fn holder_of(&self, key: u8) -> Option<(i64, &Message)> {
        // An earlier one is being finished by the transaction that sent the later one.
        self.messages.iter().rfind(|(_, message)| message.dedup == Some(key)).map(|(id, message)| (*id, message))
    }

    /// `queue_purge`, in a transaction of its own.
    pub(crate) fn purged(&mut self, count: i64) -> Result<()> {
        ensure!(count == self.rows().0, "{count} messages were purged, of {:?}", self.rows());
        self.commits += 1;
        self.messages.retain(|_, message| message.sender.is_some());
        Ok(())
    }

    /// The table was emptied behind the queue's back.
    pub(crate) fn emptied(&mut self) {
        self.commits += 1;
        self.messages.clear();
    }

    /// A row was deleted behind the queue's back, and another one with that payload has its number.
    pub(crate) fn replaced(&mut self, id: i64, payload: Option<i64>) {
        self.commits += 1;
        self.messages.remove(&id);
        if let Some(payload) = payload {
            self.messages.insert(id, Message::sent(payload, self.commits));
        }
    }

    /// Whether any open transaction has changed the row of a message.
    pub(crate) fn any_locked(&self) -> bool {
        let effects = self.transactions.iter().flat_map(|transaction| &transaction.effects);
        effects.into_iter().any(|effect| matches!(effect, Effect::Noted { .. } | Effect::Ends { .. }))
    }

    /// What `queue_status` must say during `span`; `None` where several answers are right.
    pub(crate) fn state(&self, id: i64, span: Span) -> Option<&'static str> {
        if self.done.contains(&id) {
            return Some("done");
        }
        if self.dead.contains_key(&id) {
            return Some("dead");
        }
        let Some(message) = self.messages.get(&id).filter(|message| message.sender.is_none()) else {
            return Some("none");
        };
        if message.ending.is_some() {
            // Where memory is short it may not have been set aside.
            return self.roomy.then_some("leased");
        }
        match message.used_up(self.options.max_attempts, span) {
            Is::Sure => return Some("dead"),
            Is::Possible => return None,
            Is::Not(_) => {}
        }
        let passed = passed(message.due, span, "");
        match (message.leased(None, span), passed) {
            (Is::Sure, _) => Some("leased"),
            (Is::Possible, _) | (_, Is::Possible) => None,
            (Is::Not(_), Is::Not(_)) => Some("delayed"),
            (Is::Not(_), Is::Sure) => Some("ready"),
        }
    }
}

//! What a change of a policy's algorithm or period does to a key's state.
//!
//! The new rule is applied to what was consumed so far: to all that counted by the old rule when it was changed. A state
//! doesn't know every moment of that, so each part counts as consumed at the latest moment at which it can have been: then
//! nothing is given back early, and a change never gives a fresh allowance. The caller keeps the new state at once.

use super::limit::{Algorithm, Limit, State, elapsed};
use super::token_bucket;
use crate::window::{STEPS, Steps, Window};

/// What was consumed, by the latest moment at which it can have been; the oldest part first.
#[derive(Default)]
struct Parts {
    parts: [(i64, u32); STEPS + 1],
    len: usize,
}

impl Parts {
    fn push(&mut self, time: i64, count: u32) {
        if count > 0
            && let Some(place) = self.parts.get_mut(self.len)
        {
            *place = (time, count);
            self.len += 1;
        }
    }

    fn iter(&self) -> impl Iterator<Item = (i64, u32)> + Clone {
        self.parts.into_iter().take(self.len)
    }

    /// The state that they leave under `limit`; none where nothing counts.
    fn state(&self, limit: &Limit, now: i64) -> Option<State> {
        match limit.algorithm {
            Algorithm::SlidingWindow => sliding(limit, now, self),
            Algorithm::FixedWindow => {
                let inside = self.iter().filter(|(time, _)| elapsed(*time, now) < limit.period);
                fixed(inside.clone().map(|(time, _)| time).max(), inside)
            }
            Algorithm::Calendar => fixed(Some(limit.opened), self.iter().filter(|(time, _)| *time >= limit.opened)),
            Algorithm::TokenBucket => bucket(limit, now, self),
        }
    }
}

/// A state that a key has, and what it was kept for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Former {
    /// The state.
    pub state: State,
    /// The period of its rule, in microseconds.
    pub period: u64,
    /// When it is as good as new by that rule.
    pub expiry: i64,
}

impl Former {
    /// What was consumed and still counts by its own rule.
    pub(super) fn used(&self, now: i64) -> u32 {
        if self.expiry <= now {
            return 0;
        }
        match self.state {
            State::Fixed { used, .. } => used,
            State::Sliding(window) => u32::try_from(window.at(Steps::of(self.period), now).total()).unwrap_or(u32::MAX),
            State::Bucket { time, level } => {
                // The rate is what drains the level until the expiry: level × left / span, rounded up.
                let span = u128::from(elapsed(time, self.expiry)).max(1);
                let left = u128::from(elapsed(now, self.expiry)).min(span);
                let level = level / span * left + (level % span * left).div_ceil(span);
                u32::try_from(level.div_ceil(u128::from(self.period.max(1)))).unwrap_or(u32::MAX)
            }
        }
    }

    /// Whether a state of the calendar is one of the limit's window, or over. One that is neither was kept for another
    /// time zone.
    pub(super) fn is_of_window(&self, limit: &Limit, now: i64) -> bool {
        match self.state {
            State::Fixed { opened, .. } if limit.algorithm == Algorithm::Calendar => {
                opened >= limit.opened || self.expiry <= now
            }
            _ => true,
        }
    }

    /// The state for `limit`, which took the place of this one's rule at `since`. None where nothing counts any more.
    pub(super) fn convert(&self, limit: &Limit, since: i64, now: i64) -> Option<State> {
        // What was consumed by the old rule later on, by a session that did not see the change yet, counts as well.
        let changed = since.max(self.state.time()).min(now);
        self.parts(limit, changed, now).state(limit, now)
    }

    /// The state for `limit`, a rule that a policy has since `since`, of what another rule's state has of the time before.
    /// What was consumed later was counted for the rule itself.
    pub(super) fn derive(&self, limit: &Limit, since: i64, now: i64) -> Option<State> {
        let longest = limit.period.saturating_add(limit.steps().length());
        if elapsed(since, now) >= longest {
            return None;
        }
        let since = since.min(now);
        self.parts(limit, since, since).state(limit, now)
    }

    /// What counted by the old rule at `changed`, as far as it was consumed until `until`.
    fn parts(&self, limit: &Limit, changed: i64, until: i64) -> Parts {
        let mut parts = Parts::default();
        match self.state {
            State::Sliding(window) => {
                let steps = Steps::of(self.period);
                for (first, last, count) in window.at(steps, changed.max(window.start)).consumed(steps) {
                    parts.push(last.min(until), if first <= until { count } else { 0 });
                }
            }
            State::Fixed { opened, .. } => {
                // A window that was open by the new rule, too, opened when it did.
                let still = limit.algorithm == Algorithm::FixedWindow && elapsed(opened, changed) < limit.period;
                parts.push(if still { opened } else { until }, if opened <= until { self.used(changed) } else { 0 });
            }
            State::Bucket { .. } => parts.push(changed, self.used(changed)),
        }
        parts
    }
}

fn sliding(limit: &Limit, now: i64, parts: &Parts) -> Option<State> {
    let steps = limit.steps();
    let mut window = Window::new(steps, now);
    parts.iter().for_each(|(time, count)| window.consume_at(steps, time, count));
    (window.total() > 0).then_some(State::Sliding(window))
}

fn fixed(opened: Option<i64>, parts: impl Iterator<Item = (i64, u32)>) -> Option<State> {
    let used = parts.fold(0_u32, |sum, (_, count)| sum.saturating_add(count));
    opened.filter(|_| used > 0).map(|opened| State::Fixed { opened, used })
}

fn bucket(limit: &Limit, now: i64, parts: &Parts) -> Option<State> {
    let state =
        parts.iter().fold(None, |state, (time, count)| Some(token_bucket::consume(limit, state.as_ref(), time, count)));
    let Some(State::Bucket { time, level }) = state else { return None };
    // More than the capacity would keep it empty for longer than one that is used up just now.
    let level = level.min(token_bucket::tokens(limit, limit.capacity));
    (token_bucket::level_at(limit, time, level, now) > 0).then_some(State::Bucket { time, level })
}

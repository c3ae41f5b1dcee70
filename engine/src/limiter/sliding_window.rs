//! The sliding window: in any trailing period no more than the limit, by the counts of a [`Window`].
//!
//! Most windows never consume more than 255 in a step before the running one. Those counts take a byte each, which is how
//! a window fits into a cache line beside its key ([`Narrow`]). The plain grant works on that form as it is.

use super::limit::{Decision, Limit, Request, State};
use crate::fingerprint;
use crate::window::{STEPS, Window};

/// A window whose counts before the running step fit into a byte each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Narrow {
    /// When the running step started.
    pub start: i64,
    /// What was consumed in the running step.
    pub running: u32,
    /// What was consumed in the steps before, the latest in the lowest byte.
    pub before: u128,
}

/// Bits of [`Narrow::before`] before the oldest step's.
const OLDEST: u32 = (STEPS as u32 - 1) * 8;

impl Narrow {
    /// The window in this form; none if a count is too large.
    pub(crate) fn of(window: &Window) -> Option<Self> {
        let (running, before) = window.counts.split_first()?;
        let bytes =
            before.iter().rev().try_fold(0, |bytes, count| Some(bytes << 8 | u128::from(u8::try_from(*count).ok()?)));
        Some(Narrow { start: window.start, running: *running, before: bytes? })
    }

    /// A window that isn't narrow in this form: what doesn't fit into a step's byte counts as consumed in the running step,
    /// so that it is given back late rather than early.
    pub(crate) fn late(window: &Window) -> Self {
        let mut narrow = *window;
        let mut surplus = 0_u32;
        for count in &mut narrow.counts[1..] {
            surplus = surplus.saturating_add(count.saturating_sub(u32::from(u8::MAX)));
            *count = (*count).min(u32::from(u8::MAX));
        }
        narrow.consume(surplus);
        Narrow::of(&narrow).unwrap_or(Narrow { start: narrow.start, running: u32::MAX, before: 0 })
    }

    /// The window.
    pub(crate) fn window(&self) -> Window {
        let mut window = Window { start: self.start, counts: [0; STEPS + 1] };
        let bytes = self.before.to_le_bytes();
        let (running, before) = window.counts.split_at_mut(1);
        running.fill(self.running);
        for (count, byte) in before.iter_mut().zip(bytes) {
            *count = u32::from(byte);
        }
        window
    }

    /// The sum of the bytes.
    #[inline(always)]
    fn sum_before(&self) -> u64 {
        const EVEN: u64 = 0x00ff_00ff_00ff_00ff;
        let pairs = |word: u64| (word & EVEN) + (word >> 8 & EVEN);
        // Four sums of four bytes each, added up in the uppermost.
        (pairs(self.before as u64) + pairs((self.before >> 64) as u64)).wrapping_mul(0x0001_0001_0001_0001) >> 48
    }

    /// The window as it is at `now`, which is not before its running step, and how long that has lasted; none where the
    /// window is not narrow then.
    #[inline(always)]
    fn at(mut self, limit: &Limit, now: i64) -> Option<(Self, u64)> {
        let steps = limit.steps();
        let mut since = now.abs_diff(self.start);
        if since >= steps.length() {
            let passed = since / steps.length();
            if passed > STEPS as u64 {
                (self.running, self.before) = (0, 0);
            } else {
                let running = u8::try_from(self.running).ok()?;
                self.before = (self.before << 8 | u128::from(running)) << ((passed as u32 - 1) * 8);
                self.running = 0;
            }
            since -= passed * steps.length();
            self.start = now.saturating_sub_unsigned(since);
        }
        if since >= steps.release(STEPS) {
            self.before &= (1 << OLDEST) - 1;
        }
        Some((self, since))
    }

    /// What [`Limit::decide`] does for a request of all or nothing. None where the state is or would not be narrow.
    #[inline(always)]
    pub(super) fn decide(self, limit: &Limit, now: i64, cost: u32) -> Option<(Decision, Option<Self>)> {
        let (mut window, mut since) = self.at(limit, now)?;
        let used = u64::from(window.running) + window.sum_before();
        let Some(remaining) = u64::from(limit.capacity).checked_sub(used + u64::from(cost)) else {
            return Some((window.deny(limit, since, used, cost), None));
        };
        if used == 0 {
            window.start = limit.steps().first(now);
            since = now.abs_diff(window.start);
        }
        window.running = window.running.checked_add(cost)?;
        let decision = Decision {
            allowed: true,
            granted: cost,
            remaining: remaining as u32,
            retry_after: Some(0),
            reset_after: limit.steps().release(0) - since,
        };
        Some((decision, Some(window)))
    }

    fn deny(&self, limit: &Limit, since: u64, used: u64, cost: u32) -> Decision {
        let wait = |most: u32| self.wait(limit, since, u64::from(most));
        Decision {
            allowed: false,
            granted: 0,
            remaining: u64::from(limit.capacity).saturating_sub(used) as u32,
            retry_after: limit.capacity.checked_sub(cost).map(wait),
            reset_after: wait(0),
        }
    }

    /// As [`Window::wait`].
    fn wait(&self, limit: &Limit, since: u64, most: u64) -> u64 {
        let mut stay = u64::from(self.running);
        let mut back = 0;
        for byte in self.before.to_le_bytes() {
            if stay > most {
                break;
            }
            stay += u64::from(byte);
            back += 1;
        }
        if stay > most { limit.steps().release(back).saturating_sub(since) } else { 0 }
    }
}

/// What [`Limit::decide`] does: a window is brought forward once.
pub(super) fn decide(limit: &Limit, window: &Window, now: i64, request: Request) -> (Decision, Option<State>) {
    let steps = limit.steps();
    let mut window = window.at(steps, now);
    let available = limit.capacity.saturating_sub(u32::try_from(window.total()).unwrap_or(u32::MAX));
    let (cost, granted) = request.of(available);
    window.consume(granted);
    let wait = |most: u32| window.wait(steps, now, u64::from(most));
    let retry_after = if cost <= available { Some(0) } else { limit.capacity.checked_sub(cost).map(wait) };
    let decision = Decision {
        allowed: cost <= available,
        granted,
        remaining: available - granted,
        retry_after,
        reset_after: wait(0),
    };
    (decision, (granted > 0).then_some(State::Sliding(window)))
}

#[inline]
pub(super) fn available(limit: &Limit, window: &Window, now: i64) -> u32 {
    let used = window.at(limit.steps(), now).total();
    limit.capacity.saturating_sub(u32::try_from(used).unwrap_or(u32::MAX))
}

#[inline]
pub(super) fn wait(limit: &Limit, window: &Window, now: i64, cost: u32) -> u64 {
    let most = limit.capacity.saturating_sub(cost);
    window.at(limit.steps(), now).wait(limit.steps(), now, u64::from(most))
}

#[inline]
pub(super) fn consume(limit: &Limit, state: Option<&State>, now: i64, cost: u32) -> State {
    let mut window = match state {
        Some(State::Sliding(window)) => window.at(limit.steps(), now),
        _ => Window::new(limit.steps(), now),
    };
    window.consume(cost);
    State::Sliding(window)
}

/// Takes what was consumed last first: it counts longest.
#[inline]
pub(super) fn refund(limit: &Limit, window: &Window, now: i64, amount: u32) -> State {
    let mut window = window.at(limit.steps(), now);
    window.refund(amount);
    State::Sliding(window)
}

/// What of this file the layout version depends on.
pub(super) const LAYOUT: u64 = fingerprint![OLDEST];

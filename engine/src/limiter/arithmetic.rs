//! How much may be consumed now, and how long until so much may be: one question for all algorithms.

use super::limit::{Algorithm, Decision, Limit, MAX_PERIOD, Request, State};
use super::{fixed_window, sliding_window, token_bucket};

impl Limit {
    /// How much may be consumed at `now`. A state of another kind than the algorithm's counts as none.
    #[inline]
    pub fn available(&self, state: Option<&State>, now: i64) -> u32 {
        match state {
            Some(&State::Fixed { opened, used }) => fixed_window::available(self, opened, used, now),
            Some(State::Sliding(window)) => sliding_window::available(self, window, now),
            Some(&State::Bucket { time, level }) => token_bucket::available(self, time, level, now),
            None => self.capacity,
        }
    }

    /// Microseconds after `now` until `cost` may be consumed; none if `cost` is above the capacity.
    #[inline]
    pub fn wait(&self, state: Option<&State>, now: i64, cost: u32) -> Option<u64> {
        if cost > self.capacity {
            return None;
        }
        Some(match state {
            Some(&State::Fixed { opened, used }) => fixed_window::wait(self, opened, used, now, cost),
            Some(State::Sliding(window)) => sliding_window::wait(self, window, now, cost),
            Some(&State::Bucket { time, level }) => token_bucket::wait(self, time, level, now, cost),
            None => 0,
        })
    }

    /// Microseconds after `now` until the key is as good as new: all of the capacity may be consumed.
    #[inline]
    pub fn reset_after(&self, state: Option<&State>, now: i64) -> u64 {
        self.wait(state, now, self.capacity).unwrap_or(0)
    }

    /// The state after `cost` has been consumed.
    #[inline]
    fn consume(&self, state: Option<&State>, now: i64, cost: u32) -> State {
        match self.algorithm {
            Algorithm::FixedWindow | Algorithm::Calendar => fixed_window::consume(self, state, now, cost),
            Algorithm::SlidingWindow => sliding_window::consume(self, state, now, cost),
            Algorithm::TokenBucket => token_bucket::consume(self, state, now, cost),
        }
    }

    /// Answers `request` at `now`. The new state is given where it differs from the old one.
    #[inline]
    pub fn decide(&self, state: Option<&State>, now: i64, request: Request) -> (Decision, Option<State>) {
        if let Some(State::Sliding(window)) = state {
            return sliding_window::decide(self, window, now, request);
        }
        let moved;
        let state = match state {
            Some(ahead) if ahead.time() > now => {
                moved = ahead.rebase(now);
                Some(&moved)
            }
            state => state,
        };
        let available = self.available(state, now);
        let (cost, granted) = request.of(available);
        let changed = (granted > 0).then(|| self.consume(state, now, granted));
        let left = changed.as_ref().or(state);
        let retry_after = if cost <= available { Some(0) } else { self.wait(left, now, cost) };
        let reset_after = self.reset_after(left, now);
        let remaining = available - granted;
        (Decision { allowed: cost <= available, granted, remaining, retry_after, reset_after }, changed)
    }

    /// Books `cost` ahead: consumes it although there is less, if it will be there within `max_wait` microseconds. The
    /// answer's `retry_after` is how long the caller has to wait before it acts or, where nothing was booked, before the
    /// same call would book; none where it never would. For the token bucket alone.
    pub fn reserve(&self, state: Option<&State>, now: i64, cost: u32, max_wait: u64) -> (Decision, Option<State>) {
        let state = state.map(|state| state.rebase(now));
        let state = state.as_ref();
        let wait = self.wait(state, now, cost);
        let booked = wait.is_some_and(|wait| wait <= max_wait.min(MAX_PERIOD)) && cost > 0;
        let changed = booked.then(|| self.consume(state, now, cost));
        let left = changed.as_ref().or(state);
        let decision = Decision {
            allowed: booked,
            granted: if booked { cost } else { 0 },
            remaining: self.available(left, now),
            retry_after: if booked { wait } else { wait.map(|wait| wait.saturating_sub(max_wait)) },
            reset_after: self.reset_after(left, now),
        };
        (decision, changed)
    }

    /// Gives back `amount`, or all that is left of what was consumed if that is less.
    #[inline]
    pub fn refund(&self, state: State, now: i64, amount: u32) -> State {
        match state.rebase(now) {
            State::Fixed { opened, used } => State::Fixed { opened, used: used.saturating_sub(amount) },
            State::Sliding(window) => sliding_window::refund(self, &window, now, amount),
            State::Bucket { time, level } => token_bucket::refund(self, time, level, now, amount),
        }
    }
}

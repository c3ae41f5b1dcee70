//! A strict sliding window: what was consumed in the period that ends now, never too little and never late by more than
//! a step.
//!
//! The period is kept in [`STEPS`] equal steps of exact counts, beside the step that is running. A step counts whole until
//! its last microsecond is a period old. So whatever trailing period is looked at, the window has counted everything in
//! it, and what was consumed is given back at most one step late, never early.
//!
//! A step lasts ceil(period / 16) microseconds. Where 16 does not divide the period, 16 steps are up to 15 µs longer than
//! it, and the oldest step leaves that much before the running one ends ([`Steps::release`]): "a period old" is exact.
//!
//! Steps follow one another from the first consumption on, which is the last microsecond of the first step: so what is
//! consumed first is given back when it is just a period old. Once nothing counts any more the next consumption starts new
//! steps, so a clock has no boundaries that all windows share.

/// How many steps a period is divided into.
pub const STEPS: usize = 16;
/// How many counts a window has: the running step and those before it that a trailing period overlaps.
pub(crate) const COUNTS: usize = STEPS + 1;

/// What of this file the layout version depends on.
pub(crate) const LAYOUT: u64 = crate::fingerprint![STEPS, COUNTS];

/// How a period is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    /// Microseconds; at least 1 ms, so that no step but the oldest can leave while the running one lasts.
    period: u64,
    /// Microseconds of a step.
    length: u64,
}

impl Steps {
    /// The steps of a period of at least a millisecond (in microseconds).
    #[inline(always)]
    pub fn of(period: u64) -> Self {
        Steps { period, length: period.div_ceil(STEPS as u64) }
    }

    /// Microseconds of a step.
    #[inline(always)]
    pub fn length(self) -> u64 {
        self.length
    }

    /// When the first step of a window starts in which nothing was consumed before `now`.
    #[inline(always)]
    pub fn first(self, now: i64) -> i64 {
        now.saturating_sub_unsigned(self.length - 1)
    }

    /// How long after the running step's start the step that began `back` steps earlier no longer counts: its last
    /// microsecond is a period old.
    #[inline(always)]
    pub fn release(self, back: usize) -> u64 {
        (self.length - 1 + self.period).saturating_sub(self.length * back as u64)
    }
}

/// What was consumed, by steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// When the running step started, in microseconds.
    pub(crate) start: i64,
    /// What was consumed in the running step, in the one before it, and so on.
    pub(crate) counts: [u32; COUNTS],
}

impl Window {
    /// One in which nothing was consumed, whose first step ends at `now`.
    pub fn new(steps: Steps, now: i64) -> Self {
        Window { start: steps.first(now), counts: [0; COUNTS] }
    }

    /// The window as it is at `now`: the step that `now` lies in is the running one, and what no longer counts is gone.
    /// A clock that has stepped back behind the running step takes its start along, so that what was consumed stays
    /// consumed and ages from then on.
    #[must_use]
    pub fn at(&self, steps: Steps, now: i64) -> Self {
        let mut start = self.start.min(now);
        let mut since = now.abs_diff(start);
        let mut passed = 0;
        if since >= steps.length {
            let steps_passed = since / steps.length;
            if steps_passed > STEPS as u64 {
                return Window::new(steps, now);
            }
            passed = steps_passed as usize;
            since -= steps_passed * steps.length;
            start = now.saturating_sub_unsigned(since);
        }
        let mut window = Window { start, counts: [0; COUNTS] };
        if let (Some(to), Some(from)) = (window.counts.get_mut(passed..), self.counts.get(..COUNTS - passed)) {
            to.copy_from_slice(from);
        }
        if since >= steps.release(STEPS) {
            window.counts[STEPS] = 0;
        }
        if window.total() == 0 {
            window.start = steps.first(now);
        }
        window
    }

    /// What counts, of a window as [`at`](Self::at) gives it.
    #[inline]
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }

    /// Microseconds after `now` until at most `most` still counts, nothing else being consumed; of a window as
    /// [`at`](Self::at) gives it for `now`.
    pub fn wait(&self, steps: Steps, now: i64, most: u64) -> u64 {
        let since = now.abs_diff(self.start);
        // The newest steps that may all stay; the one before them has to go.
        let mut stay = 0;
        for (back, count) in self.counts.iter().enumerate() {
            stay += u64::from(*count);
            if stay > most {
                return steps.release(back).saturating_sub(since);
            }
        }
        0
    }

    /// Counts `cost` in the running step.
    pub fn consume(&mut self, cost: u32) {
        self.counts[0] = self.counts[0].saturating_add(cost);
    }

    /// Gives back `amount`, or all that counts if that is less: what was consumed last first, because it counts longest.
    pub fn refund(&mut self, amount: u32) {
        let mut left = amount;
        for count in &mut self.counts {
            let given = left.min(*count);
            (*count, left) = (*count - given, left - given);
        }
    }

    /// Counts `cost` as consumed at `time`, which is not after `now`; nothing where that is over a period ago.
    pub(crate) fn consume_at(&mut self, steps: Steps, time: i64, cost: u32) {
        let back = self.step_of(steps, time);
        if let Some(count) = self.counts.get_mut(back) {
            *count = count.saturating_add(cost);
        }
    }

    /// Gives back 1 that was consumed at `time`, or by up to `slack` earlier: in the earliest of those steps in which something was, so
    /// that no other counts for a shorter time; nothing where it may count no longer, in a window as [`at`](Self::at) gives it for `now`.
    pub(crate) fn refund_about(&mut self, steps: Steps, now: i64, time: i64, slack: i64) {
        let (latest, earliest) = (self.step_of(steps, time), self.step_of(steps, time.saturating_sub(slack)));
        if earliest > STEPS || now.abs_diff(self.start) >= steps.release(earliest) {
            return;
        }
        let within = self.counts.iter_mut().take(earliest + 1).skip(latest);
        if let Some(count) = within.rev().find(|count| **count > 0) {
            *count -= 1;
        }
    }

    /// How many steps before the running one a time lies in, which is not after that.
    fn step_of(&self, steps: Steps, time: i64) -> usize {
        // From the running step's last microsecond backwards.
        let last = self.start.saturating_add_unsigned(steps.length - 1);
        usize::try_from(last.abs_diff(time.min(last)) / steps.length).unwrap_or(usize::MAX)
    }

    /// What counts at `now`, in steps of another period: what a step has counts as consumed at the latest moment at which it
    /// can have been, so nothing is given back early.
    #[must_use]
    pub fn divided_by(&self, steps: Steps, others: Steps, now: i64) -> Self {
        let mut divided = Window::new(others, now);
        for (_, last, count) in self.at(steps, now).consumed(steps) {
            divided.consume_at(others, last.min(now), count);
        }
        divided
    }

    /// Each step's count with the earliest and the latest moment at which it can have been consumed; the oldest first.
    pub(crate) fn consumed(&self, steps: Steps) -> impl Iterator<Item = (i64, i64, u32)> {
        let (start, step) = (self.start, steps.length);
        let counts = self.counts.into_iter().enumerate().rev().filter(|(_, count)| *count > 0);
        counts.map(move |(back, count)| {
            let first = start.saturating_sub_unsigned(step * back as u64);
            (first, first.saturating_add_unsigned(step - 1), count)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a log of everything consumed, without a limit: never less than the trailing period has, never more
        /// than it and one step have.
        #[test]
        fn counts_what_the_trailing_period_has(period in prop_oneof![1_000..1_100u64, Just(2_000_000u64), 1_000..=31_622_400_000_000u64],
            calls in proptest::collection::vec((0..130u64, 0..3u64, 0..5u32), 1..120))
        {
            let steps = Steps::of(period);
            prop_assert!(steps.length() * 16 >= period && (steps.length() - 1) * 16 < period);
            let (mut now, mut log) = (-5_i64, Vec::new());
            let mut window = Window::new(steps, now);
            let trailing = |log: &[(i64, u32)], now: i64, length: u64| -> u64 {
                log.iter().filter(|(time, _)| time.abs_diff(now) < length).map(|(_, cost)| u64::from(*cost)).sum()
            };
            for (pause, extra, cost) in calls {
                now += (period / 1_600 * pause + extra).cast_signed();
                window = window.at(steps, now);
                window.consume(cost);
                log.push((now, cost));
                let total = window.total();
                prop_assert!(trailing(&log, now, period) <= total);
                prop_assert!(total <= trailing(&log, now, period + steps.length()));
                for most in [0, total / 2, total] {
                    let wait = window.wait(steps, now, most);
                    prop_assert!(window.at(steps, now.saturating_add_unsigned(wait)).total() <= most);
                    prop_assert!(wait == 0 || window.at(steps, now.saturating_add_unsigned(wait - 1)).total() > most);
                }
            }
        }
    }
}

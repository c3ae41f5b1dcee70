//! Properties of the arithmetic, each of them exact to the microsecond.

use super::oracle;
use super::{Key, cases, limit};
use crate::limiter::convert::Former;
use crate::limiter::{Algorithm, Limit, MIN_PERIOD, Request, State};
use crate::window::Window;
use proptest::prelude::*;

pub(super) fn algorithms() -> impl Strategy<Value = Algorithm> {
    prop_oneof![Just(Algorithm::FixedWindow), Just(Algorithm::SlidingWindow), Just(Algorithm::TokenBucket)]
}

/// Small numbers, whose boundaries are met often, and large ones, whose products need more than 64 bits.
pub(super) fn limits() -> impl Strategy<Value = Limit> {
    let counts = || prop_oneof![4 => 1..12u32, 1 => 1..=1_000_000_000u32];
    let periods = prop_oneof![4 => 1_000..5_000u64, 1 => 1_000..=31_622_400_000_000u64];
    (algorithms(), counts(), periods, proptest::option::of(counts())).prop_map(|(algorithm, max, period, burst)| {
        limit(algorithm, max, period, burst.filter(|_| algorithm == Algorithm::TokenBucket))
    })
}

/// Steps of time and cost, in shares of a limit's period (per 1000, and microseconds beside it) and capacity.
fn steps() -> impl Strategy<Value = Vec<(u64, u64, u32)>> {
    let share = prop_oneof![3 => Just(0u64), 3 => 0..1500u64, 1 => 0..4000u64];
    let cost = prop_oneof![3 => Just(0u32), 3 => 0..1000u32, 1 => 900..1100u32];
    proptest::collection::vec((share, 0..3u64, cost), 1..40)
}

/// The time after a step of `steps`, and its cost.
fn at(limit: &Limit, now: i64, (share, extra, cost): (u64, u64, u32)) -> (i64, u32) {
    let cost = u64::from(limit.capacity()) * u64::from(cost) / 1000;
    (now + (limit.period() / 1000 * share + extra).cast_signed(), u32::try_from(cost).unwrap().clamp(1, 1_000_000_000))
}

proptest! {
    #![proptest_config(cases(2_000))]

    /// Exactly what the definition grants is granted, no more and no less; and that for all a caller can see: peeks
    /// predict, retry_after and reset_after and remaining are exact.
    #[test]
    fn agrees_with_the_definition(limit in limits(), start in -1_000_000_000_000_000..1_000_000_000_000_000i64,
        steps in steps())
    {
        let mut key = Key::new(limit);
        let (mut now, mut log) = (start, Vec::new());
        let mut arrival = i128::MIN / 2;
        for step in steps {
            let cost;
            (now, cost) = at(&limit, now, step);
            let peek = key.peek(now, cost);
            let before = key.clone();
            let answer = key.check(now, cost);
            prop_assert_eq!(answer.allowed, oracle::allows(&limit, &log, now, cost));
            prop_assert_eq!((peek.allowed, peek.retry_after), (answer.allowed, answer.retry_after));
            prop_assert_eq!(peek.remaining, answer.remaining + answer.granted);
            if limit.algorithm() == Algorithm::TokenBucket {
                let conforming = oracle::gcra(&limit, arrival, now, cost);
                prop_assert_eq!(answer.allowed, conforming.is_some());
                arrival = conforming.unwrap_or(arrival);
            }
            if answer.allowed {
                log.push((now, cost));
                prop_assert_eq!(answer.retry_after, Some(0));
            } else {
                // A denied request leaves no trace.
                prop_assert_eq!(before.state, key.state);
            }

            let granted = |wait: u64, cost: u32| oracle::allows(&limit, &log, now.checked_add_unsigned(wait).unwrap(), cost);
            prop_assert!(answer.remaining == 0 || granted(0, answer.remaining));
            prop_assert!(answer.remaining == limit.capacity() || !granted(0, answer.remaining + 1));
            // The longest waits, of more than 292,000 years, saturate.
            match answer.retry_after {
                Some(wait @ 1..=0x3fff_ffff_ffff_ffff) => {
                    prop_assert!(granted(wait, cost), "granted when retry_after has passed");
                    prop_assert!(!granted(wait - 1, cost), "denied a microsecond before");
                }
                Some(_) => {}
                None => prop_assert!(cost > limit.capacity()),
            }
            if let wait @ 1..=0x3fff_ffff_ffff_ffff = answer.reset_after {
                prop_assert!(granted(wait, limit.capacity()));
                prop_assert!(!granted(wait - 1, limit.capacity()));
                let later = now.checked_add_unsigned(wait).unwrap();
                prop_assert_eq!(key.peek(later, 1).remaining, limit.capacity());
                // As good as new: what follows is as it would be for a key never seen before.
                prop_assert_eq!(key.clone().check(later, 1), Key::new(limit).check(later, 1));
                let (mut old, mut new) = (key.clone(), Key::new(limit));
                old.check(later, 1);
                new.check(later, 1);
                prop_assert_eq!(old.state, new.state);
            } else if answer.reset_after == 0 {
                prop_assert_eq!(answer.remaining, limit.capacity());
            }
        }
    }

    #[test]
    fn a_cost_of_n_is_n_costs_of_one(limit in limits(), steps in steps(), n in 1..20u32) {
        let mut key = Key::new(limit);
        let mut now = 0;
        for step in steps {
            let cost;
            (now, cost) = at(&limit, now, step);
            key.check(now, cost);
        }
        let (mut whole, mut parts) = (key.clone(), key);
        let answer = whole.check(now, n);
        let granted = (0..n).filter(|_| parts.check(now, 1).allowed).count();
        prop_assert_eq!(answer.allowed, granted == n as usize);
        if answer.allowed {
            prop_assert_eq!(whole.state, parts.state);
        }
    }

    #[test]
    fn up_to_grants_the_most_that_a_check_would(limit in limits(), steps in steps(), wanted in 1..=1_000_000_000u32) {
        let mut key = Key::new(limit);
        let mut now = 0;
        for step in steps {
            let cost;
            (now, cost) = at(&limit, now, step);
            key.check(now, cost);
        }
        let answer = key.clone().request(now, Request::UpTo(wanted));
        prop_assert!(answer.granted <= wanted);
        prop_assert!(answer.granted == 0 || key.peek(now, answer.granted).allowed);
        prop_assert!(answer.granted == wanted || !key.peek(now, answer.granted + 1).allowed);
        prop_assert_eq!(answer.allowed, answer.granted == wanted);
    }

    /// Wherever the clock steps back to, the key gets nothing that it hadn't before; and it isn't locked out for
    /// longer than one that has consumed everything just now.
    #[test]
    fn a_clock_that_steps_back(limit in limits(), steps in steps(), back in prop_oneof![1..10_000u64, 1..=1u64 << 60]) {
        let mut key = Key::new(limit);
        let mut now = 0;
        for step in steps {
            let cost;
            (now, cost) = at(&limit, now, step);
            key.check(now, cost);
        }
        let before = key.peek(now, 1);
        let now = now - back.cast_signed();
        let after = key.peek(now, 1);
        prop_assert!(after.remaining <= before.remaining);
        let mut exhausted = Key::new(limit);
        exhausted.check(now, limit.capacity());
        // A sliding window's running step begins again, so that it lasts for a step more.
        let step = if limit.algorithm() == Algorithm::SlidingWindow { limit.period().div_ceil(16) } else { 0 };
        let exhausted = exhausted.peek(now, 1).retry_after;
        prop_assert!(after.retry_after <= exhausted.map(|wait| wait + step));
        prop_assert!(after.retry_after <= Some(limit.period() + step));
        // And from then on the clock's steps are its own again.
        key.check(now, limit.capacity());
        prop_assert!(key.state.is_none_or(|state| state.time() <= now));
    }

    #[test]
    fn a_refund_gives_back_at_most_what_was_consumed(limit in limits(), steps in steps(), amount in 1..=1_000_000_000u32) {
        let mut key = Key::new(limit);
        let mut now = 0;
        for step in steps {
            let cost;
            (now, cost) = at(&limit, now, step);
            key.check(now, cost);
        }
        let found = key.peek(now, 1);
        let before = found.remaining;
        let state = key.state.map(|state| limit.refund(state, now, amount));
        let after = Key { limit, state }.peek(now, 1).remaining;
        prop_assert!(after >= before);
        prop_assert!(after <= limit.capacity());
        prop_assert!(after - before <= amount);
        // What was granted just now is given back in full, and no more than that.
        if before > 0 {
            let some = 1 + amount % before;
            prop_assert!(key.check(now, some).allowed);
            let state = key.state.map(|state| limit.refund(state, now, some));
            prop_assert_eq!(Key { limit, state }.peek(now, 1), found);
        }
    }

    #[test]
    fn no_state_whatever_overflows(limit in limits(), time: i64, level in 0..1u128 << 76, now: i64, amount: u32,
        counts: [u32; 17], cost in 0..=1_000_000_000u32, (period, expiry) in (MIN_PERIOD..1 << 45, any::<i64>()))
    {
        let states = [
            State::Fixed { opened: time, used: amount },
            State::Sliding(Window { start: time, counts }),
            State::Bucket { time, level },
        ];
        for state in states {
            for request in [Request::All(cost), Request::UpTo(cost), Request::Peek(cost)] {
                limit.decide(Some(&state), now, request);
            }
            limit.reserve(Some(&state), now, cost, u64::from(amount));
            limit.refund(state, now, amount);
            let former = Former { state, period, expiry };
            former.used(now);
            former.convert(&limit, time, now);
            former.derive(&limit, time, now);
        }
    }
}

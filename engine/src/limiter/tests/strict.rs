//! The sliding window's promise, asked of a table at random times: in any trailing period no more than the limit is
//! granted, and no request is denied that the trailing period and one more step have room for.

use super::cases;
use super::table::{hash, words_for};
use crate::limiter::table::Table;
use crate::limiter::{Algorithm, Limit, MAX_PERIOD, MAX_REQUESTS, Request};
use crate::words::allocate;
use proptest::prelude::*;

/// Every grant: its time and cost.
type Log = Vec<(i64, u32)>;

/// What was granted in the `length` microseconds that end at `now`, `now` included.
fn trailing(log: &Log, now: i64, length: u64) -> u64 {
    log.iter().filter(|(time, _)| now - time < length.cast_signed()).map(|(_, cost)| u64::from(*cost)).sum()
}

/// The pause before a call, in 1/1600 of the period and microseconds, and its cost in 1/1000 of the limit.
fn calls() -> impl Strategy<Value = Vec<(u64, u64, u32)>> {
    let pause = prop_oneof![4 => Just(0u64), 6 => 0..120u64, 3 => 0..1_700u64, 1 => 1_500..4_000u64];
    let cost = prop_oneof![4 => Just(0u32), 3 => 0..150u32, 1 => 0..1_001u32];
    proptest::collection::vec((pause, 0..3u64, cost), 1..150)
}

fn limits() -> impl Strategy<Value = (u32, u64)> {
    let counts = prop_oneof![4 => 1..30u32, 3 => 1..3_000u32, 1 => 1..=MAX_REQUESTS];
    let periods = prop_oneof![3 => 1_000..5_000u64, 2 => Just(2_000_000), 1 => 1_000..=MAX_PERIOD];
    (counts, periods)
}

proptest! {
    #![proptest_config(cases(3_000))]

    #[test]
    fn never_more_than_the_limit_and_never_late_by_more_than_a_step((max, period) in limits(),
        start in -1_000_000_000_000_000..1_000_000_000_000_000i64, calls in calls(), entries in 1..4usize)
    {
        // With one slot there is none for the rest of a wide state: then it may be late, but never early.
        let words = allocate(words_for(entries));
        Table::format(&words).unwrap();
        let table = Table::open(&words).unwrap();
        let limit = Limit::new(Algorithm::SlidingWindow, max, period, None).unwrap();
        let step = period.div_ceil(16);
        let (mut now, mut log) = (start, Log::new());
        for (pause, extra, share) in calls {
            now += (period / 1_600 * pause + extra).cast_signed();
            let cost = u32::try_from(u64::from(max) * u64::from(share) / 1_000).unwrap().max(1);
            let ask = |now, request| table.request(hash(1), &limit, now, request).unwrap();
            let answer = ask(now, Request::All(cost));
            table.verify().unwrap();
            if answer.allowed {
                log.push((now, cost));
                prop_assert!(trailing(&log, now, period) <= u64::from(max), "{} in a period of {max}", trailing(&log, now, period));
            } else {
                let with_step = trailing(&log, now, period + step) + u64::from(cost);
                prop_assert!(entries == 1 || with_step > u64::from(max), "denied although a period and a step have room");
                let wait = answer.retry_after.expect("within the capacity").cast_signed();
                prop_assert!(ask(now + wait, Request::Peek(cost)).allowed, "denied after retry_after");
                prop_assert!(!ask(now + wait - 1, Request::Peek(cost)).allowed, "allowed before retry_after");
            }
            let reset = answer.reset_after.cast_signed();
            prop_assert_eq!(ask(now + reset, Request::Peek(1)).remaining, max);
            prop_assert!(reset == 0 || ask(now + reset - 1, Request::Peek(1)).remaining < max);
        }
    }
}

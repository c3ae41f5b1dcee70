//! Answers worked out by hand from the definition of each algorithm.

use super::table::{hash, words_for};
use super::{Key, SECOND, limit};
use crate::limiter::Algorithm::{self, FixedWindow, SlidingWindow, TokenBucket};
use crate::limiter::table::Table;
use crate::limiter::{Decision, Limit, MAX_PERIOD, MAX_REQUESTS, MIN_PERIOD, OutOfRange, Request};
use crate::words::allocate;

/// Milliseconds, cost, then: allowed, remaining, `retry_after` and `reset_after` in microseconds.
type Step = (i64, u32, bool, u32, Option<u64>, u64);

/// Asks a table, as callers do, and for what has a cost also the bare arithmetic.
fn run(limit: Limit, steps: &[Step]) {
    let words = allocate(words_for(4));
    Table::format(&words).unwrap();
    let table = Table::open(&words).unwrap();
    let mut key = Key::new(limit);
    for (at, &(ms, cost, allowed, remaining, retry_after, reset_after)) in steps.iter().enumerate() {
        let granted = if allowed { cost } else { 0 };
        let expected = Decision { allowed, granted, remaining, retry_after, reset_after };
        let answer = table.request(hash(1), &limit, ms * 1000, Request::All(cost)).unwrap();
        assert_eq!(answer, expected, "step {at} of {limit:?}");
        if cost > 0 {
            assert_eq!(key.check(ms * 1000, cost), expected, "step {at} of {limit:?}, without a table");
        }
    }
}

const S: u64 = SECOND;

#[test]
fn token_bucket_of_one_a_second_and_capacity_five() {
    run(
        limit(TokenBucket, 1, S, Some(5)),
        &[
            (0, 1, true, 4, Some(0), S),
            (0, 1, true, 3, Some(0), 2 * S),
            (0, 1, true, 2, Some(0), 3 * S),
            (0, 1, true, 1, Some(0), 4 * S),
            (0, 1, true, 0, Some(0), 5 * S),
            (0, 1, false, 0, Some(S), 5 * S),
            (3000, 1, true, 2, Some(0), 3 * S),
            (3100, 1, true, 1, Some(0), 3_900_000),
            (4000, 1, true, 1, Some(0), 4 * S),
            (8000, 1, true, 4, Some(0), S),
            (9500, 1, true, 4, Some(0), S),
        ],
    );
}

#[test]
fn token_bucket_with_costs() {
    // 3 tokens every 10 s, one every 3.33… s: rounded up where it matters, never accumulated.
    run(
        limit(TokenBucket, 3, 10 * S, Some(4)),
        &[
            (0, 5, false, 4, None, 0),
            (0, 0, true, 4, Some(0), 0),
            (0, 4, true, 0, Some(0), 13_333_334),
            (0, 0, false, 0, Some(3_333_334), 13_333_334),
            (0, 1, false, 0, Some(3_333_334), 13_333_334),
            (0, 4, false, 0, Some(13_333_334), 13_333_334),
            (3333, 1, false, 0, Some(334), 10_000_334),
            (3334, 0, true, 1, Some(0), 9_999_334),
            (3334, 1, true, 0, Some(0), 13_332_667),
            (10_000, 2, true, 0, Some(0), 13_333_334),
            (10_000, 5, false, 0, None, 13_333_334),
        ],
    );
}

#[test]
fn fixed_window_of_five_in_five_seconds() {
    // The window that opened at 0 s ends at 5 s; the next one opens with the next request, at 8 s.
    run(
        limit(FixedWindow, 5, 5 * S, None),
        &[
            (0, 1, true, 4, Some(0), 5 * S),
            (0, 1, true, 3, Some(0), 5 * S),
            (0, 1, true, 2, Some(0), 5 * S),
            (0, 1, true, 1, Some(0), 5 * S),
            (0, 1, true, 0, Some(0), 5 * S),
            (0, 1, false, 0, Some(5 * S), 5 * S),
            (3000, 1, false, 0, Some(2 * S), 2 * S),
            (3100, 1, false, 0, Some(1_900_000), 1_900_000),
            (4000, 1, false, 0, Some(S), S),
            (8000, 1, true, 4, Some(0), 5 * S),
            (9500, 1, true, 3, Some(0), 3_500_000),
        ],
    );
}

#[test]
fn sliding_window_of_five_in_five_seconds() {
    // Steps of 312.5 ms, of which the first call is the first one's last microsecond.
    run(
        limit(SlidingWindow, 5, 5 * S, None),
        &[
            (0, 1, true, 4, Some(0), 5 * S),
            (0, 1, true, 3, Some(0), 5 * S),
            (1, 1, true, 2, Some(0), 5_311_500),
            (300, 1, true, 1, Some(0), 5_012_500),
            (312, 1, true, 0, Some(0), 5_000_500),
            (312, 1, false, 0, Some(4_688_000), 5_000_500),
            (3000, 1, false, 0, Some(2 * S), 2_312_500),
            (3000, 3, false, 0, Some(2_312_500), 2_312_500),
            (5000, 2, true, 0, Some(0), 5 * S),
            // All of that has been given back.
            (20_000, 1, true, 4, Some(0), 5 * S),
            // In the fifth step after that, which has lasted for 250 ms.
            (21_500, 1, true, 3, Some(0), 5_062_500),
        ],
    );
}

#[test]
fn fixed_window_of_three_in_ten_seconds() {
    run(
        limit(FixedWindow, 3, 10 * S, None),
        &[
            (6000, 0, true, 3, Some(0), 0),
            (7000, 1, true, 2, Some(0), 10 * S),
            (8000, 0, true, 2, Some(0), 9 * S),
            (9000, 2, true, 0, Some(0), 8 * S),
            (9000, 0, false, 0, Some(8 * S), 8 * S),
            (16_999, 1, false, 0, Some(1000), 1000),
            (17_000, 1, true, 2, Some(0), 10 * S),
            (18_000, 3, false, 2, Some(9 * S), 9 * S),
            (18_000, 4, false, 2, None, 9 * S),
            (18_000, 2, true, 0, Some(0), 9 * S),
            // A window opens with a request, not with the end of the one before.
            (40_000, 3, true, 0, Some(0), 10 * S),
            (49_999, 1, false, 0, Some(1000), 1000),
            (50_000, 3, true, 0, Some(0), 10 * S),
        ],
    );
}

#[test]
fn sliding_window_of_four_in_ten_seconds() {
    run(
        limit(SlidingWindow, 4, 10 * S, None),
        &[
            // Steps of 625 ms, the first until 5 s.
            (4000, 0, true, 4, Some(0), 0),
            (5000, 4, true, 0, Some(0), 10 * S),
            (5000, 0, false, 0, Some(10 * S), 10 * S),
            (14_999, 1, false, 0, Some(1000), 1000),
            // Nothing counts any more: the steps start anew.
            (15_000, 2, true, 2, Some(0), 10 * S),
            // Three steps later.
            (16_875, 1, true, 1, Some(0), 10 * S),
            (16_875, 2, false, 1, Some(8_125_000), 10 * S),
            (16_875, 4, false, 1, Some(10 * S), 10 * S),
            (16_875, 5, false, 1, None, 10 * S),
            (24_999, 2, false, 1, Some(1000), 1_876_000),
            (25_000, 2, true, 1, Some(0), 10 * S),
        ],
    );
}

#[test]
fn a_period_that_16_does_not_divide_ends_when_it_is_over() {
    // Steps of 63 µs, of which 16 are 8 µs longer than the period.
    let limit = limit(SlidingWindow, 1, 1000, None);
    let mut key = Key::new(limit);
    assert_eq!(key.check(0, 1).reset_after, 1000);
    assert_eq!(key.peek(999, 1).retry_after, Some(1));
    assert!(key.check(1000, 1).allowed);
}

#[test]
fn a_limit_of_nothing_denies_and_never_will_allow() {
    for algorithm in [FixedWindow, SlidingWindow, TokenBucket] {
        let burst = (algorithm == TokenBucket).then_some(5);
        let mut key = Key::new(limit(algorithm, 0, S, burst));
        let denied = Decision { allowed: false, retry_after: None, ..Decision::default() };
        for request in [Request::All(1), Request::UpTo(1), Request::Peek(1), Request::All(MAX_REQUESTS)] {
            assert_eq!(key.request(0, request), denied, "{algorithm:?}");
        }
        // What was consumed under another limit still counts under the next one.
        key.limit = limit(algorithm, 5, S, burst);
        assert!(key.check(0, 5).allowed);
        key.limit = limit(algorithm, 0, S, burst);
        assert_eq!((key.check(1, 1).allowed, key.peek(1, 1).retry_after), (false, None));
        key.limit = limit(algorithm, 5, S, burst);
        assert!(!key.check(2, 1).allowed, "{algorithm:?}");
    }
}

#[test]
fn windows_of_the_calendar() {
    let day = |number: i64| Limit::calendar(3, number * 86_400 * S.cast_signed(), 86_400 * S).unwrap();
    let hour = 3_600 * S.cast_signed();
    let mut key = Key::new(day(10));
    let answer = key.check(10 * 24 * hour + 23 * hour, 2);
    assert_eq!((answer.remaining, answer.reset_after), (1, 3_600 * S));
    assert_eq!(key.check(10 * 24 * hour + 23 * hour, 2).retry_after, Some(3_600 * S));
    // The next one starts with the calendar's, not with the first request in it.
    key.limit = day(11);
    assert_eq!(key.check(11 * 24 * hour + hour, 3).reset_after, 23 * 3_600 * S);
    // A session that has looked at the calendar before midnight, and asks after another has consumed.
    key.limit = day(10);
    let late = key.check(11 * 24 * hour + hour, 1);
    assert_eq!((late.allowed, late.retry_after), (false, Some(23 * 3_600 * S)));
    // The clock steps back by a week: nothing fresh, and not denied for longer than that day.
    key.limit = day(4);
    let back = key.check(4 * 24 * hour + 5 * hour, 1);
    assert_eq!((back.allowed, back.retry_after), (false, Some(19 * 3_600 * S)));
}

#[test]
fn a_peek_of_nothing_consumed() {
    for algorithm in [FixedWindow, SlidingWindow, TokenBucket] {
        let key = Key::new(limit(algorithm, 3, S, None));
        let answer = key.peek(0, 2);
        assert_eq!((answer.allowed, answer.granted, answer.remaining, answer.reset_after), (true, 0, 3, 0));
        assert_eq!(key.peek(0, 4).retry_after, None);
        assert_eq!(key.state, None);
    }
}

#[test]
fn up_to_takes_what_there_is() {
    for algorithm in [FixedWindow, SlidingWindow, TokenBucket] {
        let mut key = Key::new(limit(algorithm, 5, S, None));
        assert_eq!(key.request(0, Request::UpTo(3)).granted, 3);
        let rest = key.request(0, Request::UpTo(3));
        assert_eq!((rest.granted, rest.remaining, rest.allowed), (2, 0, false));
        // Nothing else consuming, all of it is there when the answer said, and not before.
        let wait = rest.retry_after.unwrap().cast_signed();
        assert!(!key.peek(wait - 1, 3).allowed && key.peek(wait, 3).allowed, "{algorithm:?}");
        assert_eq!(key.request(0, Request::UpTo(3)).granted, 0);
    }
}

#[test]
fn limits_that_change_apply_to_what_was_consumed() {
    for algorithm in [FixedWindow, SlidingWindow, TokenBucket] {
        let mut key = Key::new(limit(algorithm, 10, S, None));
        assert_eq!(key.check(0, 8).remaining, 2);
        key.limit = limit(algorithm, 5, S, None);
        let lower = key.check(0, 1);
        assert_eq!((lower.allowed, lower.remaining), (false, 0), "{algorithm:?}");
        key.limit = limit(algorithm, 20, S, None);
        assert_eq!(key.check(0, 1).remaining, 11, "{algorithm:?}");
    }
}

#[test]
fn extremes_neither_overflow_nor_lose_precision() {
    let bucket = limit(TokenBucket, 1, MAX_PERIOD, Some(MAX_REQUESTS));
    let mut key = Key::new(bucket);
    let answer = key.check(i64::MIN, MAX_REQUESTS);
    assert_eq!((answer.allowed, answer.remaining, answer.reset_after), (true, 0, u64::MAX));
    assert_eq!(key.peek(i64::MIN, 1).retry_after, Some(MAX_PERIOD));
    // 2^64 - 1 microseconds drain 583,344 tokens and a part of one.
    assert_eq!(key.peek(i64::MAX, 1).remaining, u32::try_from(u64::MAX / MAX_PERIOD).unwrap());
    for algorithm in [FixedWindow, SlidingWindow] {
        let mut key = Key::new(limit(algorithm, MAX_REQUESTS, MAX_PERIOD, None));
        assert!(key.check(i64::MAX, MAX_REQUESTS).allowed);
        assert!(!key.check(i64::MAX, 1).allowed);
        assert!(!key.check(i64::MIN, 1).allowed);
        assert!(key.check(i64::MAX, MAX_REQUESTS).allowed);
    }
}

#[test]
fn arguments_out_of_range() {
    let new = |algorithm: Algorithm, max, period, burst| Limit::new(algorithm, max, period, burst).unwrap_err();
    assert_eq!(new(FixedWindow, MAX_REQUESTS + 1, S, None), OutOfRange::MaxRequests);
    assert_eq!(new(FixedWindow, 1, MIN_PERIOD - 1, None), OutOfRange::Period);
    assert_eq!(new(FixedWindow, 1, MAX_PERIOD + 1, None), OutOfRange::Period);
    assert_eq!(new(SlidingWindow, 1, S, Some(1)), OutOfRange::BurstWithoutBucket);
    assert_eq!(new(TokenBucket, 1, S, Some(0)), OutOfRange::Burst);
    assert_eq!(new(TokenBucket, 1, S, Some(MAX_REQUESTS + 1)), OutOfRange::Burst);
}

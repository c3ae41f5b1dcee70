//! Policies: all rules or none, what a change makes of what was consumed, and what is counted by name.

use super::arithmetic::algorithms;
use super::oracle;
use super::table::{hash, words_for};
use super::{Key, SECOND, cases, limit};
use crate::limiter::Algorithm::{FixedWindow, SlidingWindow, TokenBucket};
use crate::limiter::table::{PolicyStats, Question, Rule, Table};
use crate::limiter::{Algorithm, Decision, Limit, Request};
use crate::words::allocate;
use proptest::prelude::*;

/// A table with room for everything, and policy 1000 of some rules.
struct Policy {
    words: Vec<std::sync::atomic::AtomicU64>,
    rules: Vec<Rule>,
    shadow: bool,
}

impl Policy {
    fn new(limits: &[Limit]) -> Self {
        let words = allocate(words_for(200));
        Table::format(&words).unwrap();
        let mut policy = Policy { words, rules: Vec::new(), shadow: false };
        policy.set(limits, 0);
        policy
    }

    /// Gives the policy other rules, at `now`.
    fn set(&mut self, limits: &[Limit], now: i64) {
        let rule =
            |(at, limit): (usize, &Limit)| Rule { number: u32::try_from(at).unwrap() + 1, limit: *limit, since: now };
        self.rules = limits.iter().enumerate().map(rule).collect();
    }

    fn ask(&self, key: u32, now: i64, request: Request) -> Decision {
        let question = Question { policy: hash(1000), rules: &self.rules, shadow: self.shadow, blocked: 0 };
        let table = Table::open(&self.words).unwrap();
        let answer = table.request_by(hash(key), &question, now, request).unwrap();
        table.verify().unwrap();
        answer
    }

    fn stats(&self) -> PolicyStats {
        Table::open(&self.words).unwrap().policy_stats(hash(1000)).unwrap()
    }
}

fn few_limits() -> impl Strategy<Value = Limit> {
    (algorithms(), 1..8u32, prop_oneof![Just(1_000u64), Just(1_700), Just(5_000), Just(50_000)])
        .prop_map(|(algorithm, max, period)| limit(algorithm, max, period, None))
}

proptest! {
    #![proptest_config(cases(1_000))]

    /// Each rule by itself, asked only if all would grant.
    #[test]
    fn all_rules_consume_or_none(limits in proptest::collection::vec(few_limits(), 0..5),
        calls in proptest::collection::vec((0..3u32, 0..4u32, 0..900i64), 1..60))
    {
        let policy = Policy::new(&limits);
        let mut model: Vec<Vec<Key>> = vec![limits.iter().map(|limit| Key::new(*limit)).collect(); 3];
        let (mut now, mut allowed, mut denied) = (1_000_000, 0, 0);
        for (key, cost, pass) in calls {
            now += pass;
            let answer = policy.ask(key, now, Request::All(cost));
            let keys = &mut model[key as usize];
            let peeks: Vec<_> = keys.iter().map(|key| key.peek(now, cost.max(1))).collect();
            let all = peeks.iter().all(|peek| peek.allowed);
            prop_assert_eq!(answer.allowed, all);
            prop_assert_eq!(answer.granted, if all { cost } else { 0 });
            if all && cost > 0 {
                for key in keys.iter_mut() {
                    key.check(now, cost);
                }
            }
            (allowed, denied) = (allowed + u64::from(cost > 0 && all), denied + u64::from(cost > 0 && !all));
            let after: Vec<_> = keys.iter().map(|key| key.peek(now, 1)).collect();
            prop_assert_eq!(answer.remaining, after.iter().map(|peek| peek.remaining).min().unwrap_or(u32::MAX));
            prop_assert_eq!(answer.reset_after, after.iter().map(|peek| peek.reset_after).max().unwrap_or(0));
            let never = peeks.iter().any(|peek| peek.retry_after.is_none());
            let longest = peeks.iter().filter_map(|peek| peek.retry_after).max().unwrap_or(0);
            prop_assert_eq!(answer.retry_after, (!never).then_some(longest));
        }
        let stats = policy.stats();
        prop_assert_eq!((stats.allowed, stats.denied, stats.would_have_denied), (allowed, denied, 0));
        let kept: usize = model.iter().flatten().filter(|key| key.state.is_some()).count();
        prop_assert_eq!(stats.keys, kept as u64);
    }

    /// A policy of one rule that becomes another: what still counted by the old one counts by the new one, as if its
    /// consumption had come when it did, or later. And no key is denied for longer than one that has consumed
    /// everything just now.
    #[test]
    fn a_change_gives_no_fresh_allowance((old, new) in (few_limits(), few_limits()),
        before in proptest::collection::vec((1..4u32, 0..700i64), 1..20), after in proptest::collection::vec((1..3u32, 0..700i64), 1..30))
    {
        let mut policy = Policy::new(&[old]);
        let (mut now, mut log) = (1_000_000, Vec::new());
        let mut model = Key::new(old);
        for (cost, pass) in before {
            now += pass;
            let answer = policy.ask(1, now, Request::All(cost));
            prop_assert_eq!(answer.allowed, model.check(now, cost).allowed);
            if answer.allowed {
                log.push((now, cost));
            }
        }
        // What counts by the old rule, the newest first: a bucket's missing tokens, a window's consumption.
        let mut counts = old.capacity() - model.peek(now, 1).remaining;
        for (_, cost) in log.iter_mut().rev() {
            *cost = counts.min(*cost);
            counts -= *cost;
        }
        log.retain(|(_, cost)| *cost > 0);
        policy.set(&[new], now);
        let changed = now;
        // The same bucket with another rate is no other state: the debt drains at the new rate, all of it.
        let same = new.algorithm() == TokenBucket && old.algorithm() == TokenBucket && new.period() == old.period();
        // A fixed window opens anew; until the first one has closed, what came before counts in full.
        let first = policy.ask(1, now, Request::Peek(1));
        let exact = |now: i64| new.algorithm() != FixedWindow || now < changed + first.reset_after.cast_signed();
        for (cost, pass) in after {
            now += pass;
            let answer = policy.ask(1, now, Request::All(cost));
            if answer.allowed {
                let inside: u32 = log.iter().filter(|(time, _)| now - time < i64::try_from(new.period()).unwrap())
                    .map(|(_, cost)| *cost).sum();
                match new.algorithm() {
                    TokenBucket if same => {}
                    TokenBucket => {
                        // A bucket holds no debts above its capacity.
                        let mut known = log.clone();
                        let mut most = new.capacity();
                        for (_, cost) in known.iter_mut().rev().filter(|(time, _)| *time <= changed) {
                            *cost = (*cost).min(most);
                            most -= *cost;
                        }
                        prop_assert!(oracle::allows(&new, &known, now, cost), "{known:?} {now} {cost}");
                    }
                    _ if exact(now) => prop_assert!(inside + cost <= new.max_requests(), "{inside} and {cost}"),
                    _ => {}
                }
                log.push((now, cost));
            }
            prop_assert!(same || answer.reset_after <= new.period() + new.period().div_ceil(16));
        }
    }
}

#[test]
fn a_policy_that_was_used_up_stays_so_whatever_it_becomes() {
    let hour = 3_600 * SECOND;
    for old in [FixedWindow, SlidingWindow, TokenBucket] {
        for new in [FixedWindow, SlidingWindow, TokenBucket] {
            for (max, period) in [(5, hour), (5, 2 * hour), (3, hour), (2, hour / 2), (5, 24 * hour), (1, hour / 60)] {
                let mut policy = Policy::new(&[limit(old, 5, hour, None)]);
                let now = 1_000_000_000;
                assert!(policy.ask(1, now, Request::All(5)).allowed);
                policy.set(&[limit(new, max, period, None)], now + 1);
                let peek = policy.ask(1, now + 1, Request::Peek(1));
                let answer = policy.ask(1, now + 1, Request::All(1));
                assert!(!answer.allowed && answer.remaining == 0, "{old:?} to {new:?}, {max} in {period}: {answer:?}");
                assert_eq!(peek.retry_after, answer.retry_after);
                // Denied calls don't put the end off.
                let wait = answer.retry_after.unwrap().cast_signed();
                for share in 1..4 {
                    let ask = policy.ask(1, now + 1 + wait * share / 4, Request::All(1));
                    assert!(!ask.allowed, "{old:?} to {new:?}, {max} in {period}, after {share} quarters");
                }
                assert!(policy.ask(1, now + 1 + wait, Request::All(1)).allowed);
            }
        }
    }
}

/// Not asked until the old rule would have forgotten, and swept meanwhile.
#[test]
fn a_longer_period_finds_what_the_shorter_one_counted_when_it_was_changed() {
    for old in [FixedWindow, SlidingWindow, TokenBucket] {
        for new in [FixedWindow, SlidingWindow] {
            let mut policy = Policy::new(&[limit(old, 5, SECOND, None)]);
            let (second, mut now) = (SECOND.cast_signed(), 1_000_000_000_000);
            assert!(policy.ask(1, now, Request::All(5)).allowed);
            now += 1_000;
            policy.set(&[limit(new, 5, 3_600 * SECOND, None)], now);
            let table = Table::open(&policy.words).unwrap();
            table.hold(hash(1000), now + 3_600 * second).unwrap();
            now += 1_800 * second;
            assert_eq!(table.sweep(now, 0, 1_000).unwrap().removed, 0);
            let answer = policy.ask(1, now, Request::All(1));
            assert!(!answer.allowed, "{old:?} to {new:?}");
            now += answer.retry_after.unwrap().cast_signed();
            assert!(policy.ask(1, now, Request::All(1)).allowed, "{old:?} to {new:?}");
            assert_eq!(table.sweep(now + 7_200 * second, 0, 1_000).unwrap().removed, 1);
            // What the shorter one had forgotten when it was changed stays so.
            let mut policy = Policy::new(&[limit(old, 5, SECOND, None)]);
            assert!(policy.ask(1, now, Request::All(5)).allowed);
            policy.set(&[limit(new, 5, 3_600 * SECOND, None)], now + 2 * second);
            assert!(policy.ask(1, now + 2 * second, Request::All(5)).allowed);
        }
    }
}

#[test]
fn a_rule_that_is_added_knows_what_was_consumed_before() {
    let hour = 3_600 * SECOND;
    let now = 1_000_000_000;
    let mut policy = Policy::new(&[limit(SlidingWindow, 5, hour, None)]);
    assert!(policy.ask(1, now, Request::All(5)).allowed);
    // The hour becomes a day, and the hour comes back as a second rule.
    policy.set(&[limit(SlidingWindow, 1000, 24 * hour, None), limit(SlidingWindow, 5, hour, None)], now + 1);
    assert!(!policy.ask(1, now + 1, Request::All(1)).allowed);
    assert!(policy.ask(2, now + 1, Request::All(1)).allowed);
    let wait = policy.ask(1, now + 1, Request::All(1)).retry_after.unwrap();
    assert!(wait <= hour + hour / 16, "{wait}");
    assert!(policy.ask(1, now + 1 + wait.cast_signed(), Request::All(5)).allowed);
    // Once it has counted for itself, the other rule's coarser steps don't matter.
    let minute = limit(SlidingWindow, 2, 60 * SECOND, None);
    let mut policy = Policy::new(&[limit(SlidingWindow, 1000, 24 * hour, None)]);
    policy.set(&[limit(SlidingWindow, 1000, 24 * hour, None), minute], now);
    assert!(policy.ask(1, now + 1, Request::All(2)).allowed);
    let later = now + 64 * SECOND.cast_signed();
    let table = Table::open(&policy.words).unwrap();
    assert_eq!(table.sweep(later, 0, 1000).unwrap().removed, 1);
    assert!(policy.ask(1, later, Request::All(2)).allowed);
}

#[test]
fn another_time_zone_is_another_window_with_the_same_consumption() {
    let (day, hour) = (86_400 * SECOND, 3_600 * SECOND.cast_signed());
    let at = |opened: i64| Limit::calendar(3, opened, day).unwrap();
    let mut policy = Policy::new(&[at(0)]);
    assert!(policy.ask(1, 10 * hour, Request::All(3)).allowed);
    // The day begins five hours later.
    policy.set(&[at(5 * hour)], 0);
    let answer = policy.ask(1, 11 * hour, Request::All(1));
    assert_eq!((answer.allowed, answer.retry_after), (false, Some(18 * 3_600 * SECOND)));
    policy.set(&[at(29 * hour)], 0);
    assert!(policy.ask(1, 29 * hour, Request::All(3)).allowed);
}

#[test]
fn shadow_denials_are_counted_apart() {
    let mut policy = Policy::new(&[limit(SlidingWindow, 2, SECOND, None)]);
    policy.shadow = true;
    let answers: Vec<_> = (0..5).map(|_| policy.ask(1, 0, Request::All(1))).collect();
    assert!(answers.iter().all(|answer| answer.allowed && answer.retry_after == Some(0)));
    assert_eq!(answers.iter().map(|answer| answer.granted).sum::<u32>(), 2);
    let stats = policy.stats();
    assert_eq!((stats.allowed, stats.denied, stats.would_have_denied, stats.keys), (2, 0, 3, 1));
    let all = Table::open(&policy.words).unwrap().stats().unwrap();
    assert_eq!((all.allowed, all.denied, all.would_have_denied), (2, 0, 3));
}

#[test]
fn what_is_evicted_leaves_its_policy_too() {
    let words = allocate(words_for(40));
    Table::format(&words).unwrap();
    let table = Table::open(&words).unwrap();
    let rule = Rule { number: 1, limit: limit(SlidingWindow, 300, SECOND, None), since: 0 };
    for policy in [1000, 1001, 1002] {
        let question = Question { policy: hash(policy), rules: &[rule], shadow: false, blocked: 0 };
        for key in 0..30 {
            // Every third of them wide.
            for time in [0, 100_000] {
                let cost = if key % 3 == 0 { 256 - u32::try_from(time).unwrap() / 1_000 } else { 1 };
                table.request_by(hash(policy * 100 + key), &question, time, Request::All(cost)).unwrap();
                table.verify().unwrap();
            }
        }
    }
    let counted = [1000, 1001, 1002].map(|policy| table.policy_stats(hash(policy)).unwrap());
    let stats = table.stats().unwrap();
    // There is room for the counters of two.
    assert_eq!(counted[2], PolicyStats::default());
    assert!(counted[0].keys + counted[1].keys < stats.keys);
    assert!(counted.iter().map(|of| of.evictions_of_active).sum::<u64>() <= stats.evictions_of_active);
    assert!(counted[0].evictions_of_active > 0);
    let swept = table.sweep(10 * SECOND.cast_signed(), 0, 100).unwrap();
    assert_eq!((u64::from(swept.removed), table.stats().unwrap().bytes_used), (stats.keys, 0));
    table.verify().unwrap();
    assert_eq!(table.policy_stats(hash(1000)).unwrap().keys, 0);
}

#[test]
fn blocked_until_the_time_has_come() {
    let words = allocate(words_for(20));
    Table::format(&words).unwrap();
    let table = Table::open(&words).unwrap();
    let ask = |key, now, request| {
        table.request(hash(key), &limit(Algorithm::SlidingWindow, 5, SECOND, None), now, request).unwrap()
    };
    assert!(ask(1, 0, Request::All(2)).allowed);
    table.block(hash(1), 0, 10 * SECOND).unwrap();
    assert!(Table::may_have_blocks(&words));
    for request in [Request::All(1), Request::UpTo(1), Request::Peek(1), Request::All(0)] {
        let answer = ask(1, 4_000_000, request);
        assert_eq!((answer.allowed, answer.granted, answer.remaining), (false, 0, 0));
        assert_eq!((answer.retry_after, answer.reset_after), (Some(6 * SECOND), 6 * SECOND));
    }
    assert_eq!(ask(1, 4_000_000, Request::All(6)).retry_after, None, "it never will");
    assert!(ask(2, 4_000_000, Request::All(1)).allowed, "another key");
    // A reset forgets what was consumed, not the block.
    assert!(!table.reset(hash(1), 4_000_000).unwrap());
    assert!(!ask(1, 4_000_000, Request::All(1)).allowed);
    // The clock steps back: blocked for no longer than it was meant to be.
    assert_eq!(ask(1, -1_000_000, Request::All(1)).retry_after, Some(10 * SECOND));
    assert!(ask(1, 9_000_000, Request::All(1)).allowed);
    assert_eq!(table.sweep(11_000_000, 0, 20).unwrap().removed, 3);
    assert!(!Table::may_have_blocks(&words));
    table.block(hash(3), 0, SECOND).unwrap();
    table.block(hash(3), 0, 2 * SECOND).unwrap();
    assert!(table.unblock(hash(3), 1_500_000).unwrap());
    assert!(!table.unblock(hash(3), 0).unwrap());
    assert!(ask(3, 0, Request::All(1)).allowed);
    table.verify().unwrap();
}

#[test]
fn what_is_reserved_is_booked_ahead() {
    let words = allocate(words_for(20));
    Table::format(&words).unwrap();
    let table = Table::open(&words).unwrap();
    // Two a second, one at a time.
    let bucket = limit(TokenBucket, 2, SECOND, Some(1));
    let reserve = |now, cost, max_wait| table.reserve(hash(1), &bucket, now, cost, max_wait).unwrap();
    let waits: Vec<_> = (0..4).map(|_| reserve(0, 1, 1_500_000)).collect();
    assert!(waits.iter().all(|answer| answer.allowed));
    let waits: Vec<_> = waits.iter().map(|answer| answer.retry_after).collect();
    assert_eq!(waits, [0, 500_000, 1_000_000, 1_500_000].map(Some));
    let over = reserve(0, 1, 1_500_000);
    assert_eq!((over.allowed, over.retry_after), (false, Some(500_000)), "nothing is booked");
    assert_eq!(reserve(500_000, 1, 1_500_000).retry_after, Some(1_500_000));
    assert_eq!(reserve(500_000, 2, u64::MAX).retry_after, None, "above the capacity");
    // A plain check waits behind what was booked, until the last has acted and another token has come.
    let check = |now| table.request(hash(1), &bucket, now, Request::All(1)).unwrap();
    assert_eq!(check(600_000).retry_after, Some(1_900_000));
    assert!(check(2_500_000).allowed);
}

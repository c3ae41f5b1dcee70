//! Groups and limits, rule by rule.

use super::check::{Group, walk};
use super::rules::{NOW, OPTIONS, SECOND, TAG, entry, fresh, list};
use crate::queue::layout::{DELAYED, LEASED, Partition};
use crate::queue::marks::{NUMBERS, TIMES};
use crate::queue::{Busy, Delivery, Entry, Found, Offered, Options, Wake, Yielded};
use crate::words::allocate;
use proptest::prelude::*;

/// The process that reads.
const PROCESS: u32 = 77;

fn group(p: &Partition<'_>, slot: u32, hash: u64) -> Group {
    walk(p)[&slot].groups[&hash]
}

/// Of a group whose head comes first.
fn known(head: i64, next: Option<i64>, known: bool) -> Group {
    Group { head, next, known, first: true, late: false }
}

fn take_lease(p: &Partition<'_>, slot: u32, msg_id: i64) -> u64 {
    walk(p)[&slot].messages[&msg_id].lease
}

fn member(msg_id: i64, group: u64) -> Entry {
    Entry { group, ..entry(msg_id) }
}

fn send(p: &Partition<'_>, slot: u32, entries: impl IntoIterator<Item = Entry>) {
    for entry in entries {
        p.sent(slot, &entry, NOW, &mut Wake::default()).unwrap();
    }
}

fn take(p: &Partition<'_>, slot: u32, want: usize) -> Vec<Delivery> {
    take_at(p, slot, want, NOW)
}

fn take_at(p: &Partition<'_>, slot: u32, want: usize, now: i64) -> Vec<Delivery> {
    let mut taken = Vec::with_capacity(want);
    p.take(slot, PROCESS, now, want, OPTIONS.visibility_timeout, &mut taken, &mut Wake::default()).unwrap();
    walk(p);
    taken
}

fn ids(taken: &[Delivery]) -> Vec<i64> {
    taken.iter().map(|taken| taken.msg_id).collect()
}

fn finish(p: &Partition<'_>, slot: u32, msg_id: i64) -> Wake {
    let mut wake = Wake::default();
    p.drop_message(slot, msg_id, TAG, NOW, &mut wake).unwrap();
    walk(p);
    wake
}

#[test]
fn one_of_a_group_at_a_time_and_others_go_on() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    send(&p, slot, [member(1, 7), member(2, 7), member(3, 8), entry(4), member(5, 7)]);
    assert_eq!(ids(&take(&p, slot, 10)), [1, 3, 4]);
    assert_eq!(ids(&take(&p, slot, 10)), [] as [i64; 0]);
    p.wait(slot, 9, NOW, i64::MAX).unwrap();
    assert_eq!(finish(&p, slot, 1).processes(), [9], "the session that waits gets the next of the group");
    assert_eq!(ids(&take(&p, slot, 10)), [2]);
    assert_eq!(p.offer_next(slot, &member(5, 7), PROCESS, NOW, &mut Wake::default()), Ok(Offered::Known));
    finish(&p, slot, 2);
    assert_eq!(ids(&take(&p, slot, 10)), [5]);
}

#[test]
fn a_message_that_failed_or_rests_holds_its_group_up() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    p.set_options(slot, Options { max_attempts: 3, ..OPTIONS }, NOW).unwrap();
    send(&p, slot, [member(1, 7), member(2, 7)]);
    let taken = take(&p, slot, 2);
    p.release_with_backoff(slot, 1, taken[0].lease, NOW, 5 * SECOND, &mut Wake::default()).unwrap();
    assert_eq!(list(&p, slot, 1), Some(DELAYED));
    assert_eq!(take(&p, slot, 2), []);
    p.expire(slot, NOW + 6 * SECOND, 10, &mut Wake::default()).unwrap();
    assert_eq!(ids(&take_at(&p, slot, 2, NOW + 6 * SECOND)), [1]);
    p.expire(slot, NOW + 99 * SECOND, 10, &mut Wake::default()).unwrap();
    assert_eq!(ids(&take_at(&p, slot, 2, NOW + 99 * SECOND)), [1], "its lease ran out");
}

#[test]
fn an_earlier_message_goes_first_unless_the_later_one_was_delivered() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    let late = Entry { deliver_at: Some(NOW + SECOND), ..member(1, 7) };
    send(&p, slot, [member(3, 7), member(2, 7), late]);
    assert_eq!((list(&p, slot, 1), list(&p, slot, 2)), (Some(DELAYED), None));
    assert_eq!(group(&p, slot, 7), known(1, Some(2), true));
    assert_eq!(take(&p, slot, 9), []);
    send(&p, slot, [member(6, 8)]);
    assert_eq!(ids(&take(&p, slot, 9)), [6]);
    send(&p, slot, [member(5, 8)]);
    assert_eq!(take(&p, slot, 9), [], "6 is under way");
    finish(&p, slot, 6);
    assert_eq!(ids(&take(&p, slot, 9)), [5]);
}

#[test]
fn followers_take_no_room_and_each_delivery_finds_the_next() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    send(&p, slot, (1..=1000).map(|id| member(id, 7)));
    send(&p, slot, [entry(2000)]);
    assert_eq!(walk(&p)[&slot].messages.len(), 2);
    assert_eq!(p.reach(slot), Ok((i64::MAX, i64::MAX)), "and the queue needs no refill for them");
    let first = take(&p, slot, 9);
    assert_eq!(ids(&first), [1, 2000]);
    assert_eq!(first[0].find_next, None, "all that have come were seen");
    for id in 2..=1000 {
        finish(&p, slot, id - 1);
        let taken = take(&p, slot, 9);
        assert_eq!((ids(&taken), taken[0].find_next), (vec![id], Some(id)));
        if id < 1000 {
            assert_eq!(p.offer_next(slot, &member(id + 1, 7), PROCESS, NOW, &mut Wake::default()), Ok(Offered::Known));
        } else {
            p.end_probe(slot, 7, PROCESS, NOW, &mut Wake::default()).unwrap();
        }
    }
    finish(&p, slot, 1000);
    assert_eq!(walk(&p)[&slot].groups.len(), 0);
    assert_eq!(p.reach(slot), Ok((i64::MAX, i64::MAX)));
}

#[test]
fn what_senders_bring_while_the_next_is_looked_for_is_not_missed() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    send(&p, slot, [member(1, 7), member(2, 7)]);
    take(&p, slot, 1);
    finish(&p, slot, 1);
    assert_eq!(take(&p, slot, 1)[0].find_next, Some(2));
    // The snapshot shows 9; 5 and 12 are committed after it.
    send(&p, slot, [member(5, 7), member(12, 7)]);
    assert_eq!(group(&p, slot, 7), known(2, Some(5), false));
    assert_eq!(p.offer_next(slot, &member(9, 7), PROCESS, NOW, &mut Wake::default()), Ok(Offered::Known));
    assert_eq!(group(&p, slot, 7), known(2, Some(5), true));
}

#[test]
fn of_two_that_look_for_the_next_the_second_counts() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    send(&p, slot, [member(1, 7), member(2, 7)]);
    take(&p, slot, 1);
    finish(&p, slot, 1);
    assert_eq!(take(&p, slot, 1)[0].find_next, Some(2));
    assert_eq!(p.start_probe(slot, 7, 3), Ok(Some(2)));
    assert_eq!(p.offer_next(slot, &member(9, 7), PROCESS, NOW, &mut Wake::default()), Ok(Offered::Moot));
    assert_eq!(p.end_probe(slot, 7, PROCESS, NOW, &mut Wake::default()), Ok(()));
    assert!(!group(&p, slot, 7).known);
    assert_eq!(p.offer_next(slot, &member(4, 7), 3, NOW, &mut Wake::default()), Ok(Offered::Known));
    assert_eq!(group(&p, slot, 7), known(2, Some(4), true));
    assert_eq!(p.start_probe(slot, 7, 3), Ok(None), "there is nothing to look for");
}

#[test]
fn a_group_whose_next_is_not_known_is_found_by_a_refill() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    send(&p, slot, (1..=3).map(|id| member(id, 7)));
    finish(&p, slot, 1);
    p.wait(slot, 9, NOW, i64::MAX).unwrap();
    // 2 has gone without a delivery.
    assert_eq!(finish(&p, slot, 2).processes(), [9]);
    assert_eq!(p.reach(slot), Ok((2, i64::MAX)));
    assert!(p.queue_state(slot, 1, NOW).unwrap().refill);
    p.start_refill(slot, 1, NOW, None).unwrap();
    assert_eq!(p.found(slot, &member(3, 7), NOW, &mut Wake::default()), Ok(Found::Brought));
    assert_eq!(p.found(slot, &member(4, 7), NOW, &mut Wake::default()), Ok(Found::Known), "behind 3");
    p.end_refill(slot, 1, Some(i64::MAX), None, &mut Wake::default()).unwrap();
    assert_eq!(ids(&take(&p, slot, 9)), [3]);
}

#[test]
fn timed_followers_are_found_again_where_the_next_is_not_known() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    let timed = |id| Entry { deliver_at: Some(NOW + SECOND), ..member(id, 7) };
    send(&p, slot, [member(1, 7), member(2, 7), timed(3)]);
    assert_eq!(p.counters(slot).unwrap().delayed, 1);
    finish(&p, slot, 1);
    finish(&p, slot, 2);
    assert_eq!(p.reach(slot), Ok((2, i64::MIN)));
    p.start_refill(slot, 1, NOW, None).unwrap();
    assert_eq!(p.found(slot, &timed(3), NOW, &mut Wake::default()), Ok(Found::Brought));
    assert_eq!(list(&p, slot, 3), Some(DELAYED));
    assert_eq!(p.counters(slot).unwrap().delayed, 1);
}

#[test]
fn a_first_message_from_beyond_the_frontier_waits_for_the_refill_that_is_under_way() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    p.lower(slot, NUMBERS, 3, i64::MAX).unwrap();
    p.start_refill(slot, 1, NOW, None).unwrap();
    send(&p, slot, [member(9, 7), member(8, 8)]);
    assert_eq!((list(&p, slot, 9), list(&p, slot, 8)), (None, None));
    assert_eq!(p.found(slot, &member(5, 7), NOW, &mut Wake::default()), Ok(Found::Brought));
    p.end_refill(slot, 1, Some(i64::MAX), None, &mut Wake::default()).unwrap();
    assert_eq!(p.reach(slot), Ok((7, i64::MAX)), "the next one finds them");
}

#[test]
fn a_follower_that_is_being_finished_is_out_of_the_order() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    send(&p, slot, (1..=3).map(|id| member(id, 7)));
    take(&p, slot, 1);
    let Ok(Busy::Yours(claimed)) = p.set_aside(slot, &member(2, 7), NOW) else { panic!("2 is free") };
    assert!(claimed.find_next, "it was the next one");
    assert_eq!(p.start_probe(slot, 7, 3), Ok(Some(1)));
    assert_eq!(p.offer_next(slot, &member(2, 7), 3, NOW, &mut Wake::default()), Ok(Offered::Busy));
    assert_eq!(p.offer_next(slot, &member(3, 7), 3, NOW, &mut Wake::default()), Ok(Offered::Known));
    finish(&p, slot, 1);
    assert_eq!(ids(&take(&p, slot, 9)), [3]);
    // Its transaction is rolled back: it is the next one, 3 having been delivered.
    p.end_busy(slot, 2, TAG, false, NOW, &mut Wake::default()).unwrap();
    assert_eq!(group(&p, slot, 7).next, Some(2));
    finish(&p, slot, 3);
    assert_eq!(ids(&take(&p, slot, 9)), [2]);
}

#[test]
fn groups_take_turns() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    send(&p, slot, (1..=50).map(|id| member(id, 7)));
    send(&p, slot, (51..=60).map(|id| member(id, 8)));
    let mut order = Vec::new();
    for _ in 0..6 {
        let taken = take(&p, slot, 1)[0];
        if taken.find_next.is_some() {
            p.offer_next(
                slot,
                &member(taken.msg_id + 1, if taken.msg_id < 51 { 7 } else { 8 }),
                PROCESS,
                NOW,
                &mut Wake::default(),
            )
            .unwrap();
        }
        finish(&p, slot, taken.msg_id);
        order.push(taken.msg_id);
    }
    assert_eq!(order, [1, 51, 2, 52, 3, 53]);
}

/// The table may hold messages with a delivery time that the index doesn't know.
fn doubt(p: &Partition<'_>, slot: u32) {
    p.lower(slot, TIMES, NOW, i64::MAX).unwrap();
}

#[test]
fn a_message_that_was_delivered_is_not_overtaken_any_more() {
    for max_attempts in [1, 2] {
        let words = allocate(4000);
        let (p, slots) = fresh(&words, 1);
        let slot = slots[0];
        p.set_options(slot, Options { max_attempts, ..OPTIONS }, NOW).unwrap();
        doubt(&p, slot);
        send(&p, slot, [member(5, 7)]);
        assert!(take(&p, slot, 1)[0].may_overtake);
        p.expire(slot, NOW + 99 * SECOND, 1, &mut Wake::default()).unwrap();
        let again = take_at(&p, slot, 1, NOW + 99 * SECOND);
        assert_eq!(again.first().map(|taken| taken.may_overtake), (max_attempts == 2).then_some(false));
    }
}

#[test]
fn one_look_is_enough_to_see_that_a_message_comes_first() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    doubt(&p, slot);
    send(&p, slot, [member(5, 7)]);
    let taken = take(&p, slot, 1)[0];
    assert!(taken.may_overtake && taken.find_next == Some(5));
    p.comes_first(slot, 7, 5, NOW, &mut Wake::default()).unwrap();
    p.offer_next(slot, &member(6, 7), PROCESS, NOW, &mut Wake::default()).unwrap();
    finish(&p, slot, 5);
    let taken = take(&p, slot, 1)[0];
    assert_eq!((taken.msg_id, taken.may_overtake), (6, false), "and so does the next");
}

#[test]
fn an_earlier_one_in_the_table_goes_before_the_leased_one() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    doubt(&p, slot);
    send(&p, slot, [member(5, 7)]);
    let taken = take(&p, slot, 1);
    assert!(taken[0].may_overtake);
    let earlier = Entry { deliver_at: Some(NOW + SECOND), ..member(2, 7) };
    let outcome = p.yield_to(slot, 5, taken[0].lease, &earlier, NOW, &mut Wake::default());
    assert_eq!(outcome, Ok(Yielded::Overtaken));
    assert_eq!((list(&p, slot, 2), list(&p, slot, 5)), (Some(DELAYED), None));
    let expected = Group { known: false, ..known(2, Some(5), true) };
    assert_eq!(group(&p, slot, 7), expected, "what comes between them is not known yet");
    p.expire(slot, NOW + SECOND, 1, &mut Wake::default()).unwrap();
    let taken = take_at(&p, slot, 9, NOW + SECOND);
    assert_eq!((taken[0].msg_id, taken[0].attempts, taken[0].may_overtake), (2, 1, false));
    p.end_probe(slot, 7, PROCESS, NOW, &mut Wake::default()).unwrap();
    finish(&p, slot, 2);
    let taken = take_at(&p, slot, 9, NOW + SECOND);
    assert_eq!((taken[0].msg_id, taken[0].attempts), (5, 1), "the lease that was taken back was no attempt");
}

#[test]
fn a_head_that_another_queue_takes_the_room_of_is_found_again_with_its_group() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    send(&p, slot, [member(4, 7), member(2, 8), member(9, 7), member(3, 8)]);
    take(&p, slot, 1);
    send(&p, slot, [member(1, 7)]);
    assert_eq!(group(&p, slot, 7).next, Some(1), "4 is under way");
    p.undo_lease(slot, 4, take_lease(&p, slot, 4), NOW, &mut Wake::default()).unwrap();
    assert_eq!(group(&p, slot, 7), known(1, Some(4), false));
    let record = p.lookup(slot, 1).unwrap().unwrap();
    p.drop_known(slot, record).unwrap();
    assert_eq!(p.reach(slot), Ok((0, i64::MAX)));
    assert_eq!(walk(&p)[&slot].groups.keys().collect::<Vec<_>>(), [&8]);
}

#[test]
fn what_is_in_flight_is_limited() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    p.set_options(slot, Options { max_in_flight: 2, ..OPTIONS }, NOW).unwrap();
    send(&p, slot, (1..=5).map(entry));
    assert_eq!(ids(&take(&p, slot, 9)), [1, 2]);
    assert_eq!(p.queue_state(slot, 1, NOW).unwrap().ready, 0);
    p.start_busy(slot, 1, None, NOW).unwrap();
    assert_eq!(take(&p, slot, 9), [], "a message that is being finished is in flight");
    p.wait(slot, 9, NOW, i64::MAX).unwrap();
    let mut wake = Wake::default();
    p.end_busy(slot, 1, TAG, true, NOW, &mut wake).unwrap();
    assert_eq!(wake.processes(), [9]);
    assert_eq!(ids(&take(&p, slot, 9)), [3]);
    assert_eq!(list(&p, slot, 3), Some(LEASED));
}

#[test]
fn deliveries_are_limited_in_time() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    p.set_options(slot, Options { max_rate: 2, rate_period: SECOND, ..OPTIONS }, NOW).unwrap();
    send(&p, slot, (1..=9).map(entry));
    assert_eq!(ids(&take(&p, slot, 9)), [1, 2]);
    let queue_state = p.queue_state(slot, 1, NOW).unwrap();
    assert_eq!((queue_state.ready, queue_state.next), (0, Some(NOW + SECOND)));
    assert_eq!(take_at(&p, slot, 9, NOW + SECOND - 1), []);
    assert_eq!(ids(&take_at(&p, slot, 1, NOW + SECOND)), [3]);
    p.not_delivered(slot, 1, NOW + SECOND).unwrap();
    assert_eq!(ids(&take_at(&p, slot, 9, NOW + SECOND)), [4, 5], "a row that was gone doesn't count");
    // The clock steps back: what was delivered is no younger for that.
    assert_eq!(take_at(&p, slot, 9, NOW - SECOND), []);
    assert_eq!(p.queue_state(slot, 1, NOW - SECOND).unwrap().next, Some(NOW));
    assert_eq!(take_at(&p, slot, 9, NOW - 1), []);
    assert_eq!(ids(&take_at(&p, slot, 9, NOW)), [6, 7]);
}

/// The trailing period has never more deliveries than allowed, whatever the limit was before; and a reader is sent away
/// only where it and a step before it are full.
#[test]
fn no_trailing_period_has_too_many_deliveries() {
    let change = proptest::option::weighted(0.1, (1..6_usize, 1..6_i64));
    proptest!(|(actions in proptest::collection::vec((0..40_i64, 0..4_usize, change), 1..80))| {
        let words = allocate(12_000);
        let (p, slots) = fresh(&words, 1);
        let slot = slots[0];
        send(&p, slot, (1..=300).map(entry));
        let (mut now, mut most, mut period, mut changed) = (NOW, 0, 0, NOW);
        // When there were deliveries that count.
        let mut log = Vec::new();
        for (at, (pause, want, change)) in actions.into_iter().enumerate() {
            now += pause * SECOND / 37;
            if let Some((limit, halves)) = change.or((at == 0).then_some((3, 2))) {
                // What no longer counted by the period before doesn't count again by a longer one.
                log.retain(|&time| now - time < period);
                (most, period, changed) = (limit, halves * SECOND / 2, now);
                let options = Options { max_rate: most as u32, rate_period: period, ..OPTIONS };
                p.set_options(slot, options, now).unwrap();
            }
            let taken = take_at(&p, slot, want, now).len();
            log.extend(std::iter::repeat_n(now, taken));
            let within = |period: i64| log.iter().filter(|&&time| now - time < period).count();
            prop_assert!(taken == 0 || within(period) <= most, "{} of {most} in {period} µs", within(period));
            let step = (period + 15) / 16;
            if now - changed > period + step && taken < want {
                prop_assert!(within(period + step) >= most, "{taken} of {want}, though {most} in {period} µs are allowed");
            }
        }
    });
}

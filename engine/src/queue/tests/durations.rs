//! How long messages wait, and how long the work on them takes.

use super::check::walk;
use super::rules::{NOW, OPTIONS, SECOND, TAG, entry, fresh, key};
use crate::queue::durations::bucket_of;
use crate::queue::{Delivery, Histogram, Partition, Wake};
use crate::words::allocate;

fn send(p: &Partition<'_>, slot: u32, ids: impl IntoIterator<Item = i64>) {
    for id in ids {
        p.sent(slot, &entry(id), NOW, &mut Wake::default()).unwrap();
    }
}

fn take(p: &Partition<'_>, slot: u32, now: i64, want: usize) -> Vec<Delivery> {
    let (mut taken, mut wake) = (Vec::with_capacity(want), Wake::default());
    p.expire(slot, now, 100, &mut wake).unwrap();
    p.take(slot, 77, now, want, 3600 * SECOND, &mut taken, &mut wake).unwrap();
    walk(p);
    taken
}

fn end(p: &Partition<'_>, slot: u32, taken: &Delivery, finished: bool, now: i64) {
    p.start_busy(slot, taken.msg_id, Some(taken.lease), now).unwrap();
    p.end_busy(slot, taken.msg_id, TAG, finished, now, &mut Wake::default()).unwrap();
    walk(p);
}

fn runs(p: &Partition<'_>, slot: u32) -> Histogram {
    p.durations(slot).unwrap().runs
}

/// Whether a quantile is what it should be, but for the width of a bucket.
fn near(quantile: Option<i64>, due: i64) -> bool {
    quantile.is_some_and(|quantile| quantile <= 2 * due.max(128) && 2 * quantile.max(64) >= due)
}

#[test]
fn quantiles_are_off_by_less_than_twofold() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 2);
    let waits = |slot| p.durations(slot).unwrap().waits;
    assert_eq!(waits(slots[0]).quantile(500), None);
    // Evenly spread.
    for micros in 1..=10_000 {
        p.note_wait(slots[0], micros).unwrap();
    }
    let all = waits(slots[0]);
    assert_eq!(all.len(), 10_000);
    for (per_mille, due) in [(1, 10), (100, 1000), (500, 5000), (750, 7500)] {
        let quantile = all.quantile(per_mille).unwrap();
        assert!((quantile - due).abs() <= due / 10, "{per_mille}: {quantile}");
    }
    assert!(near(all.quantile(990), 9900), "{:?}", all.quantile(990));
    assert!(waits(slots[1]).is_empty(), "another queue's");
    // Of one duration alone, be it the shortest or the longest.
    for micros in [i64::MIN, -1, 0, 1, 127, 128, 129, 1 << 20, (1 << 20) - 1, 86_400 * SECOND, i64::MAX] {
        let words = allocate(4000);
        let (p, slots) = fresh(&words, 1);
        p.note_wait(slots[0], micros).unwrap();
        let durations = p.durations(slots[0]).unwrap();
        for per_mille in [1, 500, 990, 1000] {
            let quantile = durations.waits.quantile(per_mille);
            assert!(near(quantile, micros.clamp(0, 1 << 38)), "{micros}: {quantile:?}");
        }
        assert!(durations.runs.is_empty());
    }
    // Longer is never in an earlier bucket.
    let buckets: Vec<usize> = (0..63).map(|bits| bucket_of(1 << bits)).collect();
    assert!(buckets.is_sorted() && buckets[0] == 0 && buckets[62] == 31, "{buckets:?}");
}

#[test]
fn a_full_count_is_halved_with_the_others_of_its_queue() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let histogram = p.histogram(slots[0], 0).unwrap();
    for (from, neighbour) in [(u64::from(u32::MAX >> 1), 1000), (u64::from(u32::MAX >> 1) + 9, 1000)] {
        histogram[0].store(neighbour << 32 | from, std::sync::atomic::Ordering::Relaxed);
        for _ in 0..10 {
            p.note_wait(slots[0], 1).unwrap();
        }
        let len = p.durations(slots[0]).unwrap().waits.len();
        assert!(len > from / 4 && len < from, "{from}: {len}");
        let share = p.durations(slots[0]).unwrap().waits.quantile(1000);
        assert!(share.is_some_and(|share| (128..=256).contains(&share)), "{share:?}");
    }
}

#[test]
fn work_is_measured_from_its_own_delivery_whatever_is_done_to_the_lease() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 2);
    let slot = slots[0];
    send(&p, slot, 1..=3);
    let first = take(&p, slot, NOW, 1)[0];
    // Given more time, and finished after 100 seconds.
    p.extend(slot, first.msg_id, Some(first.lease), NOW, NOW + 7200 * SECOND, &mut Wake::default()).unwrap();
    end(&p, slot, &first, false, NOW + 50 * SECOND);
    assert!(runs(&p, slot).is_empty(), "a rollback has ended nothing");
    end(&p, slot, &first, true, NOW + 100 * SECOND);
    assert!(near(runs(&p, slot).quantile(500), 100 * SECOND), "{:?}", runs(&p, slot));
    // Delivered a second time: the last delivery counts.
    let second = take(&p, slot, NOW + 100 * SECOND, 1)[0];
    p.release_with_backoff(slot, second.msg_id, second.lease, NOW + 5000 * SECOND, 0, &mut Wake::default()).unwrap();
    let again = take(&p, slot, NOW + 5000 * SECOND, 1)[0];
    assert_eq!((again.msg_id, again.attempts), (second.msg_id, 2));
    end(&p, slot, &again, true, NOW + 5001 * SECOND);
    assert_eq!(runs(&p, slot).len(), 2);
    assert!(near(runs(&p, slot).quantile(1), SECOND), "{:?}", runs(&p, slot));
    // What ends without a delivery isn't work.
    p.start_busy(slot, 3, None, NOW).unwrap();
    p.end_busy(slot, 3, TAG, true, NOW, &mut Wake::default()).unwrap();
    assert_eq!(runs(&p, slot).len(), 2);
    assert!(runs(&p, slots[1]).is_empty());
}

#[test]
fn leases_that_begin_faster_than_the_clock_goes_differ() {
    let words = allocate(60_000);
    let (p, slots) = fresh(&words, 1);
    send(&p, slots[0], 1..=900);
    let mut leases: Vec<u64> = take(&p, slots[0], NOW, 400).iter().map(|taken| taken.lease).collect();
    leases.extend(take(&p, slots[0], NOW + 1, 250).iter().map(|taken| taken.lease));
    leases.extend(take(&p, slots[0], NOW + SECOND, 250).iter().map(|taken| taken.lease));
    assert_eq!(leases.len(), 900);
    assert!(leases.windows(2).all(|pair| pair[0] < pair[1]), "{leases:?}");
    let began = p.durations(slots[0]).unwrap().oldest_lease;
    assert_eq!(began, Some(NOW));
}

#[test]
fn the_oldest_lease_is_the_oldest_that_runs() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    let oldest = || p.durations(slot).unwrap().oldest_lease.map(|began| (began - NOW) / SECOND);
    assert_eq!(oldest(), None);
    send(&p, slot, 1..=4);
    let leases: Vec<Delivery> = (0..4).map(|second| take(&p, slot, NOW + second * SECOND, 1)[0]).collect();
    assert_eq!(oldest(), Some(0));
    // Set aside, it runs.
    p.start_busy(slot, leases[0].msg_id, None, NOW).unwrap();
    assert_eq!(oldest(), Some(0));
    p.end_busy(slot, leases[0].msg_id, TAG, true, NOW, &mut Wake::default()).unwrap();
    assert_eq!(oldest(), Some(1));
    // Brought back by a rollback, it is still the oldest, also when another one has gone meanwhile.
    end(&p, slot, &leases[1], false, NOW);
    end(&p, slot, &leases[2], true, NOW);
    assert_eq!(oldest(), Some(1));
    end(&p, slot, &leases[1], true, NOW);
    assert_eq!(oldest(), Some(3));
    end(&p, slot, &leases[3], true, NOW);
    assert_eq!(oldest(), None);
}

#[test]
fn what_a_clock_that_is_set_back_makes_of_running_leases_is_not_known() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    send(&p, slot, 1..=2);
    let before = take(&p, slot, NOW, 1)[0];
    let back = NOW - 500 * SECOND;
    let after = take(&p, slot, back, 1)[0];
    assert!(after.lease > before.lease);
    assert_eq!(p.durations(slot).unwrap().oldest_lease, None);
    end(&p, slot, &before, true, back + SECOND);
    assert!(runs(&p, slot).is_empty());
    assert_eq!(p.durations(slot).unwrap().oldest_lease, Some(back));
    end(&p, slot, &after, true, back + 10 * SECOND);
    assert!(near(runs(&p, slot).quantile(500), 10 * SECOND));
}

#[test]
fn a_slot_of_a_queue_that_is_gone_has_no_times_for_the_next() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    send(&p, slots[0], 1..=2);
    for taken in take(&p, slots[0], NOW, 2) {
        p.note_wait(slots[0], SECOND).unwrap();
        end(&p, slots[0], &taken, true, NOW + SECOND);
    }
    assert_eq!((runs(&p, slots[0]).len(), p.durations(slots[0]).unwrap().last_read), (2, Some(NOW)));
    assert!(p.detach(slots[0], 10, NOW, &mut Wake::default()).unwrap());
    let slot = p.attach(key(99), OPTIONS).unwrap().unwrap();
    assert_eq!(slot, slots[0]);
    let durations = p.durations(slot).unwrap();
    assert!(durations.runs.is_empty() && durations.waits.is_empty() && durations.last_read.is_none(), "{durations:?}");
}

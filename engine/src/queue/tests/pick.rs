//! Messages read by their numbers.

use super::check::walk;
use super::rules::{NOW, OPTIONS, SECOND, entry, fresh, list};
use crate::queue::layout::{LEASED, USED_UP};
use crate::queue::{Entry, Options, Partition, Picked, Wake};
use crate::words::allocate;

fn pick(p: &Partition<'_>, slot: u32, id: i64, now: i64) -> Picked {
    p.pick(slot, id, 77, now, 30 * SECOND, &mut Wake::default()).unwrap()
}

fn send(p: &Partition<'_>, slot: u32, entry: &Entry) {
    p.sent(slot, entry, NOW, &mut Wake::default()).unwrap();
}

#[test]
fn a_ready_message_is_leased_by_its_number_and_no_other_is() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    for id in 1..=3 {
        send(&p, slot, &entry(id));
    }
    send(&p, slot, &Entry { deliver_at: Some(NOW + SECOND), ..entry(4) });
    let Picked::Leased(taken) = pick(&p, slot, 2, NOW) else { panic!("it is ready") };
    assert_eq!((taken.msg_id, taken.attempts, taken.until), (2, 1, NOW + 30 * SECOND));
    assert_eq!(list(&p, slot, 2), Some(LEASED));
    assert_eq!(pick(&p, slot, 2, NOW), Picked::NotReady);
    assert_eq!(pick(&p, slot, 4, NOW), Picked::NotReady);
    assert_eq!(pick(&p, slot, 9, NOW), Picked::Unknown);
    p.start_busy(slot, 3, None, NOW).unwrap();
    assert_eq!(pick(&p, slot, 3, NOW), Picked::NotReady);
    // Its lease over, it is ready again, and used up after its second delivery.
    for (now, attempts) in [(NOW + 31 * SECOND, 2), (NOW + 62 * SECOND, 0)] {
        p.expire(slot, now, 10, &mut Wake::default()).unwrap();
        match pick(&p, slot, 2, now) {
            Picked::Leased(taken) => assert_eq!(taken.attempts, attempts),
            other => assert_eq!((other, attempts), (Picked::NotReady, 0)),
        }
        walk(&p);
    }
    assert_eq!(list(&p, slot, 2), Some(USED_UP));
}

#[test]
fn a_pause_and_the_limits_hold() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    for id in 1..=3 {
        send(&p, slot, &entry(id));
    }
    p.set_options(slot, Options { paused: true, ..OPTIONS }, NOW).unwrap();
    assert_eq!(pick(&p, slot, 1, NOW), Picked::NotReady);
    p.set_options(slot, Options { max_in_flight: 1, ..OPTIONS }, NOW).unwrap();
    assert!(matches!(pick(&p, slot, 2, NOW), Picked::Leased(_)));
    assert_eq!(pick(&p, slot, 1, NOW), Picked::NotReady);
    p.set_options(slot, Options { max_rate: 2, rate_period: SECOND, ..OPTIONS }, NOW).unwrap();
    assert!(matches!(pick(&p, slot, 1, NOW + 2 * SECOND), Picked::Leased(_)));
    walk(&p);
}

#[test]
fn only_the_head_of_a_group_is_picked() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    for id in 1..=2 {
        send(&p, slot, &Entry { group: 5, ..entry(id) });
    }
    assert!(!matches!(pick(&p, slot, 2, NOW), Picked::Leased(_)));
    assert!(matches!(pick(&p, slot, 1, NOW), Picked::Leased(_)));
    walk(&p);
}

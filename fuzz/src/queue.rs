//! A partition of the queues' index.

use crate::{Input, start};
use enough_engine::queue::{
    Aside, Busy, Delivery, Entry, Options, Partition, QueueKey, State, Storage, Tag, Tid, Wake, format,
};
use enough_engine::words::{Corrupt, allocate};
use std::collections::BTreeMap;

const SECOND: i64 = 1_000_000;
const TIMEOUT: i64 = 30 * SECOND;

/// The tag of all rows but those that have the number of another.
fn tag() -> Tag {
    Tag::new(1, Some(1))
}

fn entry(msg_id: i64, priority: u8, deliver_at: Option<i64>) -> Entry {
    Entry { msg_id, tid: Tid { block: 1, offset: 1 }, priority, attempts: 0, deliver_at, group: 0, tag: tag() }
}

fn attach(p: &Partition<'_>, relation: u32) -> Option<u32> {
    let options = Options { visibility_timeout: TIMEOUT, max_attempts: 1_000_000, ..Options::default() };
    p.attach(QueueKey { database: 1, relation }, options).ok()?
}

/// Words of anything: every call returns.
fn damaged(input: &mut Input<'_>) -> Option<()> {
    let words = allocate(3100);
    format(&words, SECOND.unsigned_abs());
    let p = Partition::new(&words);
    for relation in 1..=3 {
        let slot = attach(&p, relation)?;
        for id in 0..40_i64 {
            let message = Entry { group: (id % 4).unsigned_abs(), ..entry(id, (id % 10) as u8, None) };
            p.sent(slot, &message, SECOND, &mut Wake::default()).ok()?;
        }
        p.take(slot, 1, SECOND, 10, 5, &mut Vec::with_capacity(10), &mut Wake::default()).ok()?;
        p.wait(slot, relation, SECOND, SECOND).ok()?;
    }
    input.damage(&words)?;
    loop {
        let (call, slot, id) = (input.byte()?, input.below(5)? as u32, input.below(60)? as i64);
        let now = SECOND + input.below(60_000)? as i64;
        // None of them panics or goes on for ever; whether it ends in an error doesn't matter.
        let _ = match call % 4 {
            0 => arrive(&p, call, slot, id, now),
            1 => read(&p, call, slot, id, now),
            2 => finish(&p, call, slot, id, now),
            _ => rule(&p, call, slot, id, now),
        };
    }
}

/// A message of some kind by its number.
fn message(id: i64, now: i64) -> Entry {
    let deliver_at = (id % 5 == 0).then_some(now + id % 17 - 4);
    Entry { group: (id % 4).unsigned_abs(), attempts: (id % 3) as u32, ..entry(id, (id % 10) as u8, deliver_at) }
}

/// What senders and scans of the table call.
fn arrive(p: &Partition<'_>, call: u8, slot: u32, id: i64, now: i64) -> Result<(), Corrupt> {
    let (message, mut wake) = (message(id, now), Wake::default());
    match call / 4 % 14 {
        0..=2 => p.sent(slot, &message, now, &mut wake),
        3 => p.redriven(slot, &message, now, &mut wake),
        4 => p.start_refill(slot, 2, now, None).map(drop),
        5 => p.start_refill(slot, 3, now, Some(2)).map(drop),
        6 => p.comes_second(slot, &message, now).map(drop),
        7 | 8 => p.found(slot, &message, now, &mut wake).map(drop),
        9 => p.end_refill(slot, 2, Some(id), (id % 2 == 0).then_some(now), &mut wake),
        10 => p.reconcile(slot, &message, now, &mut wake).map(drop),
        11 => p.insert_or_leave_out(slot, &message, now, &mut wake),
        12 => p.sent(slot, &Entry { tag: Tag::new(id, Some(2)), ..message }, now, &mut wake),
        _ => p.left_outside(slot, id, id % 2 == 0, message.group),
    }
}

/// What readers call, and who waits.
fn read(p: &Partition<'_>, call: u8, slot: u32, id: i64, now: i64) -> Result<(), Corrupt> {
    let (message, mut wake) = (message(id, now), Wake::default());
    let lease = p.running_lease(slot, id, now)?.unwrap_or_default();
    let mut taken: Vec<Delivery> = Vec::with_capacity(8);
    match call / 4 % 17 {
        0 | 1 => p.take(slot, 2, now, 8, 10, &mut taken, &mut wake),
        2 => p.wait(slot, 4, now, now + 9).map(drop),
        3 => p.leave(slot, id as u32, 4).map(drop),
        4 => p.forward_wakeup(slot, &mut wake),
        5 => p.watch(slot, now, &mut wake),
        6 => p.extend(slot, id, (id % 2 == 0).then_some(lease), now, now + id % 3, &mut wake).map(drop),
        7 => p.release_with_backoff(slot, id, lease, now, id % 3, &mut wake),
        8 => p.undo_lease(slot, id, lease, now, &mut wake),
        9 => p.yield_to(slot, id, lease, &self::message(id - 4, now), now, &mut wake).map(drop),
        10 => p.start_probe(slot, message.group, 2).map(drop),
        11 => p.offer_next(slot, &message, 2, now, &mut wake).map(drop),
        12 => p.end_probe(slot, message.group, 2, now, &mut wake),
        13 => p.comes_first(slot, message.group, id, now, &mut wake),
        14 => p.drop_leased(slot, id, lease, now, &mut wake),
        15 => p.take_next(slot, id, lease, 2, now, 10, &mut wake).map(drop),
        _ => p.moved(slot, id, lease, message.tid),
    }
}

/// What transactions call that finish messages.
fn finish(p: &Partition<'_>, call: u8, slot: u32, id: i64, now: i64) -> Result<(), Corrupt> {
    let (message, mut wake) = (message(id, now), Wake::default());
    let mut aside: Vec<Aside> = Vec::with_capacity(8);
    match call / 4 % 12 {
        0 | 1 => p.start_busy(slot, id, None, now).map(drop),
        2 => p.set_aside(slot, &message, now).map(drop),
        3 | 4 => p.end_busy(slot, id, message.tag, id % 2 == 0, now, &mut wake),
        5 => p.schedule_retry(slot, &message, now, &mut wake),
        6 => p.start_burial(slot, &message, now, &mut wake).map(drop),
        7 => p.set_used_up_aside(slot, &mut aside),
        8 => p.set_all_aside(slot, &mut aside).map(drop),
        9 => p.end_purged(slot, id, message.tag, now, &mut wake),
        10 => p.drop_message(slot, id, message.tag, now, &mut wake),
        _ => p.drop_vanished(slot, id, message.tag, now, &mut wake),
    }
}

/// What looks at a queue, or changes it as a whole.
fn rule(p: &Partition<'_>, call: u8, slot: u32, id: i64, now: i64) -> Result<(), Corrupt> {
    let (mut wake, options) = (Wake::default(), p.options(slot)?);
    match call / 4 % 16 {
        0 | 1 => p.expire(slot, now + 5, 50, &mut wake).map(drop),
        2 => p.queue_state(slot, 4, now).map(drop),
        3 => p.counters(slot).map(drop),
        4 => p.seen(slot, id, now).map(drop),
        5 => p.look(slot, State::Leased, now, &mut Vec::with_capacity(8)),
        6 => p.heads(slot).map(drop),
        7 => p.list_from(slot, id as u32, &mut Vec::with_capacity(8)).map(drop),
        8 => p.wake_all(slot, &mut wake).map(drop),
        9 => p.set_options(slot, Options { max_in_flight: id as u32 % 4, ..options }, now),
        10 => p.set_options(slot, Options { max_rate: id as u32 % 4, rate_period: id * 100_000, ..options }, now),
        11 if id % 3 == 1 => {
            p.set_options(slot, Options { group_rate: id as u32 % 4, group_rate_period: id * 100_000, ..options }, now)
        }
        11 if id % 3 == 0 => p.set_options(slot, Options { group_limit: id as u32 % 5, ..options }, now),
        11 => p.set_options(slot, Options { max_attempts: id as u32 % 4, ..options }, now),
        12 => p.set_storage(slot, Storage { file: id as u32 % 3, toast: 1, empty: id % 2 == 0 }, &mut wake),
        13 => p.invalidate_watermark(slot),
        14 => p.detach(slot, 20, now, &mut wake).map(drop),
        _ => p.attach(QueueKey { database: 1, relation: slot }, options).map(drop),
    }
}

/// Of each message that isn't finished: its priority, and its lease with the time when that ends.
type Live = BTreeMap<i64, (u8, Option<(u64, i64)>)>;

/// With room for all messages, so that the table holds none that the index doesn't: each is delivered to one lease at a time
/// until it is finished, in the order of the priorities, and in the end every one has come.
fn history(input: &mut Input<'_>) {
    let words = allocate(1 << 14);
    let mut now = 1000 * SECOND;
    format(&words, now.unsigned_abs());
    let p = Partition::new(&words);
    let slot = attach(&p, 1).expect("room for a queue");
    let counting = p.start_counting(slot).expect("sound");
    p.counted(slot, counting, [0; 4], 0, now).expect("sound");
    // The table is empty, and a scan of it has come to its end.
    p.start_refill(slot, 1, now, None).expect("sound").expect("nobody else refills");
    p.end_refill(slot, 1, Some(i64::MAX), Some(i64::MAX), &mut Wake::default()).expect("sound");
    let mut live = Live::new();
    let mut next_id = 1;
    let mut wake = Wake::default();
    let take = |live: &mut Live, now: i64, want: usize| {
        let mut taken: Vec<Delivery> = Vec::with_capacity(want);
        p.take(slot, 1, now, want, TIMEOUT, &mut taken, &mut Wake::default()).expect("sound");
        for message in &taken {
            let known = live.get_mut(&message.msg_id).expect("a message that isn't there any more was delivered");
            assert!(known.1.is_none_or(|(_, until)| until <= now), "{} is leased twice", message.msg_id);
            known.1 = Some((message.lease, message.until));
        }
        assert!(taken.is_sorted_by(|a, b| live[&a.msg_id].0 >= live[&b.msg_id].0), "a lower priority came first");
        p.delivered(slot, taken.len()).expect("sound");
        taken.len()
    };
    let mut step = || -> Option<()> {
        let call = input.byte()?;
        let chosen = input.below(live.len().max(1))?;
        let chosen = live.iter().nth(chosen).map(|(id, (_, lease))| (*id, *lease));
        match call % 8 {
            0 | 1 if live.len() < 300 => {
                let priority = call / 8 % 10;
                let deliver_at = if call & 128 == 0 { None } else { Some(now + input.below(40)? as i64 * SECOND) };
                p.sent(slot, &entry(next_id, priority, deliver_at), now, &mut wake).expect("sound");
                live.insert(next_id, (priority, None));
                next_id += 1;
            }
            2 | 3 => {
                take(&mut live, now, 1 + usize::from(call / 8 % 10));
            }
            4 | 5 => {
                let (id, Some((lease, until))) = chosen.unwrap_or_default() else { return Some(()) };
                let answer = p.start_busy(slot, id, Some(lease), now).expect("sound");
                if until > now {
                    assert!(matches!(answer, Busy::Yours(_)), "the current lease of {id} was refused: {answer:?}");
                }
                if let Busy::Yours(_) = answer {
                    let finished = call & 64 != 0;
                    p.end_busy(slot, id, tag(), finished, now, &mut wake).expect("sound");
                    if finished {
                        p.finished(slot, 1).expect("sound");
                        live.remove(&id);
                    }
                }
            }
            6 => {
                let (id, Some((lease, until))) = chosen.unwrap_or_default() else { return Some(()) };
                p.release_with_backoff(slot, id, lease, now, i64::from(call / 64) * SECOND, &mut wake).expect("sound");
                if until > now {
                    live.entry(id).and_modify(|known| known.1 = None);
                    assert_ne!(
                        p.start_busy(slot, id, Some(lease), now).map(|busy| matches!(busy, Busy::Yours(_))),
                        Ok(true)
                    );
                }
            }
            _ => {
                now += input.below(20_000)? as i64 * 1000;
                p.expire(slot, now, 1000, &mut wake).expect("sound");
            }
        }
        Some(())
    };
    while step().is_some() {}
    // Every lease and delay is over: all that isn't finished comes.
    now += 1000 * SECOND;
    p.expire(slot, now, 100_000, &mut wake).expect("sound");
    live.values_mut().for_each(|(_, lease)| *lease = None);
    let mut came = 0;
    loop {
        let more = take(&mut live, now, 50);
        came += more;
        if more == 0 {
            break;
        }
    }
    assert_eq!(came, live.len(), "messages are lost");
}

/// One run.
pub fn run(data: &[u8]) {
    let (is_damaged, mut input) = start(data);
    if is_damaged {
        let _ = damaged(&mut input);
    } else {
        history(&mut input);
    }
}

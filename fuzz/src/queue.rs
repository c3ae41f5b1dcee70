//! A partition of the queues' index.

use crate::{Input, start};
use enough_engine::queue::{Busy, Entry, Options, Partition, QueueKey, Taken, Tid, Wake, format};
use enough_engine::words::allocate;
use std::collections::BTreeMap;

const SECOND: i64 = 1_000_000;
const TIMEOUT: i64 = 30 * SECOND;

fn entry(msg_id: i64, priority: u8, deliver_at: Option<i64>) -> Entry {
    Entry { msg_id, tid: Tid { block: 1, offset: 1 }, priority, attempts: 0, deliver_at, group: 0 }
}

fn attach(p: &Partition<'_>, relation: u32) -> Option<u32> {
    let options = Options { visibility_timeout: TIMEOUT, max_attempts: 1_000_000, ..Options::default() };
    p.attach(QueueKey { database: 1, relation }, options).ok()?
}

/// Words of anything: every call returns.
fn damaged(input: &mut Input<'_>) -> Option<()> {
    let words = allocate(3100);
    format(&words, SECOND);
    let p = Partition::new(&words);
    for relation in 1..=3 {
        let slot = attach(&p, relation)?;
        for id in 0..40_i64 {
            let message = Entry { group: (id % 4).unsigned_abs(), ..entry(id, (id % 10) as u8, None) };
            p.sent(slot, &message, SECOND, &mut Wake::default()).ok()?;
        }
        p.take(slot, 1, SECOND, 10, 5, &mut Vec::with_capacity(10)).ok()?;
        p.wait(slot, relation, SECOND, SECOND).ok()?;
    }
    input.damage(&words)?;
    loop {
        let (call, slot, id) = (input.byte()?, input.below(5)? as u32, input.below(60)? as i64);
        let now = SECOND + input.below(60_000)? as i64;
        let message =
            Entry { group: (id % 4).unsigned_abs(), ..entry(id, (id % 10) as u8, (id % 5 == 0).then_some(now + 9)) };
        let mut wake = Wake::default();
        let mut taken: Vec<Taken> = Vec::with_capacity(8);
        let _ = match call % 16 {
            0 => p.sent(slot, &message, now, &mut wake),
            1 => p.take(slot, 2, now, 8, 10, &mut taken),
            2 => p.start_busy(slot, id, None, now).map(drop),
            3 => p.end_busy(slot, id, id % 2 == 0, now, &mut wake),
            4 => p.give_back(slot, id, 1, now, id % 3, &mut wake),
            5 => p.expire(slot, now + 5, 50, &mut wake).map(drop),
            6 => p.start_refill(slot, 2, now, None).map(drop),
            7 => p.found(slot, &message, now, &mut wake).map(drop),
            8 => p.reconcile(slot, &message, now, &mut wake).map(drop),
            9 => p.rest(slot, &message, now, &mut wake),
            10 => p.drop_message(slot, id, now, &mut wake),
            11 => p.wait(slot, 4, now, now + 9).map(drop),
            12 => p.wake_all(slot, &mut wake).map(drop),
            13 => p.counters(slot).map(drop),
            14 => p.detach(slot, 20, now, &mut wake).map(drop),
            _ => p.outlook(slot, 4, now).map(drop),
        };
    }
}

/// With room for all messages, so that the table holds none that the index doesn't: each is delivered to one lease at a time until it is finished, in the order of the
/// priorities, and in the end every one has come.
fn history(input: &mut Input<'_>) {
    let words = allocate(1 << 14);
    let mut now = 1000 * SECOND;
    format(&words, now);
    let p = Partition::new(&words);
    let slot = attach(&p, 1).expect("room for a queue");
    p.start_counting(slot).expect("sound");
    p.counted(slot, 0, 0, 0, 0).expect("sound");
    // The table is empty, and a scan of it has come to its end.
    p.start_refill(slot, 1, now, None).expect("sound").expect("nobody else refills");
    p.end_refill(slot, 1, Some(i64::MAX), Some(i64::MAX), &mut Wake::default()).expect("sound");
    // Of each message that isn't finished: its priority, and its lease with the time when that ends.
    let mut live: BTreeMap<i64, (u8, Option<(u64, i64)>)> = BTreeMap::new();
    let mut next_id = 1;
    let mut wake = Wake::default();
    let take = |live: &mut BTreeMap<i64, (u8, Option<(u64, i64)>)>, now: i64, want: usize| {
        let mut taken: Vec<Taken> = Vec::with_capacity(want);
        p.take(slot, 1, now, want, TIMEOUT, &mut taken).expect("sound");
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
                    p.end_busy(slot, id, finished, now, &mut wake).expect("sound");
                    if finished {
                        p.finished(slot, 1).expect("sound");
                        live.remove(&id);
                    }
                }
            }
            6 => {
                let (id, Some((lease, until))) = chosen.unwrap_or_default() else { return Some(()) };
                p.give_back(slot, id, lease, now, i64::from(call / 64) * SECOND, &mut wake).expect("sound");
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

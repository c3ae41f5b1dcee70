//! A partition of the cache.

use crate::{Input, start};
use enough_engine::cache::{Item, Kind, LogicalTime, NEVER, Partition, Progress, Removal, Reservation, Tags};
use enough_engine::hash::{KeyHash, key_hash};
use enough_engine::words::{Corrupt, allocate};
use std::collections::HashMap;

const DATABASE: u32 = 5;

fn key(number: usize) -> KeyHash {
    key_hash([1, 2], DATABASE, 1, &number.to_le_bytes())
}

fn bytes(number: usize, version: u64, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u64 ^ version ^ (number as u64) << 3) as u8).collect()
}

/// Stores a value; `Ok(false)` where there is no room.
fn set(p: &Partition<'_>, number: usize, value: &[u8], expiry: u64, now: u64) -> Result<bool, Corrupt> {
    let mut reservation = Reservation::new(value.len());
    let mut steps = 0;
    loop {
        match p.reserve(&mut reservation, now)? {
            Progress::Ready => break,
            Progress::Full => return Ok(false),
            Progress::More => steps += 1,
        }
        assert!(steps < 100_000, "reserving makes no progress");
    }
    p.fill(&reservation, value)?;
    p.publish(&mut reservation, &Item { key: key(number), database: DATABASE, expiry, kind: Kind::Bytes })
}

fn get(p: &Partition<'_>, number: usize, now: u64) -> Result<Option<Vec<u8>>, Corrupt> {
    let Some(found) = p.find(key(number), now)? else { return Ok(None) };
    let mut value = vec![0; found.len.min(1 << 20)];
    p.copy(found, &mut value)?;
    Ok(Some(value))
}

/// Words of anything: every call returns.
fn damaged(input: &mut Input<'_>) -> Option<()> {
    let words = allocate(4096);
    let p = Partition::format(&words, LogicalTime::default()).ok()?;
    for number in 0..12 {
        set(&p, number, &bytes(number, 0, number * 60), 1_000_000 * number as u64 + 1, 0).ok()?;
    }
    input.damage(&words)?;
    loop {
        let (call, number) = (input.byte()?, input.below(16)?);
        let now = input.word()? >> 8;
        let barrier = p.barrier_of(Removal::Key(key(number)));
        let transaction = u64::from(call >> 6) + 1;
        let _ = match call % 13 {
            0 => set(&p, number, &bytes(number, 1, usize::from(call) * 8), now, now).map(drop),
            1 => get(&p, number, now).map(drop),
            2 => p.remove(key(number), now).map(drop),
            3 => p.touch(key(number), now, now + 5).map(drop),
            4 => p.expire(now, 50).map(drop),
            5 => p.sweep(&mut 0, now, 50).map(drop),
            6 => p.clear(DATABASE).map(drop),
            7 => p
                .raise(barrier)
                .and_then(|epoch| p.lower(barrier, epoch, Some(LogicalTime { time: now, ended: 1 })))
                .map(drop),
            10 => p.raise(barrier).and_then(|epoch| p.keep_raised(transaction, barrier, epoch)).map(drop),
            11 => p
                .removal_decided(transaction, Some(LogicalTime { time: now, ended: 1 }))
                .and_then(|()| p.undecided(drop))
                .and_then(|()| p.forget_undecided(transaction + 1)),
            12 => p
                .distrust()
                .and_then(|()| p.trust_on_standby())
                .and_then(|()| p.raise_for_unknown(transaction, DATABASE))
                .and_then(|_| p.restore_trust(LogicalTime { time: now, ended: 1 })),
            8 => p.refuses(key(number), DATABASE, &Tags::default(), LogicalTime::default(), |_| false).map(drop),
            _ => {
                if let Some(seen) = p.read_optimistic(key(number), || now) {
                    seen.copy(&mut vec![0; seen.len.min(1 << 20)]);
                }
                p.check().map(drop)
            }
        };
    }
}

/// With room for all keys, a partition is a map.
fn history(input: &mut Input<'_>) -> Option<()> {
    let words = allocate(1 << 14);
    let p = Partition::format(&words, LogicalTime::default()).expect("large enough");
    let mut model: HashMap<usize, (Vec<u8>, u64)> = HashMap::new();
    let (mut now, mut version) = (1, 0);
    loop {
        let (call, number) = (input.byte()?, input.below(16)?);
        let there = model.get(&number).filter(|(_, expiry)| *expiry > now).map(|(value, _)| value.clone());
        match call % 8 {
            0 | 1 => {
                version += 1;
                let value = bytes(number, version, input.below(600)?);
                let expiry = if call & 64 == 0 { NEVER } else { now + input.below(60_000)? as u64 };
                assert_eq!(set(&p, number, &value, expiry, now), Ok(true));
                model.insert(number, (value, expiry));
            }
            2 | 3 => assert_eq!(get(&p, number, now), Ok(there)),
            4 => {
                assert_eq!(p.remove(key(number), now), Ok(there.is_some()));
                model.remove(&number);
            }
            5 => {
                let expiry = now + input.below(60_000)? as u64;
                assert_eq!(p.touch(key(number), now, expiry), Ok(there.is_some()));
                if let (Some(_), Some(entry)) = (there, model.get_mut(&number)) {
                    entry.1 = expiry;
                }
            }
            6 => now += input.below(60_000)? as u64 * u64::from(call),
            _ => match call / 8 % 3 {
                0 => drop(p.expire(now, 20).expect("sound")),
                1 => drop(p.sweep(&mut 0, now, 20).expect("sound")),
                _ => {
                    p.clear(DATABASE).expect("sound");
                    model.clear();
                }
            },
        }
        p.check().expect("sound after every call");
    }
}

/// One run.
pub fn run(data: &[u8]) {
    let (is_damaged, mut input) = start(data);
    let _ = if is_damaged { damaged(&mut input) } else { history(&mut input) };
}

//! Runs one of the engine's hot paths many times, to have its instructions counted: `cargo xtask test --only
//! instructions` does so under valgrind's callgrind, which counts while [`counted`] is on the stack.
//!
//! `hot_paths` lists the paths, `hot_paths PATH CALLS` runs one. Keys, values and order are the same on every run, and
//! nothing depends on the processor, so that the count doesn't either.

use enough_engine::cache::{self, Item, Kind, LogicalTime, NEVER, Progress, Reservation, Tags};
use enough_engine::hash::{KeyHash, key_hash};
use enough_engine::limiter::table::Table;
use enough_engine::limiter::{Algorithm, Limit, Request};
use enough_engine::queue::{self, Entry, Options, QueueKey, Tag, Tid, Wake};
use enough_engine::words::{Corrupt, allocate};
use std::hint::black_box;
use std::process::ExitCode;

/// Keys in use.
const KEYS: u64 = 2_000;
/// Bytes of a cached value: a common size, and no multiple of a word's.
const VALUE: usize = 117;
/// Microseconds.
const NOW: i64 = 800_000_000_000_000;
const SECOND: i64 = 1_000_000;

type Path = fn(u64) -> Result<(), Corrupt>;

const PATHS: [(&str, Path); 11] = [
    ("hash of a key", hash),
    ("cache get", cache_get),
    ("cache set, over an entry of its size", |calls| cache_overwrite(calls, |_| NEVER)),
    ("cache set, over an entry of its size, with a later expiry", |calls| cache_overwrite(calls, in_an_hour)),
    ("cache set, of a new key where another is evicted", cache_insert),
    ("limiter check, fixed window", |calls| limiter_check(calls, Algorithm::FixedWindow)),
    ("limiter check, sliding window", |calls| limiter_check(calls, Algorithm::SlidingWindow)),
    ("limiter check, token bucket", |calls| limiter_check(calls, Algorithm::TokenBucket)),
    ("limiter check, sliding window, denied", limiter_denied),
    ("queue push", queue_push),
    ("queue pop", queue_pop),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(name) = arguments.next() else {
        for (name, _) in PATHS {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    };
    let path = PATHS.iter().find(|(known, _)| *known == name);
    let calls = arguments.next().and_then(|calls| calls.parse().ok());
    match path.zip(calls).map(|((_, path), calls)| path(calls)) {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(Corrupt)) => {
            eprintln!("{name}: the structure was found damaged");
            ExitCode::FAILURE
        }
        None => {
            eprintln!("usage: hot_paths [PATH CALLS]");
            ExitCode::FAILURE
        }
    }
}

/// Calls `work` with the numbers below `calls`. What runs in here is counted, and nothing else.
#[inline(never)]
fn counted(calls: u64, work: &mut dyn FnMut(u64) -> Result<(), Corrupt>) -> Result<(), Corrupt> {
    (0..calls).try_for_each(work)
}

/// The hash of the `number`-th key.
fn key(number: u64) -> KeyHash {
    key_hash([1, 2], 16_384, 1, format!("key:{number:012}").as_bytes())
}

/// Which key the `call`-th call is for: all of them in turn, in no order that the structures know.
fn turn(call: u64) -> usize {
    usize::try_from(call.wrapping_mul(1_009) % KEYS).unwrap_or(0)
}

fn keys() -> Vec<KeyHash> {
    (0..KEYS).map(key).collect()
}

fn hash(calls: u64) -> Result<(), Corrupt> {
    let text = *b"key:000000004711";
    counted(calls, &mut |_| {
        black_box(key_hash(black_box([1, 2]), 16_384, 1, black_box(&text)));
        Ok(())
    })
}

fn item(key: KeyHash, expiry: u64) -> Item {
    Item { key, database: 16_384, expiry, kind: Kind::Json }
}

/// An hour after the `call`-th call, of which there are a hundred a second.
fn in_an_hour(call: u64) -> u64 {
    (NOW + 3_600 * SECOND).cast_unsigned() + call * 10_000
}

/// What a set of a value without tags does under the lock.
fn set(cache: &cache::Partition<'_>, item: &Item, value: &[u8], now: u64) -> Result<(), Corrupt> {
    let key = item.key;
    let since = LogicalTime { time: now, ended: 1 };
    if cache.refuses(key, 0, &Tags::default(), since, |_| false)?.is_some() {
        return Err(Corrupt);
    }
    if cache.overwrite(item, None, value)? {
        return Ok(());
    }
    let mut request = Reservation::new(value.len());
    while cache.reserve(&mut request, now)? == Progress::More {}
    cache.fill(&request, value)?;
    cache.publish(&mut request, item).map(drop)
}

/// A partition of the cache with `entries` entries in it that are over at `expiry`, given to `work`.
fn with_cache(
    entries: u64,
    expiry: u64,
    blocks: usize,
    work: impl FnOnce(&cache::Partition<'_>, u64) -> Result<(), Corrupt>,
) -> Result<(), Corrupt> {
    let words = allocate(blocks * 8);
    cache::format(&words, LogicalTime::default(), false);
    let cache = cache::Partition::open(&words)?;
    let now = NOW.cast_unsigned();
    (0..entries).try_for_each(|number| set(&cache, &item(key(number), expiry), &[7; VALUE], now))?;
    work(&cache, now)
}

fn cache_get(calls: u64) -> Result<(), Corrupt> {
    let keys = keys();
    with_cache(KEYS, NEVER, 16_384, |cache, now| {
        let mut out = [0; VALUE];
        counted(calls, &mut |call| {
            let found = cache.find(keys[turn(call)], now)?.ok_or(Corrupt)?;
            cache.copy(found, out.get_mut(..found.len).ok_or(Corrupt)?)?;
            cache.count_hit(1);
            black_box(&out);
            Ok(())
        })
    })
}

fn cache_overwrite(calls: u64, expiry: fn(u64) -> u64) -> Result<(), Corrupt> {
    let keys = keys();
    with_cache(KEYS, expiry(0), 16_384, |cache, now| {
        counted(calls, &mut |call| set(cache, &item(keys[turn(call)], expiry(call)), &[8; VALUE], now))
    })
}

fn cache_insert(calls: u64) -> Result<(), Corrupt> {
    let new: Vec<KeyHash> = (0..calls).map(|call| key(1_000_000 + call)).collect();
    with_cache(KEYS, NEVER, 2_048, |cache, now| {
        if cache.stats()?.evictions == 0 {
            return Err(Corrupt);
        }
        counted(calls, &mut |call| set(cache, &item(new[call as usize], NEVER), &[8; VALUE], now))
    })
}

fn limiter_check(calls: u64, algorithm: Algorithm) -> Result<(), Corrupt> {
    let keys = keys();
    let words = allocate(8 + 8 * 4_096);
    Table::format(&words)?;
    let limit = Limit::new(algorithm, 1_000, 60 * SECOND.cast_unsigned(), None).map_err(|_| Corrupt)?;
    for &key in &keys {
        Table::open(&words)?.request(key, &limit, NOW, Request::All(1))?;
    }
    counted(calls, &mut |call| {
        // A second later for each round of the keys, so that windows go by.
        let now = NOW + SECOND * (call / KEYS).cast_signed();
        Table::open(&words)?.request(keys[turn(call)], black_box(&limit), now, Request::All(1)).map(|answer| {
            black_box(answer);
        })
    })
}

/// Of keys that are used up.
fn limiter_denied(calls: u64) -> Result<(), Corrupt> {
    let keys = keys();
    let words = allocate(8 + 8 * 4_096);
    Table::format(&words)?;
    let limit = Limit::new(Algorithm::SlidingWindow, 100, 3_600 * SECOND.cast_unsigned(), None).map_err(|_| Corrupt)?;
    for minute in 0..10 {
        for &key in &keys {
            Table::open(&words)?.request(key, &limit, NOW + 240 * SECOND * minute, Request::All(10))?;
        }
    }
    counted(calls, &mut |call| {
        let now = NOW + 2_400 * SECOND;
        let answer = Table::open(&words)?.request(keys[turn(call)], black_box(&limit), now, Request::All(1))?;
        if black_box(answer).allowed { Err(Corrupt) } else { Ok(()) }
    })
}

/// A partition of the queues with one that has been read to its end, given to `work`.
fn with_queue(work: impl FnOnce(&queue::Partition<'_>, u32) -> Result<(), Corrupt>) -> Result<(), Corrupt> {
    const OPTIONS: Options = Options {
        visibility_timeout: 30 * SECOND,
        max_attempts: 10,
        retry_backoff: SECOND,
        retry_backoff_max: 3_600 * SECOND,
        max_in_flight: 0,
        max_rate: 0,
        rate_period: SECOND,
        durable_attempts: false,
        ack_async: false,
        group_limit: 1,
        group_rate: 0,
        group_rate_period: SECOND,
        archive_for: i64::MAX,
        paused: false,
    };
    let words = allocate(1 << 20);
    queue::format(&words, 7 << 40);
    let queue = queue::Partition::new(&words);
    let slot = queue.attach(QueueKey { database: 16_384, relation: 1 }, OPTIONS)?.ok_or(Corrupt)?;
    queue.start_refill(slot, 1, NOW, None)?.ok_or(Corrupt)?;
    queue.end_refill(slot, 1, Some(i64::MAX), Some(i64::MAX), &mut Wake::default())?;
    work(&queue, slot)
}

fn send(queue: &queue::Partition<'_>, slot: u32, number: u64, wake: &mut Wake) -> Result<(), Corrupt> {
    let tid = Tid { block: (number / 60) as u32, offset: (number % 60) as u16 + 1 };
    let (msg_id, tag) = (number.cast_signed() + 1, Tag::new(NOW, Some(7)));
    let entry = Entry { msg_id, tid, priority: 0, attempts: 0, deliver_at: None, group: 0, tag };
    queue.sent(slot, &entry, NOW, wake)
}

fn queue_push(calls: u64) -> Result<(), Corrupt> {
    with_queue(|queue, slot| {
        let mut wake = Wake::default();
        counted(calls, &mut |call| send(queue, slot, call, &mut wake))
    })
}

/// What a pop does: the message is leased, its delivery counted, set aside while its row is deleted, and gone with the
/// commit.
fn queue_pop(calls: u64) -> Result<(), Corrupt> {
    with_queue(|queue, slot| {
        let mut wake = Wake::default();
        (0..calls).try_for_each(|number| send(queue, slot, number, &mut wake))?;
        let mut taken = Vec::with_capacity(1);
        counted(calls, &mut |_| {
            taken.clear();
            queue.take(slot, 1, NOW, 1, 30 * SECOND, &mut taken, &mut wake)?;
            let message = taken.first().ok_or(Corrupt)?;
            queue.delivered(slot, 1)?;
            black_box(queue.start_busy(slot, message.msg_id, Some(message.lease), NOW)?);
            queue.end_busy(slot, message.msg_id, message.tag, true, NOW, &mut wake)?;
            queue.finished(slot, 1)
        })
    })
}

//! A table of limiter states.

use crate::{Input, start};
use enough_engine::hash::{KeyHash, key_hash};
use enough_engine::limiter::table::Table;
use enough_engine::limiter::{Algorithm, Limit, Request};
use enough_engine::words::{Corrupt, allocate};
use std::collections::HashMap;

fn key(number: usize) -> KeyHash {
    key_hash([1, 2], 5, 2, &number.to_le_bytes())
}

fn limit(input: &mut Input<'_>) -> Option<Limit> {
    let algorithm = [Algorithm::FixedWindow, Algorithm::SlidingWindow, Algorithm::TokenBucket][input.below(3)?];
    let period = [1_000, 5_000, 60_000_000][input.below(3)?];
    Some(Limit::new(algorithm, input.below(6)? as u32, period, None).expect("in range"))
}

fn request(input: &mut Input<'_>) -> Option<Request> {
    let cost = 1 + input.below(4)? as u32;
    Some(match input.byte()? % 4 {
        0 | 1 => Request::All(cost),
        2 => Request::UpTo(cost),
        _ => Request::Peek(cost),
    })
}

/// Words of anything: every call returns.
fn damaged(input: &mut Input<'_>) -> Option<()> {
    let words = allocate(600);
    Table::format(&words).ok()?;
    let table = Table::open(&words).ok()?;
    for number in 0..20 {
        let limit = Limit::new(Algorithm::SlidingWindow, 5, 60_000_000, None).ok()?;
        table.request(key(number), &limit, 1_000_000, Request::All(1)).ok()?;
    }
    input.damage(&words)?;
    loop {
        let Ok(table) = Table::open(&words) else { return None };
        let (call, number, now) = (input.byte()?, input.below(24)?, (input.word()? >> 8).cast_signed());
        let limit = limit(input)?;
        let ended: Result<(), Corrupt> = match call % 8 {
            0..=2 => table.request(key(number), &limit, now, request(input)?).map(drop),
            3 => table.refund(key(number), &limit, now, 2).map(drop),
            4 => table.reset(key(number), now).map(drop),
            5 => table.block(key(number), now, 5_000),
            6 => table.sweep(now, number as u32, 20).map(drop),
            _ => table.stats().map(drop),
        };
        if ended.is_err() {
            Table::format(&words).expect("large enough");
        }
    }
}

/// With room for all keys, what is granted is never more than the definition of the algorithm allows: counted over a log
/// of all grants, without a state.
fn history(input: &mut Input<'_>) -> Option<()> {
    let words = allocate(4096);
    Table::format(&words).expect("large enough");
    let table = Table::open(&words).expect("just formatted");
    let limits = [limit(input)?, limit(input)?];
    let mut logs: HashMap<(usize, usize), Vec<(i64, u64)>> = HashMap::new();
    let mut now: i64 = 1_000_000;
    if limits[0].algorithm() == limits[1].algorithm() && limits[0].period() == limits[1].period() {
        // They would share their states.
        return None;
    }
    loop {
        now += input.below(2_000)? as i64;
        let (number, which, request) = (input.below(6)?, input.below(2)?, request(input)?);
        let limit = &limits[which];
        let log = logs.entry((number, which)).or_default();
        let answer = table.request(key(number), limit, now, request).expect("sound");
        let granted = u64::from(match request {
            Request::All(cost) => {
                if answer.allowed {
                    cost
                } else {
                    0
                }
            }
            Request::UpTo(_) => answer.granted,
            Request::Peek(_) => 0,
        });
        if granted > 0 {
            log.push((now, granted));
        }
        let period = limit.period().cast_signed();
        match limit.algorithm() {
            Algorithm::SlidingWindow => {
                let trailing: u64 = log.iter().filter(|(time, _)| now - time < period).map(|(_, cost)| cost).sum();
                assert!(trailing <= u64::from(limit.max_requests()), "{trailing} in a period at {now}");
            }
            Algorithm::FixedWindow => {
                let mut rest = &log[..];
                while let Some((opened, _)) = rest.first() {
                    let inside = rest.iter().take_while(|(time, _)| time - opened < period).count();
                    let sum: u64 = rest[..inside].iter().map(|(_, cost)| cost).sum();
                    assert!(sum <= u64::from(limit.max_requests()), "{sum} in a window");
                    rest = &rest[inside..];
                }
            }
            Algorithm::TokenBucket => {
                let mut sum = 0;
                for (time, cost) in log.iter().rev() {
                    sum += cost;
                    let refilled = u128::from((now - time).unsigned_abs()) * u128::from(limit.max_requests());
                    let most = u128::from(limit.capacity()) * u128::from(limit.period()) + refilled;
                    assert!(u128::from(sum) * u128::from(limit.period()) <= most, "{sum} since {time}");
                }
            }
            _ => {}
        }
        table.stats().expect("sound");
    }
}

/// One run.
pub fn run(data: &[u8]) {
    let (is_damaged, mut input) = start(data);
    let _ = if is_damaged { damaged(&mut input) } else { history(&mut input) };
}

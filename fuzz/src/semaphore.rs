//! A partition of semaphores.

use crate::{Input, start};
use enough_engine::hash::key_hash;
use enough_engine::semaphore::{Answer, Ask, Key, MAX_NAME, Table, Wait, format, stats};
use enough_engine::words::{Corrupt, allocate};
use std::collections::HashMap;

/// Sessions.
const SESSIONS: usize = 6;
/// Names.
const NAMES: usize = 3;

fn key(name: &[u8]) -> Key<'_> {
    Key { hash: key_hash([1, 2], 1, 3, name), database: 1, name }
}

/// No session is ever gone.
fn alive(_process: u32, _pid: u32) -> bool {
    true
}

fn ask(session: usize, max: usize, ttl: usize) -> Ask {
    let session = session as u32;
    Ask { max: max as u32, ttl: ttl as i64, process: session, pid: session + 1000, role: session % 2 }
}

/// Words of anything: every call returns.
fn damaged(input: &mut Input<'_>) -> Option<()> {
    let words = allocate(300);
    format(&words);
    for number in 0..6 {
        let name = [b'a'; 40];
        let table = Table::open(&words, 1_000, alive).ok()?;
        table.acquire(&key(&name[..number]), &ask(number, 2, 1_000_000), Wait::Until(2_000_000)).ok()?;
    }
    input.damage(&words)?;
    loop {
        let (call, session, now) = (input.byte()?, input.below(SESSIONS)?, (input.word()? >> 8).cast_signed());
        let name = [b'a'; 40];
        let (name, number) = (key(&name[..input.below(NAMES)?]), input.word()?);
        let ended: Result<(), Corrupt> = Table::open(&words, now, alive).and_then(|table| match call % 8 {
            0 => table.acquire(&name, &ask(session, 2, 50), Wait::No).map(drop),
            1 => table.acquire(&name, &ask(session, 2, 50), Wait::Until(now.saturating_add(9))).map(drop),
            2 => table.acquire(&name, &ask(session, 2, 50), Wait::Again(number, now)).map(drop),
            3 => table.extend(name.hash, number.cast_signed(), 60, None).map(drop),
            4 => table.release(name.hash, number.cast_signed(), Some(1)).map(drop),
            5 => table.leave(name.hash, number).map(drop),
            6 => table.sweep().map(drop),
            _ => table.holder_from(1, None, number as u32, 20, &mut [0; MAX_NAME]).map(drop),
        });
        if ended.and_then(|()| stats(&words).map(drop)).is_err() {
            format(&words);
        }
    }
}

/// What the model knows of a token.
struct Held {
    name: usize,
    until: i64,
}

/// Never more holders than a taker allows, tokens grow, who stands in line has come before those that take after it, and what is
/// held is what the calls have answered.
fn history(input: &mut Input<'_>) -> Option<()> {
    let words = allocate(1200);
    format(&words);
    let mut now = 1_000_000;
    let mut held: HashMap<i64, Held> = HashMap::new();
    let mut lines: Vec<Vec<(usize, u64, i64)>> = vec![Vec::new(); NAMES];
    let (mut last, mut all) = (0, Vec::new());
    loop {
        now += input.below(30)? as i64;
        held.retain(|_, held| held.until > now);
        let (call, session, name) = (input.byte()?, input.below(SESSIONS)?, input.below(NAMES)?);
        let bytes = [b'n'; 30];
        let key = key(&bytes[..10 * name]);
        let table = Table::open(&words, now, alive).expect("sound");
        let holders = |held: &HashMap<i64, Held>| held.values().filter(|held| held.name == name).count();
        let token = |input: &mut Input<'_>| Some(if all.is_empty() { 0 } else { all[input.below(all.len())?] });
        match call % 8 {
            0..=3 => {
                let (max, ttl) = (1 + input.below(3)?, 1 + input.below(60)?);
                let line = &mut lines[name];
                let place = line.iter().position(|one| one.0 == session);
                let until = now + input.below(80)? as i64;
                let wait = match place.map(|place| line[place]) {
                    Some((_, ticket, until)) => Wait::Again(ticket, until),
                    None if call.is_multiple_of(8) => Wait::No,
                    None => Wait::Until(until),
                };
                let before = holders(&held);
                let answer = table.acquire(&key, &ask(session, max, ttl), wait).expect("sound").answer;
                if let Answer::Taken(token) = answer {
                    assert!(before < max, "{before} hold it, and at most {max} may");
                    assert!(token > last, "{token} after {last}");
                    assert!(
                        place.is_none_or(|place| place == 0) && (place.is_some() || line.is_empty()),
                        "passed others"
                    );
                    last = token;
                    all.push(token);
                    held.insert(token, Held { name, until: now + ttl as i64 });
                }
                match (answer, place) {
                    (Answer::Waits { ticket, .. }, Some(place)) => assert_eq!(ticket, line[place].1, "the same place"),
                    (Answer::Waits { ticket, .. }, None) => line.push((session, ticket, until)),
                    (_, Some(place)) => drop(line.remove(place)),
                    (_, None) => {}
                }
            }
            4 | 5 => {
                let token = token(input)?;
                let answer = table.release(key.hash, token, None).expect("sound").answer;
                let was = held.get(&token).is_some_and(|held| held.name == name);
                assert_eq!(answer, was, "releasing {token}");
                if was {
                    held.remove(&token);
                }
            }
            6 => {
                let (token, ttl) = (token(input)?, 1 + input.below(60)? as i64);
                let answer = table.extend(key.hash, token, ttl, None).expect("sound").answer;
                let known = held.get_mut(&token).filter(|held| held.name == name);
                assert_eq!(answer, known.is_some(), "extending {token}");
                if let Some(held) = known {
                    held.until = now + ttl;
                }
            }
            _ => {
                if let Some(place) = lines[name].iter().position(|one| one.0 == session) {
                    let (_, ticket, _) = lines[name].remove(place);
                    table.leave(key.hash, ticket).expect("sound");
                }
                table.sweep().expect("sound");
                assert_eq!(
                    stats(&words).expect("sound").holders,
                    held.len() as u64,
                    "holders once what has expired is gone"
                );
            }
        }
    }
}

/// One run.
pub fn run(data: &[u8]) {
    let (is_damaged, mut input) = start(data);
    let _ = if is_damaged { damaged(&mut input) } else { history(&mut input) };
}

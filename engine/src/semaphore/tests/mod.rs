//! A partition against a model with lists, in random histories; and cases that a history seldom reaches.

mod history;

use super::{Answer, Ask, Holder, Key, MAX_NAME, Stats, Table, Wait, format, stats};
use crate::hash::{KeyHash, key_hash};
use crate::words::{Words, allocate, store};
use std::cell::RefCell;
use std::collections::HashSet;

thread_local! {
    /// Sessions that are gone.
    static GONE: RefCell<HashSet<u32>> = RefCell::default();
}

fn alive(process: u32, pid: u32) -> bool {
    assert_eq!(pid, process + 1000, "a process number with another's process ID");
    GONE.with_borrow(|gone| !gone.contains(&process))
}

fn ask(session: u32, max: u32, ttl: i64) -> Ask {
    Ask { max, ttl, process: session, pid: session + 1000, role: session % 3 }
}

fn key(database: u32, name: &[u8]) -> Key<'_> {
    Key { hash: key_hash([1, 2], database, 3, name), database, name }
}

fn table(words: Words<'_>, now: i64) -> Table<'_> {
    Table::open(words, now, alive).unwrap()
}

fn taken(answer: Answer) -> i64 {
    if let Answer::Taken(token) = answer { token } else { panic!("{answer:?}") }
}

/// The first holder from a record on, and where to go on, by looks at three records each.
fn first_holder(
    words: Words<'_>,
    database: u32,
    only: Option<KeyHash>,
    start: u32,
    text: &mut [u8; MAX_NAME],
) -> Option<(Holder, u32)> {
    let mut next = start;
    loop {
        let seen = table(words, 1).holder_from(database, only, next, 3, text).unwrap();
        match (seen.holder, seen.next) {
            (Some(holder), go_on) => return Some((holder, go_on.unwrap_or(u32::MAX))),
            (None, go_on) => next = go_on?,
        }
    }
}

#[test]
fn what_is_there_and_what_has_been_is_counted() {
    let words = allocate(1024);
    format(&words);
    let (one, other) = (key(1, b"one"), key(2, b"other"));
    let whole = stats(&words).unwrap();
    assert_eq!(whole, Stats { bytes_max: whole.bytes_max, ..Stats::default() });
    let token = taken(table(&words, 0).acquire(&one, &ask(1, 1, 100), Wait::No).unwrap().answer);
    assert_eq!(table(&words, 1).acquire(&one, &ask(2, 1, 100), Wait::No).unwrap().answer, Answer::Denied);
    table(&words, 1).acquire(&one, &ask(2, 1, 100), Wait::Until(50)).unwrap();
    taken(table(&words, 2).acquire(&other, &ask(3, 1, 10), Wait::No).unwrap().answer);
    let found = stats(&words).unwrap();
    // Two names with a part of text each, two holders, and a session that waits.
    assert_eq!((found.names, found.holders, found.waiters, found.bytes_used), (2, 2, 1, 7 * 64));
    assert_eq!((found.taken, found.denied, found.expired), (2, 1, 0));
    assert_eq!(table(&words, 3).role_of(one.hash, token), Ok(Some(1)));
    assert_eq!(table(&words, 3).role_of(one.hash, token + 1), Ok(None));
    assert_eq!(table(&words, 12).sweep(), Ok(1));
    assert!(table(&words, 13).release(one.hash, token, None).unwrap().answer);
    let left = stats(&words).unwrap();
    assert_eq!((left.names, left.holders, left.waiters, left.bytes_used), (1, 0, 1, 3 * 64));
    assert_eq!((left.taken, left.denied, left.expired), (2, 1, 1));
}

#[test]
fn tokens_grow_when_the_memory_is_made_anew_and_when_a_name_was_forgotten() {
    let words = allocate(1024);
    format(&words);
    let key = key(1, b"name");
    let mut last = 0;
    // The clock stands still, as far as microseconds go, and steps back.
    for now in [1_000_000, 1_000_000, 1_000_000, 5] {
        let token = taken(table(&words, now).acquire(&key, &ask(1, 1, 10), Wait::No).unwrap().answer);
        assert!(token > last);
        last = token;
        assert!(table(&words, now).release(key.hash, token, None).unwrap().answer);
    }
    format(&words);
    let token = taken(table(&words, 2_000_000).acquire(&key, &ask(1, 1, 10), Wait::No).unwrap().answer);
    assert!(token > last);
}

#[test]
fn what_has_expired_gives_way_and_the_rest_does_not() {
    let words = allocate(1024);
    format(&words);
    let name = |number: u32| number.to_le_bytes();
    let mut held = 0;
    loop {
        let changed = table(&words, 0).acquire(&key(1, &name(held)), &ask(1, 1, 100), Wait::No).unwrap();
        if changed.answer == Answer::Full {
            break;
        }
        taken(changed.answer);
        held += 1;
    }
    assert!(held > 30, "{held}");
    let full = table(&words, 99).acquire(&key(1, &name(held)), &ask(1, 1, 100), Wait::No).unwrap();
    assert_eq!(full.answer, Answer::Full);
    taken(table(&words, 100).acquire(&key(1, &name(held)), &ask(1, 1, 100), Wait::No).unwrap().answer);
}

#[test]
fn who_waits_has_the_memory_to_take() {
    let words = allocate(1024);
    format(&words);
    let awaited = key(1, b"awaited");
    let token = taken(table(&words, 0).acquire(&awaited, &ask(1, 1, 1000), Wait::No).unwrap().answer);
    let waits = table(&words, 0).acquire(&awaited, &ask(2, 1, 1000), Wait::Until(500)).unwrap().answer;
    let Answer::Waits { ticket, .. } = waits else { panic!("{waits:?}") };
    let fill = |now| {
        let other = key(1, b"other");
        while table(&words, now).acquire(&other, &ask(3, u32::MAX, 1000), Wait::No).unwrap().answer != Answer::Full {}
    };
    fill(1);
    assert!(table(&words, 2).release(awaited.hash, token, None).unwrap().answer);
    // What was freed is taken by others.
    fill(3);
    taken(table(&words, 4).acquire(&awaited, &ask(2, 1, 1000), Wait::Again(ticket, 500)).unwrap().answer);
}

#[test]
fn a_ttl_lasts_no_longer_when_the_clock_steps_back() {
    let words = allocate(1024);
    format(&words);
    let key = key(1, b"");
    taken(table(&words, 10_000).acquire(&key, &ask(1, 1, 100), Wait::No).unwrap().answer);
    assert_eq!(table(&words, 50).acquire(&key, &ask(2, 1, 100), Wait::No).unwrap().answer, Answer::Denied);
    assert_eq!(table(&words, 149).acquire(&key, &ask(2, 1, 100), Wait::No).unwrap().answer, Answer::Denied);
    taken(table(&words, 150).acquire(&key, &ask(2, 1, 100), Wait::No).unwrap().answer);
}

#[test]
fn who_leaves_the_head_of_the_line_wakes_the_next() {
    let words = allocate(1024);
    format(&words);
    let key = key(1, b"name");
    let token = taken(table(&words, 0).acquire(&key, &ask(1, 1, 1000), Wait::No).unwrap().answer);
    let mut tickets = Vec::new();
    for session in 2..5 {
        let changed = table(&words, 1).acquire(&key, &ask(session, 1, 1000), Wait::Until(500)).unwrap();
        let Answer::Waits { ticket, .. } = changed.answer else { panic!("{changed:?}") };
        tickets.push(ticket);
    }
    // The second in line leaves: nothing changes for the first.
    assert_eq!(table(&words, 2).leave(key.hash, tickets[1]).unwrap(), None);
    // The first is woken, and is cancelled before it looks.
    assert_eq!(table(&words, 3).release(key.hash, token, None).unwrap().wake, Some(2));
    assert_eq!(table(&words, 4).leave(key.hash, tickets[0]).unwrap(), Some(4));
    let next = table(&words, 5).acquire(&key, &ask(4, 1, 1000), Wait::Again(tickets[2], 500)).unwrap();
    let held = taken(next.answer);
    // The token of before ends nothing of what came after it.
    assert!(!table(&words, 6).release(key.hash, token, None).unwrap().answer);
    assert!(!table(&words, 6).extend(key.hash, token, 5, None).unwrap().answer);
    // Another role's token is left alone, where a role is given.
    assert!(!table(&words, 6).release(key.hash, held, Some(2)).unwrap().answer);
    assert!(table(&words, 6).release(key.hash, held, Some(1)).unwrap().answer);
}

#[test]
fn who_is_gone_takes_nothing_and_the_next_is_woken() {
    let words = allocate(1024);
    format(&words);
    let key = key(1, b"name");
    let token = taken(table(&words, 0).acquire(&key, &ask(1, 1, 1000), Wait::No).unwrap().answer);
    for session in 2..4 {
        table(&words, 1).acquire(&key, &ask(session, 1, 1000), Wait::Until(500)).unwrap();
    }
    GONE.with_borrow_mut(|gone| gone.extend([1, 2]));
    assert_eq!(table(&words, 2).acquire(&key, &ask(5, 1, 1000), Wait::No).unwrap().wake, Some(3));
    assert_eq!(table(&words, 3).release(key.hash, token, None).unwrap().wake, Some(3));
    // Nobody in line is passed by a session that isn't.
    assert_eq!(table(&words, 4).acquire(&key, &ask(5, 1, 1000), Wait::No).unwrap().answer, Answer::Denied);
}

#[test]
fn a_place_in_line_that_was_lost_is_one_at_its_end() {
    let words = allocate(1024);
    format(&words);
    let key = key(1, b"name");
    for session in 1..3 {
        table(&words, 1).acquire(&key, &ask(session, 1, 1000), Wait::Until(500)).unwrap();
    }
    format(&words);
    taken(table(&words, 2).acquire(&key, &ask(3, 1, 1000), Wait::No).unwrap().answer);
    let again = table(&words, 3).acquire(&key, &ask(2, 1, 1000), Wait::Again(2, 500)).unwrap().answer;
    assert!(matches!(again, Answer::Waits { alarm: 500, .. }), "{again:?}");
}

#[test]
fn the_longest_name_comes_back_whole() {
    let words = allocate(1024);
    format(&words);
    for len in [0, 1, 7, 8, 55, 56, 57, 511, 512] {
        let name: Vec<u8> = (0..len).map(|at| at as u8).collect();
        let token = taken(table(&words, 0).acquire(&key(7, &name), &ask(1, 1, 100), Wait::No).unwrap().answer);
        let mut text = [0; MAX_NAME];
        let (holder, next) = first_holder(&words, 7, None, 1, &mut text).unwrap();
        assert_eq!((&text[..holder.len], holder.token, holder.pid), (&name[..], token, 1001));
        assert_eq!(first_holder(&words, 7, None, next, &mut text), None);
        assert_eq!(first_holder(&words, 8, None, 1, &mut text), None);
        assert!(first_holder(&words, 7, Some(key(7, &name).hash), 1, &mut text).is_some());
        assert_eq!(first_holder(&words, 7, Some(key(7, b"another").hash), 1, &mut text), None);
        assert!(table(&words, 1).release(key(7, &name).hash, token, None).unwrap().answer);
    }
}

#[test]
fn any_word_that_is_wrong_is_found_or_does_no_harm() {
    for at in 0..256 {
        for value in [0, 1, 77, u64::MAX, 2 << 32 | 1, 3 << 32 | 3, 4 << 32 | 4, 5 << 32] {
            let words = allocate(512);
            format(&words);
            for session in 1..5 {
                let wait = if session == 1 { Wait::No } else { Wait::Until(100) };
                table(&words, 0).acquire(&key(1, b"name"), &ask(session, 1, 50), wait).unwrap();
            }
            store(&words, at, value).unwrap();
            // Whatever it answers, it comes to an end and doesn't panic.
            let alive = |_, _| true;
            let open = |now| Table::open(&words, now, alive);
            let acquire = |now, name, wait| {
                let answer = open(now).and_then(|table| table.acquire(&key(1, name), &ask(9, 1, 50), wait));
                // There is room for many more: a session that is told otherwise would be told so for ever.
                assert_ne!(answer.map(|changed| changed.answer), Ok(Answer::Full), "word {at} is {value}");
            };
            acquire(1, b"name", Wait::Until(99));
            acquire(60, b"other", Wait::No);
            let _ = open(60).and_then(|table| table.sweep());
            let _ = open(60).and_then(|table| table.leave(key(1, b"name").hash, 2));
            let _ = open(60).and_then(|table| table.holder_from(1, None, 1, 99, &mut [0; MAX_NAME]));
            let _ = open(60).and_then(|table| table.role_of(key(1, b"name").hash, 1));
            let _ = stats(&words);
        }
    }
}

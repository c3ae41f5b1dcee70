//! Random histories.

use super::{Answer, GONE, Table, Wait, ask, format, key, stats, table};
use crate::semaphore::Changed;
use crate::words::{Words, allocate};
use proptest::prelude::*;
use std::collections::{HashMap, VecDeque};

/// Sessions at work at the same time, and names.
const SESSIONS: u32 = 8;
const NAMES: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    /// A session that isn't in line asks; one that is looks again.
    Acquire {
        session: u32,
        name: usize,
        max: u32,
        ttl: i64,
        wait: i64,
    },
    Extend {
        token: usize,
        ttl: i64,
        role: Option<u32>,
    },
    Release {
        token: usize,
        role: Option<u32>,
    },
    /// A session's wait is cancelled.
    Leave {
        session: u32,
    },
    /// A session is gone without leaving.
    Die {
        session: u32,
    },
    Sweep,
    Clock {
        by: i64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let role = || prop_oneof![2 => Just(None), 1 => (0..3_u32).prop_map(Some)];
    let step = prop_oneof![
        8 => (0..SESSIONS, 0..NAMES, 1..4_u32, 1..60_i64, 0..80_i64)
            .prop_map(|(session, name, max, ttl, wait)| Step::Acquire { session, name, max, ttl, wait }),
        2 => (any::<usize>(), 0..60_i64, role()).prop_map(|(token, ttl, role)| Step::Extend { token, ttl, role }),
        4 => (any::<usize>(), role()).prop_map(|(token, role)| Step::Release { token, role }),
        1 => (0..SESSIONS).prop_map(|session| Step::Leave { session }),
        1 => (0..SESSIONS).prop_map(|session| Step::Die { session }),
        1 => Just(Step::Sweep),
        4 => prop_oneof![9 => 0..20_i64, 1 => -30..0_i64].prop_map(|by| Step::Clock { by }),
    ];
    prop::collection::vec(step, 1..200)
}

#[derive(Debug)]
struct Held {
    token: i64,
    role: u32,
    until: i64,
}

/// In line.
#[derive(Debug)]
struct Waiter {
    process: u32,
    ticket: u64,
    max: u32,
    ttl: i64,
    until: i64,
}

#[derive(Default)]
struct Name {
    held: Vec<Held>,
    line: VecDeque<Waiter>,
}

struct Model<'w> {
    words: Words<'w>,
    now: i64,
    names: [Name; NAMES],
    /// Each session's process number.
    processes: [u32; SESSIONS as usize],
    /// When sessions in line look without being woken; 0 for one that was.
    alarms: HashMap<u32, i64>,
    tokens: Vec<(usize, i64)>,
    last: i64,
    denied: u64,
}

fn gone(process: u32) -> bool {
    GONE.with_borrow(|gone| gone.contains(&process))
}

fn text(name: usize) -> &'static [u8] {
    [&b"a"[..], &[b'x'; 512], b""][name]
}

impl Model<'_> {
    fn table(&self) -> Table<'_> {
        table(self.words, self.now)
    }

    fn woken(&mut self, wake: Option<u32>) {
        if let Some(process) = wake {
            self.alarms.insert(process, 0);
        }
    }

    fn place(&self, process: u32) -> Option<(usize, usize)> {
        self.names.iter().enumerate().find_map(|(at, name)| {
            name.line.iter().position(|waiter| waiter.process == process).map(|place| (at, place))
        })
    }

    /// What has expired goes, and sessions that are gone leave the head of the line.
    fn settle(&mut self, name: usize) {
        let now = self.now;
        let name = &mut self.names[name];
        name.held.retain(|held| held.until > now);
        while name.line.front().is_some_and(|first| gone(first.process)) {
            name.line.pop_front();
        }
    }

    fn acquire(&mut self, process: u32, at: usize, max: u32, ttl: i64, wait: i64) {
        let place = self.place(process);
        let (at, max, ttl, how, until) = match place {
            Some((at, place)) => {
                let waiter = &self.names[at].line[place];
                (at, waiter.max, waiter.ttl, Wait::Again(waiter.ticket, i64::MAX), waiter.until)
            }
            None if wait == 0 => (at, max, ttl, Wait::No, self.now),
            None => (at, max, ttl, Wait::Until(self.now + wait), self.now + wait),
        };
        self.settle(at);
        let asked = ask(process, max, ttl);
        let Changed { answer, wake } = self.table().acquire(&key(1, text(at)), &asked, how).unwrap();
        assert_ne!(wake, Some(process), "a session that looks has nobody to wake it");
        let place = self.names[at].line.iter().position(|waiter| waiter.process == process);
        let first = place.map_or(self.names[at].line.is_empty(), |place| place == 0);
        let name = &mut self.names[at];
        if first && name.held.len() < max as usize {
            let Answer::Taken(token) = answer else { panic!("{answer:?} where there is room") };
            assert!(token > self.last, "tokens grow");
            self.last = token;
            name.line.retain(|waiter| waiter.process != process);
            name.held.push(Held { token, role: asked.role, until: self.now + ttl });
            self.tokens.push((at, token));
        } else if until > self.now {
            let Answer::Waits { ticket, alarm } = answer else { panic!("{answer:?} where the session waits") };
            match place {
                Some(place) => assert_eq!(ticket, name.line[place].ticket, "a session keeps its place"),
                None => name.line.push_back(Waiter { process, ticket, max, ttl, until }),
            }
            self.alarms.insert(process, alarm);
        } else {
            assert_eq!(answer, Answer::Denied);
            self.denied += 1;
            name.line.retain(|waiter| waiter.process != process);
        }
        self.woken(wake);
        self.settle(at);
    }

    fn holds(&mut self, token: usize, role: Option<u32>) -> Option<(usize, i64, bool)> {
        let &(at, token) = self.tokens.get(token % self.tokens.len().max(1))?;
        let now = self.now;
        let held = self.names[at].held.iter().find(|held| held.token == token && held.until > now);
        Some((at, token, held.is_some_and(|held| role.is_none_or(|role| role == held.role))))
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Acquire { session, name, max, ttl, wait } => {
                self.acquire(self.processes[session as usize], name, max, ttl, wait);
            }
            Step::Extend { token, ttl, role } => {
                let Some((at, token, expected)) = self.holds(token, role) else { return };
                let changed = self.table().extend(key(1, text(at)).hash, token, ttl, role).unwrap();
                assert_eq!(changed.answer, expected);
                if expected {
                    let until = self.now + ttl;
                    self.names[at]
                        .held
                        .iter_mut()
                        .filter(|held| held.token == token)
                        .for_each(|held| held.until = until);
                }
                self.woken(changed.wake);
            }
            Step::Release { token, role } => {
                let Some((at, token, expected)) = self.holds(token, role) else { return };
                let changed = self.table().release(key(1, text(at)).hash, token, role).unwrap();
                assert_eq!(changed.answer, expected);
                if expected {
                    self.names[at].held.retain(|held| held.token != token);
                }
                self.woken(changed.wake);
            }
            Step::Leave { session } => {
                let process = self.processes[session as usize];
                let Some((at, place)) = self.place(process) else { return };
                let ticket = self.names[at].line[place].ticket;
                let wake = self.table().leave(key(1, text(at)).hash, ticket).unwrap();
                self.names[at].line.remove(place);
                self.woken(wake);
            }
            Step::Die { session } => {
                let process = &mut self.processes[session as usize];
                GONE.with_borrow_mut(|gone| gone.insert(*process));
                *process += SESSIONS;
            }
            Step::Sweep => {
                self.table().sweep().unwrap();
            }
            Step::Clock { by } => {
                self.now += by;
                if by < 0 {
                    let everybody = self.names.iter_mut();
                    for name in everybody {
                        name.held.iter_mut().for_each(|held| held.until += by);
                        name.line.iter_mut().for_each(|waiter| waiter.until += by);
                    }
                    // They sleep for a time, not until one.
                    self.alarms.values_mut().for_each(|alarm| *alarm += by);
                    // The table sees the step when it is opened.
                    self.table();
                }
                self.table();
            }
        }
    }

    /// What is counted of holders and waiters is what there is; of those that have expired or are gone, at most as many more as
    /// nobody has looked at since.
    fn counts_are_right(&self) {
        let found = stats(self.words).unwrap();
        let holders = self.names.iter().flat_map(|name| &name.held).filter(|held| held.until > self.now).count();
        let waiters = self.names.iter().flat_map(|name| &name.line).filter(|waiter| !gone(waiter.process)).count();
        assert!(found.holders >= holders as u64 && found.waiters >= waiters as u64, "{found:?}");
        assert_eq!(found.taken, self.tokens.len() as u64);
        assert_eq!(found.denied, self.denied);
        assert!(found.expired <= found.taken && found.names <= NAMES as u64);
    }

    /// The first in line, where it could take, is awake, or looks as soon as it can.
    fn nobody_sleeps_for_ever(&self) {
        for name in &self.names {
            let Some(first) = name.line.front().filter(|first| !gone(first.process)) else { continue };
            let alarm = self.alarms[&first.process];
            if alarm <= self.now {
                continue;
            }
            let running = name.held.iter().filter(|held| held.until > self.now).count();
            assert!(running >= first.max as usize, "{first:?} could take, and sleeps until {alarm}");
            let earliest = name.held.iter().map(|held| held.until).min().unwrap_or(i64::MAX);
            assert!(alarm <= earliest.min(first.until), "{first:?} sleeps until {alarm}, and could look at {earliest}");
        }
    }
}

proptest! {
    #[test]
    fn it_does_as_the_model(steps in steps()) {
        GONE.with_borrow_mut(|gone| gone.clear());
        let words = allocate(4096);
        format(&words);
        let left = super::super::records::Records::open(&words).unwrap().left();
        let mut model = Model {
            words: &words,
            now: 1000,
            names: Default::default(),
            processes: std::array::from_fn(|session| session as u32),
            alarms: HashMap::new(),
            tokens: Vec::new(),
            last: 0,
            denied: 0,
        };
        for step in &steps {
            model.step(step);
            model.nobody_sleeps_for_ever();
            model.counts_are_right();
            assert_eq!(model.table().check(), Ok(()));
        }
        // In the end all memory is free again.
        model.now += 1000;
        for name in 0..NAMES {
            for session in 0..SESSIONS {
                let process = model.processes[session as usize];
                if model.place(process).is_some() {
                    model.step(&Step::Leave { session });
                }
            }
            let denied_or_taken = model.table().acquire(&key(1, text(name)), &ask(900, 9, 1), Wait::No).unwrap();
            prop_assert!(matches!(denied_or_taken.answer, Answer::Taken(_)));
        }
        model.now += 1000;
        model.table().sweep().unwrap();
        prop_assert_eq!(super::super::records::Records::open(&words).unwrap().left(), left);
    }
}

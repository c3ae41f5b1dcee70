//! Random operations on a partition and on a `HashMap` side by side.

use super::super::{NEVER, Partition, Progress, Reservation};
use super::{cases, formatted, get, item, key, reserve, set, value};
use crate::words::{Words, allocate};
use proptest::prelude::*;
use std::collections::HashMap;

#[derive(Debug, Clone, Copy)]
enum Operation {
    Set {
        number: u64,
        len: usize,
        ttl: Option<u64>,
    },
    Get(u64),
    Remove(u64),
    Touch(u64, Option<u64>),
    Clear,
    Advance(u64),
    Expire(u32),
    Sweep(u32),
    /// Reserve now, publish or release later.
    Begin {
        number: u64,
        len: usize,
    },
    /// One step of a reservation that may be given up halfway.
    Abandon {
        len: usize,
    },
    Commit(usize),
    Abort(usize),
}

fn operation(keys: u64, largest: usize) -> impl Strategy<Value = Operation> {
    let number = 0..keys;
    let len = prop_oneof![6 => 0..200_usize, 3 => 0..3000_usize, 1 => 0..largest];
    let ttl = proptest::option::of(prop_oneof![0..200_000_u64, 0..10_000_000_u64, 0..100_000_000_000_u64]);
    prop_oneof![
        8 => (number.clone(), len.clone(), ttl.clone())
            .prop_map(|(number, len, ttl)| Operation::Set { number, len, ttl }),
        8 => number.clone().prop_map(Operation::Get),
        3 => number.clone().prop_map(Operation::Remove),
        2 => (number.clone(), ttl).prop_map(|(number, ttl)| Operation::Touch(number, ttl)),
        1 => Just(Operation::Clear),
        3 => prop_oneof![0..1000_u64, 0..1_000_000_u64, 0..10_000_000_000_u64].prop_map(Operation::Advance),
        1 => (0..20_u32).prop_map(Operation::Expire),
        1 => (0..20_u32).prop_map(Operation::Sweep),
        3 => (number, len.clone()).prop_map(|(number, len)| Operation::Begin { number, len }),
        1 => len.prop_map(|len| Operation::Abandon { len }),
        2 => any::<usize>().prop_map(Operation::Commit),
        2 => any::<usize>().prop_map(Operation::Abort),
    ]
}

struct Pair<'a> {
    partition: Partition<'a>,
    /// Version, length, expiry.
    model: HashMap<u64, (u64, usize, u64)>,
    pending: Vec<(u64, u64, Reservation)>,
    now: u64,
    version: u64,
    /// Whether nothing may ever be missing.
    roomy: bool,
}

impl<'a> Pair<'a> {
    fn new(words: Words<'a>, roomy: bool) -> Self {
        let partition = formatted(words);
        Self { partition, model: HashMap::new(), pending: Vec::new(), now: 1, version: 0, roomy }
    }

    fn expected(&self, number: u64) -> Option<Vec<u8>> {
        let &(version, len, expiry) = self.model.get(&number)?;
        (expiry > self.now).then(|| value(number, version, len))
    }

    /// In a roomy partition all must be there; in a tight one what is there must be right.
    fn compare(&mut self, number: u64) {
        let found = get(&self.partition, key(number), self.now).expect("sound");
        let expected = self.expected(number);
        if self.roomy || found.is_some() {
            assert_eq!(found, expected, "key {number} at {}", self.now);
        } else {
            self.model.remove(&number);
        }
    }

    fn expiry(&self, ttl: Option<u64>) -> u64 {
        ttl.map_or(NEVER, |ttl| self.now + ttl)
    }

    fn apply(&mut self, operation: Operation) {
        let partition = self.partition;
        match operation {
            Operation::Set { number, len, ttl } => {
                self.version += 1;
                let expiry = self.expiry(ttl);
                let bytes = value(number, self.version, len);
                let item = item(number, expiry);
                // Every other value goes over the entry that is there, where it fits.
                let over = self.version.is_multiple_of(2) && partition.overwrite(&item, None, &bytes).expect("sound");
                if over || set(&partition, &item, &bytes, self.now).expect("sound") {
                    self.model.insert(number, (self.version, len, expiry));
                } else {
                    assert!(!self.roomy, "refused with room to spare");
                }
            }
            Operation::Get(number) => self.compare(number),
            Operation::Remove(number) => {
                self.compare(number);
                let there = self.expected(number).is_some();
                assert_eq!(partition.remove(key(number), self.now), Ok(there));
                self.model.remove(&number);
            }
            Operation::Touch(number, ttl) => {
                self.compare(number);
                let there = self.expected(number).is_some();
                let expiry = self.expiry(ttl);
                assert_eq!(partition.touch(key(number), self.now, expiry), Ok(there));
                if let (true, Some(entry)) = (there, self.model.get_mut(&number)) {
                    entry.2 = expiry;
                }
            }
            Operation::Clear => {
                partition.clear(super::DATABASE).expect("sound");
                self.model.clear();
            }
            Operation::Advance(by) => self.now += by,
            Operation::Expire(limit) => {
                partition.expire(self.now, limit).expect("sound");
            }
            Operation::Sweep(limit) => {
                partition.sweep(&mut 0, self.now, limit).expect("sound");
            }
            Operation::Begin { number, len } => self.begin(number, len),
            Operation::Abandon { len } => {
                let mut request = Reservation::new(len);
                let progress = partition.reserve(&mut request, self.now).expect("sound");
                assert!(progress != Progress::Full || !self.roomy);
                partition.release(&mut request).expect("sound");
            }
            Operation::Commit(choice) if !self.pending.is_empty() => {
                let (number, version, mut reservation) = self.pending.swap_remove(choice % self.pending.len());
                let len = reservation.len();
                assert_eq!(partition.publish(&mut reservation, &item(number, NEVER)), Ok(true));
                self.model.insert(number, (version, len, NEVER));
                assert_eq!(get(&partition, key(number), self.now).expect("sound"), self.expected(number));
            }
            Operation::Abort(choice) if !self.pending.is_empty() => {
                let (.., mut reservation) = self.pending.swap_remove(choice % self.pending.len());
                partition.release(&mut reservation).expect("sound");
            }
            Operation::Commit(_) | Operation::Abort(_) => {}
        }
    }

    fn begin(&mut self, number: u64, len: usize) {
        self.version += 1;
        match reserve(&self.partition, len, self.now).expect("sound") {
            Some(reservation) => {
                let bytes = value(number, self.version, len);
                assert_eq!(self.partition.fill(&reservation, &bytes), Ok(true));
                self.pending.push((number, self.version, reservation));
            }
            None => assert!(!self.roomy, "refused with room to spare"),
        }
    }

    fn finish(mut self, keys: u64) {
        for number in 0..keys {
            self.compare(number);
        }
        let report = self.partition.check().expect("sound");
        assert_eq!(report.reservations, self.pending.len() as u64);
        for (.., mut reservation) in self.pending.drain(..) {
            self.partition.release(&mut reservation).expect("sound");
        }
        self.partition.clear(super::DATABASE).expect("sound");
        let mut passed = 0;
        while self.partition.sweep(&mut passed, self.now, 100).expect("sound") {}
        while self.partition.expire(self.now, 100).expect("sound") {}
        let report = self.partition.check().expect("sound");
        assert_eq!((report.free_blocks * 64, report.entries), (self.partition.capacity(), 0), "memory has leaked");
    }
}

fn run(words: usize, keys: u64, roomy: bool, operations: Vec<Operation>) {
    let words = allocate(words);
    let mut pair = Pair::new(&words, roomy);
    for operation in operations {
        pair.apply(operation);
        pair.partition.check().expect("sound after every operation");
    }
    pair.finish(keys);
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn with_room_nothing_is_ever_lost(operations in prop::collection::vec(operation(30, 5000), 1..180)) {
        // 180 values of at most 5 kB fit into 1 MiB.
        run(1 << 17, 30, true, operations);
    }

    #[test]
    fn without_room_nothing_is_ever_wrong(operations in prop::collection::vec(operation(60, 20_000), 1..300)) {
        run(4096, 60, false, operations);
    }

    #[test]
    fn the_smallest_partition_works(operations in prop::collection::vec(operation(8, 600), 1..200)) {
        run(Partition::MIN_WORDS, 8, false, operations);
    }
}

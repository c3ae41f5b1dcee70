//! Walks a partition and proves that it is sound: each record is in one place, and each link has its counterpart.

use crate::queue::Tag;
use crate::queue::layout::{
    AWAITED, BUSY, DELAYED, DOUBTS, EXTENSION, FOLLOWER, GROUP, HELD, Head, LEASED, LISTS, PARKED, Partition, Q, R,
    RATED, READY, USED_UP, WAITING, g, w,
};
use crate::queue::timers::NEVER;
use crate::window::Window;
use std::collections::BTreeMap;

/// A message in the index, as it lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub list: usize,
    pub due: i64,
    pub lease: u64,
    pub attempts: u32,
    pub priority: usize,
    pub timed: bool,
    /// The hash of its group.
    pub group: u64,
    pub origin: usize,
    pub timer: bool,
    pub tag: Tag,
}

impl Message {
    pub fn is_ready(&self) -> bool {
        self.list < READY
    }
}

/// A group, as its record knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    pub head: i64,
    pub next: Option<i64>,
    /// Whether no follower comes before the next message.
    pub known: bool,
    /// Whether no message comes before the head.
    pub first: bool,
    /// Whether followers with smaller numbers may have been passed over.
    pub late: bool,
}

/// How many of a group's messages are where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Lanes {
    /// In flight.
    pub running: u32,
    /// In the index besides the head.
    pub members: u32,
    pub parked: u32,
    /// Held, because of the group's rate.
    pub held: u32,
    /// In line.
    pub ready: u32,
}

/// What a queue holds in the index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Holding {
    pub messages: BTreeMap<i64, Message>,
    /// Message numbers in the order of delivery.
    pub ready: Vec<i64>,
    /// Process numbers in the order of waking.
    pub waiting: Vec<u32>,
    /// Numbers of messages and of processes that wait for their ends.
    pub awaiting: Vec<(i64, u32)>,
    /// By the hash of its key; those that have a head.
    pub groups: BTreeMap<u64, Group>,
    /// The same, of all groups.
    pub lanes: BTreeMap<u64, Lanes>,
    /// What was delivered of groups lately, by the hash.
    pub rates: BTreeMap<u64, Window>,
}

impl Holding {
    pub fn count(&self, list: usize) -> usize {
        self.messages.values().filter(|message| message.list == list).count()
    }
}

/// What a partition holds, by queue slot.
pub(super) type Shape = BTreeMap<u32, Holding>;

/// Where a record was met on the walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Nowhere,
    Free,
    List(u32, usize),
    Group(u32),
    /// Of what was delivered of a group.
    Extension,
}

/// Walks the partition; panics with what is wrong.
pub(super) fn walk(p: &Partition<'_>) -> Shape {
    let mut places = vec![Place::Nowhere; p.records + 1];
    free_records(p, &mut places);
    let slots = slots(p);
    let mut shape = Shape::new();
    for &slot in &slots {
        let mut holding = lists(p, slot, &mut places);
        groups(p, slot, &mut places, &mut holding);
        undecided(p, slot);
        shape.insert(slot, holding);
    }
    for (record, place) in places.iter().enumerate().skip(1) {
        assert_ne!(*place, Place::Nowhere, "record {record} is lost: in no list and not free");
    }
    buckets(p, &places);
    timers(p, &slots, &places);
    shape
}

fn free_records(p: &Partition<'_>, places: &mut [Place]) {
    let mut count = 0;
    let mut record = p.head(Head::FreeRecord).unwrap() as u32;
    while record != 0 {
        assert_eq!(places[record as usize], Place::Nowhere, "free record {record} is met twice");
        places[record as usize] = Place::Free;
        assert_eq!(p.half(record, R::Chain, false), Ok(0), "free record {record} has a timer");
        count += 1;
        record = p.half(record, R::Chain, true).unwrap();
    }
    assert_eq!(p.head(Head::FreeRecords), Ok(count), "the count of free records");
}

/// The slots in use. Each slot is free or in the bucket that its key is found by.
fn slots(p: &Partition<'_>) -> Vec<u32> {
    let mut met = vec![false; p.queues + 1];
    let mut slots = Vec::new();
    for bucket in 0..p.queues {
        let mut slot = p.queue_bucket(bucket).unwrap();
        while slot != 0 {
            assert!(!met[slot as usize], "queue {slot} is met twice");
            met[slot as usize] = true;
            let key = p.q(slot, Q::Key).unwrap();
            assert_ne!(key, 0, "queue {slot} is in a bucket and has no key");
            let key = crate::queue::QueueKey { database: (key >> 32) as u32, relation: key as u32 };
            assert_eq!(p.find(key), Ok(Some(slot)));
            slots.push(slot);
            slot = p.q(slot, Q::Next).unwrap() as u32;
        }
    }
    let mut slot = p.head(Head::FreeQueue).unwrap() as u32;
    while slot != 0 {
        assert!(!met[slot as usize], "free queue {slot} is met twice");
        met[slot as usize] = true;
        assert_eq!(p.q(slot, Q::Key), Ok(0), "free queue {slot} has a key");
        slot = p.q(slot, Q::Next).unwrap() as u32;
    }
    assert!(met.iter().skip(1).all(|met| *met), "a queue slot is lost");
    slots
}

fn lists(p: &Partition<'_>, slot: u32, places: &mut [Place]) -> Holding {
    let mut holding = Holding::default();
    for list in (0..LISTS).rev() {
        let (first, last, len) = p.list(slot, list).unwrap();
        if list < READY {
            let bit = p.q(slot, Q::Bitmap).unwrap() >> list & 1;
            assert_eq!(bit == 1, len > 0, "queue {slot}: the bitmap's bit {list} against its list's length {len}");
        }
        let (mut previous, mut record, mut count) = (0, first, 0);
        while record != 0 {
            count += 1;
            assert!(count <= len, "queue {slot} list {list} is longer than its length {len}");
            let place = &mut places[record as usize];
            assert_eq!(*place, Place::Nowhere, "record {record} is met again in queue {slot} list {list}");
            *place = Place::List(slot, list);
            assert_eq!(p.half(record, R::Links, false), Ok(previous), "record {record}: link back");
            let of = p.half(record, R::Attempts, false).unwrap();
            let beside = match list {
                AWAITED => 1 << 30,
                RATED => w::BIT,
                _ => 0,
            };
            assert_eq!(of, slot | beside, "record {record}: its queue");
            let kind = p.kind(record).unwrap();
            assert_eq!(kind.list, list, "record {record}: its list");
            let msg_id = p.r(record, R::MsgId).unwrap().cast_signed();
            if list == AWAITED {
                holding.awaiting.push((msg_id, kind.owner));
            } else if list == WAITING {
                holding.waiting.push(kind.owner);
            } else if list == RATED {
                assert_eq!(p.lookup(slot | w::BIT, msg_id), Ok(Some(record)), "the counts of {msg_id} are found");
                assert_eq!(holding.rates.insert(msg_id.cast_unsigned(), p.window_in(record).unwrap()), None);
                let extension = p.extension_of(record).unwrap() as usize;
                if extension != 0 {
                    assert_eq!(places[extension], Place::Nowhere, "extension {extension} is met again");
                    assert_eq!(p.kind(extension as u32).unwrap().list, EXTENSION);
                    places[extension] = Place::Extension;
                }
            } else {
                assert_eq!(p.lookup(slot, msg_id), Ok(Some(record)), "message {msg_id} is found by its number");
                let message = message(p, record);
                if list < READY {
                    assert_eq!(list / 2, kind.priority, "message {msg_id} is ready in one of its priority's lists");
                    holding.ready.push(msg_id);
                }
                assert_eq!(holding.messages.insert(msg_id, message), None, "message {msg_id} is in the index twice");
            }
            previous = record;
            record = p.half(record, R::Links, true).unwrap();
        }
        assert_eq!(last, previous, "queue {slot} list {list}: its end");
        assert_eq!(len, count, "queue {slot} list {list}: its length");
    }
    holding
}

/// What is set aside under the records of prepared transactions: side by side, each as often as its record says.
fn undecided(p: &Partition<'_>, slot: u32) {
    let (mut record, _, _) = p.list(slot, BUSY).unwrap();
    let (mut firsts, mut counts, mut before) = ([0; DOUBTS], [0_u32; DOUBTS], 0);
    while record != 0 {
        let under = (p.half(record, R::Chain, false).unwrap() & 0xff) as usize;
        if under != 0 {
            counts[under - 1] += 1;
            if firsts[under - 1] == 0 {
                firsts[under - 1] = record;
            } else {
                assert_eq!(before, under, "record {record} is beside the others of its transaction");
            }
        }
        before = under;
        record = p.half(record, R::Links, true).unwrap();
    }
    for place in 0..DOUBTS {
        let (first, count) = p.aside_under(slot, place).unwrap();
        assert_eq!((first, count), (firsts[place], counts[place]), "queue {slot}: what is under record {place}");
        assert!(count == 0 || p.doubt_at(slot, place).unwrap().transaction != 0, "record {place} of queue {slot}");
    }
    let open = (0..DOUBTS).filter(|place| p.doubt_at(slot, *place).unwrap().transaction != 0).count();
    assert_eq!(p.q(slot, Q::InDoubt), Ok(open as u64));
}

/// Whether a message has no place in its group: it is used up, or a follower that is set aside.
fn is_out_of_order(list: usize, origin: usize) -> bool {
    list == USED_UP || (list == BUSY && matches!(origin, FOLLOWER | USED_UP))
}

fn message(p: &Partition<'_>, record: u32) -> Message {
    let kind = p.kind(record).unwrap();
    let outside = is_out_of_order(kind.list, kind.origin);
    Message {
        list: kind.list,
        due: p.r(record, R::Due).unwrap().cast_signed(),
        lease: p.r(record, R::Lease).unwrap(),
        attempts: p.half(record, R::Attempts, true).unwrap(),
        priority: kind.priority,
        timed: kind.timed,
        group: match kind.owner {
            0 if outside => {
                let follower = kind.list == BUSY && kind.origin == FOLLOWER;
                p.r(record, if follower { R::Lease } else { R::Due }).unwrap()
            }
            0 => 0,
            owner => p.r(owner, g::HASH).unwrap(),
        },
        origin: kind.origin,
        timer: !matches!(kind.list, PARKED | BUSY) && p.half(record, R::Chain, false).unwrap() != 0,
        tag: p.entry(record, 0).unwrap().tag,
    }
}

/// The groups of a queue: each has a head or members that know their group, and followers that are set aside have none.
fn groups(p: &Partition<'_>, slot: u32, places: &mut [Place], holding: &mut Holding) {
    for group in 1..=p.records as u32 {
        let kind = p.kind(group).unwrap();
        if kind.list != GROUP || p.half(group, R::Attempts, false).unwrap() != slot | g::BIT {
            continue;
        }
        assert_eq!(places[group as usize], Place::Nowhere, "group {group} is met elsewhere");
        places[group as usize] = Place::Group(slot);
        let hash = p.r(group, g::HASH).unwrap();
        assert_eq!(p.lookup(slot | g::BIT, hash.cast_signed()), Ok(Some(group)));
        let head = p.half(group, g::HEAD, true).unwrap();
        holding.lanes.insert(hash, lanes(p, slot, group));
        if head == 0 {
            assert_eq!((kind.origin, kind.owner), (0, 0), "group {group} has no head, and something is known of it");
            continue;
        }
        assert_eq!(p.kind(head).unwrap().owner, group, "the head {head} of group {group}");
        assert!(matches!(places[head as usize], Place::List(at, _) if at == slot), "the head {head} of group {group}");
        let next = (kind.origin & 1 != 0).then(|| p.r(group, g::NEXT).unwrap().cast_signed());
        let head = p.r(head, R::MsgId).unwrap().cast_signed();
        let flag = |bit| kind.origin & bit != 0;
        holding.groups.insert(hash, Group { head, next, known: flag(2), first: flag(4), late: flag(16) });
    }
    let mut met: BTreeMap<u64, Lanes> = holding.lanes.keys().map(|group| (*group, Lanes::default())).collect();
    let mut elsewhere: BTreeMap<u64, u32> = BTreeMap::new();
    for (id, message) in &holding.messages {
        if message.group != 0 && !is_out_of_order(message.list, message.origin) {
            let lanes = met.get_mut(&message.group).expect("a message's group has a record");
            lanes.members += u32::from(holding.groups.get(&message.group).is_none_or(|group| group.head != *id));
            let runs = message.list == LEASED || (message.list == BUSY && message.origin == LEASED);
            let closes = message.list == DELAYED && message.origin != 0;
            lanes.running += u32::from(runs || closes);
            let apart = matches!(message.list, BUSY | DELAYED) && !runs && !closes;
            *elsewhere.entry(message.group).or_default() += u32::from(apart);
            lanes.parked += u32::from(message.list == PARKED);
            lanes.held += u32::from(message.list == HELD);
            lanes.ready += u32::from(message.is_ready());
        }
    }
    for (hash, lanes) in &mut holding.lanes {
        (lanes.ready, lanes.held) = (met[hash].ready, met[hash].held);
        assert!(lanes.members > 0 || holding.groups.contains_key(hash), "group {hash} is empty");
        let idle = lanes.running < p.lanes(slot).unwrap();
        // Where a group has one lane it waits for all that has come back.
        let waits = p.lanes(slot).unwrap() == 1 && elsewhere.get(hash).is_some_and(|count| *count > 0);
        assert!(
            lanes.parked == 0 || !idle || waits || lanes.ready + lanes.held > 0,
            "group {hash} stands still: {lanes:?}"
        );
    }
    assert_eq!(met, holding.lanes);
    assert_eq!(p.q_i64(slot, Q::Groups), Ok(holding.lanes.len() as i64));
    let unleased = holding.messages.values().filter(|message| message.list == BUSY && message.origin != LEASED).count();
    assert_eq!(p.q(slot, Q::BusyUnleased), Ok(unleased as u64));
}

/// What a group's record counts; the chain of those that are parked is sound.
fn lanes(p: &Partition<'_>, slot: u32, group: u32) -> Lanes {
    let (first, mut parked) = (p.first_parked(group).unwrap(), 0);
    let mut record = first;
    while record != 0 {
        let kind = p.kind(record).unwrap();
        assert_eq!((kind.list, kind.owner), (PARKED, group), "record {record} is chained to group {group}");
        let next = p.half(record, R::Chain, false).unwrap();
        assert_eq!(p.slot_half(next as usize - 1, false), Ok(record), "record {next}: the one before it");
        parked += 1;
        assert!(parked <= p.list(slot, PARKED).unwrap().2, "the chain of group {group} has no end");
        record = if next == first { 0 } else { next };
    }
    let (running, members) = (p.running(group).unwrap(), p.members(group).unwrap());
    Lanes { running, members, parked: parked as u32, held: 0, ready: 0 }
}

/// The buckets hold the messages, the groups, their counts, and nothing else.
fn buckets(p: &Partition<'_>, places: &[Place]) {
    let mut hashed = vec![false; places.len()];
    for bucket in 0..p.records {
        let mut record = p.slot_half(bucket, true).unwrap();
        while record != 0 {
            assert!(!hashed[record as usize], "record {record} is in the buckets twice");
            hashed[record as usize] = true;
            record = p.half(record, R::Chain, true).unwrap();
        }
    }
    for (record, place) in places.iter().enumerate().skip(1) {
        let message = matches!(place, Place::List(_, list) if *list != WAITING) || matches!(place, Place::Group(_));
        assert_eq!(hashed[record], message, "record {record} at {place:?}: is it in the buckets");
    }
}

/// The timers of a queue are those of what is leased, delayed or held and of nothing else, in order.
fn timers(p: &Partition<'_>, slots: &[u32], places: &[Place]) {
    let mut timed = vec![false; places.len()];
    for &slot in slots {
        let in_order = p.timers(slot);
        for &record in &in_order {
            assert!(matches!(places[record as usize], Place::List(at, LEASED | DELAYED | HELD) if at == slot));
            assert!(!timed[record as usize], "the timer of record {record} is met twice");
            timed[record as usize] = true;
        }
        let due = |record: &u32| p.r(*record, R::Due).unwrap().cast_signed();
        let key = |record: &u32| (due(record), p.r(*record, R::MsgId).unwrap().cast_signed());
        assert!(in_order.is_sorted_by(|a, b| key(a) < key(b)), "the timers' order");
        assert_eq!(p.first_due(slot), Ok(in_order.first().map_or(NEVER, due)), "when the first runs out");
    }
    for (record, place) in places.iter().enumerate().skip(1) {
        let runs = matches!(place, Place::List(_, LEASED | DELAYED | HELD));
        assert!(timed[record] == runs, "record {record} at {place:?}: does its timer run");
        let undecided = matches!(place, Place::List(_, BUSY));
        let chained = undecided || matches!(place, Place::List(_, PARKED | RATED) | Place::Group(_) | Place::Extension);
        if !runs && !chained && !matches!(place, Place::Nowhere) {
            assert_eq!(p.half(record as u32, R::Chain, false), Ok(0), "record {record} at {place:?}: no timer");
            assert_eq!(p.slot_half(record - 1, false), Ok(0), "record {record} at {place:?}: no timer's child");
        }
    }
}

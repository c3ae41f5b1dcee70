//! What is committed: the calls into the segment.
//!
//! Keys are hashed, values detoasted and results allocated before a lock is taken. A get takes its partition's lock
//! shared and once, unless the value is larger than what was allocated for it. A set takes it exclusively twice: to
//! reserve memory, and to publish.

use super::barrier::{self, ComputedFrom};
use super::clock;
use super::computing;
use super::key::Key;
use super::log::Limits;
use super::settings::{self, REGION};
use crate::error::Error;
use crate::pg::fmgr::Buffer;
use crate::pg::server;
use crate::shmem::{Partition, Segment};
use enough_engine::cache::{Found, Item, Kind, Named, Partition as Cache, Progress, Reservation, Stats, Tags};
use enough_engine::hash::KeyHash;
use enough_engine::words::Corrupt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Bytes allocated for a result before its length is known.
const FIRST_ROOM: usize = 1000;

/// Values up to this length are copied under the exclusive lock that reserves their memory: cheaper than to take the
/// lock once more.
pub const FILL_AT_ONCE: usize = 4096;

/// Entries or runs looked at under one exclusive lock by the walks over everything.
const WALK: u32 = 256;

/// What [`largest_value`] has found; 0 before.
static LARGEST: AtomicUsize = AtomicUsize::new(0);

/// The same, for callers that must not fail: 0 where it isn't known yet.
#[inline(always)]
pub fn known_largest_value() -> usize {
    LARGEST.load(Relaxed)
}

/// The largest value in bytes that the cache takes: as set, or what a partition holds where that is less.
pub fn largest_value(segment: &Segment) -> Result<usize, Error> {
    let known = known_largest_value();
    if known != 0 {
        return Ok(known);
    }
    // All partitions are of one size, and there is at least one.
    let mut largest = segment.sizes.of(REGION, settings::MAX_VALUE);
    if let Some(partition) = segment.partitions(REGION).first() {
        largest = largest.min(partition.shared(|words| Ok(Cache::open(words)?.largest_value()))?);
    }
    LARGEST.store(largest, Relaxed);
    Ok(largest)
}

/// What a transaction's log may be at most: as much as the cache holds.
pub fn limits(segment: &Segment) -> Limits {
    let partitions = segment.partitions(REGION);
    let words = partitions.first().map_or(0, |partition| partition.words().len());
    Limits { bytes: partitions.len() * words * size_of::<u64>(), tags: Cache::tag_records(words) }
}

fn partition(segment: &Segment, key: KeyHash) -> &Partition {
    segment.partition_of(REGION, key)
}

/// Where this process counts its hits. One place for those of all partitions, which is a cache line less to be fetched
/// for each.
#[inline(always)]
fn count_hit(segment: &Segment) {
    static HITS: OnceLock<&AtomicU64> = OnceLock::new();
    if let Some(hits) = HITS.get() {
        hits.fetch_add(1, Relaxed);
        return;
    }
    let (own, partitions) = (server::stripe(), segment.partitions(REGION));
    let home = partitions.get(own % partitions.len().max(1));
    if let Some(hits) = home.and_then(|home| Cache::hits(home.words(), own / partitions.len())) {
        hits.fetch_add(1, Relaxed);
        let _ = HITS.set(hits);
    }
}

/// The value under a key, without a lock, if it is of that kind, small and in frequent use.
#[inline(always)]
pub fn read_optimistic(segment: &Segment, key: KeyHash, kind: Kind) -> Option<Buffer> {
    let found = segment.place_of(REGION, key)?.read_optimistic(|words| {
        let found = Cache::open(words).ok()?.read_optimistic(key, clock::now)?;
        if found.kind != kind || found.len > FILL_AT_ONCE {
            return None;
        }
        let buffer = Buffer::try_allocate(found.len)?;
        found.copy(buffer.bytes());
        Some(buffer)
    })?;
    count_hit(segment);
    Some(found)
}

/// Lets the processor fetch of what a [`put`] will touch what is known without a look at the memory: the lock and the bucket.
/// For commits of many values: 1,000 of 1,000,000 took 15 % longer without; single calls nothing.
#[inline(always)]
pub fn prefetch_bucket(segment: &Segment, key: KeyHash) {
    let Some(partition) = segment.place_of(REGION, key) else { return };
    if let Some(bucket) = Cache::bucket_place(partition.words(), key) {
        partition.prefetch(bucket);
    }
}

/// And what the bucket leads to.
#[inline(always)]
pub fn prefetch_entry(segment: &Segment, key: KeyHash) {
    let Some(partition) = segment.place_of(REGION, key) else { return };
    if let Some(entry) = Cache::entry_place(partition.words(), key) {
        partition.prefetch_lines(entry);
    }
}

/// A value that was found.
pub struct Hit {
    /// Its bytes.
    pub buffer: Buffer,
    /// What was found; its place is good no longer.
    pub found: Found,
    /// Its tags, where a value is being computed that may be made of it; else none.
    pub tags: Tags,
}

/// See [`Hit::tags`].
#[inline]
fn tags_if_used(cache: &Cache<'_>, found: Found) -> Result<Tags, Corrupt> {
    if computing::is_going_on() { cache.tags(found) } else { Ok(Tags::default()) }
}

/// The value under a key. A hit of the kind that `slide` tells moves the expiry to where it tells.
pub fn read(segment: &Segment, key: KeyHash, now: u64, slide: Option<(Kind, u64)>) -> Result<Option<Hit>, Error> {
    let partition = partition(segment, key);
    let mut room = FIRST_ROOM;
    loop {
        let mut buffer = Buffer::allocate(room);
        let (mut slid, mut tags) = (true, Tags::default());
        let found = partition.shared(|words| {
            let cache = Cache::open(words)?;
            let Some(found) = cache.find(key, now)? else {
                cache.count_miss(server::stripe());
                return Ok(None);
            };
            if let Some(out) = buffer.bytes().get_mut(..found.len) {
                cache.copy(found, out)?;
                tags = tags_if_used(&cache, found)?;
                cache.count_hit(server::stripe());
                let slide = slide.filter(|(kind, _)| *kind == found.kind);
                slid = slide.map_or(Ok(true), |(_, expiry)| cache.slide(found, expiry))?;
            }
            Ok(Some(found))
        })?;
        let Some(found) = found else { return Ok(None) };
        if found.len <= room {
            if let (false, Some((_, expiry))) = (slid, slide) {
                touch(segment, key, now, expiry)?;
            }
            buffer.shorten(found.len);
            return Ok(Some(Hit { buffer, found, tags }));
        }
        room = found.len;
    }
}

/// The same without counting; also a value that is only kept, where its time hasn't been over for `stale_for`.
pub fn look(segment: &Segment, key: KeyHash, now: u64, stale_for: u64) -> Result<Option<Hit>, Error> {
    let mut room = FIRST_ROOM;
    loop {
        let mut buffer = Buffer::allocate(room);
        let mut tags = Tags::default();
        let found = partition(segment, key).shared(|words| {
            let cache = Cache::open(words)?;
            let found = cache.find_kept(key, now)?.filter(|found| found.expiry.saturating_add(stale_for) > now);
            if let Some(found) = found
                && let Some(out) = buffer.bytes().get_mut(..found.len)
            {
                cache.copy(found, out)?;
                tags = tags_if_used(&cache, found)?;
            }
            Ok(found)
        })?;
        match found {
            None => return Ok(None),
            Some(found) if found.len <= room => {
                buffer.shorten(found.len);
                return Ok(Some(Hit { buffer, found, tags }));
            }
            Some(found) => room = found.len,
        }
    }
}

/// Counts something in a key's partition.
pub fn count(segment: &Segment, key: KeyHash, what: fn(&Cache<'_>, usize)) -> Result<(), Error> {
    partition(segment, key).shared(|words| {
        what(&Cache::open(words)?, server::stripe());
        Ok(())
    })
}

/// When the entry under a key is over, in microseconds since `PostgreSQL`'s epoch.
pub fn expiry(segment: &Segment, key: KeyHash, now: u64) -> Result<Option<u64>, Error> {
    partition(segment, key).shared(|words| Ok(Cache::open(words)?.find(key, now)?.map(|found| found.expiry)))
}

/// Reads the value under a key and removes it, if it is of that kind, atomically among sessions: one of them gets it.
pub fn take(segment: &Segment, key: KeyHash, kind: Kind, now: u64) -> Result<Option<(Buffer, Kind)>, Error> {
    let partition = partition(segment, key);
    let mut room = FIRST_ROOM;
    loop {
        let mut buffer = Buffer::allocate(room);
        let found = partition.exclusive(|words| {
            let cache = Cache::open(words)?;
            let Some(found) = cache.find(key, now)? else {
                cache.count_miss(server::stripe());
                return Ok(None);
            };
            if let Some(out) = buffer.bytes().get_mut(..found.len) {
                cache.copy(found, out)?;
                cache.count_hit(server::stripe());
                // Another kind is refused, so it stays.
                if found.kind == kind {
                    cache.remove(key, now)?;
                }
            }
            Ok(Some(found))
        })?;
        let Some(found) = found else { return Ok(None) };
        if found.len <= room {
            buffer.shorten(found.len);
            return Ok(Some((buffer, found.kind)));
        }
        room = found.len;
    }
}

/// The tags of the entry under a key; none where there is no entry.
pub fn tags(segment: &Segment, key: KeyHash, now: u64) -> Result<Tags, Error> {
    partition(segment, key).shared(|words| {
        let cache = Cache::open(words)?;
        cache.find(key, now)?.map_or(Ok(Tags::default()), |found| cache.tags(found))
    })
}

/// Memory as requested for `value`, filled. A value for which there is none (others have reserved it) gets a reservation that
/// publishes as absent: as if it had been evicted at once.
pub fn reserve(
    segment: &Segment,
    key: Key<'_>,
    value: &[u8],
    mut request: Reservation,
    now: u64,
) -> Result<Reservation, Error> {
    let partition = partition(segment, key.hash);
    request.keep_name(key.name);
    let at_once = value.len() <= FILL_AT_ONCE;
    loop {
        let progress = partition.exclusive(|words| {
            let cache = Cache::open(words)?;
            let progress = cache.reserve(&mut request, now)?;
            if at_once && progress == Progress::Ready {
                cache.fill_named(&request, key.name, value)?;
            }
            Ok(progress)
        })?;
        match progress {
            // What is reserved is nobody else's: the shared lock only keeps the partition from being formatted.
            Progress::Ready if !at_once => {
                partition.shared(|words| Cache::open(words)?.fill_named(&request, key.name, value))?;
                return Ok(request);
            }
            Progress::Ready | Progress::Full => return Ok(request),
            Progress::More => {}
        }
    }
}

/// Puts a value of at most [`FILL_AT_ONCE`] bytes under its key, with the key's name where it is kept.
#[inline]
pub fn put(
    segment: &Segment,
    item: &Item,
    name: Option<&[u8]>,
    value: &[u8],
    origin: &ComputedFrom<'_>,
    now: impl FnOnce() -> u64,
) -> Result<bool, Error> {
    let partition = partition(segment, item.key);
    let done = partition.exclusive(|words| {
        let cache = Cache::open(words)?;
        if barrier::refuses(&cache, segment, item.key, &Tags::default(), origin)? {
            return Ok(Some(false));
        }
        let done = match name {
            None => cache.overwrite(item, None, value)?,
            Some(name) => overwrite_named(&cache, item, name, value)?,
        };
        Ok(done.then_some(true))
    })?;
    match done {
        Some(done) => Ok(done),
        None => put_anew(segment, item, name, value, origin, now()),
    }
}

/// A copy of the code of its own: without names, the usual case is as short as it can be.
#[cold]
fn overwrite_named(cache: &Cache<'_>, item: &Item, name: &[u8], value: &[u8]) -> Result<bool, Corrupt> {
    cache.overwrite(item, Some(name), value)
}

/// [`put`] where it doesn't fit over an entry of its key.
#[cold]
fn put_anew(
    segment: &Segment,
    item: &Item,
    name: Option<&[u8]>,
    value: &[u8],
    origin: &ComputedFrom<'_>,
    now: u64,
) -> Result<bool, Error> {
    let partition = partition(segment, item.key);
    let mut request = Reservation::new(value.len());
    request.keep_name(name);
    loop {
        let done = partition.exclusive(|words| {
            let cache = Cache::open(words)?;
            if barrier::refuses(&cache, segment, item.key, &Tags::default(), origin)? {
                cache.release(&mut request)?;
                return Ok(Some(false));
            }
            let progress = cache.reserve(&mut request, now)?;
            if progress == Progress::More {
                return Ok(None);
            }
            if progress == Progress::Ready {
                cache.fill_named(&request, name, value)?;
            }
            cache.publish(&mut request, item).map(Some)
        })?;
        if let Some(done) = done {
            return Ok(done);
        }
    }
}

/// Puts a reserved value under its key, unless that was removed since it was computed. Fails only where the partition
/// was found damaged, which empties it.
pub fn publish(
    segment: &Segment,
    reservation: &mut Reservation,
    item: &Item,
    origin: &ComputedFrom<'_>,
) -> Result<bool, Error> {
    partition(segment, item.key).exclusive(|words| {
        let cache = Cache::open(words)?;
        if barrier::refuses(&cache, segment, item.key, reservation.tags(), origin)? {
            cache.release(reservation)?;
            return Ok(false);
        }
        cache.publish(reservation, item)
    })
}

/// What became of a value that was offered at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It is there, or was and has been evicted.
    Taken,
    /// There is another one, or none where one was expected.
    Late,
    /// The key, or a tag, was removed since it was computed.
    Stale,
}

/// Puts a reserved value under its key unless there is one; atomic among sessions.
pub fn publish_if_absent(
    segment: &Segment,
    reservation: &mut Reservation,
    item: &Item,
    origin: &ComputedFrom<'_>,
    now: u64,
) -> Result<Offer, Error> {
    offer(segment, reservation, item, origin, |cache| Ok(cache.find(item.key, now)?.is_none()))
}

fn offer(
    segment: &Segment,
    reservation: &mut Reservation,
    item: &Item,
    origin: &ComputedFrom<'_>,
    wanted: impl Fn(&Cache<'_>) -> Result<bool, Corrupt>,
) -> Result<Offer, Error> {
    partition(segment, item.key).exclusive(|words| {
        let cache = Cache::open(words)?;
        let offer = if !wanted(&cache)? {
            Offer::Late
        } else if barrier::refuses(&cache, segment, item.key, reservation.tags(), origin)? {
            Offer::Stale
        } else {
            cache.publish(reservation, item)?;
            return Ok(Offer::Taken);
        };
        cache.release(reservation)?;
        Ok(offer)
    })
}

/// Puts a reserved value in place of the one that was found, unless that is gone or another one by now; atomic among
/// sessions.
pub fn publish_in_place_of(
    segment: &Segment,
    found: Found,
    reservation: &mut Reservation,
    item: &Item,
    origin: &ComputedFrom<'_>,
    now: u64,
) -> Result<Offer, Error> {
    offer(segment, reservation, item, origin, |cache| {
        Ok(cache.find(item.key, now)?.is_some_and(|current| current.stamp == found.stamp))
    })
}

/// Removes the entry that was found, unless it is gone or another one by now; atomic among sessions. Whether it did.
pub fn remove_found(segment: &Segment, key: KeyHash, found: Found, now: u64) -> Result<bool, Error> {
    partition(segment, key).exclusive(|words| {
        let cache = Cache::open(words)?;
        let is_there = cache.find(key, now)?.is_some_and(|current| current.stamp == found.stamp);
        Ok(is_there && cache.remove(key, now)?)
    })
}

/// Gives reserved memory back.
pub fn release(segment: &Segment, key: KeyHash, reservation: &mut Reservation) -> Result<(), Error> {
    partition(segment, key).exclusive(|words| Cache::open(words)?.release(reservation))
}

/// Removes a key.
pub fn remove(segment: &Segment, key: KeyHash, now: u64) -> Result<bool, Error> {
    partition(segment, key).exclusive(|words| Cache::open(words)?.remove(key, now))
}

/// Changes when an entry is over.
pub fn touch(segment: &Segment, key: KeyHash, now: u64, expiry: u64) -> Result<bool, Error> {
    partition(segment, key).exclusive(|words| Cache::open(words)?.touch(key, now, expiry))
}

/// Frees what has expired or been cleared, a little under each lock. Stops at `deadline` (microseconds of the server's
/// clock); true where it got to the end.
pub fn sweep(segment: &Segment, deadline: i64) -> Result<bool, Error> {
    let now = clock::now();
    for partition in segment.partitions_from_any(REGION) {
        let mut passed = 0;
        let mut step = |words| {
            let cache = Cache::open(words)?;
            Ok(cache.expire(now, WALK)? || cache.sweep(&mut passed, now, WALK)?)
        };
        while partition.exclusive(&mut step)? {
            server::check_for_interrupts();
            if server::now() >= deadline {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Calls `each` with the entries of one bucket of a partition that keep their names; false where there is no such bucket. It is
/// called under the lock, and once more from the start where the partition is damaged.
pub fn names(partition: &Partition, bucket: usize, now: u64, mut each: impl FnMut(&Named<'_>)) -> Result<bool, Error> {
    partition.shared(|words| Cache::open(words)?.names(bucket, now, &mut each))
}

/// The counters of all partitions, added up.
pub fn stats(segment: &Segment) -> Result<Stats, Error> {
    let mut sum = Stats::default();
    for partition in segment.partitions(REGION) {
        sum += partition.shared(|words| Cache::open(words)?.stats())?;
    }
    Ok(sum)
}

//! Transactions that are prepared (two-phase commit) after they have changed the cache.
//!
//! At PREPARE whatever such a transaction has written becomes a removal: of the keys, tags or everything that it would change. The
//! removals are carried out at once, and their barriers stay raised, with a record in each partition
//! (`enough_engine::cache`, `undecided.rs`), until it is decided. So nobody sees a value of before the transaction beside its rows, nor its
//! own before it has committed. The session that has prepared it, where it also decides, lowers them when that ends. Else the next session that is refused a
//! value does, the next time it stores one, or maintenance.
//!
//! The records are lost with the memory, the transactions are not. So each holds an advisory lock, which the server keeps with it through
//! restarts, and a partition that was made empty takes no value before a session has looked which transactions have such locks ([`look`]). Of
//! those that are there by then nobody knows what they have removed: nothing of their databases is taken until they are decided.
//! Where the server takes no prepared transactions (`max_prepared_transactions = 0`) there is nothing to look for; nor where the memory
//! is as it was made and none can be left from before the server's start.

use super::barrier::{self, Barrier};
use super::clock;
use super::settings::REGION;
use super::settled::{self, Known};
use crate::error::Error;
use crate::pg::key_lock::KeyLock;
use crate::pg::prepared::{self, Status};
use crate::pg::{server, wal};
use crate::shmem::{Segment, known};
use enough_engine::cache::{LogicalTime, Partition as Cache, Trust};
use enough_engine::hash::KeyHash;
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The advisory lock of transactions that have changed the cache and are prepared.
const MARK: KeyHash = KeyHash { high: u64::MAX, low: 0 };

thread_local! {
    /// The transactions that this session has prepared and that aren't decided.
    static OPEN: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// The most transactions of which a session remembers that they are its own.
const MOST: usize = 1000;

/// Looks which prepared transactions are decided, where this session hasn't; before it stores a value.
#[inline]
pub fn settle(segment: &Segment) -> Result<(), Error> {
    match settled::state() {
        Known::All => Ok(()),
        Known::OnStandby if server::in_recovery() => Ok(()),
        _ => look(segment),
    }
}

/// The same for a caller that can do without: false where nothing is to be stored, because it isn't known yet, and this session has looked not long ago.
#[inline]
pub fn settle_now_and_then(segment: &Segment) -> Result<bool, Error> {
    /// In microseconds.
    const PAUSE: u64 = 1_000_000;
    static LAST: AtomicU64 = AtomicU64::new(0);
    if settled::is_settled() {
        return Ok(true);
    }
    let now = clock::now();
    if now.wrapping_sub(LAST.load(Relaxed)) < PAUSE {
        return Ok(false);
    }
    LAST.store(now, Relaxed);
    settle(segment)?;
    Ok(settled::is_settled())
}

/// Looks which prepared transactions are decided, and which are there that partitions don't know of.
#[cold]
pub fn look(segment: &Segment) -> Result<(), Error> {
    let standby = server::in_recovery();
    if standby {
        // Nothing is decided here, and what is stored doesn't stay.
        for partition in segment.partitions(REGION) {
            partition.exclusive(|words| Cache::open(words)?.trust_on_standby())?;
        }
        settled::note(Known::OnStandby);
        return Ok(());
    }
    if server::takes_prepared_transactions() {
        // Beside parallel workers no statement can be run: what nobody has looked for is refused.
        let known = trust_as_made(segment)? || (!server::in_parallel_mode() && trust_again(segment)?);
        if !known {
            return Ok(());
        }
        if !server::in_parallel_mode() {
            decide(segment)?;
        }
    }
    settled::note(Known::All);
    Ok(())
}

/// Lowers the barriers of those that are decided.
fn decide(segment: &Segment) -> Result<(), Error> {
    let mut transactions = Vec::new();
    for partition in segment.partitions(REGION) {
        partition.shared(|words| {
            Cache::open(words)?.undecided(|transaction| {
                if !transactions.contains(&transaction) {
                    transactions.push(transaction);
                }
            })
        })?;
    }
    for transaction in transactions {
        match prepared::status(transaction)? {
            Status::Open => {}
            Status::RolledBack => decided(segment, transaction, false),
            Status::Committed | Status::Forgotten => decided(segment, transaction, true),
        }
    }
    Ok(())
}

/// Without allocating or failing: this may be the end of a transaction that is committed.
fn decided(segment: &Segment, transaction: u64, committed: bool) {
    let removed_at = committed.then(server::logical_time);
    for partition in segment.partitions(REGION) {
        // A damaged partition has become empty, and is distrusted.
        let _ = partition.exclusive(|words| Cache::open(words)?.removal_decided(transaction, removed_at));
    }
}

/// Trusts the partitions, where none was made empty since the memory was made, and nothing that was prepared before the server's start can
/// have been decided; whether it does.
fn trust_as_made(segment: &Segment) -> Result<bool, Error> {
    let (mut distrusted, mut as_made) = (false, true);
    for partition in segment.partitions(REGION) {
        partition.shared(|words| {
            let cache = Cache::open(words)?;
            if cache.trust()? != Trust::Full {
                distrusted = true;
                as_made &= !cache.has_removed()?;
            }
            Ok(())
        })?;
    }
    if !distrusted {
        return Ok(true);
    }
    if !as_made || !KeyLock::is_shared_by_nobody(MARK) || !prepared::none_since_the_start() {
        return Ok(false);
    }
    for partition in segment.partitions(REGION) {
        // One that was made empty by now refuses what is older than that.
        partition.exclusive(|words| {
            let cache = Cache::open(words)?;
            if cache.has_removed()? { Ok(()) } else { cache.restore_trust(LogicalTime::default()) }
        })?;
    }
    Ok(true)
}

/// Trusts the partitions that have lost their records; false where somebody has to look once more.
fn trust_again(segment: &Segment) -> Result<bool, Error> {
    let holders = prepared::holders(KeyLock::shown_as(MARK))?;
    if holders.iter().any(|holder| holder.transaction.is_none()) {
        // It is being prepared, and nobody knows its number yet.
        return Ok(false);
    }
    let floor = server::logical_time();
    let (mut trusted, mut removed) = (true, !holders.is_empty());
    for partition in segment.partitions(REGION) {
        trusted &= partition.exclusive(|words| {
            let cache = Cache::open(words)?;
            if cache.trust()? == Trust::Full {
                return Ok(true);
            }
            removed |= cache.has_removed()?;
            for holder in &holders {
                if !cache.raise_for_unknown(holder.transaction.unwrap_or_default(), holder.database)? {
                    return Ok(false);
                }
            }
            cache.restore_trust(floor)?;
            Ok(true)
        })?;
    }
    if trusted && !removed && server::is_alone_in_its_snapshot() {
        // None that is decided by now was undecided for this transaction, and nothing else was removed: what it stores is
        // as good as what is computed from now on.
        barrier::removed_at(floor);
    }
    Ok(trusted)
}

/// Takes what a transaction needs that is about to be prepared and changes the cache: its number, and the lock by which it is known as one
/// of these; before its barriers are raised.
pub fn begin(segment: &Segment) -> Result<u64, Error> {
    settle(segment)?;
    KeyLock::share_with_transaction(MARK);
    // Remembered when it has been prepared, where nothing may fail.
    OPEN.with_borrow_mut(|open| open.reserve(1));
    Ok(wal::assign_transaction_id())
}

/// Keeps the barriers up that a transaction has raised which is about to be prepared. Where there is no room for that it fails, or, where it
/// must not, its partitions take no values until there is; then the barriers may be lowered, and the answer is false.
pub fn keep_raised(segment: &Segment, transaction: u64, barriers: &[Barrier], must: bool) -> Result<bool, Error> {
    if keep_each(segment, transaction, barriers)? {
        return Ok(true);
    }
    // Nobody may have looked for what has been decided.
    forget(segment, transaction);
    decide(segment)?;
    if keep_each(segment, transaction, barriers)? {
        return Ok(true);
    }
    if !must {
        return Err(Error::CacheInDoubt);
    }
    forget(segment, transaction);
    for run in barriers.chunk_by(|a, b| a.partition == b.partition) {
        if let Some(partition) = segment.partitions(REGION).get(run[0].partition as usize) {
            partition.exclusive(|words| Cache::open(words)?.distrust())?;
        }
    }
    Ok(false)
}

fn keep_each(segment: &Segment, transaction: u64, barriers: &[Barrier]) -> Result<bool, Error> {
    let mut room = true;
    for run in barriers.chunk_by(|a, b| a.partition == b.partition) {
        let Some(partition) = segment.partitions(REGION).get(run[0].partition as usize) else { continue };
        room &= partition.exclusive(|words| {
            let cache = Cache::open(words)?;
            for barrier in run {
                let Some(epoch) = barrier.epoch else { continue };
                if !cache.keep_raised(transaction, barrier.slot, epoch)? {
                    return Ok(false);
                }
            }
            Ok(true)
        })?;
        if !room {
            break;
        }
    }
    Ok(room)
}

/// The transaction will not be prepared, and lowers its barriers itself.
pub fn forget(segment: &Segment, transaction: u64) {
    for partition in segment.partitions(REGION) {
        // A damaged partition has become empty.
        let _ = partition.exclusive(|words| Cache::open(words)?.forget_undecided(transaction));
    }
}

/// The transaction has been prepared.
pub fn prepared(transaction: u64) {
    OPEN.with_borrow_mut(|open| {
        // Others find out.
        if open.len() < MOST {
            open.push(transaction);
        }
    });
}

/// A transaction has ended, which may have decided what this session has prepared. Whether there is something to look for from
/// now on, after each transaction.
pub fn look_for_decisions() -> bool {
    OPEN.with_borrow_mut(|open| {
        let Some(segment) = known().filter(|_| !open.is_empty()) else { return !open.is_empty() };
        open.retain(|&transaction| match prepared::has_committed(transaction) {
            None => true,
            Some(committed) => {
                decided(segment, transaction, committed);
                false
            }
        });
        !open.is_empty()
    })
}

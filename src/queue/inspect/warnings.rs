//! What of the queues an operator is warned of.

use crate::capability::Warning;
use crate::error::Error;
use crate::pg::catalog::{self, TableLock};
use crate::pg::savepoint::attempt;
use crate::pg::server;
use crate::pg::spi::{as_owner_of, read_rows};
use crate::queue::admin::check;
use crate::queue::consume::bury;
use crate::queue::handle::Queue;
use crate::queue::index::partition;
use crate::queue::inspect::stats;
use crate::queue::name::relation;
use crate::shmem::segment;
use enough_engine::queue::{Partition as Index, QueueKey};
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};

/// Leases in more than so many percent of the queues' memory are warned of.
const MUCH: u64 = 80;
/// So many queues that nobody reads are named.
const NAMED: usize = 10;
/// So many of a table's first messages are looked at for the oldest that has no delivery time.
const FIRST: i64 = 1000;

/// In milliseconds; 0 for never.
static UNREAD_AFTER: GucSetting<i32> = GucSetting::<i32>::new(600_000);

/// Defines the setting; once, when the library is loaded.
pub fn define() {
    GucRegistry::define_int_guc(
        c"enough.warn_unread_after",
        c"How long messages may wait while nobody reads their queue before status() warns.",
        c"0: it never does. A queue that is paused, or that a session waits for, or of which messages are leased, counts as read.",
        &UNREAD_AFTER,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
}

/// The warnings, by name.
pub(in crate::queue) fn warnings() -> Result<Vec<Warning>, Error> {
    let mut warnings = Vec::new();
    let leased = stats::leased_percent()?;
    if leased > MUCH {
        warnings.push((
            "queue_memory_nearly_full",
            format!(
                "leases use {leased} % of a part of enough.queue_memory; once they use all of it, reads fail with 53400: raise it"
            ),
        ));
    }
    warnings.extend(check::findings()?.into_iter().map(|finding| ("queue_tables", finding)));
    let patience = i64::from(UNREAD_AFTER.get()) * 1000;
    // What a standby holds is read on the primary.
    if patience > 0 && !server::in_recovery() {
        for name in stats::names()? {
            let Some(waited) = unread(&name, patience)? else { continue };
            warnings.push((
                "queue_without_consumers",
                format!(
                    "nobody reads queue \"{name}\", where a message has waited for {} seconds: start a consumer, or pause the \
                     queue with enough.queue_pause('{name}')",
                    waited / 1_000_000
                ),
            ));
            if warnings.iter().filter(|(name, _)| *name == "queue_without_consumers").count() == NAMED {
                break;
            }
        }
    }
    Ok(warnings)
}

/// For how long, in microseconds, a message of the queue has been ready where that is for longer than `patience`, and nobody
/// has read the queue in that time.
fn unread(name: &str, patience: i64) -> Result<Option<i64>, Error> {
    let Some(table) = relation("q_", name) else { return Ok(None) };
    if !is_idle(table, patience)? || !catalog::try_lock(table, TableLock::Read) {
        return Ok(None);
    }
    // What is wrong with its table is another warning's to say.
    let waited = match attempt(|| look(name, table)) {
        Ok(waited) => waited,
        Err(failure) => failure.answered().map(|_| None)?,
    };
    catalog::release(table, TableLock::Read);
    Ok(waited.filter(|&waited| waited > patience))
}

/// Whether nobody has read the queue with that table for so long, as far as the index knows; a queue that it doesn't know
/// has not been read since the memory was made.
fn is_idle(table: u32, patience: i64) -> Result<bool, Error> {
    let key = QueueKey { database: server::database(), relation: table };
    let last = partition(key)?.shared(|words| {
        let index = Index::new(words);
        let Some(slot) = index.find(key)? else { return Ok(None) };
        Ok(index.durations(slot)?.last_read)
    })?;
    Ok(server::now().saturating_sub(last.unwrap_or(segment()?.created_at)) > patience)
}

/// For how long the oldest message that is ready has been so, in microseconds; `None` also where the queue is paused, where
/// a session waits for a message, or where leases run.
fn look(name: &str, table: u32) -> Result<Option<i64>, Error> {
    let queue = Queue::open(name.as_bytes())?;
    if !stats::visible(&queue) {
        return Ok(None);
    }
    // Leases of consumers that are gone may have run out, and nobody have looked since.
    bury::expire(&queue, i64::MAX)?;
    let consumed = queue.index(|index, slot| {
        let counters = index.counters(slot)?;
        Ok(index.options(slot)?.paused || counters.leased > 0 || index.durations(slot)?.waiting)
    })?;
    if consumed {
        return Ok(None);
    }
    let relation = queue.relation("q_");
    let statement = format!(
        "SELECT (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) LEAST( \
             (SELECT pg_catalog.min(enqueued_at) FROM (SELECT enqueued_at, deliver_at FROM {relation} ORDER BY msg_id LIMIT {FIRST}) \
                 AS first WHERE deliver_at IS NULL), \
             (SELECT deliver_at FROM {relation} WHERE deliver_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp() \
              ORDER BY deliver_at LIMIT 1))) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8"
    );
    let mut waited = None;
    as_owner_of(table, || {
        read_rows(&statement, &[], |row| {
            waited = row.get::<i64>(1)?;
            Ok(())
        })
    })?;
    Ok(waited)
}

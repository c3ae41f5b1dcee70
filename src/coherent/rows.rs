//! Copies of committed rows of tables: made by a session that reads a row, and ended by a trigger of the table whenever the row is changed or deleted.
//!
//! A row that comes has no copy to be ended: a session that has read the one of before, which was deleted, is kept from storing it by that. What
//! may change rows without the trigger begins a new generation of copies ([`CopiedTable`](crate::pg::copied::CopiedTable)).
//!
//! A copy may be taken by a session that sees what is committed by now, and nothing of its own. It is made of what one snapshot has shown, and stored
//! only where nothing has been removed since before that ([`Filling`]).

use super::barrier::ComputedFrom;
use super::settings::REGION;
use super::{clock, pending, store, undecided};
use crate::error::Error;
use crate::pg::copied::CopiedTable;
use crate::pg::fmgr::Buffer;
use crate::pg::{reads, server};
use crate::shmem::{Domain, Segment, segment};
use enough_engine::cache::{Item, Kind, LogicalTime, Reservation};
use enough_engine::hash::KeyHash;

/// What the copies of a table's rows are known under, as long as they are of one generation.
pub fn domain(segment: &Segment, table: &CopiedTable) -> Domain {
    let [relation, file, trigger, writer] = table.generation.map(u32::to_le_bytes);
    segment.domain(REGION, &[relation, file, trigger, writer].concat())
}

/// Whether this transaction may take copies: each of its statements sees what is committed by then, it has done nothing that others don't
/// see, and nobody wants to know which tables it reads.
#[inline(always)]
pub fn may_be_taken() -> bool {
    !server::has_one_snapshot() && !server::has_written() && !server::in_parallel_mode() && !reads::are_noted()
}

/// A small copy in frequent use, for callers that must not fail.
#[inline(always)]
pub fn read_optimistic(segment: &Segment, row: KeyHash) -> Option<Buffer> {
    store::read_optimistic(segment, row, Kind::Bytes)
}

/// A copy, and when it is over.
pub fn read(segment: &Segment, row: KeyHash) -> Result<Option<(Buffer, u64)>, Error> {
    Ok(store::read(segment, row, clock::now(), None)?.map(|hit| (hit.buffer, hit.found.expiry)))
}

/// Whether there is a copy.
pub fn is_there(segment: &Segment, row: KeyHash) -> Result<bool, Error> {
    Ok(store::expiry(segment, row, clock::now())?.is_some())
}

/// The moment before a row is read of which a copy is to be made. The snapshot is taken later.
pub struct Filling {
    since: LogicalTime,
}

impl Filling {
    /// Now; `None` where no copies are made.
    pub fn begin(segment: &Segment) -> Result<Option<Self>, Error> {
        // Nobody tells a standby what is changed. What it has read before its promotion may be older than that.
        if server::in_recovery() || !undecided::settle_now_and_then(segment)? {
            return Ok(None);
        }
        Ok(Some(Filling { since: server::logical_time() }))
    }

    /// Stores the copy, unless it is too large, or the row may be another one by now.
    pub fn store(&self, segment: &Segment, row: KeyHash, copy: &[u8], expiry: u64) -> Result<(), Error> {
        if copy.len() > store::largest_value(segment)? {
            return Ok(());
        }
        let item = Item { key: row, database: server::database(), expiry, kind: Kind::Bytes };
        let origin = ComputedFrom::at(self.since);
        if copy.len() <= store::FILL_AT_ONCE {
            store::put(segment, &item, None, copy, &origin, clock::now)?;
        } else {
            let request = Reservation::new(copy.len());
            let mut reservation = store::reserve(segment, row.into(), copy, request, clock::now())?;
            store::publish(segment, &mut reservation, &item, &origin)?;
        }
        Ok(())
    }
}

/// Ends the copy of a row when this transaction commits, which has changed or deleted it.
pub fn end(domain: Domain, key: &[u8]) -> Result<(), Error> {
    pending::end_copy(segment()?.hash_in(domain, key))
}

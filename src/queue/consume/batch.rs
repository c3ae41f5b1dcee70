//! Batches: many messages changed by one call.
//!
//! Rows are locked in the order of their numbers, whatever order the caller names them in, so two batches over the same
//! messages wait for one another and never in a circle. A message that is named twice is treated as by two calls, the earlier
//! place first. The answer is in the caller's order.

use super::claim::{Claim, Known, claim_known, missed};
use super::finish::{ARCHIVED, REPLACE, finished, remove};
use super::{fail, finish, release};
use crate::error::Error;
use crate::pg::fmgr::{Jsonb, Text};
use crate::pg::memory::PgVec;
use crate::pg::server;
use crate::pg::spi::{Parameter, each_row_kept};
use crate::pg::table::relation::{JSONB, TEXT, TIMESTAMPTZ};
use crate::queue::ack::Step;
use crate::queue::arguments::OnePerMessage;
use crate::queue::consume::claim::Member;
use crate::queue::handle::Queue;
use crate::queue::heap::rows::{Missed, OpenTable, Row};
use crate::queue::pending::{Ending, remember};
use pgrx::pg_sys::Datum;

/// Messages that are claimed under one hold of a lock.
const CHUNK: usize = 256;
/// Bytes of the rows that are in memory at the same time.
const BYTES: usize = 4 << 20;

/// The messages of one call, in the order of their numbers, those of one number in the caller's order.
pub(in crate::queue) struct Batch {
    members: PgVec<Member>,
}

/// The members that a call has changed.
pub(in crate::queue) struct Done(PgVec<Option<i64>>);

impl Done {
    fn note(&mut self, member: &Member) {
        if let Some(place) = self.0.get_mut(member.place) {
            *place = Some(member.msg_id);
        }
    }

    /// Their numbers, in the caller's order.
    pub(in crate::queue) fn numbers(&self) -> PgVec<i64> {
        self.0.iter().copied().flatten().collect()
    }
}

impl Batch {
    /// The batch of these messages, with the lease of each.
    pub(in crate::queue) fn new(numbers: &[i64], leases: &OnePerMessage<'_, i64>) -> Self {
        let member = |(place, &msg_id)| {
            let lease = leases.get(place).map(i64::cast_unsigned);
            Member { msg_id, place, lease }
        };
        let mut members: PgVec<Member> = numbers.iter().enumerate().map(member).collect();
        members.sort_unstable();
        Batch { members }
    }

    /// How many messages there are.
    pub(in crate::queue) fn len(&self) -> usize {
        self.members.len()
    }

    fn nothing_done(&self) -> Done {
        let mut done = PgVec::new();
        done.resize(self.members.len(), None);
        Done(done)
    }

    /// Does `step` with one message after the other; those for which it answers true are done.
    fn each(&self, mut step: impl FnMut(&Member) -> Result<bool, Error>) -> Result<Done, Error> {
        let mut done = self.nothing_done();
        for member in &self.members {
            if step(member)? {
                done.note(member);
            }
            server::check_for_interrupts();
        }
        Ok(done)
    }

    /// Deletes the messages.
    pub(in crate::queue) fn delete(&self, queue: &Queue, table: &OpenTable<'_>) -> Result<Done, Error> {
        let one = |member: &Member| finish::delete(queue, table, member.msg_id, member.lease);
        self.take_out(queue, table, Ending::Deleted, one, &mut ())
    }

    /// Moves the messages to the archive: done, with what came of each.
    pub(in crate::queue) fn archive(
        &self,
        queue: &Queue,
        table: &OpenTable<'_>,
        results: &OnePerMessage<'_, Jsonb<'_>>,
    ) -> Result<Done, Error> {
        let one =
            |member: &Member| finish::archive(queue, table, member.msg_id, results.get(member.place), member.lease);
        self.take_out(
            queue,
            table,
            Ending::Archived,
            one,
            &mut Archive { queue, table, results, rows: Vec::new(), ack_async: false },
        )
    }

    /// Deletes the rows of the messages, and gives them to `taker`. Where policies or triggers have a say, and where the
    /// index doesn't know a message, `one` does all that is to be done with it.
    fn take_out(
        &self,
        queue: &Queue,
        table: &OpenTable<'_>,
        ending: Ending,
        one: impl Fn(&Member) -> Result<bool, Error>,
        taker: &mut impl Taker,
    ) -> Result<Done, Error> {
        if !queue.table.live.plain {
            return self.each(one);
        }
        let mut done = self.nothing_done();
        for members in self.members.chunks(CHUNK) {
            let claims = claim_known(queue, members)?;
            for (member, known) in members.iter().zip(&claims) {
                if let Known::Claimed(claim) = known {
                    remember(queue.key, finished(member.msg_id, *claim, ending));
                }
            }
            let mut claimed = members.iter().zip(&claims).peekable();
            while claimed.peek().is_some() {
                // What is copied of the rows is freed in between.
                server::with_own_memory(|| {
                    let mut bytes = 0;
                    while bytes < BYTES
                        && let Some((member, known)) = claimed.next()
                    {
                        server::check_for_interrupts();
                        let changed = match known {
                            Known::Stale => false,
                            Known::Elsewhere => one(member)?,
                            Known::Claimed(claim) => match remove(queue, table, member.msg_id, *claim, ending)? {
                                Ok(row) => {
                                    bytes += row.size();
                                    taker.take(member, *claim, row);
                                    true
                                }
                                Err(why) => {
                                    missed(queue, table, member.msg_id, *claim, why)?;
                                    // Without a lease the number is meant, whichever row has it.
                                    why == Missed::Other && member.lease.is_none() && one(member)?
                                }
                            },
                        };
                        if changed {
                            done.note(member);
                        }
                    }
                    taker.flush()
                })?;
            }
        }
        Ok(done)
    }

    /// Lets the leases end `timeout` microseconds from now; locks nothing. Done are those that were running.
    pub(in crate::queue) fn extend(&self, queue: &Queue, table: &OpenTable<'_>, timeout: i64) -> Result<Done, Error> {
        self.each(|member| Ok(finish::extend(queue, table, member.msg_id, timeout, member.lease)?.is_some()))
    }

    /// Lets deliveries fail, all with the same error and end.
    pub(in crate::queue) fn fail(
        &self,
        queue: &Queue,
        table: &OpenTable<'_>,
        error: Option<Text<'_>>,
        then: fail::Then,
    ) -> Result<Done, Error> {
        self.each(|member| Ok(fail::fail(queue, table, member.msg_id, error, then, member.lease)?.is_some()))
    }

    /// Gives messages another delivery time.
    pub(in crate::queue) fn reschedule(
        &self,
        queue: &Queue,
        table: &OpenTable<'_>,
        deliver_at: i64,
    ) -> Result<Done, Error> {
        self.each(|member| release::reschedule(queue, table, member.msg_id, deliver_at))
    }

    /// Gives leased messages back, as if they had not been delivered.
    pub(in crate::queue) fn release(&self, queue: &Queue, table: &OpenTable<'_>, delay: i64) -> Result<Done, Error> {
        self.each(|member| release::release(queue, table, member.msg_id, delay, member.lease))
    }
}

/// What becomes of the rows that a batch deletes. What it takes of them is in memory until [`Self::flush`].
trait Taker {
    /// Takes a row that has been deleted under a claim.
    fn take(&mut self, member: &Member, claim: Claim, row: Row);

    /// Does what is to be done with the rows that were taken.
    fn flush(&mut self) -> Result<(), Error>;
}

/// The rows are gone.
impl Taker for () {
    fn take(&mut self, _: &Member, _: Claim, _: Row) {}

    fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// The rows go to the archive: done.
struct Archive<'b, 'c> {
    queue: &'b Queue,
    table: &'b OpenTable<'b>,
    results: &'b OnePerMessage<'c, Jsonb<'c>>,
    rows: Vec<(usize, u32, Row)>,
    /// Of the queue, as the last claim has it.
    ack_async: bool,
}

impl Taker for Archive<'_, '_> {
    fn take(&mut self, member: &Member, claim: Claim, row: Row) {
        self.ack_async = claim.ack_async;
        self.rows.push((member.place, claim.attempts, row));
    }

    fn flush(&mut self) -> Result<(), Error> {
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() {
            return Ok(());
        }
        let column = |value: fn(&Row) -> Option<Datum>| rows.iter().map(|(_, _, row)| value(row)).collect::<Vec<_>>();
        let numbers: Vec<i64> = rows.iter().map(|(_, _, row)| row.msg_id).collect();
        let enqueued = column(|row| Some(Datum::from(row.enqueued_at)));
        let known = |(_, attempts, row): &(usize, u32, Row)| i64::from(row.attempts.max(0)).max(i64::from(*attempts));
        let attempts: Vec<i64> = rows.iter().map(known).collect();
        let priorities: Vec<i64> = rows.iter().map(|(_, _, row)| i64::from(row.priority)).collect();
        let (groups, headers) = (column(|row| row.group_key), column(|row| row.headers));
        let messages = column(|row| row.message);
        let dedups: Vec<Option<Datum>> = rows.iter().map(|(_, _, row)| self.table.kept(row).0).collect();
        let results: Vec<Option<Jsonb<'_>>> = rows.iter().map(|(place, _, _)| self.results.get(*place)).collect();
        let queue = self.queue;
        let step = Step::begin();
        queue.as_archive_owner(|| {
            each_row_kept(
                &format!(
                    "INSERT INTO {} ({ARCHIVED}, outcome, result, finished_at) \
                     SELECT id, sent, attempts::pg_catalog.int4, priority::pg_catalog.int2, grp, dedup, headers, message, \
                            'done', result, pg_catalog.clock_timestamp() \
                     FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9) \
                          AS gone(id, sent, attempts, priority, grp, dedup, headers, message, result) {REPLACE}",
                    queue.relation("a_")
                ),
                &[
                    Parameter::Numbers(&numbers),
                    Parameter::Column(&enqueued, TIMESTAMPTZ),
                    Parameter::Numbers(&attempts),
                    Parameter::Numbers(&priorities),
                    Parameter::Column(&groups, TEXT),
                    Parameter::Column(&dedups, TEXT),
                    Parameter::Column(&headers, JSONB),
                    Parameter::Column(&messages, JSONB),
                    Parameter::Jsons(&results),
                ],
                |_| Ok(()),
            )
        })?;
        if self.ack_async && queue.has_quiet_archive() {
            step.has_finished();
        }
        Ok(())
    }
}

//! SQL functions for messages whose numbers the caller knows, or that are this transaction's own. Their SQL side is
//! `sql/queue.sql`.

use super::arguments::{OnePerMessage, YEAR, moment, msg_ids, optional_duration, quantity};
use super::consume::batch::Batch;
use super::consume::reader::ReadRequest;
use super::consume::{claim, pick};
use super::functions::{all, queue, queue_to_write};
use crate::error::{Error, required};
use crate::export;
use crate::pg::catalog::Privilege;
use crate::pg::fmgr::{Call, Value};
use crate::pg::server;
use enough_engine::queue::Seen;

export!(
    enough_queue_read_these = read_these,
    enough_queue_read_own = read_own,
    enough_queue_reschedule = reschedule,
    enough_queue_attempts = attempts,
    enough_queue_visible_at = visible_at,
);

type Answer = Result<Value<'static>, Error>;

fn read_these(call: &mut Call<'_>) -> Answer {
    let queue = queue(call)?;
    let numbers = msg_ids(call.i64_array(1))?;
    let wish = ReadRequest {
        qty: numbers.len(),
        timeout: optional_duration(call.interval(2), "visibility_timeout", 0, YEAR)?,
        wait: 0,
        delete: false,
        whole_groups: false,
        function: "queue_read_these",
    };
    let mut rows = call.rows()?;
    pick::read_these(&queue, &numbers, &wish, &mut rows)?;
    Ok(rows.end())
}

fn read_own(call: &mut Call<'_>) -> Answer {
    let queue = queue(call)?;
    let wish = ReadRequest {
        qty: quantity(call.i32(1), 1)?,
        timeout: optional_duration(call.interval(2), "visibility_timeout", 0, YEAR)?,
        wait: 0,
        delete: true,
        whole_groups: false,
        function: "queue_read_own",
    };
    let only = call.i64_array(3).map(|given| msg_ids(Some(given))).transpose()?;
    let mut rows = call.rows()?;
    pick::read_own(&queue, &wish, only.as_deref(), &mut rows)?;
    Ok(rows.end())
}

fn reschedule(call: &mut Call<'_>) -> Answer {
    let queue = queue_to_write(call)?;
    let numbers = msg_ids(call.i64_array(1))?;
    let deliver_at = moment(required(call.instant(2), "deliver_at")?, server::now())?;
    claim::require_consume(&queue, "queue_reschedule")?;
    let batch = Batch::new(&numbers, &OnePerMessage::new(None, "leases", numbers.len())?);
    let table = queue.open_table(true)?;
    all(call, &batch.reschedule(&queue, &table, deliver_at)?.numbers())
}

/// How the memory has a message, for a role that may see it.
fn seen(call: &Call<'_>) -> Result<Option<Seen>, Error> {
    let queue = queue(call)?;
    let msg_id = required(call.i64(1), "msg_id")?;
    queue.require(Privilege::Observe)?;
    queue.index(|index, slot| index.seen(slot, msg_id, server::now()))
}

fn attempts(call: &mut Call<'_>) -> Answer {
    Ok(Value::or_null(seen(call)?, |seen| Value::I32(i32::try_from(seen.attempts).unwrap_or(i32::MAX))))
}

fn visible_at(call: &mut Call<'_>) -> Answer {
    Ok(Value::or_null(seen(call)?.and_then(|seen| seen.due), Value::Instant))
}

//! Changing a queue's options, pausing it and letting it go on. The row in `enough.queue` changes with the transaction, and
//! when it commits so does what all sessions go by.

use super::ddl::{change_exclusively, lock_name};
use crate::error::Error;
use crate::pg::catalog::Privilege;
use crate::pg::spi::{Parameter, as_owner_of, each_row, run};
use crate::pg::{catalog, level, own};
use crate::queue::consume::letters;
use crate::queue::handle::{Queue, require_write};
use crate::queue::keys;
use crate::queue::options::{OPTIONS, announce, in_registry, options_of};
use crate::queue::pending::{Action, remember};
use std::rc::Rc;

/// What `queue_alter` was asked for; times in microseconds, `None` for what stays as it is, 0 for no limit.
#[derive(Default)]
pub(in crate::queue) struct Change<'c> {
    pub visibility_timeout: Option<i64>,
    pub max_attempts: Option<i32>,
    pub retry_backoff: Option<i64>,
    pub retry_backoff_max: Option<i64>,
    pub max_in_flight: Option<i32>,
    pub max_rate: Option<i32>,
    pub rate_period: Option<i64>,
    pub archive_for: Option<i64>,
    pub unlogged: Option<bool>,
    pub paused: Option<bool>,
    pub durable_attempts: Option<bool>,
    /// `durable` or `async`.
    pub ack: Option<&'static str>,
    pub group_limit: Option<i32>,
    /// Empty for none.
    pub dead_letter_queue: Option<&'c [u8]>,
    pub notify: Option<bool>,
    /// `live`, `waiting` or `window`.
    pub dedup: Option<&'static str>,
    pub dedup_for: Option<i64>,
    pub group_rate: Option<i32>,
    pub group_rate_period: Option<i64>,
}

/// Changes a queue's options.
pub(in crate::queue) fn alter(name: &[u8], function: &'static str, change: &Change<'_>) -> Result<(), Error> {
    own::check(c"queue", &own::QUEUE)?;
    let rewrites = change.unlogged.is_some();
    let queue = permitted(name, function, rewrites)?;
    lock_name(&queue.name);
    let queue = permitted(name, function, rewrites)?;
    let dead_letter_queue = change.dead_letter_queue.map(|to| letters::destination(&queue.name, to)).transpose()?;
    if let Some(Some(to)) = &dead_letter_queue {
        // It is the table's owner that sends them there.
        as_owner_of(queue.table.live.relation, || to.require(Privilege::Send))?;
    }
    // A number of microseconds, or NULL for what the row has already.
    let interval = |column: &str, number: usize| {
        format!("{column} = coalesce(pg_catalog.justify_hours(i.t OPERATOR(pg_catalog.*) ${number}), {column})")
    };
    // 0 is written as NULL, which is no limit. (NULLIF would look for its operator in the caller's search path.)
    let limit = |column: &str, number: usize| {
        format!(
            "{column} = CASE WHEN ${number} IS NULL THEN {column} WHEN ${number} OPERATOR(pg_catalog.>) 0 THEN ${number} END"
        )
    };
    let statement = format!(
        "UPDATE enough.queue SET {}, max_attempts = coalesce($3, max_attempts), {}, {}, {}, {}, {}, \
                archive_for = CASE WHEN $9 IS NULL THEN archive_for \
                    WHEN $9 OPERATOR(pg_catalog.>) 0 THEN pg_catalog.justify_hours(i.t OPERATOR(pg_catalog.*) $9) END, \
                paused = coalesce($10, paused), durable_attempts = coalesce($11, durable_attempts), ack = coalesce($12, ack), \
                group_limit = coalesce($13, group_limit), \
                dead_letter_queue = CASE WHEN $14 THEN $15 ELSE dead_letter_queue END, notify = coalesce($16, notify), \
                dedup = coalesce($17, dedup), {}, {}, {} \
         FROM (VALUES (interval '1 microsecond')) AS i(t) WHERE name OPERATOR(pg_catalog.=) $1 RETURNING {OPTIONS}",
        interval("visibility_timeout", 2),
        interval("retry_backoff", 4),
        interval("retry_backoff_max", 5),
        limit("max_in_flight", 6),
        limit("max_rate", 7),
        interval("rate_period", 8),
        interval("dedup_for", 18),
        limit("group_rate", 19),
        interval("group_rate_period", 20),
    );
    let mut changed = None;
    in_registry(|| {
        each_row(
            &statement,
            &[
                Parameter::Text(&queue.name),
                Parameter::Micros(change.visibility_timeout),
                Parameter::OptionalI32(change.max_attempts),
                Parameter::Micros(change.retry_backoff),
                Parameter::Micros(change.retry_backoff_max),
                Parameter::OptionalI32(change.max_in_flight),
                Parameter::OptionalI32(change.max_rate),
                Parameter::Micros(change.rate_period),
                Parameter::Micros(change.archive_for),
                Parameter::OptionalBool(change.paused),
                Parameter::OptionalBool(change.durable_attempts),
                Parameter::OptionalText(change.ack),
                Parameter::OptionalI32(change.group_limit),
                Parameter::OptionalBool(Some(dead_letter_queue.is_some())),
                Parameter::OptionalText(dead_letter_queue.as_ref().and_then(|to| Some(to.as_ref()?.name.as_str()))),
                Parameter::OptionalBool(change.notify),
                Parameter::OptionalText(change.dedup),
                Parameter::Micros(change.dedup_for),
                Parameter::OptionalI32(change.group_rate),
                Parameter::Micros(change.group_rate_period),
            ],
            |row| {
                changed = Some(options_of(row)?);
                Ok(())
            },
        )
    })?;
    let options = changed.ok_or_else(|| crate::queue::name::missing(&queue.name))?;
    if let Some(unlogged) = change.unlogged {
        let kind = if unlogged { "UNLOGGED" } else { "LOGGED" };
        change_exclusively(&queue.name, || {
            for prefix in ["q_", "a_"] {
                run(&format!("ALTER TABLE {} SET {kind}", queue.relation(prefix)), &[])?;
            }
            Ok(())
        })?;
    }
    let dedup = change.dedup.is_some() || change.dedup_for.is_some();
    if dead_letter_queue.is_some() || change.notify.is_some() || dedup {
        announce()?;
    }
    if change.dedup.is_some_and(|dedup| dedup != "window") {
        keys::free_all(&queue)?;
    }
    if change.paused == Some(false) {
        queue.touch();
    }
    remember(queue.key, Action::Altered(options));
    Ok(())
}

/// The queue, which the caller must own; or be an operator, where its tables stay as they are.
pub(in crate::queue) fn permitted(name: &[u8], function: &'static str, rewrites: bool) -> Result<Rc<Queue>, Error> {
    let queue = Queue::open(name)?;
    require_write(function)?;
    if catalog::is_owner(queue.table.live.relation) || (!rewrites && level::is_operator()) {
        return Ok(queue);
    }
    let others = if rewrites { "" } else { ", and operators (enough.grant_to())," };
    Err(Error::Denied {
        what: format!("{function}() of queue \"{}\"", queue.name),
        hint: format!("Only the owner of the table enough.\"q_{}\"{others} may do that.", queue.name),
    })
}

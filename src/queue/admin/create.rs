//! Making, taking up and dropping a queue: its two tables (`tables.rs`), and its row in `enough.queue`.

use super::ddl::{change_exclusively, lock_name};
use super::tables::{self, ARCHIVE, LIVE};
use crate::cron;
use crate::error::Error;
use crate::pg::catalog::Privilege;
use crate::pg::server;
use crate::pg::spi::{Parameter, run};
use crate::pg::{catalog, own};
use crate::queue::consume::letters;
use crate::queue::handle::require_write;
use crate::queue::heap::table::QueueTable;
use crate::queue::name::{missing, relation, valid_name};
use crate::queue::options::{has_row, in_registry, load_options, redirect_dead_letters};
use crate::queue::pending::{Action, remember};
use crate::queue::sources;
use enough_engine::queue::QueueKey;

/// What `queue_create` was asked for; times in microseconds.
#[allow(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(in crate::queue) struct NewQueue<'c> {
    pub visibility_timeout: i64,
    pub max_attempts: i32,
    pub retry_backoff: i64,
    pub retry_backoff_max: i64,
    /// `None` for no limit.
    pub max_in_flight: Option<i32>,
    /// `None` for no limit.
    pub max_rate: Option<i32>,
    pub rate_period: i64,
    /// `None` keeps the archive for ever.
    pub archive_for: Option<i64>,
    pub unlogged: bool,
    pub if_not_exists: bool,
    pub durable_attempts: bool,
    /// `durable` or `async`.
    pub ack: &'static str,
    /// 0 for no limit.
    pub group_limit: i32,
    /// Empty for none.
    pub dead_letter_queue: &'c [u8],
    pub notify: bool,
    /// `live`, `waiting` or `window`.
    pub dedup: &'static str,
    pub dedup_for: i64,
    /// `None` for no limit.
    pub group_rate: Option<i32>,
    pub group_rate_period: i64,
}

/// Creates a queue, or, with `if_not_exists`, makes whole what is left of one; false where it was there already and whole.
pub(in crate::queue) fn create(name: &[u8], new: &NewQueue<'_>) -> Result<bool, Error> {
    let name = valid_name(name)?;
    if server::may_write() {
        lock_name(name);
    }
    let (table, archive) = (relation(LIVE, name), relation(ARCHIVE, name));
    let registered = has_row(name)?;
    let is_whole = table.is_some() && archive.is_some() && registered;
    if is_whole && new.if_not_exists {
        let found = table.map(|table| QueueTable::read(table, 0)).transpose()?.flatten();
        let lacks_columns = found.is_some_and(|found| !found.live.has_extra());
        // For others the queue is whole enough.
        if !lacks_columns || !server::may_write() || !table.is_some_and(catalog::is_owner) {
            return Ok(false);
        }
    }
    if !new.if_not_exists && (table.is_some() || archive.is_some()) {
        let what = if table.is_some() { "queue" } else { "archive of a queue" };
        let hint = match table {
            _ if is_whole => "Choose another name, or pass if_not_exists => true.".into(),
            Some(_) => format!("It has lost a part. {}", take_up(name)),
            None => format!("It is left over from a queue whose table is gone. Drop or rename it. {}", take_up(name)),
        };
        return Err(Error::Exists { what, name: name.into(), hint: hint.into() });
    }
    require_write("queue_create")?;
    for found in [table, archive].into_iter().flatten() {
        if !catalog::is_owner(found) {
            return Err(not_owner("taking up", name));
        }
    }
    require_create(name)?;
    tables::check_names(name, table.is_none(), archive.is_none())?;
    tables::complete(name, new.unlogged)?;
    let made = relation(LIVE, name).ok_or_else(|| missing(name))?;
    // Of a queue that has its row already the options stay.
    if !registered || (table.is_none() && archive.is_none()) {
        register(name, new)?;
    }
    let key = QueueKey { database: server::database(), relation: made };
    if table.is_none() {
        remember(key, Action::Created);
    } else {
        // The memory may know the table by other options, from before it lost its row.
        remember(key, Action::Altered(load_options(name)?));
    }
    Ok(true)
}

/// What a message says of a queue that is there but for a part.
fn take_up(name: &str) -> String {
    format!("To take up what is there, with its messages, call enough.queue_create('{name}', if_not_exists => true).")
}

pub(in crate::queue) fn not_owner(what: &str, name: &str) -> Error {
    Error::Denied {
        what: format!("{what} queue \"{name}\""),
        hint: format!("Only the owner of the tables enough.\"q_{name}\" and enough.\"a_{name}\" may do that."),
    }
}

/// Fails where the role may not make tables in the schema.
pub(in crate::queue) fn require_create(name: &str) -> Result<(), Error> {
    if catalog::may_create() {
        return Ok(());
    }
    Err(Error::Denied {
        what: format!("creating queue \"{name}\""),
        hint: "This needs CREATE on the schema enough; its owner grants that, or calls enough.grant_to(role, 'admin')."
            .into(),
    })
}

/// Notes a queue's options.
fn register(name: &str, new: &NewQueue<'_>) -> Result<(), Error> {
    own::check(c"queue", &own::QUEUE)?;
    let dead_letter_queue = letters::destination(name, new.dead_letter_queue)?;
    if let Some(to) = &dead_letter_queue {
        to.require(Privilege::Send)?;
    }
    in_registry(|| {
        // A row of that name is left over where somebody dropped the tables by hand. With it go that queue's subscriptions.
        run("DELETE FROM enough.queue WHERE name OPERATOR(pg_catalog.=) $1", &[Parameter::Text(name)])?;
        run(
            "INSERT INTO enough.queue (name, visibility_timeout, max_attempts, retry_backoff, retry_backoff_max, \
                    max_in_flight, max_rate, rate_period, archive_for, durable_attempts, ack, group_limit, dead_letter_queue, notify, dedup, dedup_for, \
                    group_rate, group_rate_period) \
             SELECT $1, pg_catalog.justify_hours(i.t OPERATOR(pg_catalog.*) $2), $3, pg_catalog.justify_hours(i.t OPERATOR(pg_catalog.*) $4), pg_catalog.justify_hours(i.t OPERATOR(pg_catalog.*) $5), \
                    $6, $7, pg_catalog.justify_hours(i.t OPERATOR(pg_catalog.*) $8), \
                    pg_catalog.justify_hours(i.t OPERATOR(pg_catalog.*) $9), $10, $11, $12, $13, $14, $15, pg_catalog.justify_hours(i.t OPERATOR(pg_catalog.*) $16), \
                    $17, pg_catalog.justify_hours(i.t OPERATOR(pg_catalog.*) $18) FROM (VALUES (interval '1 microsecond')) AS i(t) \
             ON CONFLICT (name) DO UPDATE SET created_at = EXCLUDED.created_at, \
                    visibility_timeout = EXCLUDED.visibility_timeout, max_attempts = EXCLUDED.max_attempts, \
                    retry_backoff = EXCLUDED.retry_backoff, retry_backoff_max = EXCLUDED.retry_backoff_max, \
                    max_in_flight = EXCLUDED.max_in_flight, max_rate = EXCLUDED.max_rate, \
                    rate_period = EXCLUDED.rate_period, archive_for = EXCLUDED.archive_for, paused = false, \
                    durable_attempts = EXCLUDED.durable_attempts, ack = EXCLUDED.ack, \
                    group_limit = EXCLUDED.group_limit, dead_letter_queue = EXCLUDED.dead_letter_queue, notify = EXCLUDED.notify, \
                    dedup = EXCLUDED.dedup, dedup_for = EXCLUDED.dedup_for, \
                    group_rate = EXCLUDED.group_rate, group_rate_period = EXCLUDED.group_rate_period",
            &[
                Parameter::Text(name),
                Parameter::Micros(Some(new.visibility_timeout)),
                Parameter::I32(new.max_attempts),
                Parameter::Micros(Some(new.retry_backoff)),
                Parameter::Micros(Some(new.retry_backoff_max)),
                Parameter::OptionalI32(new.max_in_flight),
                Parameter::OptionalI32(new.max_rate),
                Parameter::Micros(Some(new.rate_period)),
                Parameter::Micros(new.archive_for),
                Parameter::OptionalBool(Some(new.durable_attempts)),
                Parameter::Text(new.ack),
                Parameter::I32(new.group_limit),
                Parameter::OptionalText(dead_letter_queue.as_ref().map(|to| to.name.as_str())),
                Parameter::OptionalBool(Some(new.notify)),
                Parameter::Text(new.dedup),
                Parameter::Micros(Some(new.dedup_for)),
                Parameter::OptionalI32(new.group_rate),
                Parameter::Micros(Some(new.group_rate_period)),
            ],
        )
    })?;
    Ok(())
}

/// Drops a queue with all its messages, or what is left of one; false where there is nothing and that is fine.
pub(in crate::queue) fn drop_queue(name: &[u8], if_exists: bool) -> Result<bool, Error> {
    let name = valid_name(name)?;
    let may_drop = || {
        let found = [relation(LIVE, name), relation(ARCHIVE, name)];
        let registered = has_row(name)?;
        if found == [None; 2] && !registered {
            return if if_exists { Ok(None) } else { Err(missing(name)) };
        }
        if found.into_iter().flatten().any(|found| !catalog::is_owner(found)) {
            return Err(not_owner("dropping", name));
        }
        if found == [None; 2] {
            // A row without tables has no owner: a role that may make a queue of that name may remove it.
            require_create(name)?;
        }
        Ok(Some(found))
    };
    if may_drop()?.is_some() {
        require_write("queue_drop")?;
    }
    if server::may_write() {
        lock_name(name);
    }
    let Some([table, archive]) = may_drop()? else { return Ok(false) };
    if let Some(relation) = table {
        sources::require_none(name, relation)?;
    }
    for (found, prefix) in [(table, LIVE), (archive, ARCHIVE)] {
        if found.is_some() {
            change_exclusively(name, || run(&format!("DROP TABLE IF EXISTS enough.\"{prefix}{name}\""), &[]))?;
        }
    }
    in_registry(|| run("DELETE FROM enough.queue WHERE name OPERATOR(pg_catalog.=) $1", &[Parameter::Text(name)]))?;
    redirect_dead_letters(name, None)?;
    cron::end_sending_to(name)?;
    if let Some(relation) = table {
        remember(QueueKey { database: server::database(), relation }, Action::Dropped);
    }
    Ok(true)
}

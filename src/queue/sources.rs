//! Tables as sources: what the triggers do that `queue_send_on` makes (`sql/sources.sql`), and what becomes of them with their
//! queue.
//!
//! A trigger's arguments are the queue's name and the columns. It sends with the rights of the table's owner: a role that writes
//! the table needs none on the queue. A partition's trigger that was made with one of the whole table has that table's name and
//! owner.

use super::admin::ddl::{change_exclusively, lock_name};
use super::handle::Queue;
use super::heap::insert::NewRow;
use super::name::valid_name;
use super::send::send;
use crate::error::{Error, required};
use crate::export;
use crate::pg::catalog::{self, Privilege};
use crate::pg::changes::{About, Changes};
use crate::pg::encoding::decode;
use crate::pg::fmgr::{Call, Jsonb, Value};
use crate::pg::server;
use crate::pg::spi::{Parameter, as_owner_of, read_rows, read_rows_kept, run};
use crate::pg::trigger::{Event, Trigger};
use std::cell::RefCell;
use std::collections::HashMap;

export!(enough_queue_send_by_trigger = send_by_trigger, enough_queue_source = check);

type Answer = Result<Value<'static>, Error>;

/// A table's name as part of a statement, for messages.
fn qualified(table: u32) -> String {
    let mut name = None;
    let statement = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class AS c \
                     JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
                     WHERE c.oid OPERATOR(pg_catalog.=) $1::pg_catalog.oid";
    // Where it can't be had the message goes without.
    let _ = read_rows(statement, &[Parameter::I64(table.into())], |row| {
        name = crate::pg::spi::text(row, 1)?;
        Ok(())
    });
    name.unwrap_or_else(|| table.to_string())
}

thread_local! {
    /// The table on which the trigger was made whose partitions have triggers of these OIDs; and how far the invalidations were.
    static TABLES: RefCell<(u64, HashMap<u32, u32>)> = RefCell::default();
}

/// The table on which a trigger was made.
fn table_of(trigger: &Trigger<'_>) -> Result<u32, Error> {
    let Some(clone) = trigger.clone_id() else { return Ok(trigger.relation()) };
    let known = TABLES.with_borrow_mut(|(epoch, tables)| {
        let now = catalog::relcache_epoch();
        if *epoch != now {
            *epoch = now;
            tables.clear();
        }
        tables.get(&clone).copied()
    });
    if let Some(table) = known {
        return Ok(table);
    }
    let mut found = trigger.relation();
    read_rows_kept(
        "WITH RECURSIVE up AS (\
             SELECT tgrelid, tgparentid FROM pg_catalog.pg_trigger WHERE oid OPERATOR(pg_catalog.=) $1::pg_catalog.oid \
             UNION ALL \
             SELECT t.tgrelid, t.tgparentid FROM pg_catalog.pg_trigger AS t JOIN up ON t.oid OPERATOR(pg_catalog.=) up.tgparentid) \
         SELECT tgrelid::pg_catalog.int8 FROM up WHERE tgparentid OPERATOR(pg_catalog.=) 0::pg_catalog.oid",
        &[Parameter::I64(clone.into())],
        |row| {
            found = row.get::<i64>(1)?.and_then(|table| u32::try_from(table).ok()).unwrap_or(found);
            Ok(())
        },
    )?;
    TABLES.with_borrow_mut(|(epoch, tables)| {
        // Reading the catalogs may itself have taken in an invalidation.
        if *epoch == catalog::relcache_epoch() {
            tables.insert(clone, found);
        }
    });
    Ok(found)
}

/// Sends messages to a queue with the rights of a table's owner.
fn send_as_owner(table: u32, queue: &[u8], messages: &[Jsonb<'_>]) -> Result<(), Error> {
    let enqueued_at = server::now();
    let rows: Vec<NewRow<'_>> = messages.iter().map(|&message| NewRow::new(enqueued_at, message)).collect();
    as_owner_of(table, || {
        let queue = Queue::open_locked(queue, true).map_err(|error| match error {
            Error::Missing { name, .. } => Error::SourceWithoutQueue { table: qualified(table), queue: name },
            other => other,
        })?;
        send(&queue, "queue_send_by_trigger", &rows)?;
        Ok(())
    })
}

/// `queue_send_by_trigger`
fn send_by_trigger(call: &mut Call<'_>) -> Answer {
    let Some((trigger, queue)) = call.trigger().and_then(|trigger| trigger.argument(0).map(|queue| (trigger, queue)))
    else {
        return Err(Error::NotReady {
            problem: "queue_send_by_trigger() was not called by a trigger with a queue's name as its argument".into(),
            hint: "Make the trigger with enough.queue_send_on().".into(),
        });
    };
    let table = table_of(&trigger)?;
    let (schema, name) = catalog::names_of(table).ok_or_else(|| Error::NotReady {
        problem: "the table whose changes are sent was dropped by another session".into(),
        hint: "Call again.".into(),
    })?;
    let event = match trigger.event() {
        Event::Insert => "insert",
        Event::Update => "update",
        Event::Delete => "delete",
        Event::Truncate => "truncate",
    };
    let about = About { event: event.as_bytes(), schema: &schema, table: &name };
    let columns: Vec<&[u8]> = trigger.arguments_from(1).collect();
    let mut changes = Changes::of(&trigger, &columns).map_err(|column| Error::SourceWithoutColumn {
        table: qualified(table),
        column: decode(column).into_owned(),
        queue: decode(queue).into_owned(),
    })?;
    if trigger.event() == Event::Truncate {
        let message = changes.without_rows(&about);
        send_as_owner(table, queue, &[message])?;
    } else {
        changes.each_batch(&about, |messages| send_as_owner(table, queue, messages))?;
    }
    Ok(Value::VOID)
}

/// `(tbl, queue)`: fails where the owner of the table may not send to the queue. No other session makes, renames or drops the
/// queue before the transaction ends.
fn check(call: &mut Call<'_>) -> Answer {
    let table = required(call.i32(0), "tbl")?.cast_unsigned();
    let name = required(call.bytes(1), "queue")?;
    lock_name(valid_name(name)?);
    let queue = Queue::open(name)?;
    as_owner_of(table, || Ok(queue.may(Privilege::Send)))?.then_some(()).ok_or_else(|| Error::Denied {
        what: format!("queue \"{}\" for the owner of table {}", queue.name, qualified(table)),
        hint: format!(
            "The owner of the table needs INSERT on enough.\"q_{0}\", as enough.queue_grant('{0}', <role>, 'send') gives it.",
            queue.name
        ),
    })?;
    Ok(Value::VOID)
}

/// The triggers that are not made with those of another table, with the queue as `$1`.
const TRIGGERS: &str = "\
    pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) t.tgrelid \
    WHERE t.tgfoid OPERATOR(pg_catalog.=) 'enough.queue_send_by_trigger()'::pg_catalog.regprocedure::pg_catalog.oid \
    AND t.tgparentid OPERATOR(pg_catalog.=) 0::pg_catalog.oid \
    AND pg_catalog.split_part(pg_catalog.encode(t.tgargs, 'escape'), E'\\\\000', 1) OPERATOR(pg_catalog.=) $1";

/// Fails where the owner of a table whose changes are sent to a queue may still send.
pub(super) fn require_none(queue: &str, relation: u32) -> Result<(), Error> {
    let mut table = None;
    let statement = format!(
        "SELECT t.tgrelid::pg_catalog.int8 FROM {TRIGGERS} \
         AND pg_catalog.has_table_privilege(c.relowner, $2::pg_catalog.oid, 'INSERT') ORDER BY 1 LIMIT 1"
    );
    read_rows(&statement, &[Parameter::Text(queue), Parameter::I64(relation.into())], |row| {
        table = row.get::<i64>(1)?;
        Ok(())
    })?;
    match table.and_then(|table| u32::try_from(table).ok()) {
        Some(table) => Err(Error::HasSource { table: qualified(table), queue: queue.into() }),
        None => Ok(()),
    }
}

/// Lets the triggers that send to a queue go on under its new name.
pub(super) fn follow(from: &str, to: &str) -> Result<(), Error> {
    let mut tables = Vec::new();
    read_rows(
        &format!("SELECT DISTINCT t.tgrelid::pg_catalog.int8 FROM {TRIGGERS} ORDER BY 1"),
        &[Parameter::Text(from)],
        |row| {
            tables.extend(row.get::<i64>(1)?);
            Ok(())
        },
    )?;
    for table in tables {
        let parameters = [Parameter::I64(table), Parameter::Text(from), Parameter::Text(to)];
        let again = || {
            as_owner_of(u32::try_from(table).unwrap_or(0), || {
                run("SELECT enough._queue_source_rename($1::pg_catalog.oid::pg_catalog.regclass, $2, $3)", &parameters)
            })
        };
        change_exclusively(from, again)?;
    }
    Ok(())
}

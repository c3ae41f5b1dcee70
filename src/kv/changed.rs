//! What the triggers of a space's table do, however it is changed: wake the sessions that watch it, and leave a row without a value of what was
//! deleted by hand.

use super::table::{MADE_BY, Space};
use super::write::KEPT;
use super::{mark, version, wake};
use crate::error::Error;
use crate::pg::fmgr::{Call, Value};
use crate::pg::spi::{Parameter, as_owner_of, run};
use crate::pg::trigger::{Event, TriggerRow};
use std::cell::Cell;

thread_local! {
    /// Whether rows go that are over: nothing is to be left of those.
    static ENDING: Cell<bool> = const { Cell::new(false) };
}

/// Does `work`, which deletes rows for good.
pub(super) fn for_good<R>(work: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            ENDING.set(false);
        }
    }
    ENDING.set(true);
    let _restore = Restore;
    work()
}

/// `_kv_changed()`, with how many versions of a key the space keeps as the argument of the trigger for rows.
pub(super) fn changed(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let trigger = call.required_trigger("_kv_changed", MADE_BY)?;
    let table = trigger.relation();
    match (trigger.event(), trigger.rows()) {
        (Event::Delete, Some([Some(row), _])) => {
            if !ENDING.get() {
                let kept = trigger.argument(0).and_then(|kept| std::str::from_utf8(kept).ok()?.parse().ok());
                bury(&Space::of_table(table)?, row, kept.unwrap_or(0))?;
            }
        }
        (Event::Truncate, _) => {
            // Before the statement and after it, because RESTART IDENTITY sets the sequence back in between.
            let space = Space::of_table(table)?;
            mark::gone(&space, as_owner_of(table, || version::next(&space))?)?;
            as_owner_of(table, || version::pass_greatest(&space))?;
            wake::note(table);
        }
        _ => wake::note(table),
    }
    Ok(Value::VOID)
}

/// Leaves a row without a value of one that was deleted, with a version of its own. As the table's owner, because a role that may delete needn't
/// be one that may insert.
fn bury(space: &Space, row: TriggerRow<'_>, kept: i32) -> Result<(), Error> {
    let parameters = [Parameter::Row(row), Parameter::I32(kept)];
    let (column, value, parameters) = if kept > 0 {
        let past = "(pg_catalog.array_prepend(ROW(($1).version, ($1).value, ($1).updated_at)::enough.kv_change, ($1).past))[1:$2]";
        (", past", format!(", {past}"), &parameters[..])
    } else {
        ("", String::new(), &parameters[..1])
    };
    as_owner_of(space.oid, || {
        run(
            &format!(
                "INSERT INTO {} AS e (key, expires_at{column}) \
                 SELECT ($1).key, pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) {KEPT}{value} \
                 ON CONFLICT (key) DO NOTHING",
                space.table
            ),
            parameters,
        )
    })?;
    Ok(())
}

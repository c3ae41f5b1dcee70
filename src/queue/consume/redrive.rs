//! Dead letters: looking at them, and giving them another life.

use super::bury;
use crate::error::Error;
use crate::pg::catalog::{Privilege, row_security};
use crate::pg::fmgr::{Rows, Value};
use crate::pg::server;
use crate::pg::spi::{Parameter, column, each_row, read_rows, run};
use crate::queue::entry::{ENTRY, entry_of};
use crate::queue::handle::Queue;
use crate::queue::pending::{Action, remember};

/// Dead letters moved by one statement.
const PAGE: i64 = 1000;

/// Adds up to `qty` dead letters, those that died last first.
pub(in crate::queue) fn dead(queue: &Queue, qty: i64, rows: &mut Rows<'_>) -> Result<(), Error> {
    queue.require(Privilege::Observe)?;
    queue.in_archive(|| {
        read_rows(
            &format!(
                "SELECT msg_id, attempts, error, finished_at, headers, message FROM {} \
                 WHERE outcome OPERATOR(pg_catalog.=) 'dead' ORDER BY finished_at DESC LIMIT $1",
                queue.relation("a_")
            ),
            &[Parameter::I64(qty)],
            |row| {
                let mut values = [Value::Null; 6];
                for (value, number) in values.iter_mut().zip(1..) {
                    *value = column(row, number)?;
                }
                rows.push(&values)
            },
        )
    })?;
    Ok(())
}

/// Moves dead letters back: those of `numbers`, or all. How many there were. One whose dedup key a live message has stays.
pub(in crate::queue) fn redrive(queue: &Queue, numbers: Option<&[i64]>) -> Result<i64, Error> {
    if !row_security(queue.table.live.relation) {
        queue.require_one_owner()?;
    }
    // Also those that nobody has buried yet.
    bury::expire(queue, i64::MAX)?;
    bury::bury(queue, i64::MAX, i64::MAX)?;
    let (mut after, mut moved) = (None, 0);
    let chosen = numbers.map_or("", |_| "AND msg_id OPERATOR(pg_catalog.=) ANY ($3)");
    let page = format!(
        "SELECT msg_id FROM {} WHERE outcome OPERATOR(pg_catalog.=) 'dead' \
         AND ($1 IS NULL OR msg_id OPERATOR(pg_catalog.>) $1) {chosen} ORDER BY msg_id LIMIT $2 FOR UPDATE",
        queue.relation("a_")
    );
    loop {
        let mut found = Vec::new();
        let mut parameters = vec![Parameter::OptionalI64(after), Parameter::I64(PAGE)];
        parameters.extend(numbers.map(Parameter::Numbers));
        queue.in_archive(|| {
            each_row(&page, &parameters, |row| {
                found.extend(row.get::<i64>(1)?);
                Ok(())
            })
        })?;
        let Some(&last) = found.last() else { return Ok(moved) };
        after = Some(last);
        moved += move_back(queue, &found)?;
        server::check_for_interrupts();
    }
}

fn move_back(queue: &Queue, numbers: &[i64]) -> Result<i64, Error> {
    let mut back = Vec::with_capacity(numbers.len());
    queue.in_archive(|| {
        each_row(
            &format!(
                "INSERT INTO {} (msg_id, enqueued_at, priority, group_key, dedup_key, headers, message, last_error) \
                 SELECT msg_id, enqueued_at, priority, group_key, dedup_key, headers, message, error FROM {} \
                 WHERE msg_id OPERATOR(pg_catalog.=) ANY ($1) ORDER BY msg_id ON CONFLICT DO NOTHING RETURNING {ENTRY}",
                queue.relation("q_"),
                queue.relation("a_"),
            ),
            &[Parameter::Numbers(numbers)],
            |row| {
                let entry = entry_of(row, false)?;
                back.push(entry.msg_id);
                remember(queue.key, Action::Redriven(entry));
                Ok(())
            },
        )?;
        run(
            &format!("DELETE FROM {} WHERE msg_id OPERATOR(pg_catalog.=) ANY ($1)", queue.relation("a_")),
            &[Parameter::Numbers(&back)],
        )
    })?;
    Ok(back.len() as i64)
}

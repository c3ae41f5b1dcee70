//! Dead letters: looking at them, and giving them another life, in their queue or in another one.

use super::bury;
use super::letters::letters;
use crate::error::Error;
use crate::pg::catalog::{Privilege, row_security};
use crate::pg::fmgr::{Jsonb, Rows, Value};
use crate::pg::server;
use crate::pg::setting::by_index;
use crate::pg::spi::{Parameter, column, each_row, read_rows, run};
use crate::queue::entry::{ENTRY, entry_of};
use crate::queue::handle::Queue;
use crate::queue::pending::{Action, remember};

/// Dead letters moved by one statement.
const PAGE: i64 = 1000;

/// Adds up to `qty` dead letters, those that died last first.
pub(in crate::queue) fn dead(queue: &Queue, qty: i64, rows: &mut Rows<'_>) -> Result<(), Error> {
    queue.require(Privilege::Observe)?;
    by_index(|| {
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
        })
    })?;
    Ok(())
}

/// Which dead letters are meant: all that fit each of these.
pub(in crate::queue) struct Which<'c> {
    /// Those numbers.
    pub numbers: Option<&'c [i64]>,
    /// Dead before that time, in microseconds.
    pub died_before: Option<i64>,
    /// Payloads that contain this.
    pub matching: Option<Jsonb<'c>>,
    /// At most so many, in the order of their numbers.
    pub max: Option<i64>,
}

/// Moves dead letters back, or sends them to another queue; how many there were. One whose dedup key a live message has stays.
pub(in crate::queue) fn redrive(queue: &Queue, which: &Which<'_>, to: Option<&Queue>) -> Result<i64, Error> {
    if !row_security(queue.table.live.relation) {
        queue.require_one_owner()?;
    }
    // Also those that nobody has buried yet.
    bury::expire(queue, i64::MAX)?;
    bury::bury(queue, i64::MAX, i64::MAX)?;
    let (mut after, mut moved) = (None, 0);
    let page = format!(
        "SELECT msg_id FROM {} WHERE outcome OPERATOR(pg_catalog.=) 'dead' \
         AND ($1 IS NULL OR msg_id OPERATOR(pg_catalog.>) $1) {} \
         AND ($3 IS NULL OR finished_at OPERATOR(pg_catalog.<) $3) \
         AND ($4 IS NULL OR message OPERATOR(pg_catalog.@>) $4) ORDER BY msg_id LIMIT $2 FOR UPDATE",
        queue.relation("a_"),
        which.numbers.map_or("", |_| "AND msg_id OPERATOR(pg_catalog.=) ANY ($5)"),
    );
    loop {
        let left = which.max.map_or(PAGE, |max| max.saturating_sub(moved).min(PAGE));
        let mut found = Vec::new();
        let mut parameters = vec![
            Parameter::OptionalI64(after),
            Parameter::I64(left),
            Parameter::Instant(which.died_before),
            Parameter::Json(which.matching),
        ];
        parameters.extend(which.numbers.map(Parameter::Numbers));
        by_index(|| {
            queue.in_archive(|| {
                each_row(&page, &parameters, |row| {
                    found.extend(row.get::<i64>(1)?);
                    Ok(())
                })
            })
        })?;
        let Some(&last) = found.last() else { return Ok(moved) };
        after = Some(last);
        moved += match to {
            Some(to) => move_to(queue, to, &found)?,
            None => move_back(queue, &found)?,
        };
        server::check_for_interrupts();
    }
}

/// Sends dead letters to another queue, with the caller's rights there.
fn move_to(queue: &Queue, to: &Queue, numbers: &[i64]) -> Result<i64, Error> {
    let mut gone = Vec::with_capacity(numbers.len());
    for letter in letters(queue, numbers)? {
        if letter.send_to(to)? {
            gone.push(letter.msg_id);
        }
    }
    queue.in_archive(|| {
        run(
            &format!("DELETE FROM {} WHERE msg_id OPERATOR(pg_catalog.=) ANY ($1)", queue.relation("a_")),
            &[Parameter::Numbers(&gone)],
        )
    })?;
    let dead = gone.len() as i64;
    remember(queue.key, Action::Forgotten { done: 0, dead });
    Ok(dead)
}

fn move_back(queue: &Queue, numbers: &[i64]) -> Result<i64, Error> {
    queue.touch();
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

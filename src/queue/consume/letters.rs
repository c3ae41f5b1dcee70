//! Dead letters that are sent to another queue: as new messages of that one, with numbers of its own. By hand, or as they die
//! where their queue has a dead letter queue.

use crate::error::Error;
use crate::pg::catalog::Privilege;
use crate::pg::fmgr::{Jsonb, Text};
use crate::pg::savepoint::{attempt, warn};
use crate::pg::server;
use crate::pg::spi::{Parameter, as_owner_of, jsonb_bytes, read_rows, text_bytes};
use crate::queue::handle::Queue;
use crate::queue::heap::insert::NewRow;
use crate::queue::options::session_options;
use crate::queue::store::store;
use std::rc::Rc;

/// A dead letter as it lies in the archive. Texts in the database's encoding, `jsonb` by its binary form.
pub(in crate::queue) struct Letter {
    pub msg_id: i64,
    priority: i16,
    group_key: Option<Vec<u8>>,
    dedup_key: Option<Vec<u8>>,
    headers: Option<Vec<u8>>,
    message: Vec<u8>,
}

/// The columns of an archive that [`letter_of`] reads, in their order.
const LETTER: &str = "msg_id, priority, group_key, dedup_key, headers, message";

fn letter_of(row: &pgrx::spi::SpiHeapTupleData<'_>) -> Result<Letter, Error> {
    let text = |number| Ok::<_, Error>(text_bytes(row, number)?.map(<[u8]>::to_vec));
    let jsonb = |number| Ok::<_, Error>(jsonb_bytes(row, number)?.map(<[u8]>::to_vec));
    Ok(Letter {
        msg_id: row.get::<i64>(1)?.unwrap_or(0),
        priority: row.get::<i16>(2)?.unwrap_or(0).clamp(0, 9),
        group_key: text(3)?,
        dedup_key: text(4)?,
        headers: jsonb(5)?,
        message: jsonb(6)?.unwrap_or_default(),
    })
}

/// The dead letters of these numbers, in their order; for a caller that has locked their rows.
pub(in crate::queue) fn letters(queue: &Queue, numbers: &[i64]) -> Result<Vec<Letter>, Error> {
    let mut letters = Vec::with_capacity(numbers.len());
    let statement = format!(
        "SELECT {LETTER} FROM {} WHERE msg_id OPERATOR(pg_catalog.=) ANY ($1) ORDER BY msg_id",
        queue.relation("a_")
    );
    queue.in_archive(|| {
        read_rows(&statement, &[Parameter::Numbers(numbers)], |row| {
            letters.push(letter_of(row)?);
            Ok(())
        })
    })?;
    Ok(letters)
}

/// A queue's dead letter queue, by the name that was given for it; `None` for an empty one. Fails where it is no queue, or where
/// dead letters would come back to where they died.
pub(in crate::queue) fn destination(queue: &str, to: &[u8]) -> Result<Option<Rc<Queue>>, Error> {
    if to.is_empty() {
        return Ok(None);
    }
    let found = Queue::open(to)?;
    let mut next = Some(found.name.clone());
    let mut chain = Vec::new();
    while let Some(name) = next {
        if name == queue {
            let what = if chain.is_empty() { "the queue itself" } else { "its dead letters come back to this one" };
            return Err(Error::invalid(
                "dead_letter_queue",
                format!("\"{}\" ({what})", found.name),
                "a queue whose dead letters go elsewhere",
            ));
        }
        next = if chain.contains(&name) { None } else { session_options(&name)?.and_then(|one| one.dead_letter_queue) };
        chain.push(name);
    }
    Ok(Some(found))
}

/// Sends a message that has just died to its queue's dead letter queue, with the rights of the table's owner. Where that fails
/// the message is dead all the same: it is in the archive.
pub(in crate::queue) fn send_dead_letter(queue: &Queue, msg_id: i64, to: &str) -> Result<(), Error> {
    let sent = attempt(|| {
        as_owner_of(queue.table.live.relation, || {
            let to = Queue::open_locked(to.as_bytes(), true)?;
            to.require(Privilege::Send)?;
            let letter = obituary(queue, msg_id)?;
            letter.map_or(Ok(()), |letter| letter.send_to(&to).map(drop))
        })
    });
    let Err(failure) = sent else { return Ok(()) };
    let (code, message) = failure.answered()?;
    warn(code, format!("dead letter {msg_id} of queue \"{}\" can't be sent to queue \"{to}\": {message}", queue.name));
    Ok(())
}

/// A dead letter as a dead letter queue gets it: its headers say what it died of. It has no dedup key, so that all get there.
fn obituary(queue: &Queue, msg_id: i64) -> Result<Option<Letter>, Error> {
    let mut letter = None;
    let statement = format!(
        "SELECT msg_id, priority, group_key, NULL::pg_catalog.text, \
                CASE WHEN headers IS NULL THEN '{{}}'::pg_catalog.jsonb \
                     WHEN pg_catalog.jsonb_typeof(headers) OPERATOR(pg_catalog.=) 'object' THEN headers \
                     ELSE pg_catalog.jsonb_build_object('headers', headers) END \
                OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object('dead_letter', pg_catalog.jsonb_build_object( \
                    'source', $2, 'msg_id', msg_id, 'error', error, 'attempts', attempts, 'dedup_key', dedup_key)), \
                message \
         FROM {} WHERE msg_id OPERATOR(pg_catalog.=) $1",
        queue.relation("a_")
    );
    queue.as_archive_owner(|| {
        read_rows(&statement, &[Parameter::I64(msg_id), Parameter::Text(&queue.name)], |row| {
            letter = Some(letter_of(row)?);
            Ok(())
        })
    })?;
    Ok(letter)
}

impl Letter {
    /// Sends it to another queue, with the caller's rights; false where a live message there has its dedup key.
    pub(in crate::queue) fn send_to(&self, queue: &Queue) -> Result<bool, Error> {
        let row = NewRow {
            priority: self.priority,
            group_key: self.group_key.as_deref().map(Text::copied),
            dedup_key: self.dedup_key.as_deref().map(Text::copied),
            headers: self.headers.as_deref().map(Jsonb::copied),
            ..NewRow::new(server::now(), Jsonb::copied(&self.message))
        };
        Ok(store(queue, &row)?.is_some())
    }
}

//! Dead letters that are sent to another queue: as new messages of that one, with numbers of its own.

use crate::error::Error;
use crate::pg::fmgr::{Jsonb, Text};
use crate::pg::server;
use crate::pg::spi::{Parameter, read_rows, text_bytes};
use crate::queue::handle::Queue;
use crate::queue::heap::insert::NewRow;
use crate::queue::store::store;

/// A dead letter as it lies in the archive. Texts in the database's encoding, `jsonb` by its binary form.
pub(in crate::queue) struct Letter {
    pub msg_id: i64,
    priority: i16,
    group_key: Option<Vec<u8>>,
    dedup_key: Option<Vec<u8>>,
    headers: Option<Vec<u8>>,
    message: Vec<u8>,
}

/// The dead letters of these numbers, in their order; for a caller that has locked their rows.
pub(in crate::queue) fn letters(queue: &Queue, numbers: &[i64]) -> Result<Vec<Letter>, Error> {
    let mut letters = Vec::with_capacity(numbers.len());
    let statement = format!(
        "SELECT msg_id, priority, group_key, dedup_key, headers, message FROM {} \
         WHERE msg_id OPERATOR(pg_catalog.=) ANY ($1) ORDER BY msg_id",
        queue.relation("a_")
    );
    queue.in_archive(|| {
        read_rows(&statement, &[Parameter::Numbers(numbers)], |row| {
            let copy = |number| Ok::<_, Error>(text_bytes(row, number)?.map(<[u8]>::to_vec));
            letters.push(Letter {
                msg_id: row.get::<i64>(1)?.unwrap_or(0),
                priority: row.get::<i16>(2)?.unwrap_or(0).clamp(0, 9),
                group_key: copy(3)?,
                dedup_key: copy(4)?,
                headers: copy(5)?,
                message: copy(6)?.unwrap_or_default(),
            });
            Ok(())
        })
    })?;
    Ok(letters)
}

impl Letter {
    /// Sends it to another queue, with the caller's rights; false where a live message there has its dedup key.
    pub(in crate::queue) fn send_to(&self, queue: &Queue) -> Result<bool, Error> {
        let row = NewRow {
            enqueued_at: server::now(),
            deliver_at: None,
            priority: self.priority,
            group_key: self.group_key.as_deref().map(Text::copied),
            dedup_key: self.dedup_key.as_deref().map(Text::copied),
            headers: self.headers.as_deref().map(Jsonb::copied),
            message: Jsonb::copied(&self.message),
        };
        Ok(store(queue, &row)?.is_some())
    }
}

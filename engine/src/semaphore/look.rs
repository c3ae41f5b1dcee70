//! Who holds what.

use super::records::{E, HOLDER, MAX_NAME, R};
use super::table::Table;
use crate::words::Corrupt;

/// One that holds a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The length of the name.
    pub len: usize,
    /// Its token.
    pub token: i64,
    /// The process ID of the session that took it.
    pub pid: u32,
    /// Since when.
    pub since: i64,
    /// Until when at the most.
    pub expires_at: i64,
}

impl Table<'_> {
    /// The first holder of a name of `database` at or after a record, 1 for the first one, with the name in `text`, and where to
    /// go on.
    pub fn holder_from(
        &self,
        database: u32,
        start: u32,
        text: &mut [u8; MAX_NAME],
    ) -> Result<Option<(Holder, u32)>, Corrupt> {
        for record in start.max(1)..=self.all.count as u32 {
            if self.all.kind(record)? != HOLDER || self.until(record)? <= self.now {
                continue;
            }
            let name = self.all.pair(record, E::Owner as usize)?.0;
            if self.all.pair(name, R::Database as usize)?.0 != database {
                continue;
            }
            let holder = Holder {
                len: self.all.text(name, text)?,
                token: self.all.get(record, E::Token as usize)?.cast_signed(),
                pid: self.all.pair(record, E::Who as usize)?.0,
                since: self.all.get(record, E::Since as usize)?.cast_signed(),
                expires_at: self.until(record)?,
            };
            return Ok(Some((holder, record + 1)));
        }
        Ok(None)
    }
}

//! Whether a partition is whole. Asked where no memory is left: garbage may say so, too, and would say so for ever, as nothing that
//! expires would free what no list has.

use super::records::{E, FREE, HOLDER, Head, NAME, PIECE, R, Records, WAITER};
use super::table::Table;
use crate::words::Corrupt;

/// How many records of each kind have been reached, and how many there may still be.
struct Reached {
    kinds: [u64; WAITER as usize + 1],
    left: usize,
}

impl Reached {
    /// Counts a record; fails where they are more than there are, as in a list that has no end.
    fn add(&mut self, kind: u32) -> Result<(), Corrupt> {
        self.left = self.left.checked_sub(1).ok_or(Corrupt)?;
        *self.kinds.get_mut(kind as usize).ok_or(Corrupt)? += 1;
        Ok(())
    }

    /// Counts a list; how long it is, and its last record.
    fn list(
        &mut self,
        all: &Records<'_>,
        first: u32,
        kind: u32,
        is_its: impl Fn(u32) -> Result<bool, Corrupt>,
    ) -> Result<(u64, u32), Corrupt> {
        let (mut length, mut last, mut record) = (0, 0, first);
        while record != 0 {
            self.add(kind)?;
            if !is_its(record)? {
                return Err(Corrupt);
            }
            (length, last, record) = (length + 1, record, all.next(record, kind)?);
        }
        Ok((length, last))
    }
}

impl Table<'_> {
    /// Fails where a record is in no list, or in two, or the counters say something else.
    #[cold]
    pub(super) fn check(&self) -> Result<(), Corrupt> {
        let all = &self.all;
        let mut reached = Reached { kinds: [0; WAITER as usize + 1], left: all.count };
        let free = u32::try_from(all.head(Head::Free)?).map_err(|_| Corrupt)?;
        reached.list(all, free, FREE, |_| Ok(true))?;
        for bucket in all.buckets() {
            let mut name = all.bucket_head(bucket)?;
            while name != 0 {
                reached.add(NAME)?;
                self.check_name(name, bucket, &mut reached)?;
                name = all.next(name, NAME)?;
            }
        }
        for (kind, reached) in (FREE..).zip(reached.kinds) {
            if all.how_many(kind)? != reached {
                return Err(Corrupt);
            }
        }
        if reached.left == 0 { Ok(()) } else { Err(Corrupt) }
    }

    fn check_name(&self, name: u32, bucket: usize, reached: &mut Reached) -> Result<(), Corrupt> {
        let all = &self.all;
        let (text, holders) = all.pair(name, R::Lists as usize)?;
        let (first, last) = all.pair(name, R::Line as usize)?;
        let is_its = |record| all.pair(record, E::Owner as usize).map(|(owner, _)| owner == name);
        reached.list(all, text, PIECE, |_| Ok(true))?;
        let held = reached.list(all, holders, HOLDER, is_its)?.0;
        let is_last = reached.list(all, first, WAITER, is_its)?.1 == last;
        let is_here = all.bucket(all.get(name, R::High as usize)?) == bucket;
        if held == all.get(name, R::Held as usize)? && is_last && is_here { Ok(()) } else { Err(Corrupt) }
    }
}

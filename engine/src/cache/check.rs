//! A walk over a whole partition that finds whatever is wrong with it. For tests and tools: it allocates, and its time
//! grows with the partition.

use super::arena::{RunKind, class_of};
use super::expiry::ANCHOR_COUNT;
use super::layout::{
    CLASS_BITS, CLASSES, CLOCK_HAND, ENTRIES, FREE_BLOCKS, NIL, PENDING_FREE, Partition, RESERVED_BLOCKS,
    UNDECIDED_COUNT, VALUE_BYTES, narrow,
};
use crate::words::Corrupt;

/// What the walk counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Entries linked under their keys.
    pub entries: u64,
    /// Reservations.
    pub reservations: u64,
    /// Runs of entries and reservations.
    pub runs: u64,
    /// Free blocks.
    pub free_blocks: u64,
    /// Blocks that wait to be freed.
    pub doomed_blocks: u64,
    /// Bytes of the entries' values.
    pub value_bytes: u64,
}

fn require(condition: bool) -> Result<(), Corrupt> {
    if condition { Ok(()) } else { Err(Corrupt) }
}

/// Marks each block's first visitor and refuses a second.
struct Visited(Vec<bool>);

impl Visited {
    fn visit(&mut self, block: u32) -> Result<(), Corrupt> {
        let mark = self.0.get_mut(block as usize).ok_or(Corrupt)?;
        require(!std::mem::replace(mark, true))
    }
}

impl Partition<'_> {
    /// Verifies that every block is accounted for exactly once, that every list holds what it should and that the
    /// counters agree. Exclusive lock.
    pub fn check(&self) -> Result<CheckReport, Corrupt> {
        let mut visited = Visited(vec![false; self.end as usize]);
        let mut report = CheckReport::default();
        let starts = self.check_runs(&mut report)?;
        self.check_free_lists(&mut visited, report.free_blocks)?;
        self.check_entries(&mut visited, &mut report)?;
        self.check_pending_free(&mut visited, &mut report)?;
        let mut reserved = 0;
        for &(block, _) in starts.iter().filter(|(_, kind)| *kind == RunKind::Reserved) {
            report.reservations += 1;
            reserved += self.check_chain(block, &mut visited, &mut report)?;
        }
        require(self.get(RESERVED_BLOCKS)? == reserved)?;
        for (block, _) in starts {
            require(visited.0.get(block as usize) == Some(&true))?;
        }
        require(self.get(FREE_BLOCKS)? == report.free_blocks)?;
        require(self.get(ENTRIES)? == report.entries)?;
        require(self.get(VALUE_BYTES)? == report.value_bytes)?;
        let mut undecided = 0;
        self.undecided(|_| undecided += 1)?;
        require(self.get(UNDECIDED_COUNT)? == undecided)?;
        Ok(report)
    }

    /// Runs follow one another without a gap, no two free ones in a row, and the hand points at one of them.
    fn check_runs(&self, report: &mut CheckReport) -> Result<Vec<(u32, RunKind)>, Corrupt> {
        let mut starts = Vec::new();
        let mut block = self.first;
        let mut after_free = None;
        let mut hand = false;
        while block < self.end {
            let run = self.run(block)?;
            require(run.prev_free == after_free.is_some())?;
            if let Some(size) = after_free {
                require(self.size_before(block)? == size)?;
            }
            let free = run.kind == RunKind::Free;
            require(!(free && after_free.is_some()))?;
            after_free = free.then_some(run.size);
            report.free_blocks += if free { u64::from(run.size) } else { 0 };
            hand |= self.get(CLOCK_HAND)? == u64::from(block);
            starts.push((block, run.kind));
            block += run.size;
        }
        require(hand)?;
        Ok(starts)
    }

    fn check_free_lists(&self, visited: &mut Visited, free_blocks: u64) -> Result<(), Corrupt> {
        let mut listed = 0;
        for class in 0..CLASSES {
            let mut before = NIL;
            let mut block = self.class_head(class)?;
            require((self.get(CLASS_BITS + class / 64)? >> (class % 64) & 1 == 1) == (block != NIL))?;
            while block != NIL {
                visited.visit(block)?;
                let run = self.run(block)?;
                require(run.kind == RunKind::Free && class_of(run.size) == class)?;
                let (next, prev) = self.free_links(block)?;
                require(prev == before)?;
                listed += u64::from(run.size);
                before = block;
                block = next;
            }
        }
        require(listed == free_blocks)
    }

    /// A chain of runs, the first of which the caller knows.
    fn check_chain(&self, first: u32, visited: &mut Visited, report: &mut CheckReport) -> Result<u64, Corrupt> {
        let mut block = first;
        let mut blocks = 0;
        while block != NIL {
            visited.visit(block)?;
            let run = self.run(block)?;
            require(block == first || run.kind == RunKind::Continuation)?;
            blocks += u64::from(run.size);
            report.runs += 1;
            block = self.continued_by(block)?;
        }
        Ok(blocks)
    }

    fn check_entries(&self, visited: &mut Visited, report: &mut CheckReport) -> Result<(), Corrupt> {
        let mut expiring = 0_u64;
        for bucket in 0..self.buckets as usize {
            let mut block = self.bucket(bucket)?;
            while block != NIL {
                require(self.run(block)?.kind == RunKind::Entry)?;
                require(self.lookup(self.key(block)?)?.map(|found| found.0) == Some(block))?;
                let len = self.value_len(block)? as u64;
                let runs = report.runs;
                let blocks = self.check_chain(block, visited, report)?;
                let needed = 64 + (report.runs - runs - 1) * 8 + self.body_len(block)? as u64;
                require(blocks * 64 >= needed && blocks * 64 < needed + 128)?;
                report.entries += 1;
                report.value_bytes += len;
                expiring += u64::from(self.is_listed(block)?);
                block = self.chained(block)?;
            }
        }
        for list in 0..ANCHOR_COUNT {
            let mut next = self.listed_first(list)?;
            while let Some(block) = next {
                require(self.run(block)?.kind == RunKind::Entry && self.is_listed(block)?)?;
                expiring = expiring.checked_sub(1).ok_or(Corrupt)?;
                next = self.listed_next(block)?;
            }
        }
        require(expiring == 0)
    }

    fn check_pending_free(&self, visited: &mut Visited, report: &mut CheckReport) -> Result<(), Corrupt> {
        let mut block = narrow(self.get(PENDING_FREE)?)?;
        while block != NIL {
            let rest = self.doomed_after(block)?;
            let runs = report.runs;
            report.doomed_blocks += self.check_chain(block, visited, report)?;
            report.runs = runs;
            block = rest;
        }
        Ok(())
    }
}

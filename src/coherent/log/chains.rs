//! Hash chains through a list whose elements are added and taken away at its end.

use crate::pg::memory::PgVec;

/// What a session keeps allocated between transactions, in writes: what it gives back, the next one faults in again.
pub(super) const KEPT: usize = 1024;

/// A place in a list, counted from 1; 0 for none.
pub(super) type Link = u32;

/// Chains through a list, by a hash of its elements: the last added comes first. Elements are taken away in the opposite
/// order, so a chain is never searched for one to be taken out.
pub(super) struct Chains {
    /// A power of two, or none.
    heads: PgVec<Link>,
    /// How often elements were added and taken away.
    #[cfg(test)]
    pub(super) changes: usize,
}

impl Chains {
    pub(super) const fn new() -> Self {
        Chains {
            heads: PgVec::new(),
            #[cfg(test)]
            changes: 0,
        }
    }

    #[inline]
    fn chain(&self, hash: u64) -> usize {
        hash as usize & self.heads.len().wrapping_sub(1)
    }

    #[inline]
    pub(super) fn first(&self, hash: u64) -> Link {
        self.heads.get(self.chain(hash)).copied().unwrap_or(0)
    }

    /// Adds the element at `index`; the one before it in its chain.
    #[inline]
    pub(super) fn push(&mut self, hash: u64, index: usize) -> Link {
        #[cfg(test)]
        {
            self.changes += 1;
        }
        let chain = self.chain(hash);
        self.heads.get_mut(chain).map_or(0, |head| std::mem::replace(head, index as Link + 1))
    }

    /// Takes away the element that was added last, before which `before` was in its chain.
    #[inline]
    pub(super) fn pop(&mut self, hash: u64, before: Link) {
        #[cfg(test)]
        {
            self.changes += 1;
        }
        let chain = self.chain(hash);
        if let Some(head) = self.heads.get_mut(chain) {
            *head = before;
        }
    }

    /// Whether one more element makes the chains long; then they are all to be pushed again.
    pub(super) fn widen(&mut self, len: usize) -> bool {
        const FEWEST: usize = 16;
        if len < self.heads.len() {
            return false;
        }
        let more = (len + 1).next_power_of_two().max(FEWEST);
        self.heads.reserve(more - self.heads.len());
        self.heads.clear();
        self.heads.resize(more, 0);
        true
    }

    /// Whether [`Self::widen`] would have work for one more element.
    pub(super) fn are_full(&self, len: usize) -> bool {
        len >= self.heads.len()
    }

    /// Empties all chains.
    pub(super) fn clear(&mut self) {
        self.heads.iter_mut().for_each(|head| *head = 0);
    }

    /// The same where these hashes are all that there are, and gives memory back where there were many.
    pub(super) fn forget(&mut self, hashes: impl ExactSizeIterator<Item = u64>) {
        if self.heads.len() > 2 * KEPT {
            self.heads.empty(KEPT);
            return;
        }
        for hash in hashes {
            self.pop(hash, 0);
        }
    }
}

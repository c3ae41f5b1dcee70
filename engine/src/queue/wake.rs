//! Which sessions to wake.

/// Sessions to wake once the lock is released. Of fixed size, because under a lock nothing is allocated; for those that have
/// no place in it the queue notes that it owes wake-ups.
#[derive(Debug, Clone)]
pub struct Wake {
    processes: [u32; Self::MOST],
    len: usize,
    nobody: bool,
}

impl Default for Wake {
    fn default() -> Self {
        Wake { processes: [0; Self::MOST], len: 0, nobody: false }
    }
}

impl Wake {
    const MOST: usize = 64;

    /// A list in which no session has a place: nobody is woken now.
    pub(super) fn none() -> Self {
        Wake { nobody: true, ..Wake::default() }
    }

    /// Whether no further session fits.
    pub fn is_full(&self) -> bool {
        self.nobody || self.len == Self::MOST
    }

    /// Whether so many are to be woken that others should wait for their turn.
    pub(super) fn has_ended(&self) -> bool {
        self.len == Self::MOST
    }

    pub(super) fn push(&mut self, process: u32) {
        if let Some(place) = self.processes.get_mut(self.len) {
            *place = process;
            self.len += 1;
        }
    }

    /// The process numbers.
    pub fn processes(&self) -> &[u32] {
        self.processes.get(..self.len).unwrap_or_default()
    }
}

//! Waking the sessions that watch a space: at the end of a transaction that has changed it.

use crate::pg::backend_local::BackendLocal;
use crate::pg::{latch, watchers, xact};

/// The number that the store takes part in the end of transactions by. It has no region in the segment.
pub const NUMBER: u8 = 4;

/// More spaces than that, and all sessions that wait for anything look.
const MOST: usize = 8;

/// The tables that this transaction has changed; where there are more than have room, all.
struct Changed {
    tables: [u32; MOST],
    count: usize,
}

static CHANGED: BackendLocal<Changed> = BackendLocal::new(Changed { tables: [0; MOST], count: 0 });

/// Notes that this transaction has changed a space's table. A savepoint that is rolled back doesn't take it back: a session that is woken for
/// nothing looks, and sleeps on.
pub(super) fn note(table: u32) {
    let Some(mut changed) = CHANGED.get() else { return };
    let count = changed.count;
    if changed.tables.iter().take(count).any(|&known| known == table) {
        return;
    }
    if let Some(place) = changed.tables.get_mut(count) {
        *place = table;
    }
    changed.count = (count + 1).min(MOST + 1);
    xact::enlist(xact::Enlisted::of(NUMBER));
}

/// The tables, of which none is noted any more; `None` for all.
fn take() -> Option<([u32; MOST], usize)> {
    let mut changed = CHANGED.get()?;
    let count = std::mem::take(&mut changed.count);
    (count <= MOST).then_some((changed.tables, count))
}

fn wake() {
    match take() {
        Some((tables, count)) => tables.iter().take(count).for_each(|&table| watchers::wake(table)),
        None => latch::wake_everybody(),
    }
}

/// The store's part in the end of transactions.
pub struct Spaces;

/// See [`Spaces`].
pub static PARTICIPANT: Spaces = Spaces;

impl xact::Participant for Spaces {
    fn name(&self) -> &'static str {
        "key-value store"
    }

    // What it does is a hint: PREPARE TRANSACTION may go on.
    fn waiting(&self) -> bool {
        false
    }

    // They look, find that it is undecided, and wait for its end.
    fn prepared(&self) {
        wake();
    }

    fn commit(&self) {
        wake();
    }

    // A session that is kept from seeing others' changes by this transaction waits for its end itself.
    fn abort(&self) {
        take();
    }
}

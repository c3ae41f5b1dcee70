//! Spaces as this session knows them: what the copies of their rows are known under, and for which roles they may stand for the rows.
//!
//! It holds until the server announces a change of any relation, or of roles. A session that takes a copy has the lock that a SELECT would have, so
//! what was announced by sessions that had the table to themselves has been taken in.

use super::table::relation;
use crate::coherent::rows;
use crate::error::Error;
use crate::pg::backend_local::BackendLocal;
use crate::pg::catalog::{self, Privilege};
use crate::pg::copied::{CopiedTable, Design};
use crate::pg::level;
use crate::pg::name::LONGEST_NAME;
use crate::shmem::{Domain, segment};
use pgrx::pg_sys::{INT8OID, JSONBOID, TEXTOID, TIMESTAMPTZOID};

/// The number of the column `key`.
pub(super) const KEY: i16 = 1;

/// A space's table, as far as copies are concerned.
static DESIGN: Design = Design {
    trigger: c"kv_copies",
    function: c"_kv_copies",
    columns: &[
        (KEY, c"key", TEXTOID),
        (2, c"value", JSONBOID),
        (3, c"version", INT8OID),
        (5, c"updated_at", TIMESTAMPTZOID),
        (6, c"expires_at", TIMESTAMPTZOID),
    ],
};

/// The most spaces that a session knows.
const MOST: usize = 16;
/// How often the catalogs are read again because somebody changes them meanwhile.
const TRIES: usize = 3;

/// The numbers of changes by which something was learned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Epoch {
    pub relations: u64,
    pub roles: u64,
}

impl Epoch {
    #[inline(always)]
    pub fn now() -> Self {
        Epoch { relations: catalog::relcache_epoch(), roles: catalog::roles_epoch() }
    }
}

/// A space.
#[derive(Clone, Copy)]
struct Known {
    name: [u8; LONGEST_NAME],
    /// 0: known by its table alone, to the trigger.
    len: u8,
    relation: u32,
    domain: Domain,
    /// The role for which copies may stand for the rows; 0 for none.
    reader: u32,
    epoch: Epoch,
}

impl Known {
    fn name(&self) -> &[u8] {
        self.name.get(..usize::from(self.len)).unwrap_or_default()
    }
}

struct List {
    spaces: [Option<Known>; MOST],
    /// Which one gives way next.
    next: usize,
}

static LIST: BackendLocal<List> = BackendLocal::new(List { spaces: [None; MOST], next: 0 });

impl List {
    #[inline(always)]
    fn find(&self, is_it: impl Fn(&Known) -> bool) -> Option<Known> {
        self.spaces.iter().map_while(Option::as_ref).find(|known| is_it(known)).copied()
    }

    fn note(&mut self, known: Known) {
        let same = |other: &Known| {
            (other.name(), other.reader) == (known.name(), known.reader)
                && (known.len != 0 || other.relation == known.relation)
        };
        let place = self.spaces.iter().position(|other| other.as_ref().is_none_or(same)).unwrap_or(self.next);
        if let Some(place) = self.spaces.get_mut(place) {
            *place = Some(known);
        }
        self.next = (self.next + 1) % MOST;
    }
}

/// What the copies of a space's rows are known under, where this session knows that the current role may take them, and locks the table as
/// a SELECT does. For callers that have no guard; what fails is an error of the server's, which passes over their frames.
#[inline(always)]
pub(super) fn readable(name: &[u8]) -> Option<Domain> {
    if !rows::may_be_taken() {
        return None;
    }
    let role = level::current_role();
    let known = LIST.get()?.find(|known| known.reader == role && known.name() == name)?;
    catalog::lock_to_read(known.relation);
    (known.epoch == Epoch::now()).then_some(known.domain)
}

/// The same for a session that knows nothing yet; `None` where the table is to be read.
pub(super) fn look(name: &str) -> Option<Domain> {
    // Without its memory the store does without copies.
    let (true, Ok(segment)) = (rows::may_be_taken(), segment()) else { return None };
    for _ in 0..TRIES {
        let epoch = Epoch::now();
        let relation = relation(name)?;
        catalog::lock(relation, false);
        catalog::see_committed();
        let table = CopiedTable::read(relation, &DESIGN)?;
        let role = level::current_role();
        let readable = table.plain && catalog::has_privilege(relation, Privilege::Observe);
        let domain = rows::domain(segment, &table);
        if epoch != Epoch::now() {
            // Something has been changed, maybe by the session that this one has waited for.
            continue;
        }
        let (mut text, len) = ([0; LONGEST_NAME], name.len());
        if let (Some(place), Some(mut list)) = (text.get_mut(..len), LIST.get()) {
            place.copy_from_slice(name.as_bytes());
            let reader = if readable { role } else { 0 };
            list.note(Known { name: text, len: len as u8, relation, domain, reader, epoch });
        }
        return readable.then_some(domain);
    }
    None
}

/// What the copies of a table's rows are known under, whichever role may read them; for its trigger, which holds a lock on it. `None` where
/// there are none.
pub(super) fn of_table(relation: u32) -> Result<Option<Domain>, Error> {
    let segment = segment()?;
    let epoch = Epoch::now();
    let is_it = |known: &Known| known.relation == relation && known.epoch.relations == epoch.relations;
    if let Some(known) = LIST.get().and_then(|list| list.find(is_it)) {
        return Ok(Some(known.domain));
    }
    let Some(table) = CopiedTable::read(relation, &DESIGN) else { return Ok(None) };
    let domain = rows::domain(segment, &table);
    // Reading the catalogs may itself have taken in an announcement. What matters of this table can't have changed, because of the lock.
    if epoch == Epoch::now()
        && let Some(mut list) = LIST.get()
    {
        list.note(Known { name: [0; LONGEST_NAME], len: 0, relation, domain, reader: 0, epoch });
    }
    Ok(Some(domain))
}

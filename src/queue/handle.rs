//! A queue as a session knows it: what the catalogs say of its table, and its way to the index.

use crate::error::Error;
use crate::pg::catalog::{self, Privilege};
use crate::pg::encoding::decode_start;
use crate::pg::spi::as_owner_of;
use crate::pg::table::relation::Relation;
use crate::pg::{latch, own, server};
use crate::queue::doubt;
use crate::queue::heap::rows::{OpenTable, Row};
use crate::queue::heap::table::QueueTable;
use crate::queue::index::REGION;
use crate::queue::index::partition;
use crate::queue::name::LONGEST_NAME;
use crate::queue::name::missing;
use crate::queue::name::relation;
use crate::queue::name::valid_name;
use crate::queue::notify;
use crate::queue::options;
use crate::queue::options::{SessionOptions, load_options, session_options};
use crate::queue::pending;
use crate::shmem::Partition;
use enough_engine::queue::{Partition as Index, QueueKey, Storage, Wake};
use enough_engine::words::Corrupt;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// A queue as this session knows it.
pub struct Queue {
    /// Its name.
    pub name: String,
    /// What the catalogs say of its table.
    pub table: QueueTable,
    pub(in crate::queue) key: QueueKey,
    /// Before its table was looked at, the invalidations were that far.
    relcache_epoch: u64,
    /// Options that this session goes by itself.
    pub(in crate::queue) options: SessionOptions,
    /// Whether the index has been told where its rows are.
    told: Cell<bool>,
}

#[derive(Default)]
struct Known {
    relcache_epoch: u64,
    queues: HashMap<Vec<u8>, Rc<Queue>>,
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

/// How often a call begins again because a queue's table was changed meanwhile.
const TRIES: usize = 100;
/// Why a name without a table is no queue.
#[cold]
pub(in crate::queue) fn absent(name: &str) -> Error {
    match options::has_row(name) {
        Ok(true) => Error::WithoutTable { queue: name.into() },
        Ok(false) => missing(name),
        Err(error) => error,
    }
}

/// Fails where this transaction, or this server, must not write.
pub(in crate::queue) fn require_write(function: &'static str) -> Result<(), Error> {
    if server::may_write() { Ok(()) } else { Err(Error::ReadOnly { function }) }
}

impl Queue {
    /// The queue of that name. Its rows are looked at by snapshots that a parallel operation forbids.
    pub fn open(name: &[u8]) -> Result<Rc<Queue>, Error> {
        if server::in_parallel_mode() {
            return Err(Error::Parallel { what: "use a queue".into() });
        }
        pending::prepare();
        let known = KNOWN.with_borrow_mut(|known| {
            let now = catalog::relcache_epoch();
            if known.relcache_epoch != now {
                known.relcache_epoch = now;
                known.queues.clear();
            }
            known.queues.get(name).cloned()
        });
        known.map_or_else(|| Self::look_up(name), Ok)
    }

    #[cold]
    fn look_up(name: &[u8]) -> Result<Rc<Queue>, Error> {
        let relcache_epoch = catalog::relcache_epoch();
        let text = valid_name(name)?;
        let found = relation("q_", text).ok_or_else(|| absent(text))?;
        let Some(options) = session_options(text)? else {
            return Err(Error::Unregistered { queue: text.into() });
        };
        let table = QueueTable::read(found, relation("a_", text).unwrap_or(0))?.ok_or_else(|| missing(text))?;
        let key = QueueKey { database: server::database(), relation: found };
        let queue = Rc::new(Queue { name: text.into(), table, key, relcache_epoch, options, told: Cell::new(false) });
        // From here on its sends are counted, and go into the index.
        queue.index(|_, _| Ok(()))?;
        KNOWN.with_borrow_mut(|known| {
            // Reading the catalogs may itself have taken in an invalidation.
            if known.relcache_epoch == catalog::relcache_epoch() {
                known.queues.insert(name.into(), Rc::clone(&queue));
            }
        });
        Ok(queue)
    }

    /// The queue of that name, with a lock on its table: a session that would change what is known of it (columns, indexes, triggers,
    /// policies) waits until the transaction ends, or until the lock is given up.
    pub fn open_locked(name: &[u8], write: bool) -> Result<Rc<Queue>, Error> {
        for _ in 0..TRIES {
            let queue = Self::open(name)?;
            catalog::lock(queue.table.live.relation, write);
            // It may have been changed, or dropped, while this session waited for the lock.
            if queue.is_current()? {
                queue.tell_storage()?;
                return Ok(queue);
            }
            catalog::unlock(queue.table.live.relation, write);
        }
        Err(Error::NotReady {
            problem: format!("the table of queue \"{}\" keeps being changed", decode_start(name, LONGEST_NAME)),
            hint: "Call again when other sessions have stopped altering it.".into(),
        })
    }

    /// Tells the index where the table's rows are, once; for a session that has a lock on it.
    pub(in crate::queue) fn tell_storage(&self) -> Result<(), Error> {
        // Storage of this transaction's own is nobody else's, and may be given up again.
        if !self.told.get() && !self.table.live.own_storage {
            let table = self.open_table(false)?;
            let storage = Storage { empty: table.is_empty(), ..self.table.storage() };
            table.unlock();
            self.index_and_wake(|index, slot, wake| index.set_storage(slot, storage, wake))?;
            self.told.set(true);
        }
        Ok(())
    }

    /// Whether its table still is as it is known; for a caller that has a lock on it.
    pub(in crate::queue) fn is_current(&self) -> Result<bool, Error> {
        if self.relcache_epoch == catalog::relcache_epoch() {
            return Ok(true);
        }
        Ok(relation("q_", &self.name) == Some(self.table.live.relation)
            && QueueTable::read(self.table.live.relation, self.table.archive)?.is_some_and(|now| now == self.table))
    }

    /// The table, opened for writing by a reader; `None` where it has been changed since the reader has locked it.
    pub fn open_for_notes(&self) -> Result<Option<OpenTable<'_>>, Error> {
        let table = self.open_table(true)?;
        Ok(if self.is_current()? { Some(table) } else { None })
    }

    /// Notes that this transaction makes something ready: where the queue has it so, its listeners are told.
    #[inline]
    pub(in crate::queue) fn touch(&self) {
        if self.options.notify {
            notify::touch(self.key, &self.name);
        }
    }

    /// Fails where the current role lacks the privilege.
    pub fn require(&self, privilege: Privilege) -> Result<(), Error> {
        if self.may(privilege) {
            return Ok(());
        }
        if !catalog::relation_exists(self.table.live.relation) {
            // Dropped since it was looked up.
            return Err(missing(&self.name));
        }
        let needed = match privilege {
            Privilege::Send => "INSERT",
            Privilege::Consume => "SELECT and DELETE",
            Privilege::Observe => "SELECT",
        };
        Err(Error::Denied {
            what: format!("queue \"{}\"", self.name),
            hint: format!("This needs {needed} on the table enough.\"q_{}\".", self.name),
        })
    }

    /// Whether the current role has the privilege.
    pub fn may(&self, privilege: Privilege) -> bool {
        catalog::has_privilege(self.table.live.relation, privilege)
    }

    /// Does `work` with the archive: with the rights of its owner, because the table's privileges are the queue's; with the
    /// caller's own where policies decide what it sees.
    pub(in crate::queue) fn in_archive<R>(&self, work: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
        if catalog::row_security(self.table.live.relation) {
            own::check_archive(self.table.archive)?;
            return work();
        }
        self.as_archive_owner(work)
    }

    /// Does `work` with the rights of the archive's owner.
    pub(in crate::queue) fn as_archive_owner<R>(&self, work: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
        if !catalog::relation_exists(self.table.archive) {
            return Err(Error::NotReady {
                problem: format!("queue \"{}\" has lost its archive", self.name),
                hint: format!("Call enough.queue_create('{}', if_not_exists => true), which makes it anew.", self.name),
            });
        }
        own::check_archive(self.table.archive)?;
        as_owner_of(self.table.archive, work)
    }

    /// Whether nothing but the row itself is written where one is put into the archive.
    pub(in crate::queue) fn has_quiet_archive(&self) -> bool {
        !Relation::has_triggers_or_rules(self.table.archive)
    }

    /// Whether both of its tables have the same owner.
    pub(in crate::queue) fn has_one_owner(&self) -> bool {
        catalog::same_owner(self.table.live.relation, self.table.archive)
    }

    /// Fails where a statement that moves rows from one of its tables to the other has no role to run as.
    pub(in crate::queue) fn require_one_owner(&self) -> Result<(), Error> {
        if !catalog::relation_exists(self.table.archive) || self.has_one_owner() {
            return Ok(());
        }
        Err(Error::NotReady {
            problem: format!("the tables of queue \"{}\" have different owners", self.name),
            hint: format!("Give both to one: ALTER TABLE enough.\"a_{}\" OWNER TO <role>.", self.name),
        })
    }

    /// The table, opened.
    pub fn open_table(&self, write: bool) -> Result<OpenTable<'_>, Error> {
        self.table.open(write).ok_or_else(|| missing(&self.name))
    }

    /// Its name as part of a statement, with a prefix: `enough."q_orders"`.
    pub fn relation(&self, prefix: &str) -> String {
        format!("enough.\"{prefix}{}\"", self.name)
    }

    /// Does `work` on the index's entry of this queue, which is made where it isn't there. The rules of
    /// [`Partition::exclusive`] hold. Work that goes by the clock reads it there: then a lease that is given after another
    /// one has ended also begins after it by the clock, however long this session has waited for the lock.
    pub fn index<R>(&self, mut work: impl FnMut(&Index<'static>, u32) -> Result<R, Corrupt>) -> Result<R, Error> {
        let partition = partition(self.key)?;
        for _ in 0..3 {
            let done = partition.exclusive(|words| {
                let index = Index::new(words);
                index.find(self.key)?.map(|slot| work(&index, slot)).transpose()
            })?;
            match done {
                Some(result) => return Ok(result),
                None => self.attach(partition)?,
            }
        }
        Err(Error::Damaged { region: REGION.name() })
    }

    /// The same, and wakes the sessions that `work` has put on its list.
    pub(in crate::queue) fn index_and_wake<R>(
        &self,
        mut work: impl FnMut(&Index<'static>, u32, &mut Wake) -> Result<R, Corrupt>,
    ) -> Result<R, Error> {
        let mut wake = Wake::default();
        let result = self.index(|index, slot| {
            // Work that is done a second time, on a partition that was emptied, has nobody to wake from the first.
            wake = Wake::default();
            work(index, slot, &mut wake)
        })?;
        latch::wake(wake.processes());
        Ok(result)
    }

    /// Counts how long a message of this queue has waited, in microseconds, without a lock; `slot` is where the queue was when
    /// the message was taken.
    pub(in crate::queue) fn note_wait(&self, slot: u32, micros: i64) {
        if let Ok(partition) = partition(self.key) {
            // A queue whose partition was emptied meanwhile has nothing to count.
            let _ = Index::new(partition.words()).note_wait(slot, micros);
        }
    }

    /// Lets a row that this session has met take the place of another row of its number in the index.
    pub(in crate::queue) fn meet(&self, row: &Row) -> Result<(), Error> {
        if row.is_own() {
            // It becomes a message when this transaction commits.
            return Ok(());
        }
        let entry = row.entry();
        self.index_and_wake(|index, slot, wake| index.insert_or_leave_out(slot, &entry, server::now(), wake))
    }

    #[cold]
    fn attach(&self, partition: &Partition) -> Result<(), Error> {
        let options = load_options(&self.name)?;
        // Before: one that is committed since is seen by the first refill.
        let doubts = doubt::of_now()?;
        let attached = partition.exclusive(|words| {
            let index = Index::new(words);
            let known = index.find(self.key)?.is_some();
            let Some(slot) = index.attach(self.key, options)? else { return Ok(None) };
            for doubt in doubts.iter().filter(|_| !known) {
                index.doubt(slot, doubt, server::now(), &mut Wake::default())?;
            }
            Ok(Some(slot))
        })?;
        match attached {
            Some(_) => Ok(()),
            None => Err(Error::NotReady {
                problem: "the shared memory has no room for another queue".into(),
                hint: "Raise enough.queue_memory (8 kB a queue) and restart the server, or run enough.maintain(), \
                       which forgets queues of dropped databases."
                    .into(),
            }),
        }
    }
}

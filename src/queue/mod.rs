//! Durable messages in an ordinary table, with an index of what is ready, leased and delayed in shared memory. Sending
//! and finishing write the table; reading writes nothing.
//!
//! The table is the truth. The index (crate `enough_engine`, module `queue`) is a hint: every entry is checked against
//! its row before it is delivered, and whatever is missing is found by scanning the table. What a transaction does to
//! the index waits for its end (`pending.rs`).
//!
//! | file | subject |
//! |---|---|
//! | `sql.rs` | arguments in, rows out |
//! | `arguments.rs` | ranges, defaults and arrays |
//! | `admin.rs` | making, taking up and dropping a queue |
//! | `tables.rs`, `sequence.rs` | its two tables, and the sequence that numbers its messages |
//! | `rename.rs` | giving it another name |
//! | `alter.rs` | changing its options, pausing it |
//! | `ddl.rs` | what these have in common: one session at a time, proper SQLSTATEs |
//! | `send.rs` | sending |
//! | `read.rs` | reading, waiting |
//! | `refill.rs` | bringing rows from the table into the index |
//! | `groups.rs` | messages of groups: the next one, and earlier ones |
//! | `claim.rs` | a message that a transaction is about to change |
//! | `finish.rs` | deleting, archiving, extending |
//! | `bury.rs` | messages that have been delivered as often as they may be |
//! | `fail.rs` | a delivery that has failed |
//! | `redrive.rs` | dead letters |
//! | `purge.rs` | emptying a queue |
//! | `grant.rs` | privileges by what they are for |
//! | `schedule.rs` | messages sent by `pg_cron` |
//! | `look.rs` | how a message stands, and which stand so |
//! | `stats.rs` | what a queue has seen and holds |
//! | `archive.rs` | what is over: old archive rows, dropped queues |
//! | `maintain.rs` | maintenance of one queue after another |
//! | `check.rs` | what is wrong with queues, and what to do about it |
//! | `reconcile.rs` | finding what got into the table behind the index's back |
//! | `pending.rs` | what waits for the end of the transaction |

mod admin;
mod alter;
pub mod archive;
mod arguments;
mod batch;
mod bury;
pub mod check;
mod claim;
mod ddl;
mod fail;
mod finish;
mod grant;
mod groups;
mod look;
pub mod maintain;
pub mod pending;
mod purge;
mod read;
mod reconcile;
mod redrive;
mod refill;
mod release;
mod rename;
mod schedule;
mod send;
mod sequence;
mod sql;
pub mod stats;
mod tables;

use crate::error::Error;
use crate::segment::catalog::{self, Privilege};
use crate::segment::encoding::decode_start;
use crate::segment::rows::{OpenTable, Row};
use crate::segment::sql::{Parameter, as_owner_of, read_rows};
use crate::segment::table::QueueTable;
use crate::segment::{Partition, Region, own, segment, server, wait};
use enough_engine::queue::{Options, Partition as Index, QueueKey, Storage, Wake};
use enough_engine::words::Corrupt;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CString;
use std::rc::Rc;

/// A queue as this session knows it.
pub struct Queue {
    /// Its name.
    pub name: String,
    /// What the catalogs say of its table.
    pub table: QueueTable,
    key: QueueKey,
    /// Before its table was looked at, the invalidations were that far.
    generation: u64,
    /// Whether the index has been told where its rows are.
    told: Cell<bool>,
}

#[derive(Default)]
struct Known {
    generation: u64,
    queues: HashMap<Vec<u8>, Rc<Queue>>,
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

/// How often a call begins anew because a queue's table was changed meanwhile.
const TRIES: usize = 100;
/// The longest name of a queue, in bytes; `q_` and an index's suffix must fit beside it into 63.
const LONGEST_NAME: usize = 48;

/// A queue's name, or the error that says what a name is.
fn valid_name(name: &[u8]) -> Result<&str, Error> {
    valid_name_of("queue", name)
}

fn valid_name_of<'n>(what: &'static str, name: &'n [u8]) -> Result<&'n str, Error> {
    let first = name.first().is_some_and(|c| c.is_ascii_alphabetic() || *c == b'_');
    let rest = name.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'));
    match std::str::from_utf8(name) {
        Ok(text) if first && rest && name.len() <= LONGEST_NAME => Ok(text),
        _ => Err(Error::Name {
            what,
            name: decode_start(name, LONGEST_NAME),
            expected: "1 to 48 letters, digits, '_', '.' or '-', the first a letter or '_'",
        }),
    }
}

fn missing(name: &str) -> Error {
    Error::Missing { what: "queue", name: name.into(), hint: "Create it with enough.queue_create()." }
}

/// Why a name without a table is no queue.
#[cold]
fn absent(name: &str) -> Error {
    match admin::has_row(name) {
        Ok(true) => Error::WithoutTable { queue: name.into() },
        Ok(false) => missing(name),
        Err(error) => error,
    }
}

/// Whether the current role is an operator (`sql/access.sql`): one that may change the options of all queues, and maintain
/// them all.
fn is_operator() -> bool {
    catalog::relation_named(c"queue").is_some_and(catalog::may_update)
}

/// Fails where this transaction, or this server, must not write.
fn require_write(function: &'static str) -> Result<(), Error> {
    if server::may_write() { Ok(()) } else { Err(Error::ReadOnly { function }) }
}

fn relation(prefix: &str, name: &str) -> Option<u32> {
    // A valid name has no NUL byte.
    CString::new(format!("{prefix}{name}")).ok().and_then(|name| catalog::relation_named(&name))
}

impl Queue {
    /// The queue of that name. Its rows are looked at by snapshots that a parallel operation forbids.
    pub fn open(name: &[u8]) -> Result<Rc<Queue>, Error> {
        if server::in_parallel_mode() {
            return Err(Error::Parallel { what: "use a queue".into() });
        }
        pending::prepare();
        let known = KNOWN.with_borrow_mut(|known| {
            let now = catalog::generation();
            if known.generation != now {
                known.generation = now;
                known.queues.clear();
            }
            known.queues.get(name).cloned()
        });
        known.map_or_else(|| Self::look_up(name), Ok)
    }

    #[cold]
    fn look_up(name: &[u8]) -> Result<Rc<Queue>, Error> {
        let generation = catalog::generation();
        let text = valid_name(name)?;
        let found = relation("q_", text).ok_or_else(|| absent(text))?;
        if !admin::has_row(text)? {
            return Err(Error::Unregistered { queue: text.into() });
        }
        let table = QueueTable::read(found, relation("a_", text).unwrap_or(0))?.ok_or_else(|| missing(text))?;
        let key = QueueKey { database: server::database(), relation: found };
        let queue = Rc::new(Queue { name: text.into(), table, key, generation, told: Cell::new(false) });
        // From here on its sends are counted, and go into the index.
        queue.index(|_, _| Ok(()))?;
        KNOWN.with_borrow_mut(|known| {
            // Reading the catalogs may itself have taken in an invalidation.
            if known.generation == catalog::generation() {
                known.queues.insert(name.into(), Rc::clone(&queue));
            }
        });
        Ok(queue)
    }

    /// The queue of that name, with a lock on its table: who would change what is known of it (columns, indexes, triggers,
    /// policies) waits until the transaction ends, or until the lock is given up.
    pub fn open_locked(name: &[u8], write: bool) -> Result<Rc<Queue>, Error> {
        for _ in 0..TRIES {
            let queue = Self::open(name)?;
            catalog::lock(queue.table.relation, write);
            // It may have been changed, or dropped, while this session waited for the lock.
            if queue.is_current()? {
                queue.tell_storage()?;
                return Ok(queue);
            }
            catalog::unlock(queue.table.relation, write);
        }
        Err(Error::NotReady {
            problem: format!("the table of queue \"{}\" keeps being changed", decode_start(name, LONGEST_NAME)),
            hint: "Call again when other sessions have stopped altering it.".into(),
        })
    }

    /// Tells the index where the table's rows are, once; for a session that has a lock on it.
    fn tell_storage(&self) -> Result<(), Error> {
        // Storage of this transaction's own is nobody else's, and may be given up again.
        if !self.told.get() && !self.table.own_storage {
            let table = self.open_table(false)?;
            let storage = Storage { empty: table.is_empty(), ..self.table.storage };
            table.unlock();
            self.index_and_wake(|index, slot, wake| index.set_storage(slot, storage, wake))?;
            self.told.set(true);
        }
        Ok(())
    }

    /// Whether its table still is as it is known; for who has a lock on it.
    fn is_current(&self) -> Result<bool, Error> {
        if self.generation == catalog::generation() {
            return Ok(true);
        }
        Ok(relation("q_", &self.name) == Some(self.table.relation)
            && QueueTable::read(self.table.relation, self.table.archive)?.is_some_and(|now| now == self.table))
    }

    /// The table, opened for writing by a reader; `None` where it has been changed since the reader has locked it.
    pub fn open_for_notes(&self) -> Result<Option<OpenTable<'_>>, Error> {
        let table = self.open_table(true)?;
        Ok(if self.is_current()? { Some(table) } else { None })
    }

    /// Fails where the current role lacks the privilege.
    pub fn require(&self, privilege: Privilege) -> Result<(), Error> {
        if self.may(privilege) {
            return Ok(());
        }
        if !catalog::relation_exists(self.table.relation) {
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
        catalog::has_privilege(self.table.relation, privilege)
    }

    /// Does `work` with the archive: with the rights of its owner, because the table's privileges are the queue's; with the
    /// caller's own where policies decide what it sees.
    fn in_archive<R>(&self, work: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
        if catalog::row_security(self.table.relation) {
            own::check_archive(self.table.archive)?;
            return work();
        }
        self.as_archive_owner(work)
    }

    /// Does `work` with the rights of the archive's owner.
    fn as_archive_owner<R>(&self, work: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
        if !catalog::relation_exists(self.table.archive) {
            return Err(Error::NotReady {
                problem: format!("queue \"{}\" has lost its archive", self.name),
                hint: format!("Call enough.queue_create('{}', if_not_exists => true), which makes it anew.", self.name),
            });
        }
        own::check_archive(self.table.archive)?;
        as_owner_of(self.table.archive, work)
    }

    /// Whether both of its tables have the same owner.
    fn has_one_owner(&self) -> bool {
        catalog::same_owner(self.table.relation, self.table.archive)
    }

    /// Fails where a statement that moves rows from one of its tables to the other has no role to run as.
    fn require_one_owner(&self) -> Result<(), Error> {
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
        Err(Error::Damaged { region: Region::Queue.name() })
    }

    /// The same, and wakes the sessions that `work` has put on its list.
    fn index_and_wake<R>(
        &self,
        mut work: impl FnMut(&Index<'static>, u32, &mut Wake) -> Result<R, Corrupt>,
    ) -> Result<R, Error> {
        let mut wake = Wake::default();
        let result = self.index(|index, slot| {
            // Work that is done a second time, on a partition that was emptied, has nobody to wake from the first.
            wake = Wake::default();
            work(index, slot, &mut wake)
        })?;
        wait::wake(wake.processes());
        Ok(result)
    }

    /// Lets a row that this session has met take the place of another row of its number in the index.
    fn meet(&self, row: &Row) -> Result<(), Error> {
        if row.is_own() {
            // It becomes a message when this transaction commits.
            return Ok(());
        }
        let entry = row.entry();
        self.index_and_wake(|index, slot, wake| index.stray(slot, &entry, server::now(), wake))
    }

    #[cold]
    fn attach(&self, partition: &Partition) -> Result<(), Error> {
        let options = load_options(&self.name)?;
        match partition.exclusive(|words| Index::new(words).attach(self.key, options))? {
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

/// The partition that a queue belongs to.
fn partition(key: QueueKey) -> Result<&'static Partition, Error> {
    let partitions = segment()?.partitions(Region::Queue);
    partitions.get(key.partition(partitions.len())).ok_or(Error::Damaged { region: Region::Queue.name() })
}

/// The columns of `enough.queue` that [`options_of`] reads; times in microseconds. The last one is NULL where the table is of
/// a version that hasn't got it.
const OPTIONS: &str = "\
    (EXTRACT(EPOCH FROM visibility_timeout) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8, max_attempts, \
    (EXTRACT(EPOCH FROM retry_backoff) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8, \
    (EXTRACT(EPOCH FROM retry_backoff_max) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8, \
    (EXTRACT(EPOCH FROM archive_for) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8, paused, max_in_flight, max_rate, \
    (EXTRACT(EPOCH FROM rate_period) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8, \
    (pg_catalog.to_jsonb(queue.*) OPERATOR(pg_catalog.->>) 'durable_attempts')::pg_catalog.bool";

fn options_of(row: &pgrx::spi::SpiHeapTupleData<'_>) -> Result<Options, Error> {
    let limit = |column| Ok::<_, Error>(row.get::<i32>(column)?.map_or(0, |most| most.max(0).cast_unsigned()));
    Ok(Options {
        visibility_timeout: row.get::<i64>(1)?.unwrap_or(0),
        // 0: as often as it takes.
        max_attempts: row.get::<i32>(2)?.filter(|&most| most > 0).map_or(u32::MAX, i32::cast_unsigned),
        retry_backoff: row.get::<i64>(3)?.unwrap_or(0),
        retry_backoff_max: row.get::<i64>(4)?.unwrap_or(0),
        archive_for: row.get::<i64>(5)?.unwrap_or(i64::MAX),
        paused: row.get::<bool>(6)?.unwrap_or(false),
        max_in_flight: limit(7)?,
        max_rate: limit(8)?,
        rate_period: row.get::<i64>(9)?.unwrap_or(0),
        durable_attempts: row.get::<bool>(10)?.unwrap_or(false),
    })
}

/// A queue's options from `enough.queue`.
fn load_options(name: &str) -> Result<Options, Error> {
    own::check(c"queue", &own::QUEUE_READ)?;
    let mut found = None;
    read_rows(
        &format!("SELECT {OPTIONS} FROM enough.queue WHERE name OPERATOR(pg_catalog.=) $1"),
        &[Parameter::Text(name)],
        |row| {
            found = Some(options_of(row)?);
            Ok(())
        },
    )?;
    found.ok_or_else(|| missing(name))
}

//! Rows of a queue's table, past the executor: for a table as `queue_create` makes it, where the executor would have
//! nothing to decide. [`QueueTable::plain`] says whether that holds; where somebody has added triggers, policies, rules,
//! generated columns, constraints or indexes, the capability goes through SQL instead.
//!
//! Rows are looked at with `SnapshotSelf`, which shows what is committed at this very moment: the index in the segment
//! moves on with each commit, not with the statement's snapshot.

use super::call::Jsonb;
use super::server;
use crate::error::Error;
use enough_engine::queue::{Entry, Tid};
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::prelude::*;
use std::ffi::CStr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The columns of `q_<name>`, in their order.
const COLUMNS: [(&CStr, Oid); 8] = [
    (c"msg_id", pg_sys::INT8OID),
    (c"enqueued_at", pg_sys::TIMESTAMPTZOID),
    (c"deliver_at", pg_sys::TIMESTAMPTZOID),
    (c"attempts", pg_sys::INT4OID),
    (c"priority", pg_sys::INT2OID),
    (c"headers", pg_sys::JSONBOID),
    (c"message", pg_sys::JSONBOID),
    (c"last_error", pg_sys::TEXTOID),
];
const MSG_ID: i16 = 1;
const DELIVER_AT: i16 = 3;
const ATTEMPTS: i16 = 4;

/// Counts the invalidations of the server's relation cache: what was read from the catalogs before the current number
/// must be read again.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// Registers for invalidations; once, when the library is loaded.
pub(super) fn init() {
    // SAFETY: the callback stays as long as the process lives.
    unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(invalidated), Datum::from(0)) };
}

#[pg_guard]
unsafe extern "C-unwind" fn invalidated(_arg: Datum, _relation: Oid) {
    GENERATION.fetch_add(1, Relaxed);
}

/// The current number of invalidations.
pub fn generation() -> u64 {
    GENERATION.load(Relaxed)
}

/// What the catalogs say of a queue's table; true for the [`generation`] in which it was read.
#[derive(Debug, Clone, Copy)]
pub struct QueueTable {
    /// OID of the table.
    pub relation: u32,
    /// OID of the archive's table; 0 where there is none.
    pub archive: u32,
    /// Whether the executor has nothing to decide here.
    pub plain: bool,
    key_index: Oid,
    timed_index: Oid,
    sequence: Oid,
}

/// Privileges on a queue's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// INSERT
    Send,
    /// SELECT and DELETE
    Consume,
    /// SELECT
    Observe,
}

/// A row, with what the reader is told of it.
pub struct Row {
    /// Its number.
    pub msg_id: i64,
    /// When it was sent, in microseconds.
    pub enqueued_at: i64,
    /// Where it is.
    pub tid: Tid,
    /// Not before, in microseconds.
    pub deliver_at: Option<i64>,
    /// What the row knows of failed deliveries.
    pub attempts: i32,
    /// 0 to 9.
    pub priority: i16,
    /// Optional.
    pub headers: Option<Datum>,
    /// The payload.
    pub message: Datum,
    tuple: pg_sys::HeapTuple,
}

/// What is to be inserted.
pub struct NewRow<'c> {
    /// In microseconds.
    pub enqueued_at: i64,
    /// Not before, in microseconds.
    pub deliver_at: Option<i64>,
    /// 0 to 9.
    pub priority: i16,
    /// Optional.
    pub headers: Option<Jsonb<'c>>,
    /// The payload.
    pub message: Jsonb<'c>,
}

/// What became of the wish to delete a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// It is deleted, when the transaction commits.
    Yes,
    /// There is no such row (any more).
    Gone,
    /// A concurrent transaction has changed it, and this transaction's isolation level forbids to look at the change.
    Conflict,
}

unsafe extern "C-unwind" {
    /// `commands/sequence.h`; not among pgrx's bindings.
    fn nextval_internal(relid: Oid, check_permissions: bool) -> i64;
}

/// The OID of a relation in the schema `enough`.
pub fn relation_named(name: &CStr) -> Option<u32> {
    // SAFETY: plain catalog look-ups by C strings.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"enough".as_ptr(), true);
        let relation = pg_sys::get_relname_relid(name.as_ptr(), schema);
        (relation != Oid::INVALID).then(|| relation.to_u32())
    }
}

/// Whether the current role has a privilege on a relation; column privileges don't count.
#[allow(clippy::useless_conversion, reason = "privileges became wider with 16")]
pub fn has_privilege(relation: u32, privilege: Privilege) -> bool {
    let mode = match privilege {
        Privilege::Send => pg_sys::ACL_INSERT,
        Privilege::Observe => pg_sys::ACL_SELECT,
        Privilege::Consume => pg_sys::ACL_SELECT | pg_sys::ACL_DELETE,
    };
    // SAFETY: plain catalog look-up. All bits of the mode are asked for: NO_PRIVILEGES stands for "not all".
    unsafe {
        let mask = pg_sys::pg_class_aclmask(
            Oid::from(relation),
            pg_sys::GetUserId(),
            mode.into(),
            pg_sys::AclMaskHow::ACLMASK_ALL,
        );
        mask == pg_sys::AclMode::from(mode)
    }
}

/// Whether the current role owns a relation, or is a member of the role that does.
pub fn is_owner(relation: u32) -> bool {
    // SAFETY: plain catalog look-ups.
    unsafe {
        #[cfg(feature = "pg15")]
        let owner = pg_sys::pg_class_ownercheck(Oid::from(relation), pg_sys::GetUserId());
        #[cfg(not(feature = "pg15"))]
        let owner = pg_sys::object_ownercheck(pg_sys::RelationRelationId, Oid::from(relation), pg_sys::GetUserId());
        owner
    }
}

/// Whether rows of a relation may be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// By the current role.
    Allowed,
    /// Not by the current role, or there is no such relation.
    Refused,
}

/// Whether the current role may read and delete a relation's rows.
pub fn privilege_to_delete(relation: u32) -> Deletion {
    if relation != 0 && relation_exists(relation) && has_privilege(relation, Privilege::Consume) {
        Deletion::Allowed
    } else {
        Deletion::Refused
    }
}

/// Whether this database has a relation with that OID.
pub fn relation_exists(relation: u32) -> bool {
    // SAFETY: plain catalog look-up.
    unsafe { !pg_sys::get_rel_name(Oid::from(relation)).is_null() }
}

/// Whether the server has a database with that OID.
pub fn database_exists(database: u32) -> bool {
    // SAFETY: plain catalog look-up.
    unsafe { !pg_sys::get_database_name(Oid::from(database)).is_null() }
}

/// Whether this database has an extension of that name.
pub fn extension_exists(name: &CStr) -> bool {
    // SAFETY: plain catalog look-up by a C string.
    unsafe { pg_sys::get_extension_oid(name.as_ptr(), true) != Oid::INVALID }
}

/// An open relation; closed when dropped, while the lock stays until the transaction ends, as the server does it.
struct Open(pg_sys::Relation);

impl Open {
    /// `None` where the table is gone.
    fn table(relation: u32, mode: u32) -> Option<Self> {
        // SAFETY: any OID may be asked for.
        let table = unsafe { pg_sys::try_table_open(Oid::from(relation), mode as _) };
        (!table.is_null()).then_some(Open(table))
    }

    fn index(index: Oid) -> Self {
        // SAFETY: as above.
        Open(unsafe { pg_sys::index_open(index, pg_sys::RowExclusiveLock as _) })
    }

    fn descriptor(&self) -> pg_sys::TupleDesc {
        // SAFETY: an open relation has a descriptor.
        unsafe { (*self.0).rd_att }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // SAFETY: opened by this value. `relation_close` serves tables and indexes alike.
        unsafe { pg_sys::relation_close(self.0, pg_sys::NoLock as _) };
    }
}

/// A registered snapshot that shows everything committed by now.
pub struct Latest(pg_sys::Snapshot);

impl Latest {
    /// Takes it.
    pub fn take() -> Self {
        // SAFETY: no preconditions; registered until dropped.
        Latest(unsafe { pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot()) })
    }
}

impl Drop for Latest {
    fn drop(&mut self) {
        // SAFETY: registered by `take`.
        unsafe { pg_sys::UnregisterSnapshot(self.0) };
    }
}

fn snapshot_self() -> pg_sys::Snapshot {
    &raw mut pg_sys::SnapshotSelfData
}

/// Whether the transaction reads from one snapshot throughout (REPEATABLE READ, SERIALIZABLE).
pub fn fixed_snapshot() -> bool {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// Whether this transaction has written that version of a row.
///
/// # Safety
/// `tuple` is a whole tuple.
unsafe fn written_here(tuple: pg_sys::HeapTuple) -> bool {
    // SAFETY: the caller's promise. The mark of a committed writer is never there while the writer is at work.
    unsafe {
        let header = (*tuple).t_data;
        u32::from((*header).t_infomask) & pg_sys::HEAP_XMIN_COMMITTED == 0
            && pg_sys::TransactionIdIsCurrentTransactionId((*header).t_choice.t_heap.t_xmin)
    }
}

fn item_pointer(tid: Tid) -> pg_sys::ItemPointerData {
    pg_sys::ItemPointerData {
        ip_blkid: pg_sys::BlockIdData { bi_hi: (tid.block >> 16) as u16, bi_lo: tid.block as u16 },
        ip_posid: tid.offset,
    }
}

fn tid_of(pointer: pg_sys::ItemPointerData) -> Tid {
    let block = u32::from(pointer.ip_blkid.bi_hi) << 16 | u32::from(pointer.ip_blkid.bi_lo);
    Tid { block, offset: pointer.ip_posid }
}

impl QueueTable {
    /// Reads the catalogs about the table with that OID; `None` where it is gone.
    pub fn read(relation: u32, archive: u32) -> Result<Option<Self>, Error> {
        let Some(table) = Open::table(relation, pg_sys::AccessShareLock) else {
            return Ok(None);
        };
        // SAFETY: an open relation's fields are valid; the list's cells are OIDs, as the server makes them.
        unsafe {
            let form = (*table.0).rd_rel;
            let descriptor = table.descriptor();
            let mut columns = (*descriptor).natts as usize == COLUMNS.len();
            for (number, (name, kind)) in COLUMNS.iter().enumerate().take((*descriptor).natts as usize) {
                let column = column(descriptor, number);
                columns &= !(*column).attisdropped
                    && (*column).atttypid == *kind
                    && CStr::from_ptr((*column).attname.data.as_ptr()) == *name;
            }
            let constraints = (*descriptor).constr;
            let unusual =
                !constraints.is_null() && ((*constraints).has_generated_stored || (*constraints).num_check > 1);
            let key_index = primary_key(&table);
            let mut timed_index = Oid::INVALID;
            let mut others = 0;
            let indexes = pg_sys::RelationGetIndexList(table.0);
            if !indexes.is_null() {
                for cell in 0..(*indexes).length as usize {
                    let index = (*(*indexes).elements.add(cell)).oid_value;
                    if index == key_index {
                        continue;
                    }
                    others += 1;
                    let index = Open::index(index);
                    let shape = (*index.0).rd_index;
                    if (*shape).indnatts == 1
                        && *(*shape).indkey.values.as_ptr() == DELIVER_AT
                        && (*shape).indisvalid
                        && !(*shape).indisunique
                    {
                        timed_index = (*index.0).rd_id;
                    }
                }
            }
            let sequence = sequence(&table);
            let plain = columns
                && !unusual
                && sequence != Oid::INVALID
                && (*form).relkind == pg_sys::RELKIND_RELATION as std::ffi::c_char
                && (*form).relam == pg_sys::HEAP_TABLE_AM_OID
                && !(*form).relhastriggers
                && !(*form).relhasrules
                && !(*form).relrowsecurity
                && !(*form).relhassubclass
                && others == 1;
            let usable = columns_present(descriptor) && key_index != Oid::INVALID && timed_index != Oid::INVALID;
            if !usable {
                return Err(Error::NotReady {
                    problem: "a queue's table has lost a column or an index".into(),
                    hint: "It needs the columns and both indexes that queue_create gives it.".into(),
                });
            }
            Ok(Some(QueueTable { relation, archive, plain, key_index, timed_index, sequence }))
        }
    }

    /// The next message number.
    pub fn next_msg_id(&self) -> i64 {
        let sequence = self.sequence;
        // SAFETY: the closure holds nothing that would have to be dropped. The sequence belongs to the table whose
        // privileges the caller has checked.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| nextval_internal(sequence, false)) }
    }

    /// Inserts rows; what each has become goes to `inserted`. False where the table is gone.
    pub fn insert(&self, rows: &[NewRow<'_>], mut inserted: impl FnMut(Entry)) -> bool {
        let Some(table) = Open::table(self.relation, pg_sys::RowExclusiveLock) else {
            return false;
        };
        let key_index = Open::index(self.key_index);
        let mut timed: Option<Open> = None;
        // SAFETY: the tuple is formed by the table's own descriptor, which `plain` has compared with the columns; the
        // indexes are the table's own.
        unsafe {
            let key_info = pg_sys::BuildIndexInfo(key_index.0);
            let command = pg_sys::GetCurrentCommandId(true);
            for row in rows {
                let msg_id = self.next_msg_id();
                let mut values = [
                    Datum::from(msg_id),
                    Datum::from(row.enqueued_at),
                    Datum::from(row.deliver_at.unwrap_or(0)),
                    Datum::from(0_i32),
                    Datum::from(row.priority),
                    row.headers.map_or(Datum::null(), Jsonb::datum),
                    row.message.datum(),
                    Datum::null(),
                ];
                let mut nulls =
                    [false, false, row.deliver_at.is_none(), false, false, row.headers.is_none(), false, true];
                let tuple = pg_sys::heap_form_tuple(table.descriptor(), values.as_mut_ptr(), nulls.as_mut_ptr());
                pg_sys::heap_insert(table.0, tuple, command, 0, std::ptr::null_mut());
                let mut place = (*tuple).t_self;
                insert_into_index(&key_index, key_info, &table, Datum::from(msg_id), &mut place, true);
                if let Some(deliver_at) = row.deliver_at {
                    let index = timed.get_or_insert_with(|| Open::index(self.timed_index));
                    let info = pg_sys::BuildIndexInfo(index.0);
                    insert_into_index(index, info, &table, Datum::from(deliver_at), &mut place, false);
                }
                inserted(Entry {
                    msg_id,
                    tid: tid_of(place),
                    priority: row.priority as u8,
                    attempts: 0,
                    deliver_at: row.deliver_at,
                });
                pg_sys::heap_freetuple(tuple);
            }
        }
        true
    }

    /// The table, opened for looking at rows and changing them; `None` where it is gone.
    pub fn open(&self, write: bool) -> Option<OpenTable<'_>> {
        let mode = if write { pg_sys::RowExclusiveLock } else { pg_sys::AccessShareLock };
        let table = Open::table(self.relation, mode)?;
        // SAFETY: the relation is open.
        let blocks = unsafe { pg_sys::RelationGetNumberOfBlocksInFork(table.0, pg_sys::ForkNumber::MAIN_FORKNUM) };
        Some(OpenTable { facts: self, table, mode, blocks })
    }
}

/// # Safety
/// `number` is below the descriptor's count of columns.
unsafe fn column(descriptor: pg_sys::TupleDesc, number: usize) -> *const pg_sys::FormData_pg_attribute {
    // SAFETY: the caller's promise. Since 18 the columns stand behind as many short descriptions of them.
    unsafe {
        #[cfg(feature = "pg18")]
        let columns = (*descriptor).compact_attrs.as_ptr().add((*descriptor).natts as usize);
        #[cfg(not(feature = "pg18"))]
        let columns = (*descriptor).attrs.as_ptr();
        columns.cast::<pg_sys::FormData_pg_attribute>().add(number)
    }
}

/// Whether at least the leading columns that scans read are there.
///
/// # Safety
/// `descriptor` is valid.
unsafe fn columns_present(descriptor: pg_sys::TupleDesc) -> bool {
    // SAFETY: the caller's promise; the count is compared before each access.
    unsafe {
        (*descriptor).natts as usize >= COLUMNS.len()
            && COLUMNS.iter().enumerate().all(|(number, (_, kind))| {
                let column = column(descriptor, number);
                (*column).atttypid == *kind && !(*column).attisdropped
            })
    }
}

fn primary_key(table: &Open) -> Oid {
    // SAFETY: the relation is open.
    unsafe {
        #[cfg(feature = "pg18")]
        let index = pg_sys::RelationGetPrimaryKeyIndex(table.0, false);
        #[cfg(not(feature = "pg18"))]
        let index = pg_sys::RelationGetPrimaryKeyIndex(table.0);
        index
    }
}

fn sequence(table: &Open) -> Oid {
    // SAFETY: the relation is open.
    unsafe {
        #[cfg(feature = "pg15")]
        let sequence = pg_sys::getIdentitySequence((*table.0).rd_id, MSG_ID, true);
        #[cfg(not(feature = "pg15"))]
        let sequence = pg_sys::getIdentitySequence(table.0, MSG_ID, true);
        sequence
    }
}

/// # Safety
/// `info` belongs to `index`, an index of one column of `table`, and `place` is where the row was just inserted.
unsafe fn insert_into_index(
    index: &Open,
    info: *mut pg_sys::IndexInfo,
    table: &Open,
    value: Datum,
    place: &mut pg_sys::ItemPointerData,
    unique: bool,
) {
    use pg_sys::IndexUniqueCheck as Check;
    let check = if unique { Check::UNIQUE_CHECK_YES } else { Check::UNIQUE_CHECK_NO };
    let (mut values, mut nulls) = ([value], [false]);
    // SAFETY: the caller's promise.
    unsafe {
        pg_sys::index_insert(index.0, values.as_mut_ptr(), nulls.as_mut_ptr(), place, table.0, check, false, info);
    }
}

/// A queue's table while a call works on it.
pub struct OpenTable<'t> {
    facts: &'t QueueTable,
    table: Open,
    mode: u32,
    blocks: u32,
}

impl OpenTable<'_> {
    /// Closes the table and lets go of its lock before the transaction ends; for who has changed nothing in it.
    pub fn unlock(self) {
        // SAFETY: opened by `open` with this mode.
        unsafe { pg_sys::UnlockRelationOid(Oid::from(self.facts.relation), self.mode as _) };
    }

    /// The row of a message as it is committed now (or was changed by this transaction): by its place first, and where
    /// another row is there, by its number.
    pub fn fetch(&self, msg_id: i64, tid: Tid) -> Option<Row> {
        // A version that was current when the index was read and another that becomes current while the look-up is on
        // its way can both be missed by `SnapshotSelf`; a snapshot taken once shows one of them.
        self.fetch_with(snapshot_self(), msg_id, tid).or_else(|| self.by_number(Latest::take().0, msg_id))
    }

    /// Whether the transaction's own snapshot shows the row too.
    pub fn shown(&self, row: &Row) -> bool {
        // SAFETY: a call of a function has an active snapshot.
        let snapshot = unsafe { pg_sys::GetActiveSnapshot() };
        self.fetch_with(snapshot, row.msg_id, row.tid).is_some()
    }

    fn fetch_with(&self, snapshot: pg_sys::Snapshot, msg_id: i64, tid: Tid) -> Option<Row> {
        let by_place = self.at_place(snapshot, tid).filter(|row| row.msg_id == msg_id);
        by_place.or_else(|| self.by_number(snapshot, msg_id))
    }

    fn at_place(&self, snapshot: pg_sys::Snapshot, tid: Tid) -> Option<Row> {
        // After TRUNCATE a place may lie beyond the table's end, where reading would be an error.
        if tid.block >= self.blocks || tid.offset == 0 {
            return None;
        }
        // SAFETY: the block exists; an offset beyond its line pointers is answered by false. The tuple is copied while
        // its buffer is pinned.
        unsafe {
            let mut tuple: pg_sys::HeapTupleData = std::mem::zeroed();
            tuple.t_self = item_pointer(tid);
            let mut buffer = 0;
            if !pg_sys::heap_fetch(self.table.0, snapshot, &raw mut tuple, &raw mut buffer, false) {
                return None;
            }
            let copy = pg_sys::heap_copytuple(&raw mut tuple);
            pg_sys::ReleaseBuffer(buffer);
            Some(self.row(copy))
        }
    }

    fn by_number(&self, snapshot: pg_sys::Snapshot, msg_id: i64) -> Option<Row> {
        // SAFETY: the key fits the primary key's one column; the tuple is copied before the scan ends.
        unsafe {
            let mut key: pg_sys::ScanKeyData = std::mem::zeroed();
            pg_sys::ScanKeyInit(
                &raw mut key,
                MSG_ID,
                pg_sys::BTEqualStrategyNumber as u16,
                Oid::from(pg_sys::F_INT8EQ),
                Datum::from(msg_id),
            );
            let scan = pg_sys::systable_beginscan(self.table.0, self.facts.key_index, true, snapshot, 1, &raw mut key);
            let tuple = pg_sys::systable_getnext(scan);
            let row = (!tuple.is_null()).then(|| self.row(pg_sys::heap_copytuple(tuple)));
            pg_sys::systable_endscan(scan);
            row
        }
    }

    /// # Safety
    /// `tuple` is a whole tuple of this table in the call's memory context.
    unsafe fn row(&self, tuple: pg_sys::HeapTuple) -> Row {
        // SAFETY: the caller's promise; `columns_present` has compared the leading columns' types.
        unsafe {
            let (values, nulls) = self.deform(tuple);
            // A value out of line is fetched now, while the row is sure to be there.
            let here = |datum: Datum| Datum::from(pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr()));
            Row {
                msg_id: values[0].value() as i64,
                enqueued_at: values[1].value() as i64,
                tid: tid_of((*tuple).t_self),
                deliver_at: (!nulls[2]).then(|| values[2].value() as i64),
                attempts: values[3].value() as i32,
                priority: values[4].value() as i16,
                headers: (!nulls[5]).then(|| here(values[5])),
                message: here(values[6]),
                tuple,
            }
        }
    }

    /// # Safety
    /// `tuple` is a tuple of this table.
    unsafe fn deform(&self, tuple: pg_sys::HeapTuple) -> ([Datum; COLUMNS.len()], [bool; COLUMNS.len()]) {
        let columns = self.table.descriptor();
        // SAFETY: room for as many columns as the table has, of which the leading ones are wanted.
        unsafe {
            let count = (*columns).natts as usize;
            if count == COLUMNS.len() {
                let (mut values, mut nulls) = ([Datum::null(); COLUMNS.len()], [true; COLUMNS.len()]);
                pg_sys::heap_deform_tuple(tuple, columns, values.as_mut_ptr(), nulls.as_mut_ptr());
                return (values, nulls);
            }
            let (mut values, mut nulls) = (vec![Datum::null(); count], vec![true; count]);
            pg_sys::heap_deform_tuple(tuple, columns, values.as_mut_ptr(), nulls.as_mut_ptr());
            (std::array::from_fn(|i| values[i]), std::array::from_fn(|i| nulls[i]))
        }
    }

    /// Deletes a row that was fetched, waiting for whoever is changing it.
    pub fn delete(&self, msg_id: i64, tid: Tid) -> Deleted {
        let mut at = tid;
        loop {
            let Some(row) = self.fetch(msg_id, at) else {
                return Deleted::Gone;
            };
            if fixed_snapshot() && !self.shown(&row) {
                return Deleted::Conflict;
            }
            match self.delete_at(&row) {
                pg_sys::TM_Result::TM_Ok => return Deleted::Yes,
                pg_sys::TM_Result::TM_Deleted | pg_sys::TM_Result::TM_SelfModified => return Deleted::Gone,
                _ if fixed_snapshot() => return Deleted::Conflict,
                // Changed by a transaction that has committed meanwhile: look where the row is now.
                _ => at = Tid::default(),
            }
            server::check_for_interrupts();
        }
    }

    fn delete_at(&self, row: &Row) -> pg_sys::TM_Result::Type {
        // SAFETY: the row was just fetched from this table. What this very command inserted can't be deleted by it, so
        // the command counter moves on first.
        unsafe {
            if written_here(row.tuple) {
                pg_sys::CommandCounterIncrement();
            }
            let mut place = item_pointer(row.tid);
            let mut failure: pg_sys::TM_FailureData = std::mem::zeroed();
            pg_sys::heap_delete(
                self.table.0,
                &raw mut place,
                pg_sys::GetCurrentCommandId(true),
                std::ptr::null_mut(),
                true,
                &raw mut failure,
                false,
            )
        }
    }

    /// Writes the number of deliveries into a fetched row; `None` where somebody else is changing the row, which isn't
    /// waited for: the number in the segment serves as long as the server runs. The answer is the row's new place.
    pub fn write_attempts(&self, row: &Row, attempts: u32) -> Option<Tid> {
        // SAFETY: the row was just fetched from this table, whose descriptor forms the new version; where the new
        // version isn't on the same page, both indexes are told, as for any update.
        unsafe {
            if written_here(row.tuple) {
                pg_sys::CommandCounterIncrement();
            }
            let columns = (*self.table.descriptor()).natts as usize;
            let mut values = vec![Datum::null(); columns];
            let nulls = vec![false; columns];
            let mut replace = vec![false; columns];
            values[ATTEMPTS as usize - 1] = Datum::from(attempts as i32);
            replace[ATTEMPTS as usize - 1] = true;
            let (mut values, mut nulls) = (values, nulls);
            let new = pg_sys::heap_modify_tuple(
                row.tuple,
                self.table.descriptor(),
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
                replace.as_mut_ptr(),
            );
            let mut place = item_pointer(row.tid);
            let mut failure: pg_sys::TM_FailureData = std::mem::zeroed();
            let mut mode = pg_sys::LockTupleMode::LockTupleNoKeyExclusive;
            let command = pg_sys::GetCurrentCommandId(true);
            let none = std::ptr::null_mut();
            #[cfg(feature = "pg15")]
            let result = pg_sys::heap_update(
                self.table.0,
                &raw mut place,
                new,
                command,
                none,
                false,
                &raw mut failure,
                &raw mut mode,
            );
            #[cfg(not(feature = "pg15"))]
            let mut indexes = pg_sys::TU_UpdateIndexes::TU_None;
            #[cfg(not(feature = "pg15"))]
            let result = pg_sys::heap_update(
                self.table.0,
                &raw mut place,
                new,
                command,
                none,
                false,
                &raw mut failure,
                &raw mut mode,
                &raw mut indexes,
            );
            if result != pg_sys::TM_Result::TM_Ok {
                return None;
            }
            let heap_only = (*(*new).t_data).t_infomask2 & pg_sys::HEAP_ONLY_TUPLE as u16 != 0;
            if !heap_only {
                self.index_again(new);
            }
            Some(tid_of((*new).t_self))
        }
    }

    /// # Safety
    /// `tuple` was just inserted into this table as a new version of a row.
    unsafe fn index_again(&self, tuple: pg_sys::HeapTuple) {
        // SAFETY: the caller's promise; the indexes are the table's own.
        unsafe {
            let (values, nulls) = self.deform(tuple);
            let mut place = (*tuple).t_self;
            let key_index = Open::index(self.facts.key_index);
            let info = pg_sys::BuildIndexInfo(key_index.0);
            insert_into_index(&key_index, info, &self.table, values[0], &mut place, true);
            if !nulls[DELIVER_AT as usize - 1] {
                let index = Open::index(self.facts.timed_index);
                let info = pg_sys::BuildIndexInfo(index.0);
                insert_into_index(&index, info, &self.table, values[DELIVER_AT as usize - 1], &mut place, false);
            }
        }
    }

    /// Reads committed rows in the order of their numbers, or of their delivery times, from above `after` on, until `each`
    /// says that it has enough. Rows with a delivery time are only in the latter order, rows without one only in the
    /// former; rows of this transaction's own are left out, because they become messages when it commits.
    pub fn scan(&self, snapshot: &Latest, order: Order, after: i64, mut each: impl FnMut(&Entry) -> bool) -> Scanned {
        let (index, column, greater) = match order {
            Order::Number => (self.facts.key_index, MSG_ID, pg_sys::F_INT8GT),
            Order::Time => (self.facts.timed_index, DELIVER_AT, pg_sys::F_TIMESTAMPTZ_GT),
        };
        let index = Open::index(index);
        // From the very beginning there is no key: a delivery time of `-infinity` isn't above any.
        let keys = i32::from(after != i64::MIN);
        // SAFETY: the key fits the index's one column; each tuple is read before the next is asked for.
        unsafe {
            let mut key: pg_sys::ScanKeyData = std::mem::zeroed();
            pg_sys::ScanKeyInit(
                &raw mut key,
                column,
                pg_sys::BTGreaterStrategyNumber as u16,
                Oid::from(greater),
                Datum::from(after),
            );
            let scan = pg_sys::systable_beginscan_ordered(self.table.0, index.0, snapshot.0, keys, &raw mut key);
            let mut scanned = Scanned { ended: false, own: false };
            loop {
                server::check_for_interrupts();
                let tuple = pg_sys::systable_getnext_ordered(scan, pg_sys::ScanDirection::ForwardScanDirection);
                if tuple.is_null() {
                    scanned.ended = true;
                    break;
                }
                if written_here(tuple) {
                    scanned.own = true;
                    continue;
                }
                let (values, nulls) = self.deform(tuple);
                let deliver_at = (!nulls[2]).then(|| values[2].value() as i64);
                if order == Order::Number && deliver_at.is_some() {
                    continue;
                }
                let entry = Entry {
                    msg_id: values[0].value() as i64,
                    tid: tid_of((*tuple).t_self),
                    priority: (values[4].value() as i16).clamp(0, 9) as u8,
                    attempts: (values[3].value() as i32).max(0) as u32,
                    deliver_at,
                };
                if !each(&entry) {
                    break;
                }
            }
            pg_sys::systable_endscan_ordered(scan);
            scanned
        }
    }
}

/// How a scan went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scanned {
    /// It came to the table's end.
    pub ended: bool,
    /// It left out rows that this transaction has written.
    pub own: bool,
}

/// In which order rows are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By message number.
    Number,
    /// By delivery time.
    Time,
}

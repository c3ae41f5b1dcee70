//! Calls by triggers: what has happened, and to which rows.

use super::argument::payload;
use super::fmgr::Call;
use super::row::column;
use crate::error::Error;
use pgrx::pg_sys::{self, Datum};
use std::ffi::{CStr, CString};
use std::marker::PhantomData;

/// What a function is told when a trigger calls it.
pub struct Trigger<'c> {
    data: *const pg_sys::TriggerData,
    lifetime: PhantomData<&'c ()>,
}

/// A row as it was, or as it is now.
#[derive(Clone, Copy)]
pub struct TriggerRow<'c> {
    tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
    lifetime: PhantomData<&'c ()>,
}

impl<'c> Call<'c> {
    /// The trigger that calls; `None` where nobody does.
    pub fn trigger(&self) -> Option<Trigger<'c>> {
        // SAFETY: the context of a call is a node of the server's, or NULL.
        unsafe {
            let context = self.context();
            let is_one = !context.is_null() && (*context).type_ == pg_sys::NodeTag::T_TriggerData;
            is_one.then_some(Trigger { data: context.cast(), lifetime: PhantomData })
        }
    }

    /// The trigger that calls `function`, which is for triggers alone; `hint` says what makes them.
    pub fn required_trigger(&self, function: &str, hint: &str) -> Result<Trigger<'c>, Error> {
        self.trigger().ok_or_else(|| Error::NotReady {
            problem: format!("{function}() was not called by a trigger"),
            hint: hint.into(),
        })
    }
}

/// What a statement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Insert,
    Update,
    Delete,
    Truncate,
}

impl<'c> Trigger<'c> {
    /// What has happened.
    pub fn event(&self) -> Event {
        // SAFETY: the server fills it in.
        match unsafe { (*self.data).tg_event } & pg_sys::TRIGGER_EVENT_OPMASK {
            pg_sys::TRIGGER_EVENT_INSERT => Event::Insert,
            pg_sys::TRIGGER_EVENT_UPDATE => Event::Update,
            pg_sys::TRIGGER_EVENT_DELETE => Event::Delete,
            _ => Event::Truncate,
        }
    }

    /// The OID of the table that is written.
    pub fn relation(&self) -> u32 {
        // SAFETY: the server has the table open while it calls the trigger.
        unsafe { (*(*self.data).tg_relation).rd_id.to_u32() }
    }

    /// The trigger's own OID, where it is a partition's that was made with one of the whole table.
    pub fn clone_id(&self) -> Option<u32> {
        // SAFETY: the trigger's description lives as long as the call.
        let trigger = unsafe { &*(*self.data).tg_trigger };
        trigger.tgisclone.then(|| trigger.tgoid.to_u32())
    }

    /// The columns of the table that is written.
    pub(super) fn descriptor(&self) -> pg_sys::TupleDesc {
        // SAFETY: as above.
        unsafe { (*(*self.data).tg_relation).rd_att }
    }

    /// The row before and after the change, each NULL where there is none, where the trigger runs for each row.
    pub(super) fn tuples(&self) -> Option<[pg_sys::HeapTuple; 2]> {
        // SAFETY: the server fills in what belongs to the event.
        let data = unsafe { &*self.data };
        if data.tg_event & pg_sys::TRIGGER_EVENT_ROW == 0 {
            return None;
        }
        Some(match data.tg_event & pg_sys::TRIGGER_EVENT_OPMASK {
            pg_sys::TRIGGER_EVENT_INSERT => [std::ptr::null_mut(), data.tg_trigtuple],
            pg_sys::TRIGGER_EVENT_UPDATE => [data.tg_trigtuple, data.tg_newtuple],
            _ => [data.tg_trigtuple, std::ptr::null_mut()],
        })
    }

    /// The transition tables with the rows before and after the change.
    pub(super) fn tables(&self) -> [Option<*mut pg_sys::Tuplestorestate>; 2] {
        // SAFETY: as above.
        let data = unsafe { &*self.data };
        [data.tg_oldtable, data.tg_newtable].map(|table| (!table.is_null()).then_some(table))
    }

    /// The `index`-th argument of CREATE TRIGGER, in the database's encoding.
    pub fn argument(&self, index: usize) -> Option<&'c [u8]> {
        // SAFETY: the trigger's description has as many arguments as it says, and lives as long as the call.
        unsafe {
            let trigger = &*(*self.data).tg_trigger;
            (index < usize::try_from(trigger.tgnargs).unwrap_or(0))
                .then(|| CStr::from_ptr(*trigger.tgargs.add(index)).to_bytes())
        }
    }

    /// All arguments from the `first`-th on.
    pub fn arguments_from(&self, first: usize) -> impl Iterator<Item = &'c [u8]> {
        (first..).map_while(|index| self.argument(index))
    }

    /// Tells all sessions, and this one after the statement, when the transaction commits, to forget what they know of the
    /// trigger's table: [`relcache_epoch`](super::catalog::relcache_epoch) moves.
    pub fn invalidate_relation(&self) {
        // SAFETY: the server has the table open while it calls the trigger. It is told at the end of the command and of the
        // transaction, or not at all where that is rolled back.
        unsafe { pg_sys::CacheInvalidateRelcache((*self.data).tg_relation) };
    }

    /// The row before and after the change, where the trigger runs for each row.
    pub fn rows(&self) -> Option<[Option<TriggerRow<'c>>; 2]> {
        let descriptor = self.descriptor();
        let row = |tuple: pg_sys::HeapTuple| {
            (!tuple.is_null()).then_some(TriggerRow { tuple, descriptor, lifetime: PhantomData })
        };
        Some(self.tuples()?.map(row))
    }
}

impl<'c> TriggerRow<'c> {
    /// The row as a value of its table's type, which has that OID.
    pub(super) fn datum(self) -> (Datum, pg_sys::Oid) {
        // SAFETY: a row and its own descriptor; what is returned lies in the call's memory.
        unsafe { (pg_sys::heap_copy_tuple_as_datum(self.tuple, self.descriptor), (*self.descriptor).tdtypeid) }
    }

    /// The text of the column with that number, in the database's encoding; `None` for NULL, or where it isn't a text.
    pub fn text_at(self, number: i16) -> Option<&'c [u8]> {
        // SAFETY: a row and its own descriptor, with whose columns the number is compared. What is fetched lies in the call's memory.
        unsafe {
            if i32::from(number) > (*self.descriptor).natts {
                return None;
            }
            let column = column(self.descriptor, number as usize - 1);
            if (*column).attisdropped || !matches!((*column).atttypid, pg_sys::TEXTOID | pg_sys::VARCHAROID) {
                return None;
            }
            let mut null = false;
            let datum = pg_sys::heap_getattr(self.tuple, i32::from(number), self.descriptor, &mut null);
            (!null).then(|| payload(datum))
        }
    }

    /// The text of a column, in the database's encoding: as the server prints it, empty for NULL. `None` where there is no
    /// column of that name.
    pub fn text(self, column: &[u8]) -> Option<&'c [u8]> {
        let column = CString::new(column).ok()?;
        // SAFETY: a row and its own descriptor; what is returned lies in the call's memory.
        unsafe {
            let number = pg_sys::SPI_fnumber(self.descriptor, column.as_ptr());
            if number <= 0 {
                return None;
            }
            let text = pg_sys::SPI_getvalue(self.tuple, self.descriptor, number);
            Some(if text.is_null() { &[] } else { CStr::from_ptr(text).to_bytes() })
        }
    }
}

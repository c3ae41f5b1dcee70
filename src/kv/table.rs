//! A space that is there: the table that it is.

use crate::error::Error;
use crate::pg::encoding::decode;
use crate::pg::name::valid_name_of;
use crate::pg::spi::as_owner_of;
use crate::pg::{catalog, server};
use std::ffi::{CStr, CString};

/// For calls of the triggers' functions that no trigger makes.
pub(super) const MADE_BY: &str = "Make spaces with enough.kv_create().";

/// A space that is there.
pub(super) struct Space {
    pub name: String,
    /// The OID of its table.
    pub oid: u32,
    /// Its table, as part of a statement.
    pub table: String,
}

/// The OID of the table of the space of that name.
pub(super) fn relation(name: &str) -> Option<u32> {
    // A valid name has no NUL byte.
    CString::new(format!("kv_{name}")).ok().and_then(|name| catalog::relation_named(&name))
}

pub(super) fn missing(name: &str) -> Error {
    Error::Missing { what: "space", name: name.into(), hint: "Create it with enough.kv_create()." }
}

/// Fails where the transaction can't write.
pub(super) fn require_write(function: &'static str) -> Result<(), Error> {
    if server::may_write() { Ok(()) } else { Err(Error::ReadOnly { function }) }
}

/// Does `work` with the rights of the owner of one of the extension's own tables, in the schema `enough`.
pub(super) fn as_owner_of_own<R>(table: &CStr, work: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
    as_owner_of(catalog::relation_named(table).ok_or_else(Error::altered)?, work)
}

impl Space {
    /// The space of that name.
    pub(super) fn open(name: &[u8]) -> Result<Space, Error> {
        let name = valid_name_of("space", name)?;
        let oid = relation(name).ok_or_else(|| missing(name))?;
        Ok(Space { name: name.into(), oid, table: format!("enough.\"kv_{name}\"") })
    }

    /// The space whose table that is; it may have been moved by hand.
    pub(super) fn of_table(oid: u32) -> Result<Space, Error> {
        let (schema, name) = catalog::names_of(oid).ok_or_else(|| Error::NotReady {
            problem: "the table of a space was dropped by another session".into(),
            hint: "Call again.".into(),
        })?;
        let [schema, name] = [schema, name].map(|name| decode(&name).into_owned());
        let table = format!("\"{}\".\"{}\"", schema.replace('"', "\"\""), name.replace('"', "\"\""));
        Ok(Space { name: name.strip_prefix("kv_").unwrap_or(&name).into(), oid, table })
    }

    /// Whether it keeps versions of before.
    pub(super) fn has_history(&self) -> bool {
        catalog::has_column(self.oid, c"past")
    }
}

//! Privileges by what they are for: they are the table's own.

use super::ddl::lock_name;
use crate::error::Error;
use crate::pg::catalog::role_name;
use crate::pg::spi::run_bytes;
use crate::queue::handle::{Queue, require_write};

/// Whether privileges are given or taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::queue) enum Direction {
    Grant,
    Revoke,
}

/// The table's privileges that something needs; `None` where it is no such thing.
fn privileges(what: &str) -> Option<&'static str> {
    Some(match what {
        "send" => "INSERT",
        "consume" => "SELECT, DELETE",
        "observe" => "SELECT",
        "all" => "SELECT, INSERT, DELETE",
        _ => return None,
    })
}

/// Gives a role what it needs to do `what`, or takes it away, with the caller's rights.
pub(in crate::queue) fn change(queue: &Queue, direction: Direction, role: u32, what: &str) -> Result<(), Error> {
    let privileges = privileges(what).ok_or_else(|| {
        Error::invalid("what", format!("\"{what}\""), "\"send\", \"consume\", \"observe\" or \"all\"")
    })?;
    let role = role_name(role).ok_or_else(|| Error::Missing {
        what: "role",
        name: role.to_string(),
        hint: "Name one that is there, as 'name' or to_regrole('name').",
    })?;
    let table = queue.relation("q_");
    let (function, statement) = match direction {
        Direction::Grant => ("queue_grant", format!("GRANT {privileges} ON {table} TO ")),
        Direction::Revoke => ("queue_revoke", format!("REVOKE {privileges} ON {table} FROM ")),
    };
    require_write(function)?;
    lock_name(&queue.name);
    super::ddl::change(&queue.name, || run_bytes(&[statement.as_bytes(), &role]))?;
    Ok(())
}

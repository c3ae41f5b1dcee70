//! Giving a queue another name: to its tables, all that belongs to them, its row in `enough.queue` and its schedules. The
//! index in memory knows a queue by its table's OID, so leases and all it holds stay.

use super::create::{not_owner, require_create};
use super::ddl::{change_exclusively, lock_name};
use super::tables::{self, ARCHIVE, LIVE};
use crate::cron;
use crate::error::Error;
use crate::pg::catalog;
use crate::pg::server;
use crate::pg::spi::{Parameter, run};
use crate::queue::handle::{absent, require_write};
use crate::queue::name::{missing, relation, valid_name};
use crate::queue::options::{has_row, in_registry, load_options, redirect_dead_letters};
use crate::queue::pending::{Action, remember};
use crate::queue::sources;
use enough_engine::queue::QueueKey;

/// Renames a queue. Where its tables, or one of them, have the new name already, because somebody has renamed them by hand,
/// does the rest.
pub(in crate::queue) fn rename(from: &[u8], to: &[u8]) -> Result<(), Error> {
    let (from, to) = (valid_name(from)?, valid_name(to)?);
    if server::may_write() {
        // In one order, so that two sessions don't wait for each other.
        lock_name(from.min(to));
        lock_name(from.max(to));
    }
    let place = Place::find(from, to)?;
    require_write("queue_rename")?;
    for found in [place.table, place.archive].into_iter().flatten() {
        if !catalog::is_owner(found) {
            return Err(not_owner("renaming", from));
        }
    }
    require_create(to)?;
    change_exclusively(from, || {
        for prefix in [LIVE, ARCHIVE] {
            if relation(prefix, from).is_some() && relation(prefix, to).is_none() {
                run(&format!("ALTER TABLE enough.\"{prefix}{from}\" RENAME TO \"{prefix}{to}\""), &[])?;
            }
        }
        Ok(())
    })?;
    tables::complete(to, false)?;
    in_registry(|| {
        run(
            "UPDATE enough.queue SET name = $2 WHERE name OPERATOR(pg_catalog.=) $1",
            &[Parameter::Text(from), Parameter::Text(to)],
        )
    })?;
    redirect_dead_letters(from, Some(to))?;
    cron::redirect(from, to)?;
    sources::follow(from, to)?;
    let relation = relation(LIVE, to).ok_or_else(|| missing(to))?;
    // Wakes the readers that wait: by the old name there is nothing to wait for any more.
    remember(QueueKey { database: server::database(), relation }, Action::Altered(load_options(to)?));
    Ok(())
}

/// The tables of the queue that is renamed.
struct Place {
    table: Option<u32>,
    archive: Option<u32>,
}

impl Place {
    fn find(from: &str, to: &str) -> Result<Self, Error> {
        let named = |prefix| (relation(prefix, from), relation(prefix, to));
        let ((table, new_table), (archive, new_archive)) = (named(LIVE), named(ARCHIVE));
        if table.is_none() && (new_table.is_none() || !has_row(from)?) {
            return Err(absent(from));
        }
        if table.is_some() && !has_row(from)? {
            return Err(Error::Unregistered { queue: from.into() });
        }
        let both = |old: Option<u32>, new: Option<u32>| old.is_some() && new.is_some();
        if both(table, new_table) || both(archive, new_archive) || has_row(to)? {
            return Err(Error::Exists {
                what: "queue",
                name: to.into(),
                hint: "Choose another name, or drop what is left of that queue with enough.queue_drop().".into(),
            });
        }
        Ok(Self { table: table.or(new_table), archive: archive.or(new_archive) })
    }
}

//! How spaces are made and dropped.

use super::table::{Space, missing, relation, require_write};
use super::{crash, mark, version};
use crate::error::Error;
use crate::pg::catalog;
use crate::pg::name::valid_name_of;
use crate::pg::spi::{as_owner_of, run};

/// What `kv_create` was asked for.
pub(super) struct NewSpace {
    pub indexed: bool,
    pub unlogged: bool,
    /// How many versions of each key it keeps beside the current one.
    pub history: i32,
    pub if_not_exists: bool,
}

/// Makes a space; false where it was there already.
pub(super) fn create(name: &[u8], new: &NewSpace) -> Result<bool, Error> {
    let name = valid_name_of("space", name)?;
    if relation(name).is_some() {
        if new.if_not_exists {
            return Ok(false);
        }
        let hint = "Choose another name, or pass if_not_exists => true.".into();
        return Err(Error::Exists { what: "space", name: name.into(), hint });
    }
    require_write("kv_create")?;
    if !catalog::may_create() {
        return Err(Error::Denied {
            what: format!("creating space \"{name}\""),
            hint:
                "This needs CREATE on the schema enough; its owner grants that, or calls enough.grant_to(role, 'admin')."
                    .into(),
        });
    }
    let unlogged = if new.unlogged { "UNLOGGED" } else { "" };
    let past = if new.history > 0 { ", past enough.kv_change[]" } else { "" };
    // Behind those of a space of that name that was dropped, so that a watcher of that one notices. It writes WAL in every case:
    // versions don't come again when a crash has emptied the table.
    run(
        &format!("CREATE SEQUENCE enough.\"k_{name}_versions\" START WITH {}", mark::of(name)?.saturating_add(1)),
        &[],
    )?;
    // The version is drawn before the fence is read: the server evaluates columns in their order. With room in the pages the new row of
    // an UPDATE stays near the old one.
    run(
        &format!(
            "CREATE {unlogged} TABLE enough.\"kv_{name}\" (\
             key text COLLATE pg_catalog.\"C\" CONSTRAINT \"k_{name}_key\" PRIMARY KEY \
                CHECK (pg_catalog.octet_length(key) OPERATOR(pg_catalog.>=) 1 AND pg_catalog.octet_length(key) OPERATOR(pg_catalog.<=) 512), \
             value jsonb, \
             version bigint NOT NULL DEFAULT enough._kv_version('enough.\"k_{name}_versions\"'::pg_catalog.regclass), \
             fence xid8 NOT NULL DEFAULT enough._kv_fence(), \
             updated_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(), \
             expires_at timestamptz{past}) \
             WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000)"
        ),
        &[],
    )?;
    run(&format!("ALTER SEQUENCE enough.\"k_{name}_versions\" OWNED BY enough.\"kv_{name}\".version"), &[])?;
    run(
        &format!("CREATE INDEX \"k_{name}_expiry\" ON enough.\"kv_{name}\" (expires_at) WHERE expires_at IS NOT NULL"),
        &[],
    )?;
    run(&format!("CREATE INDEX \"k_{name}_version\" ON enough.\"kv_{name}\" (version)"), &[])?;
    if new.indexed {
        run(
            &format!(
                "CREATE INDEX \"k_{name}_value\" ON enough.\"kv_{name}\" USING gin (value pg_catalog.jsonb_path_ops)"
            ),
            &[],
        )?;
    }
    for (trigger, what) in triggers(new.history) {
        run(&format!("CREATE TRIGGER {trigger} ON enough.\"kv_{name}\" {what}"), &[])?;
    }
    // Whichever session changes rows, one that applies what is replicated as well.
    run(&format!("ALTER TABLE enough.\"kv_{name}\" ENABLE ALWAYS TRIGGER kv_copies"), &[])?;
    run(&format!("COMMENT ON TABLE enough.\"kv_{name}\" IS 'The key-value space {name} of pg_enough'"), &[])?;
    crash::note(&Space::open(name.as_bytes())?)?;
    Ok(true)
}

/// The triggers of a space's table: the name and when each fires, and what it does.
fn triggers(history: i32) -> Vec<(&'static str, String)> {
    let changed = || "FOR EACH STATEMENT EXECUTE FUNCTION enough._kv_changed()".to_owned();
    let mut all = vec![
        ("kv_copies AFTER UPDATE OR DELETE", "FOR EACH ROW EXECUTE FUNCTION enough._kv_copies()".into()),
        (
            "kv_stamp BEFORE UPDATE",
            "FOR EACH ROW WHEN (NEW.version OPERATOR(pg_catalog.=) OLD.version) EXECUTE FUNCTION enough._kv_stamp()"
                .into(),
        ),
        ("kv_changed AFTER INSERT OR UPDATE OR DELETE", changed()),
        ("kv_truncate BEFORE TRUNCATE", changed()),
        ("kv_truncated AFTER TRUNCATE", changed()),
        ("kv_deleted AFTER DELETE", format!("FOR EACH ROW EXECUTE FUNCTION enough._kv_changed('{history}')")),
    ];
    if history > 0 {
        all.push(("kv_history BEFORE UPDATE", format!("FOR EACH ROW EXECUTE FUNCTION enough._kv_keep('{history}')")));
    }
    all
}

/// Drops a space with all that is in it; false where there is none and that is fine.
pub(super) fn drop_space(name: &[u8], if_exists: bool) -> Result<bool, Error> {
    let name = valid_name_of("space", name)?;
    let Some(table) = relation(name) else {
        return if if_exists { Ok(false) } else { Err(missing(name)) };
    };
    if !catalog::is_owner(table) {
        return Err(Error::Denied {
            what: format!("dropping space \"{name}\""),
            hint: format!("Only the owner of the table enough.\"kv_{name}\" may do that."),
        });
    }
    require_write("kv_drop")?;
    // Nobody draws a version any more.
    run(&format!("LOCK TABLE enough.\"kv_{name}\" IN ACCESS EXCLUSIVE MODE"), &[])?;
    let space = Space::of_table(table)?;
    let last = as_owner_of(table, || version::last(&space))?;
    run(&format!("DROP TABLE enough.\"kv_{name}\""), &[])?;
    // Greater than what anybody can have seen.
    mark::gone(&space, last.saturating_add(1))?;
    Ok(true)
}

//! What the configuration says of the sizes of the segment; why the file is read stands in `settings.rs`.

use super::layout::Sizes;
use crate::capability::Region;
use crate::error::Error;
use crate::guc;
use crate::pg::spi::{as_owner_of, read_rows, text};
use pgrx::pg_sys;
use std::ffi::{CString, c_int};

/// What the configuration says of a size.
pub struct Configured {
    pub region: Region,
    /// Which of its capability's settings.
    pub number: usize,
    /// The setting's name.
    pub name: &'static str,
    /// In bytes.
    pub bytes: usize,
    /// The server itself says that the value waits for its restart.
    pub pending: bool,
}

/// A value that no session has given: the server's own for this process; or, where that is the default, maybe because it
/// has lost another, the configuration file's.
const CONFIGURED: &str = "\
    SELECT s.name, s.setting::pg_catalog.int4, s.pending_restart, CASE WHEN s.source OPERATOR(pg_catalog.=) 'default' THEN \
        (SELECT f.setting FROM pg_catalog.pg_file_settings AS f \
         WHERE pg_catalog.lower(f.name) OPERATOR(pg_catalog.=) s.name AND f.error IS NULL ORDER BY f.seqno DESC LIMIT 1) END \
    FROM pg_catalog.pg_settings AS s WHERE s.name OPERATOR(pg_catalog.~~) 'enough.%' AND s.unit OPERATOR(pg_catalog.=) 'kB'";

/// What the configuration says of all sizes, in their order. Only a superuser may read the file; the sizes in it are no secret.
pub fn configured() -> Result<Vec<Configured>, Error> {
    let mut configured = Vec::new();
    as_owner_of(pg_sys::RelationRelationId.to_u32(), || {
        read_rows(CONFIGURED, &[], |row| {
            let (name, file) = (text(row, 1)?, text(row, 4)?);
            let Some((region, number, name)) = name.and_then(|name| named(&name)) else { return Ok(()) };
            let shown = row.get::<i32>(2)?.unwrap_or(0);
            let kilobytes = file.and_then(|file| parsed(&file)).unwrap_or(shown);
            let pending = row.get::<bool>(3)?.unwrap_or(false);
            configured.push(Configured { region, number, name, bytes: guc::bytes(kilobytes), pending });
            Ok(())
        })
    })?;
    configured.sort_by_key(|one| (one.region.0, one.number));
    Ok(configured)
}

/// The sizes of a segment that is to be made.
pub(super) fn sizes() -> Result<Sizes, Error> {
    let mut sizes = Sizes::shown();
    for Configured { region, number, bytes, .. } in configured()? {
        sizes.0[usize::from(region.0)][number] = bytes;
    }
    Ok(sizes)
}

/// The size of that name.
fn named(name: &str) -> Option<(Region, usize, &'static str)> {
    Region::all().find_map(|region| {
        let sizes = region.capability()?.sizes;
        let number = sizes.iter().position(|size| size.name().eq_ignore_ascii_case(name))?;
        Some((region, number, sizes[number].name()))
    })
}

/// A size as the file has it, in kilobytes.
fn parsed(text: &str) -> Option<i32> {
    let text = CString::new(text).ok()?;
    let mut kilobytes = 0;
    // SAFETY: the server reads the text and writes the number.
    let valid = unsafe {
        pg_sys::parse_int(text.as_ptr(), &raw mut kilobytes, pg_sys::GUC_UNIT_KB as c_int, std::ptr::null_mut())
    };
    valid.then_some(kilobytes)
}

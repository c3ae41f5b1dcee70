//! Where the segment lives, how it was found and how it is; what an operator is warned of, each by a name.

use super::schedule;
use crate::capability::{self, Region, Warning};
use crate::cron;
use crate::error::Error;
use crate::pg::server;
use crate::pg::spi::{read_rows, text};
use crate::queue;
use crate::shmem::{self, Configured, Segment, segment};

/// The items of `status()`, in their order.
pub(super) fn items() -> Result<Vec<(String, String)>, Error> {
    let mut items = vec![("version".into(), env!("CARGO_PKG_VERSION").into())];
    let warnings = match segment() {
        Ok(segment) => of_segment(segment, &mut items)?,
        Err(Error::OtherLayout { found, known }) => {
            let text = format!(
                "the shared memory was laid out by another version of pg_enough (layout {found}; this library's is {known}), and \
                 nothing works: restart the server"
            );
            vec![("segment_of_another_version", text)]
        }
        Err(error) => return Err(error),
    };
    let sentences: Vec<&str> = warnings.iter().map(|(_, text)| text.as_str()).collect();
    items.push(("warnings".into(), if sentences.is_empty() { "none".into() } else { sentences.join("; ") }));
    items.extend(warnings.into_iter().map(|(name, text)| (format!("warning_{name}"), text)));
    Ok(items)
}

/// Adds what is to be said of the segment and what is in it; the warnings.
fn of_segment(segment: &Segment, items: &mut Vec<(String, String)>) -> Result<Vec<Warning>, Error> {
    let age = server::now().saturating_sub(segment.created_at) / 1_000_000;
    items.push(("segment".into(), segment.found.describe().into()));
    items.push(("segment_bytes".into(), segment.bytes.to_string()));
    items.push(("segment_age_seconds".into(), age.to_string()));
    let mut warnings = Vec::new();
    let mut pending = Vec::new();
    for Configured { region, number, name, bytes, pending: at_restart } in shmem::configured()? {
        let used = segment.sizes.of(region, number);
        items.push((format!("{}_bytes", name.trim_start_matches("enough.")), used.to_string()));
        if at_restart || bytes != used {
            pending.push(name);
        }
    }
    if !pending.is_empty() {
        warnings.push(("pending_restart", format!("restart the server for the new value of {}", pending.join(", "))));
    }
    items.push(("pending_restart".into(), if pending.is_empty() { "none".into() } else { pending.join(", ") }));
    items.push(("queue_memory_leased_percent".into(), queue::stats::leased_percent()?.to_string()));
    for region in Region::all() {
        let partitions = segment.partitions(region);
        let name = region.name().replace(' ', "_");
        items.push((format!("{name}_partitions"), partitions.len().to_string()));
        let resets: u64 = partitions.iter().map(crate::shmem::Partition::resets).sum();
        items.push((format!("{name}_resets"), resets.to_string()));
        if resets > 0 {
            let text = format!("{} memory was found damaged {resets} times and was emptied", region.name());
            warnings.push(("memory_damaged", text));
        }
    }
    warnings.extend(outdated()?);
    for capability in capability::all() {
        warnings.extend((capability.warnings)()?);
    }
    warnings.extend(jobs()?);
    Ok(warnings)
}

/// The library is newer than the extension's SQL in this database, or older.
fn outdated() -> Result<Option<Warning>, Error> {
    let mut warning = None;
    read_rows(
        "SELECT extversion FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) 'pg_enough'",
        &[],
        |row| {
            let library = env!("CARGO_PKG_VERSION");
            if let Some(catalog) = text(row, 1)?.filter(|catalog| catalog != library) {
                let text = format!(
                    "the extension in this database is of version {catalog}, the library of {library}: \
                     ALTER EXTENSION pg_enough UPDATE"
                );
                warning = Some(("extension_of_another_version", text));
            }
            Ok(())
        },
    )?;
    Ok(warning)
}

/// What is wrong with the jobs of `pg_cron`, where it is in this database.
fn jobs() -> Result<Vec<Warning>, Error> {
    let mut warnings = Vec::new();
    let Some(health) = cron::health()? else { return Ok(warnings) };
    if !health.maintains && !queue::stats::names()?.is_empty() {
        let text = "pg_cron is in this database, and no job of it runs enough.maintain(): SELECT enough.maintenance_schedule()";
        warnings.push(("maintenance_not_scheduled", text.into()));
    }
    warnings.extend(health.failing.into_iter().map(|job| {
        let name = if job == schedule::JOB { "maintenance_failing" } else { "schedule_failing" };
        (name, format!("the last run of job \"{job}\" of pg_cron failed: cron.job_run_details has the error"))
    }));
    Ok(warnings)
}

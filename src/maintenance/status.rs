//! Where the segment lives, how it was found and how it is.

use crate::capability::Region;
use crate::error::Error;
use crate::pg::server;
use crate::queue;
use crate::shmem::segment;
use crate::shmem::{self, Configured};

/// Leases in more than so many percent of the queues' memory are warned of.
const MUCH: u64 = 80;

/// The items of `status()`, in their order.
pub(super) fn items() -> Result<Vec<(String, String)>, Error> {
    let segment = segment()?;
    let age = server::now().saturating_sub(segment.created_at) / 1_000_000;
    let mut items = vec![
        ("version".into(), env!("CARGO_PKG_VERSION").into()),
        ("segment".into(), segment.found.describe().into()),
        ("segment_bytes".into(), segment.bytes.to_string()),
        ("segment_age_seconds".into(), age.to_string()),
    ];
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
        warnings.push(format!("restart the server for the new value of {}", pending.join(", ")));
    }
    items.push(("pending_restart".into(), if pending.is_empty() { "none".into() } else { pending.join(", ") }));
    let leased = queue::stats::leased_percent()?;
    items.push(("queue_memory_leased_percent".into(), leased.to_string()));
    if leased > MUCH {
        warnings.push(format!(
            "leases use {leased} % of a part of enough.queue_memory; once they use all of it, reads fail with 53400: raise it"
        ));
    }
    for region in Region::all() {
        let partitions = segment.partitions(region);
        let name = region.name().replace(' ', "_");
        items.push((format!("{name}_partitions"), partitions.len().to_string()));
        let resets: u64 = partitions.iter().map(crate::shmem::Partition::resets).sum();
        items.push((format!("{name}_resets"), resets.to_string()));
        if resets > 0 {
            warnings.push(format!("{} memory was found damaged {resets} times and was emptied", region.name()));
        }
    }
    warnings.extend(queue::check::findings()?);
    items.push(("warnings".into(), if warnings.is_empty() { "none".into() } else { warnings.join("; ") }));
    Ok(items)
}

//! Where the segment lives, how it was found and how it is.

use crate::error::Error;
use crate::segment::{Region, segment, server};

/// The items of `status()`, in their order.
pub(super) fn items() -> Result<Vec<(String, String)>, Error> {
    let segment = segment()?;
    let age = server::now().saturating_sub(segment.created_at) / 1_000_000;
    let mut items = vec![
        ("version".into(), env!("CARGO_PKG_VERSION").into()),
        ("segment".into(), segment.found.describe().into()),
        ("segment_bytes".into(), segment.bytes.to_string()),
        ("segment_age_seconds".into(), age.to_string()),
        ("cache_max_value_bytes".into(), segment.cache_max_value.to_string()),
    ];
    let mut warnings = Vec::new();
    for region in [Region::Queue, Region::Cache, Region::RateLimit] {
        let partitions = segment.partitions(region);
        let name = region.name().replace(' ', "_");
        items.push((format!("{name}_partitions"), partitions.len().to_string()));
        let resets: u64 = partitions.iter().map(crate::segment::Partition::resets).sum();
        items.push((format!("{name}_resets"), resets.to_string()));
        if resets > 0 {
            warnings.push(format!("{} memory was found damaged {resets} times and was emptied", region.name()));
        }
    }
    items.push(("warnings".into(), if warnings.is_empty() { "none".into() } else { warnings.join("; ") }));
    Ok(items)
}

//! What the numbers were measured on: the machine, the versions, the settings.

use crate::fixture::Fixture;
use crate::inside;
use crate::peers::pgmq;
use anyhow::Result;
use postgres::Client;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use xtask::shell;

/// The settings that decide how much durability costs and how much memory there is, and whatever differs from the
/// server's defaults.
const SETTINGS: &str = "
    SELECT name, current_setting(name) FROM pg_settings
    WHERE name IN ('fsync', 'synchronous_commit', 'wal_sync_method', 'full_page_writes', 'wal_level', 'shared_buffers',
                   'max_wal_size', 'autovacuum', 'jit', 'shared_preload_libraries')
       OR name LIKE 'enough.%'
    ORDER BY name";

/// The machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's model.
    pub processor: String,
    /// Processors that the kernel sees.
    pub processors: usize,
    /// MiB of memory.
    pub memory_mib: u64,
    /// The distribution.
    pub system: String,
    /// The kernel's release.
    pub kernel: String,
    /// Whether times inside the server are the kernel's count for the process (else they are times on the wall).
    pub counts_processor_time: bool,
}

/// Everything that a result depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// When it was measured, in UTC.
    pub at: String,
    /// The commit of the working tree, with a mark where that was changed.
    pub commit: Option<String>,
    /// The machine.
    pub machine: Machine,
    /// The kernel's load averages before the first measurement: 1, 5 and 15 minutes.
    pub load: String,
    /// Versions of what took part.
    pub versions: BTreeMap<String, String>,
    /// The server's settings.
    pub settings: BTreeMap<String, String>,
}

impl Environment {
    /// Looks around.
    pub fn now(fixture: &Fixture) -> Result<Self> {
        let mut client = fixture.client()?;
        let at = time(&mut client)?;
        let mut text = |query: &str| -> Result<String> { Ok(client.query_one(query, &[])?.get(0)) };
        let server = text("SHOW server_version")?;
        let extension = text("SELECT extversion::text FROM pg_extension WHERE extname = 'pg_enough'")?;
        let versions = [("PostgreSQL", server), ("pg_enough", extension), ("pgmq", pgmq::VERSION.to_owned())];
        // A library that no function of the session has needed yet has no settings.
        client.batch_execute("LOAD 'pg_enough'")?;
        let settings = client.query(SETTINGS, &[])?;
        Ok(Self {
            at,
            commit: commit(),
            machine: Machine::here(),
            load: load(),
            versions: versions.into_iter().map(|(name, version)| (name.to_owned(), version)).collect(),
            settings: settings.iter().map(|row| (row.get(0), row.get(1))).collect(),
        })
    }
}

impl Machine {
    fn here() -> Self {
        let memory = field(&read("/proc/meminfo"), "MemTotal", ':');
        let kibibytes: u64 = memory.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name", ':'),
            processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_mib: kibibytes / 1024,
            system: field(&read("/etc/os-release"), "PRETTY_NAME", '=').trim_matches('"').to_owned(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            counts_processor_time: inside::counts_processor_time(),
        }
    }
}

/// The time, in UTC.
pub fn time(client: &mut Client) -> Result<String> {
    let now = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";
    Ok(client.query_one(now, &[])?.get(0))
}

/// The kernel's load averages: 1, 5 and 15 minutes.
pub fn load() -> String {
    read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn commit() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty", "--abbrev=12"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    shell::output(&mut git).ok().map(|text| text.trim().to_owned())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The first line's value whose label is `name`.
fn field(text: &str, name: &str, separator: char) -> String {
    let values = text.lines().filter_map(|line| line.split_once(separator));
    let value = values.into_iter().find_map(|(label, value)| (label.trim() == name).then_some(value.trim()));
    value.unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_label() {
        let text = "model\t\t: 1\nmodel name\t: AMD EPYC\nflags : a:b\n";
        assert_eq!(field(text, "model name", ':'), "AMD EPYC");
        assert_eq!(field(text, "flags", ':'), "a:b");
        assert_eq!(field(text, "name", ':'), "unknown");
    }
}

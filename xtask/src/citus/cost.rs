//! What a call costs by its way to the node of its key, in ratios to the plain call on that node.

use super::cluster::{COORDINATOR, Cluster};
use anyhow::{Context, Result};
use std::fmt::Write as _;
use std::fs;

/// How long one measurement takes, in seconds.
const SECONDS: &str = "4";

/// What is measured: the call in a schema, with `{k}` for a key or queue.
const CALLS: [(&str, &str); 4] = [
    ("cache_get", "cache_get('{k}')"),
    ("cache_set", "cache_set('{k}', '1')"),
    ("rate_limit", "rate_limit('{k}', 1000000, '1 second')"),
    ("queue_send", "queue_send('{k}', '1')"),
];

/// Prints a table; all of a row is measured one after the other, one client each.
pub fn measure(cluster: &mut Cluster) -> Result<()> {
    let key = cluster.queues[0].clone();
    println!(
        "| | plain call | from the coordinator | on the worker that has it | on the other worker |\n|---|---|---|---|---|"
    );
    for (name, call) in CALLS {
        let call = call.replace("{k}", &key);
        let plain = latency(cluster, 1, &format!("SELECT * FROM enough.{call}"))?;
        let mut row = format!("| {name} | {plain:.3} ms |");
        for node in [COORDINATOR, 1, 2] {
            let ratio = latency(cluster, node, &format!("SELECT * FROM enough_citus.{call}"))? / plain;
            write!(row, " × {ratio:.1} |")?;
        }
        println!("{row}");
    }
    Ok(())
}

/// The mean time of a statement, in milliseconds, as pgbench has it.
fn latency(cluster: &Cluster, node: usize, sql: &str) -> Result<f64> {
    let server = &cluster.nodes[node];
    let file = server.dir().join("call.sql");
    fs::write(&file, format!("{sql};\n"))?;
    let mut command = server.command("pgbench")?;
    command.args(["-n", "-M", "prepared", "-T", SECONDS, "-f"]).arg(&file);
    let text = xtask::shell::output(&mut command)?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("latency average = "))
        .context("no latency in pgbench's report")?;
    line.trim_end_matches(" ms").parse().with_context(|| line.to_owned())
}

//! A slot's shard that moves to another node and back: what stays behind, and what the page says to do about it.

use super::Tally;
use super::cluster::{COORDINATOR, Cluster};
use anyhow::{Context, Result, ensure};
use postgres::{Client, Error};

const CLEAR: &str = "SELECT count(*) FROM run_command_on_all_nodes('SELECT enough.cache_clear()')";

/// Moves the shard of the first worker's queue away and back.
pub fn run(cluster: &mut Cluster, tally: &mut Tally) -> Result<()> {
    tally.count("a cache that isn't cleared", stale(cluster, false, "1"));
    tally.count("a cache that is cleared", stale(cluster, true, "NULL"));
    tally.count("a limit", limit(cluster));
    tally.count("a queue", queue(cluster));
    tally.count("tables of the extension", tables(cluster));
    cluster.empty()
}

/// A session at the coordinator, and the key of the shard that moves: the queue's name.
fn session(cluster: &Cluster) -> Result<(Client, &str)> {
    Ok((cluster.client(COORDINATOR)?, &cluster.queues[0]))
}

/// Moves the shard of the first worker's queue to that worker.
pub fn move_to(cluster: &Cluster, worker: usize) -> Result<()> {
    let (mut client, key) = session(cluster)?;
    let port = i32::from(cluster.nodes[worker].port());
    client
        .execute(
            "SELECT citus_move_shard_placement(get_shard_id_for_distribution_column('enough_citus.node', enough_citus._slot($1)), \
             w.node_name, w.node_port, '127.0.0.1', $2, 'block_writes') FROM enough_citus.where_is($1) AS w",
            &[&key, &port],
        )
        .context("can't move a shard")?;
    let there: i32 = client.query_one("SELECT node_port FROM enough_citus.where_is($1)", &[&key])?.get(0);
    ensure!(there == port, "the shard hasn't moved");
    Ok(())
}

fn one(client: &mut Client, call: &str) -> Result<String, Error> {
    Ok(client.query_one(&format!("SELECT coalesce(({call})::text, 'NULL')"), &[])?.get(0))
}

/// What was cached before a move is there again after the move back, unless all caches are cleared meanwhile.
fn stale(cluster: &Cluster, cleared: bool, due: &str) -> Result<()> {
    let (mut client, key) = session(cluster)?;
    let get = format!("enough_citus.cache_get('{key}')");
    one(&mut client, &format!("enough_citus.cache_set('{key}', '1')"))?;
    move_to(cluster, 2)?;
    let away = one(&mut client, &get)?;
    ensure!(away == "NULL", "{away} on another node");
    one(&mut client, &format!("enough_citus.cache_set('{key}', '2')"))?;
    one(&mut client, &format!("enough_citus.cache_delete('{key}')"))?;
    if cleared {
        client.query_one(CLEAR, &[])?;
    }
    move_to(cluster, 1)?;
    let back = one(&mut client, &get)?;
    client.query_one(CLEAR, &[])?;
    ensure!(back == due, "{back} in place of {due}");
    Ok(())
}

/// A limit begins anew where its key has moved, and from any session is one there.
fn limit(cluster: &Cluster) -> Result<()> {
    let (mut client, key) = session(cluster)?;
    let mut worker = cluster.client(2)?;
    let ask = format!("SELECT allowed FROM enough_citus.rate_limit('{key}', 1, '1 hour')");
    let first = [one(&mut client, &ask)?, one(&mut worker, &ask)?];
    move_to(cluster, 2)?;
    let moved = [one(&mut client, &ask)?, one(&mut worker, &ask)?];
    move_to(cluster, 1)?;
    ensure!(first == ["true", "false"] && moved == ["true", "false"], "{first:?} {moved:?}");
    Ok(())
}

/// A queue stays: while its slot is elsewhere, what is sent there goes to the queue of the same name on that node, or is refused where there is none;
/// the messages of before are there when it is back.
fn queue(cluster: &Cluster) -> Result<()> {
    let (mut client, key) = session(cluster)?;
    let send = format!("enough_citus.queue_send('{key}', '1')");
    one(&mut client, &send)?;
    cluster.client(2)?.query_one("SELECT enough.queue_drop($1)", &[&key])?;
    move_to(cluster, 2)?;
    let refused = one(&mut client, &send).err().and_then(|error| error.code().map(|code| code.code().to_owned()));
    cluster.client(2)?.query_one("SELECT enough.queue_create($1)", &[&key])?;
    move_to(cluster, 1)?;
    ensure!(refused.as_deref() == Some("42704"), "{refused:?}");
    let there = one(&mut client, &format!("SELECT count(*) FROM enough_citus.queue_read('{key}')"))?;
    ensure!(there == "1", "{there} messages after the move back");
    Ok(())
}

/// A table in shards isn't tagged, wherever it is asked for.
fn tables(cluster: &Cluster) -> Result<()> {
    for node in 0..cluster.nodes.len() {
        for table in ["orders", "kinds"] {
            let tagged = cluster.client(node)?.execute(&format!("SELECT enough.cache_tag_table('{table}', 't')"), &[]);
            let state = tagged.err().and_then(|error| error.code().map(|code| code.code().to_owned()));
            ensure!(state.as_deref() == Some("0A000"), "{table} on node {node}: {state:?}");
        }
    }
    Ok(())
}

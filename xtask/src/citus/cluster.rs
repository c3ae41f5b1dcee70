//! A coordinator and two workers, with `ops/citus/enough_citus.sql`.

use anyhow::{Context, Result, bail, ensure};
use postgres::{Client, NoTls};
use std::thread::sleep;
use std::time::{Duration, Instant};
use xtask::pg::Pg;
use xtask::scale;
use xtask::server::{Server, ServerOptions};

/// How long something may take that happens by itself; also the limit of every statement.
const PATIENCE: Duration = Duration::from_mins(1);

/// The number of the coordinator among the nodes; the others are workers.
pub const COORDINATOR: usize = 0;

/// The queues, a worker's each, and the tables that the checks write.
const TABLES: &str = "
    CREATE TABLE orders (id bigint PRIMARY KEY, sent bigint);
    SELECT create_distributed_table('orders', 'id', shard_count => 4, colocate_with => 'none');
    CREATE TABLE kinds (id bigint PRIMARY KEY);
    SELECT create_reference_table('kinds');
    INSERT INTO kinds VALUES (1);
";

/// The servers.
pub struct Cluster {
    pub nodes: [Server; 3],
    /// A queue on each worker that is the owner of its name; there are queues of these names on all nodes.
    pub queues: [String; 2],
    /// An order on each worker.
    pub orders: [i64; 2],
}

impl Cluster {
    /// What each node is started with.
    pub fn options(pg: Pg) -> ServerOptions {
        ServerOptions::new(pg)
            .preload("citus")
            .conf("citus.node_conninfo", "sslmode=prefer")
            // What is prepared and not committed is undone when a check asks for it, and not before.
            .conf("citus.recover_2pc_interval", "-1")
            .conf("citus.defer_shard_delete_interval", "-1")
            .conf("log_line_prefix", "%m [%p] %e ")
    }

    /// Starts them.
    pub fn start(pg: Pg) -> Result<Self> {
        let options = Self::options(pg);
        let nodes = [Server::start(&options)?, Server::start(&options)?, Server::start(&options)?];
        for node in &nodes {
            node.client()?.batch_execute("CREATE EXTENSION citus")?;
        }
        let mut cluster = Self { nodes, queues: Default::default(), orders: Default::default() };
        let [_, first, second] = [0, 1, 2].map(|node| i32::from(cluster.nodes[node].port()));
        let mut coordinator = cluster.client(COORDINATOR)?;
        let port = i32::from(cluster.nodes[COORDINATOR].port());
        coordinator.query_one("SELECT citus_set_coordinator_host('127.0.0.1', $1)", &[&port])?;
        for port in [first, second] {
            coordinator.query_one("SELECT citus_add_node('127.0.0.1', $1)", &[&port])?;
        }
        coordinator.batch_execute("CREATE EXTENSION pg_enough")?;
        // As a cluster may be set, which the script must not care for.
        let set = "SET citus.shard_replication_factor = 2; SET citus.enable_schema_based_sharding = on";
        cluster.nodes[COORDINATOR].psql(&["-c".into(), set.into(), "-f".into(), scale::citus::file()])?;
        coordinator.batch_execute(TABLES)?;
        for node in 0..3 {
            // The first values after a start may be refused.
            cluster.client(node)?.batch_execute("SELECT enough.cache_delete('')")?;
        }
        for (at, port) in [first, second].into_iter().enumerate() {
            let name = "SELECT 'q' || n FROM generate_series(1, 100) AS n \
                        WHERE (enough_citus.where_is('q' || n)).node_port = $1 ORDER BY n LIMIT 1";
            cluster.queues[at] = coordinator.query_one(name, &[&port])?.get(0);
            let order = "SELECT n::bigint FROM generate_series(1, 100) AS n \
                         JOIN citus_shards AS s ON s.shardid = get_shard_id_for_distribution_column('orders', n) \
                         WHERE s.nodeport = $1 ORDER BY n LIMIT 1";
            cluster.orders[at] = coordinator.query_one(order, &[&port])?.get(0);
        }
        for node in 0..cluster.nodes.len() {
            let mut client = cluster.client(node)?;
            for queue in &cluster.queues {
                client.query_one("SELECT enough.queue_create($1)", &[queue])?;
            }
            client.batch_execute(
                "SET citus.enable_ddl_propagation = off; \
                 CREATE TABLE local (id bigint); INSERT INTO local VALUES (1); CREATE TABLE told (x bigint)",
            )?;
        }
        Ok(cluster)
    }

    /// A session on a node, in which no statement takes longer than [`PATIENCE`].
    pub fn client(&self, node: usize) -> Result<Client> {
        let mut config = self.nodes[node].config();
        config.options(&format!("-c statement_timeout={}", PATIENCE.as_millis()));
        config.connect(NoTls).with_context(|| format!("can't connect to node {node}"))
    }

    /// How many messages there are in each of the two queues of a node.
    pub fn messages_on(&self, node: usize) -> Result<[i64; 2]> {
        let mut client = self.client(node)?;
        let mut count = |queue: &str| -> Result<i64> {
            Ok(client.query_one(&format!("SELECT count(*) FROM enough.q_{queue}"), &[])?.get(0))
        };
        Ok([count(&self.queues[0])?, count(&self.queues[1])?])
    }

    /// How many messages there are in each of the two queues on their owners; an error where another node has any.
    pub fn messages(&self) -> Result<[i64; 2]> {
        let [none, first, second] = [self.messages_on(0)?, self.messages_on(1)?, self.messages_on(2)?];
        ensure!(
            none == [0, 0] && first[1] == 0 && second[0] == 0,
            "messages on a node that isn't their queue's: {none:?} {first:?} {second:?}"
        );
        Ok([first[0], second[1]])
    }

    /// Empties the queues of all nodes, and the tables.
    pub fn empty(&self) -> Result<()> {
        for node in 0..self.nodes.len() {
            let mut client = self.client(node)?;
            client.query_one("SELECT recover_prepared_transactions()", &[])?;
            for queue in &self.queues {
                client.query_one("SELECT enough.queue_purge($1)", &[queue])?;
            }
            client.batch_execute("TRUNCATE told")?;
        }
        self.client(COORDINATOR)?.batch_execute("DELETE FROM orders").context("can't empty the orders")
    }

    /// Waits until `condition` holds.
    pub fn eventually(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !condition()? {
            if Instant::now() > deadline {
                bail!("waited in vain until {what}");
            }
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Fails if a log speaks of a crash or of an error that nobody has thought of.
    pub fn healthy(&self) -> Result<()> {
        for node in &self.nodes {
            let log = node.log();
            let bad: Vec<&str> = log
                .lines()
                .filter(|line| {
                    ["PANIC:", "was terminated by signal", "WARNING:  pg_enough", "std::panicking"]
                        .iter()
                        .any(|words| line.contains(words))
                })
                .collect();
            ensure!(bad.is_empty(), "{}", bad.join("\n"));
        }
        Ok(())
    }
}

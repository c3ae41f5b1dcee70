//! Whole servers: a base backup, a standby that is promoted, and a logical subscriber that takes over.

use crate::contents::{Contents, Lost, NOTHING};
use crate::page::{commands, directory, run};
use anyhow::{Context, Result, bail, ensure};
use enough_pg_test::check::{eventually, healthy};
use enough_pg_test::queue;
use enough_pg_test::server::{Database, options, start};
use postgres::Config;
use std::net::TcpListener;
use tempfile::TempDir;
use xtask::server::{SUPERUSER, Server, Shutdown};

/// What a server that was copied file by file doesn't have.
const LOST: Lost = Lost { unlogged: true, ..NOTHING };

/// A server with everything in one database.
struct Original {
    server: Server,
    database: Database,
    contents: Contents,
}

impl Original {
    fn make() -> Result<Self> {
        // The copy has the same settings, and no place of its own for a socket.
        let server = start(&options()?.conf("unix_socket_directories", ""))?;
        let database = Database::on(&server)?;
        let contents = Contents::make(&database)?;
        Ok(Self { server, database, contents })
    }

    /// Makes a copy by a section's commands.
    fn copy(&self, scripts: &[String]) -> Result<Copy<'_>> {
        let dir = directory(&self.server)?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let mut config = Config::new();
        config.host("127.0.0.1").port(port).user(SUPERUSER);
        let copy = Copy { server: &self.server, database: Database::at(config, &self.database.name), dir };
        for script in scripts {
            run(&self.server, copy.dir.path(), script, &[("OLD", self.server.url()), ("NEW_PORT", port.to_string())])?;
        }
        Ok(copy)
    }
}

/// A server that the page's commands have started in the directory `copy`; it ends when this is dropped.
struct Copy<'a> {
    server: &'a Server,
    database: Database,
    dir: TempDir,
}

impl Drop for Copy<'_> {
    fn drop(&mut self) {
        // An error means that it has never been started.
        let _ = run(self.server, self.dir.path(), "pg_ctl --pgdata=copy --mode=immediate stop", &[]);
    }
}

#[test]
fn a_base_backup() -> Result<()> {
    let original = Original::make()?;
    let copy = original.copy(&commands("Base backup")?)?;
    original.contents.have_moved_to(&copy.database, LOST)?;
    // The original goes on with its leases.
    let mut client = original.database.client()?;
    ensure!(queue::stats(&mut client, "jobs")?.leased == 1);
    Ok(())
}

#[test]
fn a_standby_that_is_promoted() -> Result<()> {
    let original = Original::make()?;
    let scripts = commands("Standby, and its promotion")?;
    let (promote, make) = scripts.split_last().context("no commands")?;
    let copy = original.copy(make)?;
    let mut client = original.server.client()?;
    eventually("the standby has everything", || {
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn >= pg_current_wal_lsn()";
        Ok((client.query_one(sql, &[])?.get::<_, i64>(0) == 1).then_some(()))
    })?;
    run(&original.server, copy.dir.path(), promote, &[])?;
    original.contents.have_moved_to(&copy.database, LOST)
}

#[test]
fn a_logical_subscriber_that_takes_over() -> Result<()> {
    let mut publisher = start(&options()?.conf("wal_level", "logical"))?;
    let subscriber = start(&options()?)?;
    let old = Database::on(&publisher)?;
    let new = Database::empty(&subscriber)?;
    let mut contents = Contents::make(&old)?;
    let dir = directory(&subscriber)?;
    let urls = [("OLD", publisher.url_for(&old.name, SUPERUSER)), ("NEW", subscriber.url_for(&new.name, SUPERUSER))];
    let scripts = commands("Logical replication")?;
    let [prepare, subscribe, copied, caught_up, take_over] = &scripts[..] else { bail!("other commands: {scripts:?}") };
    for script in [prepare, subscribe, copied] {
        run(&subscriber, dir.path(), script, &urls)?;
    }
    // What changes from here on is streamed: options, messages that come and go, and the end of one.
    old.client()?.batch_execute(
        "SELECT enough.queue_alter('Odd-Name.1', max_attempts => 4), enough.rate_limit_policy_override('calls', 'other', 1); \
         SELECT enough.queue_delete('jobs', enough.queue_send('jobs', '1')); \
         SELECT enough.queue_archive('orders', enough.queue_send('orders', '2'))",
    )?;
    contents.look_again(&old)?;
    for script in [caught_up, take_over] {
        run(&subscriber, dir.path(), script, &urls)?;
    }
    publisher.stop(Shutdown::Fast)?;
    contents.have_moved_to(&new, LOST)?;
    healthy(&subscriber.log(), false)
}

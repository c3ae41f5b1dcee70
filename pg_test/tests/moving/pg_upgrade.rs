//! `pg_upgrade` from each version to the next, and from the first to the last.
//!
//! It runs where the new version lives, and starts the old server there, too. What the old one's programs miss in that Debian
//! release, libraries of other names than the release's own, is copied from where they come from.

use crate::contents::{Contents, NOTHING};
use crate::page::{commands, directory, run};
use anyhow::{Context, Result, bail, ensure};
use enough_pg_test::check::healthy;
use enough_pg_test::queue;
use enough_pg_test::server::Database;
use postgres::Client;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use xtask::pg::Pg;
use xtask::server::{SUPERUSER, Server, ServerOptions, Shutdown};

/// How both clusters are made: they have to agree about checksums, which only 18 makes by default.
fn cluster(pg: Pg, preload: &str) -> Result<Server> {
    let options = ServerOptions::new(pg).conf("log_line_prefix", "%m [%p] %e ").conf("fsync", "off");
    Server::start(&options.preload(preload).conf("cron.database_name", "postgres").initdb(&["--data-checksums"]))
}

/// The directory of a version's programs.
fn programs(server: &Server) -> Result<PathBuf> {
    Ok(server.bin("postgres").parent().context("a program without a directory")?.to_path_buf())
}

/// A directory with the libraries that the programs of `old` don't find where `new` lives.
fn borrowed_libraries(old: &Server, new: &Server) -> Result<PathBuf> {
    let dir = new.dir().join("libraries");
    fs::create_dir(&dir)?;
    let names = ["postgres", "pg_ctl", "pg_controldata", "pg_resetwal", "psql"].map(|name| old.bin(name));
    let list = names.map(|path| path.display().to_string()).join(" ");
    let ldd = format!("LD_LIBRARY_PATH={} ldd {list}", dir.display());
    let root = old.pg().root().unwrap_or_else(|| PathBuf::from("/"));
    let known = run(old, old.dir(), &ldd, &[])?;
    loop {
        let found = run(new, new.dir(), &ldd, &[])?;
        let missing: BTreeSet<&str> =
            found.lines().filter_map(|line| Some(line.trim().strip_suffix(" => not found")?.trim())).collect();
        if missing.is_empty() {
            return Ok(dir);
        }
        for name in missing {
            let path = known.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(" => "));
            let path = path.and_then(|rest| rest.split(" (").next()).with_context(|| format!("{name} isn't known"))?;
            let from = root.join(path.trim_start_matches('/'));
            fs::copy(&from, dir.join(name)).with_context(|| format!("can't copy {}", from.display()))?;
        }
    }
}

/// Upgrades `old`, which ends with it, into a new cluster of `pg`.
fn upgraded(mut old: Server, pg: Pg, preload: &str) -> Result<Server> {
    let from = old.pg();
    let mut new = cluster(pg, preload)?;
    let libraries = borrowed_libraries(&old, &new)?;
    old.stop(Shutdown::Fast)?;
    new.stop(Shutdown::Fast)?;
    let dir = directory(&new)?;
    let variables = [
        ("LD_LIBRARY_PATH", libraries.display().to_string()),
        ("OLD_BIN", programs(&old)?.display().to_string()),
        ("NEW_BIN", programs(&new)?.display().to_string()),
        ("OLD_DATA", old.data().display().to_string()),
        ("NEW_DATA", new.data().display().to_string()),
        ("PGUSER", SUPERUSER.to_owned()),
    ];
    let [check, upgrade, analyze] = &commands("pg_upgrade")?[..] else { bail!("three commands were expected") };
    // A test survives no crash of the machine's.
    for command in [check, &upgrade.replace("--old-bindir", "--no-sync --old-bindir")] {
        run(&new, dir.path(), command, &variables).with_context(|| format!("from {from} to {pg}"))?;
    }
    new.launch()?;
    run(&new, dir.path(), analyze, &[("NEW", new.url())])?;
    Ok(new)
}

#[test]
#[ignore = "takes servers of all versions: cargo xtask test --only pg-upgrade"]
fn from_each_version_to_the_next() -> Result<()> {
    let mut server = cluster(Pg::Pg15, "")?;
    let database = Database::on(&server)?;
    let contents = Contents::make(&database)?;
    // What new databases begin with is upgraded in a way of its own.
    Database::named(&server, "template1")
        .client()?
        .batch_execute("CREATE EXTENSION pg_enough; SELECT enough.queue_create('everywhere')")?;
    for pg in [Pg::Pg16, Pg::Pg17, Pg::Pg18] {
        server = upgraded(server, pg, "")?;
    }
    contents.have_moved_to(&Database::named(&server, &database.name), NOTHING)?;
    let sent = queue::send(&mut Database::empty(&server)?.client()?, "everywhere", &json!(1))?;
    ensure!(sent == 1, "the template's number is {sent}");
    healthy(&server.log(), false)
}

/// With the library preloaded, schedules, and a database that still has the catalog of the first release.
#[test]
#[ignore = "takes servers of all versions: cargo xtask test --only pg-upgrade"]
fn from_the_first_version_to_the_last() -> Result<()> {
    const PRELOAD: &str = "pg_cron, pg_enough";
    const JOBS: &str = "SELECT string_agg(concat_ws(' ', jobname, schedule, command, username, database, active), E'\\n' ORDER BY 1) FROM cron.job";
    let server = cluster(Pg::Pg15, PRELOAD)?;
    let database = Database::named(&server, "postgres");
    let mut client = database.client()?;
    client.batch_execute("CREATE EXTENSION pg_enough; CREATE EXTENSION pg_cron")?;
    let contents = Contents::make(&database)?;
    client.batch_execute(
        "SELECT enough.queue_schedule('tick', '0 0 1 1 *', 'jobs', '1'), enough.maintenance_schedule('0 0 1 1 *')",
    )?;
    let jobs: String = client.query_one(JOBS, &[])?.get(0);
    let other = Database::empty(&server)?;
    other.client()?.batch_execute(
        "CREATE EXTENSION pg_enough VERSION '0.1.0'; \
         INSERT INTO enough.rate_limit_policy VALUES ('calls', 3, '1 hour', 'sliding_window', NULL, false)",
    )?;
    drop(client);

    let server = upgraded(server, Pg::Pg18, PRELOAD)?;
    let database = Database::named(&server, "postgres");
    let mut client = database.client()?;
    ensure!(client.query_one(JOBS, &[])?.get::<_, String>(0) == jobs);
    let listed: Vec<String> =
        client.query("SELECT name FROM enough.queue_schedules()", &[])?.iter().map(|row| row.get(0)).collect();
    ensure!(listed == ["tick"], "{listed:?}");
    contents.have_moved_to(&database, NOTHING)?;
    let mut other = Database::named(&server, &other.name).client()?;
    let remaining = |client: &mut Client| -> Result<i64> {
        Ok(client.query_one("SELECT remaining FROM enough.rate_limit_by('calls', 'k')", &[])?.get(0))
    };
    other.batch_execute("ALTER EXTENSION pg_enough UPDATE; SELECT enough.queue_create('q')")?;
    ensure!(remaining(&mut other)? == 2);
    healthy(&server.log(), false)
}

//! The settings that size the shared memory: whoever makes it, it has the sizes of the configuration.

use crate::common::{Notices, noticing};
use anyhow::{Result, ensure};
use enough_pg_test::check::{eventually, healthy, refused};
use enough_pg_test::server::{self, Database};
use postgres::{Client, NoTls};
use std::collections::BTreeMap;
use xtask::server::{Server, Shutdown};

/// What `status()` says.
fn status(client: &mut Client) -> Result<BTreeMap<String, String>> {
    let rows = client.query("SELECT item, value FROM enough.status()", &[])?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// The sizes in use, in kilobytes: of cache, rate limits, queues, largest value.
fn used(client: &mut Client) -> Result<[i64; 4]> {
    let status = status(client)?;
    let mut used = [0; 4];
    for (size, item) in used.iter_mut().zip(SIZES) {
        *size = status[&format!("{item}_bytes")].parse::<i64>()? / 1024;
    }
    Ok(used)
}

const SIZES: [&str; 4] = ["cache_memory", "rate_limit_memory", "queue_memory", "cache_max_value"];
const DEFAULTS: [i64; 4] = [16384, 8192, 8192, 1024];

fn session_with(database: &Database, options: &str) -> Result<(Client, Notices)> {
    let mut config = database.config().clone();
    noticing(config.options(options))
}

/// Lets `first` be the first session after a start to use the extension; the sizes that it and another one then see.
fn made_by(server: &mut Server, name: &str, first: impl FnOnce(&Database) -> Result<Client>) -> Result<[i64; 4]> {
    server.restart(Shutdown::Fast)?;
    let database = Database::named(server, name);
    let mut client = first(&database)?;
    let seen = used(&mut client)?;
    ensure!(used(&mut database.client()?)? == seen, "two sessions see different sizes");
    Ok(seen)
}

#[test]
fn no_session_sizes_the_memory_of_all() -> Result<()> {
    let mut server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let name = database.name.clone();
    let role = database.role("greedy");
    let large = SIZES.map(|size| format!("-c enough.{size}=100MB")).join(" ");
    database.client()?.batch_execute(&format!("CREATE ROLE {role} LOGIN"))?;

    // Nothing in the file: the defaults.
    ensure!(made_by(&mut server, &name, |database| Ok(session_with(database, &large)?.0))? == DEFAULTS);

    // The file's values, whatever a session says, its role or its database, before it has loaded the library or after.
    server.configure(
        "enough.cache_memory = '3MB'\nEnough.Rate_Limit_Memory = 256\nenough.queue_memory = 1MB\nenough.cache_max_value = '64kB'\n\
         enough.cache_memory = '2MB'",
    )?;
    let expected = [2048, 256, 1024, 64];
    let seen = made_by(&mut server, &name, |database| {
        let mut config = database.config().clone();
        Ok(config.user(&role).options(&large).connect(NoTls)?)
    })?;
    ensure!(seen == expected, "by the startup packet: {seen:?}");
    let seen = made_by(&mut server, &name, |database| {
        let mut client = database.client()?;
        client.batch_execute("SET enough.cache_memory = '100MB'; BEGIN; SET LOCAL enough.queue_memory = '100MB'")?;
        Ok(client)
    })?;
    ensure!(seen == expected, "by SET: {seen:?}");
    for change in [format!("ALTER ROLE {role} SET"), format!("ALTER DATABASE {name} SET")] {
        // Where the library isn't loaded nobody knows that these are no settings of a session.
        let mut client = database_of(&server, &name)?;
        for size in SIZES {
            client.batch_execute(&format!("{change} enough.{size} = '100MB'"))?;
        }
        drop(client);
        let seen = made_by(&mut server, &name, |database| database.client_as(&role))?;
        ensure!(seen == expected, "by {change}: {seen:?}");
    }
    healthy(&server.log(), false)
}

fn database_of(server: &Server, name: &str) -> Result<Client> {
    Database::named(server, name).client()
}

#[test]
fn what_is_misspelt_is_named_and_what_isnt_a_sessions_is_refused() -> Result<()> {
    let server = server::start(&server::options()?.conf("enough.cache_memroy", "2MB"))?;
    let database = Database::on(&server)?;
    let (mut client, notices) = session_with(&database, "-c enough.cache_memory=1GB -c enough.no_such=1")?;
    client.batch_execute("SELECT enough.cache_get('key')")?;
    let said = notices.take();
    for name in ["enough.cache_memroy", "enough.no_such", "enough.cache_memory"] {
        ensure!(said.iter().any(|notice| notice.contains(&format!("\"{name}\""))), "{name} isn't in {said:?}");
    }
    // Workers start with the settings of the session.
    let version: String = client.query_one("SHOW server_version_num", &[])?.get(0);
    let forced = if version.parse::<i32>()? < 160_000 { "force_parallel_mode" } else { "debug_parallel_query" };
    client.batch_execute(&format!("SET {forced} = on; SELECT count(*) FROM pg_class; RESET {forced}"))?;
    refused(client.batch_execute("SET enough.cahce_memory = '2MB'"), "42602")?;
    refused(client.batch_execute("SET enough.cache_memory = '2MB'"), "55P02")?;
    refused(client.batch_execute("ALTER SYSTEM SET enough.cache_memory = '1kB'"), "22023")?;
    client.batch_execute("ALTER SYSTEM SET enough.cache_memory = '4MB'")?;
    client.batch_execute("ALTER SYSTEM RESET enough.cache_memory")?;
    ensure!(client.query_one("SHOW enough.cache_memory", &[])?.get::<_, &str>(0) == "16MB");
    // A session that has made no call can do the same once it has loaded the library.
    let mut other = database.client()?;
    for statement in ["LOAD 'pg_enough'", "ALTER SYSTEM SET enough.queue_memory = '4MB'", "SHOW enough.queue_memory"] {
        other.batch_execute(statement)?;
    }
    healthy(&server.log(), false)
}

/// Changes the configuration and waits until this session has read it.
fn reload(server: &Server, client: &mut Client, text: &str) -> Result<()> {
    server.configure(&format!("{text}\nwork_mem = '{}kB'", 1000 + server.log().len()))?;
    let before: String = client.query_one("SHOW work_mem", &[])?.get(0);
    client.batch_execute("SELECT pg_reload_conf()")?;
    eventually("the configuration has been read", || {
        let now: String = client.query_one("SHOW work_mem", &[])?.get(0);
        Ok((now != before).then_some(()))
    })
}

#[test]
fn a_change_that_waits_for_a_restart_is_told() -> Result<()> {
    for preload in [false, true] {
        let options = if preload { server::options()?.preload("pg_enough") } else { server::options()? };
        let mut server = server::start(&options)?;
        let database = Database::on(&server)?;
        let (mut one, mut two) = (database.client()?, database.client()?);
        for client in [&mut one, &mut two] {
            let status = status(client)?;
            ensure!(status["pending_restart"] == "none" && status["warnings"] == "none", "{status:?}");
        }
        reload(&server, &mut one, "enough.cache_memory = '32MB'\nenough.cache_max_value = '2MB'")?;
        for client in [&mut one, &mut two, &mut database.client()?] {
            eventually("every session says so", || {
                let status = status(client)?;
                let pending = status["pending_restart"] == "enough.cache_memory, enough.cache_max_value";
                Ok((pending && status["warnings"].contains("restart the server")).then_some(()))
            })?;
            ensure!(used(client)? == DEFAULTS);
        }
        // Also in a session whose own value has pushed that of the file aside.
        if !preload {
            let (mut third, _) = session_with(&database, "-c enough.cache_memory=100MB")?;
            let status = status(&mut third)?;
            ensure!(status["pending_restart"] == "enough.cache_memory, enough.cache_max_value", "{status:?}");
        }
        let told = |what: &str| server.log().lines().filter(|line| line.contains(what)).count();
        if preload {
            ensure!(told("\"enough.cache_memory\" cannot be changed without restarting the server") > 0);
        } else {
            let line = "\"enough.cache_memory\" changed to \"32MB\", the shared memory keeps 16MB until the server is restarted";
            ensure!(told(line) == 1, "{} lines in the log:\n{}", told(line), server.log());
        }
        // What is taken back is forgotten.
        reload(&server, &mut one, "enough.cache_memory = '16MB'")?;
        eventually("it is taken back", || {
            Ok((status(&mut one)?["pending_restart"] == "enough.cache_max_value").then_some(()))
        })?;
        server.restart(Shutdown::Fast)?;
        let mut client = database_of(&server, &database.name)?;
        ensure!(used(&mut client)? == [16384, 8192, 8192, 2048] && status(&mut client)?["pending_restart"] == "none");
        healthy(&server.log(), false)?;
    }
    Ok(())
}

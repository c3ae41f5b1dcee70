//! Dumps and restores by the database's owner, who is no superuser, as on every managed server.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::refused;
use enough_pg_test::queue;
use enough_pg_test::server::{Database, shared};
use postgres::Client;
use serde_json::json;
use std::fs;
use std::path::PathBuf;

/// Runs one of the server's programs as `role` and fails with what it says.
fn program(role: &str, program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = shared()?.command(program)?;
    let output = command.env("PGUSER", role).args(arguments).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {arguments:?} as {role}: {said}");
    Ok(said.into_owned())
}

/// A file that goes with the shared server.
fn file(name: &str) -> Result<PathBuf> {
    Ok(shared()?.dir().join(name))
}

fn owned_database(owner: &str) -> Result<Database> {
    let server = shared()?;
    let database = Database::empty(&server)?;
    server.client()?.batch_execute(&format!("ALTER DATABASE {} OWNER TO {owner}", database.name))?;
    Ok(database)
}

/// A database with queues, policies and grants of an owner who is no superuser.
fn source() -> Result<(Database, String, String)> {
    let server = shared()?;
    let database = Database::empty(&server)?;
    let (owner, app) = (database.role("owner"), database.role("app"));
    server.client()?.batch_execute(&format!(
        "CREATE ROLE {owner} LOGIN; CREATE ROLE {app} LOGIN; ALTER DATABASE {} OWNER TO {owner}",
        database.name
    ))?;
    drop(server);
    let mut client = database.client_as(&owner)?;
    client.batch_execute(&format!(
        "CREATE EXTENSION pg_enough; \
         SELECT enough.queue_create('jobs', max_attempts => 7, archive_for => '0'), enough.queue_create('Odd-Name.1'); \
         SELECT enough.queue_send('jobs', to_jsonb(n)) FROM generate_series(1, 5) AS n; \
         SELECT enough.queue_archive('jobs', 5, '\"kept\"'); SELECT enough.queue_send('Odd-Name.1', '1'); \
         SELECT enough.queue_pause('Odd-Name.1'); \
         SELECT enough.queue_grant('jobs', '{app}', 'send'); \
         SELECT enough.rate_limit_policy_set('calls', 3, '90 minutes'); \
         SELECT enough.grant_to('{app}', 'operator')"
    ))?;
    Ok((database, owner, app))
}

/// What [`source`] has made is there and works.
fn is_whole(target: &Database, owner: &str, app: &str) -> Result<()> {
    let mut client = target.client_as(owner)?;
    let listed: Vec<(String, i32, bool)> = client
        .query("SELECT name, max_attempts, paused FROM enough.queue_list() ORDER BY name DESC", &[])?
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    ensure!(listed == [("jobs".into(), 7, false), ("Odd-Name.1".into(), 10, true)], "{listed:?}");
    let read = queue::sorted_ids(&queue::read(&mut client, "jobs", 10)?);
    ensure!(read == [1, 2, 3, 4], "{read:?}");
    let next = queue::send(&mut client, "jobs", &json!("next"))?;
    ensure!(next == 6, "number {next}");
    let archived = queue::ids(&queue::receive(&mut client, "queue_peek('jobs', state => 'done')")?);
    ensure!(archived == [5], "{archived:?}");
    client.batch_execute("SELECT enough.queue_resume('Odd-Name.1')")?;
    ensure!(queue::read(&mut client, "Odd-Name.1", 10)?.len() == 1);
    let key = format!("key {}", fastrand::u64(..));
    ensure!(
        client.query_one("SELECT remaining FROM enough.rate_limit_by('calls', $1)", &[&key])?.get::<_, i64>(0) == 2
    );
    // Rights are restored, too: to send, and to operate.
    let mut app = target.client_as(app)?;
    queue::send(&mut app, "jobs", &json!("by the app"))?;
    refused(queue::read(&mut app, "jobs", 1), "42501")?;
    app.batch_execute("SELECT enough.cache_clear(), enough.rate_limit_reset('k')")?;
    Ok(())
}

#[test]
fn the_owner_restores_a_plain_dump() -> Result<()> {
    let (source, owner, app) = source()?;
    let dump = file(&format!("{}.sql", source.name))?;
    let path = dump.to_str().context("a path that isn't UTF-8")?;
    // Only what is the owner's; a superuser's dump has the same in it.
    for by in [owner.as_str(), "postgres"] {
        program(by, "pg_dump", &["-f", path, &source.name])?;
        let target = owned_database(&owner)?;
        program(&owner, "psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &target.name, "-f", path])
            .with_context(|| format!("dumped by {by}"))?;
        is_whole(&target, &owner, &app)?;
    }
    fs::remove_file(dump)?;
    Ok(())
}

#[test]
fn the_owner_restores_an_archive_whole_or_in_parts() -> Result<()> {
    let (source, owner, app) = source()?;
    let dump = file(&format!("{}.dump", source.name))?;
    let path = dump.to_str().context("a path that isn't UTF-8")?;
    program(&owner, "pg_dump", &["-Fc", "-f", path, &source.name])?;
    let restore = |database: &str, arguments: &[&str]| {
        program(&owner, "pg_restore", &[&["-e", "-d", database], arguments, &[path]].concat())
    };
    let target = owned_database(&owner)?;
    restore(&target.name, &[])?;
    is_whole(&target, &owner, &app)?;

    // In parts, with sessions that look at the queue in between.
    let target = owned_database(&owner)?;
    restore(&target.name, &["--section=pre-data"])?;
    let mut early = target.client_as(&owner)?;
    let hint = refused(early.query("SELECT enough.queue_send('jobs', '1')", &[]), "42704")?;
    ensure!(hint.contains("if_not_exists"), "{hint}");
    restore(&target.name, &["--section=data"])?;
    restore(&target.name, &["--section=post-data"])?;
    is_whole(&target, &owner, &app)?;

    let target = owned_database(&owner)?;
    restore(&target.name, &["--schema-only"])?;
    restore(&target.name, &["--data-only"])?;
    is_whole(&target, &owner, &app)?;

    // What is there already is replaced.
    restore(&target.name, &["--clean", "--if-exists"])?;
    is_whole(&target, &owner, &app)?;
    fs::remove_file(dump)?;
    Ok(())
}

#[test]
fn another_owner_restores_it_as_its_own() -> Result<()> {
    let (source, owner, _) = source()?;
    let dump = file(&format!("{}.dump", source.name))?;
    let path = dump.to_str().context("a path that isn't UTF-8")?;
    program(&owner, "pg_dump", &["-Fc", "-f", path, &source.name])?;
    let other = source.role("other");
    shared()?.client()?.batch_execute(&format!("CREATE ROLE {other} LOGIN"))?;
    let target = owned_database(&other)?;
    program(&other, "pg_restore", &["-e", "--no-owner", "--no-privileges", "-d", &target.name, path])?;
    let mut client = target.client_as(&other)?;
    let read = queue::sorted_ids(&queue::read(&mut client, "jobs", 10)?);
    ensure!(read == [1, 2, 3, 4], "{read:?}");
    // With their privileges, but those of the roles of the source's own.
    let target = owned_database(&other)?;
    program(&other, "pg_restore", &["-e", "--no-owner", "-d", &target.name, path])?;
    ensure!(queue::read(&mut target.client_as(&other)?, "jobs", 10)?.len() == 4);
    fs::remove_file(dump)?;
    Ok(())
}

#[test]
fn the_owner_restores_where_a_superuser_has_installed() -> Result<()> {
    let (source, owner, app) = source()?;
    let dump = file(&format!("{}.sql", source.name))?;
    let path = dump.to_str().context("a path that isn't UTF-8")?;
    program(&owner, "pg_dump", &["-f", path, &source.name])?;
    let target = owned_database(&owner)?;
    let mut superuser = target.client()?;
    superuser.batch_execute("CREATE EXTENSION pg_enough")?;
    // What concerns the schema and the extension themselves can't work there; all else must.
    let mut psql = shared()?.command("psql")?;
    let output = psql.env("PGUSER", &owner).args(["-X", "-q", "-d", &target.name, "-f", path]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<&str> = said.lines().filter(|line| line.contains("ERROR")).collect();
    let expected =
        |line: &&&str| line.contains("schema \"enough\" already exists") || line.contains("must be owner of");
    ensure!(errors.iter().all(|line| expected(&line)), "{errors:?}");
    is_whole(&target, &owner, &app)?;
    fs::remove_file(dump)?;
    Ok(())
}

/// What PUBLIC was denied stays denied in the restored database.
#[test]
fn a_schema_that_is_closed_to_the_public_is_closed_after_a_restore() -> Result<()> {
    let (source, owner, app) = source()?;
    let closed = "REVOKE USAGE ON SCHEMA enough FROM PUBLIC";
    source.client_as(&owner)?.batch_execute(closed)?;
    let dump = file(&format!("{}.sql", source.name))?;
    let path = dump.to_str().context("a path that isn't UTF-8")?;
    program(&owner, "pg_dump", &["-f", path, &source.name])?;
    let target = owned_database(&owner)?;
    program(&owner, "psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &target.name, "-f", path])?;
    let stranger = source.role("stranger");
    shared()?.client()?.batch_execute(&format!("CREATE ROLE {stranger} LOGIN"))?;
    let mut client: Client = target.client_as(&stranger)?;
    refused(client.query("SELECT enough.cache_get('k')", &[]), "42501")?;
    is_whole(&target, &owner, &app)?;
    fs::remove_file(dump)?;
    Ok(())
}

/// Up to 16, a role that is dropped stays behind in what the server knows of an extension's first privileges.
#[test]
fn an_owner_that_is_replaced_leaves_nothing_behind_in_a_dump() -> Result<()> {
    let (source, owner, app) = source()?;
    let next = source.role("next");
    source.client()?.batch_execute(&format!(
        "CREATE ROLE {next} LOGIN; REASSIGN OWNED BY {owner} TO {next}; ALTER DATABASE {} OWNER TO {next}; \
         DROP OWNED BY {owner}; DROP ROLE {owner}",
        source.name
    ))?;
    // The new owner may do what the old one could.
    source.client_as(&next)?.batch_execute(
        "SELECT enough.rate_limit_policy_set('more', 3, '1 hour'), enough.rate_limit_policy_drop('more'), \
                enough.queue_create('more'), enough.queue_drop('more')",
    )?;
    let dump = file(&format!("{}.sql", source.name))?;
    let path = dump.to_str().context("a path that isn't UTF-8")?;
    program(&next, "pg_dump", &["-f", path, &source.name])?;
    let target = owned_database(&next)?;
    program(&next, "psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &target.name, "-f", path])?;
    is_whole(&target, &next, &app)?;
    fs::remove_file(dump)?;
    Ok(())
}

/// A role that may create in the database without owning it installs, too.
#[test]
fn a_role_with_create_on_the_database_is_an_admin_of_what_it_installs() -> Result<()> {
    let server = shared()?;
    let database = Database::empty(&server)?;
    let installer = database.role("it's \u{e9}");
    drop(server);
    let quoted = format!("\"{installer}\"").replace('\'', "");
    let installer = installer.replace('\'', "");
    database.client()?.batch_execute(&format!(
        "CREATE ROLE {quoted} LOGIN; GRANT CREATE ON DATABASE {} TO {quoted}",
        database.name
    ))?;
    let mut client = database.client_as(&installer)?;
    client.batch_execute(
        "CREATE EXTENSION pg_enough; SELECT enough.queue_create('q'), enough.rate_limit_policy_set('p', 1, '1 hour'), \
         enough.cache_clear(), enough.grant_to('pg_monitor', 'operator'); SELECT enough.cache_stats()",
    )?;
    Ok(())
}

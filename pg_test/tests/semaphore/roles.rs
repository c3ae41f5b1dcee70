//! Whose token counts for whom, and who sees what.

use crate::common::{acquire, extend, release, taken};
use anyhow::{Context, Result, ensure};
use enough_pg_test::check::refused;
use enough_pg_test::server::Database;
use postgres::Client;

struct Roles {
    _database: Database,
    /// Holds `own`, by this token.
    holder: Client,
    token: i64,
    stranger: Client,
    /// Has the holder's rights.
    member: Client,
    monitor: Client,
    operator: Client,
}

fn made() -> Result<Roles> {
    let database = Database::new()?;
    let mut client = database.client()?;
    let role = |what: &str| database.role(what);
    client.batch_execute(&format!(
        "CREATE ROLE {holder} LOGIN; CREATE ROLE {} LOGIN; CREATE ROLE {} LOGIN IN ROLE {holder}; \
         CREATE ROLE {monitor} LOGIN; CREATE ROLE {operator} LOGIN; \
         SELECT enough.grant_to('{monitor}', 'monitor'), enough.grant_to('{operator}', 'operator')",
        role("stranger"),
        role("member"),
        holder = role("holder"),
        monitor = role("monitor"),
        operator = role("operator"),
    ))?;
    let mut holder = database.client_as(&role("holder"))?;
    let token = taken(&mut holder, "'own', ttl => '1 hour'")?;
    Ok(Roles {
        holder,
        token,
        stranger: database.client_as(&role("stranger"))?,
        member: database.client_as(&role("member"))?,
        monitor: database.client_as(&role("monitor"))?,
        operator: database.client_as(&role("operator"))?,
        _database: database,
    })
}

#[test]
fn another_roles_token_counts_for_members_and_operators_alone() -> Result<()> {
    let mut roles = made()?;
    let token = roles.token;
    for other in [&mut roles.stranger, &mut roles.monitor] {
        for outcome in [release(other, "own", token), extend(other, "own", token, "1 ms")] {
            let hint = refused(outcome, "42501")?;
            ensure!(hint.contains("grant_to"), "{hint}");
        }
        // What isn't held, nobody has to have a right to.
        ensure!(!release(other, "own", token + 1)? && !extend(other, "own", token + 1, "1 hour")?);
        ensure!(acquire(other, "'own'")?.is_none());
    }
    for other in [&mut roles.member, &mut roles.operator] {
        ensure!(extend(other, "own", roles.token, "1 hour")? && release(other, "own", roles.token)?);
        ensure!(!release(other, "own", roles.token)?);
        roles.token = taken(&mut roles.holder, "'own', ttl => '1 hour'")?;
    }
    Ok(())
}

/// Names and tokens in the list of all, and tokens in that of one.
type Seen = (Vec<(String, Option<i64>)>, Vec<Option<i64>>);

/// What a role sees.
fn seen(client: &mut Client) -> Result<Seen> {
    let all = client.query("SELECT name, token FROM enough.semaphore_holders() ORDER BY name", &[])?;
    let one = client.query("SELECT token FROM enough.semaphore_holders('own')", &[])?;
    Ok((all.iter().map(|row| (row.get(0), row.get(1))).collect(), one.iter().map(|row| row.get(0)).collect()))
}

#[test]
fn tokens_are_shown_to_those_for_whom_they_count() -> Result<()> {
    let mut roles = made()?;
    let token = roles.token;
    let theirs = taken(&mut roles.stranger, "'theirs', ttl => '1 hour'")?;
    let named = |name: &str, token| (name.to_owned(), token);
    let own = (vec![named("own", Some(token))], vec![Some(token)]);
    ensure!(seen(&mut roles.holder)? == own && seen(&mut roles.member)? == own);
    // Who knows a name sees that somebody holds it. Other names it doesn't see.
    ensure!(seen(&mut roles.stranger)? == (vec![named("theirs", Some(theirs))], vec![None]));
    ensure!(seen(&mut roles.monitor)? == (vec![named("own", None), named("theirs", None)], vec![None]));
    let all = vec![named("own", Some(token)), named("theirs", Some(theirs))];
    ensure!(seen(&mut roles.operator)? == (all, vec![Some(token)]));
    Ok(())
}

#[test]
fn the_statistics_are_a_monitors() -> Result<()> {
    let mut roles = made()?;
    let stats = "SELECT acquired FROM enough.semaphore_stats()";
    for client in [&mut roles.monitor, &mut roles.operator] {
        ensure!(client.query_one(stats, &[])?.get::<_, i64>(0) > 0);
    }
    refused(roles.stranger.query(stats, &[]), "42501")?;
    Ok(())
}

/// The token is that of the role as which the function runs.
#[test]
fn a_function_that_runs_as_its_owner_acquires_for_it() -> Result<()> {
    let mut roles = made()?;
    roles
        .operator
        .batch_execute(
            "SET search_path = pg_temp; \
             CREATE FUNCTION pg_temp.held() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp \
                 RETURN enough.semaphore_acquire('by function')",
        )
        .context("a temporary function")?;
    let token: i64 = roles.operator.query_one("SELECT pg_temp.held()", &[])?.get(0);
    refused(release(&mut roles.stranger, "by function", token), "42501")?;
    ensure!(release(&mut roles.operator, "by function", token)?);
    Ok(())
}

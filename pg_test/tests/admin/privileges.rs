//! Who may do what: `docs/privileges.md` says it of every function, and the catalogs agree; what a level gives works, and what
//! could harm others is refused to all who don't have it.

use crate::common::Call;
use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{refused, state};
use enough_pg_test::queue;
use enough_pg_test::server::Database;
use postgres::Client;
use serde_json::json;
use std::collections::BTreeMap;

/// The columns of the table, and the levels that roles get for it.
const LEVELS: [&str; 4] = ["everybody", "monitor", "operator", "admin"];

/// Functions and the first level that may call them; none for those that nobody may.
fn documented() -> Result<BTreeMap<String, Option<usize>>> {
    let text = include_str!("../../../docs/privileges.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let mut cells = row.split('|').map(str::trim);
        let name = cells.next().and_then(|name| name.strip_suffix('`')).context("a row without a name")?;
        let marks: Vec<bool> = cells.take(LEVELS.len()).map(|cell| cell == "x").collect();
        let first = marks.iter().position(|&mark| mark);
        ensure!(marks[first.unwrap_or(LEVELS.len())..].iter().all(|&mark| mark), "{name}: a higher level may less");
        Ok((name.to_owned(), first))
    })
    .collect()
}

/// A database, and a role for each level.
fn made() -> Result<(Database, Client, Vec<String>)> {
    let database = Database::new()?;
    let mut client = database.client()?;
    let roles: Vec<String> = LEVELS.iter().map(|level| database.role(level)).collect();
    for (role, level) in roles.iter().zip(LEVELS) {
        client.batch_execute(&format!("CREATE ROLE {role} LOGIN"))?;
        if level != "everybody" {
            client.batch_execute(&format!("SELECT enough.grant_to('{role}', '{level}')"))?;
        }
    }
    Ok((database, client, roles))
}

#[test]
fn every_function_is_callable_by_whom_the_documents_say() -> Result<()> {
    let (_database, mut client, roles) = made()?;
    let rows = client.query(
        "SELECT p.proname::text, ARRAY(SELECT has_function_privilege(r, p.oid, 'EXECUTE') FROM unnest($1::text[]) AS r) \
         FROM pg_proc AS p JOIN pg_depend AS d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e' \
         WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_enough') ORDER BY 1",
        &[&roles],
    )?;
    let documented = documented()?;
    for row in &rows {
        let (name, may): (&str, Vec<bool>) = (row.get(0), row.get(1));
        let first = documented.get(name).with_context(|| format!("{name} is not in docs/privileges.md"))?;
        let expected: Vec<bool> = (0..LEVELS.len()).map(|level| first.is_some_and(|first| level >= first)).collect();
        ensure!(may == expected, "{name}: {may:?}, where docs/privileges.md says {expected:?}");
    }
    ensure!(documented.len() == rows.len(), "docs/privileges.md has {} functions of {}", documented.len(), rows.len());
    Ok(())
}

fn expect(client: &mut Client, calls: &[&str], allowed: bool) -> Result<()> {
    for call in calls {
        let outcome = client.simple_query(&format!("SELECT * FROM enough.{call}"));
        if allowed {
            ensure!(outcome.is_ok(), "{call}: {:?}", outcome.err());
        } else {
            refused(outcome, "42501").with_context(|| format!("in {call}"))?;
        }
    }
    Ok(())
}

const HARMLESS: [&str; 8] = [
    "cache_set('a', '1')",
    "cache_get('a')",
    "rate_limit('a', 5, '1 hour')",
    "rate_limit_by('shared', 'a')",
    "semaphore_acquire('a')",
    "semaphore_holders('a')",
    "queue_list()",
    "maintain()",
];
const STATISTICS: [&str; 3] = ["cache_stats()", "rate_limit_stats()", "semaphore_stats()"];
const OPERATING: [&str; 12] = [
    "cache_clear()",
    "rate_limit_reset('a')",
    "rate_limit_refund('a', 5, '1 hour')",
    "rate_limit_policy_set('p', 1, '1 hour')",
    "rate_limit_policy_add('p', 9, NULL, calendar => 'day')",
    "rate_limit_policy_override('shared', 'b', 0)",
    "rate_limit_policy_drop('p')",
    "rate_limit_block('a', '1 s')",
    "rate_limit_unblock('a')",
    "queue_pause('q')",
    "queue_resume('q')",
    "queue_alter('q', max_attempts => 3)",
];
const ADMINISTRATION: [&str; 5] = [
    "grant_to('pg_monitor', 'monitor')",
    "revoke_from('pg_read_all_data', 'operator')",
    "queue_create('mine')",
    "kv_create('mine')",
    "kv_set('k', '1')",
];

#[test]
fn each_level_may_do_its_part_and_no_more() -> Result<()> {
    let (database, mut client, roles) = made()?;
    client.batch_execute(
        "SELECT enough.queue_create('q'), enough.queue_send('q', '1'), enough.rate_limit_policy_set('shared', 5, '1 hour')",
    )?;
    for (level, role) in roles.iter().enumerate() {
        let mut user = database.client_as(role)?;
        for (least, calls) in [&HARMLESS[..], &STATISTICS, &OPERATING, &ADMINISTRATION].into_iter().enumerate() {
            expect(&mut user, calls, level >= least).with_context(|| LEVELS[level])?;
        }
        if level == 3 {
            user.batch_execute("SELECT enough.queue_drop('mine')")?;
        }
        // No level reads messages, or gets at the tables in a way that would let it act as another role.
        expect(&mut user, &["queue_read('q')", "queue_purge('q')", "queue_drop('q')", "queue_send('q', '1')"], false)?;
        for statement in [
            "CREATE TRIGGER t BEFORE UPDATE ON enough.queue FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "ALTER TABLE enough.rate_limit_policy ADD evil int",
            "SELECT enough._change_privileges('pg_monitor', 'admin', true)",
        ] {
            refused(user.batch_execute(statement), "42501").context(statement)?;
        }
        let seen = user.query("SELECT queue, ready FROM enough.queue_stats()", &[])?;
        ensure!(seen.len() == usize::from(level >= 1), "{}: {seen:?}", LEVELS[level]);
    }
    // The server's own role for monitoring is a monitor.
    let member = database.role("member");
    client.batch_execute(&format!("CREATE ROLE {member} LOGIN IN ROLE pg_monitor"))?;
    let mut member = database.client_as(&member)?;
    expect(&mut member, &STATISTICS, true)?;
    expect(&mut member, &OPERATING, false)?;
    let row = member.query_one("SELECT ready FROM enough.queue_stats('q')", &[])?;
    ensure!(row.get::<_, i64>(0) == 1, "{row:?}");
    Ok(())
}

#[test]
fn levels_are_given_and_taken_step_by_step() -> Result<()> {
    let (database, mut client, roles) = made()?;
    let role = &roles[0];
    let mut user = database.client_as(role)?;
    let mut levels = |client: &mut Client, call: &str, level: &str, expected: usize| -> Result<()> {
        client.batch_execute(&format!("SELECT enough.{call}('{role}', '{level}')"))?;
        for (least, calls) in [&STATISTICS[..], &OPERATING[..3], &ADMINISTRATION[..2]].into_iter().enumerate() {
            expect(&mut user, calls, expected > least).with_context(|| format!("{call} {level}"))?;
        }
        Ok(())
    };
    levels(&mut client, "grant_to", "operator", 2)?;
    levels(&mut client, "revoke_from", "operator", 1)?;
    // By an admin that is no superuser.
    let mut admin = database.client_as(&roles[3])?;
    levels(&mut admin, "grant_to", "admin", 3)?;
    levels(&mut admin, "revoke_from", "admin", 2)?;
    // What one has given another takes.
    levels(&mut client, "revoke_from", "user", 0)?;
    levels(&mut client, "grant_to", "admin", 3)?;
    levels(&mut admin, "revoke_from", "monitor", 0)?;
    // With the level goes the right to pass on what stays.
    levels(&mut client, "grant_to", "admin", 3)?;
    levels(&mut client, "revoke_from", "operator", 1)?;
    let options: i64 = client
        .query_one(
            "SELECT count(*) FROM pg_proc AS p, aclexplode(p.proacl) AS a \
             WHERE p.pronamespace = 'enough'::regnamespace AND a.grantee = $1::text::regrole AND a.is_grantable",
            &[role],
        )?
        .get(0);
    ensure!(options == 0, "{options} grant options are left");
    for (call, code) in [
        ("grant_to(NULL, 'user')", "22004"),
        ("grant_to('pg_monitor', NULL)", "22004"),
        ("revoke_from('pg_monitor', NULL)", "22004"),
        ("grant_to('pg_monitor', 'owner')", "22023"),
        ("grant_to('pg_monitor', 'ADMIN')", "22023"),
        ("grant_to('nobody at all', 'user')", "42602"),
        ("grant_to('nobody_at_all', 'user')", "42704"),
        ("grant_to(4294967294::oid::regrole, 'user')", "42704"),
        ("grant_to('-', 'user')", "42704"),
    ] {
        let hint = refused(client.query(&format!("SELECT enough.{call}"), &[]), code).context(call)?;
        ensure!(!hint.is_empty() || matches!(code, "42602") || call.contains("nobody"), "{call}: no hint");
    }
    refused(client.batch_execute("BEGIN READ ONLY; SELECT enough.grant_to('pg_monitor', 'user')"), "25006")?;
    client.batch_execute("ROLLBACK")?;
    // A name that needs quotes.
    let odd = format!("\"{}\"\"; SELECT 1; --\"", database.role("Odd"));
    client.batch_execute(&format!("CREATE ROLE {odd}"))?;
    let odd: u32 =
        client.query_one("SELECT oid FROM pg_roles WHERE rolname LIKE $1 || '%'", &[&database.role("Odd")])?.get(0);
    client.execute(
        "SELECT enough.grant_to($1::oid::regrole, 'admin'), enough.revoke_from($1::oid::regrole, 'user')",
        &[&odd],
    )?;
    Ok(())
}

#[test]
fn levels_given_in_two_sessions_at_once_are_both_there() -> Result<()> {
    let (database, mut client, roles) = made()?;
    for call in ["grant_to", "revoke_from"] {
        client.batch_execute(&format!("BEGIN; SELECT enough.{call}('{}', 'admin')", roles[0]))?;
        let other = Call::start(&database, &roles[3], &format!("SELECT enough.{call}('{}', 'admin')", roles[1]))?;
        client.batch_execute("COMMIT")?;
        other.outcome().context(call)?;
        let may: Vec<bool> = client
            .query_one(
                "SELECT ARRAY(SELECT has_function_privilege(r, 'enough.grant_to(regrole, text)', 'EXECUTE') \
                 FROM unnest($1::text[]) AS r)",
                &[&roles[..2].to_vec()],
            )?
            .get(0);
        ensure!(may == [call == "grant_to"; 2], "{call}: {may:?}");
    }
    // A GRANT by hand that is still open.
    client.batch_execute(&format!("BEGIN; GRANT EXECUTE ON FUNCTION enough.cache_clear() TO {}", roles[0]))?;
    let other = Call::start(&database, "postgres", &format!("SELECT enough.grant_to('{}', 'operator')", roles[1]))?;
    client.batch_execute("COMMIT")?;
    if let Err(error) = other.outcome() {
        ensure!(state(&error) == "40001", "{error:?}");
    }
    Ok(())
}

#[test]
fn who_has_no_right_on_the_schema_writes_tagged_tables_and_invalidates() -> Result<()> {
    let (database, mut client, roles) = made()?;
    let stranger = &roles[0];
    client.batch_execute(&format!(
        "CREATE TABLE tagged (id int); GRANT ALL ON tagged TO {stranger}; SELECT enough.cache_tag_table('tagged', 'tag'); \
         REVOKE USAGE ON SCHEMA enough FROM PUBLIC"
    ))?;
    let mut user = database.client_as(stranger)?;
    expect(&mut user, &["cache_get('k')", "queue_list()"], false)?;
    for statement in
        ["INSERT INTO tagged VALUES (1)", "UPDATE tagged SET id = 2", "DELETE FROM tagged", "TRUNCATE tagged"]
    {
        client.batch_execute("SELECT enough.cache_set('k', '1', tags => '{tag}')")?;
        user.batch_execute(statement)?;
        let left: bool = client.query_one("SELECT enough.cache_exists('k')", &[])?.get(0);
        ensure!(!left, "{statement} has left the entry");
    }
    client.batch_execute(&format!("SELECT enough.grant_to('{stranger}', 'user')"))?;
    expect(&mut user, &["cache_get('k')", "queue_list()"], true)?;
    // The function of the triggers is good for triggers alone.
    ensure!(user.batch_execute("SELECT enough.cache_invalidate_by_trigger()").is_err());
    Ok(())
}

#[test]
fn an_operator_sees_to_the_queues_of_others() -> Result<()> {
    let (database, mut client, roles) = made()?;
    client.batch_execute("SELECT enough.queue_create('q'), enough.queue_send('q', '1')")?;
    let mut operator = database.client_as(&roles[2])?;
    operator.batch_execute("SELECT enough.queue_pause('q')")?;
    ensure!(queue::read(&mut client, "q", 1)?.is_empty(), "the pause didn't take");
    operator.batch_execute("SELECT enough.queue_resume('q')")?;
    ensure!(queue::read(&mut client, "q", 1)?.len() == 1);
    // To rewrite the table is its owner's, as is to rename or drop it.
    for call in ["queue_alter('q', unlogged => true)", "queue_rename('q', 'r')", "queue_drop('q')"] {
        refused(operator.query(&format!("SELECT enough.{call}"), &[]), "42501").context(call)?;
    }
    queue::send(&mut client, "q", &json!(2))?;
    Ok(())
}

//! Who may do what: privileges are the table's own; the extension is trusted.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::refused;
use enough_pg_test::queue;
use enough_pg_test::server::{Database, shared};
use postgres::Client;
use serde_json::json;

/// A database with the queue `q` of the superuser, and a role that may connect.
fn made() -> Result<(Database, Client, String, Client)> {
    let database = Database::new()?;
    let mut client = database.client()?;
    let role = database.role("user");
    client.batch_execute(&format!(
        "CREATE ROLE {role} LOGIN; SELECT enough.queue_create('q', visibility_timeout => '1 hour')"
    ))?;
    let user = database.client_as(&role)?;
    Ok((database, client, role, user))
}

/// The calls that need INSERT, those that need SELECT and DELETE, and those that need SELECT.
const SEND: [&str; 6] = [
    "queue_send('q', '1')",
    "queue_send_batch('q', ARRAY['1']::jsonb[])",
    "queue_send('q', '1', group_key => 'g', dedup_key => 'k')",
    "queue_send('q', '1', dedup_key => 'k')",
    "queue_send_unique('q', '1', 'u')",
    "queue_send_unique('q', '2', 'u', 'replace')",
];
const CONSUME: [&str; 17] = [
    "queue_read('q')",
    "queue_pop('q')",
    "queue_read_these('q', ARRAY[1])",
    "queue_read_own('q')",
    "queue_reschedule('q', ARRAY[1], now())",
    "queue_delete('q', 1)",
    "queue_delete_batch('q', ARRAY[1])",
    "queue_extend('q', 1, '1 second')",
    "queue_extend_batch('q', ARRAY[1])",
    "queue_fail('q', 1)",
    "queue_fail_batch('q', ARRAY[1])",
    "queue_release('q', 1)",
    "queue_release_batch('q', ARRAY[1])",
    "queue_archive('q', 1)",
    "queue_archive_batch('q', ARRAY[1])",
    "queue_redrive('q')",
    "queue_purge('q')",
];
const OBSERVE: [&str; 7] = [
    "queue_stats('q')",
    "queue_peek('q')",
    "queue_peek('q', state => 'dead')",
    "queue_status('q', 1)",
    "queue_attempts('q', 1)",
    "queue_visible_at('q', 1)",
    "queue_dead('q')",
];
const OWN: [&str; 5] = [
    "queue_create('mine')",
    "queue_drop('q')",
    "queue_alter('q', max_rate => 1)",
    "queue_pause('q')",
    "queue_resume('q')",
];

fn expect(user: &mut Client, calls: &[&str], allowed: bool) -> Result<()> {
    for call in calls {
        let outcome = user.simple_query(&format!("SELECT * FROM enough.{call}"));
        if allowed {
            ensure!(outcome.is_ok(), "{call}: {:?}", outcome.err());
        } else {
            refused(outcome, "42501").with_context(|| format!("in {call}"))?;
        }
    }
    Ok(())
}

#[test]
fn without_privileges_nothing_is_allowed() -> Result<()> {
    let (_database, mut client, _, mut user) = made()?;
    let sent = queue::send(&mut client, "q", &json!(1))?;
    for calls in [&SEND[..], &CONSUME, &OBSERVE, &OWN] {
        expect(&mut user, calls, false)?;
    }
    ensure!(user.query("SELECT * FROM enough.queue_stats()", &[])?.is_empty(), "stats of a queue that it may not see");
    ensure!(queue::ids(&queue::read(&mut client, "q", 10)?) == [sent], "a refused call has changed something");
    // Neither the cache nor the limiter needs any.
    user.simple_query("SELECT enough.cache_set('a', '1'), enough.cache_get('a'), enough.rate_limit('a', 1, '1 s')")?;
    Ok(())
}

#[test]
fn insert_lets_a_role_send_and_nothing_else() -> Result<()> {
    let (_database, mut client, role, mut user) = made()?;
    client.batch_execute(&format!("GRANT INSERT ON enough.q_q TO {role}"))?;
    expect(&mut user, &SEND, true)?;
    for calls in [&CONSUME[..], &OBSERVE, &OWN] {
        expect(&mut user, calls, false)?;
    }
    // The last call's key was taken by the one before.
    ensure!(queue::read(&mut client, "q", 10)?.len() == 4);
    client.batch_execute(&format!("REVOKE INSERT ON enough.q_q FROM {role}"))?;
    expect(&mut user, &SEND, false)
}

#[test]
fn select_and_delete_let_a_role_consume_and_nothing_else() -> Result<()> {
    let (_database, mut client, role, mut user) = made()?;
    client.batch_execute(&format!("GRANT SELECT ON enough.q_q TO {role}"))?;
    expect(&mut user, &OBSERVE, true)?;
    for calls in [&SEND[..], &CONSUME, &OWN] {
        expect(&mut user, calls, false)?;
    }
    client.batch_execute(&format!("GRANT DELETE ON enough.q_q TO {role}"))?;
    expect(&mut user, &CONSUME, true)?;
    for calls in [&SEND[..], &OWN] {
        expect(&mut user, calls, false)?;
    }
    // A whole consumer's life, with redeliveries that are noted in the row and a death in an archive it can't see.
    client.batch_execute(
        "SELECT enough.queue_create('short', max_attempts => 2, visibility_timeout => '1 millisecond')",
    )?;
    client.batch_execute(&format!("GRANT SELECT, DELETE ON enough.q_short TO {role}"))?;
    queue::send(&mut client, "short", &json!("poison"))?;
    let mut deliveries = 0;
    enough_pg_test::check::eventually("the message is dead", || {
        deliveries += queue::read(&mut user, "short", 1)?.len();
        let dead: i64 = client.query_one("SELECT count(*) FROM enough.a_short", &[])?.get(0);
        Ok((dead == 1).then_some(()))
    })?;
    ensure!(deliveries == 2, "{deliveries} deliveries of 2");
    refused(user.query("SELECT * FROM enough.a_short", &[]), "42501")?;
    // Dead letters are its to see and to give another life, and it may let a message fail and keep what came of it.
    ensure!(user.query_one("SELECT enough.queue_redrive('short')", &[])?.get::<_, i64>(0) == 1);
    let read = queue::receive(&mut user, "queue_read('short', 1, '1 hour')")?;
    user.execute("SELECT enough.queue_fail('short', $1, 'no', '0')", &[&read[0].msg_id])?;
    let read = queue::receive(&mut user, "queue_read('short', 1, '1 hour')")?;
    user.execute("SELECT enough.queue_archive('short', $1, '1')", &[&read[0].msg_id])?;
    ensure!(
        user.query_one("SELECT result = '1' FROM enough.queue_status('short', $1)", &[&read[0].msg_id])?
            .get::<_, bool>(0)
    );
    refused(user.batch_execute("DELETE FROM enough.queue"), "42501")?;
    Ok(())
}

#[test]
fn privileges_count_for_the_role_that_calls() -> Result<()> {
    let (_database, mut client, role, mut user) = made()?;
    client.batch_execute(&format!(
        "CREATE FUNCTION by_owner() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS \
         'SELECT enough.queue_send(''q'', ''1'')'; \
         CREATE FUNCTION by_caller() RETURNS bigint LANGUAGE sql AS 'SELECT enough.queue_send(''q'', ''1'')'; \
         GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {role}"
    ))?;
    user.simple_query("SELECT by_owner()")?;
    refused(user.simple_query("SELECT by_caller()"), "42501")?;
    client.batch_execute(&format!("SET ROLE {role}"))?;
    refused(queue::send(&mut client, "q", &json!(1)), "42501")?;
    client.batch_execute("RESET ROLE")?;
    queue::send(&mut client, "q", &json!(1))?;
    Ok(())
}

#[test]
fn names_in_the_callers_search_path_are_not_used() -> Result<()> {
    let (database, mut client, role, mut user) = made()?;
    client.batch_execute(&format!(
        "GRANT CREATE ON DATABASE {} TO {role}; GRANT SELECT, INSERT, DELETE ON enough.q_q TO {role}",
        database.name
    ))?;
    // Shadows for what the extension's own statements call.
    user.batch_execute(
        "CREATE SCHEMA evil; \
         CREATE FUNCTION evil.fail() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'shadowed'; END $$; \
         CREATE FUNCTION evil.eq(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT evil.fail() = 1'; \
         CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.eq); \
         CREATE FUNCTION evil.eq8(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT evil.fail() OPERATOR(pg_catalog.=) 1'; \
         CREATE OPERATOR evil.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil.eq8); \
         CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT now() WHERE evil.fail() OPERATOR(pg_catalog.=) 1'; \
         SET search_path = evil, pg_catalog",
    )?;
    queue::send(&mut user, "q", &json!(1))?;
    let read = queue::read(&mut user, "q", 1)?;
    ensure!(read.len() == 1);
    ensure!(queue::delete(&mut user, "q", read[0].msg_id, read[0].lease)?);
    queue::stats(&mut user, "q")?;
    user.batch_execute(
        "SELECT enough.queue_send('q', '1', dedup_key => 'k'), enough.queue_send('q', '1', dedup_key => 'k'); \
         SELECT enough.queue_fail('q', msg_id, 'no', '0') FROM enough.queue_read('q') AS r; \
         SELECT state FROM enough.queue_read('q') AS r, enough.queue_status('q', r.msg_id); \
         SELECT * FROM enough.queue_peek('q'), enough.queue_dead('q'), enough.queue_list(); \
         SELECT enough.queue_archive('q', 2), enough.queue_redrive('q'), enough.queue_purge('q'); \
         SELECT * FROM enough.queue_send_batch('q', ARRAY['1']::pg_catalog.jsonb[]); \
         SELECT * FROM enough.queue_archive_batch('q', ARRAY(SELECT msg_id FROM enough.q_q))",
    )?;
    client.batch_execute(
        "SET search_path = evil, pg_catalog; SELECT enough.queue_alter('q', max_rate => 1), enough.queue_pause('q')",
    )?;
    user.batch_execute("SELECT * FROM enough.maintain()")?;
    Ok(())
}

#[test]
fn a_database_owner_installs_and_makes_queues() -> Result<()> {
    let (database, owner) = {
        let server = shared()?;
        let database = Database::empty(&server)?;
        let owner = database.role("owner");
        server
            .client()?
            .batch_execute(&format!("CREATE ROLE {owner} LOGIN; ALTER DATABASE {} OWNER TO {owner}", database.name))?;
        (database, owner)
    };
    let mut as_owner = database.client_as(&owner)?;
    as_owner.batch_execute("CREATE EXTENSION pg_enough")?;
    let superuser: bool = as_owner.query_one("SELECT current_setting('is_superuser') = 'on'", &[])?.get(0);
    ensure!(!superuser);
    as_owner.batch_execute("SELECT enough.queue_create('orders')")?;
    let sent = queue::send(&mut as_owner, "orders", &json!(1))?;
    let read = queue::read(&mut as_owner, "orders", 1)?;
    ensure!(queue::ids(&read) == [sent] && queue::delete(&mut as_owner, "orders", sent, read[0].lease)?);
    as_owner.batch_execute(
        "SELECT enough.cache_set('a', '1'), enough.rate_limit('a', 1, '1 s'); SELECT enough.maintain()",
    )?;

    // It passes that right on, and takes the queue away.
    let maker = database.role("maker");
    database.client()?.batch_execute(&format!("CREATE ROLE {maker} LOGIN"))?;
    let mut as_maker = database.client_as(&maker)?;
    refused(as_maker.simple_query("SELECT enough.queue_create('its_own')"), "42501")?;
    as_owner.batch_execute(&format!("GRANT CREATE ON SCHEMA enough TO {maker}"))?;
    as_maker.batch_execute("SELECT enough.queue_create('its_own'); SELECT enough.queue_send('its_own', '1')")?;
    refused(as_maker.simple_query("SELECT enough.queue_drop('orders')"), "42501")?;
    as_maker.batch_execute("SELECT enough.queue_alter('its_own', max_rate => 1), enough.queue_pause('its_own')")?;
    refused(as_maker.simple_query("SELECT enough.queue_pause('orders')"), "42501")?;
    as_maker.batch_execute("SELECT enough.queue_drop('its_own')")?;
    as_owner.batch_execute("SELECT enough.queue_drop('orders')")?;
    as_owner
        .batch_execute("DROP EXTENSION pg_enough CASCADE; CREATE EXTENSION pg_enough; SELECT enough.queue_stats()")?;
    Ok(())
}

#[test]
fn a_role_is_given_what_it_needs_and_it_is_taken_again() -> Result<()> {
    let (_database, mut client, role, mut user) = made()?;
    let change = |client: &mut Client, call: &str, what: &str| {
        client.batch_execute(&format!("SELECT enough.queue_{call}('q', '{role}', '{what}')"))
    };
    for (what, allowed, refused) in [
        ("send", &[&SEND[..]][..], &[&CONSUME[..], &OBSERVE, &OWN][..]),
        ("observe", &[&OBSERVE], &[&SEND, &CONSUME, &OWN]),
        ("consume", &[&CONSUME, &OBSERVE], &[&SEND, &OWN]),
        ("all", &[&SEND, &CONSUME, &OBSERVE], &[&OWN]),
    ] {
        change(&mut client, "grant", what)?;
        for calls in allowed {
            expect(&mut user, calls, true).with_context(|| format!("granted {what}"))?;
        }
        for calls in refused {
            expect(&mut user, calls, false).with_context(|| format!("granted {what}"))?;
        }
        change(&mut client, "revoke", what)?;
        for calls in [&SEND[..], &CONSUME, &OBSERVE] {
            expect(&mut user, calls, false).with_context(|| format!("revoked {what}"))?;
        }
    }
    refused(user.batch_execute(&format!("SELECT enough.queue_grant('q', '{role}', 'all')")), "42501")?;
    // A name that needs quotes.
    let odd = format!("{role} \"; DROP TABLE enough.queue; --");
    client.batch_execute(&format!("CREATE ROLE \"{}\"", odd.replace('"', "\"\"")))?;
    client.execute(
        "SELECT enough.queue_grant('q', (SELECT oid FROM pg_roles WHERE rolname = $1)::regrole, 'all')",
        &[&odd],
    )?;
    let has: bool = client.query_one("SELECT has_table_privilege($1, 'enough.q_q', 'DELETE')", &[&odd])?.get(0);
    ensure!(has);
    client.execute(
        "SELECT enough.queue_revoke('q', (SELECT oid FROM pg_roles WHERE rolname = $1)::regrole, 'all')",
        &[&odd],
    )?;
    client.batch_execute(&format!("DROP ROLE \"{}\"", odd.replace('"', "\"\"")))?;
    Ok(())
}

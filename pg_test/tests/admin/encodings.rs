//! Databases that aren't UTF-8: what differs there differs, what is sent comes back, and messages can be read.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::refused;
use enough_pg_test::queue;
use enough_pg_test::server::{Database, shared};
use postgres::Client;
use serde_json::json;

/// An encoding of the server's, and two words that it has and ASCII doesn't.
struct Words {
    encoding: &'static str,
    one: &'static str,
    other: &'static str,
}

const ENCODINGS: [Words; 6] = [
    Words { encoding: "UTF8", one: "b\u{e9}n\u{e9}dicte", other: "b\u{e8}n\u{e8}dicte" },
    Words { encoding: "LATIN1", one: "b\u{e9}n\u{e9}dicte", other: "b\u{e8}n\u{e8}dicte" },
    Words { encoding: "SQL_ASCII", one: "b\u{e9}n\u{e9}dicte", other: "b\u{e8}n\u{e8}dicte" },
    Words { encoding: "EUC_JP", one: "\u{65e5}\u{672c}", other: "\u{6771}\u{4eac}" },
    Words { encoding: "EUC_KR", one: "\u{c11c}\u{c6b8}", other: "\u{bd80}\u{c0b0}" },
    Words {
        encoding: "WIN1251",
        one: "\u{41c}\u{43e}\u{441}\u{43a}\u{432}\u{430}",
        other: "\u{41a}\u{438}\u{435}\u{432}",
    },
];

/// A database in that encoding, with the extension in it.
fn made(encoding: &str) -> Result<(Database, Client)> {
    let server = shared()?;
    let name = format!("in_{}", encoding.to_lowercase());
    server
        .client()?
        .batch_execute(&format!(
            "DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
        ))
        .or_else(|_| -> Result<()> {
            // In one statement each: a database isn't made in a transaction.
            let mut client = server.client()?;
            client.batch_execute(&format!("DROP DATABASE IF EXISTS {name}"))?;
            client.batch_execute(&format!(
                "CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
            ))?;
            Ok(())
        })?;
    let database = Database::named(&server, &name);
    let mut client = database.client()?;
    client.batch_execute("CREATE EXTENSION pg_enough").with_context(|| format!("in {encoding}"))?;
    Ok((database, client))
}

/// Runs `test` in a database of each encoding.
fn in_each(test: impl Fn(&Database, &mut Client, &Words) -> Result<()>) -> Result<()> {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for words in &ENCODINGS {
        let (database, mut client) = made(words.encoding)?;
        test(&database, &mut client, words).with_context(|| format!("in {}", words.encoding))?;
    }
    Ok(())
}

/// The message, detail and hint of the error that `statement` is refused with.
fn said(client: &mut Client, statement: &str, code: &str) -> Result<String> {
    let error = client.batch_execute(statement).err().with_context(|| format!("no error: {statement}"))?;
    let error = error.as_db_error().with_context(|| format!("{error}"))?;
    ensure!(error.code().code() == code, "{statement}: {error:?}");
    Ok([Some(error.message()), error.detail(), error.hint()].into_iter().flatten().collect::<Vec<_>>().join(" "))
}

#[test]
fn names_that_differ_are_different_policies_keys_and_tags() -> Result<()> {
    in_each(|_, client, &Words { one, other, .. }| {
        client.batch_execute(&format!(
            "SELECT enough.rate_limit_policy_set('{one}', 3, '1 hour'), enough.rate_limit_policy_set('{other}', 5, '1 hour')"
        ))?;
        let left = |client: &mut Client, policy: &str| -> Result<i64> {
            let sql = "SELECT remaining FROM enough.rate_limit_by($1, 'k', 0)";
            Ok(client.query_one(sql, &[&policy])?.get(0))
        };
        ensure!(left(client, one)? == 3 && left(client, other)? == 5);
        client.execute("SELECT enough.rate_limit_by($1, 'k')", &[&one])?;
        ensure!(left(client, one)? == 2 && left(client, other)? == 5, "two policies count as one");
        let names: Vec<String> = client
            .query("SELECT name FROM enough.rate_limit_policy ORDER BY max_requests", &[])?
            .iter()
            .map(|row| row.get(0))
            .collect();
        ensure!(names == [one, other], "{names:?}");
        let dropped = client.query_one("SELECT enough.rate_limit_policy_drop($1)", &[&one])?;
        ensure!(dropped.get::<_, bool>(0) && left(client, other)? == 5);
        let text = said(client, &format!("SELECT enough.rate_limit_by('{one}', 'k')"), "42704")?;
        ensure!(text.contains(one), "{text}");

        for key in [one, other] {
            client.execute("SELECT enough.cache_set($1, to_jsonb($1::text), tags => ARRAY[$1])", &[&key])?;
            client.execute("SELECT enough.rate_limit($1, 5, '1 hour')", &[&key])?;
        }
        let got: serde_json::Value = client.query_one("SELECT enough.cache_get($1)", &[&one])?.get(0);
        ensure!(got == json!(one), "{got}");
        client.execute("SELECT enough.cache_invalidate($1)", &[&one])?;
        for (key, there) in [(one, false), (other, true)] {
            ensure!(client.query_one("SELECT enough.cache_exists($1)", &[&key])?.get::<_, bool>(0) == there, "{key}");
        }
        let row = client.query_one("SELECT remaining FROM enough.rate_limit_peek($1, 5, '1 hour')", &[&one])?;
        ensure!(row.get::<_, i64>(0) == 4, "{row:?}");
        // A query of the user's, in the user's words.
        let fetched: serde_json::Value = client
            .query_one(
                &format!("SELECT enough.cache_fetch('f', '1 hour', 'SELECT ''{one}'' || ($1->>''{other}'') AS \"{one}\"', '{{\"{other}\": \"!\"}}')"),
                &[],
            )?
            .get(0);
        ensure!(fetched == json!(format!("{one}!")), "{fetched}");
        let text = said(
            client,
            &format!("SELECT enough.cache_fetch('g', '1 hour', 'SELECT 1/0 AS \"{one}\", \"{other}\"')"),
            "42703",
        )?;
        ensure!(text.contains(other), "{text}");
        // A table's own name is its tag.
        client.batch_execute(&format!(
            "CREATE TABLE \"{one}\" (\"{other}\" text); SELECT enough.cache_tag_table('\"{one}\"'), enough.cache_set('t', '1', tags => '{{{one}}}'); \
             INSERT INTO \"{one}\" VALUES ('{other}')"
        ))?;
        ensure!(!client.query_one("SELECT enough.cache_exists('t')", &[])?.get::<_, bool>(0));
        client.batch_execute(&format!("SELECT enough.cache_untag_table('\"{one}\"')"))?;
        Ok(())
    })
}

#[test]
fn messages_keys_and_errors_come_back_as_they_were_sent() -> Result<()> {
    in_each(|_, client, &Words { one, other, .. }| {
        client.batch_execute("SELECT enough.queue_create('q', max_attempts => 1)")?;
        let sent: i64 = client
            .query_one(
                "SELECT enough.queue_send('q', $1, group_key => $2, dedup_key => $3, headers => $1)",
                &[&json!({ one: other }), &one, &other],
            )?
            .get(0);
        let again: i64 = client.query_one("SELECT enough.queue_send('q', '1', dedup_key => $1)", &[&other])?.get(0);
        ensure!(sent == again);
        client.execute("SELECT enough.queue_send('q', '2', group_key => $1)", &[&other])?;
        let rows = client.query("SELECT msg_id, group_key, message FROM enough.queue_read('q', 10)", &[])?;
        ensure!(rows.len() == 2 && rows[0].get::<_, &str>(1) == one, "{rows:?}");
        ensure!(rows[0].get::<_, serde_json::Value>(2) == json!({ one: other }));
        client.execute("SELECT enough.queue_fail('q', $1, $2)", &[&sent, &one])?;
        let error: String = client.query_one("SELECT error FROM enough.queue_dead('q')", &[])?.get(0);
        ensure!(error == one, "{error}");
        client.batch_execute("SELECT enough.queue_redrive('q')")?;
        for (call, code) in [
            (format!("queue_send('{one}', '1')"), "22023"),
            (format!("queue_create('{one}')"), "22023"),
            (format!("queue_peek('q', state => '{one}')"), "22023"),
            (format!("queue_grant('q', 'postgres', '{one}')"), "22023"),
            (format!("cache_set('k', '1', mode => '{one}')"), "22023"),
            (format!("rate_limit('k', 1, '1 s', algorithm => '{one}')"), "22023"),
            (format!("grant_to('postgres', '{one}')"), "22023"),
            (format!("rate_limit_policy_set(repeat('{one}', 100), 1, '1 s')"), "22023"),
            (format!("rate_limit_policy_set('p', 1, '1 s', '{one}')"), "22023"),
            (format!("rate_limit_all(ARRAY['{one}', '{one}'], ARRAY[1, 2], ARRAY['1 s', '1 s']::interval[])"), "22023"),
        ] {
            let text = said(client, &format!("SELECT * FROM enough.{call}"), code)?;
            ensure!(text.contains(one), "{call}: {text}");
        }
        // The server's own words, raised within a call.
        client.batch_execute(&format!(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{one}' USING HINT = '{other}', \
             DETAIL = '{one}'; END $$; CREATE TRIGGER fail BEFORE INSERT ON enough.a_q FOR EACH ROW EXECUTE FUNCTION fail()"
        ))?;
        let text = said(client, &format!("SELECT enough.queue_archive('q', {sent})"), "P0001")?;
        ensure!(text == format!("{one} {one} {other}"), "{text}");
        Ok(())
    })
}

#[test]
fn roles_relations_and_findings_have_their_names() -> Result<()> {
    in_each(|database, client, &Words { one, other, .. }| {
        let (role, second) = (format!("{one} of {}", database.name), format!("{other} of {}", database.name));
        client.batch_execute(&format!(
            "DROP ROLE IF EXISTS \"{role}\", \"{second}\"; CREATE ROLE \"{role}\"; CREATE ROLE \"{second}\"; SELECT enough.queue_create('q')"
        ))?;
        client.batch_execute(&format!(
            "SELECT enough.queue_grant('q', '\"{role}\"', 'send'), enough.queue_grant('q', '\"{second}\"', 'all'), \
                    enough.queue_revoke('q', '\"{second}\"', 'all'), enough.grant_to('\"{role}\"', 'operator')"
        ))?;
        let may = |client: &mut Client, role: &str| -> Result<bool> {
            Ok(client.query_one("SELECT has_table_privilege($1, 'enough.q_q', 'INSERT')", &[&role])?.get(0))
        };
        ensure!(may(client, &role)? && !may(client, &second)?);
        // Parts that have got other names are found and get their own again.
        client.batch_execute(&format!(
            "ALTER SEQUENCE enough.s_q RENAME TO \"{one}\"; ALTER INDEX enough.i_q_due RENAME TO \"{other}\"; \
             SELECT enough.queue_send('q', '1'); DELETE FROM enough.queue; \
             INSERT INTO enough.queue SELECT '{one}', now(), '1 s', 1, '1 s', '1 s', NULL, NULL, '1 s', NULL, false"
        ))?;
        client
            .batch_execute("SELECT enough.queue_create('q', if_not_exists => true), enough.queue_rename('q', 'r')")?;
        let names: i64 = client
            .query_one("SELECT count(*) FROM pg_class WHERE relname IN ('s_r', 'i_r_due') AND relnamespace = 'enough'::regnamespace", &[])?
            .get(0);
        ensure!(names == 2 && queue::read(client, "r", 1)?.len() == 1);
        client.batch_execute(&format!(
            "DELETE FROM enough.queue WHERE name = '{one}'; ALTER TABLE enough.q_r OWNER TO \"{role}\""
        ))?;
        for sql in [
            "SELECT note FROM enough.maintain() WHERE task = 'queue_check'",
            "SELECT value FROM enough.status() WHERE item = 'warnings'",
        ] {
            let text: String = client.query_one(sql, &[])?.get(0);
            ensure!(text.contains(&role), "{text}");
        }
        // An error of a trigger's during maintenance is noted in its own words.
        client.batch_execute(&format!(
            "ALTER TABLE enough.q_r OWNER TO postgres; SELECT enough.queue_alter('r', archive_for => '1 s'); \
             INSERT INTO enough.a_r (msg_id, enqueued_at, attempts, priority, message, outcome, finished_at) \
             VALUES (100, now(), 1, 0, '1', 'done', '2000-01-01'); \
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{one}'; END $$; \
             CREATE TRIGGER refuse BEFORE DELETE ON enough.a_r FOR EACH ROW EXECUTE FUNCTION refuse()"
        ))?;
        let text: String =
            client.query_one("SELECT note FROM enough.maintain() WHERE task = 'queue_archive'", &[])?.get(0);
        ensure!(text.contains(one), "{text}");
        client.batch_execute(&format!("DROP OWNED BY \"{role}\", \"{second}\"; DROP ROLE \"{role}\", \"{second}\""))?;
        Ok(())
    })
}

/// Where the server checks nothing, bytes are what they are.
#[test]
fn bytes_without_an_encoding_stay_apart() -> Result<()> {
    let (_, mut client) = made("SQL_ASCII")?;
    // Neither is UTF-8.
    client.batch_execute(
        "SELECT enough.rate_limit_policy_set(chr(233), 3, '1 hour'), enough.rate_limit_policy_set(chr(232), 5, '1 hour'); \
         SELECT enough.rate_limit_by(chr(233), 'k'); SELECT enough.cache_set(chr(233), '1'); SELECT enough.queue_create('q')",
    )?;
    let row = client.query_one(
        "SELECT (enough.rate_limit_by(chr(233), 'k', 0)).remaining, (enough.rate_limit_by(chr(232), 'k', 0)).remaining, \
                enough.cache_exists(chr(233)), enough.cache_exists(chr(232)), \
                (SELECT string_agg(name::bytea::text, ' ' ORDER BY max_requests) FROM enough.rate_limit_policy)",
        &[],
    )?;
    ensure!((row.get::<_, i64>(0), row.get::<_, i64>(1)) == (2, 5), "{row:?}");
    ensure!(row.get::<_, bool>(2) && !row.get::<_, bool>(3));
    ensure!(row.get::<_, &str>(4) == "\\xe9 \\xe8", "{}", row.get::<_, &str>(4));
    let hint = refused(client.query("SELECT enough.queue_peek('q', state => chr(233))", &[]), "22023")?;
    ensure!(hint.contains("ready"), "{hint}");
    client.batch_execute("SELECT enough.queue_send('q', '1', group_key => chr(233), dedup_key => chr(232))")?;
    client.batch_execute("SELECT enough.queue_fail('q', 1, chr(233)) FROM enough.queue_read('q')")?;
    let text: String = client.query_one("SELECT error::bytea::text FROM enough.queue_status('q', 1)", &[])?.get(0);
    ensure!(text == "\\xe9", "{text}");
    client.batch_execute("DO $$ BEGIN EXECUTE 'CREATE ROLE ' || quote_ident('r' || chr(233)); END $$")?;
    client.batch_execute(
        "SELECT enough.queue_grant('q', oid::regrole, 'send') FROM pg_roles WHERE rolname = 'r' || chr(233)",
    )?;
    let may: bool = client
        .query_one(
            "SELECT has_table_privilege(oid, 'enough.q_q', 'INSERT') FROM pg_roles WHERE rolname = 'r' || chr(233)",
            &[],
        )?
        .get(0);
    ensure!(may);
    client.batch_execute(
        "DO $$ BEGIN EXECUTE 'DROP OWNED BY ' || quote_ident('r' || chr(233)); EXECUTE 'DROP ROLE ' || quote_ident('r' || chr(233)); END $$",
    )?;
    Ok(())
}

/// No text, whatever its bytes, is a mistake of the extension's own (XX000), neither as a key nor within a message.
#[test]
fn bytes_without_an_encoding_are_never_an_internal_error() -> Result<()> {
    let (_, mut client) = made("SQL_ASCII")?;
    client.batch_execute("SELECT enough.queue_create('q'); CREATE TABLE t (x text)")?;
    let odd = "chr(228)";
    let calls = [
        format!("queue_schedule('n', '* * * * *', 'q', '1', dedup_key => {odd})"),
        format!("queue_schedule('n', '* * * * *', 'q', '1', group_key => {odd})"),
        format!("queue_schedule('n', {odd}, 'q', '1')"),
        format!("queue_schedule({odd}, '* * * * *', 'q', '1')"),
        format!("queue_schedule('n', '* * * * *', {odd}, '1')"),
        format!("queue_schedule('n', '* * * * *', 'q', to_jsonb({odd}), headers => to_jsonb({odd}))"),
        format!("queue_unschedule({odd})"),
        format!("maintenance_schedule({odd})"),
        format!("queue_create({odd})"),
        format!("queue_rename('q', {odd})"),
        format!("queue_send({odd}, '1')"),
        format!("queue_send('q', to_jsonb({odd}), group_key => {odd}, dedup_key => {odd}, headers => to_jsonb({odd}))"),
        format!("queue_send_batch('q', ARRAY[to_jsonb({odd}), '2'], dedup_keys => ARRAY['a', {odd}])"),
        format!("queue_send('q', '1', group_key => repeat({odd}, 600))"),
        format!("queue_peek('q', state => {odd})"),
        format!("queue_fail_batch('q', '{{1,2}}', error => {odd})"),
        format!("queue_archive_batch('q', '{{1,2}}', results => ARRAY[to_jsonb({odd}), NULL])"),
        format!("queue_grant('q', current_user::text::regrole, {odd})"),
        format!("grant_to(current_user::text::regrole, {odd})"),
        format!("cache_set({odd}, to_jsonb({odd}), tags => ARRAY[{odd}])"),
        format!("cache_set('k', '1', mode => {odd})"),
        format!("cache_incr({odd})"),
        format!("cache_fetch({odd}, '1 hour', 'SELECT to_jsonb(chr(228))')"),
        format!("cache_fetch('k', '1 hour', 'SELECT ' || {odd})"),
        format!("cache_tag_table('t', {odd})"),
        format!("cache_tag_table('t', '{{' || {odd} || '}}')"),
        format!("rate_limit({odd}, 1, '1 hour', algorithm => {odd})"),
        format!("rate_limit_enforce({odd}, 0, '1 hour')"),
        format!("rate_limit_policy_set({odd}, 0, '1 hour')"),
        format!("rate_limit_policy_set('p', 1, NULL, calendar => {odd})"),
        format!("rate_limit_policy_set('p', 1, NULL, calendar => 'day', time_zone => {odd})"),
        format!("rate_limit_enforce_by({odd}, {odd})"),
        format!("rate_limit_headers_by({odd}, {odd})"),
        format!("rate_limit_stats({odd})"),
        format!("semaphore_acquire({odd})"),
        format!("semaphore_acquire(repeat({odd}, 600))"),
        format!("semaphore_holders({odd})"),
        format!("rate_limit_all(ARRAY[{odd}, repeat({odd}, 600)], ARRAY[1, 1], ARRAY['1 hour', '1 hour']::interval[])"),
    ];
    client.batch_execute("CREATE TABLE outcome (call text, state text)")?;
    for call in &calls {
        let quoted = call.replace('\'', "''");
        client.batch_execute(&format!(
            "DO $do$ BEGIN PERFORM enough.{call}; EXCEPTION WHEN OTHERS THEN \
             INSERT INTO outcome VALUES ('{quoted}', SQLSTATE); END $do$"
        ))?;
    }
    let wrong = client.query("SELECT call, state FROM outcome WHERE state LIKE 'XX%'", &[])?;
    ensure!(wrong.is_empty(), "{wrong:?}");
    let refused: i64 = client.query_one("SELECT count(*) FROM outcome", &[])?.get(0);
    ensure!(refused > 10, "only {refused} of these calls fail");
    Ok(())
}

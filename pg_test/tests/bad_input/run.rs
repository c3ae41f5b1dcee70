//! Trying them all.

use crate::arguments::Bad;
use crate::cases::{FUNCTIONS, Function, GOOD};
use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{healthy, refused, state};
use enough_pg_test::queue;
use enough_pg_test::server::{self, Database};
use postgres::Client;
use serde_json::json;
use std::collections::{BTreeSet, HashMap};

/// A server of its own, because what is compared is counted for all databases of one; with something of everything in it.
fn prepared() -> Result<(xtask::server::Server, Database, Client)> {
    let server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute(
        "SELECT enough.queue_create('q', visibility_timeout => '1 hour'); \
         SELECT enough.queue_send('q', '\"leased\"', priority => 9)",
    )?;
    ensure!(queue::read(&mut client, "q", 1)?.len() == 1);
    client.batch_execute(
        "SELECT enough.queue_send('q', '\"ready\"'), enough.queue_send('q', '\"delayed\"', delay => '1 hour'); \
         SELECT enough.cache_set('key', '\"value\"'), enough.cache_set('good', '1', ttl => '1 hour'), \
                enough.cache_set_bytes('bytes', '\\x00ff'); \
         SELECT enough.cache_set('negative', '-1', tags => ARRAY['tag']); \
         SELECT enough.rate_limit('key', 10, '1 hour', 3), enough.rate_limit_policy_set('strict', 10, '1 hour'), \
                enough.semaphore_acquire('held', ttl => '1 hour'); \
         SELECT enough.kv_create('kv'), enough.kv_set('good', '1', space => 'kv'); \
         CREATE TABLE good_table (a int); CREATE INDEX good_index ON good_table (a)",
    )?;
    Ok((server, database, client))
}

/// Everything that a refused call might have changed.
fn fingerprint(client: &mut Client) -> Result<String> {
    let row = client.query_one(
        "SELECT jsonb_pretty(jsonb_build_object( \
            'queues', (SELECT jsonb_agg(q ORDER BY q.name) FROM enough.queue AS q), \
            'messages', (SELECT jsonb_agg(m ORDER BY m.msg_id) FROM enough.q_q AS m), \
            'versions', (SELECT jsonb_agg(m.xmin::text || m.ctid::text ORDER BY m.msg_id) FROM enough.q_q AS m), \
            'archive', (SELECT jsonb_agg(a ORDER BY a.msg_id) FROM enough.a_q AS a), \
            'numbers', (SELECT jsonb_agg(last_value) FROM pg_sequences WHERE schemaname = 'enough'), \
            'relations', (SELECT jsonb_agg(relname ORDER BY relname) FROM pg_class \
                          WHERE relnamespace = 'enough'::regnamespace), \
            'policies', (SELECT jsonb_agg(p ORDER BY p.name, p.rule) FROM enough.rate_limit_policy AS p), \
            'overrides', (SELECT jsonb_agg(o) FROM enough.rate_limit_override AS o), \
            'triggers', (SELECT jsonb_agg(tgname) FROM pg_trigger), \
            'kv', (SELECT jsonb_agg(k ORDER BY k.key) FROM enough.kv_kv AS k), \
            'kv_default', (SELECT jsonb_agg(k ORDER BY k.key) FROM enough.kv_default AS k), \
            'stats', (SELECT jsonb_agg(to_jsonb(s) - 'oldest_ready' - 'oldest_lease' ORDER BY s.queue) FROM enough.queue_stats() AS s), \
            'cache', (SELECT to_jsonb(c) FROM enough.cache_stats() AS c), \
            'limiter', (SELECT jsonb_agg(l) FROM enough.rate_limit_stats() AS l), \
            'semaphores', (SELECT jsonb_agg(h) FROM enough.semaphore_holders() AS h), \
            'acquired', (SELECT to_jsonb(s) FROM enough.semaphore_stats() AS s), \
            'limit', (SELECT to_jsonb(p) - 'reset_after' FROM enough.rate_limit_peek('key', 10, '1 hour') AS p), \
            'resets', (SELECT jsonb_agg(value) FROM enough.status() WHERE item LIKE '%resets')))",
        &[],
    )?;
    Ok(row.get(0))
}

/// The lines in which two fingerprints differ. What kind of value an entry has is known only by a hit, so a call that is
/// refused for that counts as one.
fn difference(before: &str, after: &str, hits: bool) -> Option<String> {
    let lines = |text: &str| -> Vec<String> {
        let counted = text.lines().filter(|line| !(hits && line.contains("\"hits\"")));
        counted.map(|line| line.trim().to_owned()).collect()
    };
    let (before, after) = (lines(before), lines(after));
    let missing = |some: &[String], others: &[String]| -> Vec<String> {
        some.iter().filter(|line| !others.contains(line)).cloned().collect()
    };
    (before != after).then(|| format!("{:?} became {:?}", missing(&before, &after), missing(&after, &before)))
}

/// What the catalog has in the schema, by name and argument.
fn signatures(client: &mut Client) -> Result<BTreeSet<String>> {
    let rows = client.query(
        "SELECT proname || '(' || coalesce(array_to_string(proargnames[1:pronargs], ', '), '') || ')' FROM pg_proc \
         WHERE pronamespace = 'enough'::regnamespace AND prokind = 'f' AND proname NOT LIKE '\\_%'",
        &[],
    )?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

fn signature(function: &Function) -> String {
    let names: Vec<&str> = function.arguments.iter().map(|argument| argument.0).collect();
    format!("{}({})", function.name, names.join(", "))
}

/// The call with all good arguments, but for one.
pub(crate) fn call(function: &Function, bad: Option<(usize, &str)>) -> String {
    let arguments: Vec<String> = function
        .arguments
        .iter()
        .enumerate()
        .map(|(number, argument)| {
            let value = bad.filter(|(place, _)| *place == number).map_or(argument.1, |(_, value)| value);
            format!("\"{}\" => {value}", argument.0)
        })
        .collect();
    format!("{}({})", function.name, arguments.join(", "))
}

/// How many of each function's last arguments have a default, for which NULL stands.
fn defaults(client: &mut Client) -> Result<HashMap<String, usize>> {
    let rows = client.query(
        "SELECT proname::text, pronargdefaults::int FROM pg_proc WHERE pronamespace = 'enough'::regnamespace",
        &[],
    )?;
    Ok(rows.iter().map(|row| (row.get(0), row.get::<_, i32>(1) as usize)).collect())
}

/// The place of the first argument that has a default.
fn first_default(function: &Function, defaults: &HashMap<String, usize>) -> usize {
    function.arguments.len() - defaults.get(function.name).copied().unwrap_or(0)
}

/// All that is wrong with a function's arguments.
fn bad_calls(function: &Function, defaults: &HashMap<String, usize>) -> impl Iterator<Item = (String, Bad)> {
    let first_default = first_default(function, defaults);
    let by_argument = function.arguments.iter().enumerate().flat_map(move |(place, argument)| {
        let values = argument.2.iter().flat_map(|values| values.iter());
        let values = values.filter(move |bad| bad.0 != "NULL" || place < first_default);
        values.map(move |bad| (call(function, Some((place, bad.0))), *bad))
    });
    let whole = function.calls.iter().map(|bad| (format!("{}({})", function.name, bad.0), ("", bad.1)));
    by_argument.chain(whole)
}

/// Whether this version has the value at all.
fn exists(client: &mut Client, value: &str) -> bool {
    value.is_empty() || client.simple_query(&format!("SELECT {value}")).is_ok()
}

#[test]
fn every_function_refuses_what_makes_no_sense_and_changes_nothing() -> Result<()> {
    let (server, _database, mut client) = prepared()?;
    let defaults = defaults(&mut client)?;
    let expected: BTreeSet<String> = FUNCTIONS.iter().map(signature).collect();
    ensure!(
        signatures(&mut client)? == expected,
        "functions without cases, or cases without a function: {:?}",
        signatures(&mut client)?.symmetric_difference(&expected).collect::<Vec<_>>()
    );
    let mut tried = 0;
    let mut wrong = Vec::new();
    let mut before = fingerprint(&mut client)?;
    // Looking changes nothing either, or the comparison would be void.
    ensure!(fingerprint(&mut client)? == before, "the fingerprint changes by itself");
    for function in FUNCTIONS {
        for (call, (value, code)) in bad_calls(function, &defaults) {
            if !exists(&mut client, value) {
                continue;
            }
            tried += 1;
            if let Err(error) = refused(client.simple_query(&format!("SELECT * FROM enough.{call}")), code) {
                wrong.push(format!("{call}: {error:#}"));
            }
            let after = fingerprint(&mut client)?;
            if let Some(difference) = difference(&before, &after, value.is_empty()) {
                wrong.push(format!("{call} has changed something: {difference}"));
            }
            before = after;
        }
    }
    ensure!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong.join("\n"));
    ensure!(tried > 300, "only {tried} calls were tried");
    healthy(&server.log(), false)
}

#[test]
fn an_error_names_the_argument_and_says_what_to_do() -> Result<()> {
    let (_server, _database, mut client) = prepared()?;
    let defaults = defaults(&mut client)?;
    for function in FUNCTIONS {
        for (place, argument) in function.arguments.iter().enumerate().take(first_default(function, &defaults)) {
            let nulls = argument.2.iter().flat_map(|values| values.iter()).filter(|bad| bad.0 == "NULL");
            for (value, _) in nulls {
                let call = call(function, Some((place, value)));
                let error = client.simple_query(&format!("SELECT * FROM enough.{call}")).expect_err("NULL passes");
                let error = error.as_db_error().context("not the server's error")?;
                ensure!(error.message().contains(argument.0), "{call}: {}", error.message());
                ensure!(error.hint().is_some(), "{call} has no hint");
            }
        }
        for (call, (value, code)) in bad_calls(function, &defaults) {
            // 42809 is what the server says itself.
            if matches!(code, "22004" | "42809") || !exists(&mut client, value) {
                continue;
            }
            let error = client.simple_query(&format!("SELECT * FROM enough.{call}")).expect_err("a bad call passes");
            let error = error.as_db_error().context("not the server's error")?;
            ensure!(error.hint().is_some_and(|hint| !hint.is_empty()), "{call} has no hint: {error:?}");
        }
    }
    Ok(())
}

#[test]
fn good_arguments_are_taken() -> Result<()> {
    let (server, _database, mut client) = prepared()?;
    for function in FUNCTIONS {
        let call = call(function, None);
        client.batch_execute("BEGIN")?;
        let outcome = client.simple_query(&format!("SELECT * FROM enough.{call}"));
        let code = outcome.as_ref().err().map_or("", |error| state(error));
        ensure!(code == function.good, "{call}: {:?}", outcome.err());
        client.batch_execute("ROLLBACK")?;
    }
    for call in GOOD {
        client.batch_execute("BEGIN")?;
        // So that no wait is a long one.
        queue::send(&mut client, "q", &json!("for whoever waits"))?;
        client.batch_execute("COMMIT; BEGIN")?;
        client.simple_query(&format!("SELECT enough.{call}")).with_context(|| format!("in {call}"))?;
        client.batch_execute("ROLLBACK")?;
    }
    healthy(&server.log(), false)
}

#[test]
fn null_stands_for_the_default_of_every_argument_that_has_one() -> Result<()> {
    let (server, _database, mut client) = prepared()?;
    let defaults = defaults(&mut client)?;
    let mut tried = 0;
    for function in FUNCTIONS {
        for (place, argument) in function.arguments.iter().enumerate().skip(first_default(function, &defaults)) {
            let call = call(function, Some((place, "NULL")));
            client.batch_execute("BEGIN")?;
            let outcome = client.simple_query(&format!("SELECT * FROM enough.{call}"));
            let code = outcome.as_ref().err().map_or("", |error| state(error));
            ensure!(code == function.good, "{call}, {} is NULL: {:?}", argument.0, outcome.err());
            client.batch_execute("ROLLBACK")?;
            tried += 1;
        }
    }
    ensure!(tried > 80, "only {tried} arguments were tried");
    healthy(&server.log(), false)
}

#[test]
fn what_null_stands_for_is_what_the_declaration_says() -> Result<()> {
    let (_server, _database, mut client) = prepared()?;
    client.batch_execute(
        "SELECT enough.queue_create('left_out'), \
                enough.queue_create('nulls', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL); \
         SELECT enough.queue_send('left_out', '1'), \
                enough.queue_send('nulls', '1', NULL, NULL, NULL, NULL, NULL, NULL); \
         SELECT enough.queue_send_batch('left_out', '{1}'), \
                enough.queue_send_batch('nulls', '{1}', NULL, NULL, NULL, NULL, NULL, NULL)",
    )?;
    let same = |client: &mut Client, query: &str| -> Result<()> {
        let of = |client: &mut Client, queue: &str| -> Result<Vec<String>> {
            let rows = client.query(&query.replace("QUEUE", queue), &[])?;
            Ok(rows.iter().map(|row| row.get(0)).collect())
        };
        let (left_out, nulls) = (of(client, "left_out")?, of(client, "nulls")?);
        ensure!(!left_out.is_empty() && left_out == nulls, "{query}: {left_out:?}, {nulls:?}");
        Ok(())
    };
    same(
        &mut client,
        "SELECT (to_jsonb(l) - 'name' - 'created_at')::text FROM enough.queue_list() AS l WHERE name = 'QUEUE'",
    )?;
    same(&mut client, "SELECT (to_jsonb(m) - 'enqueued_at')::text FROM enough.\"q_QUEUE\" AS m ORDER BY msg_id")?;
    // How many are peeked, and read, and for how long.
    client.batch_execute("SELECT enough.queue_send_batch(q, array_fill('1'::jsonb, ARRAY[20])) FROM unnest('{left_out,nulls}'::text[]) AS q")?;
    for (left_out, nulls) in [
        ("enough.queue_peek('left_out')", "enough.queue_peek('nulls', NULL, NULL)"),
        ("enough.queue_read('left_out')", "enough.queue_read('nulls', NULL, NULL, NULL, NULL)"),
        ("enough.queue_pop('left_out')", "enough.queue_pop('nulls', NULL, NULL)"),
    ] {
        let columns = "m.msg_id, m.attempts, extract(epoch FROM m.leased_until - clock_timestamp())::int AS left";
        let of = |client: &mut Client, call: &str| -> Result<Vec<String>> {
            let rows = client
                .query(&format!("SELECT to_jsonb(r)::text FROM (SELECT {columns} FROM {call} AS m) AS r"), &[])?;
            Ok(rows.iter().map(|row| row.get(0)).collect())
        };
        let (expected, found) = (of(&mut client, left_out)?, of(&mut client, nulls)?);
        ensure!(!expected.is_empty() && expected == found, "{left_out} gives {expected:?}, {nulls} {found:?}");
    }
    Ok(())
}

#[test]
fn a_batch_of_nothing_answers_nothing() -> Result<()> {
    let (_server, _database, mut client) = prepared()?;
    let before = fingerprint(&mut client)?;
    for call in [
        "queue_send_batch('q', '{}')",
        "queue_send_batch('q', '{}', group_keys => '{}', dedup_keys => '{}', headers => '{}')",
        "queue_delete_batch('q', '{}')",
        "queue_delete_batch('q', (SELECT array_agg(msg_id) FROM enough.queue_peek('q') WHERE false))",
        "queue_send_batch('q', NULL)",
        "queue_delete_batch('q', NULL, NULL)",
        "queue_archive_batch('q', NULL)",
        "queue_extend_batch('q', NULL)",
        "queue_fail_batch('q', NULL)",
        "queue_release_batch('q', NULL)",
        "cache_mget(NULL)",
        "cache_mget_bytes(NULL)",
        "queue_delete_batch('q', '{}', '{}')",
        "queue_archive_batch('q', '{}')",
        "queue_archive_batch('q', '{}', '{}', '{}')",
        "queue_extend_batch('q', '{}')",
        "queue_fail_batch('q', '{}')",
        "queue_release_batch('q', '{}')",
        "queue_read_these('q', '{}')",
        "queue_read_these('q', NULL)",
        "queue_reschedule('q', '{}', now())",
        "queue_reschedule('q', NULL, now())",
        "cache_mget('{}')",
    ] {
        ensure!(client.query(&format!("SELECT * FROM enough.{call}"), &[])?.is_empty(), "{call} answers something");
    }
    for call in ["queue_redrive('q', '{}')", "cache_mdelete('{}')", "cache_mdelete(NULL)", "cache_mset('{}')"] {
        let answer: i64 = client.query_one(&format!("SELECT enough.{call}::bigint"), &[])?.get(0);
        ensure!(answer == 0, "{call} answers {answer}");
    }
    ensure!(
        difference(&before, &fingerprint(&mut client)?, true).is_none(),
        "a batch of nothing has changed something"
    );
    Ok(())
}

#[test]
fn a_bad_call_in_a_transaction_leaves_the_rest_of_it() -> Result<()> {
    let (_server, database, mut client) = prepared()?;
    let defaults = defaults(&mut client)?;
    let before = fingerprint(&mut client)?;
    let mut transaction = client.transaction()?;
    for function in FUNCTIONS {
        for (call, (value, _)) in bad_calls(function, &defaults) {
            // Evaluated where an error is expected in any case.
            let mut savepoint = transaction.savepoint("s")?;
            let outcome = savepoint.simple_query(&format!("SELECT * FROM enough.{call}"));
            ensure!(outcome.is_err(), "{call} ({value}) passes");
            savepoint.rollback()?;
        }
    }
    let sent = queue::send(&mut transaction, "q", &json!("after all of them"))?;
    transaction.execute("SELECT enough.cache_set('after', '1')", &[])?;
    transaction.commit()?;
    let mut other = database.client()?;
    ensure!(
        other.query_one("SELECT enough.cache_get('after')", &[])?.get::<_, Option<serde_json::Value>>(0)
            == Some(json!(1))
    );
    ensure!(queue::delete(&mut other, "q", sent, None)?);
    other.batch_execute("SELECT enough.cache_delete('after')")?;
    let after = fingerprint(&mut client)?;
    let counts = |text: &str| text.lines().filter(|line| line.contains("\"message\"")).count();
    ensure!(counts(&before) == counts(&after), "before: {before}\nafter: {after}");
    Ok(())
}

/// Of an array the message names the element, by its index; what is too long or too many is said with its unit.
#[test]
fn the_element_that_is_wrong_is_named() -> Result<()> {
    let (_server, _database, mut client) = prepared()?;
    let long = "repeat('x', 600)";
    for (call, message) in [
        (
            format!("queue_send('q', '1', group_key => {long})"),
            "the group key is too large: 600 bytes, where at most 512 are allowed",
        ),
        (
            format!("queue_send_batch('q', '{{1,2}}', dedup_keys => ARRAY[NULL, {long}])"),
            "dedup_keys[2] is too large: 600 bytes, where at most 512 are allowed",
        ),
        (
            format!("queue_send_batch('q', '{{1,2}}', group_keys => ARRAY[{long}, NULL])"),
            "group_keys[1] is too large: 600 bytes, where at most 512 are allowed",
        ),
        (
            "queue_send_batch('q', '{1,2}', priorities => '{0,10}')".to_owned(),
            "invalid value for argument \"priorities[2]\": 10",
        ),
        (
            "queue_send_batch('q', '{1,2}', delays => '{0,-1 s}')".to_owned(),
            "invalid value for argument \"delays[2]\": -1 s",
        ),
        (
            "queue_send_batch('q', '{1,2}', delays => '{0,1 s}', deliver_at => now())".to_owned(),
            "invalid value for argument \"deliver_at\": given together with a delay",
        ),
        (
            format!("cache_mget(ARRAY['a', 'b', {long}])"),
            "keys[3] is too large: 600 bytes, where at most 512 are allowed",
        ),
        (
            format!("cache_set('k', '1', tags => ARRAY['a', {long}])"),
            "tags[2] is too large: 600 bytes, where at most 128 are allowed",
        ),
        (
            format!("rate_limit_all(ARRAY['a', {long}], ARRAY[1, 1], ARRAY['1 s', '1 s']::interval[])"),
            "keys[2] is too large: 600 bytes, where at most 512 are allowed",
        ),
        (
            "rate_limit_all(ARRAY['a', 'b'], ARRAY[1], ARRAY['1 s', '1 s']::interval[])".to_owned(),
            "invalid value for argument \"max_requests\": an array of 1 element",
        ),
        (
            "cache_mset_bytes(ARRAY['a', 'b'], '{}')".to_owned(),
            "invalid value for argument \"values\": an array of 0 elements",
        ),
        (
            "queue_delete_batch('q', '{1}', '{1,2}')".to_owned(),
            "invalid value for argument \"leases\": an array of 2 elements",
        ),
        ("queue_delete_batch('q', '{1,NULL}')".to_owned(), "argument \"msg_ids[2]\" must not be NULL"),
    ] {
        let error = client.query(&format!("SELECT * FROM enough.{call}"), &[]).err().context(call.clone())?;
        let found = error.as_db_error().context("not the server's")?.message().to_owned();
        ensure!(found == message, "{call}: {found}");
    }
    Ok(())
}

//! `ops/plproxy/enough.sql` on a proxy and two partitions: three databases, whose caches, limits and queues are their own.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{eventually, refused, state};
use enough_pg_test::markdown::{blocks, sections};
use enough_pg_test::server::{Database, shared};
use postgres::Client;
use std::fs;
use xtask::scale::plproxy;

#[test]
fn the_script_is_what_the_catalog_says() -> Result<()> {
    let told = plproxy::render(&mut Database::new()?.client()?)?;
    let written = fs::read_to_string(plproxy::file())?;
    ensure!(told == written, "{} is not up to date: run `cargo xtask reference`", plproxy::file().display());
    Ok(())
}

/// How the page sets up a proxy.
fn setup() -> Result<String> {
    let page = fs::read_to_string(xtask::paths::workspace().join("docs/scaling.md"))?;
    let (_, section) =
        sections(&page).into_iter().find(|(title, _)| title.contains("PL/Proxy")).context("no section")?;
    let block = blocks(section).into_iter().find(|(language, _)| *language == "sql").context("no block")?;
    Ok(block.1)
}

/// A session at the proxy, and one at each partition.
struct Cluster {
    database: Database,
    proxy: Client,
    partitions: [Client; 2],
    /// A key of each.
    keys: [String; 2],
}

impl Cluster {
    /// `None` where there is no `PL/Proxy`: it is tested with PostgreSQL 15.
    fn start() -> Result<Option<Self>> {
        let server = shared()?;
        let database = Database::empty(&server)?;
        let mut proxy = database.client()?;
        let there = "SELECT FROM pg_available_extensions WHERE name = 'plproxy'";
        if proxy.query_opt(there, &[])?.is_none() {
            let version: i32 =
                proxy.query_one("SELECT current_setting('server_version_num')::int / 10000", &[])?.get(0);
            ensure!(version != 15, "plproxy isn't there: `cargo xtask install` installs it with the tests' packages");
            eprintln!("left out: PL/Proxy is tested with PostgreSQL 15");
            return Ok(None);
        }
        let partitions = [Database::on(&server)?, Database::on(&server)?];
        let mut setup = setup()?;
        for (partition, host) in partitions.iter().zip(["a.example", "b.example"]) {
            let place = format!("host={host} dbname=app");
            ensure!(setup.contains(&place), "the page has no {place}");
            let there = format!("host=127.0.0.1 port={} dbname={}", server.port(), partition.name);
            setup = setup.replace(&place, &there);
        }
        setup = setup.replace("user 'app', password 'secret'", "user 'postgres'");
        let script = fs::read_to_string(plproxy::file())?;
        let script: Vec<&str> = script.lines().filter(|line| !line.starts_with('\\')).collect();
        proxy.batch_execute(&setup)?;
        proxy.batch_execute(&script.join("\n"))?;
        let mut key = |partition: i32| -> Result<String> {
            let sql = "SELECT 'k' || n FROM generate_series(1, 100) n WHERE hashtext('k' || n) & 1 = $1 LIMIT 1";
            Ok(proxy.query_one(sql, &[&partition])?.get(0))
        };
        let keys = [key(0)?, key(1)?];
        Ok(Some(Self { database, proxy, partitions: [partitions[0].client()?, partitions[1].client()?], keys }))
    }

    /// What a query at the proxy returns, as text; NULL is a text, too.
    fn ask(&mut self, sql: &str) -> Result<String> {
        one(&mut self.proxy, sql)
    }

    /// What the same query returns at each partition.
    fn ask_each(&mut self, sql: &str) -> Result<[String; 2]> {
        let [first, second] = &mut self.partitions;
        Ok([one(first, sql)?, one(second, sql)?])
    }
}

fn one(client: &mut Client, sql: &str) -> Result<String> {
    let row =
        client.query_one(&format!("SELECT coalesce(({sql})::text, 'NULL')"), &[]).with_context(|| sql.to_owned())?;
    Ok(row.get(0))
}

#[test]
fn a_key_is_cached_on_its_partition_alone() -> Result<()> {
    let Some(mut cluster) = Cluster::start()? else { return Ok(()) };
    for at in 0..2 {
        let key = cluster.keys[at].clone();
        ensure!(cluster.ask(&format!("enough.cache_set('{key}', '1', tags => '{{t}}')"))? == "true");
        ensure!(cluster.ask(&format!("enough.cache_incr('{key}')"))? == "2");
        let found = cluster.ask_each(&format!("enough.cache_get('{key}')"))?;
        ensure!(found[at] == "2" && found[1 - at] == "NULL", "{key}: {found:?}");
    }
    // Of many keys, each partition is asked for its own.
    let [first, second] = cluster.keys.clone();
    let all = format!("ARRAY['{first}', 'none', '{second}']");
    let rows = format!(
        "SELECT string_agg(key || '=' || coalesce(value::text, '-'), ' ' ORDER BY key = 'none', key) FROM enough.cache_mget({all})"
    );
    let mut both = [format!("{first}=2"), format!("{second}=2")];
    both.sort();
    ensure!(cluster.ask(&rows)? == format!("{} none=-", both.join(" ")), "{:?}", cluster.ask(&rows)?);
    ensure!(cluster.ask("SELECT count(*) FROM enough.cache_mget(NULL)")? == "0");
    // What a tag has is on all of them, and so is everything.
    cluster.ask("enough.cache_invalidate('t')")?;
    ensure!(cluster.ask(&rows)? == (format!("{}=- {}=- none=-", both[0].replace("=2", ""), both[1].replace("=2", ""))));
    let written =
        format!("enough.cache_mset_bytes(ARRAY['{first}', '{second}'], ARRAY['a', 'b']::bytea[], tags => '{{t,u}}')");
    ensure!(cluster.ask(&written)? == "2");
    ensure!(cluster.ask(&format!("enough.cache_get_bytes('{second}')"))? == "\\x62");
    ensure!(cluster.ask(&format!("enough.cache_mdelete({all})"))? == "2");
    ensure!(cluster.ask("enough.cache_mdelete(NULL)")? == "0");
    ensure!(cluster.ask(&written)? == "2");
    cluster.ask("enough.cache_clear()")?;
    ensure!(cluster.ask(&format!("SELECT count(value) FROM enough.cache_mget_bytes({all})"))? == "0");
    // A row a partition.
    ensure!(cluster.ask("SELECT count(*) FROM enough.cache_stats()")? == "2");
    Ok(())
}

#[test]
fn a_limit_is_counted_once_whatever_session_asks() -> Result<()> {
    let Some(mut cluster) = Cluster::start()? else { return Ok(()) };
    let mut other = cluster.database.client()?;
    for at in 0..2 {
        let key = cluster.keys[at].clone();
        let check = format!("SELECT allowed FROM enough.rate_limit('{key}', 2, '1 hour')");
        ensure!(cluster.ask(&check)? == "true" && one(&mut other, &check)? == "true");
        ensure!(cluster.ask(&check)? == "false" && one(&mut other, &check)? == "false");
        let left = cluster.ask_each(&format!("SELECT remaining FROM enough.rate_limit_peek('{key}', 2, '1 hour')"))?;
        ensure!(left[at] == "0" && left[1 - at] == "2", "{left:?}");
        // A policy's key is its second argument; the policy is everywhere.
        cluster.ask("enough.rate_limit_policy_set('p', 1, '1 hour')")?;
        let check = format!("SELECT allowed FROM enough.rate_limit_by('p', '{key}')");
        ensure!(cluster.ask(&check)? == "true" && cluster.ask(&check)? == "false");
    }
    ensure!(cluster.ask("SELECT count(*) FROM enough.rate_limit_policies()")? == "1");
    ensure!(cluster.ask("enough.rate_limit_policy_override_drop('p', 'k')")? == "false");
    ensure!(cluster.ask("enough.rate_limit_policy_drop('p')")? == "true");
    // Both sessions' counts survive a rollback, as without a proxy.
    let key = &cluster.keys[0];
    cluster.proxy.batch_execute(&format!("BEGIN; SELECT enough.rate_limit('{key}x', 1, '1 hour'); ROLLBACK"))?;
    ensure!(
        cluster.ask(&format!("SELECT allowed FROM enough.rate_limit('{}x', 1, '1 hour')", cluster.keys[0].clone()))?
            == "false"
    );
    Ok(())
}

#[test]
fn a_queue_is_on_one_partition_and_each_call_is_committed() -> Result<()> {
    let Some(mut cluster) = Cluster::start()? else { return Ok(()) };
    for at in 0..2 {
        let queue = cluster.keys[at].clone();
        cluster.ask(&format!("enough.queue_create('{queue}')"))?;
        // The proxy's transaction has no say.
        cluster
            .proxy
            .batch_execute(&format!("BEGIN; SELECT enough.queue_send('{queue}', '{{\"n\": 1}}'); ROLLBACK"))?;
        let there = cluster.ask_each("SELECT string_agg(name, ' ') FROM enough.queue_list()")?;
        ensure!(there[at] == queue, "{there:?}");
        let read = cluster
            .proxy
            .query_one(&format!("SELECT msg_id, lease, message->>'n' FROM enough.queue_read('{queue}')"), &[])?;
        let (msg_id, lease, n): (i64, i64, &str) = (read.get(0), read.get(1), read.get(2));
        ensure!(n == "1");
        ensure!(cluster.ask(&format!("enough.queue_delete('{queue}', {msg_id}, {lease})"))? == "true");
        ensure!(cluster.ask(&format!("SELECT ready FROM enough.queue_stats('{queue}')"))? == "0");
        if at == 1 {
            ensure!(cluster.ask("SELECT count(*) FROM enough.queue_list()")? == "2");
            ensure!(cluster.ask("SELECT count(*) FROM enough.queue_stats()")? == "2");
        }
    }
    cluster.ask("SELECT count(*) FROM enough.maintain()")?;
    Ok(())
}

#[test]
fn errors_keep_their_sqlstate() -> Result<()> {
    let Some(mut cluster) = Cluster::start()? else { return Ok(()) };
    let key = cluster.keys[1].clone();
    for (call, expected) in [
        ("cache_get(NULL)".to_owned(), "22004"),
        (format!("cache_get(repeat('{key}', 500))"), "54000"),
        (format!("cache_set('{key}', '1', '-1 second')"), "22023"),
        (format!("rate_limit('{key}', -1, '1 hour')"), "22023"),
        (format!("rate_limit_enforce('{key}', 0, '1 hour')"), "PT429"),
        (format!("rate_limit_by('none', '{key}')"), "42704"),
        (format!("queue_send('{key}_none', '1')"), "42704"),
        ("queue_stats('none')".to_owned(), "42704"),
        ("cache_delete_prefix('k')".to_owned(), "55000"),
        ("cache_mget(ARRAY['a', NULL])".to_owned(), "22004"),
        ("cache_mdelete(ARRAY['a', NULL])".to_owned(), "22004"),
    ] {
        let error =
            cluster.proxy.query(&format!("SELECT * FROM enough.{call}"), &[]).err().with_context(|| call.clone())?;
        ensure!(state(&error) == expected, "{call}: {} {error:?}", state(&error));
    }
    Ok(())
}

#[test]
fn who_may_not_call_it_on_a_partition_may_not_at_the_proxy() -> Result<()> {
    let Some(mut cluster) = Cluster::start()? else { return Ok(()) };
    let role = cluster.database.role("app");
    cluster.proxy.batch_execute(&format!("CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA enough TO {role}; GRANT USAGE ON FOREIGN SERVER enough TO {role}"))?;
    let mut app = cluster.database.client_as(&role)?;
    app.batch_execute("SELECT enough.cache_get('k')")?;
    for call in ["cache_clear()", "_each_cache_clear()", "cache_stats()", "rate_limit_reset('k')"] {
        refused(app.query(&format!("SELECT * FROM enough.{call}"), &[]), "42501").with_context(|| call.to_owned())?;
    }
    Ok(())
}

#[test]
fn a_wait_that_is_cancelled_at_the_proxy_takes_no_message() -> Result<()> {
    let Some(mut cluster) = Cluster::start()? else { return Ok(()) };
    let queue = cluster.keys[1].clone();
    cluster.ask(&format!("enough.queue_create('{queue}')"))?;
    let mut waiting = cluster.database.client()?;
    waiting.batch_execute("SET statement_timeout = '500ms'")?;
    let wait = format!("SELECT * FROM enough.queue_read('{queue}', wait => '1 minute')");
    refused(waiting.query(&wait, &[]), "57014")?;
    let idle = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%queue_read%wait%' AND state = 'active' \
                AND datname = current_database() AND pid <> pg_backend_pid()";
    eventually("nobody waits at the partition", || Ok((one(&mut cluster.partitions[1], idle)? == "0").then_some(())))?;
    cluster.ask(&format!("enough.queue_send('{queue}', '1')"))?;
    ensure!(cluster.ask(&format!("SELECT ready FROM enough.queue_stats('{queue}')"))? == "1");
    waiting.batch_execute("SET statement_timeout = 0")?;
    ensure!(one(&mut waiting, &format!("SELECT count(*) FROM enough.queue_read('{queue}')"))? == "1");
    Ok(())
}

#[test]
fn a_session_goes_on_after_an_error_and_after_a_partition_was_lost() -> Result<()> {
    let Some(mut cluster) = Cluster::start()? else { return Ok(()) };
    let key = cluster.keys[1].clone();
    cluster.ask(&format!("enough.cache_set('{key}', '1')"))?;
    // An error that a block has caught.
    cluster.proxy.batch_execute(
        "DO $$ BEGIN PERFORM enough.cache_get(NULL); EXCEPTION WHEN null_value_not_allowed THEN NULL; END $$",
    )?;
    ensure!(cluster.ask(&format!("enough.cache_get('{key}')"))? == "1");
    // The partition ends the proxy's connections, as its restart does.
    let ended = "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity \
                 WHERE datname = current_database() AND pid <> pg_backend_pid()";
    ensure!(one(&mut cluster.partitions[1], ended)? == "1");
    let get = format!("SELECT enough.cache_get('{key}')::text");
    eventually("the proxy connects again", || {
        Ok(cluster.proxy.query_one(&get, &[]).ok().filter(|row| row.get::<_, &str>(0) == "1").map(drop))
    })?;
    Ok(())
}

#[test]
fn any_text_is_a_key() -> Result<()> {
    let Some(mut cluster) = Cluster::start()? else { return Ok(()) };
    for key in ["", "'", "\\", "$1", "a,b{}\"", "é\u{1f600}", "NULL"] {
        let set = "SELECT enough.cache_set($1, to_jsonb($1::text))";
        ensure!(cluster.proxy.query_one(set, &[&key])?.get::<_, bool>(0), "{key:?}");
        let row = cluster.proxy.query_one("SELECT key, value #>> '{}' FROM enough.cache_mget(ARRAY[$1])", &[&key])?;
        ensure!(row.get::<_, &str>(0) == key && row.get::<_, &str>(1) == key, "{key:?}");
    }
    Ok(())
}

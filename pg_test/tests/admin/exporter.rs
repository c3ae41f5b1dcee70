//! The files in `ops/`: every query of the exporter is run as a role that has `pg_monitor` alone, and by the exporter itself where
//! that is on this machine; alerts name what it has, and their own tests are run.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::eventually;
use enough_pg_test::server::{self, Database};
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const FILE: &str = include_str!("../../../ops/sql_exporter/pg_enough.yml");
const PROGRAM: &str = "/usr/bin/prometheus-sql-exporter";

/// A query of the file.
#[derive(Debug)]
struct Query {
    name: String,
    /// Its columns, labels before values.
    labels: Vec<String>,
    values: Vec<String>,
    sql: String,
}

/// The file's queries, by the few lines of YAML that it consists of.
fn queries() -> Result<Vec<Query>> {
    let parts = FILE.split("\n  - name: ").skip(1);
    let queries: Vec<Query> = parts
        .map(|part| {
            let list = |key: &str| -> Vec<String> {
                let line = part.lines().find_map(|line| line.trim().strip_prefix(key)).unwrap_or_default();
                let names = line.trim_matches([' ', '[', ']']).split(", ");
                names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
            };
            let (_, sql) = part.split_once("query: |\n").context("no query")?;
            let name = part.lines().next().unwrap_or_default().to_owned();
            Ok(Query { name, labels: list("labels: "), values: list("values: "), sql: sql.to_owned() })
        })
        .collect::<Result<_>>()?;
    ensure!(queries.len() == FILE.matches("query: |").count() && queries.len() == 6, "{queries:?}");
    Ok(queries)
}

/// A database of a server of its own with something of everything, and without: no policy, no delivery; and the role.
fn watched() -> Result<(xtask::server::Server, Database)> {
    let server = server::start(&server::options()?.conf("enough.warn_unread_after", "1ms"))?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute(
        "CREATE ROLE exporter LOGIN IN ROLE pg_monitor; SELECT enough.queue_create('used'), enough.queue_create('unread'), \
         enough.queue_create('empty'), enough.rate_limit_policy_set('p', 1, '1 hour'), enough.cache_set('k', '1'), \
         enough.semaphore_acquire('s')",
    )?;
    client.batch_execute(
        "SELECT enough.queue_send('used', '1') FROM generate_series(1, 3); SELECT enough.queue_send('unread', '1')",
    )?;
    client.batch_execute("SELECT enough.queue_pop('used')")?;
    client.batch_execute("SELECT enough.queue_read('used')")?;
    client.batch_execute("SELECT enough.rate_limit_by('p', 'k')")?;
    Ok((server, database))
}

#[test]
fn every_query_gives_numbers_to_a_monitor() -> Result<()> {
    let (_server, database) = watched()?;
    let mut exporter = database.client_as("exporter")?;
    for Query { name, labels, values, sql } in queries()? {
        let rows = exporter.query(&sql, &[]).with_context(|| name.clone())?;
        ensure!(!rows.is_empty(), "{name} gives nothing");
        let mut keys = BTreeSet::new();
        for row in &rows {
            let columns: Vec<&str> = row.columns().iter().map(postgres::Column::name).collect();
            ensure!(columns == [labels.clone(), values.clone()].concat(), "{name}: {columns:?}");
            let key: Vec<Option<String>> = labels.iter().map(|label| row.get(label.as_str())).collect();
            ensure!(key.iter().all(Option::is_some) && keys.insert(key.clone()), "{name}: {key:?} is no key");
            for value in &values {
                ensure!(row.try_get::<_, f64>(value.as_str()).is_ok(), "{name}: {value} of {key:?} is no number");
            }
        }
    }
    Ok(())
}

/// The exporter, until this is dropped.
struct Exporter(Child);

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn scrape(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// What the exporter gives of a server with something of everything, once every value is there; `None` where there is no exporter
/// on this machine.
pub(super) fn scraped() -> Result<Option<String>> {
    if !Path::new(PROGRAM).exists() {
        eprintln!("skipped: there is no {PROGRAM}");
        return Ok(None);
    }
    let (server, database) = watched()?;
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("pg_enough.yml");
    let url = format!(
        "postgres://exporter@/{}?host={}&port={}&sslmode=disable",
        database.name,
        server.socket_dir().display(),
        server.port()
    );
    let text = FILE.replace("postgres://exporter@localhost:5432/app?sslmode=prefer", &url);
    ensure!(text != FILE, "no connection to replace");
    std::fs::write(&config, text.replace("interval: 15s", "interval: 1s"))?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut command = Command::new(PROGRAM);
    command.arg("-config.file").arg(&config).arg("-web.listen-address").arg(format!("127.0.0.1:{port}"));
    let _exporter = Exporter(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    let wanted: Vec<(String, String)> = queries()?
        .into_iter()
        .flat_map(|query| query.values.into_iter().map(move |value| (query.name.clone(), value)))
        .collect();
    let mut last = String::new();
    let complete = eventually("every value is in the scrape", || {
        last = scrape(port).unwrap_or_default();
        let there = |(name, value): &(String, String)| {
            last.lines()
                .any(|line| line.starts_with(&format!("sql_{name}{{")) && line.contains(&format!("col=\"{value}\"")))
        };
        Ok(wanted.iter().all(there).then_some(()))
    });
    complete.with_context(|| last.clone())?;
    Ok(Some(last))
}

#[test]
fn the_exporter_scrapes_every_value() -> Result<()> {
    let Some(scrape) = scraped()? else { return Ok(()) };
    let unread = |line: &&str| line.contains("warning=\"queue_without_consumers\"") && line.ends_with(" 1");
    ensure!(scrape.lines().any(|line| unread(&line)), "{scrape}");
    Ok(())
}

const ALERTS: &str = include_str!("../../../ops/prometheus/alerts.yml");
const ALERT_TESTS: &str = include_str!("../../../ops/prometheus/alerts_test.yml");

/// The metrics that a text names, each with what is selected of its column or kind.
pub(super) fn selected(text: &str) -> Vec<(String, Option<String>)> {
    let metrics = text.split("sql_").skip(1);
    metrics
        .map(|rest| {
            let end = rest.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            let selector =
                rest[end..].strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |found| found.0);
            let one = ["col=\"", "kind=\""].iter().find_map(|label| selector.split_once(label)?.1.split('"').next());
            (rest[..end].to_owned(), one.map(str::to_owned))
        })
        .collect()
}

/// Fails unless the exporter has those metrics, with those columns or kinds.
pub(super) fn are_exported(selected: Vec<(String, Option<String>)>) -> Result<()> {
    let queries = queries()?;
    for (metric, one) in selected {
        let query =
            queries.iter().find(|query| query.name == metric).with_context(|| format!("there is no {metric}"))?;
        let known = |one: &String| query.values.contains(one) || query.sql.contains(&format!("'{one}'"));
        ensure!(one.as_ref().is_none_or(known), "{metric} has no {one:?}");
    }
    Ok(())
}

#[test]
fn alerts_name_what_the_exporter_has_and_each_is_tested() -> Result<()> {
    let expressions: String = ALERTS.lines().filter(|line| line.trim().starts_with("expr: ")).collect();
    let selected = selected(&expressions);
    ensure!(selected.len() >= 5, "{selected:?}");
    are_exported(selected)?;
    for alert in ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let tests = ALERT_TESTS.split("- alertname: ").filter(|test| test.lines().next() == Some(alert));
        let (quiet, raised): (Vec<&str>, Vec<&str>) = tests.partition(|test| test.contains("exp_alerts: []"));
        ensure!(
            !quiet.is_empty() && !raised.is_empty(),
            "{alert} has no test in which it is raised, or none in which it isn't"
        );
    }
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]] {
        promtool(arguments, &xtask::paths::workspace().join("ops/prometheus"))?;
    }
    Ok(())
}

/// Runs `promtool` in a directory, where it is on this machine; an error that has what it says where it fails.
pub(super) fn promtool(arguments: [&str; 3], dir: &Path) -> Result<()> {
    const PROGRAM: &str = "/usr/bin/promtool";
    if !Path::new(PROGRAM).exists() {
        eprintln!("skipped: there is no {PROGRAM}");
        return Ok(());
    }
    let output = Command::new(PROGRAM).args(arguments).current_dir(dir).output()?;
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    ensure!(output.status.success(), "{said}");
    Ok(())
}

//! Every block of the pages on drivers is run, section by section, and prints what the page shows.

use crate::program::Language;
use crate::trial;
use anyhow::{Context, Result, ensure};
use enough_pg_test::markdown::{blocks, compare, examples, sections};
use enough_pg_test::pgbouncer::{self, PREPARES_SINCE, Pooler, TRANSACTION_MODE};
use enough_pg_test::server::{Database, shared};
use libtest_mimic::Trial;
use std::fs;
use std::path::PathBuf;
use xtask::provision::drivers::Drivers;

/// The pages, by their path below `docs`, and the language of each.
const PAGES: [(&str, Language); 5] = [
    ("drivers.md", Language::Sql),
    ("drivers/python.md", Language::Python),
    ("drivers/node.md", Language::Node),
    ("drivers/java.md", Language::Java),
    ("drivers/rust.md", Language::Rust),
];

fn root() -> PathBuf {
    xtask::paths::workspace()
}

fn read(page: &str) -> Result<String> {
    fs::read_to_string(root().join("docs").join(page)).with_context(|| format!("can't read docs/{page}"))
}

pub(crate) fn trials(found: &Drivers) -> Result<Vec<Trial>> {
    let mut trials = vec![trial("docs::no_block_is_left_out", None, no_block_is_left_out)];
    let no_pooler = (!pgbouncer::is_there(&*shared()?)).then_some("pgbouncer");
    trials.push(trial("docs::the_pooler_takes_its_configuration", no_pooler, the_pooler_takes_its_configuration));
    for (page, language) in PAGES {
        for (title, section) in sections(&read(page)?) {
            let examples = examples(section, language.tag());
            if examples.is_empty() {
                continue;
            }
            let (found, title) = (found.clone(), title.to_owned());
            let missing = language.missing(&found).or(no_pooler);
            trials.push(trial(&format!("docs::{page}::{title}"), missing, move || {
                let database = Database::new()?;
                let dir = tempfile::tempdir()?;
                let pooler = {
                    let server = shared()?;
                    let databases = pgbouncer::database(&database.name, &server, &database.name, "pool_size=2");
                    Pooler::start(&server, &databases, TRANSACTION_MODE)?
                };
                let printed = language.run(&found, dir.path(), &title, &examples, &database.name, &pooler)?;
                compare(&examples, &printed).map_err(anyhow::Error::msg)
            }));
        }
    }
    Ok(trials)
}

/// Each block is either in the page's language, shown output, or of a kind that another test here looks at; and no page
/// is left out.
fn no_block_is_left_out() -> Result<()> {
    for file in fs::read_dir(root().join("docs/drivers"))? {
        let name = format!("drivers/{}", file?.file_name().to_string_lossy());
        ensure!(PAGES.iter().any(|(page, _)| *page == name), "docs/{name} isn't run");
    }
    let tests = root().join("pg_test");
    let wanted = fs::read_to_string(tests.join("tests/drivers/requirements.txt"))?
        + &fs::read_to_string(tests.join("tests/drivers/package.json"))?;
    let manifests = fs::read_to_string(tests.join("Cargo.toml"))?;
    for (page, language) in PAGES {
        let text = read(page)?;
        let within: usize = sections(&text).iter().map(|(_, section)| blocks(section).len()).sum();
        ensure!(within == blocks(&text).len(), "docs/{page} has blocks before its first section");
        for (tag, code) in blocks(&text) {
            match tag {
                "text" => {}
                // The configuration of pgbouncer, which `the_pooler_takes_its_configuration` reads.
                "ini" if page == "drivers.md" => {}
                // What is installed is what the tests install.
                "sh" => {
                    let (_, packages) = code.split_once(" install ").context("sh is for installing")?;
                    for package in packages.split_whitespace().map(|word| word.trim_matches('\'')) {
                        ensure!(wanted.contains(package), "docs/{page} installs {package}, which the tests don't");
                    }
                }
                "toml" => ensure!(manifests.contains(code.trim()), "docs/{page} depends on {code}, the tests don't"),
                tag => ensure!(tag == language.tag(), "docs/{page} has a block of {tag:?}, which nothing runs"),
            }
        }
    }
    Ok(())
}

/// The configuration that the page shows, with only the addresses changed, starts a pooler; a read that waits in the pool
/// that is for it leaves the others free.
fn the_pooler_takes_its_configuration() -> Result<()> {
    let page = read("drivers.md")?;
    let (_, ini) = blocks(&page).into_iter().find(|(tag, _)| *tag == "ini").context("the page has no configuration")?;
    let (databases, settings) = ini.split_once("[pgbouncer]").context("no section [pgbouncer]")?;
    let database = Database::new()?;
    database.client()?.batch_execute("SELECT enough.queue_create('orders')")?;
    let server = shared()?;
    let databases = databases.replace("[databases]", "");
    let databases = databases.replace("port=5432", &format!("port={}", server.port()));
    let databases = databases.replace("dbname=app", &format!("dbname={}", database.name));
    let newer =
        settings.lines().filter(|line| !line.starts_with("max_prepared_statements")).collect::<Vec<_>>().join("\n");
    let mut pooler = Pooler::start(&server, &databases, &newer)?;
    if pooler.version()? >= PREPARES_SINCE {
        pooler = Pooler::start(&server, &databases, settings)?;
    }
    drop(server);
    for name in ["app", "app_waiting"] {
        let row = pooler.client(name)?.query_typed("SELECT queue FROM enough.queue_stats()", &[])?;
        ensure!(row.len() == 1, "{name} leads elsewhere");
    }
    Ok(())
}

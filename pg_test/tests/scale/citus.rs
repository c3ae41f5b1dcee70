//! `ops/citus/enough_citus.sql` without Citus, which is in no registry: `cargo xtask citus` tries it where Citus is.

use anyhow::{Result, ensure};
use enough_pg_test::server::Database;
use std::fs;
use xtask::scale::citus;

#[test]
fn the_script_is_what_the_catalog_says() -> Result<()> {
    let told = citus::render(&mut Database::new()?.client()?)?;
    let written = fs::read_to_string(citus::file())?;
    ensure!(told == written, "{} is not up to date: run `cargo xtask reference`", citus::file().display());
    Ok(())
}

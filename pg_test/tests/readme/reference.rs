//! The reference in `docs/` is what the database says of itself.

use anyhow::{Result, ensure};
use enough_pg_test::server::Database;
use std::fs;
use xtask::reference;

#[test]
fn the_reference_is_what_the_comments_say() -> Result<()> {
    let told = reference::render(&mut Database::new()?.client()?)?;
    let written = fs::read_to_string(reference::file())?;
    if let Some((line, (told, written))) =
        told.lines().zip(written.lines()).enumerate().find(|(_, (told, written))| told != written)
    {
        anyhow::bail!("line {}: {told:?}, and not {written:?}: run cargo xtask reference", line + 1);
    }
    ensure!(told == written, "run cargo xtask reference");
    Ok(())
}

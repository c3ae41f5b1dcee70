//! The list of promises and of the tests that stand for them, `PROMISES.md`, names tests that are there.

use anyhow::{Context, Result, ensure};
use std::path::Path;

#[test]
fn every_promise_has_tests() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = std::fs::read_to_string(root.join("PROMISES.md"))?;
    let rows = list.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    let mut promises = 0;
    for (number, row) in rows.filter(|(number, _)| number.parse::<u8>().is_ok()) {
        promises += 1;
        // `file` name, `file` name, …
        let mut parts = row.split('`').skip(1);
        let mut tests = 0;
        while let (Some(file), Some(name)) = (parts.next(), parts.next()) {
            if Path::new(file).extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let name = name.trim_matches(|c: char| !c.is_alphanumeric()).split([' ', ',']).next().unwrap_or_default();
            let text = std::fs::read_to_string(root.join("tests").join(file))
                .with_context(|| format!("promise {number}: {file}"))?;
            ensure!(text.contains(&format!("fn {name}()")), "promise {number}: {file} has no test {name}");
            tests += 1;
        }
        ensure!(tests > 0, "promise {number} has no test");
    }
    ensure!(promises >= 13, "{promises} promises");
    Ok(())
}

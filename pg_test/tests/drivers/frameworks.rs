//! What frameworks of Python build on: `examples/django_cache.py` and `examples/limits_storage.py` pass the tests that Django and
//! `limits` have for their own backends, which come from their source distributions. What of them doesn't apply is in
//! `examples/README.md`, with the reason.

use crate::program::printed;
use crate::trial;
use anyhow::{Context, Result, ensure};
use enough_pg_test::server::{Database, shared};
use libtest_mimic::Trial;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use xtask::provision::drivers::Drivers;

/// A framework, the program that runs its tests, and the line that it ends with.
struct Framework {
    name: &'static str,
    program: &'static str,
    last: &'static str,
}

const FRAMEWORKS: [Framework; 2] = [
    Framework {
        name: "django",
        program: "django_contract.py",
        last: "122 all passed, not applicable: test_cull test_cull_delete_when_store_empty test_zero_cull",
    },
    Framework {
        name: "limits",
        program: "limits_contract.py",
        last: "27 all passed, not applicable: test_moving_window_multiple_cost test_moving_window_stats test_storage_reset",
    },
];

pub(crate) fn trials(found: &Drivers) -> Vec<Trial> {
    let missing = (found.python.is_none() || found.sdists.is_none()).then_some("drivers for Python");
    let each = FRAMEWORKS.iter().map(|framework| {
        let found = found.clone();
        trial(&format!("frameworks::{}", framework.name), missing, move || framework.run(&found))
    });
    each.chain([trial("frameworks::what_does_not_apply_is_told", None, what_does_not_apply_is_told)]).collect()
}

impl Framework {
    fn run(&self, found: &Drivers) -> Result<()> {
        let dir = tempfile::tempdir()?;
        let root = xtask::paths::workspace();
        let sdists = found.sdists.as_ref().context("the source distributions are gone")?;
        let prefix = format!("{}-", self.name);
        let sdist =
            fs::read_dir(sdists)?.flatten().find(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
        let database = Database::new()?;
        let mut command = Command::new(found.python.as_ref().context("the drivers are gone")?);
        command.arg(root.join("pg_test/tests/drivers").join(self.program));
        command.arg(sdist.with_context(|| format!("no source of {}", self.name))?.path());
        command.current_dir(dir.path()).env("EXAMPLES", root.join("examples")).env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("DATABASE_URL", shared()?.url_for(&database.name, "postgres"));
        let printed = printed(&mut command, &dir.path().join("printed"))?;
        ensure!(printed.lines().last() == Some(self.last), "{} printed\n{printed}", self.program);
        Ok(())
    }
}

fn what_does_not_apply_is_told() -> Result<()> {
    let readme: PathBuf = xtask::paths::workspace().join("examples/README.md");
    let readme = fs::read_to_string(readme)?;
    for framework in &FRAMEWORKS {
        let (_, tests) = framework.last.split_once("applicable: ").context("a line without a list")?;
        for test in tests.split_whitespace() {
            ensure!(readme.contains(&format!("`{test}`")), "examples/README.md doesn't tell of {test}");
        }
    }
    Ok(())
}

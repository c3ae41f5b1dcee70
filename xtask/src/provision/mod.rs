//! Getting onto the machine what is missing. What is there already is only looked at, so a second call takes a moment.

mod debian;
mod pgrx;
pub(crate) mod root;

pub use debian::{ensure_package_lists, ensure_packages};

use crate::pg::Pg;
use crate::shell;
use anyhow::{Result, ensure};

/// What building the extension takes besides the server's headers.
const BUILD_PACKAGES: [&str; 6] = ["gcc", "libc6-dev", "clang", "libclang-dev", "pkg-config", "libssl-dev"];

/// Debian's packages for building and running the extension with one version.
fn packages(pg: Pg) -> Vec<String> {
    let server = ["postgresql-%", "postgresql-client-%", "postgresql-server-dev-%"];
    let server = server.iter().map(|name| name.replace('%', &pg.to_string()));
    server.chain(BUILD_PACKAGES.iter().map(ToString::to_string)).collect()
}

/// What only the tests need: the scheduler that runs `maintain()`.
fn test_packages(pg: Pg) -> Vec<String> {
    vec![format!("postgresql-{pg}-cron")]
}

/// Ensures that the extension can be built for and run on `pg`.
pub fn ensure(pg: Pg) -> Result<()> {
    ensure!(
        shell::have("apt-get"),
        "this sets up PostgreSQL with Debian's packages and found no apt-get; on other systems, install PostgreSQL \
         with its server headers, clang and cargo-pgrx by hand and run `cargo pgrx install --release`"
    );
    if let Some(dir) = pg.root() {
        // The programs of this machine that a build in the root borrows are cargo's; clang and gcc are its own.
        ensure_packages(&["debootstrap".into()])?;
        let wanted = packages(pg).into_iter().chain(test_packages(pg)).collect::<Vec<_>>();
        root::ensure(pg, &dir, &wanted)?;
        // cargo-pgrx itself is compiled outside.
        ensure_packages(&BUILD_PACKAGES.map(String::from))?;
    } else {
        ensure_packages(&packages(pg))?;
    }
    pgrx::ensure()
}

/// Ensures what the tests need besides [`ensure`].
pub fn ensure_for_tests(pg: Pg) -> Result<()> {
    let mut wanted = vec!["valgrind".to_owned()];
    if pg.root().is_none() {
        wanted.extend(test_packages(pg));
    }
    ensure_packages(&wanted)
}

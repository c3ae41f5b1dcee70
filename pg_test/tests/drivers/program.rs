//! Programs in the languages of the drivers: which file they are, what runs them, and what they print.

use anyhow::{Context, Result, bail};
use enough_pg_test::markdown::{Example, MARK};
use enough_pg_test::pgbouncer::Pooler;
use enough_pg_test::server::shared;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use xtask::provision::drivers::Drivers;

/// The variable by which this test program is told to run a section of the page for Rust, and nothing else.
pub(crate) const RUST_SECTION: &str = "ENOUGH_RUST_SECTION";

/// How long a program may run.
const PATIENCE: Duration = Duration::from_mins(5);

/// Runs a file of Python that may `await` outside of functions, as `python -m asyncio` does it.
const PYTHON: &str = "
import ast, asyncio, inspect, sys
code = compile(open(sys.argv[1]).read(), sys.argv[1], 'exec', flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
outcome = eval(code, {'__name__': '__main__'})
if inspect.iscoroutine(outcome):
    asyncio.run(outcome)
";

/// A language that examples are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    Python,
    Node,
    Java,
    Rust,
    Sql,
}

impl Language {
    /// All of them, and how their blocks are marked.
    const ALL: [(Self, &str); 5] =
        [(Self::Python, "python"), (Self::Node, "js"), (Self::Java, "java"), (Self::Rust, "rust"), (Self::Sql, "sql")];

    /// How its blocks are marked.
    pub(crate) fn tag(self) -> &'static str {
        Self::ALL.iter().find(|(language, _)| *language == self).map_or("", |(_, tag)| tag)
    }

    /// What of it isn't on this machine.
    pub(crate) fn missing(self, found: &Drivers) -> Option<&'static str> {
        match self {
            Self::Python if found.python.is_none() => Some("drivers for Python"),
            Self::Node if found.node.is_none() || found.node_modules.is_none() => Some("drivers for Node.js"),
            Self::Java if found.jdbc.is_none() => Some("driver for Java"),
            _ => None,
        }
    }

    /// A program of several blocks, which prints [`MARK`] before each of them.
    fn program(self, blocks: &[Example]) -> Result<String> {
        let (mut text, mut imports) = (String::new(), String::new());
        for block in blocks {
            match self {
                Self::Python => writeln!(text, "print({MARK:?}, flush=True)\n{}", block.code)?,
                Self::Node => writeln!(text, "console.log({MARK:?});\n{}", block.code)?,
                Self::Sql => writeln!(text, "\\echo {MARK}\n{}", block.code)?,
                Self::Java => {
                    writeln!(text, "System.out.println({MARK:?});")?;
                    for line in block.code.lines() {
                        writeln!(if line.starts_with("import ") { &mut imports } else { &mut text }, "{line}")?;
                    }
                }
                // It is built into this program.
                Self::Rust => {}
            }
        }
        Ok(match self {
            Self::Java => format!(
                "{imports}public class Page {{ public static void main(String[] args) throws Exception {{\n{text}}} }}\n"
            ),
            _ => text,
        })
    }

    /// Runs the blocks of a section in order, in `dir`, with the database `database` of the shared server, before which
    /// `pooler` stands, too; what they print, errors included.
    pub(crate) fn run(
        self,
        found: &Drivers,
        dir: &Path,
        section: &str,
        blocks: &[Example],
        database: &str,
        pooler: &Pooler,
    ) -> Result<String> {
        let file = dir.join(match self {
            Self::Node => "page.mjs",
            Self::Java => "Page.java",
            _ => "page",
        });
        fs::write(&file, self.program(blocks)?)?;
        let mut command = match self {
            Self::Rust => {
                let mut command = Command::new(std::env::current_exe()?);
                command.env(RUST_SECTION, section);
                command
            }
            Self::Sql => {
                let mut command = shared()?.command("psql")?;
                command.args(["-X", "-f"]);
                command
            }
            _ => self.interpreter(found, dir)?,
        };
        if self != Self::Rust {
            command.arg(&file);
        }
        let url = shared()?.url_for(database, "postgres");
        let pooler_url = format!("postgresql://postgres@127.0.0.1:{}/{database}", pooler.port());
        command.env("POOLER_URL", if self == Self::Java { jdbc(&pooler_url) } else { pooler_url });
        command.env("DATABASE_URL", &url).env("JDBC_URL", jdbc(&url)).env("PGDATABASE", database);
        printed(&mut command, &dir.join("printed"))
    }

    /// What runs a file of Python, Node.js or Java, with the drivers in its reach.
    pub(crate) fn interpreter(self, found: &Drivers, dir: &Path) -> Result<Command> {
        const GONE: &str = "the drivers are gone";
        Ok(match self {
            Self::Python => {
                let mut command = Command::new(found.python.as_ref().context(GONE)?);
                command.args(["-c", PYTHON]);
                command
            }
            Self::Node => {
                let modules = dir.join("node_modules");
                if !modules.exists() {
                    symlink(found.node_modules.as_ref().context(GONE)?, &modules)?;
                }
                Command::new(found.node.as_ref().context(GONE)?)
            }
            Self::Java => {
                let mut command = Command::new("java");
                command
                    .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"])
                    .arg(found.jdbc.as_ref().context(GONE)?);
                command
            }
            Self::Rust | Self::Sql => bail!("{self:?} isn't run from a file"),
        })
    }
}

/// The URL for JDBC that leads where `postgresql://user@host:port/database` does.
pub(crate) fn jdbc(url: &str) -> String {
    let rest = url.trim_start_matches("postgresql://");
    let (user, place) = rest.split_once('@').unwrap_or(("", rest));
    format!("jdbc:postgresql://{place}?user={user}")
}

/// Runs `command` to its end with both its streams in the file `into`, and returns that, however it ends.
pub(crate) fn printed(command: &mut Command, into: &Path) -> Result<String> {
    let file = File::create(into)?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let mut child = command.spawn().with_context(|| format!("can't start {}", xtask::shell::line(command)))?;
    let deadline = Instant::now() + PATIENCE;
    let ended = loop {
        if child.try_wait()?.is_some() {
            break true;
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            break false;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let text = fs::read_to_string(into)?;
    if !ended {
        bail!("the program took longer than {PATIENCE:?} and had printed\n{text}");
    }
    Ok(text)
}

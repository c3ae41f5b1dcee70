//! The functions that do nothing, compiled for the server at hand.
//!
//! Their signatures are taken from the catalog, so a no-op has the arguments, the defaults, the result type, the
//! volatility and the strictness of the function that it stands for, whatever these are today.

use crate::fixture::Fixture;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use xtask::shell;

/// Where the no-ops are.
pub const SCHEMA: &str = "noop";

/// What the no-ops for `cache_get` and `cache_get_bytes` return: a cached value of common size.
pub const VALUE: &str =
    r#"{"id": 4711, "name": "Ada Lovelace", "email": "ada@example.org", "roles": ["admin", "editor"], "locale": "en"}"#;

/// Reads what decides how much a call costs apart from what the function does.
const SIGNATURE: &str = "
    SELECT pg_get_function_arguments(p.oid) AS arguments, pg_get_function_result(p.oid) AS result, p.proretset AS set,
           p.provolatile::text AS volatility, p.proisstrict AS strict, p.proparallel::text AS parallel
    FROM pg_proc p WHERE p.pronamespace = 'enough'::regnamespace AND p.proname = $1";

/// A C function of `noop.c`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// `true`
    Boolean,
    /// A copy of [`VALUE`].
    Json,
    /// The same as bytes.
    Bytes,
    /// A number as long as a token.
    Number,
    /// The row of a rate limit.
    Limit,
}

impl Answer {
    fn symbol(self) -> &'static str {
        match self {
            Self::Boolean => "noop_boolean",
            Self::Json => "noop_jsonb",
            Self::Bytes => "noop_bytea",
            Self::Number => "noop_bigint",
            Self::Limit => "noop_limit",
        }
    }
}

/// Creates the no-op for the extension's function `name` in the fixture's database, unless it is there already.
pub fn create(fixture: &Fixture, name: &str, answer: Answer) -> Result<()> {
    let mut client = fixture.client()?;
    let row = client.query_opt(SIGNATURE, &[&name])?.with_context(|| format!("no function enough.{name}"))?;
    ensure!(!row.get::<_, bool>("set"), "enough.{name} returns a set; its no-op in noop.c returns one value");
    let volatility = match row.get::<_, &str>("volatility") {
        "i" => "IMMUTABLE",
        "s" => "STABLE",
        _ => "VOLATILE",
    };
    let parallel = match row.get::<_, &str>("parallel") {
        "s" => "SAFE",
        "r" => "RESTRICTED",
        _ => "UNSAFE",
    };
    let statement = format!(
        "CREATE OR REPLACE FUNCTION {SCHEMA}.{name}({}) RETURNS {} LANGUAGE c {volatility} {} PARALLEL {parallel} AS '{}', '{}'",
        row.get::<_, &str>("arguments"),
        row.get::<_, &str>("result"),
        if row.get("strict") { "STRICT" } else { "CALLED ON NULL INPUT" },
        library(fixture).display(),
        answer.symbol(),
    );
    client.batch_execute(&statement).with_context(|| format!("can't create the no-op for enough.{name}"))
}

/// Where the compiled library is.
fn library(fixture: &Fixture) -> PathBuf {
    fixture.dir().join("noop.so")
}

/// Makes the functions' schema, and compiles `noop.c` against the server's headers; once a fixture.
pub fn compile(fixture: &Fixture) -> Result<()> {
    fixture.client()?.batch_execute(&format!("CREATE SCHEMA {SCHEMA}"))?;
    let installation = fixture.server().installation();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("noop.c");
    let config = installation.bin("pg_config");
    let headers = shell::output(installation.command(&config, fixture.dir())?.arg("--includedir-server"))?;
    let mut cc = installation.command(Path::new("cc"), fixture.dir())?;
    cc.args(["-O2", "-Wall", "-Werror", "-fPIC", "-shared"]);
    cc.arg(format!("-I{}", headers.trim())).arg(format!("-DVALUE={}", c_literal(VALUE)));
    cc.arg("-o").arg(library(fixture)).arg(&source);
    shell::output(&mut cc).context("can't compile the functions that do nothing").map(drop)
}

/// `text` as a string in C.
fn c_literal(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_survive() {
        assert_eq!(c_literal(r#"{"a": "\n"}"#), r#""{\"a\": \"\\n\"}""#);
    }
}

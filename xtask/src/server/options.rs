//! What a private cluster is made with.

use crate::pg::Pg;
use anyhow::Result;
use std::fmt::Write;

/// The settings of a private cluster. The defaults are `PostgreSQL`'s own (durable commits included) but for the places
/// where the server listens.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    pub(super) pg: Pg,
    pub(super) conf: Vec<(String, String)>,
    pub(super) initdb_args: Vec<String>,
    pub(super) outlives: bool,
    pub(super) env: Vec<(String, String)>,
}

impl ServerOptions {
    /// A plain server of `pg`.
    pub fn new(pg: Pg) -> Self {
        let mut options = Self { pg, conf: Vec::new(), initdb_args: Vec::new(), outlives: false, env: Vec::new() };
        options.set("listen_addresses", "127.0.0.1");
        options.set("max_connections", "200");
        options.set("log_line_prefix", "%m [%p] %q%u@%d ");
        options.set("lc_messages", "C");
        options
    }

    /// A plain server of the version that `ENOUGH_PG` names (15 where it is unset).
    pub fn from_env() -> Result<Self> {
        Ok(Self::new(Pg::from_env()?))
    }

    fn set(&mut self, name: &str, value: &str) {
        self.conf.push((name.to_owned(), value.to_owned()));
    }

    /// Sets a configuration parameter.
    #[must_use]
    pub fn conf(mut self, name: &str, value: &str) -> Self {
        self.set(name, value);
        self
    }

    /// Loads `libraries` (comma-separated) at the server's start.
    #[must_use]
    pub fn preload(self, libraries: &str) -> Self {
        self.conf("shared_preload_libraries", libraries)
    }

    /// Passes further arguments to initdb.
    #[must_use]
    pub fn initdb(mut self, args: &[&str]) -> Self {
        self.initdb_args.extend(args.iter().map(ToString::to_string));
        self
    }

    /// Sets a variable in the server's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Lets the server live on when this process ends; see [`super::Server::leave`].
    #[must_use]
    pub fn outlives(mut self) -> Self {
        self.outlives = true;
        self
    }

    /// The version.
    pub fn pg(&self) -> Pg {
        self.pg
    }

    /// The lines for the configuration file.
    pub(super) fn conf_text(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.conf {
            // Writing into a String can't fail.
            let _ = writeln!(text, "{name} = '{}'", value.replace('\'', "''"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_quotes_stays_one_value() {
        let text = ServerOptions::new(Pg::Pg15).conf("search_path", "\"it's\", public").conf_text();
        assert!(text.lines().any(|line| line == "search_path = '\"it''s\", public'"), "{text}");
    }
}

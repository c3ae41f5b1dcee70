//! A database with both extensions, and statements with what they answer.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::state;
use enough_pg_test::server::Database;
use postgres::{Client, SimpleQueryMessage};

/// A database with `pg_enough` and `pgmq` in it, and two sessions.
pub(crate) fn made() -> Result<(Database, Client, Client)> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute("CREATE EXTENSION pgmq").context("is it there? `cargo xtask install --with-pgmq`")?;
    let other = database.client()?;
    Ok((database, client, other))
}

/// The rows that a statement answers, as `psql -At` would show them; an error as its SQLSTATE and message.
pub(crate) fn rows(client: &mut Client, statement: &str) -> Vec<String> {
    let answer = match client.simple_query(statement) {
        Ok(answer) => answer,
        Err(error) => {
            let message = error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
            return vec![format!("{} {message}", state(&error))];
        }
    };
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|column| row.get(column).unwrap_or_default()).collect::<Vec<_>>().join("|"))
        }
        _ => None,
    };
    answer.iter().filter_map(row).collect()
}

/// Runs statements one after the other; each must answer what stands beside it, row by row.
pub(crate) fn expect(client: &mut Client, statements: &[(&str, &[&str])]) -> Result<()> {
    for (statement, expected) in statements {
        let found = rows(client, statement);
        ensure!(found == *expected, "{statement} answers {found:?} instead of {expected:?}");
    }
    Ok(())
}

/// Fails unless the statement is refused, with that SQLSTATE and a hint.
pub(crate) fn refused_with_hint(client: &mut Client, statement: &str, expected: &str) -> Result<()> {
    let hint =
        enough_pg_test::check::refused(client.simple_query(statement), expected).context(statement.to_owned())?;
    ensure!(!hint.is_empty(), "{statement} is refused without a hint");
    Ok(())
}

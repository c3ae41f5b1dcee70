//! The extension's own tables, altered by their owner: every function that needs what was altered says so, and how it becomes
//! what it was.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{refused, state};
use enough_pg_test::server::Database;
use postgres::Client;

/// What uses the tables of policies, those of queues, and a queue's archive.
const POLICIES: [&str; 11] = [
    "rate_limit_by('p', 'k')",
    "rate_limit_enforce_by('p', 'k')",
    "rate_limit_headers_by('p', 'k')",
    "rate_limit_policies()",
    "rate_limit_stats()",
    "rate_limit_stats('p')",
    "rate_limit_policy_set('p', 5, '1 minute')",
    "rate_limit_policy_add('p', 50, '1 hour')",
    "rate_limit_policy_override('p', 'k', 7)",
    "rate_limit_policy_override_drop('p', 'k')",
    "rate_limit_policy_drop('p')",
];
const QUEUES: [&str; 9] = [
    "queue_create('new')",
    "queue_alter('q', max_attempts => 3)",
    "queue_pause('q')",
    "queue_stats()",
    "queue_send('q', '1')",
    "queue_read('q')",
    "queue_rename('q', 'r')",
    "queue_drop('q')",
    "maintain()",
];
const ARCHIVE: [&str; 7] = [
    "queue_archive('q', 1)",
    "queue_archive_batch('q', '{1}')",
    "queue_status('q', 2)",
    "queue_dead('q')",
    "queue_peek('q', state => 'done')",
    "queue_redrive('q')",
    "queue_result('q', 1)",
];

fn prepared() -> Result<(Database, Client)> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute(
        "SELECT enough.queue_create('q'); SELECT enough.queue_send('q', '1'); \
         SELECT enough.rate_limit_policy_set('p', 5, '1 minute'), enough.rate_limit_policy_override('p', 'k', 6); \
         SELECT count(*) FROM enough.rate_limit_by('p', 'k'), enough.queue_stats('q')",
    )?;
    Ok((database, client))
}

fn columns(client: &mut Client, table: &str) -> Result<Vec<(String, String)>> {
    let query = "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute \
                 WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    Ok(client.query(query, &[&table])?.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Each call either does as before or fails with 55000, which names the table and the column; at least `least` of them fail.
fn says_what_is_wrong(client: &mut Client, calls: &[&str], change: &str, (table, column): (&str, &str)) -> Result<()> {
    let mut said = 0;
    for call in calls {
        client.batch_execute("SAVEPOINT call")?;
        let outcome = client.query(&format!("SELECT * FROM enough.{call}"), &[]);
        if let Err(error) = &outcome {
            let report = error.as_db_error().context("not the server's")?.clone();
            let hint = refused(outcome, "55000").with_context(|| format!("{call} after {change}"))?;
            ensure!(
                report.message().contains(column) && report.message().contains(table.trim_start_matches("enough.")),
                "{call} after {change}: {report}"
            );
            ensure!(hint.contains("ALTER TABLE"), "{call} after {change}: {hint}");
            said += 1;
        }
        client.batch_execute("ROLLBACK TO call")?;
    }
    ensure!(said > 0, "nothing has noticed: {change}");
    Ok(())
}

#[test]
fn an_altered_column_of_the_extensions_own_tables_is_named_with_its_cure() -> Result<()> {
    let (database, mut client) = prepared()?;
    for (table, calls) in [
        ("enough.rate_limit_policy", &POLICIES[..]),
        ("enough.rate_limit_override", &POLICIES[..]),
        ("enough.queue", &QUEUES[..]),
        ("enough.a_q", &ARCHIVE[..]),
    ] {
        for (column, kind) in columns(&mut client, table)? {
            let other = match kind.as_str() {
                "integer" | "smallint" => "bigint",
                "bigint" => "numeric",
                _ => "varchar USING 'x'",
            };
            for change in [
                format!("ALTER TABLE {table} ALTER {column} DROP DEFAULT, ALTER {column} TYPE {other}"),
                format!("ALTER TABLE {table} DROP {column}"),
                format!("ALTER TABLE {table} RENAME {column} TO elsewhere"),
            ] {
                // A session that knows the table already, and one that has never seen it.
                for mut session in [None, Some(database.client()?)] {
                    let client = session.as_mut().unwrap_or(&mut client);
                    client.batch_execute("BEGIN")?;
                    match client.batch_execute(&change) {
                        // What functions in SQL depend on, the server doesn't let go.
                        Err(error) if ["0A000", "2BP01"].contains(&state(&error)) => {}
                        Err(error) => return Err(error).context(change),
                        Ok(()) => says_what_is_wrong(client, calls, &change, (table, &column))?,
                    }
                    client.batch_execute("ROLLBACK")?;
                }
            }
        }
        // As it was, it works as it did.
        for call in calls {
            client.batch_execute("BEGIN")?;
            client.query(&format!("SELECT * FROM enough.{call}"), &[]).context(*call)?;
            client.batch_execute("ROLLBACK")?;
        }
    }
    Ok(())
}

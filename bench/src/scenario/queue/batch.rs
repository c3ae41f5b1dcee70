//! Batches of a hundred messages: send, read and delete each in one call.

use super::heading::{MESSAGE, OURS, heading};
use crate::comparison::{Heading, compare};
use crate::fixture::{self, Fixture};
use crate::peers::pgmq;
use crate::pgbench::{Load, Pgbench};
use crate::results::Results;
use anyhow::Result;

/// Messages of a batch.
pub(super) const BATCH: usize = 100;

/// By 1 and 8 clients, against pgmq.
pub(super) fn batches(fixture: &Fixture) -> Result<Results> {
    pgmq::install(fixture)?;
    fixture.client()?.batch_execute("SELECT enough.queue_create('batch')")?;
    fixture.client_for(pgmq::DATABASE)?.batch_execute("SELECT pgmq.create('batch')")?;
    let bodies = bodies(BATCH);
    let variables = [("bodies", bodies.as_str())];
    let (name, their_script) = (pgmq::name(), pgmqs("batch"));
    let mut found = Results::default();
    for clients in [1, 8] {
        fixture.settle()?;
        let load = |name, database, script| {
            Pgbench::new(fixture, Load { name, database, script, variables: &variables, clients, ..Load::default() })
        };
        // A read that finds nothing still counts, and deletes a message that isn't there.
        let mut ours = load(
            OURS,
            fixture::DATABASE,
            "SELECT count(*) FROM enough.queue_send_batch('batch', :bodies::jsonb[]);\n\
             SELECT coalesce(array_agg(msg_id), '{0}') AS ids, count(message) AS found \
                 FROM enough.queue_read('batch', 100) \\gset\n\
             SELECT count(*) FROM enough.queue_delete_batch('batch', :ids::bigint[]);\n",
        )?;
        let mut theirs = load(&name, pgmq::DATABASE, &their_script)?;
        let title = format!("queue send + read + delete in batches of {BATCH}");
        let heading = Heading { unit: "batches/s".into(), ..heading(&title, clients, "durable", 3.0) };
        found.comparisons.push(compare(&heading, &mut ours, &mut theirs, fixture.effort().rounds)?);
    }
    Ok(found)
}

/// Send, read and delete by pgmq, in the queue `queue`.
pub(super) fn pgmqs(queue: &str) -> String {
    format!(
        "SELECT count(*) FROM pgmq.send_batch('{queue}', :bodies::jsonb[]);\n\
         SELECT coalesce(array_agg(msg_id), '{{0}}') AS ids, count(message) AS found \
             FROM pgmq.read('{queue}', 30, 100) \\gset\n\
         SELECT count(*) FROM pgmq.delete('{queue}', :ids::bigint[]);\n"
    )
}

/// So many messages as the literal of an array.
pub(super) fn bodies(count: usize) -> String {
    let element = format!("\"{}\"", MESSAGE.replace('\\', "\\\\").replace('"', "\\\""));
    format!("{{{}}}", vec![element; count].join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_an_array_of_quoted_elements() {
        let text = bodies(BATCH);
        assert!(text.starts_with(r#"{"{\"order\": 4711, "#) && text.ends_with(r#"\"EUR\"}"}"#), "{text}");
        assert_eq!(text.matches(r#"}",""#).count(), BATCH - 1);
    }
}

//! The queue.

use crate::contest::{Comparison, Heading, Relation, hold};
use crate::peers::pgmq;
use crate::pgbench::{Load, Pgbench};
use crate::stage::{self, Stage};
use crate::stats::Target;
use anyhow::Result;

/// A message of common size.
const MESSAGE: &str =
    r#"{"order": 4711, "kind": "order.paid", "customer": "ada@example.org", "amount": 4200, "currency": "EUR"}"#;

/// Sending against a raw INSERT, and a message's whole life against pgmq.
pub(super) fn smoke(stage: &Stage) -> Result<Vec<Comparison>> {
    Ok(vec![send(stage, 32)?, life(stage, 8)?])
}

/// Durable sends, one a transaction, against an INSERT into a table of the same shape.
fn send(stage: &Stage, clients: usize) -> Result<Comparison> {
    // LIKE takes over columns, defaults, constraints and indexes, but not the table's own settings.
    stage.client()?.batch_execute(
        "SELECT enough.queue_create('send');
         CREATE SCHEMA raw;
         CREATE TABLE raw.send (LIKE enough.q_send INCLUDING ALL);
         DO $do$ DECLARE option text; BEGIN
           FOR option IN SELECT unnest(reloptions) FROM pg_class WHERE oid = 'enough.q_send'::regclass LOOP
             EXECUTE 'ALTER TABLE raw.send SET (' || option || ')';
           END LOOP;
         END $do$",
    )?;
    let load = |name, script| {
        let variables = &[("body", MESSAGE)];
        Pgbench::new(stage, Load { name, database: stage::DATABASE, script, variables, clients })
    };
    let mut ours = load("pg_enough", "SELECT enough.queue_send('send', :body);\n")?;
    let mut insert = load("raw INSERT", "INSERT INTO raw.send (message) VALUES (:body);\n")?;
    hold(heading("queue send", clients, Target::AtLeast(0.95)), &mut ours, &mut insert, stage.effort().rounds)
}

/// Send, read and delete, each its own durable transaction, against pgmq's.
fn life(stage: &Stage, clients: usize) -> Result<Comparison> {
    pgmq::install(stage)?;
    stage.client()?.batch_execute("SELECT enough.queue_create('life')")?;
    stage.client_for(pgmq::DATABASE)?.batch_execute("SELECT pgmq.create('life')")?;
    let variables = &[("body", MESSAGE)];
    // An aggregate always has a row: a read that finds nothing then counts as a read, and deletes nothing.
    let mut ours = Pgbench::new(
        stage,
        Load {
            name: "pg_enough",
            database: stage::DATABASE,
            script: "SELECT enough.queue_send('life', :body);\n\
                     SELECT coalesce(max(msg_id), 0) AS msg_id FROM enough.queue_read('life') \\gset\n\
                     SELECT enough.queue_delete('life', :msg_id::bigint);\n",
            variables,
            clients,
        },
    )?;
    let name = format!("pgmq {}", pgmq::VERSION);
    let mut theirs = Pgbench::new(
        stage,
        Load {
            name: &name,
            database: pgmq::DATABASE,
            script: "SELECT pgmq.send('life', :body);\n\
                     SELECT coalesce(max(msg_id), 0) AS msg_id FROM pgmq.read('life', 30, 1) \\gset\n\
                     SELECT pgmq.delete('life', :msg_id::bigint);\n",
            variables,
            clients,
        },
    )?;
    let heading = heading("queue send + read + delete", clients, Target::AtLeast(2.5));
    let mut comparison = hold(heading, &mut ours, &mut theirs, stage.effort().rounds)?;
    let left = |database, table| -> Result<i64> {
        Ok(stage.client_for(database)?.query_one(&format!("SELECT count(*) FROM {table}"), &[])?.get(0))
    };
    comparison.notes.push(format!(
        "messages left behind, because a read found none or a round ended: pg_enough {}, pgmq {}",
        left(stage::DATABASE, "enough.q_life")?,
        left(pgmq::DATABASE, "pgmq.q_life")?
    ));
    Ok(comparison)
}

fn heading(title: &str, clients: usize, target: Target) -> Heading {
    Heading {
        title: title.to_owned(),
        conditions: format!("{clients} clients, durable"),
        unit: "messages/s".to_owned(),
        relation: Relation::Ratio,
        target: Some(target),
    }
}

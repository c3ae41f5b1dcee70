//! What stands beside a plain queue: topics, workers in SQL, groups that take turns.

use super::batch;
use super::heading::{MESSAGE, OURS, heading};
use crate::comparison::{Heading, compare};
use crate::fixture::{self, Fixture};
use crate::pgbench::{Load, Pgbench};
use crate::results::{Figure, Results, Series, Subject};
use crate::stats::{Estimate, Target};
use anyhow::{Context, Result, anyhow};
use std::thread;
use std::time::{Duration, Instant};

/// Queues that one message is published to.
const SUBSCRIBERS: usize = 50;

/// A message to many queues, against as many messages to one.
pub(super) fn topics(fixture: &Fixture) -> Result<Results> {
    fixture.client()?.batch_execute(&format!(
        "SELECT enough.queue_create('one'); \
         SELECT enough.queue_create('subscriber_' || n), enough.topic_subscribe('bench.*', 'subscriber_' || n) \
           FROM generate_series(1, {SUBSCRIBERS}) AS n"
    ))?;
    let bodies = batch::bodies(SUBSCRIBERS);
    let variables = [("body", MESSAGE), ("bodies", bodies.as_str())];
    let mut found = Results::default();
    for clients in [1, 8] {
        fixture.settle()?;
        let database = fixture::DATABASE;
        let load = |name, script| {
            Pgbench::new(fixture, Load { name, database, script, variables: &variables, clients, ..Load::default() })
        };
        let title = format!("topic_publish to {SUBSCRIBERS} queues");
        let heading = Heading { unit: "calls/s".into(), ..heading(&title, clients, "durable", 0.9) };
        let mut publish = load(OURS, "SELECT enough.topic_publish('bench.topic', :body::jsonb);\n")?;
        let name = format!("queue_send_batch of {SUBSCRIBERS}");
        let mut batch = load(&name, "SELECT count(*) FROM enough.queue_send_batch('one', :bodies::jsonb[]);\n")?;
        found.comparisons.push(compare(&heading, &mut publish, &mut batch, fixture.effort().rounds)?);
    }
    Ok(found)
}

/// Messages that workers in SQL get through, each with its own commit.
pub(super) fn workers(fixture: &Fixture) -> Result<Results> {
    let seconds = fixture.effort().either(5, 2);
    let rounds = fixture.effort().rounds.min(5);
    let mut client = fixture.client()?;
    client.batch_execute(
        "CREATE FUNCTION handled(message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
    )?;
    let mut found = Results::default();
    for (ack, count) in [("durable", 1), ("durable", 8), ("async", 1), ("async", 8)] {
        let queue = format!("work_{ack}_{count}");
        client.batch_execute(&format!("SELECT enough.queue_create('{queue}', ack => '{ack}', archive_for => '0')"))?;
        let mut rates = Vec::new();
        for _ in 0..rounds {
            client.batch_execute(&format!(
                "SELECT enough.queue_purge('{queue}'); \
                 SELECT count(enough.queue_send('{queue}', '{MESSAGE}')) FROM generate_series(1, 200000)"
            ))?;
            let finished = format!("SELECT finished_total FROM enough.queue_stats('{queue}')");
            let before: i64 = client.query_one(&finished, &[])?.get(0);
            let work = format!("CALL enough.queue_work('{queue}', 'handled', 100, '{seconds} s')");
            let began = Instant::now();
            thread::scope(|scope| -> Result<()> {
                let mut workers = Vec::new();
                for _ in 0..count {
                    let mut worker = fixture.client()?;
                    let work = &work;
                    workers.push(scope.spawn(move || worker.batch_execute(work)));
                }
                for worker in workers {
                    worker.join().map_err(|_| anyhow!("a worker has panicked"))??;
                }
                Ok(())
            })?;
            let took = began.elapsed().as_secs_f64();
            let after: i64 = client.query_one(&finished, &[])?.get(0);
            #[allow(clippy::cast_precision_loss, reason = "small counts")]
            rates.push((after - before) as f64 / took);
        }
        let subject = Subject::new(
            "queue_work, each message with its own commit",
            &format!("{count} workers, ack => '{ack}'"),
            OURS,
            "messages/s",
        );
        let rate = Estimate::of(&rates).context("no rounds")?;
        // "Thousands a second" is what is promised of it.
        let target = (count > 1 || ack == "async").then_some(Target::AtLeast(2_000.0));
        found.figures.push(Figure::estimated(subject, rate, target));
    }
    Ok(found)
}

/// Tenants with few messages each, and how many they have.
const SMALL: (usize, usize) = (99, 100);
/// Messages that are read in one call.
const READ: usize = 100;

/// How soon small tenants are served beside one with very many messages, which were there before.
pub(super) fn fairness(fixture: &Fixture) -> Result<Results> {
    let large: usize = fixture.effort().either(100_000, 10_000);
    let (tenants, each) = SMALL;
    let all = tenants * each;
    let conditions = format!("{tenants} tenants with {each} messages each, one with {large} that were there before");
    let mut found = Results::default();
    for (name, queue, with_large, grouped) in [
        ("beside the large one", "beside", true, true),
        ("alone", "alone", false, true),
        ("in the order of sending, without groups", "sent", true, false),
    ] {
        let mut client = fixture.client()?;
        client.batch_execute(&format!("SELECT enough.queue_create('{queue}')"))?;
        let group = |tenant: &str| if grouped { tenant.to_owned() } else { "NULL".to_owned() };
        if with_large {
            client.batch_execute(&format!(
                "INSERT INTO enough.q_{queue} (message, group_key) SELECT '0', {} FROM generate_series(1, {large})",
                group("'large'")
            ))?;
        }
        client.batch_execute(&format!(
            "INSERT INTO enough.q_{queue} (message, group_key) SELECT '1', {} \
               FROM generate_series(1, {each}) AS m, generate_series(1, {tenants}) AS t",
            group("'small ' || t")
        ))?;
        let read = format!(
            "WITH got AS MATERIALIZED (SELECT msg_id, message FROM enough.queue_read('{queue}', {READ})), \
                  gone AS MATERIALIZED (SELECT count(*) AS count FROM enough.queue_delete_batch('{queue}', \
                      (SELECT coalesce(array_agg(msg_id), '{{}}') FROM got))) \
             SELECT (SELECT count(*) FROM got), (SELECT count(*) FROM got WHERE message = '1'), count FROM gone"
        );
        let read = client.prepare(&read)?;
        let (mut delivered, mut small) = (0_i64, 0_i64);
        let mut points = vec![(0.0, 0.0)];
        let deadline = Instant::now() + Duration::from_mins(5);
        #[allow(clippy::cast_precision_loss, reason = "small counts")]
        while (small as usize) < all && delivered < 2 * all as i64 && Instant::now() < deadline {
            let row = client.query_one(&read, &[])?;
            delivered += row.get::<_, i64>(0);
            small += row.get::<_, i64>(1);
            points.push((delivered as f64 / 1e3, small as f64 * 100.0 / all as f64));
        }
        #[allow(clippy::cast_precision_loss, reason = "small counts")]
        if queue == "beside" {
            let subject =
                Subject::new("deliveries until all small tenants are served", &conditions, OURS, "of those alone");
            let times = delivered as f64 / all as f64;
            found.figures.push(Figure::counted(subject, times, Some(Target::AtMost(1.05))));
        }
        let subject = Subject::new("what small tenants have got", &conditions, name, "% of their messages");
        found.series.push(Series { subject, along: "thousand deliveries".into(), points });
        client.batch_execute(&format!("SELECT enough.queue_drop('{queue}')"))?;
    }
    Ok(found)
}

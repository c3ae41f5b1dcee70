//! What an operator sees of a queue whose consumers stop for a while: `queue_stats` each second, as a dashboard has it. Not a
//! measurement of speed: senders and consumers are slow on purpose.

use super::entry::Scenario;
use crate::fixture::Fixture;
use crate::results::{Results, Series, Subject};
use anyhow::{Result, anyhow};
use postgres::Client;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "outage",
    about: "queue_stats while a queue's consumers are stopped and come back",
    run: outage,
}];

/// Between two messages that are sent.
const PAUSE: Duration = Duration::from_millis(10);
/// What a consumer does with a message.
const WORK: Duration = Duration::from_millis(4);
/// One of so many messages fails once, and of so many for good.
const FAILS: i64 = 40;
const DIES: i64 = 500;

/// What is shown of the queue: its name in the picture, and the expression.
const HELD: [(&str, &str); 4] = [("ready", "ready"), ("leased", "leased"), ("delayed", "delayed"), ("dead", "dead")];
const RATES: [(&str, &str); 3] = [("sent", "sent_total"), ("finished", "finished_total"), ("failed", "failed_total")];
const AGE: (&str, &str) = ("oldest ready", "coalesce(extract(epoch FROM oldest_ready), 0)");

/// When the consumers work.
struct Plan {
    began: Instant,
    /// A third of the run: they work, stand still, and work again.
    third: Duration,
    over: AtomicBool,
}

impl Plan {
    fn works(&self) -> bool {
        let passed = self.began.elapsed();
        passed < self.third || passed >= self.third * 2
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

fn outage(fixture: &Fixture) -> Result<Results> {
    let third: u32 = fixture.effort().either(20, 4);
    fixture.client()?.batch_execute("SELECT enough.queue_create('watched')")?;
    let third_long = Duration::from_secs(u64::from(third));
    let (watcher, sender, consumers) = (fixture.client()?, fixture.client()?, [fixture.client()?, fixture.client()?]);
    let count = consumers.len();
    let plan = Plan { began: Instant::now(), third: third_long, over: AtomicBool::new(false) };
    let samples = thread::scope(|scope| {
        let plan = &plan;
        let mut others = vec![scope.spawn(move || send(sender, plan))];
        others.extend(consumers.map(|client| scope.spawn(move || consume(client, plan))));
        let samples = watch(watcher, plan, third * 3);
        plan.over.store(true, Ordering::Relaxed);
        for other in others {
            other.join().map_err(|_| anyhow!("a session has panicked"))??;
        }
        samples
    })?;
    let conditions = format!("{count} consumers, stopped from second {third} to second {}", third * 2);
    let mut found = Results::default();
    let mut add = |title: &str, unit: &str, name: &str, points: Vec<(f64, f64)>| {
        let subject = Subject::new(title, &conditions, name, unit);
        found.series.push(Series { subject, along: "s".into(), points });
    };
    let line = |column: usize| samples.iter().map(move |(at, row)| (*at, row[column]));
    for (column, (name, _)) in HELD.iter().enumerate() {
        add("what a watched queue holds", "messages", name, line(column).collect());
    }
    for (column, (name, _)) in RATES.iter().enumerate() {
        let rates = samples.windows(2).map(|pair| {
            let ((from, before), (to, after)) = (&pair[0], &pair[1]);
            (*to, (after[HELD.len() + column] - before[HELD.len() + column]) / (to - from))
        });
        add("what a watched queue does", "messages/s", name, rates.collect());
    }
    add("how late a watched queue is", "s", AGE.0, line(HELD.len() + RATES.len()).collect());
    Ok(found)
}

/// The queue's statistics each second: when, and a column for each expression.
fn watch(mut client: Client, plan: &Plan, seconds: u32) -> Result<Vec<(f64, Vec<f64>)>> {
    let columns: Vec<String> =
        HELD.iter().chain(&RATES).chain([&AGE]).map(|(_, expression)| format!("({expression})::float8")).collect();
    let statement = client.prepare(&format!("SELECT {} FROM enough.queue_stats('watched')", columns.join(", ")))?;
    let mut samples = Vec::new();
    for second in 0..=seconds {
        thread::sleep(Duration::from_secs(u64::from(second)).saturating_sub(plan.began.elapsed()));
        let at = plan.began.elapsed().as_secs_f64();
        let row = client.query_one(&statement, &[])?;
        samples.push((at, (0..columns.len()).map(|column| row.get(column)).collect()));
    }
    Ok(samples)
}

fn send(mut client: Client, plan: &Plan) -> Result<()> {
    let statement = client.prepare("SELECT enough.queue_send('watched', '{\"customer\": \"ada\"}')")?;
    while !plan.is_over() {
        client.execute(&statement, &[])?;
        thread::sleep(PAUSE);
    }
    Ok(())
}

fn consume(mut client: Client, plan: &Plan) -> Result<()> {
    let read = client.prepare("SELECT msg_id, attempts FROM enough.queue_read('watched', wait => '100 ms')")?;
    let delete = client.prepare("SELECT enough.queue_delete('watched', $1)")?;
    let fail = client.prepare("SELECT enough.queue_fail('watched', $1, 'no answer', retry_in => CASE WHEN NOT $2 THEN interval '5 s' END, dead => $2)")?;
    while !plan.is_over() {
        let Some(message) = plan.works().then(|| client.query_opt(&read, &[])).transpose()?.flatten() else {
            thread::sleep(PAUSE);
            continue;
        };
        thread::sleep(WORK);
        let (id, attempts): (i64, i32) = (message.get(0), message.get(1));
        let dies = id % DIES == 0;
        if dies || (id % FAILS == 0 && attempts == 1) {
            client.execute(&fail, &[&id, &dies])?;
        } else {
            client.execute(&delete, &[&id])?;
        }
    }
    Ok(())
}

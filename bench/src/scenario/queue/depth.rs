//! What it costs to read one message, by how many are ready, with many leased and delayed besides.

use super::heading::{MESSAGE, OURS};
use crate::comparison::{Candidate, Heading, Relation, compare};
use crate::fixture::{self, Fixture};
use crate::peers::pgmq;
use crate::pgbench::{Load, Pgbench};
use crate::results::{Results, Series, Subject};
use crate::stats::{Estimate, Target};
use anyhow::{Context, Result, ensure};
use postgres::Client;

const CLIENTS: usize = 8;
/// Reads of a client in a round: a round of ours and one of pgmq's are to take some time, but the former are to leave most
/// of a shallow queue and the latter are to end.
const READS: u32 = 500;
const READS_BY_PGMQ: u32 = 4;
/// Ready messages of the shallow queue after a round.
const SHALLOW: i64 = 1_000;
/// Reads of all clients in a round.
const READ: i64 = CLIENTS as i64 * READS as i64;
/// Messages that one call sends or reads.
const BATCH: i64 = 10_000;
/// Rounds of each side at each depth of the curve.
const ROUNDS_OF_CURVE: usize = 3;
/// How many rounds more than other comparisons those of ours with ours take.
const ROUNDS_OF_OURS: usize = 4;

/// One message read out of a shallow queue, of a deep one, and of pgmq's deep one.
pub(super) fn reading(fixture: &Fixture) -> Result<Results> {
    let effort = fixture.effort();
    let (leased, delayed) = effort.either((50_000, 100_000), (10_000, 20_000));
    let depths: &[i64] = effort.either(&[10_000, 100_000, 1_000_000], &[10_000, 50_000]);
    pgmq::install(fixture)?;
    let mut deep = Deep::new(fixture, leased, delayed)?;
    let mut shallow = Reads::new(fixture, OURS, fixture.client()?, "shallow")?;
    shallow.client.batch_execute("SELECT enough.queue_create('shallow')")?;
    shallow.fill(SHALLOW + READ)?;
    let settings: String = shallow.client.query_one("SHOW enough.queue_memory", &[])?.get(0);
    let conditions = format!("{CLIENTS} clients, {leased} leased, {delayed} delayed, enough.queue_memory = {settings}");
    let mut found = Results::default();
    let mut curves = [(OURS.to_owned(), Vec::new()), (pgmq::name(), Vec::new())];
    for &depth in depths {
        deep.fill(depth)?;
        fixture.settle()?;
        let sides: [&mut dyn Candidate; 2] = [&mut deep.ours, &mut deep.pgmqs];
        for (side, (name, points)) in sides.into_iter().zip(&mut curves) {
            side.warm_up()?;
            let rounds = (0..ROUNDS_OF_CURVE).map(|_| side.round()).collect::<Result<Vec<_>>>()?;
            let rate = Estimate::of(&rounds).context("no rounds")?.median;
            eprintln!("    {depth} ready, {name}: {}", crate::number::number(rate));
            #[allow(clippy::cast_precision_loss, reason = "nobody has 2⁵³ messages")]
            points.push((depth as f64, rate));
        }
    }
    for (name, points) in curves {
        let subject = Subject::new("queue read of one message by depth", &conditions, &name, "messages/s");
        found.series.push(Series { subject, along: "messages ready".into(), points });
    }
    let deepest = depths.last().context("no depth")?;
    let heading = Heading {
        title: format!("queue read of one out of {deepest} ready"),
        conditions,
        unit: "messages/s".into(),
        relation: Relation::Ratio,
        target: None,
    };
    let Deep { mut ours, mut pgmqs, .. } = deep;
    // Many short rounds: the two of ours differ by less than the machine does from one moment to the next.
    let rounds = effort.rounds * ROUNDS_OF_OURS;
    let ours_alone = Heading { target: Some(Target::AtLeast(0.9)), ..heading.clone() };
    let mut alone = compare(&ours_alone, &mut ours, &mut shallow, rounds)?;
    alone.reference.name = format!("{OURS}, {SHALLOW} to {} ready and nothing else", SHALLOW + READ);
    let against_pgmq = Heading { target: Some(Target::AtLeast(300.0)), ..heading };
    found.comparisons.extend([alone, compare(&against_pgmq, &mut ours, &mut pgmqs, effort.rounds)?]);
    for queue in ["deep", "shallow"] {
        fixture.client()?.execute("SELECT enough.queue_drop($1)", &[&queue])?;
    }
    fixture.client_for(pgmq::DATABASE)?.batch_execute("SELECT pgmq.drop_queue('deep')")?;
    Ok(found)
}

/// A queue of ours and one of pgmq's that grow to the same depth.
struct Deep<'a> {
    ours: Reads<'a>,
    pgmqs: ReadsByPgmq<'a>,
    depth: i64,
}

impl<'a> Deep<'a> {
    /// With messages leased and delayed for longer than anything here takes.
    fn new(fixture: &'a Fixture, leased: i64, delayed: i64) -> Result<Self> {
        let (mut ours, mut theirs) = (fixture.client()?, fixture.client_for(pgmq::DATABASE)?);
        ours.batch_execute("SELECT enough.queue_create('deep')")?;
        theirs.batch_execute("SELECT pgmq.create('deep')")?;
        let ours = Reads::new(fixture, OURS, ours, "deep")?;
        let pgmqs = ReadsByPgmq::new(fixture, theirs)?;
        let mut deep = Self { ours, pgmqs, depth: 0 };
        deep.send(leased, "'0'", "0")?;
        for _ in 0..leased / BATCH {
            let read = "SELECT count(*) FROM enough.queue_read('deep', $1, '2 hours')";
            let got: i64 = deep.ours.client.query_one(read, &[&(BATCH as i32)])?.get(0);
            ensure!(got == BATCH, "{got} of {BATCH} messages were read");
            let read = "SELECT count(*) FROM pgmq.read('deep', 7200, $1)";
            let got: i64 = deep.pgmqs.client.query_one(read, &[&(BATCH as i32)])?.get(0);
            ensure!(got == BATCH, "{got} of {BATCH} messages were read by pgmq");
        }
        deep.send(delayed, "'2 hours'", "7200")?;
        deep.ours.next = leased + delayed + 1;
        Ok(deep)
    }

    fn send(&mut self, count: i64, delay: &str, seconds: &str) -> Result<()> {
        let ours = format!("SELECT count(*) FROM enough.queue_send_batch('deep', {}, delay => {delay})", batch());
        let theirs = format!("SELECT count(*) FROM pgmq.send_batch('deep', {}, {seconds})", batch());
        for _ in 0..count / BATCH {
            self.ours.client.query_one(&ours, &[])?;
            self.pgmqs.client.query_one(&theirs, &[])?;
        }
        Ok(())
    }

    fn fill(&mut self, depth: i64) -> Result<()> {
        self.send(depth - self.depth, "'0'", "0")?;
        self.depth = depth;
        for (client, table) in [(&mut self.ours.client, "enough.q_deep"), (&mut self.pgmqs.client, "pgmq.q_deep")] {
            client.batch_execute(&format!("VACUUM ANALYZE {table}"))?;
        }
        Ok(())
    }
}

/// A batch of messages in SQL.
fn batch() -> String {
    format!("array_fill('{MESSAGE}'::jsonb, ARRAY[{BATCH}])")
}

/// Reads of ours. After a round, uncounted, what it has leased is deleted and as many are sent, so that as many are leased
/// and ready as before.
struct Reads<'a> {
    load: Pgbench<'a>,
    client: Client,
    queue: &'static str,
    /// The first number that hasn't been read.
    next: i64,
}

impl<'a> Reads<'a> {
    fn new(fixture: &'a Fixture, name: &'a str, client: Client, queue: &'static str) -> Result<Self> {
        let script = match queue {
            "deep" => "SELECT msg_id, message FROM enough.queue_read('deep');\n",
            _ => "SELECT msg_id, message FROM enough.queue_read('shallow');\n",
        };
        let load = Load { name, database: fixture::DATABASE, script, clients: CLIENTS, ..Load::default() };
        Ok(Self { load: Pgbench::new(fixture, Load { times: Some(READS), ..load })?, client, queue, next: 1 })
    }

    fn fill(&mut self, count: i64) -> Result<()> {
        let send = "SELECT count(*) FROM enough.queue_send_batch($1, array_fill('{}'::jsonb, ARRAY[$2::int]))";
        self.client.query_one(&send.replace("{}", MESSAGE), &[&self.queue, &(count as i32)])?;
        Ok(())
    }
}

impl Candidate for Reads<'_> {
    fn name(&self) -> &str {
        self.load.name()
    }

    fn round(&mut self) -> Result<f64> {
        let rate = self.load.round()?;
        // Messages are read in the order of their numbers.
        let (first, count) = (self.next, READ);
        self.next += count;
        let delete =
            "SELECT count(*) FROM enough.queue_delete_batch($1, ARRAY(SELECT generate_series($2::bigint, $3)))";
        let deleted: i64 = self.client.query_one(delete, &[&self.queue, &first, &(self.next - 1)])?.get(0);
        ensure!(deleted == count, "{deleted} of {count} messages were deleted");
        self.fill(count)?;
        Ok(rate)
    }

    fn warm_up(&mut self) -> Result<()> {
        self.round().map(drop)
    }
}

/// Reads by pgmq, so few that what they lease doesn't matter.
struct ReadsByPgmq<'a> {
    name: String,
    load: Pgbench<'a>,
    client: Client,
}

impl<'a> ReadsByPgmq<'a> {
    fn new(fixture: &'a Fixture, client: Client) -> Result<Self> {
        let script = "SELECT msg_id, message FROM pgmq.read('deep', 7200, 1);\n";
        let load = Load { name: "pgmq", database: pgmq::DATABASE, script, clients: CLIENTS, ..Load::default() };
        let load = Pgbench::new(fixture, Load { times: Some(READS_BY_PGMQ), ..load })?;
        Ok(Self { name: pgmq::name(), load, client })
    }
}

impl Candidate for ReadsByPgmq<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn round(&mut self) -> Result<f64> {
        self.load.round()
    }

    fn warm_up(&mut self) -> Result<()> {
        self.load.round().map(drop)
    }
}

//! What calls return and refuse, from every node alike, and what a cluster goes through: another role, a script that is run again, a node
//! more, a node that is down.

use super::cluster::{COORDINATOR, Cluster};
use super::{Tally, moving};
use anyhow::{Context, Result, ensure};
use postgres::Client;
use xtask::scale;
use xtask::server::{Server, Shutdown};

/// Runs all of it. The last stops a node for a moment.
pub fn run(cluster: &mut Cluster, tally: &mut Tally) -> Result<()> {
    tally.count("a key is cached on its node alone", cached(cluster));
    tally.count("a limit is counted once", limited(cluster));
    tally.count("what concerns all nodes", all(cluster));
    tally.count("a message's way", queued(cluster));
    tally.count("errors", errors(cluster));
    tally.count("a role", role(cluster));
    tally.count("a wait that is cancelled", cancelled(cluster));
    tally.count("the script once more", again(cluster));
    tally.count("a node more", added(cluster));
    tally.count("a node that is down", down(cluster));
    cluster.empty()
}

fn one(client: &mut Client, call: &str) -> Result<String> {
    let row = client.query_one(&format!("SELECT coalesce(({call})::text, 'NULL')"), &[]);
    Ok(row.with_context(|| call.to_owned())?.get(0))
}

fn state(client: &mut Client, call: &str) -> String {
    let error = client.query(&format!("SELECT * FROM enough_citus.{call}"), &[]).err();
    error.and_then(|error| error.code().map(|code| code.code().to_owned())).unwrap_or_default()
}

/// A session on each node.
fn sessions(cluster: &Cluster) -> Result<[Client; 3]> {
    Ok([cluster.client(0)?, cluster.client(1)?, cluster.client(2)?])
}

fn cached(cluster: &Cluster) -> Result<()> {
    let mut sessions = sessions(cluster)?;
    for (at, key) in cluster.queues.iter().enumerate() {
        for node in 0..3 {
            one(&mut sessions[node], &format!("enough_citus.cache_set('{key}', '{node}')"))?;
            for session in &mut sessions {
                let found = one(session, &format!("enough_citus.cache_get('{key}')"))?;
                ensure!(found == node.to_string(), "{found} in place of {node}");
            }
        }
        for (node, session) in sessions.iter_mut().enumerate() {
            let found = one(session, &format!("enough.cache_get('{key}')"))?;
            ensure!((found == "NULL") == (node != at + 1), "{key} on node {node}: {found}");
        }
    }
    Ok(())
}

fn limited(cluster: &Cluster) -> Result<()> {
    let mut sessions = sessions(cluster)?;
    let mut allowed = 0;
    for _ in 0..4 {
        for session in &mut sessions {
            let row = session.query_one("SELECT (enough_citus.rate_limit('limited', 5, '1 hour')).allowed", &[])?;
            allowed += i32::from(row.get::<_, bool>(0));
        }
    }
    ensure!(allowed == 5, "{allowed} allowed in place of 5");
    Ok(())
}

fn all(cluster: &Cluster) -> Result<()> {
    let [mut coordinator, mut first, mut second] = sessions(cluster)?;
    let [a, b] = &cluster.queues;
    for (session, key) in [(&mut coordinator, a), (&mut first, b)] {
        one(session, &format!("enough_citus.cache_set('{key}', '1', tags => '{{t}}')"))?;
    }
    // Transactions that have used the cache can't be prepared, and yet these are on two nodes.
    one(&mut second, "enough_citus.cache_invalidate('t')")?;
    for key in [a, b] {
        ensure!(one(&mut coordinator, &format!("enough_citus.cache_get('{key}')"))? == "NULL", "{key} is still there");
        one(&mut coordinator, &format!("enough_citus.cache_set('{key}', '1')"))?;
    }
    one(&mut coordinator, "enough_citus.cache_clear()")?;
    for key in [a, b] {
        ensure!(one(&mut first, &format!("enough_citus.cache_get('{key}')"))? == "NULL", "{key} isn't cleared");
    }
    ensure!(one(&mut first, "SELECT count(*) FROM enough_citus.cache_stats()")? == "2");
    one(&mut first, "enough_citus.rate_limit_policy_set('p', 1, '1 hour')")?;
    for key in [a, b] {
        let ask = format!("SELECT allowed FROM enough_citus.rate_limit_by('p', '{key}')");
        ensure!(one(&mut coordinator, &ask)? == "true" && one(&mut second, &ask)? == "false", "{key}");
    }
    ensure!(one(&mut second, "SELECT count(*) FROM enough_citus.rate_limit_policies()")? == "1");
    ensure!(one(&mut second, "enough_citus.rate_limit_policy_drop('p')")? == "true");
    ensure!(one(&mut second, "enough_citus.rate_limit_policy_drop('p')")? == "false");
    let queues = one(&mut second, "SELECT count(*) FROM enough_citus.queue_stats()")?;
    ensure!(queues == "4", "{queues}");
    ensure!(one(&mut second, &format!("SELECT count(*) FROM enough_citus.queue_stats('{a}')"))? == "1");
    ensure!(one(&mut second, "SELECT count(*) > 2 FROM enough_citus.maintain()")? == "true");
    ensure!(one(&mut second, "SELECT count(*) FROM enough_citus.semaphore_holders()")? == "0");
    Ok(())
}

fn queued(cluster: &Cluster) -> Result<()> {
    let [mut coordinator, mut first, mut second] = sessions(cluster)?;
    for queue in &cluster.queues {
        one(&mut coordinator, &format!("enough_citus.queue_send('{queue}', '7')"))?;
        let row = first
            .query_one(&format!("SELECT msg_id, lease, message::text FROM enough_citus.queue_read('{queue}')"), &[])?;
        let (msg_id, lease, message): (i64, i64, &str) = (row.get(0), row.get(1), row.get(2));
        ensure!(message == "7", "{message}");
        ensure!(one(&mut second, &format!("SELECT count(*) FROM enough_citus.queue_read('{queue}')"))? == "0");
        ensure!(one(&mut second, &format!("enough_citus.queue_delete('{queue}', {msg_id}, {lease})"))? == "true");
    }
    ensure!(cluster.messages()? == [0, 0]);
    // A send that isn't committed holds up no other to the same queue, from wherever.
    for node in 0..3 {
        let mut open = cluster.client(node)?;
        open.batch_execute("BEGIN")?;
        one(&mut open, &format!("enough_citus.queue_send('{}', '1')", cluster.queues[0]))?;
        for session in [&mut coordinator, &mut first, &mut second] {
            session.batch_execute("SET statement_timeout = '20s'")?;
            let sent = one(session, &format!("enough_citus.queue_send('{}', '1')", cluster.queues[0]))?;
            one(session, &format!("enough_citus.queue_delete('{}', {sent})", cluster.queues[0]))?;
        }
        open.batch_execute("ROLLBACK")?;
    }
    ensure!(cluster.messages()? == [0, 0]);
    // In one transaction over both workers: read, finish, send on.
    let [a, b] = &cluster.queues;
    one(&mut first, &format!("enough_citus.queue_send('{a}', '1')"))?;
    coordinator.batch_execute(&format!(
        "BEGIN; SELECT enough_citus.queue_send('{b}', message) FROM enough_citus.queue_pop('{a}'); COMMIT"
    ))?;
    ensure!(cluster.messages()? == [0, 1], "{:?}", cluster.messages()?);
    ensure!(one(&mut second, &format!("SELECT message FROM enough_citus.queue_pop('{b}')"))? == "1");
    ensure!(cluster.messages()? == [0, 0], "{:?}", cluster.messages()?);
    Ok(())
}

fn errors(cluster: &Cluster) -> Result<()> {
    for (call, due) in [
        ("cache_get(NULL)", "22004"),
        ("cache_get(repeat('k', 5000))", "54000"),
        ("cache_set('k', '1', '-1 second')", "22023"),
        ("rate_limit('k', -1, '1 hour')", "22023"),
        ("rate_limit_enforce('k', 0, '1 hour')", "PT429"),
        ("rate_limit_by('none', 'k')", "42704"),
        ("queue_send('none', '1')", "42704"),
        ("queue_send(NULL, '1')", "22004"),
        ("queue_stats('none')", "42704"),
        ("cache_delete_prefix('k')", "55000"),
    ] {
        for node in 0..3 {
            let found = state(&mut cluster.client(node)?, call);
            ensure!(found == due, "{call} on node {node}: {found} in place of {due}");
        }
    }
    // What is put into the cache where the transaction also writes for two phases isn't there afterwards.
    let [a, b] = &cluster.queues;
    let mut session = cluster.client(COORDINATOR)?;
    session.batch_execute(&format!(
        "BEGIN; SELECT enough_citus.cache_set('{a}', '1'), enough_citus.queue_send('{a}', '1'), enough_citus.queue_send('{b}', '1'); COMMIT"
    ))?;
    ensure!(cluster.messages()? == [1, 1]);
    cluster.empty()?;
    ensure!(one(&mut session, &format!("enough_citus.cache_get('{a}')"))? == "NULL");
    // A transaction that makes queues on two nodes is refused; one by one they are made.
    let drop = |queue: &str| format!("SELECT enough_citus.queue_drop('{queue}_own', if_exists => true)");
    let make = |queue: &str| format!("SELECT enough_citus.queue_create('{queue}_own')");
    let (mut made, mut owners) = (Vec::new(), Vec::new());
    for number in 0.. {
        let name = format!("made{number}");
        let place = one(&mut session, &format!("SELECT node_port FROM enough_citus.where_is('{name}_own')"))?;
        if !owners.contains(&place) {
            owners.push(place);
            made.push(name);
        }
        if made.len() == 2 {
            break;
        }
    }
    let both = format!("BEGIN; {}; {}; COMMIT", make(&made[0]), make(&made[1]));
    let found = session.batch_execute(&both).err().and_then(|error| error.code().map(|code| code.code().to_owned()));
    ensure!(found.as_deref() == Some("0A000"), "{found:?}");
    session.batch_execute("ROLLBACK")?;
    for name in &made {
        session.batch_execute(&make(name))?;
        session.batch_execute(&drop(name))?;
    }
    Ok(())
}

/// Who may use the extension on a node may use it from all, and no more.
fn role(cluster: &Cluster) -> Result<()> {
    let mut coordinator = cluster.client(COORDINATOR)?;
    coordinator.batch_execute("CREATE ROLE app LOGIN")?;
    for node in 0..3 {
        let mut config = cluster.nodes[node].config();
        let mut app = config.user("app").connect(postgres::NoTls)?;
        one(&mut app, "enough_citus.cache_set('app', '1')")?;
        ensure!(one(&mut app, "enough_citus.cache_get('app')")? == "1");
        one(&mut app, "SELECT node_port FROM enough_citus.where_is('app')")?;
        for call in ["cache_clear()", "cache_stats()", "rate_limit_reset('k')"] {
            ensure!(state(&mut app, call) == "42501", "{call}: {}", state(&mut app, call));
        }
        let queue = &cluster.queues[0];
        ensure!(state(&mut app, &format!("queue_send('{queue}', '1')")) == "42501");
        ensure!(
            app.batch_execute("UPDATE enough_citus.node SET mark = true WHERE slot = 1").is_err(),
            "a slot is marked"
        );
    }
    Ok(())
}

fn cancelled(cluster: &Cluster) -> Result<()> {
    let queue = &cluster.queues[0];
    for node in 0..3 {
        let mut session = cluster.client(node)?;
        session.batch_execute("SET statement_timeout = '300ms'")?;
        let found = state(&mut session, &format!("queue_read('{queue}', wait => '30 seconds')"));
        ensure!(found == "57014", "{found:?}");
        session.batch_execute("SET statement_timeout = '1min'")?;
        one(&mut session, &format!("enough_citus.queue_send('{queue}', '1')"))?;
        let taken = one(
            &mut session,
            &format!("SELECT count(*) FROM enough_citus.queue_pop('{queue}', wait => '30 seconds')"),
        )?;
        ensure!(taken == "1", "{taken} messages from node {node}");
    }
    Ok(())
}

/// Run once more, the script leaves every key where it is, also one that has moved.
fn again(cluster: &Cluster) -> Result<()> {
    let mut coordinator = cluster.client(COORDINATOR)?;
    let places =
        "SELECT string_agg((enough_citus.where_is(n::text))::text, ' ' ORDER BY n) FROM generate_series(1, 200) AS n";
    moving::move_to(cluster, 2)?;
    let before = one(&mut coordinator, places)?;
    cluster.nodes[COORDINATOR].psql(&["-f".into(), scale::citus::file()])?;
    let after = one(&mut coordinator, places)?;
    moving::move_to(cluster, 1)?;
    ensure!(after == before, "keys have moved");
    for node in 0..3 {
        one(&mut cluster.client(node)?, "enough_citus.cache_set('again', '1')")?;
    }
    Ok(())
}

/// A node that comes later has the functions, and no keys until shards move there.
fn added(cluster: &Cluster) -> Result<()> {
    let node = Server::start(&Cluster::options(cluster.nodes[0].pg()))?;
    node.client()?.batch_execute("CREATE EXTENSION citus")?;
    let mut coordinator = cluster.client(COORDINATOR)?;
    let port = i32::from(node.port());
    coordinator.query_one("SELECT citus_add_node('127.0.0.1', $1)", &[&port])?;
    one(&mut coordinator, "enough_citus.cache_set('added', '1')")?;
    let found = one(&mut node.client()?, "enough_citus.cache_get('added')");
    let sent = one(&mut node.client()?, &format!("enough_citus.queue_send('{}', '1')", cluster.queues[0]));
    coordinator.execute("SELECT citus_remove_node('127.0.0.1', $1)", &[&port])?;
    ensure!(found? == "1");
    sent.map(drop)
}

/// Keys of a node that is down are refused, and the others' are not.
fn down(cluster: &mut Cluster) -> Result<()> {
    cluster.empty()?;
    cluster.nodes[2].stop(Shutdown::Fast)?;
    let mut coordinator = cluster.client(COORDINATOR)?;
    let [a, b] = &cluster.queues;
    let here = one(&mut coordinator, &format!("enough_citus.queue_send('{a}', '1')"));
    let there = state(&mut coordinator, &format!("queue_send('{b}', '1')"));
    cluster.nodes[2].launch()?;
    here?;
    ensure!(!there.is_empty(), "no error of a node that is down");
    one(&mut coordinator, &format!("enough_citus.queue_send('{b}', '1')"))?;
    ensure!(cluster.messages()? == [1, 1], "{:?}", cluster.messages()?);
    Ok(())
}

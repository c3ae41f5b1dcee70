//! Topics: what is published reaches each queue that is subscribed to it, once, whatever happens to queues and subscriptions
//! meanwhile.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{eventually, refused};
use enough_pg_test::queue;
use enough_pg_test::server::{Database, backend};
use postgres::{Client, Error, GenericClient};
use serde_json::json;
use std::thread;

fn made(queues: &[&str]) -> Result<(Database, Client, Client)> {
    let database = Database::new()?;
    let mut client = database.client()?;
    for queue in queues {
        client.execute("SELECT enough.queue_create($1)", &[queue])?;
    }
    let other = database.client()?;
    Ok((database, client, other))
}

fn subscribe(client: &mut impl GenericClient, pattern: &str, queue: &str) -> Result<bool, Error> {
    Ok(client.query_one("SELECT enough.topic_subscribe($1, $2)", &[&pattern, &queue])?.get(0))
}

fn unsubscribe(client: &mut impl GenericClient, pattern: &str, queue: &str) -> Result<bool, Error> {
    Ok(client.query_one("SELECT enough.topic_unsubscribe($1, $2)", &[&pattern, &queue])?.get(0))
}

/// Publishes a message; how many queues got it.
fn publish(client: &mut impl GenericClient, topic: &str) -> Result<i32, Error> {
    Ok(client.query_one("SELECT enough.topic_publish($1, to_jsonb($1::text))", &[&topic])?.get(0))
}

/// The messages that a queue holds, in the order in which they were sent.
fn held(client: &mut Client, queue: &str) -> Result<Vec<String>> {
    let sql = format!("SELECT message #>> '{{}}' FROM enough.\"q_{queue}\" ORDER BY msg_id");
    Ok(client.query(&sql, &[])?.iter().map(|row| row.get(0)).collect())
}

fn listed(client: &mut Client) -> Result<Vec<(String, String)>> {
    let rows = client.query("SELECT topic_pattern, queue FROM enough.topic_subscriptions()", &[])?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

#[test]
fn each_queue_that_a_pattern_matches_gets_the_message_once() -> Result<()> {
    let (_database, mut client, _) = made(&["all", "orders", "Odd-Name.1", "mails"])?;
    for (pattern, queue) in [
        ("#", "all"),
        ("orders.#", "orders"),
        ("orders.*", "orders"),
        ("*.new", "orders"),
        ("orders.*.paid", "Odd-Name.1"),
        ("mails", "mails"),
    ] {
        ensure!(subscribe(&mut client, pattern, queue)?, "{pattern}");
    }
    ensure!(!subscribe(&mut client, "#", "all")?, "a second subscription of the same pattern");
    for (topic, queues) in
        [("orders.new", 2), ("orders", 2), ("orders.eu.paid", 3), ("mails", 2), ("Orders.new", 2), ("mails.x", 1)]
    {
        ensure!(publish(&mut client, topic)? == queues, "{topic}");
    }
    ensure!(held(&mut client, "orders")? == ["orders.new", "orders", "orders.eu.paid", "Orders.new"]);
    ensure!(held(&mut client, "Odd-Name.1")? == ["orders.eu.paid"]);
    ensure!(held(&mut client, "mails")? == ["mails"]);
    ensure!(held(&mut client, "all")?.len() == 6);
    ensure!(unsubscribe(&mut client, "#", "all")? && !unsubscribe(&mut client, "#", "all")?);
    ensure!(!unsubscribe(&mut client, "orders.*", "mails")?, "of another queue");
    ensure!(publish(&mut client, "nobody.cares.at-all")? == 0);
    let expected = [("*.new", "orders"), ("mails", "mails"), ("orders.#", "orders")];
    let left = listed(&mut client)?;
    ensure!(expected.iter().all(|(pattern, queue)| left.contains(&((*pattern).into(), (*queue).into()))), "{left:?}");
    ensure!(left.len() == 5 && left.is_sorted(), "{left:?}");
    Ok(())
}

#[test]
fn what_is_published_has_the_options_of_a_send_and_wakes_who_waits() -> Result<()> {
    let (database, mut client, mut reader) = made(&["a", "b"])?;
    subscribe(&mut client, "t.*", "a")?;
    subscribe(&mut client, "t.#", "b")?;
    let pid = backend(&mut reader)?;
    let got = thread::scope(|scope| {
        let waiting = scope.spawn(|| queue::receive(&mut reader, "queue_read('b', 1, '1 hour', '1 minute')"));
        enough_pg_test::server::until_waiting(&mut client, pid)?;
        let sent = client.query_one(
            "SELECT enough.topic_publish('t.x', '{\"n\": 1}', priority => 7, group_key => 'g', headers => '{\"topic\": \"t.x\"}')",
            &[],
        )?;
        ensure!(sent.get::<_, i32>(0) == 2);
        Ok(waiting.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??)
    })?;
    ensure!(got.len() == 1 && got[0].priority == 7 && got[0].message == json!({"n": 1}), "{got:?}");
    ensure!(got[0].headers == Some(json!({"topic": "t.x"})), "{got:?}");
    let group: String = client.query_one("SELECT group_key FROM enough.q_a", &[])?.get(0);
    ensure!(group == "g");
    client.batch_execute("SELECT enough.topic_publish('t.late', '1', delay => '1 hour')")?;
    ensure!(queue::stats(&mut client, "a")?.delayed == 1 && queue::stats(&mut client, "b")?.delayed == 1);
    // NULL stands for each default; a published message is the transaction's own until it commits.
    let mut transaction = client.transaction()?;
    transaction.batch_execute("SELECT enough.topic_publish('t.y', '2', NULL, NULL, NULL, NULL)")?;
    let mut other = database.client()?;
    ensure!(queue::stats(&mut other, "b")?.ready == 0);
    transaction.rollback()?;
    ensure!(held(&mut client, "a")?.len() == 2);
    Ok(())
}

#[test]
fn a_session_publishes_by_the_subscriptions_of_the_moment() -> Result<()> {
    let (_database, mut client, mut publisher) = made(&["a", "b", "c"])?;
    subscribe(&mut client, "t", "a")?;
    ensure!(publish(&mut publisher, "t")? == 1);
    // One of a transaction is its own until it commits.
    let mut transaction = client.transaction()?;
    subscribe(&mut transaction, "t", "b")?;
    ensure!(publish(&mut transaction, "t")? == 2);
    ensure!(publish(&mut publisher, "t")? == 1);
    transaction.commit()?;
    ensure!(publish(&mut publisher, "t")? == 2);
    // What a rollback undoes, also one to a savepoint, is undone for the session itself.
    let mut transaction = client.transaction()?;
    let mut savepoint = transaction.savepoint("s")?;
    subscribe(&mut savepoint, "t", "c")?;
    ensure!(publish(&mut savepoint, "t")? == 3);
    savepoint.rollback()?;
    ensure!(publish(&mut transaction, "t")? == 2);
    unsubscribe(&mut transaction, "t", "a")?;
    ensure!(publish(&mut transaction, "t")? == 1);
    transaction.rollback()?;
    ensure!(publish(&mut client, "t")? == 2);
    // A publisher whose transaction began before learns of it, too, at any isolation.
    for isolation in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        publisher.batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}; SELECT 1"))?;
        ensure!(publish(&mut publisher, "t")? == 2);
        unsubscribe(&mut client, "t", "b")?;
        ensure!(publish(&mut publisher, "t")? == 1, "{isolation}");
        publisher.batch_execute("ROLLBACK")?;
        subscribe(&mut client, "t", "b")?;
    }
    // Changes by hand count as well.
    for (statement, queues) in [
        ("INSERT INTO enough.topic_subscription (queue, topic_pattern) VALUES ('c', 't')", 3),
        ("UPDATE enough.topic_subscription SET topic_pattern = 'u' WHERE queue = 'b'", 2),
        ("DELETE FROM enough.topic_subscription WHERE queue = 'c'", 1),
        ("COPY enough.topic_subscription (queue, topic_pattern) FROM PROGRAM 'printf \"c\\tt\\n\"'", 2),
        ("SET session_replication_role = replica; DELETE FROM enough.topic_subscription WHERE queue = 'c'", 1),
        ("TRUNCATE enough.topic_subscription", 0),
    ] {
        client.batch_execute(statement)?;
        ensure!(publish(&mut publisher, "t")? == queues, "{statement}");
    }
    Ok(())
}

#[test]
fn subscriptions_follow_their_queue() -> Result<()> {
    let (_database, mut client, mut publisher) = made(&["a", "b"])?;
    subscribe(&mut client, "t.#", "a")?;
    subscribe(&mut client, "t", "a")?;
    subscribe(&mut client, "t", "b")?;
    ensure!(publish(&mut publisher, "t")? == 2);
    client.batch_execute("SELECT enough.queue_rename('a', 'new')")?;
    ensure!(publish(&mut publisher, "t")? == 2);
    ensure!(held(&mut client, "new")?.len() == 2);
    client.batch_execute("SELECT enough.queue_create('a'), enough.queue_drop('b')")?;
    ensure!(publish(&mut publisher, "t")? == 1);
    ensure!(held(&mut client, "a")?.is_empty(), "another queue of the old name was subscribed");
    ensure!(listed(&mut client)? == [("t", "new"), ("t.#", "new")].map(|(p, q)| (p.into(), q.into())));
    // Options may change and a queue be paused without an effect on subscriptions.
    client.batch_execute("SELECT enough.queue_alter('new', max_attempts => 3), enough.queue_pause('new')")?;
    ensure!(publish(&mut publisher, "t")? == 1);
    // Where a queue's tables went by hand, publishing says so; a new queue of the name begins without subscriptions.
    client.batch_execute("DROP TABLE enough.q_new, enough.a_new")?;
    let hint = refused(publish(&mut publisher, "t"), "42704")?;
    ensure!(hint.contains("queue_drop('new')"), "{hint}");
    client.batch_execute("SELECT enough.queue_create('new')")?;
    ensure!(publish(&mut publisher, "t")? == 0 && listed(&mut client)?.is_empty());
    Ok(())
}

/// Lets a session publish while another one's transaction has the queue `a` locked, and ends that: how many got the message.
fn meanwhile(database: &Database, change: &str) -> Result<Result<i32, Error>> {
    let (mut client, mut publisher) = (database.client()?, database.client()?);
    ensure!(publish(&mut publisher, "t")? == 2);
    let pid = i32::try_from(backend(&mut publisher)?)?;
    let mut transaction = client.transaction()?;
    transaction.batch_execute(change)?;
    let mut observer = database.client()?;
    thread::scope(|scope| {
        let publishing = scope.spawn(|| publish(&mut publisher, "t"));
        eventually("the publisher waits for a lock", || {
            let waits = "SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'";
            Ok(observer.query_opt(waits, &[&pid])?.map(drop))
        })?;
        transaction.commit()?;
        publishing.join().map_err(|_| anyhow::anyhow!("the publisher panicked"))
    })
}

#[test]
fn a_queue_that_is_renamed_or_dropped_while_a_publisher_waits_for_it() -> Result<()> {
    for (change, queues) in [
        ("SELECT enough.queue_rename('a', 'z')", 2),
        ("SELECT enough.queue_drop('a')", 1),
        ("SELECT enough.topic_unsubscribe('t', 'a'); LOCK enough.q_a IN ACCESS EXCLUSIVE MODE", 1),
        ("SELECT enough.queue_rename('a', 'z'), enough.queue_create('a'); LOCK enough.q_a IN ACCESS EXCLUSIVE MODE", 2),
        ("SELECT enough.queue_drop('a'), enough.queue_create('a'), enough.topic_subscribe('t', 'a')", 2),
    ] {
        let (database, mut client, _) = made(&["a", "b"])?;
        subscribe(&mut client, "t", "a")?;
        subscribe(&mut client, "t", "b")?;
        let sent = meanwhile(&database, change)?.with_context(|| change.to_owned())?;
        ensure!(sent == queues, "{change}: {sent}");
        ensure!(held(&mut client, "b")?.len() == 2, "{change}");
    }
    Ok(())
}

#[test]
fn a_publisher_needs_the_right_to_send_to_each_and_a_subscription_gives_none() -> Result<()> {
    let (database, mut client, _) = made(&["a", "b"])?;
    let [user, owner, operator] = ["user", "owner", "operator"].map(|what| database.role(what));
    client.batch_execute(&format!(
        "CREATE ROLE {user} LOGIN; CREATE ROLE {owner} LOGIN; CREATE ROLE {operator} LOGIN; \
         SELECT enough.grant_to('{operator}', 'operator'), enough.queue_grant('a', '{user}', 'all'); \
         ALTER TABLE enough.q_b OWNER TO {owner}; ALTER TABLE enough.a_b OWNER TO {owner}"
    ))?;
    let mut sessions = Vec::new();
    for role in [&user, &owner, &operator] {
        sessions.push(database.client_as(role)?);
    }
    let [user_session, owner_session, operator_session] = &mut sessions[..] else { anyhow::bail!("sessions") };
    // Whoever may send, or consume, may not have everybody's messages sent there.
    for function in ["topic_subscribe", "topic_unsubscribe"] {
        let hint = refused(user_session.query(&format!("SELECT enough.{function}('#', 'a')"), &[]), "42501")?;
        ensure!(hint.contains("owner") && hint.contains("operators"), "{hint}");
    }
    refused(subscribe(owner_session, "#", "a"), "42501")?;
    ensure!(subscribe(owner_session, "t", "b")? && subscribe(operator_session, "t.#", "a")?);
    ensure!(publish(user_session, "t.x")? == 1);
    // Of two queues one may not be sent to: nothing is sent, and the error says which.
    let hint = refused(publish(user_session, "t"), "42501")?;
    ensure!(hint.contains("INSERT") && hint.contains("q_b"), "{hint}");
    ensure!(held(&mut client, "a")? == ["t.x"] && held(&mut client, "b")?.is_empty());
    client.batch_execute(&format!("SELECT enough.queue_grant('b', '{user}', 'send')"))?;
    ensure!(publish(user_session, "t")? == 2);
    // The table of subscriptions is for everybody to see, and for nobody to write but admins, who restore dumps.
    ensure!(listed(user_session)?.len() == 2);
    for statement in [
        "INSERT INTO enough.topic_subscription (queue, topic_pattern) VALUES ('a', '#')",
        "DELETE FROM enough.topic_subscription",
        "TRUNCATE enough.topic_subscription",
        "SELECT enough._topic_subscription_changed()",
    ] {
        refused(operator_session.batch_execute(statement), "42501").context(statement)?;
    }
    // It works where the roles may not see it, either.
    client.batch_execute("REVOKE SELECT ON enough.topic_subscription FROM PUBLIC")?;
    ensure!(publish(user_session, "t")? == 2 && unsubscribe(operator_session, "t.#", "a")?);
    ensure!(publish(user_session, "t")? == 1);
    Ok(())
}

#[test]
fn sessions_that_publish_and_change_subscriptions_at_once_lose_nothing() -> Result<()> {
    let queues = ["a", "b", "c", "d", "e"];
    let (database, mut client, _) = made(&queues)?;
    for queue in queues {
        subscribe(&mut client, "t.#", queue)?;
    }
    let publishers: Vec<_> = (0..4)
        .map(|number| {
            let database = database.clone();
            thread::spawn(move || -> Result<i64> {
                let mut client = database.client()?;
                let mut sent = 0;
                for message in 0..200 {
                    sent += i64::from(publish(&mut client, &format!("t.{number}.{message}"))?);
                }
                Ok(sent)
            })
        })
        .collect();
    // Meanwhile one more queue comes and goes, and one has now this name, now that.
    let mut round = 0;
    let mut gone = 0;
    while !publishers.iter().all(thread::JoinHandle::is_finished) {
        round += 1;
        let steps = [
            "SELECT enough.queue_create('x', if_not_exists => true), enough.topic_subscribe('#', 'x')",
            "SELECT enough.queue_rename('e', 'f')",
            "SELECT enough.queue_rename('f', 'e')",
        ];
        for step in steps {
            client.batch_execute(step).with_context(|| step.to_owned())?;
        }
        let mut transaction = client.transaction()?;
        transaction.batch_execute("LOCK enough.q_x IN ACCESS EXCLUSIVE MODE")?;
        gone += transaction.query_one("SELECT count(*) FROM enough.q_x", &[])?.get::<_, i64>(0);
        transaction.batch_execute("SELECT enough.queue_drop('x')")?;
        transaction.commit()?;
    }
    let mut sent = 0;
    for publisher in publishers {
        sent += publisher.join().map_err(|_| anyhow::anyhow!("a publisher panicked"))??;
    }
    let mut there = gone;
    for queue in queues {
        let held = held(&mut client, queue)?;
        ensure!(held.len() == 800, "{queue}: {}", held.len());
        there += i64::try_from(held.len())?;
    }
    ensure!(round > 1 && there == sent, "{round} rounds, {there} of {sent}");
    Ok(())
}

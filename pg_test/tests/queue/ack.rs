//! Acknowledgement that doesn't wait for the disk: what a crash right after the commit takes back, and what it doesn't.

use anyhow::{Context, Result, ensure};
use enough_pg_test::queue::{ids, read, send_numbers};
use enough_pg_test::server::{self, Database};
use postgres::Client;
use xtask::server::Server;

/// A server that crashes before its WAL writer has written anything of what commits don't wait for.
struct Crashing {
    server: Server,
    database: Database,
}

impl Crashing {
    fn new() -> Result<Self> {
        // Who writes a page writes the WAL before it: neither of these may come in between.
        let options = server::options()?.conf("bgwriter_lru_maxpages", "0").conf("autovacuum", "off");
        let server = server::start(&options)?;
        let database = Database::on(&server)?;
        database.client()?.batch_execute("CREATE TABLE note (text text)")?;
        Ok(Crashing { server, database })
    }

    /// Does `work` in a session, and takes the server down behind it.
    fn crash_after<R>(&mut self, work: impl FnOnce(&mut Client) -> Result<R>) -> Result<R> {
        let mut client = self.database.client()?;
        let pid = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'";
        let pid = client.query_one(pid, &[]).context("no WAL writer")?.get::<_, i32>(0).unsigned_abs();
        self.server.pause(pid)?;
        let result = work(&mut client)?;
        // What stands still can be killed, and takes the others with it.
        self.server.backend_kill9(pid)?;
        self.server.wait_until_up()?;
        Ok(result)
    }

    /// Whether the message that `work` finishes, after it was read by that lease, is there again after a crash.
    fn comes_again(&mut self, queue: &str, work: &str) -> Result<bool> {
        let make = "SELECT enough.queue_drop('q', if_exists => true); SELECT enough.queue_create('q', ack";
        self.comes_again_in(&format!("{make} => '{queue}')"), work)
    }

    /// The same in a queue that is made anew so.
    fn comes_again_in(&mut self, make: &str, work: &str) -> Result<bool> {
        let mut client = self.database.client()?;
        client.batch_execute(&format!("TRUNCATE note; {make}"))?;
        let sent = send_numbers(&mut client, "q", 1)?;
        self.crash_after(|client| {
            client.batch_execute(work)?;
            ensure!(client.query_one("SHOW synchronous_commit", &[])?.get::<_, String>(0) == "on");
            ensure!(client.query("SELECT FROM enough.q_q", &[])?.is_empty(), "{work}: it was finished");
            Ok(())
        })?;
        let left = ids(&read(&mut self.database.client()?, "q", 9)?);
        ensure!(left.is_empty() || left == sent, "{work}: {left:?}");
        Ok(!left.is_empty())
    }
}

const DELETE: &str = "SELECT enough.queue_delete('q', msg_id, lease) FROM enough.queue_read('q')";

#[test]
fn a_commit_that_only_finishes_messages_does_not_wait() -> Result<()> {
    let mut crashing = Crashing::new()?;
    for work in [
        DELETE,
        "SELECT enough.queue_pop('q')",
        "SELECT enough.queue_archive('q', msg_id, '1', lease) FROM enough.queue_read('q')",
        "SELECT enough.queue_delete_batch('q', array_agg(msg_id)) FROM enough.queue_read('q')",
        "SELECT enough.queue_archive_batch('q', array_agg(msg_id)) FROM enough.queue_read('q')",
        // One transaction, and a savepoint in it.
        "BEGIN; SELECT enough.queue_read('q'); SAVEPOINT s; SELECT enough.queue_delete('q', 1); RELEASE s; COMMIT",
    ] {
        // Another process may still have written the WAL in time, a checkpoint for one: not three times in a row.
        let mut comes_again = false;
        for _ in 0..3 {
            comes_again = comes_again || crashing.comes_again("async", work)?;
        }
        ensure!(comes_again, "{work}: the commit waited");
        ensure!(!crashing.comes_again("durable", work)?, "{work}: the commit of a queue that is durable didn't wait");
    }
    Ok(())
}

#[test]
fn nor_does_one_by_the_interface_of_pgmq() -> Result<()> {
    let mut crashing = Crashing::new()?;
    crashing.database.client()?.batch_execute("CREATE EXTENSION pgmq")?;
    let durable = "SELECT pgmq.drop_queue('q'); SELECT pgmq.create('q')";
    let make = format!("{durable}; SELECT enough.queue_alter('q', ack => 'async')");
    for work in [
        "SELECT pgmq.delete('q', msg_id) FROM pgmq.read('q', 60, 1)",
        "SELECT pgmq.pop('q')",
        "SELECT pgmq.archive('q', msg_id) FROM pgmq.read('q', 60, 1)",
    ] {
        let mut comes_again = false;
        for _ in 0..3 {
            comes_again = comes_again || crashing.comes_again_in(&make, work)?;
        }
        ensure!(comes_again, "{work}: the commit waited");
        ensure!(!crashing.comes_again_in(durable, work)?, "{work}: the commit of a queue that is durable didn't wait");
    }
    Ok(())
}

#[test]
fn a_commit_with_other_work_waits() -> Result<()> {
    let mut crashing = Crashing::new()?;
    for work in [
        format!("BEGIN; INSERT INTO note VALUES ('before'); {DELETE}; COMMIT"),
        format!("BEGIN; {DELETE}; INSERT INTO note VALUES ('after'); COMMIT"),
        format!("BEGIN; SAVEPOINT s; INSERT INTO note VALUES ('before'); RELEASE s; {DELETE}; COMMIT"),
        format!("WITH done AS ({DELETE}) INSERT INTO note SELECT 'within' FROM done"),
        // By a trigger on the queue's own table, or on its archive.
        format!(
            "CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN INSERT INTO public.note VALUES (TG_TABLE_NAME); RETURN coalesce(NEW, OLD); END $$; \
             CREATE TRIGGER noted AFTER DELETE ON enough.q_q FOR EACH ROW EXECUTE FUNCTION noted(); {DELETE}"
        ),
        "CREATE TRIGGER noted AFTER INSERT ON enough.a_q FOR EACH ROW EXECUTE FUNCTION noted(); \
         SELECT enough.queue_archive('q', msg_id, NULL, lease) FROM enough.queue_read('q')"
            .into(),
    ] {
        ensure!(!crashing.comes_again("async", &work)?, "{work}: the commit didn't wait");
        let noted: i64 = crashing.database.client()?.query_one("SELECT count(*) FROM note", &[])?.get(0);
        ensure!(noted == 1, "{work}: {noted} rows");
    }
    // Another queue's message, sent in the same transaction.
    crashing.database.client()?.batch_execute("SELECT enough.queue_create('next')")?;
    let work = format!("BEGIN; {DELETE}; SELECT enough.queue_send('next', '1'); COMMIT");
    ensure!(!crashing.comes_again("async", &work)?);
    ensure!(read(&mut crashing.database.client()?, "next", 9)?.len() == 1);
    Ok(())
}

#[test]
fn what_comes_after_such_a_commit_waits_as_ever() -> Result<()> {
    let mut crashing = Crashing::new()?;
    for between in ["", "BEGIN; SELECT enough.queue_delete('q', 1); ROLLBACK;"] {
        let work = format!("{between} {DELETE}; INSERT INTO note VALUES ('next')");
        // Each statement is a transaction of its own where none is open.
        let statements: Vec<String> = work.split("; INSERT").map(str::to_owned).collect();
        let mut client = crashing.database.client()?;
        client.batch_execute(
            "SELECT enough.queue_drop('q', if_exists => true); TRUNCATE note; SELECT enough.queue_create('q', ack => 'async')",
        )?;
        send_numbers(&mut client, "q", 1)?;
        crashing.crash_after(|client| {
            client.batch_execute(&statements[0])?;
            client.batch_execute(&format!("INSERT{}", statements[1]))?;
            Ok(())
        })?;
        let mut client = crashing.database.client()?;
        ensure!(client.query_one("SELECT count(*) FROM note", &[])?.get::<_, i64>(0) == 1);
        // That commit has taken the one before it to the disk.
        ensure!(read(&mut client, "q", 9)?.is_empty());
    }
    Ok(())
}

#[test]
fn the_option_is_listed_altered_and_checked() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('q', ack => 'async')")?;
    let listed = "SELECT ack FROM enough.queue_list()";
    ensure!(client.query_one(listed, &[])?.get::<_, String>(0) == "async");
    client.batch_execute("SELECT enough.queue_alter('q', max_attempts => 3)")?;
    ensure!(client.query_one(listed, &[])?.get::<_, String>(0) == "async");
    client.batch_execute("SELECT enough.queue_alter('q', ack => 'durable')")?;
    ensure!(client.query_one(listed, &[])?.get::<_, String>(0) == "durable");
    Ok(())
}

//! Tables of queues that `enough.queue` knows nothing of, after a partial restore, DROP EXTENSION or a rename by hand: what
//! every call says of them, and how they become queues again with their messages.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::refused;
use enough_pg_test::queue::{self, made};
use enough_pg_test::server::{Database, backend, until_waiting};
use postgres::Client;
use serde_json::json;

/// Three live messages, one of them delayed, and an archived one.
fn fill(client: &mut Client) -> Result<()> {
    client.batch_execute(
        "SELECT enough.queue_send('q', to_jsonb(n)) FROM generate_series(1, 3) AS n; \
         SELECT enough.queue_send('q', '4', delay => '1 hour'); SELECT enough.queue_archive('q', 3, '\"done\"')",
    )?;
    Ok(())
}

/// Every call by name says the same, with what to do about it.
fn says_how_to_take_it_up(client: &mut Client, queue: &str) -> Result<()> {
    for call in [
        format!("queue_send('{queue}', '1')"),
        format!("queue_send_batch('{queue}', '{{1,2}}')"),
        format!("queue_read('{queue}')"),
        format!("queue_pop('{queue}')"),
        format!("queue_peek('{queue}')"),
        format!("queue_delete('{queue}', 1)"),
        format!("queue_archive('{queue}', 1)"),
        format!("queue_fail('{queue}', 1)"),
        format!("queue_extend('{queue}', 1, '1 s')"),
        format!("queue_extend_batch('{queue}', '{{1}}')"),
        format!("queue_fail_batch('{queue}', '{{1}}')"),
        format!("queue_release('{queue}', 1)"),
        format!("queue_release_batch('{queue}', '{{1}}')"),
        format!("queue_read_these('{queue}', '{{1}}')"),
        format!("queue_read_own('{queue}')"),
        format!("queue_reschedule('{queue}', '{{1}}', now())"),
        format!("queue_visible_at('{queue}', 1)"),
        format!("queue_status('{queue}', 1)"),
        format!("queue_dead('{queue}')"),
        format!("queue_redrive('{queue}')"),
        format!("queue_purge('{queue}')"),
        format!("queue_stats('{queue}')"),
        format!("queue_alter('{queue}', max_attempts => 1)"),
        format!("queue_pause('{queue}')"),
        format!("queue_rename('{queue}', 'other')"),
    ] {
        let hint = refused(client.query(&format!("SELECT * FROM enough.{call}"), &[]), "42704").context(call)?;
        ensure!(hint.contains(&format!("enough.queue_create('{queue}', if_not_exists => true)")), "{hint}");
    }
    let hint = refused(client.query(&format!("SELECT enough.queue_create('{queue}')"), &[]), "42710")?;
    ensure!(hint.contains("if_not_exists => true"), "{hint}");
    Ok(())
}

fn take_up(client: &mut Client, queue: &str) -> Result<bool> {
    Ok(client.query_one(&format!("SELECT enough.queue_create('{queue}', if_not_exists => true)"), &[])?.get(0))
}

/// What [`fill`] has made is there, and new messages get numbers of their own.
fn is_whole(client: &mut Client, queue: &str) -> Result<()> {
    let read = queue::sorted_ids(&queue::read(client, queue, 10)?);
    ensure!(read == [1, 2], "{read:?}");
    let archived = queue::ids(&queue::receive(client, &format!("queue_peek('{queue}', state => 'done')"))?);
    ensure!(archived == [3], "{archived:?}");
    let row = client.query_one("SELECT delayed, archived FROM enough.queue_stats($1)", &[&queue])?;
    ensure!((row.get::<_, i64>(0), row.get::<_, i64>(1)) == (1, 1), "{row:?}");
    let next = queue::send(client, queue, &json!("next"))?;
    ensure!(next > 4, "number {next} was given twice");
    Ok(())
}

#[test]
fn tables_without_their_row_are_taken_up_with_their_messages() -> Result<()> {
    let (database, mut client, mut other) = made(", max_attempts => 7")?;
    fill(&mut client)?;
    // Both sessions know the queue, and the memory does.
    queue::stats(&mut other, "q")?;
    client.batch_execute("DELETE FROM enough.queue")?;
    let mut late = database.client()?;
    for client in [&mut late, &mut client, &mut other] {
        client.batch_execute("CREATE TEMP TABLE IF NOT EXISTS t (id int)")?;
        says_how_to_take_it_up(client, "q")?;
    }
    ensure!(take_up(&mut client, "q")? && !take_up(&mut client, "q")?);
    is_whole(&mut other, "q")
}

#[test]
fn queues_outlive_their_extension_and_are_taken_up_by_the_next() -> Result<()> {
    let (_database, mut client, mut other) = made("")?;
    fill(&mut client)?;
    queue::stats(&mut other, "q")?;
    client.batch_execute("DROP EXTENSION pg_enough; CREATE EXTENSION pg_enough")?;
    for client in [&mut client, &mut other] {
        says_how_to_take_it_up(client, "q")?;
    }
    ensure!(take_up(&mut client, "q")?);
    is_whole(&mut other, "q")
}

#[test]
fn a_rename_by_hand_is_finished_by_either_call() -> Result<()> {
    for by_rename in [true, false] {
        for archive_too in [true, false] {
            let (_database, mut client, mut other) = made(", max_attempts => 7")?;
            fill(&mut client)?;
            client.batch_execute("ALTER TABLE enough.q_q RENAME TO q_new")?;
            if archive_too {
                client.batch_execute("ALTER TABLE enough.a_q RENAME TO a_new")?;
            }
            says_how_to_take_it_up(&mut other, "new")?;
            let hint = refused(queue::send(&mut other, "q", &json!(1)), "42704")?;
            ensure!(hint.contains("enough.queue_rename('q',"), "{hint}");
            if by_rename {
                client.batch_execute("SELECT enough.queue_rename('q', 'new')")?;
                is_whole(&mut other, "new")?;
                let attempts: i32 = client.query_one("SELECT max_attempts FROM enough.queue_list()", &[])?.get(0);
                ensure!(attempts == 7, "the options were lost");
            } else {
                ensure!(take_up(&mut client, "new")?);
                if archive_too {
                    is_whole(&mut other, "new")?;
                }
            }
            // The old name is free, with all names that belong to it.
            client.batch_execute("DROP TABLE IF EXISTS enough.a_q; SELECT enough.queue_create('q')")?;
            queue::send(&mut client, "q", &json!(1))?;
        }
    }
    Ok(())
}

#[test]
fn a_queue_is_renamed_with_all_that_belongs_to_it() -> Result<()> {
    let (database, mut client, mut other) = made(", visibility_timeout => '1 hour', max_attempts => 7")?;
    let role = database.role("user");
    client.batch_execute(&format!("CREATE ROLE {role}; SELECT enough.queue_grant('q', '{role}', 'all')"))?;
    fill(&mut client)?;
    let leased = queue::read(&mut other, "q", 1)?;
    client.batch_execute("SELECT enough.queue_rename('q', 'Orders-2')")?;
    let hint = refused(queue::send(&mut other, "q", &json!(1)), "42704")?;
    ensure!(!hint.is_empty());
    // The lease holds under the new name, and the rest is to be read there.
    let rest = queue::ids(&queue::read(&mut other, "Orders-2", 10)?);
    ensure!(leased.len() == 1 && rest == [2], "{leased:?} {rest:?}");
    ensure!(queue::delete(&mut other, "Orders-2", leased[0].msg_id, leased[0].lease)?);
    let row = client.query_one(
        "SELECT count(*) FILTER (WHERE has_table_privilege($1, c.oid, 'INSERT')), count(*) \
         FROM pg_class AS c WHERE relnamespace = 'enough'::regnamespace AND relname IN ('q_Orders-2', 'a_Orders-2')",
        &[&role],
    )?;
    ensure!((row.get::<_, i64>(0), row.get::<_, i64>(1)) == (1, 2), "{row:?}");
    let left: i64 = client
        .query_one(
            "SELECT count(*) FROM pg_class WHERE relnamespace = 'enough'::regnamespace AND relname ~ '^([qas]_q$|i_q_)'",
            &[],
        )?
        .get(0);
    ensure!(left == 0, "{left} relations of the old name");
    let options = client.query_one("SELECT name, max_attempts FROM enough.queue_list()", &[])?;
    ensure!(options.get::<_, &str>(0) == "Orders-2" && options.get::<_, i32>(1) == 7);
    // A rollback leaves all as it was.
    client.batch_execute("BEGIN; SELECT enough.queue_rename('Orders-2', 'x'); ROLLBACK")?;
    queue::send(&mut other, "Orders-2", &json!("five"))?;

    client.batch_execute("SELECT enough.queue_create('taken')")?;
    refused(client.query("SELECT enough.queue_rename('Orders-2', 'taken')", &[]), "42710")?;
    refused(client.query("SELECT enough.queue_rename('Orders-2', 'no name')", &[]), "22023")?;
    refused(client.query("SELECT enough.queue_rename('nowhere', 'x')", &[]), "42704")?;
    refused(client.query("SELECT enough.queue_rename(NULL, 'x')", &[]), "22004")?;
    let mut user = database.client()?;
    user.batch_execute(&format!("SET ROLE {role}"))?;
    refused(user.query("SELECT enough.queue_rename('Orders-2', 'x')", &[]), "42501")?;
    Ok(())
}

#[test]
fn a_rename_ends_the_waits_for_the_old_name() -> Result<()> {
    let (_database, mut client, mut other) = made("")?;
    let pid = backend(&mut other)?;
    let waits = std::thread::spawn(move || queue::receive(&mut other, "queue_read('q', wait => '1 minute')"));
    until_waiting(&mut client, pid)?;
    client.batch_execute("SELECT enough.queue_rename('q', 'new')")?;
    let outcome = waits.join().map_err(|_| anyhow::anyhow!("the reader has panicked"))?;
    refused(outcome, "42704")?;
    Ok(())
}

#[test]
fn whatever_is_left_of_a_queue_is_made_whole() -> Result<()> {
    for damage in [
        "DROP TABLE enough.a_q",
        "DROP TABLE enough.q_q",
        "DELETE FROM enough.queue",
        "DELETE FROM enough.queue; DROP TABLE enough.q_q",
        "DELETE FROM enough.queue; DROP TABLE enough.a_q",
        "DELETE FROM enough.queue; DROP INDEX enough.i_q_due, enough.i_q_dedup, enough.i_q_done",
        "DELETE FROM enough.queue; ALTER TABLE enough.q_q DROP CONSTRAINT i_q_key, ALTER msg_id DROP IDENTITY",
        "DELETE FROM enough.queue; ALTER TABLE enough.a_q DROP CONSTRAINT i_q_archive",
        "DELETE FROM enough.queue; ALTER SEQUENCE enough.s_q RENAME TO my_numbers; ALTER SEQUENCE enough.my_numbers RESTART",
    ] {
        let (_database, mut client, mut other) = made("")?;
        fill(&mut client)?;
        client.batch_execute(damage)?;
        ensure!(take_up(&mut client, "q").context(damage)?, "{damage}: nothing was taken up");
        let whole = client.query_one(
            "SELECT count(*), count(*) FILTER (WHERE c.relname ~ '^i_q_(key|due|group|dedup|archive|done|dead)$') \
             FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid \
             WHERE i.indrelid IN ('enough.q_q'::regclass, 'enough.a_q'::regclass)",
            &[],
        )?;
        let (all, standard): (i64, i64) = (whole.get(0), whole.get(1));
        ensure!(all == standard && all >= 7, "{damage}: {standard} of {all} indexes");
        let next = queue::send(&mut other, "q", &json!(1)).context(damage)?;
        ensure!(next > 3, "{damage}: number {next} was given twice");
        let read = queue::ids(&queue::read(&mut other, "q", 10)?);
        ensure!(read.contains(&next), "{damage}: {read:?}");
        client.execute("SELECT enough.queue_archive('q', $1)", &[&next])?;
        ensure!(client.query("SELECT * FROM enough.queue_status('q', $1)", &[&next])?.len() == 1);
        // All that is left can be dropped, too.
        client.batch_execute(&format!("{damage}; SELECT enough.queue_drop('q'), enough.queue_create('q')"))?;
    }
    Ok(())
}

#[test]
fn what_is_no_queue_or_not_the_callers_is_not_taken_up() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute(
        "CREATE TABLE enough.q_notes (msg_id bigint PRIMARY KEY, note text); CREATE VIEW enough.q_view AS SELECT 1 AS a; \
         CREATE TABLE enough.a_log (line text)",
    )?;
    for name in ["notes", "view", "log"] {
        refused(client.query(&format!("SELECT enough.queue_create('{name}')"), &[]), "42710").context(name)?;
        let call = format!("SELECT enough.queue_create('{name}', if_not_exists => true)");
        let hint = refused(client.query(&call, &[]), "55000").context(name)?;
        ensure!(hint.contains("ename or drop"), "{hint}");
    }
    let role = database.role("user");
    client.batch_execute(&format!(
        "CREATE ROLE {role}; GRANT CREATE ON SCHEMA enough TO {role}; SELECT enough.queue_create('q'); \
         DELETE FROM enough.queue; SET ROLE {role}"
    ))?;
    let hint = refused(client.query("SELECT enough.queue_create('q', if_not_exists => true)", &[]), "42501")?;
    ensure!(hint.contains("owner"), "{hint}");
    Ok(())
}

//! Grouped reads.

use crate::common::{expect, made, rows};
use anyhow::{Result, ensure};
use enough_pg_test::check::rows_read;
use postgres::Client;
use std::collections::HashSet;

/// A queue with four messages of each of the groups a, b and c in turn, and two without a group.
fn grouped(client: &mut Client) -> Result<()> {
    client.batch_execute(
        "SELECT pgmq.create('g'); SELECT pgmq.create_fifo_index('g'), pgmq.create_fifo_indexes_all();
         SELECT pgmq.send('g', to_jsonb(n), jsonb_build_object('x-pgmq-group', (ARRAY['c', 'a', 'b'])[1 + n % 3]))
           FROM generate_series(1, 12) AS n;
         SELECT pgmq.send_batch('g', '{13,14}')",
    )?;
    Ok(())
}

#[test]
fn as_many_as_possible_of_the_oldest_group_come_first() -> Result<()> {
    let (_database, mut client, _) = made()?;
    grouped(&mut client)?;
    expect(
        &mut client,
        &[
            ("SELECT msg_id FROM pgmq.read_grouped('g', 3600, 6) ORDER BY 1", &["1", "2", "4", "5", "7", "10"]),
            // Of the groups that are left.
            ("SELECT msg_id FROM pgmq.read_grouped('g', 3600, 3) ORDER BY 1", &["3", "6", "9"]),
            ("SELECT msg_id FROM pgmq.read_grouped('g', 3600, 30) ORDER BY 1", &["13", "14"]),
            ("SELECT msg_id FROM pgmq.read_grouped('g', 3600, 30)", &[]),
            // The heads of a and b are done: their others are there, but for those that are invisible.
            ("SELECT pgmq.delete('g', 1), pgmq.archive('g', 2)", &["t|t"]),
            ("SELECT msg_id FROM pgmq.read_grouped('g', 3600, 30)", &[]),
            ("SELECT count(*) FROM pgmq.set_vt('g', '{4,10}'::bigint[], 0)", &["2"]),
            ("SELECT msg_id, read_ct FROM pgmq.read_grouped('g', 3600, 30) ORDER BY 1", &["4|2", "10|2"]),
        ],
    )
}

#[test]
fn groups_take_turns() -> Result<()> {
    let (_database, mut client, _) = made()?;
    grouped(&mut client)?;
    expect(
        &mut client,
        &[
            (
                "SELECT msg_id FROM pgmq.read_grouped_rr('g', 0, 50)",
                &["1", "2", "3", "13", "4", "5", "6", "14", "7", "8", "9", "10", "11", "12"],
            ),
            ("SELECT msg_id FROM pgmq.set_vt('g', 5, 3600)", &["5"]),
            ("SELECT msg_id FROM pgmq.set_vt('g', 13, 3600)", &["13"]),
            ("SELECT msg_id FROM pgmq.read_grouped_rr('g', 0, 6)", &["1", "2", "3", "4", "8", "6"]),
            ("SELECT msg_id, read_ct FROM pgmq.read_grouped_rr('g', 3600, 5)", &["1|3", "2|3", "3|3", "4|3", "8|3"]),
            ("SELECT msg_id FROM pgmq.read_grouped_rr('g', 0, 5)", &[]),
        ],
    )
}

#[test]
fn one_message_a_group() -> Result<()> {
    let (_database, mut client, _) = made()?;
    grouped(&mut client)?;
    expect(
        &mut client,
        &[
            ("SELECT msg_id, read_ct FROM pgmq.read_grouped_head('g', 3600, 2)", &["1|1", "2|1"]),
            ("SELECT msg_id FROM pgmq.read_grouped_head('g', 3600, 10)", &["3", "13"]),
            ("SELECT msg_id FROM pgmq.read_grouped_head('g', 3600, 10)", &[]),
            ("SELECT pgmq.delete('g', 2)", &["t"]),
            ("SELECT msg_id FROM pgmq.read_grouped_head('g', 3600, 10)", &["5"]),
        ],
    )
}

#[test]
fn polls_end_with_the_first_message_or_in_time() -> Result<()> {
    let (_database, mut client, _) = made()?;
    grouped(&mut client)?;
    for (kind, first) in [("read_grouped", "1"), ("read_grouped_rr", "1"), ("read_grouped_head", "1")] {
        expect(
            &mut client,
            &[
                (&format!("SELECT msg_id FROM pgmq.{kind}_with_poll('g', 0, 1, 1, 10)"), &[first]),
                (&format!("SELECT msg_id FROM pgmq.{kind}_with_poll('g', 0, 1, 0, 10)"), &[]),
            ],
        )?;
    }
    client.batch_execute("SELECT pgmq.purge_queue('g')")?;
    expect(&mut client, &[("SELECT msg_id FROM pgmq.read_grouped_with_poll('g', 0, 1, 1, 10)", &[])])
}

#[test]
fn two_readers_at_once_never_have_a_group_both() -> Result<()> {
    let (database, mut client, _) = made()?;
    client.batch_execute(
        "SELECT pgmq.create('g'); SELECT pgmq.send_batch('g', array_agg(to_jsonb(n) ORDER BY n),
                array_agg(jsonb_build_object('x-pgmq-group', n % 40) ORDER BY n)) FROM generate_series(1, 2000) AS n",
    )?;
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let mut client = database.client()?;
            Ok(std::thread::spawn(move || {
                let mut groups = Vec::new();
                for _ in 0..10 {
                    groups.push(rows(
                        &mut client,
                        "SELECT DISTINCT headers ->> 'x-pgmq-group' FROM pgmq.read_grouped('g', 3600, 50) ORDER BY 1",
                    ));
                }
                groups.concat()
            }))
        })
        .collect::<Result<_>>()?;
    let mut all: Vec<String> = Vec::new();
    for reader in readers {
        all.extend(reader.join().map_err(|_| anyhow::anyhow!("panicked"))?);
    }
    let different: HashSet<&String> = all.iter().collect();
    ensure!(all.len() == 40 && different.len() == 40, "{all:?}");
    Ok(())
}

/// Without statistics the planner would sort the whole queue for its first groups.
#[test]
fn the_table_is_walked_by_its_index_whatever_is_known_of_it() -> Result<()> {
    let (_database, mut client, mut other) = made()?;
    client.batch_execute(
        "SELECT pgmq.create('g'); ALTER TABLE enough.q_g SET (autovacuum_enabled = off);
         SELECT pgmq.send('g', to_jsonb(n), jsonb_build_object('x-pgmq-group', n % 30)) FROM generate_series(1, 20000) AS n",
    )?;
    for call in [
        "read_grouped('g', 1, 10)",
        "read_grouped_rr('g', 1, 10)",
        "read_grouped_head('g', 1, 10)",
        "read('g', 1, 1, '700')",
    ] {
        let before = rows_read(&mut other, "q_g")?;
        let got = other.query(&format!("SELECT msg_id FROM pgmq.{call}"), &[])?;
        ensure!(!got.is_empty(), "{call} finds nothing");
        let read = rows_read(&mut other, "q_g")? - before;
        ensure!(read < 5000, "{call} reads {read} rows");
    }
    Ok(())
}

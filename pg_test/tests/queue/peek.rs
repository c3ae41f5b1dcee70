//! Looking at messages page by page, and by what they are.

use anyhow::{Result, ensure};
use enough_pg_test::queue::{made, read, send_numbers};
use postgres::Client;

fn peek(client: &mut Client, rest: &str) -> Result<Vec<i64>> {
    let rows = client.query(&format!("SELECT msg_id FROM enough.queue_peek('q', {rest})"), &[])?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// All pages of three.
fn pages(client: &mut Client, state: &str, filters: &str) -> Result<Vec<i64>> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let page = peek(client, &format!("3, '{state}', after => {after}{filters}"))?;
        let Some(&last) = page.last() else { return Ok(all) };
        ensure!(page.len() <= 3 && page.is_sorted() && page[0] > after, "{page:?} after {after}");
        all.extend(page);
        after = last;
    }
}

#[test]
fn pages_hold_each_message_once_in_every_state() -> Result<()> {
    let (_database, mut client, mut worker) = made("")?;
    let ids = send_numbers(&mut client, "q", 40)?;
    // Higher priorities and groups are shown first, and are in the pages by their numbers.
    client.batch_execute(
        "SELECT enough.queue_send('q', '1', priority => 9); SELECT enough.queue_send('q', '1', group_key => 'g') FROM generate_series(1, 5);
         SELECT enough.queue_send('q', '1', delay => '1 hour') FROM generate_series(1, 4);",
    )?;
    let ready: Vec<i64> = (1..=46).collect();
    ensure!(pages(&mut client, "ready", "")? == ready);
    ensure!(peek(&mut client, "1")? == [41]);
    ensure!(pages(&mut client, "delayed", "")? == [47, 48, 49, 50]);
    let leased = read(&mut worker, "q", 8)?;
    let mut leased: Vec<i64> = leased.iter().map(|message| message.msg_id).collect();
    leased.sort_unstable();
    ensure!(pages(&mut client, "leased", "")? == leased);
    let rest: Vec<i64> = ready.iter().copied().filter(|id| !leased.contains(id)).collect();
    ensure!(pages(&mut client, "ready", "")? == rest);
    client.batch_execute(&format!(
        "SELECT enough.queue_archive_batch('q', ARRAY{ids:?}); SELECT enough.queue_fail_batch('q', ARRAY[43, 44, 45, 46], dead => true)"
    ))?;
    ensure!(pages(&mut client, "done", "")? == ids);
    ensure!(pages(&mut client, "dead", "")? == [43, 44, 45, 46]);
    ensure!(peek(&mut client, "1, after => 9223372036854775807")?.is_empty());
    Ok(())
}

#[test]
fn filters_go_by_payload_and_group() -> Result<()> {
    let (_database, mut client, mut worker) = made("")?;
    client.batch_execute(
        "SELECT enough.queue_send('q', jsonb_build_object('user', n % 3, 'n', n), group_key => CASE WHEN n % 2 = 0 THEN 'even' END)
             FROM generate_series(1, 3000) AS n",
    )?;
    let of_user: Vec<i64> = (1..=3000).filter(|n| n % 3 == 2).collect();
    let matching = r#"matching => '{"user": 2}'"#;
    ensure!(peek(&mut client, &format!("10000, {matching}"))? == of_user);
    ensure!(peek(&mut client, &format!("2, {matching}"))? == [2, 5]);
    ensure!(peek(&mut client, &format!("2, after => 5, {matching}"))? == [8, 11]);
    ensure!(peek(&mut client, "3, group_key => 'even'")? == [2, 4, 6]);
    ensure!(peek(&mut client, &format!("2, group_key => 'even', after => 2, {matching}"))? == [8, 14]);
    ensure!(peek(&mut client, "3, group_key => 'none'")?.is_empty());
    // A page that lies behind thousands that don't fit.
    ensure!(peek(&mut client, r#"5, matching => '{"n": 2999}'"#)? == [2999]);
    read(&mut worker, "q", 3)?;
    ensure!(peek(&mut client, &format!("9, 'leased', {matching}"))? == [2]);
    client.batch_execute("SELECT enough.queue_archive('q', 2); SELECT enough.queue_archive('q', 1)")?;
    ensure!(peek(&mut client, &format!("9, 'done', {matching}"))? == [2]);
    ensure!(peek(&mut client, "9, 'done', group_key => 'even'")? == [2]);
    ensure!(peek(&mut client, "9, 'done'")? == [1, 2]);
    // Nothing was taken, nothing was counted.
    let row = client.query_one("SELECT attempts FROM enough.queue_peek('q', 1, after => 5)", &[])?;
    ensure!(row.get::<_, i32>(0) == 0);
    Ok(())
}

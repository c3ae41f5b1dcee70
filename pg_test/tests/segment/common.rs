//! Servers, and what shows that a segment works.

use anyhow::{Context, Result, ensure};
use enough_pg_test::queue;
use enough_pg_test::segment::SegmentFile;
use enough_pg_test::server::{self, Database, backend};
use postgres::Client;
use serde_json::json;
use xtask::server::{Server, ServerOptions};

/// The two ways that one version knows.
pub(crate) fn both_ways() -> Result<[ServerOptions; 2]> {
    Ok([server::options()?, preloaded()?])
}

/// A server that preloads the library.
pub(crate) fn preloaded() -> Result<ServerOptions> {
    Ok(server::options()?.preload("pg_enough"))
}

/// What `status()` says of `item`.
pub(crate) fn status(client: &mut Client, item: &str) -> Result<String> {
    Ok(client.query_one("SELECT value FROM enough.status() WHERE item = $1", &[&item])?.get(0))
}

pub(crate) fn set(client: &mut Client, key: &str, value: i64) -> Result<()> {
    client.execute("SELECT enough.cache_set($1, to_jsonb($2::bigint))", &[&key, &value])?;
    Ok(())
}

pub(crate) fn get(client: &mut Client, key: &str) -> Result<Option<serde_json::Value>> {
    Ok(client.query_one("SELECT enough.cache_get($1)", &[&key])?.get(0))
}

/// All three capabilities do what they should, in this session and together with `other`.
pub(crate) fn works(client: &mut Client, other: &mut Client, name: &str) -> Result<()> {
    set(client, name, 7)?;
    ensure!(get(other, name)? == Some(json!(7)), "the cache isn't shared");
    for (session, expected) in [(&mut *client, true), (&mut *other, false)] {
        let row = session.query_one("SELECT allowed FROM enough.rate_limit($1, 1, '1 hour')", &[&name])?;
        ensure!(row.get::<_, bool>(0) == expected, "the limit isn't shared");
    }
    client.execute("SELECT enough.queue_create($1, visibility_timeout => '1 hour')", &[&name])?;
    let msg_id = queue::send(client, name, &json!({"of": name}))?;
    let read = queue::read(other, name, 10)?;
    ensure!(queue::ids(&read) == [msg_id], "the message didn't arrive: {read:?}");
    ensure!(queue::read(client, name, 10)?.is_empty(), "the lease isn't shared");
    ensure!(queue::delete(client, name, msg_id, read[0].lease)?, "the leased message could not be deleted");
    Ok(())
}

/// The file of the segment that this session uses.
pub(crate) fn file(client: &mut Client) -> Result<SegmentFile> {
    client.execute("SELECT enough.cache_get('')", &[])?;
    SegmentFile::of_process(backend(client)?)?.context("this session has no dynamic segment")
}

/// A server of its own, with a database.
pub(crate) fn fresh(options: &ServerOptions) -> Result<(Server, Database)> {
    let server = server::start(options)?;
    let database = Database::on(&server)?;
    Ok((server, database))
}

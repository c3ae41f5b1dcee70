//! A database with everything in it that can move: messages in every state, options, policies, privileges, tags, and objects
//! of the user's that call the extension. And what has to be there after a move.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::refused;
use enough_pg_test::queue;
use enough_pg_test::server::Database;
use postgres::Client;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The last message of the queue `jobs`.
const LAST: i64 = 10;

/// Makes the database's contents as a superuser. `{app}` is the name of a role.
const SETTING_UP: &str = "
    CREATE ROLE {app} LOGIN;
    SELECT enough.queue_create('jobs', visibility_timeout => '2 hours', max_attempts => 3, retry_backoff => '3 seconds',
                               archive_for => '30 days', max_in_flight => 1000),
           enough.queue_create('Odd-Name.1'), enough.queue_create('fast', unlogged => true),
           enough.queue_create('orders');
    SELECT enough.queue_send('Odd-Name.1', '1'), enough.queue_pause('Odd-Name.1'), enough.queue_send('fast', '1');
    SELECT enough.rate_limit_policy_set('calls', 3, '90 minutes'), enough.rate_limit_policy_add('calls', 100, '1 day'),
           enough.rate_limit_policy_override('calls', 'vip', 10);
    SELECT * FROM enough.rate_limit_by('calls', 'key');
    SELECT enough.queue_grant('jobs', '{app}', 'send'), enough.grant_to('{app}', 'operator');
    CREATE VIEW public.backlog AS SELECT queue, ready FROM enough.queue_stats();
    CREATE TABLE public.orders (id int PRIMARY KEY);
    CREATE FUNCTION public.announce() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM enough.queue_send('orders', to_jsonb(NEW.id)); RETURN NULL; END $$;
    CREATE TRIGGER announce AFTER INSERT ON public.orders FOR EACH ROW EXECUTE FUNCTION public.announce();
    SELECT enough.cache_tag_table('public.orders', 'orders');
    INSERT INTO public.orders VALUES (1);
    SELECT enough.kv_create('Docs', indexed => true), enough.kv_set('k', '{\"a\": [1]}', space => 'Docs'), enough.kv_set('k', '1', '1 day'),
           enough.kv_set('gone', '2'), enough.kv_delete('gone');
    SELECT enough.kv_create('Kept', history => 2), enough.kv_set('k', '1', space => 'Kept');
    SELECT enough.kv_set('k', '2', space => 'Kept');
    SELECT enough.kv_create('dropped'), enough.kv_set('k', '1', space => 'dropped'), enough.kv_drop('dropped');
    GRANT SELECT ON enough.\"kv_Docs\" TO {app};
    SELECT enough.cache_set('k', '\"of the old server\"', tags => ARRAY['orders']);";

/// Every owner in the schema, and every privilege that somebody else has, but for who granted it.
const PRIVILEGES: &str = "
    WITH object (name, owner, acl) AS (
        SELECT c.oid::regclass::text, c.relowner, coalesce(c.relacl, acldefault('r', c.relowner)) FROM pg_class AS c
         WHERE c.relnamespace = 'enough'::regnamespace AND c.relkind = 'r'
        UNION ALL
        SELECT f.oid::regprocedure::text, f.proowner, coalesce(f.proacl, acldefault('f', f.proowner)) FROM pg_proc AS f
         WHERE f.pronamespace = 'enough'::regnamespace
        UNION ALL
        SELECT nspname, nspowner, coalesce(nspacl, acldefault('n', nspowner)) FROM pg_namespace WHERE nspname = 'enough'
    )
    SELECT name || ' is owned by ' || owner::regrole FROM object
    UNION
    SELECT concat_ws(' ', name, p.privilege_type, p.is_grantable, CASE WHEN p.grantee = 0 THEN 'PUBLIC' ELSE p.grantee::regrole::text END)
      FROM object, aclexplode(acl) AS p WHERE p.grantee <> owner";

/// What a way of moving doesn't bring, beside what no way brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// The messages of queues that aren't logged.
    pub unlogged: bool,
    /// What is not in the schema `enough`.
    pub other_schemas: bool,
}

/// All of it comes.
pub const NOTHING: Lost = Lost { unlogged: false, other_schemas: false };

/// What a database held when it was about to be moved.
#[derive(Debug)]
pub struct Contents {
    app: String,
    tables: BTreeMap<String, String>,
    privileges: BTreeSet<String>,
    /// A lease that the old server has given, of the first message of `jobs`.
    lease: Option<i64>,
}

fn text(client: &mut Client, sql: &str) -> Result<String> {
    let row = client.query_one(sql, &[]).with_context(|| sql.to_owned())?;
    Ok(row.get::<_, Option<String>>(0).unwrap_or_default())
}

/// Every table of the extension and of the queues, with its rows.
fn tables(client: &mut Client) -> Result<BTreeMap<String, String>> {
    let names = client.query(
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'enough'::regnamespace AND relkind = 'r'",
        &[],
    )?;
    let mut tables = BTreeMap::new();
    for name in names.iter().map(|row| row.get::<_, String>(0)) {
        let rows = text(client, &format!("SELECT jsonb_agg(to_jsonb(t) ORDER BY to_jsonb(t))::text FROM {name} AS t"))?;
        tables.insert(name, rows);
    }
    Ok(tables)
}

fn privileges(client: &mut Client) -> Result<BTreeSet<String>> {
    Ok(client.query(PRIVILEGES, &[])?.iter().map(|row| row.get(0)).collect())
}

/// Sends one message with what is written in SQL.
fn send(client: &mut Client, arguments: &str) -> Result<i64> {
    Ok(client.query_one(&format!("SELECT enough.queue_send('jobs', {arguments})"), &[])?.get(0))
}

/// Reads the one message that has to come.
fn read_one(client: &mut Client, msg_id: i64) -> Result<queue::Message> {
    let mut read = queue::read(client, "jobs", 1)?;
    ensure!(queue::ids(&read) == [msg_id], "{msg_id} was due: {read:?}");
    read.pop().context("nothing was read")
}

/// Reads `msg_id`, so often, and gives it back at once each time.
fn deliver(client: &mut Client, msg_id: i64, times: u32) -> Result<()> {
    for _ in 0..times {
        read_one(client, msg_id)?;
        client.execute("SELECT enough.queue_extend('jobs', $1, '0')", &[&msg_id])?;
    }
    Ok(())
}

impl Contents {
    /// Fills a database that has the extension and nothing else.
    pub fn make(database: &Database) -> Result<Self> {
        let mut client = database.client()?;
        let client = &mut client;
        // Roles belong to the whole server, on which another database may be the target.
        let app = database.role("app");
        client.batch_execute(&SETTING_UP.replace("{app}", &app))?;
        ensure!(send(client, "'\"leased\"'")? == 1);
        let lease = read_one(client, 1)?.lease;
        ensure!(send(client, "'\"delivered twice\"'")? == 2);
        deliver(client, 2, 2)?;
        ensure!(send(client, "'\"failed\"', priority => 5")? == 3);
        read_one(client, 3)?;
        ensure!(text(client, "SELECT enough.queue_fail('jobs', 3, 'no luck', '1 hour')")? == "retry");
        ensure!(send(client, "'\"dead\"', priority => 5")? == 4);
        deliver(client, 4, 2)?;
        read_one(client, 4)?;
        ensure!(text(client, "SELECT enough.queue_fail('jobs', 4, 'hopeless')")? == "dead");
        ensure!(send(client, "'\"done\"', priority => 5")? == 5);
        read_one(client, 5)?;
        client.batch_execute("SELECT enough.queue_archive('jobs', 5, '{\"r\": 1}')")?;
        ensure!(send(client, "'\"delayed\"', delay => '1 hour'")? == 6);
        ensure!(send(client, "'\"first of its group\"', group_key => 'g', priority => 5")? == 7);
        read_one(client, 7)?;
        client.batch_execute("SELECT enough.queue_fail('jobs', 7, retry_in => '1 hour')")?;
        ensure!(send(client, "'\"second of its group\"', group_key => 'g'")? == 8);
        ensure!(send(client, "'\"ready\"', dedup_key => 'd', headers => '{\"h\": 1}'")? == 9);
        // Its last attempt is over, and nobody has read since.
        ensure!(send(client, "'\"used up\"', priority => 9")? == LAST);
        deliver(client, LAST, 3)?;
        Ok(Self { app, tables: tables(client)?, privileges: privileges(client)?, lease })
    }

    /// Takes what is in the tables now for what has to move.
    pub fn look_again(&mut self, database: &Database) -> Result<()> {
        self.tables = tables(&mut database.client()?)?;
        Ok(())
    }

    /// Fails unless `database` has all of it but what is `lost`, and works. What a server has in memory is gone: leases, first
    /// deliveries, the cache and what limits have counted.
    pub fn have_moved_to(&self, database: &Database, lost: Lost) -> Result<()> {
        let mut client = database.client()?;
        let client = &mut client;
        let there = tables(client)?;
        for (table, rows) in &self.tables {
            let rows = if lost.unlogged && table.ends_with("_fast") { "" } else { rows };
            let found = there.get(table).with_context(|| format!("{table} isn't there"))?;
            ensure!(found == rows, "{table} has\n{found}\nand had\n{rows}");
        }
        ensure!(there.len() == self.tables.len(), "{:?} are there", there.keys());
        let privileges = privileges(client)?;
        let differing: Vec<&String> = privileges.symmetric_difference(&self.privileges).collect();
        ensure!(differing.is_empty(), "not in both: {differing:#?}");
        self.is_delivered(client)?;
        let fast = queue::read(client, "fast", 10)?;
        ensure!(fast.len() == usize::from(!lost.unlogged), "{fast:?}");
        ensure!(queue::read(client, "Odd-Name.1", 10)?.is_empty(), "the pause was lost");
        client.batch_execute("SELECT enough.queue_resume('Odd-Name.1')")?;
        ensure!(queue::ids(&queue::read(client, "Odd-Name.1", 10)?) == [1]);
        limits_are_fresh(client)?;
        let mut app = database.client_as(&self.app)?;
        queue::send(&mut app, "jobs", &json!("by the app"))?;
        refused(queue::read(&mut app, "jobs", 1), "42501")?;
        app.batch_execute("SELECT enough.rate_limit_reset('none')")?;
        spaces_go_on(client, &mut app)?;
        if !lost.other_schemas {
            triggers_work(client)?;
        }
        let warnings = text(client, "SELECT value FROM enough.status() WHERE item = 'warnings'")?;
        ensure!(!warnings.contains("jobs") && !warnings.contains("upgrade"), "{warnings}");
        Ok(())
    }

    /// Each message of `jobs` is what it was, and the numbers go on.
    fn is_delivered(&self, client: &mut Client) -> Result<()> {
        // A lease of the old server's finishes nothing.
        ensure!(!queue::delete(client, "jobs", 1, self.lease)?, "a lease was moved");
        let read = queue::read(client, "jobs", 100)?;
        let attempts: BTreeMap<i64, i32> = read.iter().map(|message| (message.msg_id, message.attempts)).collect();
        ensure!(attempts == BTreeMap::from([(1, 1), (2, 3), (9, 1)]), "{attempts:?}");
        ensure!(read.iter().any(|message| message.headers == Some(json!({"h": 1}))));
        let lasts = text(
            client,
            "SELECT bool_and(lasts)::text FROM (SELECT (SELECT leased_until FROM enough.queue_status('jobs', m)) \
                 > now() + interval '110 minutes' AS lasts FROM unnest('{1,2,9}'::bigint[]) AS m) AS t",
        )?;
        ensure!(lasts == "true", "the visibility timeout was lost");
        for (msg_id, expected) in [
            (3, "delayed no luck"),
            (4, "dead hopeless"),
            (5, "done {\"r\": 1}"),
            (6, "delayed"),
            (7, "delayed"),
            (8, "ready"),
            (LAST, "dead"),
        ] {
            let status = text(
                client,
                &format!("SELECT concat_ws(' ', state, error, result) FROM enough.queue_status('jobs', {msg_id})"),
            )?;
            ensure!(status.starts_with(expected), "{msg_id} is {status}");
        }
        let counts =
            text(client, "SELECT concat_ws(' ', leased, delayed, dead, archived) FROM enough.queue_stats('jobs')")?;
        ensure!(counts == "3 3 2 1", "{counts}");
        ensure!(send(client, "'1', dedup_key => 'd'")? == 9, "the dedup key was lost");
        let next = send(client, "'\"next\"'")?;
        ensure!(next > LAST, "number {next} was given twice");
        client.batch_execute("SELECT enough.queue_redrive('jobs')")?;
        let redriven = queue::sorted_ids(&queue::read(client, "jobs", 100)?);
        ensure!(redriven == [4, LAST, next], "{redriven:?}");
        ensure!(text(client, "SELECT string_agg(queue, ',') FROM enough.queue_stats()")?.contains("Odd-Name.1"));
        Ok(())
    }
}

/// Policies with their rules and overrides, and nothing that was consumed on the old server.
fn limits_are_fresh(client: &mut Client) -> Result<()> {
    for (key, left) in [("key", 2), ("vip", 9)] {
        let row = client.query_one("SELECT remaining FROM enough.rate_limit_by('calls', $1)", &[&key])?;
        ensure!(row.get::<_, i64>(0) == left, "{key}: {row:?}");
    }
    let rules = text(client, "SELECT count(*)::text FROM enough.rate_limit_policies() WHERE name = 'calls'")?;
    ensure!(rules == "2", "{rules} rules");
    Ok(())
}

/// Entries are there with their versions, and the next version is a greater one.
fn spaces_go_on(client: &mut Client, app: &mut Client) -> Result<()> {
    let value: Value = app.query_one("SELECT enough.kv_get('k', 'Docs')", &[])?.get(0);
    ensure!(value == json!({"a": [1]}));
    refused(app.query("SELECT enough.kv_get('k')", &[]), "42501")?;
    ensure!(text(client, "SELECT enough.kv_get('gone')::text")?.is_empty());
    for space in ["default", "Docs"] {
        let before: i64 = client.query_one("SELECT max(version) FROM enough.kv_entry('k', $1)", &[&space])?.get(0);
        let next: i64 = client.query_one("SELECT enough.kv_set('k', '2', space => $1)", &[&space])?.get(0);
        ensure!(next > before, "{space}: {next} after {before}");
        client.batch_execute(&format!("UPDATE enough.\"kv_{space}\" SET value = '3' WHERE key = 'k'"))?;
        let by_hand: i64 = client.query_one("SELECT max(version) FROM enough.kv_entry('k', $1)", &[&space])?.get(0);
        ensure!(by_hand > next, "{space}: a change by hand has version {by_hand}");
        // Who watches goes on where it was.
        let told: i64 =
            client.query_one("SELECT count(*) FROM enough.kv_watch('k', $1, space => $2)", &[&before, &space])?.get(0);
        ensure!(told == 1, "{space}: {told} changes");
    }
    let kept = "SELECT string_agg(value::text, ' ' ORDER BY version) FROM enough.kv_history('k', 'Kept')";
    ensure!(text(client, kept)? == "1 2");
    client.batch_execute("SELECT enough.kv_incr('k', 1, 'Kept'); DELETE FROM enough.\"kv_Kept\"")?;
    ensure!(text(client, kept)? == "2 3", "{}", text(client, kept)?);
    let again: i64 = client
        .query_one("SELECT enough.kv_set('k', '1', space => 'dropped') FROM enough.kv_create('dropped')", &[])?
        .get(0);
    ensure!(again > 2, "a space that was dropped begins with {again}");
    client.batch_execute("SELECT enough.kv_drop('dropped')")?;
    Ok(())
}

/// The cache is empty, a tagged table ends entries, and the user's trigger has sent one message for each row: none of the
/// rows that were moved was announced again.
fn triggers_work(client: &mut Client) -> Result<()> {
    let value: Option<Value> = client.query_one("SELECT enough.cache_get('k')", &[])?.get(0);
    ensure!(value.is_none(), "the cache was moved: {value:?}");
    client.batch_execute("SELECT enough.cache_set('k', '1', tags => ARRAY['orders'])")?;
    client.batch_execute("INSERT INTO public.orders VALUES (2); SELECT FROM public.backlog")?;
    let value: Option<Value> = client.query_one("SELECT enough.cache_get('k')", &[])?.get(0);
    ensure!(value.is_none(), "the tag was lost");
    let announced = queue::read(client, "orders", 10)?;
    let announced: Vec<&Value> = announced.iter().map(|message| &message.message).collect();
    ensure!(announced == [&json!(1), &json!(2)], "{announced:?}");
    Ok(())
}

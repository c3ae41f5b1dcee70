//! What is wrong with queues, as far as the catalogs show it, and what to do about it.

use crate::error::Error;
use crate::pg::own;
use crate::pg::spi::{Parameter, read_rows, text};
use crate::queue::name::LONGEST_NAME;

/// Tables with names and columns as queues have them, and rows of `enough.queue`, put together by the queue's name.
const QUEUES: &str = "\
    SELECT name, pg_catalog.bool_or(part OPERATOR(pg_catalog.=) 'q'), pg_catalog.bool_or(part OPERATOR(pg_catalog.=) 'a'), \
           pg_catalog.bool_or(part OPERATOR(pg_catalog.=) 'row'), \
           pg_catalog.min(owner) OPERATOR(pg_catalog.<>) pg_catalog.max(owner), \
           pg_catalog.max(owner) FILTER (WHERE part OPERATOR(pg_catalog.=) 'q'), pg_catalog.max(dead) \
    FROM (SELECT pg_catalog.substr(c.relname::pg_catalog.text, 3) AS name, pg_catalog.left(c.relname::pg_catalog.text, 1) AS part, \
                 pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(c.relowner)::pg_catalog.text) AS owner, \
                 CASE WHEN pg_catalog.pg_stat_get_dead_tuples(c.oid) OPERATOR(pg_catalog.>) $2 \
                       AND pg_catalog.pg_stat_get_dead_tuples(c.oid) OPERATOR(pg_catalog.>) pg_catalog.pg_stat_get_live_tuples(c.oid) \
                      THEN c.relname::pg_catalog.text END AS dead \
            FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n \
              ON n.oid OPERATOR(pg_catalog.=) c.relnamespace AND n.nspname OPERATOR(pg_catalog.=) 'enough' \
           WHERE c.relkind OPERATOR(pg_catalog.=) 'r' AND c.relname OPERATOR(pg_catalog.~) '^[qa]_[A-Za-z_][A-Za-z0-9_.-]*$' \
             AND (SELECT pg_catalog.count(*) FROM pg_catalog.pg_attribute AS a \
                   WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND NOT a.attisdropped \
                     AND a.attname OPERATOR(pg_catalog.=) ANY (ARRAY['msg_id', 'enqueued_at', 'dedup_key', 'message'])) \
                 OPERATOR(pg_catalog.=) 4 \
          UNION ALL SELECT q.name, 'row', NULL, NULL FROM enough.queue AS q) AS parts \
    WHERE pg_catalog.octet_length(name) OPERATOR(pg_catalog.<=) $1 GROUP BY name ORDER BY name";

/// Dead rows from which on they are named, where there are also more of them than live ones: autovacuum doesn't get to them.
const DEAD_ROWS: i64 = 100_000;

/// Says what is wrong, a sentence or two each. The same for every role: it concerns names and owners alone.
pub fn findings() -> Result<Vec<String>, Error> {
    let mut findings = Vec::new();
    own::check(c"queue", &own::QUEUE_READ)?;
    read_rows(QUEUES, &[Parameter::I64(LONGEST_NAME as i64), Parameter::I64(DEAD_ROWS)], |row| {
        let name = text(row, 1)?.unwrap_or_default();
        let part = |number| Ok::<_, Error>(row.get::<bool>(number)?.unwrap_or(false));
        let (table, archive, registered, split) = (part(2)?, part(3)?, part(4)?, part(5)?);
        let take_up = format!("enough.queue_create('{name}', if_not_exists => true)");
        let drop = format!("enough.queue_drop('{name}')");
        let problem = match (table, archive, registered) {
            (true, true, true) if split => {
                let owner = text(row, 6)?.unwrap_or_default();
                Some(format!(
                    "the tables of queue \"{name}\" have different owners: ALTER TABLE enough.\"a_{name}\" OWNER TO {owner}"
                ))
            }
            (true, true, true) | (false, false, false) => None,
            (true, _, false) => Some(format!(
                "the tables of queue \"{name}\" have no row in enough.queue: {take_up} takes them up, {drop} removes them"
            )),
            (true, false, true) => Some(format!("queue \"{name}\" has lost its archive: {take_up} makes it anew")),
            (false, true, false) => Some(format!("queue \"{name}\" has left its archive behind: {drop} removes it")),
            (false, _, true) => Some(format!(
                "queue \"{name}\" has no table: enough.queue_rename('{name}', <new name>) where it was renamed by hand, \
                 {take_up} makes it anew, {drop} removes what is left"
            )),
        };
        findings.extend(problem);
        if let Some(table) = text(row, 7)? {
            findings.push(format!(
                "enough.\"{table}\" has more dead rows than live ones: VACUUM enough.\"{table}\"; if that doesn't help, \
                 a long transaction, a prepared one, a standby or a replication slot holds them"
            ));
        }
        Ok(())
    })?;
    Ok(findings)
}

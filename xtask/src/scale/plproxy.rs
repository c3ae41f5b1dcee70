//! `ops/plproxy/enough.sql`: the functions by their own names in a database of `PL/Proxy`, each of which runs on the
//! partition of its key.

use super::places::{Place, Together};
use super::{Function, functions};
use crate::paths;
use anyhow::Result;
use postgres::Client;
use std::fmt::Write as _;
use std::path::PathBuf;

/// What comes before the functions. A NULL goes to some partition, which says what is wrong with it.
const HEAD: &str = "\
-- pg_enough through PL/Proxy: the functions by their own names, each on the partition of its key or queue.
-- Written by `cargo xtask reference`; docs/scaling.md says how it is used, and what it doesn't promise.

\\set ON_ERROR_STOP on
BEGIN;
CREATE SCHEMA enough;

CREATE FUNCTION enough._partition(key text) RETURNS integer
LANGUAGE sql IMMUTABLE AS 'SELECT coalesce(hashtext($1), 0)';

CREATE FUNCTION enough._partitions(key text) RETURNS SETOF integer
LANGUAGE sql STABLE AS $$
SELECT hashtext($1) WHERE $1 IS NOT NULL
UNION ALL
SELECT n::integer - 1
FROM generate_series(1, (SELECT count(*) FROM pg_foreign_server s, unnest(s.srvoptions) AS o
                         WHERE s.srvname = 'enough' AND o ~ '^p?[0-9]+=')) AS n
WHERE $1 IS NULL
$$;
";

/// Row types of results.
const TYPES: &str = "\
SELECT t.typname::text, (SELECT string_agg(quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum)
                         FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)
FROM pg_type t JOIN pg_class c ON c.oid = t.typrelid
WHERE t.typnamespace = 'enough'::regnamespace AND c.relkind = 'c'
ORDER BY t.oid";

/// Where it is kept.
pub fn file() -> PathBuf {
    paths::workspace().join("ops/plproxy/enough.sql")
}

/// Writes it from a database that has the extension in it.
pub fn render(client: &mut Client) -> Result<String> {
    let mut text = HEAD.to_owned();
    for row in client.query(TYPES, &[])? {
        let (name, columns): (&str, &str) = (row.get(0), row.get(1));
        write!(text, "\nCREATE TYPE enough.{name} AS ({columns});\n")?;
    }
    let mut absent = String::new();
    for function in functions(client)? {
        if let Place::Nowhere(why) = function.place {
            writeln!(absent, "--   {}: {why}", function.name)?;
        } else {
            define(&mut text, &function)?;
        }
    }
    write!(text, "\n-- Not here:\n{absent}\nCOMMIT;\n")?;
    Ok(text)
}

/// One function, with another before it where `PL/Proxy` can't put the partitions' answers together itself.
fn define(text: &mut String, function: &Function) -> Result<()> {
    let Function { name, arguments, result, .. } = function;
    let run = match function.place {
        Place::One(key) => format!("RUN ON enough._partition(${})", key + 1),
        Place::OneOrAll => "RUN ON enough._partitions($1)".to_owned(),
        Place::All(_) => "RUN ON ALL".to_owned(),
        Place::Each(_) => format!("SPLIT {}; RUN ON enough._partition($1)", arrays(function).join(", ")),
        Place::Any | Place::Nowhere(_) => "RUN ON ANY".to_owned(),
    };
    let together = match function.place {
        Place::All(together) | Place::Each(together) => together,
        _ => Together::Rows,
    };
    if together == Together::Rows {
        // One row of each server is several.
        let result = match (function.place, result.as_str()) {
            (Place::All(_), "record") => "SETOF record",
            (_, result) => result,
        };
        write!(
            text,
            "\nCREATE FUNCTION enough.{name}({arguments}) RETURNS {result}\n\
             LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; {run}; $$;\n"
        )?;
        return rights(text, name, function);
    }
    let given: Vec<String> = (1..=function.inputs.len()).map(|number| format!("${number}")).collect();
    let given = given.join(", ");
    // Void is no type of a row.
    let (of_one, answer) = match together {
        Together::Nothing => ("integer", "count(*)".to_owned()),
        Together::Either => (result.as_str(), "coalesce(bool_or(answer), false)".to_owned()),
        Together::Sum | Together::Rows => (result.as_str(), format!("coalesce(sum(answer), 0)::{result}")),
    };
    let asked = match together {
        Together::Nothing => format!("SELECT 1 FROM enough.{name}({given})"),
        _ => format!("SELECT * FROM enough.{name}({given})"),
    };
    write!(
        text,
        "\nCREATE FUNCTION enough._each_{name}({arguments}) RETURNS SETOF {of_one}\n\
         LANGUAGE plproxy VOLATILE PARALLEL UNSAFE AS $$ CLUSTER 'enough'; {run}; {asked}; $$;\n"
    )?;
    rights(text, &format!("_each_{name}"), function)?;
    write!(
        text,
        "CREATE FUNCTION enough.{name}({arguments}) RETURNS {result}\n\
         LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$ SELECT {answer} FROM enough._each_{name}({given}) AS answer $$;\n"
    )?;
    rights(text, name, function)
}

/// The arguments that are cut in parts, by number, since a name may be a word of SQL: keys, and where there are values, those
/// beside them. Tags belong to all.
fn arrays(function: &Function) -> Vec<String> {
    let arrays = function.inputs.iter().take(2).enumerate().filter(|(_, kind)| kind.ends_with("[]"));
    arrays.map(|(at, _)| format!("${}", at + 1)).collect()
}

/// Who may call it, as where it runs.
fn rights(text: &mut String, name: &str, function: &Function) -> Result<()> {
    if !function.public {
        writeln!(text, "REVOKE ALL ON FUNCTION enough.{name}({}) FROM PUBLIC;", function.types)?;
    }
    for role in &function.granted_to {
        writeln!(text, "GRANT EXECUTE ON FUNCTION enough.{name}({}) TO {role};", function.types)?;
    }
    Ok(())
}

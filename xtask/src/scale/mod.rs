//! The functions by their own names on several servers: scripts that are written from the catalog, so that a new function
//! can't be forgotten.

pub mod citus;
mod places;
pub mod plproxy;

use anyhow::Result;
use places::Place;
use postgres::Client;

/// What the catalog says of a public function.
struct Function {
    name: String,
    /// As CREATE FUNCTION takes them, with defaults and results.
    arguments: String,
    /// As COMMENT ON, REVOKE and GRANT take them.
    types: String,
    /// The type of each argument that a call has.
    inputs: Vec<String>,
    /// The results' names as SQL writes them, where it has several; empty where they are those of a type.
    outputs: Vec<String>,
    result: String,
    /// Whether all may call it.
    public: bool,
    /// Who else may.
    granted_to: Vec<String>,
    place: Place,
}

const FUNCTIONS: &str = "\
SELECT p.proname::text, pg_get_function_arguments(p.oid), pg_get_function_identity_arguments(p.oid),
       coalesce(pg_get_function_result(p.oid), 'void'),
       ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY AS a(t, n) ORDER BY n),
       ARRAY(SELECT p.proargnames[n] FROM generate_series(1, p.pronargs) AS n),
       has_function_privilege('public', p.oid, 'EXECUTE'),
       ARRAY(SELECT a.grantee::regrole::text FROM aclexplode(p.proacl) AS a
             WHERE a.grantee NOT IN (0, p.proowner) ORDER BY 1),
       p.prokind = 'p',
       ARRAY(SELECT quote_ident(p.proargnames[n]) FROM generate_subscripts(p.proargmodes, 1) AS n WHERE p.proargmodes[n] = 'o' ORDER BY n)
FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
WHERE p.pronamespace = 'enough'::regnamespace AND p.proname NOT LIKE '\\_%' AND p.prokind IN ('f', 'p')
      AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
ORDER BY p.oid";

/// Why procedures are left out.
const PROCEDURE: &str = "it commits, which only the server of its queue can do: call it there";

/// The public functions and procedures of a database that has the extension in it, in the order in which they were made. An error where
/// it isn't known of one where its calls belong.
fn functions(client: &mut Client) -> Result<Vec<Function>> {
    let rows = client.query(FUNCTIONS, &[])?;
    rows.iter()
        .map(|row| {
            let (name, names): (String, Vec<String>) = (row.get(0), row.get(5));
            let place = if row.get(8) { Place::Nowhere(PROCEDURE) } else { places::of(&name, &names)? };
            Ok(Function {
                name,
                arguments: row.get(1),
                types: row.get(2),
                outputs: row.get(9),
                result: row.get(3),
                inputs: row.get(4),
                public: row.get(6),
                granted_to: row.get(7),
                place,
            })
        })
        .collect()
}

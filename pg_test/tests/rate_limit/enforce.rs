//! `rate_limit_enforce`: an error that a driver can match on, and a count that survives the rollback it causes.

use anyhow::{Context, Result, ensure};
use enough_pg_test::server::Database;
use postgres::Client;

/// Calls `statement` until the limit of two an hour ends it; then its error has to say when to come again, and what
/// was counted has to stay so, although every transaction was rolled back.
fn enforced(client: &mut Client, statement: &str, key: &str) -> Result<()> {
    let mut transaction = client.transaction()?;
    transaction.batch_execute(statement).with_context(|| format!("the first of two: {statement}"))?;
    transaction.rollback()?;
    let left = |client: &mut Client| -> Result<i64> {
        Ok(client.query_one("SELECT remaining FROM enough.rate_limit_peek($1, 2, '1 hour')", &[&key])?.get(0))
    };
    ensure!(left(client)? == 1, "{key}: the rollback has given back what was consumed");
    client.batch_execute(statement).with_context(|| format!("the second of two: {statement}"))?;
    for attempt in 0..3 {
        let Err(error) = client.batch_execute(statement) else { anyhow::bail!("{key}: a third was allowed") };
        let error = error.as_db_error().context("not the server's error")?;
        ensure!(error.code().code() == "PT429", "{attempt}: {error:?}");
        let seconds: f64 = error.detail().context("no detail")?.parse().context("the detail isn't a number")?;
        ensure!(seconds > 3000.0 && seconds <= 3600.0, "retry after {seconds} s");
        ensure!(error.hint().is_some() && error.message().contains(key), "{error:?}");
        ensure!(left(client)? == 0, "{key}: the error has undone the count");
    }
    Ok(())
}

#[test]
fn from_a_function() -> Result<()> {
    let mut client = Database::new()?.client()?;
    client.batch_execute(
        "CREATE FUNCTION login(who text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN \
           PERFORM enough.rate_limit_enforce('login ' || who, 2, '1 hour'); \
         END $$",
    )?;
    enforced(&mut client, "SELECT login('ada')", "login ada")?;
    // The handler of a block rolls back to its start: not the count.
    enforced(
        &mut client,
        "DO $$ BEGIN \
           BEGIN PERFORM login('grace'); RAISE 'wrong password'; EXCEPTION WHEN raise_exception THEN NULL; END; \
         END $$",
        "login grace",
    )
}

#[test]
fn from_a_trigger() -> Result<()> {
    let mut client = Database::new()?.client()?;
    client.batch_execute(
        "CREATE TABLE orders (tenant text); \
         CREATE FUNCTION limited() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
           PERFORM enough.rate_limit_enforce('orders of ' || NEW.tenant, 2, '1 hour'); RETURN NEW; \
         END $$; \
         CREATE TRIGGER limited BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION limited()",
    )?;
    enforced(&mut client, "INSERT INTO orders VALUES ('a')", "orders of a")?;
    let rows: i64 = client.query_one("SELECT count(*) FROM orders", &[])?.get(0);
    ensure!(rows == 1, "{rows} rows, where one insert was committed");
    Ok(())
}

#[test]
fn from_a_row_security_policy() -> Result<()> {
    let database = Database::new()?;
    let role = database.role("reader");
    let mut client = database.client()?;
    client.batch_execute(&format!(
        "CREATE TABLE secrets AS SELECT n FROM generate_series(1, 5) AS n; \
         CREATE FUNCTION may_read() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN \
           PERFORM enough.rate_limit_enforce('reads of ' || current_user, 2, '1 hour'); RETURN true; \
         END $$; \
         CREATE ROLE {role} LOGIN; GRANT SELECT ON secrets TO {role}; \
         ALTER TABLE secrets ENABLE ROW LEVEL SECURITY; \
         CREATE POLICY limited ON secrets FOR SELECT USING ((SELECT may_read()))"
    ))?;
    let mut reader = database.client_as(&role)?;
    enforced(&mut reader, "SELECT * FROM secrets", &format!("reads of {role}"))
}

/// Where nothing may be written.
#[test]
fn in_a_read_only_transaction() -> Result<()> {
    let mut client = Database::new()?.client()?;
    client.batch_execute("SET default_transaction_read_only = on")?;
    enforced(&mut client, "SELECT enough.rate_limit_enforce('read only', 2, '1 hour')", "read only")?;
    let assigned: bool = client.query_one("SELECT pg_current_xact_id_if_assigned() IS NOT NULL", &[])?.get(0);
    ensure!(!assigned, "a check took a transaction number");
    Ok(())
}

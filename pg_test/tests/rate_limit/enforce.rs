//! `rate_limit_enforce`: an error that a driver can match on, and a count that survives the rollback it causes.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::state;
use enough_pg_test::server::{self, Database};
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
        let seconds: u32 = error.detail().context("no detail")?.parse().context("the detail isn't a whole number")?;
        ensure!(seconds > 3000 && seconds <= 3600, "retry after {seconds} s");
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

/// A sleep of as many seconds as the detail says is enough, whatever the fraction was.
#[test]
fn the_detail_is_rounded_up() -> Result<()> {
    let mut client = Database::new()?.client()?;
    let enforce = "SELECT enough.rate_limit_enforce('short', 1, '1300 ms')";
    client.batch_execute(enforce)?;
    let error = client.batch_execute(enforce).expect_err("a second was allowed");
    ensure!(error.as_db_error().and_then(|error| error.detail()) == Some("2"), "{error:?}");
    std::thread::sleep(std::time::Duration::from_secs(2));
    client.batch_execute(enforce)?;
    Ok(())
}

/// As `PostgREST` takes it apart: the body in the message, status and fields in the detail.
#[test]
fn for_postgrest_the_error_carries_the_response() -> Result<()> {
    let mut client = Database::new()?.client()?;
    client.batch_execute(
        "SELECT enough.rate_limit_policy_set('calls', 1, '1 minute'), enough.rate_limit_policy_add('calls', 5, '1 hour')",
    )?;
    for (call, name) in [
        ("rate_limit_enforce(E'\"odd\\\\\n', 1, '1 minute', postgrest => true)", "default"),
        ("rate_limit_enforce_by('calls', E'\"odd\\\\\n', postgrest => true)", "calls"),
    ] {
        let call = format!("SELECT enough.{call}");
        client.batch_execute(&call)?;
        let error = client.batch_execute(&call).expect_err("a second was allowed");
        let error = error.as_db_error().context("not the server's error")?;
        ensure!(error.code().code() == "PGRST", "{error:?}");
        let body: serde_json::Value = serde_json::from_str(error.message())?;
        ensure!(body["code"] == "PT429" && body["details"] == "60", "{body}");
        ensure!(body["message"].as_str().is_some_and(|message| message.contains("\"odd\\\n")), "{body}");
        let response: serde_json::Value = serde_json::from_str(error.detail().context("no detail")?)?;
        ensure!(response["status"] == 429 && response["headers"]["Retry-After"] == "60", "{response}");
        let limit = response["headers"]["RateLimit"].as_str().context("no RateLimit")?;
        ensure!(limit.starts_with(&format!("\"{name}\";r=0;t=60")), "{response}");
        let policies = response["headers"]["RateLimit-Policy"].as_str().context("no RateLimit-Policy")?;
        ensure!(policies.starts_with(&format!("\"{name}\";q=1;w=60")), "{response}");
        ensure!(policies.contains("\"calls.2\";q=5;w=3600") == (name == "calls"), "{response}");
    }
    Ok(())
}

/// Thousands of denials leave nothing in the server's log; what is logged at all stays as it was.
#[test]
fn a_denial_is_not_logged() -> Result<()> {
    let server = server::start(&server::options()?.conf("log_statement", "none"))?;
    let mut client = Database::on(&server)?.client()?;
    client.batch_execute(
        "SELECT enough.rate_limit_policy_set('p', 1, '1 hour'), enough.rate_limit_enforce_by('p', 'a'), \
                enough.rate_limit_enforce('flooded', 1, '1 hour')",
    )?;
    let before = server.log().len();
    for _ in 0..500 {
        for call in [
            "enforce('flooded', 1, '1 hour')",
            "enforce_by('p', 'a')",
            "enforce('flooded', 1, '1 hour', postgrest => true)",
        ] {
            let error = client.batch_execute(&format!("SELECT enough.rate_limit_{call}")).expect_err("allowed");
            ensure!(matches!(state(&error), "PT429" | "PGRST"), "{error:?}");
        }
    }
    ensure!(client.batch_execute("SELECT 1 / 0").is_err());
    let log = server.log();
    let written = &log[before..];
    ensure!(!written.contains("flooded") && !written.contains("rate limit"), "{written}");
    ensure!(written.contains("division by zero"), "other errors aren't logged any more: {written}");
    // For who looks for them.
    client.batch_execute("SET log_min_messages = debug1")?;
    ensure!(client.batch_execute("SELECT enough.rate_limit_enforce('flooded', 1, '1 hour')").is_err());
    ensure!(server.log().contains("rate limit of key \"flooded\" exceeded"));
    Ok(())
}

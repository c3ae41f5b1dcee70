//! A web service and its worker over `pg_enough`: `cargo run -- web` and `cargo run -- worker`.
//!
//! GET /squares/12, with the header X-User, checks the user's limit, looks in the cache, does the work, fills the cache
//! and queues what follows; the worker does that. `DATABASE_URL` may lead through pgbouncer in transaction mode,
//! `POLL_URL` to the pool that is for waiting readers. Before it, run ../setup.sql.

use anyhow::{Context as _, Result, ensure};
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header::RETRY_AFTER};
use axum::middleware::{Next, from_fn_with_state};
use axum::{Json, Router, response::IntoResponse as _, response::Response, routing::get};
use serde_json::{Value, json};
use std::{env::var, sync::Arc, time::Duration};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;
use tokio_postgres::{Client, NoTls, Row, types::ToSql, types::Type};

const FAILED: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;
/// A real service has a pool, deadpool-postgres for example.
async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(&var(url)?, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The one row. As the types are told, no statement is prepared: pgbouncer before 1.21 knows none in transaction mode.
async fn row(db: &Client, sql: &str, parameters: &[(&(dyn ToSql + Sync), Type)]) -> Result<Row> {
    db.query_typed(sql, parameters).await?.into_iter().next().context("no row")
}

/// Middleware: five requests of one user in a minute.
async fn limit(State(db): State<Arc<Client>>, request: Request, next: Next) -> Result<Response, StatusCode> {
    let check = "SELECT allowed, ceil(extract(epoch FROM retry_after))::int FROM enough.rate_limit($1, 5, '1 minute')";
    let key = format!("user:{:?}", request.headers().get("x-user"));
    let checked = row(&db, check, &[(&key, Type::TEXT)]).await.map_err(|_| FAILED)?;
    if checked.get(0) {
        return Ok(next.run(request).await);
    }
    Ok((StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, checked.get::<_, i32>(1))]).into_response())
}

async fn squares(State(db): State<Arc<Client>>, Path(n): Path<i32>) -> Result<Json<Value>, StatusCode> {
    let key = format!("square:{n}");
    let found = row(&db, "SELECT enough.cache_get($1)", &[(&key, Type::TEXT)]).await.map_err(|_| FAILED)?;
    let (found, square): (Option<Value>, _) = (found.get(0), json!({"square": i64::from(n).pow(2)}));
    let (cached, mut answer) = (found.is_some(), found.unwrap_or(square));
    if !cached {
        // One statement, one transaction: both or neither.
        let follow = "SELECT enough.cache_set($1, $2, ttl => '1 hour'), enough.queue_send('squares', $3)";
        let parameters = [(&key as _, Type::TEXT), (&answer as _, Type::JSONB), (&json!({"n": n}) as _, Type::JSONB)];
        row(&db, follow, &parameters).await.map_err(|_| FAILED)?;
    }
    answer["cached"] = cached.into();
    Ok(Json(answer))
}

async fn web(mut stop: Signal) -> Result<()> {
    let db = Arc::new(connect("DATABASE_URL").await?);
    let limited = from_fn_with_state(db.clone(), limit);
    let routes = Router::new().route("/squares/{n}", get(squares)).layer(limited).with_state(db);
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{}", var("PORT")?)).await?;
    let stopped = async move { stop.recv().await.unwrap_or_default() };
    Ok(axum::serve(listener, routes).with_graceful_shutdown(stopped).await?)
}

/// Does the work and deletes the message in one transaction.
async fn work(db: &mut Client, job: &Row) -> Result<()> {
    let (msg_id, lease, attempts): (i64, i64, i32) = (job.get(0), job.get(1), job.get(2));
    let message: Value = job.get(3);
    let n = message["n"].as_i64().context("no n")?;
    ensure!(n >= 0, "n is negative");
    let db = db.transaction().await?; // Dropped without a commit, it is rolled back.
    sleep(Duration::from_secs_f64(message["seconds"].as_f64().unwrap_or(0.0))).await;
    let square = [(&n as _, Type::INT8), (&n.pow(2) as _, Type::INT8), (&attempts as _, Type::INT4)];
    db.query_typed("INSERT INTO squares VALUES ($1, $2, $3)", &square).await?;
    let message = [(&msg_id as _, Type::INT8), (&lease as _, Type::INT8)];
    let done = db.query_typed("SELECT enough.queue_delete('squares', $1, $2)", &message).await?;
    ensure!(done[0].get::<_, bool>(0), "the lease was lost"); // Somebody else does the work.
    Ok(db.commit().await?)
}

/// Extends the lease from another connection while the work is done.
async fn heartbeat(db: &Client, msg_id: i64, lease: i64, seconds: f64) -> Result<()> {
    let extend = "SELECT enough.queue_extend('squares', $1, make_interval(secs => $2), $3)";
    loop {
        sleep(Duration::from_secs_f64(seconds / 3.0)).await;
        row(db, extend, &[(&msg_id, Type::INT8), (&seconds, Type::FLOAT8), (&lease, Type::INT8)]).await?;
    }
}

async fn worker(mut stop: Signal) -> Result<()> {
    let read = "SELECT msg_id, lease, attempts, message FROM enough.queue_read('squares',
                visibility_timeout => make_interval(secs => $1), wait => '2 seconds')";
    let seconds: f64 = var("LEASE_SECONDS").map_or(Ok(30.0), |seconds| seconds.parse())?;
    let (poll, beat) = (connect("POLL_URL").await?, connect("DATABASE_URL").await?);
    let mut db = connect("DATABASE_URL").await?;
    let stopping = tokio::spawn(async move { stop.recv().await });
    // Waits are short: after each, the worker sees that it is to stop.
    while !stopping.is_finished() {
        let jobs = poll.query_typed(read, &[(&seconds, Type::FLOAT8)]).await?;
        let Some(job) = jobs.first() else { continue };
        let (msg_id, lease): (i64, i64) = (job.get("msg_id"), job.get("lease"));
        let beating = heartbeat(&beat, msg_id, lease, seconds);
        let outcome = tokio::select! { outcome = work(&mut db, job) => outcome, error = beating => error };
        if let Err(error) = outcome {
            // Does nothing where the lease was lost.
            let error = error.to_string();
            let failure = [(&msg_id as _, Type::INT8), (&error as _, Type::TEXT), (&lease as _, Type::INT8)];
            row(&beat, "SELECT enough.queue_fail('squares', $1, $2, lease => $3)", &failure).await?;
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let stop = signal(SignalKind::terminate())?;
    if std::env::args().nth(1).as_deref() == Some("worker") { worker(stop).await } else { web(stop).await }
}

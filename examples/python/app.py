"""A web service and its worker over pg_enough: `app.py web` and `app.py worker`.

GET /squares/12, with the header X-User, checks the user's limit, looks in the cache, does the work, fills the cache and
queues what follows; the worker does that. DATABASE_URL may lead through pgbouncer in transaction mode, POLL_URL to the
pool that is for waiting readers. Needs psycopg[binary,pool]; before it, run ../setup.sql.
"""

import json
import math
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIServer, make_server

import psycopg
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

DATABASE_URL = os.environ["DATABASE_URL"]
LEASE = float(os.environ.get("LEASE_SECONDS", 30))
# prepare_threshold: pgbouncer in transaction mode before 1.21 knows no prepared statements.
OPTIONS = {"autocommit": True, "prepare_threshold": None}
pool = ConnectionPool(DATABASE_URL, min_size=1, max_size=4, kwargs=OPTIONS, open=False)
polls = ConnectionPool(os.environ.get("POLL_URL", DATABASE_URL), min_size=1, max_size=1, kwargs=OPTIONS, open=False)
stopping = threading.Event()


def limit(app, max_requests=5, seconds=60):
    """WSGI middleware: so many requests of one user in so many seconds."""

    def limited(environ, start_response):
        with pool.connection() as db:
            check = "SELECT allowed, retry_after FROM enough.rate_limit(%s, %s, make_interval(secs => %s))"
            key = "user:" + environ.get("HTTP_X_USER", "")
            allowed, retry_after = db.execute(check, [key, max_requests, seconds]).fetchone()
        if allowed:
            return app(environ, start_response)
        start_response("429 Too Many Requests", [("Retry-After", str(math.ceil(retry_after.total_seconds())))])
        return [b""]

    return limited


def squares(environ, start_response):
    n = int(environ["PATH_INFO"].removeprefix("/squares/"))
    with pool.connection() as db:
        answer = db.execute("SELECT enough.cache_get(%s)", [f"square:{n}"]).fetchone()[0]
        if not (cached := answer is not None):
            answer = {"square": n * n}
            # One statement, one transaction: both or neither.
            follow = "SELECT enough.cache_set(%s, %s, ttl => '1 hour'), enough.queue_send('squares', %s)"
            db.execute(follow, [f"square:{n}", Jsonb(answer), Jsonb({"n": n})])
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer | {"cached": cached}).encode()]


@contextmanager
def heartbeat(msg_id, lease):
    """Extends the lease from another connection while the work is done."""
    done = threading.Event()

    def beat():
        extend = "SELECT enough.queue_extend('squares', %s, make_interval(secs => %s), %s)"
        while not done.wait(LEASE / 3):
            with pool.connection() as db:
                db.execute(extend, [msg_id, LEASE, lease])

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def work(db, message, attempts):
    if message["n"] < 0:
        raise ValueError("n is negative")
    time.sleep(message.get("seconds", 0))
    db.execute("INSERT INTO squares VALUES (%s, %s, %s)", [message["n"], message["n"] ** 2, attempts])


def worker():
    read = """SELECT msg_id, lease, attempts, message FROM enough.queue_read('squares',
              visibility_timeout => make_interval(secs => %s), wait => '2 seconds')"""
    while not stopping.is_set():
        # A connection that isn't the service's, and a short wait: after each, the worker sees that it is to stop.
        with polls.connection() as poll:
            row = poll.execute(read, [LEASE]).fetchone()
        if row is None:
            continue
        msg_id, lease, attempts, message = row
        with heartbeat(msg_id, lease), pool.connection() as db:
            try:
                with db.transaction():
                    work(db, message, attempts)
                    delete = "SELECT enough.queue_delete('squares', %s, %s)"
                    if not db.execute(delete, [msg_id, lease]).fetchone()[0]:
                        raise psycopg.Rollback  # The lease was lost: somebody else does the work.
            except Exception as error:
                fail = "SELECT enough.queue_fail('squares', %s, %s, lease => %s)"
                db.execute(fail, [msg_id, str(error), lease])


signal.signal(signal.SIGTERM, lambda *_: stopping.set())
with pool, polls:
    if sys.argv[1] == "worker":
        worker()
    else:
        threaded = type("Threaded", (ThreadingMixIn, WSGIServer), {})
        server = make_server("127.0.0.1", int(os.environ.get("PORT", 8080)), limit(squares), threaded)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stopping.wait()
        server.shutdown()

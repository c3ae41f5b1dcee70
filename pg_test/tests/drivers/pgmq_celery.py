"""A worker of Celery's whose broker is the extension pgmq of pg_enough, by the transport kombu-pgmq."""
import os
import subprocess
import sys
import time

TASKS = 20
APP = """
import os
import kombu_pgmq
from celery import Celery

app = Celery("app", broker=os.environ["BROKER"])
app.conf.broker_connection_retry_on_startup = True


@app.task
def add(x, y, path):
    with open(path, "a") as sums:
        sums.write(f"{x + y}\\n")
"""

here = os.path.dirname(os.path.abspath(sys.argv[1]))
os.chdir(here)
sys.path.insert(0, here)
os.environ["BROKER"] = os.environ["DATABASE_URL"].replace("postgresql://", "pgmq://").replace("postgres@", "postgres:unused@")
with open("app.py", "w") as file:
    file.write(APP)

import psycopg
from app import add

with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
    connection.execute("CREATE EXTENSION pgmq CASCADE")
    worker = subprocess.Popen([sys.executable, "-m", "celery", "-A", "app", "worker", "-P", "solo", "-l", "warning"])
    try:
        for n in range(TASKS):
            add.delay(n, 1, "sums")
        done = lambda: sorted(map(int, open("sums").read().split())) if os.path.exists("sums") else []
        while len(done()) < TASKS and worker.poll() is None:
            time.sleep(0.05)
        assert done() == list(range(1, TASKS + 1)), done()
        queue = connection.execute("SELECT total_messages FROM pgmq.metrics('celery')").fetchone()
        assert queue == (TASKS,), queue
    finally:
        worker.terminate()
        worker.wait()
print("all sums", flush=True)

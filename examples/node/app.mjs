// A web service and its worker over pg_enough: `node app.mjs web` and `node app.mjs worker`.
//
// GET /squares/12, with the header X-User, checks the user's limit, looks in the cache, does the work, fills the cache
// and queues what follows; the worker does that. DATABASE_URL may lead through pgbouncer in transaction mode, POLL_URL
// to the pool that is for waiting readers. Needs pg; before it, run ../setup.sql.
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';

const { DATABASE_URL, POLL_URL = DATABASE_URL, PORT = 8080, LEASE_SECONDS = 30 } = process.env;
const LEASE = Number(LEASE_SECONDS);
const pool = new pg.Pool({ connectionString: DATABASE_URL, max: 4 });
const polls = new pg.Pool({ connectionString: POLL_URL, max: 1 });
// A connection that is lost while it is idle is replaced by the pool.
for (const each of [pool, polls]) each.on('error', () => {});

let stopping = false;
const stop = [];
process.on('SIGTERM', () => {
  stopping = true;
  stop.forEach((end) => end());
});

async function transaction(work) {
  const db = await pool.connect();
  try {
    await db.query('BEGIN');
    const result = await work(db);
    await db.query('COMMIT');
    return result;
  } catch (error) {
    await db.query('ROLLBACK');
    throw error;
  } finally {
    db.release();
  }
}

// Middleware as Express has it: so many requests of one user in so many seconds.
function limit(maxRequests = 5, seconds = 60) {
  const check = `SELECT allowed, ceil(extract(epoch FROM retry_after))::int AS retry_after
                 FROM enough.rate_limit($1, $2, make_interval(secs => $3))`;
  return async (request, response, next) => {
    const { rows } = await pool.query(check, [`user:${request.headers['x-user'] ?? ''}`, maxRequests, seconds]);
    if (rows[0].allowed) return next();
    response.writeHead(429, { 'Retry-After': rows[0].retry_after }).end();
  };
}

async function squares(request, response) {
  const n = Number(request.url.slice('/squares/'.length));
  const key = `square:${n}`;
  const { rows } = await pool.query('SELECT enough.cache_get($1) AS answer', [key]);
  let { answer } = rows[0];
  const cached = answer !== null;
  if (!cached) {
    answer = { square: n * n };
    // One statement, one transaction: both or neither.
    const follow = "SELECT enough.cache_set($1, $2, ttl => '1 hour'), enough.queue_send('squares', $3)";
    await pool.query(follow, [key, JSON.stringify(answer), JSON.stringify({ n })]);
  }
  response.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify({ ...answer, cached }));
}

function web() {
  const limited = limit();
  const server = http.createServer((request, response) => {
    const failed = (error) => {
      console.error(error);
      response.writeHead(500).end();
    };
    limited(request, response, () => squares(request, response)).catch(failed);
  });
  stop.push(() => server.close());
  return new Promise((closed) => server.on('close', closed).listen(Number(PORT), '127.0.0.1'));
}

async function work(db, message, attempts) {
  if (message.n < 0) throw new Error('n is negative');
  await sleep(1000 * (message.seconds ?? 0));
  await db.query('INSERT INTO squares VALUES ($1, $2, $3)', [message.n, message.n ** 2, attempts]);
}

async function worker() {
  const read = `SELECT msg_id, lease, attempts, message FROM enough.queue_read('squares',
                visibility_timeout => make_interval(secs => $1), wait => '2 seconds')`;
  while (!stopping) {
    // A connection that isn't the service's, and a short wait: after each, the worker sees that it is to stop.
    const { rows: [job] } = await polls.query(read, [LEASE]);
    if (!job) continue;
    // The heartbeat extends the lease from another connection while the work is done.
    const extend = "SELECT enough.queue_extend('squares', $1, make_interval(secs => $2), $3)";
    const beat = () => pool.query(extend, [job.msg_id, LEASE, job.lease]).catch(console.error);
    const heartbeat = setInterval(beat, (1000 * LEASE) / 3);
    try {
      await transaction(async (db) => {
        await work(db, job.message, job.attempts);
        const done = "SELECT enough.queue_delete('squares', $1, $2) AS done";
        const { rows } = await db.query(done, [job.msg_id, job.lease]);
        if (!rows[0].done) throw new Error('the lease was lost'); // Somebody else does the work.
      });
    } catch (error) {
      // Does nothing where the lease was lost.
      const fail = "SELECT enough.queue_fail('squares', $1, $2, lease => $3)";
      await pool.query(fail, [job.msg_id, error.message, job.lease]);
    } finally {
      clearInterval(heartbeat);
    }
  }
}

await (process.argv[2] === 'worker' ? worker() : web());
await Promise.all([pool.end(), polls.end()]);

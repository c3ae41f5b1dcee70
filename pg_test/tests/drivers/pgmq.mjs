// pgmq-js, every method, on the extension pgmq of pg_enough.
import assert from 'node:assert/strict';
import { Pgmq } from 'pgmq-js';

const url = new URL(process.env.DATABASE_URL);
const pgmq = await Pgmq.new({
  host: url.hostname, port: Number(url.port), user: url.username, password: 'unused', database: url.pathname.slice(1), ssl: false,
});
const hour = 3600;

await pgmq.queue.create('q');
await pgmq.queue.create('q');
await pgmq.queue.createUnlogged('u');
assert.deepEqual((await pgmq.queue.list()).map((q) => [q.name, q.isUnlogged, q.isPartitioned]), [['q', false, false], ['u', true, false]]);
await pgmq.queue.detachArchive('q');
await pgmq.queue.drop('u');

assert.equal(await pgmq.msg.send('q', { n: 1 }), 1);
assert.equal(await pgmq.msg.send('q', { n: 2 }, hour), 2);
assert.deepEqual(await pgmq.msg.sendBatch('q', [{ n: 3 }, { n: 4 }, { n: 5 }]), [3, 4, 5]);
assert.deepEqual(await pgmq.msg.sendBatch('q', [{ n: 6 }], hour), [6]);
const metrics = await pgmq.queue.getMetrics('q');
assert.deepEqual([metrics.queueName, metrics.queueLength, metrics.totalMessages], ['q', 6, 6]);
assert.deepEqual((await pgmq.queue.getAllMetrics()).map((m) => m.queueLength), [6]);

const one = await pgmq.msg.read('q', hour);
assert.deepEqual([one.msgId, one.readCount, one.message], [1, 1, { n: 1 }]);
assert.ok(one.vt > one.enqueuedAt);
assert.deepEqual((await pgmq.msg.readBatch('q', hour, 2)).map((m) => m.msgId), [3, 4]);
// It doesn't say the types of its arguments, and pgmq has had four of these functions since 1.11: it fails there, too.
await assert.rejects(pgmq.msg.setVt('q', 1, 0), { code: '42725' });
assert.equal((await pgmq.msg.pop('q')).msgId, 5);
assert.equal(await pgmq.msg.pop('q'), undefined);
assert.equal(await pgmq.msg.archive('q', 3), true);
assert.equal(await pgmq.msg.archive('q', 3), false);
assert.deepEqual(await pgmq.msg.archiveBatch('q', [4, 99]), [4]);
assert.equal(await pgmq.msg.delete('q', 2), true);
assert.deepEqual(await pgmq.msg.deleteBatch('q', [2, 6]), [6]);
await pgmq.msg.send('q', {});
await pgmq.queue.purge('q');
assert.equal((await pgmq.queue.getMetrics('q')).queueLength, 0);
await assert.rejects(pgmq.msg.send('nope', {}), /relation "pgmq.q_nope" does not exist/);
await pgmq.close();
console.log('every method');

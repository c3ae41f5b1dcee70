"""pgmq's own client for Python, in all its flavours, every method, on the extension pgmq of pg_enough."""
import datetime as dt
import inspect
import os
import threading

from pgmq import AsyncPGMQueue, PGMQueue, SQLAlchemyAsyncPGMQueue, SQLAlchemyPGMQueue, async_transaction, transaction
from pgmq import sqlalchemy_async_transaction, sqlalchemy_transaction

URL = os.environ["DATABASE_URL"]
HOUR = 3600
NOW = dt.datetime.now(dt.timezone.utc)


async def of(value):
    """What a method answers, be it asynchronous or not."""
    return await value if inspect.isawaitable(value) else value


async def refused(value):
    try:
        await of(value())
    except Exception as error:
        return str(error)
    raise AssertionError("it was not refused")


def ids(messages):
    return [m.msg_id for m in messages]


async def every_method(q, name):
    await of(q.create_queue(name))
    await of(q.create_queue(name))
    await of(q.create_queue(f"{name}_u", unlogged=True))
    queues = {one.queue_name: one for one in await of(q.list_queues())}
    assert not queues[name].is_unlogged and queues[f"{name}_u"].is_unlogged and not queues[name].is_partitioned
    assert await of(q.drop_queue(f"{name}_u")) and not await of(q.drop_queue(f"{name}_u"))
    assert await of(q.validate_queue_name(name))
    assert "too long" in await refused(lambda: q.validate_queue_name("x" * 48))
    assert "partition" in await refused(lambda: q.create_partitioned_queue(f"{name}_p"))
    assert "partition" in await refused(lambda: q.convert_archive_partitioned(name))
    await of(q.detach_archive(name))

    assert await of(q.send(name, {"n": 1})) == 1
    assert await of(q.send(name, {"n": 2}, headers={"h": 1})) == 2
    assert await of(q.send(name, {"n": 3}, delay=HOUR)) == 3
    assert await of(q.send(name, {"n": 4}, delay=NOW + dt.timedelta(hours=1))) == 4
    assert await of(q.send(name, {"n": 5}, headers={"h": 2}, delay=0)) == 5
    assert await of(q.send_batch(name, [{"n": 6}, {"n": 7}])) == [6, 7]
    assert await of(q.send_batch(name, [{"n": 8}], headers=[{"h": 3}])) == [8]
    assert await of(q.send_batch(name, [{"n": 9}], delay=HOUR)) == [9]
    assert await of(q.send_batch(name, [{"n": 10}], delay=NOW + dt.timedelta(hours=1))) == [10]
    metrics = await of(q.metrics(name))
    assert (metrics.queue_name, metrics.queue_length, metrics.total_messages) == (name, 10, 10), metrics
    assert name in [one.queue_name for one in await of(q.metrics_all())]

    one = await of(q.read(name, vt=HOUR))
    assert (one.msg_id, one.read_ct, one.message) == (1, 1, {"n": 1}), one
    assert one.vt > one.enqueued_at and one.last_read_at >= one.enqueued_at
    one = await of(q.read(name, vt=HOUR, conditional={"n": 2}))
    assert (one.msg_id, one.headers) == (2, {"h": 1}), one
    assert ids(await of(q.read(name, vt=HOUR, qty=2))) == [5, 6]
    assert ids(await of(q.read_batch(name, vt=HOUR, batch_size=1))) == [7]
    assert await of(q.read_with_poll(name, vt=1, qty=1, max_poll_seconds=1, conditional={"n": 99})) == []
    assert ids(await of(q.read_with_poll(name, vt=HOUR, qty=5, max_poll_seconds=1))) == [8]
    assert await of(q.read(name)) is None
    again = await of(q.set_vt(name, 1, 0))
    assert again.msg_id == 1 and again.read_ct == 1
    assert ids(await of(q.set_vt(name, [1, 99], NOW - dt.timedelta(hours=1)))) == [1]
    assert (await of(q.set_vt(name, 3, NOW))).msg_id == 3
    assert sorted(ids(await of(q.set_vt(name, [1, 3], 0)))) == [1, 3]
    popped = await of(q.pop(name))
    assert (popped.msg_id, popped.read_ct) == (1, 1), popped
    assert ids(await of(q.pop(name, qty=2))) == [3]
    assert await of(q.pop(name)) is None
    assert await of(q.delete(name, 4)) and not await of(q.delete(name, 4))
    assert await of(q.delete_batch(name, [9, 4])) == [9]
    assert await of(q.archive(name, 10)) and not await of(q.archive(name, 10))
    assert sorted(await of(q.archive_batch(name, [2, 5, 99]))) == [2, 5]
    assert await of(q.purge(name)) == 3
    assert (await of(q.metrics(name))).queue_length == 0

    await of(q.bind_topic(f"{name}.*", name))
    assert [(b.pattern, b.queue_name) for b in await of(q.list_topic_bindings(name))] == [(f"{name}.*", name)]
    assert name in [b.queue_name for b in await of(q.list_topic_bindings())]
    assert [r.queue_name for r in await of(q.test_routing(f"{name}.x"))] == [name]
    assert await of(q.send_topic(f"{name}.x", {"t": 1})) == 1
    assert await of(q.send_topic(f"{name}.x", {"t": 2}, headers={"h": 1}, delay=0)) == 1
    assert len(await of(q.send_batch_topic(f"{name}.x", [{"t": 3}, {"t": 4}]))) == 2
    assert await of(q.unbind_topic(f"{name}.*", name)) and not await of(q.unbind_topic(f"{name}.*", name))
    assert await of(q.validate_routing_key("a.b"))
    assert await of(q.validate_topic_pattern("a.#"))
    assert await of(q.purge(name)) == 4

    await of(q.create_fifo_index(name))
    await of(q.create_fifo_indexes_all())
    groups = [{"x-pgmq-group": "ab"[n % 2]} for n in range(6)]
    first = (await of(q.send_batch(name, [{"n": n} for n in range(6)], headers=groups)))[0]
    assert ids(await of(q.read_grouped(name, vt=HOUR, qty=2))) == [first, first + 2]
    assert ids(await of(q.read_grouped_rr(name, vt=HOUR, qty=2))) == [first + 1, first + 3]
    assert await of(q.read_grouped_with_poll(name, vt=HOUR, qty=2, max_poll_seconds=1)) == []
    assert await of(q.read_grouped_rr_with_poll(name, vt=HOUR, qty=2, max_poll_seconds=1)) == []

    await of(q.enable_notify(name, throttle_interval_ms=0))
    await of(q.update_notify(name, 10))
    assert [t.throttle_interval_ms for t in await of(q.list_notify_throttles()) if t.queue_name == name] == [10]
    await of(q.disable_notify(name))
    print(name, "every method", flush=True)


async def transactions(q, decorator, name):
    await of(q.create_queue(name))

    if inspect.iscoroutinefunction(q.create_queue):
        @decorator
        async def work(q, fail, conn=None):
            sent = await q.send(name, {"own": True}, conn=conn)
            read = await q.read(name, vt=HOUR, conn=conn)
            assert read.msg_id == sent and read.message == {"own": True}
            if fail:
                raise ValueError("rolled back")
            await q.archive(name, sent, conn=conn)
    else:
        @decorator
        def work(q, fail, conn=None):
            sent = q.send(name, {"own": True}, conn=conn)
            read = q.read(name, vt=HOUR, conn=conn)
            assert read.msg_id == sent and read.message == {"own": True}
            if fail:
                raise ValueError("rolled back")
            q.archive(name, sent, conn=conn)

    assert "rolled back" in await refused(lambda: work(q, True))
    await of(work(q, False))
    assert (await of(q.metrics(name))).queue_length == 0
    print(name, "transactions", flush=True)


def listening():
    from pgmq.notify_listener import SyncNotificationListener

    q, heard = PGMQueue(conn_string=URL), threading.Event()
    q.create_queue("heard")
    q.enable_notify("heard", throttle_interval_ms=0)
    listener = SyncNotificationListener(q)
    thread = threading.Thread(target=listener.listen, args=("heard", lambda _: heard.set(), 60), daemon=True)
    thread.start()
    # The listener says nothing of when it listens: send until it has heard.
    while not heard.wait(0.1):
        q.send("heard", {"n": 1})
    q.close()
    print("heard", flush=True)


listening()
sync = PGMQueue(conn_string=URL)
await every_method(sync, "sync")
await transactions(sync, transaction, "sync_tx")
sync.close()
asynchronous = AsyncPGMQueue(conn_string=URL)
await asynchronous.init()
await every_method(asynchronous, "async")
await transactions(asynchronous, async_transaction, "async_tx")
await asynchronous.close()
alchemy = SQLAlchemyPGMQueue(conn_string=URL)
await every_method(alchemy, "alchemy")
await transactions(alchemy, sqlalchemy_transaction, "alchemy_tx")
alchemy.dispose()
alchemy = SQLAlchemyAsyncPGMQueue(conn_string=URL)
await of(alchemy.init())
await every_method(alchemy, "alchemy_async")
await transactions(alchemy, sqlalchemy_async_transaction, "alchemy_async_tx")
await alchemy.engine.dispose()

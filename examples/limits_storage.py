"""A storage of `limits` over pg_enough, and so of what builds on that: Flask-Limiter, slowapi and others.

    import limits_storage  # makes the scheme known
    storage = storage_from_string("enough://user@host:5432/database", max_size=4)

The fixed window and the sliding window counter are counters of the cache, so a full cache may forget one. The moving window is
the rate limiter's sliding window: never more than the limit in any period, but a hit counts up to a 16th of it longer.
"""

import time
from math import floor

import psycopg
from limits.storage import MovingWindowSupport, SlidingWindowCounterSupport, Storage
from limits.storage.base import TimestampedSlidingWindow
from psycopg_pool import ConnectionPool

# How much was consumed, and when there will be more: where the limit is what was consumed, a call has to wait until then.
MOVING_WINDOW = """
    extract(epoch FROM clock_timestamp() - period + coalesce(used.retry_after, period))::float8, %(limit)s - own.remaining
    FROM (SELECT make_interval(secs => %(expiry)s)) AS given(period),
         LATERAL enough.rate_limit_peek(%(key)s, %(limit)s, period) AS own,
         LATERAL enough.rate_limit_peek(%(key)s, (%(limit)s - own.remaining)::int, period) AS used"""


class EnoughStorage(Storage, MovingWindowSupport, SlidingWindowCounterSupport, TimestampedSlidingWindow):
    STORAGE_SCHEME = ["enough"]
    base_exceptions = psycopg.Error

    def __init__(self, uri, wrap_exceptions=False, prefix="limits:", max_size=4, **_):
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self._prefix = prefix
        # prepare_threshold: pgbouncer in transaction mode before 1.21 knows no prepared statements.
        kwargs = {"autocommit": True, "prepare_threshold": None}
        url = "postgresql" + uri.removeprefix("enough")
        self._pool = ConnectionPool(url, min_size=1, max_size=max_size, kwargs=kwargs, open=True)

    def _row(self, select, key, **params):
        with self._pool.connection() as connection:
            return connection.execute(f"SELECT {select}", params | {"key": self._prefix + key}).fetchone()

    def incr(self, key, expiry, amount=1):
        call = "enough.cache_incr(%(key)s, %(amount)s, make_interval(secs => %(expiry)s))"
        return self._row(call, key, amount=amount, expiry=expiry)[0]

    def get(self, key):
        return self._row("enough.cache_get(%(key)s)", key)[0] or 0

    def get_expiry(self, key):
        expires_at = self._row("enough.cache_expires_at(%(key)s)", key)[0]
        return expires_at.timestamp() if expires_at else time.time()

    def check(self):
        try:
            return self._row("enough.cache_exists(%(key)s) IS NOT NULL", "")[0]
        except psycopg.Error:
            return False

    def reset(self):
        raise NotImplementedError("the rate limiter has no list of its keys: clear() them one by one")

    def clear(self, key):
        """Of a moving window it takes a role with enough.grant_to(role, 'operator'): whom it limits must not undo it."""
        self._row("enough.cache_delete(%(key)s)", key)
        self._row("enough.rate_limit_reset(%(key)s)", key)

    def acquire_entry(self, key, limit, expiry, amount=1):
        call = "allowed FROM enough.rate_limit(%(key)s, %(limit)s, make_interval(secs => %(expiry)s), %(amount)s)"
        return self._row(call, key, limit=limit, expiry=expiry, amount=amount)[0]

    def get_moving_window(self, key, limit, expiry):
        return self._row(MOVING_WINDOW, key, limit=limit, expiry=expiry)

    def acquire_sliding_window_entry(self, key, limit, expiry, amount=1):
        now = time.time()
        previous, left, current, _ = self.get_sliding_window(key, expiry, now)
        if floor(previous * left / expiry + current) + amount > limit:
            return False
        counter = self.sliding_window_keys(key, expiry, now)[1]
        if floor(previous * left / expiry + self.incr(counter, 3 * expiry, amount)) <= limit:
            return True
        # Others were faster. What is gone meanwhile must not come back as less than nothing.
        self._row("enough.cache_incr(%(key)s, %(amount)s, mode => 'if_present')", counter, amount=-amount)
        return False

    def get_sliding_window(self, key, expiry, now=None):
        now = now or time.time()
        previous, current = map(self.get, self.sliding_window_keys(key, expiry, now))
        left = expiry - now % expiry
        return previous, left if previous else 0.0, current, left + expiry

    def clear_sliding_window(self, key, expiry):
        for window in self.sliding_window_keys(key, expiry, time.time()):
            self._row("enough.cache_delete(%(key)s)", window)

"""A cache backend of Django over pg_enough, on Django's own connection to the database.

    CACHES = {"default": {"BACKEND": "django_cache.EnoughCache", "LOCATION": "articles",
                          "OPTIONS": {"DATABASE": "default", "TAGS": ["blog_article"]}}}

LOCATION is the cache's name: caches of one name share their entries, clear() ends those. DATABASE is an alias of DATABASES.
TAGS are on all entries: after enough.cache_tag_table('blog_article') every change of that table ends them. In a transaction a
set, touch, delete or clear shows at once, to others at the commit, and a rollback undoes it; add() and incr() are decided at
once, and stay. A value that is too large isn't stored, and the one before it is gone. Values are pickled: who may write the
cache may run code in the program. Whole numbers are jsonb, so that incr() is atomic and keeps the expiry.
"""

import json
import pickle
from datetime import timedelta

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache, InvalidCacheKey
from django.db import connections

GET = """SELECT key, value, CASE WHEN value IS NULL THEN (SELECT n.value::text FROM enough.cache_mget(ARRAY[b.key]) AS n)
         END FROM enough.cache_mget_bytes(%s) AS b"""
SET = """SELECT key, CASE
             WHEN number IS NOT NULL THEN enough.cache_set(key, to_jsonb(number), %(ttl)s, mode => %(mode)s, tags => %(tags)s)
             WHEN octet_length(bytes) > pg_size_bytes(current_setting('enough.cache_max_value', true)) THEN
                 %(mode)s = 'always' AND enough.cache_delete(key) IS NULL
             ELSE enough.cache_set_bytes(key, bytes, %(ttl)s, mode => %(mode)s, tags => %(tags)s) END
         FROM unnest(%(keys)s::text[], %(bytes)s::bytea[], %(numbers)s::bigint[]) AS e(key, bytes, number)"""
INCR = """SELECT enough.cache_incr(key, %s, mode => 'if_present') FROM enough.cache_mget(ARRAY[%s])
          WHERE jsonb_typeof(value) = 'number'"""


class EnoughCache(BaseCache):
    def __init__(self, name, params):
        super().__init__(params)
        self._name, options = f"django:{name}", params.get("OPTIONS", {})
        self._database, self._tags = options.get("DATABASE", "default"), [self._name, *options.get("TAGS", [])]

    def _rows(self, sql, params):
        with connections[self._database].cursor() as cursor:
            cursor.execute(sql, params)
            return cursor.fetchall()

    def _call(self, call, *params):
        return self._rows(f"SELECT enough.{call}", params)[0][0]

    def _key(self, key, version):
        if len((name := f"{self._name}:{self.make_and_validate_key(key, version=version)}").encode()) > 512:
            raise InvalidCacheKey(f"Cache key is longer than 512 bytes: {name!r}")
        return name

    def _ttl(self, timeout):
        timeout = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        return None if timeout is None else max(timedelta(seconds=timeout), timedelta())

    def _set(self, data, ttl, version, mode="always"):
        whole = [v if type(v) is int and -(2**63) <= v < 2**63 else None for v in data.values()]
        pickled = [pickle.dumps(v, pickle.HIGHEST_PROTOCOL) if n is None else None for v, n in zip(data.values(), whole)]
        names = [self._key(key, version) for key in data]
        given = {"keys": names, "bytes": pickled, "numbers": whole, "ttl": ttl, "mode": mode, "tags": self._tags}
        done = dict(self._rows(SET, given))
        return [key for key, name in zip(data, names) if done[name]]

    def add(self, key, value, timeout=DEFAULT_TIMEOUT, version=None):
        ttl = self._ttl(timeout)
        return not self.has_key(key, version) if ttl == timedelta() else self._set({key: value}, ttl, version, "if_absent") != []

    def get(self, key, default=None, version=None):
        return self.get_many([key], version).get(key, default)

    def get_many(self, keys, version=None):
        names = {self._key(key, version): key for key in keys}
        rows = self._rows(GET, [list(names)])
        return {names[n]: json.loads(v) if b is None else pickle.loads(b) for n, b, v in rows if (b, v) != (None, None)}

    def set(self, key, value, timeout=DEFAULT_TIMEOUT, version=None):
        self.set_many({key: value}, timeout, version)

    def set_many(self, data, timeout=DEFAULT_TIMEOUT, version=None):
        ttl = self._ttl(timeout)
        done = self._set(data, ttl, version) if ttl != timedelta() else self.delete_many(data, version) or data
        return [key for key in data if key not in done]

    def touch(self, key, timeout=DEFAULT_TIMEOUT, version=None):
        ttl = self._ttl(timeout)
        return self.delete(key, version) if ttl == timedelta() else self._call("cache_touch(%s, %s)", self._key(key, version), ttl)

    def incr(self, key, delta=1, version=None):
        for (value,) in self._rows(INCR, [delta, self._key(key, version)]):
            return value
        raise (TypeError if self.has_key(key, version) else ValueError)(f"Key '{key}' has no whole number")

    def delete(self, key, version=None):
        return self._call("cache_delete(%s)", self._key(key, version))

    def delete_many(self, keys, version=None):
        self._call("cache_mdelete(%s)", [self._key(key, version) for key in keys])

    def clear(self):
        self._call("cache_invalidate(%s)", self._name)

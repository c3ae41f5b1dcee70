"""The tests of `limits` for its storages on examples/limits_storage.py: argument 1 is the directory of its sdist."""
import os
import shutil
import sys
import time
import uuid
from unittest.mock import MagicMock

shutil.copytree(os.path.join(sys.argv[1], "tests"), "tests")
# It starts the servers of the other storages.
os.remove("tests/conftest.py")
sys.path[:0] = [os.getcwd(), os.environ["EXAMPLES"]]
# What only the other storages need.
for name in ("redis", "pytest_lazy_fixtures"):
    sys.modules[name] = MagicMock()

import limits.storage
import limits.strategies
import pytest
from limits.storage import storage_from_string
from limits_storage import EnoughStorage

URL = os.environ["DATABASE_URL"].replace("postgresql://", "enough://")
made = []


class Storage(EnoughStorage):
    """In the place of the one in the process's memory. Each is a new one, as that is."""

    STORAGE_SCHEME = ["memory"]

    def __init__(self, uri, **options):
        super().__init__(URL, prefix=f"{uuid.uuid4()}:", **options)
        made.append(self)


limits.storage.MemoryStorage = Storage
assert type(storage_from_string(URL)) is EnoughStorage

# Each with its reason in examples/README.md.
NOT_APPLICABLE = {
    "test_storage_reset",
    "test_moving_window_stats",
    "test_moving_window_multiple_cost",
}


class Clock:
    """The program's clock for what goes by that alone: stands still, but where the program sleeps."""

    def __init__(self):
        self.now = time.time()

    def sleep(self, seconds):
        self.now += max(seconds, 0.0)


class Plugin:
    passed, left_out = set(), set()

    def pytest_collection_modifyitems(self, items):
        mine = [item for item in items if "in-memory" in item.name]
        self.left_out = {item.originalname for item in mine} & NOT_APPLICABLE
        items[:] = [item for item in mine if item.originalname not in NOT_APPLICABLE]

    @pytest.fixture(autouse=True)
    def clock(self, request, monkeypatch):
        if request.cls is not None and request.cls.__name__ == "TestSlidingWindow":
            clock = Clock()
            monkeypatch.setattr(time, "time", lambda: clock.now)
            monkeypatch.setattr(time, "sleep", clock.sleep)
        yield
        while made:
            made.pop()._pool.close()

    def pytest_runtest_logreport(self, report):
        if report.when == "call" and report.passed:
            self.passed.add(report.nodeid)


def a_moving_window_is_over_with_its_oldest_hit():
    """What test_moving_window_stats asks, and alisaifee/limits 200, as far as a window of 16 steps can answer."""
    storage, limit = Storage(URL), limits.parse("2 per minute")
    limiter = limits.strategies.MovingWindowRateLimiter(storage)
    began = time.time()
    assert limiter.hit(limit) and limiter.get_window_stats(limit).remaining == 1
    time.sleep(1)
    assert limiter.hit(limit) and not limiter.hit(limit) and not limiter.hit(limit, "other", cost=3)
    stats = limiter.get_window_stats(limit)
    assert stats.remaining == 0 and began + 60 <= stats.reset_time <= time.time() + 60 + 60 / 16, stats
    limiter.clear(limit)
    assert limiter.get_window_stats(limit).remaining == 2


a_moving_window_is_over_with_its_oldest_hit()
plugin = Plugin()
open("pytest.ini", "w").close()
files = ["test_storage.py::TestConcreteStorages", "test_strategy.py", "integration/test_concurrency.py::TestConcurrency"]
files = [f"tests/{file}" for file in files]
code = pytest.main(["-c", "pytest.ini", "-v", "-W", "ignore", "-p", "no:cacheprovider", *files], plugins=[plugin])
outcome = "all passed" if code == 0 else "FAILED"
print(f"{len(plugin.passed)} {outcome}, not applicable: {' '.join(sorted(plugin.left_out))}", flush=True)

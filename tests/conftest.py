"""Every test: what it started ends with it (`tests/reaper.py`); in lanes, `tests/lanes.py`."""

import os
import signal
import sys
from collections.abc import Iterator

import pytest

from tests import lanes, reaper

_FAILED = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    """Mark this run; end what runs before it have left."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As in a shell's background; what the tests start would be deaf to it as well.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ[reaper.MARK] = reaper.mark()
    reaper.reap(reaper.orphans())


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what is left, however the tests ended; a JVM of this process by its own door."""
    if session := sys.modules.get("feature_store.spark.session"):
        session.stop_spark()
    reaper.reap(reaper.left_by(os.environ[reaper.MARK]))
    # A lane that was killed left what it had started to the process that began it.
    reaper.reap(reaper.orphans())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a lane, the order in which files are handed out."""
    if hasattr(config, "workerinput"):
        lanes.dearest_first(items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Remember that a test failed, for what runs after it."""
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


@pytest.fixture(autouse=True, scope="session")
def claimed(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What runs in this run's folders is its own."""
    reaper.claim(tmp_path_factory.getbasetemp())


@pytest.fixture(autouse=True)
def a_failed_test_leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """The next chapter of a story must not meet the services that a struck one has started.

    What was there before the test, such as a server of its module, stays.
    """
    began = reaper.now()
    yield
    if request.node.stash.get(_FAILED, False):
        left = reaper.left_by(os.environ[reaper.MARK])
        reaper.reap(p for p in left if reaper.began(p) >= began)

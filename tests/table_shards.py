"""Shards of small tables, as threads of the process that tests."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from feature_store.tables.server import ShardServer
from jobs.services import tables
from jobs.settings import Settings

SHARDS = 2


@contextmanager
def shards_in_threads(settings: Settings) -> Iterator[None]:
    """Shards that answer until the `with` block ends."""
    addresses = tables.addresses(settings, SHARDS)
    servers = [ShardServer(settings.paths.tables, n, SHARDS, a) for n, a in enumerate(addresses)]
    threads = [threading.Thread(target=server.run) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for server in servers:
            server.stop()
        for thread in threads:
            thread.join(20)
    assert not any(a.path and a.path.exists() for a in addresses)

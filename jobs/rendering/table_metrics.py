"""The shards of the id tables as Prometheus text."""

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from feature_store.contracts.errors import StoreError
from feature_store.tables.states import State


def table_exposition(statuses: Mapping[int, dict[str, Any] | StoreError], now: float) -> str:
    """Text of what each shard holds, has heard and has done; a silent one is there as down.

    Args:
        statuses: by shard, as `TableClient.statuses` tells.
        now: Unix time.
    """
    registry = CollectorRegistry()

    def gauge(name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"derm_tables_{name}", text, ("shard", *labels), registry=registry)

    up = gauge("up", "1 while a shard answers.")
    seen = gauge("seen_timestamp", "Unix time at which a shard said this.")
    epoch = gauge("live_epoch", "The publication that a shard has heard is live.")
    state = gauge("state", "1 for the state that a version is in.", "version", "state")
    revision = gauge("revision", "How often ids were forgotten in what is served.", "version")
    counts = {
        name: gauge(name, text)
        for name, text in (
            ("requests", "Look-ups that were answered since the process began."),
            ("rows", "Rows that were sent."),
            ("unknown", "Of them, default rows of ids that a table does not have."),
        )
    }
    refused = gauge("refused", "Requests that were refused.", "code")
    for shard, status in statuses.items():
        up.labels(shard).set(int(isinstance(status, dict)))
        if isinstance(status, StoreError):
            continue
        seen.labels(shard).set(now)
        epoch.labels(shard).set(status["pointer"]["epoch"] if status["pointer"] else 0)
        for version, held in status["versions"].items():
            for known in State:
                state.labels(shard, version, known.value).set(int(held["state"] == known.value))
            if held["revision"] >= 0:
                revision.labels(shard, version).set(held["revision"])
        for name, shown in counts.items():
            shown.labels(shard).set(status["counts"][name])
        for code, count in status["counts"]["refused"].items():
            refused.labels(shard, code).set(count)
    return generate_latest(registry).decode()

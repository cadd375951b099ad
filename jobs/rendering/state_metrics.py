"""How the home stands now as gauges: what the last look found, what runs, what was refused."""

import datetime as dt
import math

from prometheus_client import CollectorRegistry, Gauge

from jobs.engine.attempts import Attempt
from jobs.engine.findings import KINDS, Probed
from jobs.rendering.state import HomeState

# There is nothing to show of these while all is well.
ONLY_WHEN_WRONG = ("derm_step_failed", "derm_refused_found", "derm_dag_paused")

_WHO = ("ds", "step", "upstream")


def add_state(registry: CollectorRegistry, state: HomeState) -> None:
    """Add the gauges of a home's state to a registry."""
    if state.probed:
        _probed(registry, state.probed)
    _attempts(registry, state.attempts)
    if repair := state.repair:
        text = "Steps of an unfinished repair."
        steps = Gauge("derm_repair_steps", text, ("of",), registry=registry)
        steps.labels("done").set(repair.done)
        steps.labels("all").set(repair.steps)


def _probed(registry: CollectorRegistry, probed: Probed) -> None:
    at = Gauge("derm_probe_timestamp", "Unix time of the last look.", registry=registry)
    at.set(dt.datetime.fromisoformat(probed.at).timestamp())
    text = "1 where the last look found something wrong."
    finding = Gauge("derm_probe_finding", text, ("kind",), registry=registry)
    for kind in KINDS:
        finding.labels(kind).set(int(probed.of(kind) is not None))
    free = Gauge("derm_disk_free_bytes", "Free below the home.", registry=registry)
    free.set(probed.disk_free)
    needed = Gauge("derm_disk_needed_bytes", "What three days take.", registry=registry)
    needed.set(probed.disk_needed)
    if probed.paused is not None:
        paused = Gauge("derm_dag_paused", "1 while derm_daily is paused.", registry=registry)
        paused.set(int(probed.paused))
    if store := probed.store:
        keys = Gauge("derm_store_keys", "Keys of the online store.", registry=registry)
        keys.set(store.keys)
        least = Gauge("derm_store_least_keys", "Users of the release.", registry=registry)
        least.set(store.least_keys)
        text = "Users of the last look's sample, against the lake."
        sampled = Gauge("derm_store_sampled_users", text, ("result",), registry=registry)
        for result in ("compared", "missing", "different"):
            sampled.labels(result).set(getattr(store, result))


def _attempts(registry: CollectorRegistry, attempts: tuple[Attempt, ...]) -> None:
    """What runs and since when; what failed; what was refused, with number and bound."""
    text = "Unix time at which a step that runs now began."
    since = Gauge("derm_step_running_since", text, _WHO, registry=registry)
    failed = Gauge("derm_step_failed", "1: the step failed.", (*_WHO, "state"), registry=registry)
    text = "The number a guard refused; its bound is a label."
    refused = Gauge("derm_refused_found", text, (*_WHO, "guard", "bound"), registry=registry)
    for a in attempts:
        who = (a.ds, a.step, a.upstream)
        if a.state == "running":
            since.labels(*who).set(dt.datetime.fromisoformat(a.started_at).timestamp())
        else:
            failed.labels(*who, a.state).set(1)
        if a.state == "refused":
            for broken in a.broken:
                bound = f"{'>=' if broken.least else '<='} {broken.bound:.4g}"
                refused.labels(*who, broken.guard, bound).set(broken.found)
            if not a.broken:
                refused.labels(*who, a.found, a.expected).set(math.nan)

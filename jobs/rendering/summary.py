"""One day in numbers, read out of its manifests."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from feature_store.contracts.base import Upstream
from feature_store.contracts.manifests import Artifact, StepManifest
from jobs.pipelines import daily


@dataclass(frozen=True, kw_only=True, slots=True)
class DaySummary:
    """The finished steps of one day."""

    ds: str
    steps: Mapping[tuple[str, Upstream | None], StepManifest]

    @classmethod
    def of(cls, ds: str, manifests: Iterable[StepManifest]) -> "DaySummary":
        """Summarise the manifests of a day, in any order."""
        return cls(ds=ds, steps={(m.step, m.upstream): m for m in manifests})

    def number(self, step: str, metric: str, upstream: Upstream | None) -> float | None:
        """A measured number; None when the step has not run or did not measure it.

        A step that serves both upstreams answers for each of them.
        """
        manifest = self.steps.get((step, upstream)) or self.steps.get((step, None))
        value = manifest.metrics.get(metric) if manifest else None
        if isinstance(value, int | float) and math.isfinite(value):
            return float(value)
        return None

    def text(self, step: str, metric: str, upstream: Upstream | None) -> str:
        """A measured name (of a snapshot, of a space); empty when there is none."""
        manifest = self.steps.get((step, upstream))
        value = manifest.metrics.get(metric) if manifest else None
        return value if isinstance(value, str) else ""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person decided about the day: that it had no events, and numbers to accept."""
        empty = self.text("ingest", "no_events", None)
        accepted = tuple(
            f"accepted {a.guard} {a.upstream or ''}".rstrip()
            + f" {a.found:.4g}, bound {a.bound:.4g}: {a.reason}"
            for manifest in self.steps.values()
            for a in manifest.accepted
        )
        return (*((f"no events: {empty}",) if empty else ()), *accepted)

    def artifact(self, step: str, upstream: Upstream | None, name: str) -> Artifact | None:
        """What a step wrote, None when it has not run."""
        manifest = self.steps.get((step, upstream))
        return next((a for a in manifest.outputs if a.name == name), None) if manifest else None

    def seconds(self, steps: Iterable[str], upstream: Upstream | None) -> float | None:
        """Time spent in steps for one upstream (None: for the steps that serve both)."""
        spent = [m.duration_s for s in steps if (m := self.steps.get((s, upstream)))]
        return sum(spent) if spent else None

    def seconds_of_all(self, steps: Iterable[str]) -> float:
        """Time spent in steps, every upstream together."""
        wanted = set(steps)
        return sum(m.duration_s for (step, _), m in self.steps.items() if step in wanted)

    @property
    def released(self) -> StepManifest | None:
        """The manifest of the release, None when the day was not published."""
        return self.steps.get(("release", None))


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedSteps:
    """Steps that are timed together."""

    name: str
    steps: tuple[str, ...]


_LONG_TASKS = ("ingest", "train", "infer", "aggregate", "index", "publish")


def phases() -> tuple[TimedSteps, ...]:
    """The tasks that move data, in the catalog's order, and every short step as one phase."""
    named = [
        TimedSteps(name=task, steps=tuple(s.name for s in daily.STEPS if s.task == task))
        for task in _LONG_TASKS
    ]
    short = tuple(s.name for s in daily.STEPS if s.task not in _LONG_TASKS)
    return (*named, TimedSteps(name="checks and release", steps=short))

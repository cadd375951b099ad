"""The catalog as tasks and arrows. Knows nothing of Airflow, so that anything may read it.

A task is one process: the steps that name the same `task` in the catalog, for one upstream. Its
arrows follow from what the steps read and write; those that others already imply are left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from feature_store.contracts.artifacts import Reference
from feature_store.contracts.base import Upstream
from jobs.pipelines import catalog
from jobs.pipelines.declarations import Resource, Step

FIRST = "gate"


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One process of a daily run."""

    name: str
    upstream: Upstream | None
    steps: tuple[Step, ...]
    pipeline: catalog.Pipeline

    @property
    def key(self) -> str:
        """`train` of ctr is `ctr.train`, which is also its id in Airflow."""
        return f"{self.upstream}.{self.name}" if self.upstream else self.name

    @property
    def resource(self) -> Resource:
        """The scarcest resource any of its steps needs."""
        return next((s.resource for s in self.steps if s.resource != "cpu"), "cpu")

    @property
    def retries(self) -> int:
        """As many as its most patient step: a retry skips the steps that finished."""
        return max(s.retries for s in self.steps)

    @property
    def timeout_minutes(self) -> int:
        """Time for all of its steps, one after the other."""
        return sum(s.timeout_minutes for s in self.steps)

    @property
    def outputs(self) -> tuple[Reference, ...]:
        """Artifacts it writes."""
        return tuple(n for s in self.steps for n in self.pipeline.outputs_of(s, self.upstream))

    @property
    def inputs(self) -> tuple[Reference, ...]:
        """Artifacts of the same day that it reads."""
        return tuple(
            name
            for s in self.steps
            for ref, name in self.pipeline.inputs_of(s, self.upstream)
            if ref.offset == 0
        )

    def arguments(self, ds: str) -> str:
        """What follows `derm` on the command line of this task for day `ds`."""
        if len(self.steps) == 1:
            words = [self.steps[0].name, f"--ds {ds}"]
        else:
            names = ",".join(s.name for s in self.steps)
            words = [f"run --from {ds} --to {ds} --steps {names}"]
        return " ".join(words + ([f"--upstream {self.upstream}"] if self.upstream else []))


def tasks(pipeline: catalog.Pipeline) -> tuple[Task, ...]:
    """Every task of a day, in catalog order; upstreams alternate.

    A step that serves all upstreams, in a task that each of them has, is part of the first one's,
    and uses what that one has started.

    A step that a data set does not need (real data is not simulated) is left out by `derm run`.
    """
    members: dict[tuple[str, Upstream | None], list[Step]] = {}
    divided = {step.task for step in pipeline.steps if step.per_upstream}
    for step in pipeline.steps:
        once = pipeline.names[:1] if step.task in divided else (None,)
        for upstream in pipeline.upstreams_of(step) if step.per_upstream else once:
            members.setdefault((step.task, upstream), []).append(step)
    return tuple(
        Task(name=name, upstream=upstream, steps=tuple(steps), pipeline=pipeline)
        for (name, upstream), steps in members.items()
    )


def arrows(pipeline: catalog.Pipeline) -> tuple[tuple[str, str], ...]:
    """Pairs (before, after) of task keys, none of them implied by others.

    A task that reads nothing that others make of its own day waits for the gate: no task makes the
    source of real data.
    """
    everything = tasks(pipeline)
    writer = {artifact: task.key for task in everything for artifact in task.outputs}
    direct = {
        task.key: {writer[a] for a in task.inputs if a in writer} - {task.key}
        or {FIRST} - {task.key}
        for task in everything
    }
    return tuple(_reduce(direct))


def _reduce(direct: dict[str, set[str]]) -> Iterator[tuple[str, str]]:
    """Arrows of an acyclic graph without those that a longer way already implies."""
    above: dict[str, set[str]] = {}

    def ancestors(key: str) -> set[str]:
        if key not in above:
            above[key] = direct[key].union(*(ancestors(k) for k in direct[key]))
        return above[key]

    for key, before in direct.items():
        implied = set().union(*(ancestors(k) for k in before))
        yield from ((k, key) for k in direct if k in before - implied)

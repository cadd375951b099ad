"""Every step of the pipeline as data. Imports nothing heavy: DAG files read it while parsing.

A step reads artifacts of its own day or of the day before, and writes artifacts of its own day.
Names in braces expand per upstream ({u}) and per entity ({e}).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from feature_store.contracts.base import ENTITIES, UPSTREAMS, Upstream

Resource = Literal["cpu", "gpu", "spark"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ref:
    """An artifact a step reads.

    Attributes:
        offset: 0 for the step's own day, -1 for the day before.
        optional: absent on the first day of the pipeline, and where a new space begins; counts are
            absent only on the first day with events.
        or_later: a result stays current when it was made from a later day's artifact instead.
    """

    name: str
    offset: int = 0
    optional: bool = False
    or_later: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One step, which is one module of `jobs` and one command.

    Attributes:
        per_upstream: runs once for ctr and once for cvr.
        recipe_parts: fields of the recipe that its result depends on.
        task: the Airflow task it belongs to; steps of one task share a process.
        retries: how often Airflow tries again; 0 where trying again cannot help.
        failure: what it means when this step fails.
        remedy: what to do then.
        command: module behind `derm <name>`.
    """

    name: str
    summary: str
    inputs: tuple[Ref, ...] = ()
    outputs: tuple[str, ...] = ()
    per_upstream: bool = False
    recipe_parts: tuple[str, ...] = ()
    task: str
    resource: Resource = "cpu"
    retries: int = 0
    timeout_minutes: int = 60
    failure: str
    remedy: str
    command: str = "jobs.commands.run_step"


_SOURCE_TABLES = (Ref(name="lake:events"), Ref(name="lake:users"), Ref(name="lake:pins"))
# Counts up to the end of yesterday. Nothing reads those of its own day: that would be a leak.
_COUNTS = Ref(name="lake:counts/{e}", offset=-1, optional=True)
_ALREADY_RAN = "Run it again: a finished step is skipped, an unfinished one starts afresh."

STEPS: tuple[Step, ...] = (
    Step(
        name="gate",
        summary="check that yesterday is complete and of the right lineage",
        inputs=(Ref(name="release", offset=-1, optional=True),),
        task="gate",
        # It waits for a repair that has the pipeline to itself, and may take days.
        timeout_minutes=4 * 24 * 60,
        failure="Yesterday was not published, or was recomputed since; or a repair is under way.",
        remedy="Repair yesterday first: `derm status` shows which step of it is missing.",
    ),
    Step(
        name="simulate",
        summary="write one day of the simulated world as source files",
        outputs=("source",),
        recipe_parts=("simulation",),
        task="ingest",
        failure="The generator failed; nothing else reads its output yet.",
        remedy=_ALREADY_RAN,
    ),
    Step(
        name="ingest",
        summary="bring one day of the data set into the lake",
        inputs=(Ref(name="source"),),
        outputs=("lake:events", "lake:users", "lake:pins"),
        task="ingest",
        retries=1,
        failure="The source files of the day are missing, late or unreadable.",
        remedy="The message names the file. Once it is there: run the task again.",
    ),
    Step(
        name="validate",
        summary="check the day against its contract, its volume and its label rates",
        inputs=_SOURCE_TABLES,
        outputs=("validated",),
        recipe_parts=("guards",),
        task="validate",
        failure="The day's data breaks its contract; nothing was trained on it.",
        remedy="The message names table, column, rule and counts. Repair the source, ingest again.",
    ),
    Step(
        name="train",
        summary="train one upstream model on the new day from yesterday's snapshot",
        inputs=(
            *_SOURCE_TABLES,
            _COUNTS,
            Ref(name="validated"),
            Ref(name="snapshot:{u}", offset=-1, optional=True),
        ),
        outputs=("snapshot:{u}",),
        per_upstream=True,
        recipe_parts=("model", "training", "counting", "guards"),
        task="train",
        resource="gpu",
        retries=1,
        timeout_minutes=360,
        failure="Training crashed, or the gate after it refused the snapshot.",
        remedy="The message names the number and its bound; yesterday's snapshot stays in use.",
    ),
    Step(
        name="infer",
        summary="embed the users and Pins of the day with the new snapshot",
        inputs=(*_SOURCE_TABLES, _COUNTS, Ref(name="snapshot:{u}", or_later=True)),
        outputs=("lake:embeddings/{u}/{e}/raw",),
        per_upstream=True,
        recipe_parts=("inference", "counting", "layout"),
        task="infer",
        resource="gpu",
        retries=1,
        timeout_minutes=180,
        failure="Inference crashed; no embedding of the day was written.",
        remedy=_ALREADY_RAN,
        command="jobs.repair.back_inference",
    ),
    Step(
        name="dedup",
        summary="keep the last embedding of the day per entity",
        inputs=(Ref(name="lake:embeddings/{u}/{e}/raw"),),
        outputs=("lake:embeddings/{u}/{e}/daily",),
        per_upstream=True,
        task="aggregate",
        resource="spark",
        retries=1,
        failure="Aggregating failed; the daily table is as it was.",
        remedy=_ALREADY_RAN,
    ),
    Step(
        name="merge",
        summary="merge the day into the pool by moving average, carry over, prune",
        inputs=(
            Ref(name="lake:embeddings/{u}/{e}/daily"),
            Ref(name="lake:embeddings/{u}/{e}/pool", offset=-1, optional=True),
        ),
        outputs=("lake:embeddings/{u}/{e}/pool",),
        per_upstream=True,
        recipe_parts=("aggregation",),
        task="aggregate",
        resource="spark",
        retries=1,
        failure="Aggregating failed; the pool is as it was.",
        remedy=_ALREADY_RAN,
    ),
    Step(
        name="count",
        summary="count impressions and positives in the windows that end with the day",
        inputs=(Ref(name="lake:events"), Ref(name="validated"), _COUNTS),
        outputs=("lake:counts/{e}",),
        recipe_parts=("layout",),
        task="aggregate",
        resource="spark",
        retries=1,
        failure="Counting failed, or earlier counts are missing; no later day can be trained.",
        remedy=_ALREADY_RAN,
    ),
    Step(
        name="verify",
        summary="check coverage, stability and health of the new pool before it is published",
        inputs=(
            Ref(name="lake:embeddings/{u}/{e}/daily"),
            Ref(name="lake:embeddings/{u}/{e}/pool"),
            Ref(name="lake:embeddings/{u}/{e}/pool", offset=-1, optional=True),
            Ref(name="lake:events"),
        ),
        outputs=("verified:{u}",),
        per_upstream=True,
        recipe_parts=("guards",),
        task="verify",
        failure="A number broke its bound; readers keep yesterday's embeddings.",
        remedy="The message names the number and the bound. Find the cause before publishing.",
    ),
    Step(
        name="index",
        summary="build the Pin index and check it against exact search",
        inputs=(
            Ref(name="verified:{u}"),
            Ref(name="lake:embeddings/{u}/pin/pool"),
            Ref(name="lake:embeddings/{u}/user/pool"),
            Ref(name="lake:pins"),
        ),
        outputs=("index:{u}",),
        per_upstream=True,
        recipe_parts=("index",),
        task="index",
        retries=1,
        failure="The index could not be built, or its recall is below the bound.",
        remedy="The message gives the recall reached. Readers keep yesterday's index.",
    ),
    Step(
        name="publish",
        summary="write what changed among the users to the idle Redis slot",
        inputs=(Ref(name="verified:{u}"), Ref(name="lake:embeddings/{u}/user/pool")),
        outputs=("users:{u}",),
        per_upstream=True,
        recipe_parts=("publishing",),
        task="publish",
        retries=3,
        failure="Redis was unreachable, read-only or full; readers keep yesterday's slot.",
        remedy="Repair Redis, run again: the publish continues where it stopped.",
    ),
    Step(
        name="release",
        summary="flip the pointer: readers see the new day, users and Pins at once",
        inputs=(Ref(name="index:{u}"), Ref(name="users:{u}")),
        outputs=("release",),
        task="release",
        retries=3,
        failure="The pointer was not moved; readers keep yesterday's release.",
        remedy=_ALREADY_RAN,
    ),
    Step(
        name="audit",
        summary="compare samples of what is published with the lake",
        inputs=(Ref(name="release"),),
        outputs=("audited",),
        task="audit",
        retries=1,
        failure="Redis or the index differs from the lake, although the day was released.",
        remedy="The message counts the differences. `derm rollback`, then publish the day again.",
    ),
    Step(
        name="report",
        summary="record the day in `runs` and render the report",
        inputs=(Ref(name="release"), Ref(name="audited")),
        outputs=("lake:runs",),
        task="report",
        failure="The day is published; only its report is missing.",
        remedy=_ALREADY_RAN,
    ),
)


def step(name: str) -> Step:
    """The step called `name`.

    Raises:
        KeyError: there is none.
    """
    for candidate in STEPS:
        if candidate.name == name:
            return candidate
    raise KeyError(name)


def steps_for(dataset: str) -> tuple[Step, ...]:
    """The steps a data set needs: real data is not simulated."""
    return tuple(s for s in STEPS if s.name != "simulate" or dataset == "simulated")


def expand(template: str, upstream: Upstream | None) -> Iterator[str]:
    """Artifact names of a template, for one upstream (all, when None) and every entity."""
    for u in (upstream,) if upstream else UPSTREAMS:
        per_upstream = template.replace("{u}", u)
        for e in ENTITIES if "{e}" in template else ("",):
            yield per_upstream.replace("{e}", e)
        if "{u}" not in template:
            return


def producer(artifact: str) -> tuple[Step, Upstream | None]:
    """The step, and its upstream, that writes an artifact.

    Raises:
        KeyError: no step does.
    """
    for candidate in STEPS:
        for upstream in UPSTREAMS if candidate.per_upstream else (None,):
            if any(artifact in expand(t, upstream) for t in candidate.outputs):
                return candidate, upstream
    raise KeyError(artifact)

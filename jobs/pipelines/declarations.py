"""What a step of a pipeline says about itself, and how it names what it reads."""

from dataclasses import dataclass, field
from typing import Literal

from feature_store.contracts.artifacts import Reference
from feature_store.contracts.upstreams import Reads

Stage = Literal[
    "gate",
    "source",
    "graph",
    "model",
    "embeddings",
    "counts",
    "publishing",
    "report",
    "ranking",
]
Resource = Literal["cpu", "gpu", "spark"]


@dataclass(frozen=True, slots=True)
class Read:
    """An artifact a step reads.

    Attributes:
        what: which; one without an owner stands for all of the step's upstream.
        offset: 0 for the step's own day, -1 for the day before.
        optional: absent on the first day of the pipeline, and where a new space begins; counts are
            absent only on the first day with events.
        continued: absent also where a training begins from scratch, and on days of rest.
        history: absent on days before the first one of the data.
        or_later: a result stays current when it was made from a later day's artifact instead.
        chosen: read only where the step itself decides so; it is an input where it was read.
    """

    what: Reference
    offset: int = field(default=0, kw_only=True)
    optional: bool = field(default=False, kw_only=True)
    continued: bool = field(default=False, kw_only=True)
    history: bool = field(default=False, kw_only=True)
    or_later: bool = field(default=False, kw_only=True)
    chosen: bool = field(default=False, kw_only=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One step, which is one module of `jobs` and one command.

    Attributes:
        stage: what it is for. A repair makes `source` again where data was wrong, `graph` and
            `counts` of every day from there on, `embeddings` of every day from the first wrong one
            on, `publishing` and `report` for the newest day alone; what of `publishing` is stale on
            a day that nobody reads any more has passed.
        per_upstream: runs once for every upstream.
        per_ranker: runs once for every ranker.
        published: runs for upstreams that are published, and no others.
        needed_by: runs for upstreams that read this, and no others; where it is not `per_upstream`,
            once if there is one.
        reads_pools: also reads the pools of yesterday that an upstream or a ranker declares; a
            training from scratch does not, because there is none of most of its window.
        learns: where the upstream rests on some days, it reads those too, on the next day after.
        reads_history: also reads the events of the days that an upstream looks back on.
        reads_graph: also reads the graph of the day, for an upstream that learns from edges.
        history: also runs on days before the first published one, which only feed the training.
        recipe_parts: fields of the recipe that its result depends on.
        seeded: its result depends on the seed of the home.
        rounded: the last bits of its result depend on the machine: CPU, threads, device, libraries.
        task: the Airflow task it belongs to; steps of one task share a process.
        retries: how often Airflow tries again; 0 where trying again cannot help.
        failure: what it means when this step fails.
        remedy: what to do then.
        command: module behind `derm <name>`.
    """

    name: str
    summary: str
    stage: Stage
    inputs: tuple[Read, ...] = ()
    outputs: tuple[Reference, ...] = ()
    per_upstream: bool = False
    per_ranker: bool = False
    published: bool = False
    needed_by: Reads | None = None
    learns: bool = False
    reads_pools: Literal["never", "always", "unless from scratch"] = "never"
    reads_history: bool = False
    reads_graph: bool = False
    history: bool = False
    recipe_parts: tuple[str, ...] = ()
    seeded: bool = False
    rounded: bool = False
    task: str
    resource: Resource = "cpu"
    retries: int = 0
    timeout_minutes: int = 60
    failure: str
    remedy: str
    command: str = "jobs.engine.step_command"

"""What a repair can start from: the partitions and snapshots that are kept, what each step cost."""

from collections.abc import Sequence
from statistics import median

from feature_store.contracts.artifacts import Graph
from feature_store.contracts.base import ENTITIES, Contract, Day, Upstream
from feature_store.contracts.datasets import counts_name
from feature_store.contracts.edges import graph_table
from feature_store.contracts.errors import MissingInput
from feature_store.contracts.tables import daily_table, pool_table, raw_table
from feature_store.contracts.upstreams import UpstreamDeclaration
from feature_store.lake.lake import Lake
from jobs.engine import spaces
from jobs.engine.manifests import ManifestStore
from jobs.pipelines import catalog
from jobs.settings import Home

Key = tuple[str, str, Upstream | None]  # step, day, upstream


class Record(Contract):
    """What a finished step cost and wrote."""

    rows: int
    seconds: float


class Survey(Contract):
    """What is there to start from, per upstream; days are complete for users and Pins.

    Attributes:
        first_ds: first day with events.
        origin: first day of the home that is published; it starts from nothing.
        start, last: first day that can be repaired, and last day with a pool on record.
        counted: days with counts, which serve every upstream.
        graphs: days with a graph; None where no upstream learns from one.
        records: finished steps as `step/day/upstream`.
    """

    first_ds: Day
    origin: Day
    start: Day
    last: Day
    dataset: str
    upstreams: tuple[UpstreamDeclaration, ...]
    pools: dict[Upstream, tuple[Day, ...]]
    dailies: dict[Upstream, tuple[Day, ...]]
    raws: dict[Upstream, tuple[Day, ...]]
    snapshots: dict[Upstream, tuple[Day, ...]]
    counted: tuple[Day, ...]
    graphs: tuple[Day, ...] | None = None
    records: dict[str, Record]

    @property
    def pipeline(self) -> catalog.Pipeline:
        """What the days are made of."""
        return catalog.Pipeline(upstreams=self.upstreams, steps=catalog.steps_for(self.dataset))

    def record(self, key: Key) -> Record:
        """The record of a step; where there is none, what the step usually costs."""
        return estimate(self.records, key)


def estimate(records: dict[str, Record], key: Key) -> Record:
    """What a step cost; where there is no record of it, what such a step usually costs."""
    if (name := _name(key)) in records:
        return records[name]
    alike = [r for n, r in records.items() if n.split("/")[0] == key[0]]
    if not alike:
        return Record(rows=0, seconds=0.0)
    return Record(rows=int(median(r.rows for r in alike)), seconds=median(r.seconds for r in alike))


def records_of(manifests: ManifestStore) -> dict[str, Record]:
    """What every finished step cost and wrote."""
    return {
        _name((m.step, m.ds, m.upstream)): Record(
            rows=sum(a.rows for a in m.outputs), seconds=m.duration_s
        )
        for ds in manifests.days()
        for m in manifests.of_day(ds)
    }


def survey(home: Home, lake: Lake, manifests: ManifestStore) -> Survey:
    """Look at what is there.

    Raises:
        MissingInput: no day has a pool on record.
    """
    records, names = records_of(manifests), [u.name for u in home.upstreams]
    merged = set.intersection(*(_merged(records, u) for u in names))
    if not merged:
        raise MissingInput("there is no pool yet", hint="run the pipeline first")
    tables = {"pools": pool_table, "dailies": daily_table, "raws": raw_table}
    found = {
        field: {
            u.name: _complete(lake, [declare(u.name, e).name for e in u.entities])
            for u in home.upstreams
        }
        for field, declare in tables.items()
    }
    return Survey(
        first_ds=home.first_ds,
        origin=home.start_ds,
        start=spaces.load(manifests.root.parent).first_daily(home),
        last=max(merged),
        dataset=home.dataset,
        upstreams=home.upstreams,
        counted=_complete(lake, [counts_name(e) for e in ENTITIES]),
        graphs=lake.days(graph_table().name) if catalog.pipeline_of(home).makes(Graph()) else None,
        records=records,
        snapshots={u: _snapshots(manifests, u) for u in names},
        **found,
    )


def _complete(lake: Lake, tables: Sequence[str]) -> tuple[str, ...]:
    """Days that all of some tables have."""
    return tuple(sorted(set.intersection(*(set(lake.days(name)) for name in tables))))


def _merged(records: dict[str, Record], upstream: Upstream) -> set[str]:
    """Days with a pool on record."""
    keys = (name.split("/") for name in records)
    return {ds for step, ds, of in keys if (step, of) == ("merge", upstream)}


def _snapshots(manifests: ManifestStore, upstream: Upstream) -> tuple[str, ...]:
    """Days whose snapshot is on record and on disk."""
    days = []
    for ds in manifests.days():
        manifest = manifests.get("train", ds, upstream)
        if manifest and manifests.root.parent.joinpath(manifest.outputs[0].uri).exists():
            days.append(ds)
    return tuple(days)


def _name(key: Key) -> str:
    return "/".join(part or "" for part in key)

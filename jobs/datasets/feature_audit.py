"""What every feature of a day tells: of each label, and of how its row came to be.

A row is special when it is a late label, when another row of the day says the same, or when it was
delivered after its day. None of this may be told by what a model reads. Late labels are compared
with labels that were heard of on the day of their impression: both are positive, and both of
impressions of the same days, so what tells them apart is a leak. A label is the likelier to be
late the later in the day its impression was, because the day ends at midnight, so they are
compared hour by hour: of each hour of each day, both kinds weigh the same.

Everything is learned from a sample of bounded size, drawn the same way every time.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.contracts.base import ENTITIES, Upstream, shift_day
from feature_store.contracts.datasets import DatasetSpec, Feature
from feature_store.lake.buckets import stable_hash
from feature_store.lake.lake import Lake
from feature_store.lake.late import LATE, late_table
from feature_store.reading.counts import Counting
from feature_store.reading.entities import Arrays
from feature_store.reading.examples import DayExamples, Order
from jobs.datasets.separation import (
    Codes,
    Flags,
    TwoKinds,
    auc_alone,
    auc_error,
    auc_of_tree,
    auc_of_vectors,
    bins_of,
    codes_of,
)

SAMPLE = 20_000
_LOOK_BACK = 3  # days: of the labels that come late, most are of these
_BATCH = 8_192
_HOUR_S = 3600
_FEWEST = 30  # rows of a kind, below which an AUC is mostly chance
_WHO = ("user_id", "pin_id", "ts")
_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))
# Nothing was counted before any day: counts are the pipeline's, not the data set's.
_UNCOUNTED = Counting(smoothing=1.0, first_ds="9999-12-31")


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """How well late labels are told from labels of the same days that were not late.

    Attributes:
        late, prompt: rows of each kind that were compared.
        auc: of a shallow tree; NaN when there are too few rows.
        error: its standard error.
        by: the features that told, the most telling first.
    """

    late: int
    prompt: int
    auc: float
    error: float
    by: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureReport:
    """What one input of a model tells alone, as AUCs; NaN where a kind of row does not occur.

    Attributes:
        labels: by label, over impressions and late labels on which it is known.
        special: by kind of row: late, duplicated, backfilled. Rates are not compared with those of
            late labels.
    """

    name: str
    scope: str
    labels: dict[str, float]
    special: dict[str, float]


def late_labels_told(lake: Lake, spec: DatasetSpec, ds: str, upstream: Upstream) -> Told:
    """Whether the declared features of a day tell its late labels from those that were not late."""
    batch = _positives(lake, spec, ds, upstream, _UNCOUNTED)
    features = [f for scope in ("user", "pin", "context") for f in spec.features_of(scope)]
    late, rows = batch["late"], _hour_by_hour(batch)
    used = np.flatnonzero(rows.weight > 0)
    columns = {name: codes[used] for f in features for name, codes in _columns(f, batch).items()}
    value, by = auc_of_tree(columns, rows.take(used))
    counts = int(late[used].sum()), int((~late[used]).sum())
    known = not math.isnan(value)
    error = auc_error(*counts, value) if known else math.nan
    told = tuple(dict.fromkeys(name.partition(":")[0] for name in by))
    return Told(late=counts[0], prompt=counts[1], auc=value, error=error, by=told)


def audit_features(
    lake: Lake, spec: DatasetSpec, ds: str, upstream: Upstream, counting: Counting
) -> tuple[FeatureReport, ...]:
    """What every input of an upstream tells alone, `surface` and the hour of `ts` included."""
    examples = DayExamples(lake, spec, ds, upstream, counting)
    batch = _sampled(examples, lambda b: np.ones(len(b["ts"]), bool), SAMPLE)
    fold = _fold(batch)
    kinds = {f"label:{x.name}": _of_label(batch, x.name, fold) for x in spec.labels_of(upstream)}
    ones = np.ones(len(fold))
    for kind, flags in (
        ("duplicated", _duplicated(lake, spec, ds, batch)),
        ("backfilled", _backfilled(lake, spec, ds, batch)),
    ):
        kinds[kind] = (np.arange(len(fold)), TwoKinds(positive=flags, weight=ones, fold=fold))
    positives = _positives(lake, spec, ds, upstream, counting)
    late = (np.arange(len(positives["late"])), _hour_by_hour(positives))
    # Drawn towards everybody's rate of the day they are read on: not comparable between days.
    rates = {f.name for e in ENTITIES for f in spec.counting_features(e) if f.group == "rates"}
    reports = []
    pairs = zip(_inputs(spec, batch), _inputs(spec, positives), strict=True)
    for (name, scope, tell), (_, _, tell_late) in pairs:
        aucs = {kind: tell(at, rows) for kind, (at, rows) in kinds.items()}
        labels = {k.removeprefix("label:"): v for k, v in aucs.items() if k.startswith("label:")}
        special = {k: v for k, v in aucs.items() if not k.startswith("label:")}
        special = {"late": math.nan if name in rates else tell_late(*late), **special}
        reports.append(FeatureReport(name=name, scope=scope, labels=labels, special=special))
    return tuple(reports)


Tell = Callable[[npt.NDArray, TwoKinds], float]


def _inputs(spec: DatasetSpec, batch: Arrays) -> Iterator[tuple[str, str, Tell]]:
    """Every input: its name, its scope, and what it tells of the chosen rows."""

    def column(codes: Codes) -> Tell:
        return lambda at, rows: _known(auc_alone, codes[at], rows)

    def vectors(values: npt.NDArray) -> Tell:
        return lambda at, rows: _known(auc_of_vectors, values[at], rows)

    yield "surface", "context", column(codes_of(batch["surface"]))
    yield "hour of ts", "context", column(codes_of(batch["ts"] // _HOUR_S % 24))
    for scope in ("context", "user", "pin"):
        for feature in spec.inputs_of(scope):
            if feature.kind == "embedding":
                yield feature.name, scope, vectors(batch[feature.name])
            for name, codes in _columns(feature, batch).items():
                yield name, scope, column(codes)


def _known(
    tell: Callable[[npt.NDArray, TwoKinds], float], values: npt.NDArray, rows: TwoKinds
) -> float:
    """What is told by the rows that weigh something; NaN where one kind has too few of them."""
    used = np.flatnonzero(rows.weight > 0)
    chosen = rows.take(used)
    fewer = min(chosen.positive.sum(), (~chosen.positive).sum())
    return tell(values[used], chosen) if fewer >= _FEWEST else math.nan


def _columns(feature: Feature, batch: Arrays) -> dict[str, Codes]:
    """A feature as columns of codes; an embedding has none."""
    values = batch[feature.name]
    if feature.kind == "numeric":
        return {feature.name: bins_of(values)}
    if feature.kind == "categorical":
        return {feature.name: codes_of(values)}
    if feature.kind == "embedding":
        return {}
    found = {
        f"{feature.name}: length": bins_of((values > 0).sum(axis=1)),
        f"{feature.name}: first": codes_of(values[:, 0]),
    }
    if feature.ids_of:
        keys = batch[f"key:{feature.ids_of}"].view(np.uint64)
        slot = 1 + keys % np.uint64(feature.cardinality - 1)
        found[f"{feature.name}: holds the row's"] = codes_of((values == slot[:, None]).any(axis=1))
    return found


def _sampled(
    examples: DayExamples,
    chosen: Callable[[Arrays], Flags],
    most: int,
    rows: Literal["all", "impressions"] = "all",
) -> Arrays:
    """Up to `most` of the chosen rows: of more, each as likely as the others."""
    parts, random, kept = [examples.empty()], np.random.default_rng(0), 0
    for batch in examples.batches(Order(batch_rows=_BATCH, rows=rows, distinct=False)):
        at = np.flatnonzero(chosen(batch))
        parts.append({k: v[at] for k, v in batch.items()} | {"draw": random.random(len(at))})
        kept += len(at)
        if kept > 2 * most:
            parts, kept = [_lowest(parts, most)], most
    return _lowest(parts, most)


def _lowest(parts: list[Arrays], most: int) -> Arrays:
    """The rows with the lowest draws, in their order."""
    parts = [p if "draw" in p else p | {"draw": np.empty(0)} for p in parts]
    names = [n for n in parts[-1] if not n.startswith(("random:", "row:"))]
    whole = {n: np.concatenate([p[n] for p in parts]) for n in names}
    at = np.sort(np.argsort(whole["draw"], kind="stable")[:most])
    return {n: v[at] for n, v in whole.items()}


def _fold(batch: Arrays) -> Codes:
    folds: Codes = (batch["key:user"] & 3).astype(np.int64)
    return folds


def _positives(
    lake: Lake, spec: DatasetSpec, ds: str, upstream: Upstream, counting: Counting
) -> Arrays:
    """The day's late labels of impressions of the days before, and what those days knew at once."""
    labels = [x.name for x in spec.labels_of(upstream) if x.role != "auxiliary"]
    days = [shift_day(ds, -back) for back in range(_LOOK_BACK, 0, -1)]
    days = sorted(set(days) & set(lake.days("events"))) if spec.attribution_days else []
    first = days[0] if days else ds
    start = np.datetime64(first, "s").astype(np.float64)

    def positive(batch: Arrays) -> Flags:
        found: Flags = np.any([batch[f"label:{name}"] == 1 for name in labels], axis=0)
        found &= batch["ts"] >= start
        return found

    def late(batch: Arrays) -> Flags:
        found: Flags = batch["late"] & positive(batch)
        return found

    parts = [_sampled(DayExamples(lake, spec, ds, upstream, counting), late, SAMPLE)]
    for day in days if len(parts[0]["late"]) else []:
        examples = DayExamples(lake, spec, day, upstream, counting)
        parts.append(_sampled(examples, positive, SAMPLE, rows="impressions"))
    return {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}


def _hour_by_hour(batch: Arrays) -> TwoKinds:
    """Late labels against the others, which weigh as much in every hour of every day."""
    late = batch["late"]
    _, hour = np.unique(batch["ts"] // _HOUR_S, return_inverse=True)
    size = int(hour.max(initial=0)) + 1
    lates, others = (np.bincount(hour[x], minlength=size) for x in (late, ~late))
    ratio = np.divide(lates, others, out=np.zeros(size), where=others > 0)
    weight = np.where(late, (others > 0)[hour], ratio[hour])
    return TwoKinds(positive=late, weight=weight.astype(np.float64), fold=_fold(batch))


def _of_label(batch: Arrays, label: str, fold: Codes) -> tuple[npt.NDArray, TwoKinds]:
    values = batch[f"label:{label}"]
    at = np.flatnonzero(~np.isnan(values))
    rows = TwoKinds(positive=values[at] == 1, weight=np.ones(len(at)), fold=fold[at])
    return at, rows


def _duplicated(lake: Lake, spec: DatasetSpec, ds: str, batch: Arrays) -> Flags:
    """Impressions that another one of the day equals in user, Pin and time."""
    rows = lake.dataset(spec.events_table(), [ds])
    there = _identities(rows.to_table(columns=list(_WHO), filter=pc.field("arrived_at").is_null()))
    values, counts = np.unique(there, return_counts=True)
    found: Flags = np.isin(_identity(batch), values[counts > 1]) & ~batch["late"]
    return found


def _backfilled(lake: Lake, spec: DatasetSpec, ds: str, batch: Arrays) -> Flags:
    """Rows that the delivery of a later day brought."""
    days = [d for d in lake.days(LATE) if d > ds]
    if not days:
        return np.zeros(len(batch["ts"]), bool)
    rows = lake.dataset(late_table(spec.events_table()), days).to_table(columns=list(_WHO))
    found: Flags = np.isin(_identity(batch), _identities(rows))
    return found


def _identities(rows: pa.Table) -> npt.NDArray[np.uint64]:
    user, pin = (stable_hash(rows[c].combine_chunks()) for c in _WHO[:2])
    return _mixed(user, pin, rows["ts"].cast(pa.int64()).to_numpy() / 1e6)


def _identity(batch: Arrays) -> npt.NDArray[np.uint64]:
    user, pin = (batch[f"key:{entity}"].view(np.uint64) for entity in ENTITIES)
    return _mixed(user, pin, batch["ts"])


def _mixed(
    user: npt.NDArray[np.uint64], pin: npt.NDArray[np.uint64], ts: npt.NDArray[np.float64]
) -> npt.NDArray[np.uint64]:
    """One number [N] for who saw what and when."""
    mixed: npt.NDArray[np.uint64] = (user * _MIX[0] ^ pin) * _MIX[1] ^ ts.view(np.uint64)
    return mixed


def as_json(report: FeatureReport) -> dict[str, object]:
    """The report with nulls where nothing is known."""

    def known(values: dict[str, float]) -> dict[str, float | None]:
        return {k: None if math.isnan(v) else round(v, 4) for k, v in values.items()}

    plain = dataclasses.asdict(report)
    return plain | {"labels": known(report.labels), "special": known(report.special)}

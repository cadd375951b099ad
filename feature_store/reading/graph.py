"""The graph of a day: who was related to what, how often, and when last, remembered day by day.

The table of a day is yesterday's, its counts decayed by a day, plus what the day adds: the events
of a day are never read again. It is bucketed by head, written bucket by bucket, and depends on
nothing but yesterday's partition and the day's own tables, so a day made again has the same bits.

A node is its type and its id: the same id in two types is two nodes.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.contracts.base import shift_day
from feature_store.contracts.datasets import DatasetSpec
from feature_store.contracts.edges import (
    CAMPAIGNS,
    EDGE,
    NODE_TYPES,
    OFFSITE,
    GraphRules,
    campaigns_table,
    graph_table,
    offsite_table,
)
from feature_store.contracts.manifests import Artifact
from feature_store.contracts.tables import Table
from feature_store.lake.buckets import bucket_of
from feature_store.lake.filing import is_late
from feature_store.lake.lake import Lake
from feature_store.lake.layout import Layout
from feature_store.lake.schemas import arrow_schema
from feature_store.lake.staging import sort_rows, stage_file
from feature_store.reading.numbered import NumberedGraph

_KIND = ("head_type", "relation", "tail_type")
_CHUNK_ROWS = 65_536
_NUL = "\x00"


@dataclass(frozen=True, kw_only=True, slots=True)
class DayOfEdges:
    """What a day did to the graph: edges that began, that were there, and that are forgotten."""

    new: int = 0
    again: int = 0
    forgotten: int = 0

    def __add__(self, other: "DayOfEdges") -> "DayOfEdges":
        return DayOfEdges(
            new=self.new + other.new,
            again=self.again + other.again,
            forgotten=self.forgotten + other.forgotten,
        )


def build_graph(
    lake: Lake, spec: DatasetSpec, ds: str, rules: GraphRules, scratch: Path, *, buckets: int = 8
) -> tuple[Artifact, DayOfEdges]:
    """Write the graph of a day from that of the day before, if there is one, and the day's tables.

    A day on which nothing happens decays what is remembered. Of further tables, `offsite` makes
    edges from users to items and advertisers, `campaigns` from Pins to items and from advertisers
    to Pins.

    Args:
        scratch: a folder with room for the day's edges.

    Raises:
        MissingInput: the day's events are not there.
        InputError: a rule names an action or a label that the data set does not have.
    """
    rules = rules.of(spec)
    table = graph_table()
    yesterday = shift_day(ds, -1)
    remembered = yesterday in lake.days(table.name)
    staged, done = [], DayOfEdges()
    with TemporaryDirectory(prefix="graph-", dir=scratch) as folder:
        _divide(_day_edges(lake, spec, ds, rules), Path(folder), buckets)
        for bucket in range(buckets):
            with pa.ipc.open_stream(Path(folder) / f"{bucket}.arrow") as reader:
                today = reader.read_all()
            past = lake.read(table, yesterday, bucket=bucket) if remembered else None
            folded, of_bucket = fold(past, today, ds, rules)
            done += of_bucket
            staged.append(stage_file(lake.root, table, ds, folded, bucket=bucket))
    properties = graph_layout(buckets).properties()
    return lake.commit(table, ds, staged, properties=properties), done


def graph_layout(buckets: int) -> Layout:
    """How the table is laid out: by the head of an edge."""
    return Layout(dim=1, buckets=buckets, dtype="float64")


def fold(
    past: pa.Table | None, today: pa.Table, ds: str, rules: GraphRules
) -> tuple[pa.Table, DayOfEdges]:
    """Yesterday's edges, decayed by a day, plus those of the day; ordered by key.

    Every sum has two parts at most besides whole numbers, so its bits do not depend on an order.

    Args:
        past: rows of the table of the day before.
        today: keys of edges, a row for each time it happened.
    """
    schema = arrow_schema(graph_table())
    before = 0 if past is None else len(past)
    counted = today.group_by(list(EDGE), use_threads=False).aggregate([([], "count_all")])
    rows = pa.table(
        [counted[name] for name in EDGE]
        + [pc.cast(counted["count_all"], pa.float64()), pa.repeat(pa.scalar(ds), len(counted))],
        names=[*EDGE, "count", "last_day"],
    )
    met = len(rows)
    if past is not None:
        decayed = pc.multiply(past["count"], 0.5 ** (1 / rules.half_life_days))
        past = past.set_column(past.schema.get_field_index("count"), "count", decayed)
        joined = pa.concat_tables([past.cast(schema), rows.cast(schema)]).combine_chunks()
        rows = joined.group_by(list(EDGE), use_threads=False).aggregate(
            [("count", "sum"), ("last_day", "max")]
        )
        rows = rows.rename_columns([*EDGE, "count", "last_day"])
    kept = rows.filter(pc.greater_equal(rows["count"], rules.least))
    new = len(rows) - before
    done = DayOfEdges(new=new, again=met - new, forgotten=len(rows) - len(kept))
    return sort_rows(kept.select(schema.names).cast(schema), EDGE), done


def _day_edges(lake: Lake, spec: DatasetSpec, ds: str, rules: GraphRules) -> Iterator[pa.Table]:
    """Keys of edges of a day, a row for each time one happened, some at a time."""
    columns = ["user_id", "pin_id", "arrived_at", "action", *rules.labels]
    for rows in _batches(lake, spec.events_table(), ds, columns):
        shown = pc.invert(is_late(rows))
        for action in rules.actions:
            hit = pc.and_(shown, pc.equal(rows["action"], action))
            yield _edges(rows.filter(hit), ("user", "user_id"), action, ("pin", "pin_id"))
        for label in rules.labels:
            hit = pc.fill_null(pc.equal(rows[label], 1), False)
            yield _edges(rows.filter(hit), ("user", "user_id"), label, ("pin", "pin_id"))
    if offsite := offsite_table(spec):
        for rows in _batches(lake, offsite, ds, [*OFFSITE]):
            for kind in pc.unique(rows["kind"]).to_pylist():
                some = rows.filter(pc.equal(rows["kind"], kind))
                yield _edges(some, ("user", "user_id"), kind, ("item", "item_id"))
                yield _edges(some, ("user", "user_id"), kind, ("advertiser", "advertiser_id"))
    if campaigns := campaigns_table(spec):
        for rows in _batches(lake, campaigns, ds, [*CAMPAIGNS]):
            yield _edges(rows, ("pin", "pin_id"), "promotes", ("item", "item_id"))
            yield _edges(rows, ("advertiser", "advertiser_id"), "owns", ("pin", "pin_id"))


def _batches(lake: Lake, table: Table, ds: str, columns: list[str]) -> Iterator[pa.Table]:
    dataset = lake.dataset(table, [ds])
    for batch in dataset.to_batches(columns=list(dict.fromkeys(columns)), batch_size=_CHUNK_ROWS):
        yield pa.Table.from_batches([batch])


def _edges(rows: pa.Table, head: tuple[str, str], relation: str, tail: tuple[str, str]) -> pa.Table:
    def same(value: str) -> pa.Array:
        return pa.repeat(pa.scalar(value), len(rows))

    found = [same(head[0]), rows[head[1]], same(relation), same(tail[0]), rows[tail[1]]]
    made = pa.table(found, names=list(EDGE))
    return made.filter(pc.and_(pc.is_valid(made["head_id"]), pc.is_valid(made["tail_id"])))


def _divide(parts: Iterator[pa.Table], folder: Path, buckets: int) -> None:
    """Write edges into the file of the bucket of their head."""
    schema = pa.schema([(name, pa.string()) for name in EDGE])
    with ExitStack() as stack:
        writers = [
            stack.enter_context(pa.ipc.new_stream(folder / f"{b}.arrow", schema))
            for b in range(buckets)
        ]
        for part in parts:
            rows = part.cast(schema).combine_chunks()
            bucket = bucket_of(rows["head_id"], buckets)
            for b in np.unique(bucket):
                writers[b].write_table(rows.filter(pa.array(bucket == b)))


def read_graph(lake: Lake, ds: str, *, least_degree: int = 3) -> NumberedGraph:
    """The graph as of the end of a day, without nodes of few edges.

    A node goes where fewer than `least_degree` edges touch it, and its edges go with it, once: what
    remains may have fewer. Memory is that of the day's edges.

    Raises:
        MissingInput: the day is not there.
    """
    rows = lake.read(graph_table(), ds)
    ends = [_nodes(rows, side).combine_chunks() for side in ("head", "tail")]
    name_M, at = _numbered(pa.concat_arrays(ends))
    head_K, tail_K = np.split(at, 2)
    degree_M = np.bincount(at, minlength=len(name_M))
    kept_M = degree_M >= least_degree
    kept_K = kept_M[head_K] & kept_M[tail_K]
    used = np.unique(np.concatenate([head_K[kept_K], tail_K[kept_K]]))
    kinds = pc.binary_join_element_wise(*(rows[c] for c in _KIND), _NUL).combine_chunks()
    kind_R, relation_K = _numbered(kinds)
    node_N = name_M.take(pa.array(used))
    last = pc.cast(pc.cast(rows["last_day"], pa.date32()), pa.int32()).to_numpy()
    return NumberedGraph(
        # A position in `NODE_TYPES` is one digit, and a NUL is behind it.
        id_N=pc.utf8_slice_codeunits(node_N, 2).to_numpy(zero_copy_only=False),
        type_N=pc.cast(pc.utf8_slice_codeunits(node_N, 0, 1), pa.int8()).to_numpy(),
        relations=tuple(tuple(kind.split(_NUL)) for kind in kind_R.to_pylist()),
        head_K=np.searchsorted(used, head_K[kept_K]),
        relation_K=relation_K[kept_K],
        tail_K=np.searchsorted(used, tail_K[kept_K]),
        weight_K=np.log1p(rows["count"].to_numpy()[kept_K]).astype(np.float32),
        last_K=last[kept_K].astype(np.int64),
        left_out=len(name_M) - len(used),
    )


def _numbered(names: pa.StringArray) -> tuple[pa.StringArray, npt.NDArray[np.int64]]:
    """Distinct names in order, and the place of each name among them."""
    coded = names.dictionary_encode()
    order = pc.sort_indices(coded.dictionary)
    place = np.empty(len(order), np.int64)
    place[order.to_numpy()] = np.arange(len(order))
    return coded.dictionary.take(order), place[coded.indices.to_numpy()]


def _nodes(rows: pa.Table, side: str) -> pa.ChunkedArray:
    """Type and id in one string: ids hold no NUL."""
    code = pc.index_in(rows[f"{side}_type"], value_set=pa.array(NODE_TYPES))
    return pc.binary_join_element_wise(pc.cast(code, pa.string()), rows[f"{side}_id"], _NUL)

"""Infer: embed the users and Pins of a day with a snapshot.

Reads the day's events and snapshot tables; writes `embeddings/{u}/{e}/raw`, one row per impression
in which an entity occurs (or only the last one per entity: `InferenceConfig.rows`), already
bucketed, and sorted by (entity_id, ts, event_id) within a bucket. An upstream that reads edges also
writes `nodes/{u}`, every node of the day's graph that is neither a user nor a Pin.

Features are as of the start of the day, so an entity has one embedding a day: the last row is
chosen, and each distinct entity embedded once, before the forward pass. Only impressions are
activity: a late label says what came of an impression of another day, which was embedded then.

Events are first divided by bucket into temporary files, so that memory is bounded by the entity
tables and one bucket, not by the day.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from feature_store.contracts.artifacts import Snapshot
from feature_store.contracts.base import ENTITIES, Entity
from feature_store.contracts.edges import nodes_table
from feature_store.contracts.manifests import Artifact, Metrics, SnapshotManifest
from feature_store.contracts.tables import Table, raw_table
from feature_store.lake.buckets import bucket_of, stable_hash
from feature_store.lake.filing import impressions
from feature_store.lake.layout import Layout
from feature_store.lake.schemas import arrow_schema, pack
from feature_store.lake.staging import StagedFile, sort_rows, stage_file
from feature_store.reading.day_edges import DayEdges
from feature_store.reading.examples import read_share
from feature_store.reading.readers import EntityReader, Reader
from jobs.engine.context import Outcome, RunContext
from jobs.engine.scratch import scratch_folder
from jobs.engine.snapshots import MODEL, SnapshotStore
from jobs.steps.model_inputs import new_objective, reader
from models.protocol import Objective
from models.training.determinism import make_deterministic, torch_device

_CHUNK_ROWS = 65_536
_ORDER = ("entity_id", "ts", "event_id")


def run(ctx: RunContext) -> Outcome:
    """Embed the day with the snapshot that was trained on it.

    Raises:
        MissingInput: a table or the snapshot is not there.
        ManifestCorrupt: the snapshot is damaged.
    """
    return embed_day(ctx, ctx.artifact(Snapshot(ctx.own_upstream)), nobody=ctx.rests)


def embed_day(ctx: RunContext, snapshot: Artifact, *, nobody: bool = False) -> Outcome:
    """Embed the day with any snapshot of its lineage.

    Args:
        nobody: write empty tables, on a day on which the upstream rests.

    Raises:
        MissingInput: a table or the snapshot is not there.
        ManifestCorrupt: the snapshot is damaged.
    """
    started = time.perf_counter()
    store = SnapshotStore(ctx.root, ctx.own_upstream)
    embedder = Embedder.load(ctx, store, store.of(snapshot))
    outputs, metrics = infer_day(ctx, embedder, ctx.ds, nobody=nobody)
    seconds = time.perf_counter() - started
    rows = sum(a.rows for a in outputs)
    return Outcome(
        outputs=outputs,
        metrics={**metrics, "rows": rows, "rows_per_s": round(rows / seconds, 1)},
        timings={"infer_s": round(seconds, 3)},
        device=embedder.device.type,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Embedder:
    """A snapshot, ready to embed."""

    objective: Objective
    snapshot: SnapshotManifest
    device: torch.device
    batch_rows: int

    @classmethod
    def load(cls, ctx: RunContext, store: SnapshotStore, snapshot: SnapshotManifest) -> "Embedder":
        """Read a snapshot's weights.

        Raises:
            ManifestCorrupt: they are missing or damaged.
        """
        make_deterministic(threads=ctx.settings.threads)
        objective = new_objective(ctx)
        objective.load_state_dict(store.read(snapshot, MODEL))
        device = torch_device(ctx.settings.device)
        return cls(
            objective=objective.to(device).eval(),
            snapshot=snapshot,
            device=device,
            batch_rows=ctx.recipe.inference.batch_rows,
        )

    @torch.no_grad()
    def embed(
        self, entity: str, features: EntityReader, rows: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """The embeddings [n, dim] of rows of a snapshot table.

        Args:
            entity: or another type of node, where the upstream reads edges.
        """
        out = np.empty((len(rows), self.snapshot.embedding_dim), "<f4")
        for start in range(0, len(rows), self.batch_rows):
            part = slice(start, start + self.batch_rows)
            batch: dict[str, Tensor] = {
                name: torch.from_numpy(array).to(self.device)
                for name, array in features.take(rows[part]).items()
            }
            out[part] = self.objective.embed(cast("Entity", entity), batch).float().cpu().numpy()
        return out


def infer_day(
    ctx: RunContext, embedder: Embedder, ds: str, *, nobody: bool = False
) -> tuple[tuple[Artifact, ...], Metrics]:
    """Embed one day with any snapshot, and commit both raw tables of that day.

    With the newest snapshot over the days of a window this is back inference.

    Returns:
        The artifacts of the two tables, users first, and, of a graph, that of its other nodes; and
        what was measured.
    """
    day = reader(ctx.at(ds), ds)
    with scratch_folder(ctx.root, "infer") as spill:
        artifacts, metrics = [], Metrics()
        for entity in ctx.own_entities:
            table = raw_table(embedder.snapshot.upstream, entity)
            _divide(ctx, table, () if nobody else (ds,), entity, spill)
            artifact, cold = _embed_buckets(ctx, embedder, table, entity, day, spill)
            artifacts.append(artifact)
            metrics |= {f"rows_{entity}": artifact.rows, f"cold_rows_{entity}": cold}
        if isinstance(day, DayEdges):
            rows = other_nodes(embedder, day, nobody=nobody)
            artifacts.append(_commit_nodes(ctx, embedder, day.ds, rows))
            metrics["rows_nodes"] = len(rows)
    return tuple(artifacts), {"snapshot_id": embedder.snapshot.snapshot_id, **metrics}


def other_nodes(embedder: Embedder, day: DayEdges, *, nobody: bool = False) -> pa.Table:
    """The vectors of the nodes of a graph that are neither users nor Pins; rows of `nodes_table`.

    Args:
        nobody: none of them.
    """
    snapshot = embedder.snapshot
    schema = arrow_schema(nodes_table(snapshot.upstream))
    parts = [schema.empty_table()]
    for name, nodes in day.nodes.items() if not nobody else ():
        if name in ENTITIES:
            continue
        vectors = embedder.embed(name, nodes, np.arange(len(nodes)))
        columns = {
            "node_type": pa.repeat(pa.scalar(name), len(nodes)),
            "node_id": pa.array(nodes.ids, pa.string()),
            "embedding": pack(vectors),
            "snapshot_id": pa.repeat(pa.scalar(snapshot.snapshot_id), len(nodes)),
            "space_id": pa.repeat(pa.scalar(snapshot.space_id), len(nodes)),
        }
        parts.append(pa.table([columns[field] for field in schema.names], schema=schema))
    return pa.concat_tables(parts).combine_chunks()


def _commit_nodes(ctx: RunContext, embedder: Embedder, ds: str, rows: pa.Table) -> Artifact:
    table, buckets = nodes_table(embedder.snapshot.upstream), ctx.recipe.layout.pin_buckets
    bucket = bucket_of(rows["node_id"], buckets)
    staged = [
        stage_file(ctx.lake.root, table, ds, rows.filter(pa.array(bucket == b)), bucket=b)
        for b in range(buckets)
    ]
    layout = Layout(dim=embedder.snapshot.embedding_dim, buckets=buckets)
    return ctx.lake.commit(table, ds, staged, properties=layout.properties())


def last_rows(events: pa.Table) -> pa.Table:
    """The last event of each entity, of events sorted by (entity_id, ts, event_id)."""
    ids = events.column("entity_id").combine_chunks()
    codes = ids.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    last = np.append(codes[1:] != codes[:-1], True)[: len(codes)]
    return events.filter(pa.array(last))


def _divide(
    ctx: RunContext, table: Table, days: tuple[str, ...], entity: Entity, spill: Path
) -> None:
    """Write the (entity_id, event_id, ts) of impressions into one Arrow file per bucket."""
    buckets = ctx.recipe.layout.buckets(entity)
    declared = arrow_schema(table)
    schema = pa.schema([declared.field(name) for name in ("entity_id", "event_id", "ts")])
    writers = [pa.ipc.new_stream(_spill_path(spill, entity, b), schema) for b in range(buckets)]
    columns = [f"{entity}_id", "event_id", "ts"]
    dataset = ctx.lake.dataset(ctx.spec.events_table(), days)
    for rows in read_share(dataset, [*columns, "arrived_at"], _CHUNK_ROWS):
        chunk = impressions(rows)
        named = pa.RecordBatch.from_arrays([chunk.column(c) for c in columns], schema=schema)
        bucket = bucket_of(named.column("entity_id"), buckets)
        order = np.argsort(bucket, kind="stable")
        ends = np.searchsorted(bucket[order], np.arange(buckets + 1))
        for b in np.unique(bucket):
            writers[b].write_batch(named.take(pa.array(order[ends[b] : ends[b + 1]])))
    for writer in writers:
        writer.close()


def _embed_buckets(
    ctx: RunContext,
    embedder: Embedder,
    table: Table,
    entity: Entity,
    day: Reader,
    spill: Path,
) -> tuple[Artifact, int]:
    """Embed and stage bucket by bucket, then commit; also counts rows of unknown entities."""
    buckets, features = ctx.recipe.layout.buckets(entity), day.entities[entity]
    staged: list[StagedFile] = []
    cold = 0
    for bucket in range(buckets):
        with pa.ipc.open_stream(_spill_path(spill, entity, bucket)) as reader:
            events = sort_rows(reader.read_all(), _ORDER)
        if ctx.recipe.inference.rows == "last":
            events = last_rows(events)
        rows = features.rows_of(stable_hash(events.column("entity_id")))
        unknown = rows == len(features)
        cold += int(unknown.sum())
        if not features.embeds_unknown:
            events, rows = events.filter(pa.array(~unknown)), rows[~unknown]
        distinct, inverse = np.unique(rows, return_inverse=True)
        vectors = embedder.embed(entity, features, distinct)
        data = _raw_rows(embedder, events, vectors[inverse], arrow_schema(table))
        staged.append(stage_file(ctx.lake.root, table, day.ds, data, bucket=bucket))
    properties = {
        "dtype": "float32",
        "dim": str(embedder.snapshot.embedding_dim),
        "buckets": str(buckets),
    }
    return ctx.lake.commit(table, day.ds, staged, properties=properties), cold


def _raw_rows(
    embedder: Embedder, events: pa.Table, vectors: npt.NDArray[np.float32], schema: pa.Schema
) -> pa.Table:
    count = len(events)
    columns = {name: events.column(name) for name in ("entity_id", "event_id", "ts")} | {
        "embedding": pack(vectors),
        "snapshot_id": pa.repeat(pa.scalar(embedder.snapshot.snapshot_id), count),
        "space_id": pa.repeat(pa.scalar(embedder.snapshot.space_id), count),
    }
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _spill_path(spill: Path, entity: Entity, bucket: int) -> Path:
    return spill / f"{entity}-{bucket}.arrow"

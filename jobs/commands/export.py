"""`derm export`: a day's pool as files for programs that read no Delta table.

`parquet`: one file, vectors as fixed-size lists. `npy`: a float32 matrix, and the ids line by line.
`projector`: `vectors.tsv`, `metadata.tsv` and the configuration that TensorFlow's Embedding
Projector reads. Whatever the size of the pool, a row group of it is in memory at a time.
"""

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.client import offline
from feature_store.contracts.base import ENTITIES, Entity, Upstream
from feature_store.contracts.errors import InputError, MissingInput
from feature_store.contracts.tables import pool_table
from feature_store.lake.lake import Lake
from jobs.console import day, out
from jobs.pipelines import catalog
from jobs.rendering.published import read_published
from jobs.settings import Home, Settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm export`."""
    parser.add_argument("--upstream", metavar="NAME", help="default: the first published one")
    parser.add_argument("--entity", choices=ENTITIES, default="user", help="default: user")
    parser.add_argument("--ds", type=day, help="the day, YYYY-MM-DD; default: the released one")
    parser.add_argument("--format", choices=tuple(_WRITERS), default="parquet", help="see above")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="a folder that is not there yet"
    )


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Write the files; all of them or none."""
    pipeline = catalog.pipeline_of(Home.load(settings.home))
    upstream = pipeline.upstream(args.upstream or pipeline.published[0]).name
    ds = args.ds or _released(settings)
    if args.out.exists():
        raise InputError("the folder of an export is there already", where=str(args.out))
    rows = Lake(settings.lake_root).artifact(pool_table(upstream, args.entity).name, ds).rows or 0
    draft = args.out.with_name(f".{args.out.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        _WRITERS[args.format](draft, _opened(settings, upstream, args.entity, ds), rows)
        draft.rename(args.out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    files = sorted(p.name for p in args.out.iterdir())
    body = {"upstream": upstream, "entity": args.entity, "ds": ds, "rows": rows}
    if args.json:
        out(json.dumps(body | {"folder": str(args.out), "files": files}))
    else:
        out(f"{rows} {args.entity}s of {upstream} as of {ds}: {args.out}/{{{','.join(files)}}}")
    return 0


def _released(settings: Settings) -> str:
    published = read_published(settings.home)
    if published is None:
        raise MissingInput(
            "nothing was released yet", hint="name a day whose pool there is: --ds DAY"
        )
    return published.release.ds


def _opened(
    settings: Settings, upstream: Upstream, entity: Entity, ds: str
) -> pa.RecordBatchReader:
    lake = str(settings.lake_root)
    schema = offline.embeddings(lake, upstream, entity, ds, []).schema
    return pa.RecordBatchReader.from_batches(schema, offline.batches(lake, upstream, entity, ds))


def _write_parquet(folder: Path, pool: pa.RecordBatchReader, _: int) -> None:
    with pq.ParquetWriter(folder / "embeddings.parquet", pool.schema, compression="zstd") as file:
        for batch in pool:
            file.write_batch(batch)


def _write_npy(folder: Path, pool: pa.RecordBatchReader, rows: int) -> None:
    path, shape, at = folder / "embeddings.npy", (rows, _dim(pool)), 0
    if rows:
        matrix = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    else:  # which cannot be mapped into memory
        np.save(path, np.empty(shape, np.float32))
    with (folder / "ids.txt").open("w") as ids:
        for batch in pool:
            matrix[at : at + len(batch)] = _vectors(batch)
            at += len(batch)
            ids.writelines(f"{i}\n" for i in batch.column("entity_id").to_pylist())


def _write_projector(folder: Path, pool: pa.RecordBatchReader, rows: int) -> None:
    with (folder / "vectors.tsv").open("w") as vectors, (folder / "metadata.tsv").open("w") as ids:
        ids.write("entity_id\tlast_active\n")
        for batch in pool:
            np.savetxt(vectors, _vectors(batch), fmt="%.9g", delimiter="\t")
            columns = (batch.column(name).to_pylist() for name in ("entity_id", "last_active"))
            ids.writelines(f"{i}\t{active}\n" for i, active in zip(*columns, strict=True))
    tensor = {
        "tensorName": "embeddings",
        "tensorShape": [rows, _dim(pool)],
        "tensorPath": "vectors.tsv",
        "metadataPath": "metadata.tsv",
    }
    body = json.dumps({"embeddings": [tensor]}, indent=2)
    (folder / "projector_config.json").write_text(body + "\n")


def _vectors(batch: pa.RecordBatch) -> npt.NDArray[np.float32]:
    """The vectors [B, D] of a batch."""
    column = batch.column("embedding")
    flat: npt.NDArray[np.float32] = column.flatten().to_numpy()
    return flat.reshape(len(batch), column.type.list_size)


def _dim(pool: pa.RecordBatchReader) -> int:
    size: int = pool.schema.field("embedding").type.list_size
    return size


_WRITERS: dict[str, Callable[[Path, pa.RecordBatchReader, int], None]] = {
    "parquet": _write_parquet,
    "npy": _write_npy,
    "projector": _write_projector,
}

"""How fast rows of 4 bits are looked up and widened, against torch, FBGEMM and a float16 table.

    python -m benchmarks.tables.lookup --json lookup.json

One table of real files, memory-mapped; Zipf ids, batches of 65,536, one thread, contenders in turn:

- ours: `kernel()`, the fused look-up of this project (torch's kernel with 32-bit row numbers);
- numpy: the same without torch, as a ranker without torch has it;
- torch: `quantized::embedding_bag_4bit_rowwise_offsets` as it is usually called, with 64-bit ones;
- fbgemm: its CPU table of 4 bits, where it is installed
  (`pip install --no-deps --target build/fbgemm fbgemm-gpu-cpu==1.8.0`, `PYTHONPATH=build/fbgemm`);
- fp16: gathering rows of a float16 table and widening them;
- floor: the bytes of a row, packed and widened, at the rate at which memory is copied.

`rows_per_s` counts seconds of the one thread's processor time, which other work on the machine
changes little; `wall_s` is the clock's.
"""

import argparse
import importlib
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.dlpack import from_dlpack

from benchmarks import harness
from benchmarks.tables.data import write_table, zipf_ids
from feature_store.tables.kernels import kernel
from feature_store.tables.shard import MappedTable, open_shard

Look = Callable[[npt.NDArray[np.int64]], object]
_COPIED = 1 << 27


def main() -> None:
    """Write a table, look its rows up in alternating rounds, report."""
    parser = harness.arguments(__doc__, rounds=5)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--zipf", type=float, default=1.05)
    parser.add_argument("--batch", type=int, default=65_536)
    parser.add_argument("--batches", type=int, default=8, help="of a round, all different")
    parser.add_argument("--folder", type=Path, help="where the table is kept for another run")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="derm-bench-") as folder:
        root = args.folder or Path(folder)
        if not (root / "v").exists():
            write_table(root, args.rows, args.dim, shards=1)
        table = open_shard(root, "v", 0).tables["t"]
        harness.report(_compare(table, args), args)


def _compare(table: MappedTable, args: argparse.Namespace) -> dict:
    batches = list(itertools.islice(zipf_ids(args.rows, args.zipf, args.batch), args.batches))
    # Row 0 is the default row.
    rows = [ids + 1 for ids in batches]
    packed, form = table.packed, table.form
    ours, plain = kernel(), kernel("numpy")
    wide = form.row_bytes
    looks: dict[str, tuple[Look, int]] = {
        "ours": (lambda ids: ours(form, packed, ids), wide),
        "numpy": (lambda ids: plain(form, packed, ids), wide),
        "torch": (_torch(table), wide),
        "fp16": (_halves(table, args.dim), 2 * args.dim),
    }
    try:
        looks["fbgemm"] = (_fbgemm(table, args.dim), wide)
    except ImportError as error:
        print(f"fbgemm is left out: {error}")
    contenders = {name: _timed(look, rows, size) for name, (look, size) in looks.items()}
    contenders["floor"] = _floor(args.batch * args.batches, wide + 4 * args.dim)
    found = harness.summary(harness.alternate(contenders, args.rounds))
    _check(looks, rows[0], table)
    shares = harness.against_floor(found)
    distinct = len(np.unique(np.concatenate(rows))) / (args.batch * args.batches)
    kept = ("rows", "dim", "zipf", "batch", "batches")
    return {
        "contenders": shares,
        **{name: getattr(args, name) for name in kept},
        "distinct_share": distinct,
    }


def _timed(look: Look, rows: list[npt.NDArray[np.int64]], size: int) -> harness.Contender:
    def run() -> harness.Numbers:
        clock = harness.Clock()
        for batch in rows:
            look(batch)
        clock.stop()
        per_s = sum(map(len, rows)) / clock.cpu
        return {
            "rows_per_s": per_s,
            "bytes_per_row": size,
            "wall_s": clock.wall,
            "cpu_s": clock.cpu,
        }

    return run


def _floor(rows: int, size: int) -> harness.Contender:
    source, target = np.ones(_COPIED, np.uint8), np.empty(_COPIED, np.uint8)

    def run() -> harness.Numbers:
        clock = harness.Clock()
        np.copyto(target, source)
        clock.stop()
        # A copy reads and writes each byte.
        per_s = 2 * _COPIED / clock.cpu / size
        return {"rows_per_s": per_s, "bytes_per_row": size, "cpu_s": rows / per_s}

    return run


def _torch(table: MappedTable) -> Look:
    packed = from_dlpack(table.packed)

    def look(ids: npt.NDArray[np.int64]) -> object:
        bags = torch.arange(len(ids))
        return torch.ops.quantized.embedding_bag_4bit_rowwise_offsets(
            packed, torch.from_numpy(ids), bags
        )

    return look


def _halves(table: MappedTable, dim: int) -> Look:
    halves = torch.empty((len(table.packed), dim), dtype=torch.float16)
    step = 1 << 18
    for start in range(0, len(halves), step):
        part = table.form.decode(table.packed[start : start + step])
        halves[start : start + step] = torch.from_numpy(part)
    return lambda ids: halves.index_select(0, torch.from_numpy(ids)).float()


def _fbgemm(table: MappedTable, dim: int) -> Look:
    ops = importlib.import_module("fbgemm_gpu.split_table_batched_embeddings_ops_inference")
    common = importlib.import_module("fbgemm_gpu.split_table_batched_embeddings_ops_common")
    config = importlib.import_module("fbgemm_gpu.split_embedding_configs")
    bag = ops.IntNBitTableBatchedEmbeddingBagsCodegen(
        [("t", len(table.packed), dim, config.SparseType.INT4, common.EmbeddingLocation.HOST)],
        device="cpu",
        output_dtype=config.SparseType.FP32,
        pooling_mode=common.PoolingMode.NONE,
    )
    bag.fill_random_weights()
    weights, _ = bag.split_embedding_weights(split_scale_shifts=False)[0]
    # Its rows begin with scale and bias.
    codes = table.form.code_bytes
    turned = np.concatenate([table.packed[:, codes:], table.packed[:, :codes]], axis=1)
    weights[:, : turned.shape[1]].copy_(torch.from_numpy(turned))

    def look(ids: npt.NDArray[np.int64]) -> object:
        kind = torch.int32
        bags = torch.arange(len(ids) + 1, dtype=kind)
        return bag(torch.from_numpy(ids).to(kind), bags)

    return look


def _check(
    looks: dict[str, tuple[Look, int]], rows: npt.NDArray[np.int64], table: MappedTable
) -> None:
    """All of them found the same rows."""
    right = table.form.decode(table.packed[rows[:1000]])
    for name, (look, _) in looks.items():
        off = np.abs(np.asarray(look(rows[:1000])) - right).max()
        assert off < (2e-3 if name == "fp16" else 1e-6), f"{name} is off by {off}"


if __name__ == "__main__":
    main()

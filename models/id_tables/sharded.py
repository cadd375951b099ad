"""A table of ids whose rows lie with several ranks: none of them holds it whole.

Row r lies with rank r mod n. A look-up asks every rank for the rows that it has, each once, and
gets their vectors; the backward pass sends their gradients the same way. Everybody exchanges with
everybody, so all ranks look up together, also one that has no ids.

Shapes: N ids, H hashes, U distinct rows that this rank asks for, W rows that it is asked for, D
width, L rows that lie with this rank.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from feature_store.contracts.errors import ManifestCorrupt
from models.nn.config import IdTableConfig
from models.nn.id_table import IdRows, starting_rows
from models.training.checkpoint import read_tensors, write_tensors
from models.training.distributed import world


class ShardedIdTable(IdRows):
    """As `IdTable`, and with the same bits to begin with; `weight` is what lies with this rank.

    Counters are whole on every rank, a number for each row.

    Source: row-wise sharding as of TorchRec and Mudigere et al. 2022 (arXiv 2104.05158).
    Deviations: rows are dealt out one by one and not in ranges: shards of a table are even.
    """

    def __init__(self, config: IdTableConfig) -> None:
        super().__init__(config)
        rank, ranks = world()
        mine = [block[(rank - first) % ranks :: ranks] for first, block in starting_rows(config)]
        self.weight = nn.Parameter(torch.cat(mine))
        self.register_buffer("sum_R", torch.zeros(len(self.weight)))

    def look_up(self, row_HN: Tensor) -> Tensor:
        """The rows of all ranks, [H, N, D]."""
        distinct_U, at = torch.unique(row_HN, return_inverse=True)
        found: Tensor = _Exchange.apply(distinct_U, self.weight)  # type: ignore[no-untyped-call]
        return found.index_select(0, at.flatten()).view(*row_HN.shape, self.config.dim)


class _Exchange(torch.autograd.Function):
    """Rows by their numbers; the gradient of those that lie here is sparse, summed over ranks."""

    @staticmethod
    def forward(ctx: Any, distinct_U: Tensor, weight_LD: Tensor) -> Tensor:
        ranks = world()[1]
        order_U = torch.argsort(distinct_U % ranks, stable=True)
        wanted_U = distinct_U[order_U]
        asked = torch.bincount(wanted_U % ranks, minlength=ranks)
        sizes = _all_to_all(asked, [1] * ranks, [1] * ranks)
        ctx.asked, ctx.given = asked.tolist(), sizes.tolist()
        local_W = _all_to_all(wanted_U, ctx.asked, ctx.given) // ranks
        ctx.save_for_backward(order_U, local_W)
        ctx.shape = weight_LD.shape
        found_UD = _all_to_all(weight_LD[local_W], ctx.given, ctx.asked)
        return torch.empty_like(found_UD).index_copy_(0, order_U, found_UD)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor]:
        order_U, local_W = ctx.saved_tensors
        grad_WD = _all_to_all(grads[0][order_U].contiguous(), ctx.asked, ctx.given)
        return None, torch.sparse_coo_tensor(
            local_W[None], grad_WD, ctx.shape, check_invariants=False
        )


def _all_to_all(x: Tensor, sent: list[int], received: list[int]) -> Tensor:
    """Send the first `sent[0]` rows to rank 0, the next to rank 1, ...; what all have sent here."""
    if world()[1] == 1:
        return x
    out = x.new_empty((sum(received), *x.shape[1:]))
    dist.all_to_all_single(out, x.contiguous(), received, sent)
    return out


def write_shard(folder: Path, name: str, rows_L: Tensor) -> None:
    """Write what lies with this rank of a tensor that has a row per row of the table.

    Args:
        rows_L: [L, ...]: of the table, or of its optimizer.
    """
    rank, ranks = world()
    write_tensors(folder / _file(name, rank, ranks), {name: rows_L.detach().cpu().contiguous()})


def read_shard(folder: Path, name: str, rows: int) -> Tensor:
    """What lies with this rank, of files that any number of ranks have written.

    Args:
        rows: of the whole table.

    Raises:
        ManifestCorrupt: a file is missing, or has other rows than it should.
    """
    rank, ranks = world()
    out: Tensor | None = None
    for writer, writers, path in _files(folder, name):
        part = read_tensors(path)[0][name]
        if len(part) != len(range(writer, rows, writers)):
            raise ManifestCorrupt(
                "a shard of a table has other rows than the table",
                where=str(path),
                expected=f"{len(range(writer, rows, writers))} of {rows} rows",
                found=str(len(part)),
            )
        if out is None:
            out = part.new_empty((len(range(rank, rows, ranks)), *part.shape[1:]))
        number = torch.arange(writer, rows, writers)
        mine = number % ranks == rank
        out[number[mine] // ranks] = part[mine]
    assert out is not None  # noqa: S101 - there is a file, or an error was raised
    return out


def _files(folder: Path, name: str) -> Iterator[tuple[int, int, Path]]:
    """The shards of a tensor, by rank, of how many, and where.

    Raises:
        ManifestCorrupt: some are missing, or they are of several numbers of ranks.
    """
    found = sorted(folder.glob(f"{name}-*of*.safetensors"))
    writers = {int(path.stem.rpartition("of")[2]) for path in found}
    expected = [folder / _file(name, r, n) for n in writers for r in range(n)]
    if len(writers) != 1 or set(found) != set(expected):
        raise ManifestCorrupt(
            "the shards of a table are not those of one number of ranks",
            where=str(folder / name),
            expected=" ".join(path.name for path in expected) or "shards",
            found=" ".join(path.name for path in found) or "none",
        )
    (ranks,) = writers
    for rank in range(ranks):
        yield rank, ranks, folder / _file(name, rank, ranks)


def _file(name: str, rank: int, ranks: int) -> str:
    return f"{name}-{rank}of{ranks}.safetensors"

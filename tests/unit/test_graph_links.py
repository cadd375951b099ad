"""Public graphs: read, refused where they leak, trained in pieces, one cell of the experiment."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments.graph.links import VARIANTS, Options, design
from experiments.graph.runs import LinkRun, PassSchedule
from experiments.graph.triples import PARTS, read_public
from experiments.harness.design import Cell
from feature_store.contracts.errors import ContractViolation, MissingInput

GROUPS, EACH = 4, 6


def write(folder: Path, *, leak: bool = False) -> Path:
    """Blocks of entities that are all related to each other, every fifth pair left out."""
    folder.mkdir(parents=True)
    head, tail = np.divmod(np.arange(GROUPS * EACH * EACH), EACH)
    tail += (head // EACH) * EACH
    kept = np.flatnonzero(head != tail)
    part = {"train": kept[np.arange(len(kept)) % 5 > 1]}
    for number, name in enumerate(PARTS[1:]):
        part[name] = kept[np.arange(len(kept)) % 5 == number]
    if leak:
        part["test"] = np.append(part["test"], part["train"][:3])
    for name, rows in part.items():
        columns = {
            "head": [f"e{n}" for n in head[rows]],
            "relation": ["similar"] * len(rows),
            "tail": [f"e{n}" for n in tail[rows]],
        }
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder


def small() -> Options:
    return Options(passes=6, every=2, validated=0, width=8, negatives=24)


def run(folder: Path, data: Path, passes: int) -> LinkRun:
    config = VARIANTS[0].config(small(), "similar")
    schedule = PassSchedule(passes=passes, every=2, validated=0)
    return LinkRun(config, read_public(data), schedule, seed=0, folder=folder)


def test_a_triple_in_two_parts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractViolation, match="in two parts") as caught:
        read_public(write(tmp_path / "g", leak=True))
    assert "3 of " in str(caught.value)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "g")
    (folder / "valid.parquet").unlink()
    with pytest.raises(MissingInput, match=r"valid\.parquet"):
        read_public(folder)
    pq.write_table(pa.table({"head": ["a"], "tail": ["b"]}), folder / "valid.parquet")
    with pytest.raises(ContractViolation, match="no relation"):
        read_public(folder)


def test_nothing_that_is_asked_for_is_known_to_training(tmp_path: Path) -> None:
    data = read_public(write(tmp_path / "g"))
    train = set(zip(data.graph.triples.head_K, data.graph.triples.tail_K, strict=True))
    masked = set()
    for drawn in run(tmp_path / "run", tmp_path / "g", 2).trainer.draw.batches(0):
        asked, nodes = drawn.asked["tail", 0], drawn.pools[0].node_P
        question, place = np.divmod(asked.known, len(nodes))
        heads = drawn.node_U[drawn.head_GC[asked.chunk_K].ravel()][question]
        masked |= set(zip(heads, nodes[place], strict=True))
    assert masked == train
    for asked in (data.valid, data.test):
        assert not masked & set(zip(asked.head_K, asked.tail_K, strict=True))


def _interrupted_after(passes: int, train):
    """As if somebody had pressed Ctrl-C in the pass after these."""

    def until(number: int):
        if number >= passes:
            raise KeyboardInterrupt
        return train(number)

    return until


def test_a_run_in_pieces_is_the_run(tmp_path: Path) -> None:
    data = write(tmp_path / "g")
    whole = run(tmp_path / "whole", data, 6)
    whole.train()
    first_piece = run(tmp_path / "pieces", data, 6)
    first_piece.trainer.train = _interrupted_after(3, first_piece.trainer.train)
    with pytest.raises(KeyboardInterrupt):
        first_piece.train()
    pieces = run(tmp_path / "pieces", data, 6)
    numbers = []
    train = pieces.trainer.train
    pieces.trainer.train = lambda number: numbers.append(number) or train(number)
    pieces.train()
    assert numbers == [3, 4, 5]
    assert [line["loss"] for line in pieces.curve] == [line["loss"] for line in whole.curve]
    assert len((tmp_path / "pieces" / "curve.jsonl").read_text().splitlines()) == 3
    first, second = whole.tested(), pieces.tested()
    assert {k: v for k, v in first.items() if k != "train_s"} == {
        k: v for k, v in second.items() if k != "train_s"
    }


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
def test_every_variant_learns_the_blocks(tmp_path: Path, variant) -> None:
    write(tmp_path / "graphs" / "wn18rr")
    options = Options(
        folder=str(tmp_path / "graphs"),
        runs=str(tmp_path / "runs"),
        passes=20,
        every=10,
        validated=0,
        width=16,
        negatives=24,
    )
    made = design(options)
    found = made.run(Cell(data="wn18rr", variant=variant, seed=0))[variant.name].rounds[0]
    assert found["mrr"] > 0.5
    assert list((tmp_path / "runs").glob("*/best.safetensors"))

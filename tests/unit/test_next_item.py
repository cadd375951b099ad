"""The public protocol: what it refuses and measures; and that a run resumes to the same bits."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments.next_item import losses, protocol
from experiments.next_item.protocol import check_apart, quality, ranks, split
from experiments.next_item.sequences import Sequences, check_order, read_sequences
from experiments.next_item.training import NextItemRun, Schedule
from feature_store.contracts.errors import ContractViolation, InputError
from models.sasrec.config import SasRecConfig
from models.training.checkpoint import read_tensors

ITEMS, USERS = 20, 60


def walks(users: int = USERS, items: int = ITEMS) -> Sequences:
    """Everybody walks over the items in one order, from a place of their own."""
    random = np.random.default_rng(0)
    order = random.permutation(items)
    lengths = random.integers(5, 12, users)
    parts = [order[(random.integers(items) + np.arange(n)) % items] for n in lengths]
    return Sequences(
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        item_A=np.concatenate(parts),
        num_items=items,
        time_A=None,
        order="published",
    )


def write(folder: Path, items: list[list[int]], gaps: list[list[int]] | None = None) -> Path:
    columns = {"user_id": list(range(len(items))), "items": items}
    pq.write_table(
        pa.table(columns | ({"gap_s": gaps} if gaps else {})), folder / "sequences.parquet"
    )
    return folder


def test_an_unknown_order_is_refused(tmp_path):
    write(tmp_path, [[3, 1, 2, 5]] * 40)
    with pytest.raises(ContractViolation, match="order of the actions is not known"):
        read_sequences(tmp_path, "unknown")
    assert len(read_sequences(tmp_path, "published")) == 40
    with pytest.raises(InputError, match="no sequences"):
        read_sequences(tmp_path / "elsewhere", "published")


def test_ties_sorted_by_id_are_refused_and_others_are_not(tmp_path):
    random = np.random.default_rng(0)
    drawn = [random.permutation(50)[:8].tolist() for _ in range(60)]
    gaps = [[0, 0, 0, 0, 86_400, 0, 0, 0]] * 60
    found = read_sequences(write(tmp_path, drawn, gaps), "unknown")
    assert found.order == "time"
    assert found.time_A[:8].tolist() == [0, 0, 0, 0, *[86_400] * 4]
    leaked = [sorted(x[:4]) + sorted(x[4:]) for x in drawn]
    with pytest.raises(ContractViolation, match=r"sorted by their ids[\s\S]*100% of 360"):
        read_sequences(write(tmp_path, leaked, gaps), "unknown")
    with pytest.raises(ContractViolation, match="sorted by their ids"):
        read_sequences(write(tmp_path, [x[::-1] for x in leaked], gaps), "unknown")


def test_too_few_actions_are_refused():
    made = walks()
    with pytest.raises(ContractViolation, match="1 users with fewer"):
        check_order(made.first(np.where(np.arange(USERS) == 3, 3, made.lengths)), where="here")


def test_a_held_out_item_that_was_trained_on_is_refused():
    found = split(walks(), "all")
    check_apart(found)
    leaking = found.test.target_T.copy()
    leaking[7] = found.train.take(np.array([7])).item_A[0]
    test = dataclasses.replace(found.test, target_T=leaking)
    with pytest.raises(ContractViolation, match="1 of 60 held-out"):
        check_apart(dataclasses.replace(found, test=test))


@pytest.mark.parametrize("how", ["all", "some"])
def test_what_is_held_out(how, monkeypatch):
    monkeypatch.setattr(protocol, "_VALIDATED", 10)
    made, found = walks(), split(walks(), how)
    rows = np.split(made.item_A, made.offsets[1:-1])
    assert found.test.target_T.tolist() == [row[-1] for row in rows]
    assert np.split(found.test.before.item_A, found.test.before.offsets[1:-1])[5].tolist() == (
        rows[5][:-1].tolist()
    )
    chosen = found.validation.user_T
    assert len(chosen) == (10 if how == "some" else USERS)
    back = 3 if how == "some" else 2
    assert found.validation.target_T.tolist() == [rows[u][-back] for u in chosen]
    learned = made.lengths - 2 - (how == "some") * np.isin(np.arange(USERS), chosen)
    assert found.train.lengths.tolist() == learned.tolist()


def test_ranks_equal_a_loop_and_ties_count_against_us():
    held = split(walks(), "all").test
    random = np.random.default_rng(1)
    scores = random.integers(0, 6, (USERS, ITEMS)).astype(np.float32)
    found = ranks(lambda before: scores[: len(before)].copy(), held)
    for user, target in enumerate(held.target_T):
        seen = set(held.before.take(np.array([user])).item_A.tolist())
        left = [i for i in range(ITEMS) if i not in seen and i != target]
        assert found[user] == sum(scores[user, i] >= scores[user, target] for i in left)
    nothing = ranks(lambda before: np.zeros((len(before), ITEMS)), held)
    assert (nothing == ITEMS - 1 - held.before.lengths).all()
    broken = ranks(lambda before: np.full((len(before), ITEMS), np.nan), held)
    assert (broken == ITEMS).all()


def test_quality_by_hand():
    found = quality(np.array([0, 1, 9, 10]))
    np.testing.assert_allclose(found["ndcg_at_10"], [1, 1 / np.log2(3), 1 / np.log2(11), 0])
    assert found["hit_at_10"].tolist() == [1, 1, 1, 0]


def run(folder: Path, **changed) -> NextItemRun:
    config = SasRecConfig(
        dim=16, max_len=8, num_layers=1, num_heads=2, dropout=0.1, negatives=16, loss="softmax"
    )
    schedule = Schedule(epochs=6, batch_users=8, learning_rate=2e-2, warmup_steps=4)
    schedule = dataclasses.replace(schedule, **changed)
    return NextItemRun(config, split(walks(), "all"), schedule, seed=3, folder=folder)


def test_the_experiment_runs_on_a_file_and_popularity_is_a_row(tmp_path, monkeypatch):
    made = walks()
    folder = tmp_path / "movielens_1m_sequences"
    folder.mkdir()
    write(folder, [x.tolist() for x in np.split(made.item_A, made.offsets[1:-1])])
    monkeypatch.setattr(protocol, "_VALIDATED", 20)
    shown = losses.design(
        losses.Options(
            folder=str(tmp_path),
            runs=str(tmp_path / "runs"),
            dim=16,
            layers=1,
            negatives=16,
            epochs=4,
            batch_users=8,
            learning_rate=2e-2,
        )
    )
    found = {}
    for cell in shown.cells(seeds=1):
        if cell.variant.name in ("SASRec, gBCE", "popularity"):
            [(name, measured)] = shown.run(cell).items()
            found[name] = measured.rounds[0]["hit_at_10"]
            assert measured.rows["user"].tolist() == list(range(USERS))
    assert found["SASRec, gBCE"] > found["popularity"]
    assert (tmp_path / "runs/movielens_1m_sequences/gbce-0/curve.jsonl").exists()


def test_a_run_of_other_settings_is_not_continued(tmp_path):
    run(tmp_path, epochs=1).train()
    with pytest.raises(InputError, match="other settings"):
        run(tmp_path, epochs=2).train()


def test_it_learns_resumes_to_the_same_bits_and_keeps_its_curve(tmp_path):
    whole = run(tmp_path / "whole")
    whole.train()
    lines = [json.loads(x) for x in (tmp_path / "whole" / "curve.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]
    test = split(walks(), "all").test
    assert quality(ranks(whole.best().scores, test))["hit_at_10"].mean() > 0.95

    class Killed(Exception):
        pass

    stopped = run(tmp_path / "stopped")
    real = stopped._save

    def save_and_die() -> None:
        real()
        if len(stopped.curve) == 3:
            raise Killed

    stopped._save = save_and_die
    with pytest.raises(Killed):
        stopped.train()
    run(tmp_path / "stopped").train()
    weights = [
        read_tensors(tmp_path / name / "checkpoint.safetensors")[0] for name in ("whole", "stopped")
    ]
    assert all((weights[0][k] == weights[1][k]).all() for k in weights[0])

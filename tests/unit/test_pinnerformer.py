"""The model, its loss against a plain loop, and a day of a lake as it reads it."""

import itertools
import math

import numpy as np
import pytest
import torch

from feature_store.contracts.base import shift_day
from feature_store.contracts.errors import InputError
from feature_store.lake.buckets import stable_hash
from feature_store.reading.examples import Order
from models.pinnerformer.config import PinnerFormerConfig
from models.pinnerformer.inputs import sequence_inputs
from models.pinnerformer.model import PinnerFormer
from tests.model_fixtures import sequences
from tests.model_fixtures.sequences import TINY, batch, changed, objective, tensors
from tests.model_fixtures.world import FIRST, World, spec

DAYS = tuple(shift_day(FIRST, i) for i in range(3))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("world"))
    for ds in DAYS:
        made.add_day(ds, rows=500, users=25, pins=12)
    return made


def test_an_action_is_as_wide_as_published():
    [content] = [f for f in spec().features_of("pin") if f.kind == "embedding"]
    inputs = sequence_inputs(spec(), TINY)
    published = 256 + 16 + 16 + 1 + 25 + 65 + 65
    model = PinnerFormer(inputs, TINY)
    assert model.elements.out_dim - content.dim == published - 256


def test_newer_actions_change_no_older_row_and_the_padded_path_agrees():
    model, rows = objective().model.eval(), tensors(batch())
    before = model(rows)
    torch.testing.assert_close(model(rows, padded=True), before, atol=1e-5, rtol=1e-5)
    newest = rows["length"].cumsum(0) - 1
    after = model(rows | {"action": rows["action"].index_fill(0, newest, 3)})
    older = torch.ones(len(before), dtype=torch.bool).index_fill(0, newest, False)
    torch.testing.assert_close(after[older], before[older], atol=1e-6, rtol=0)
    assert not torch.allclose(after[~older], before[~older])


def test_embeddings_have_norm_one_and_a_user_is_its_newest_row():
    made, rows = objective().eval(), tensors(batch())
    users, pins = made.embed("user", rows), made.embed("pin", rows)
    assert users.shape == (5, TINY.embedding_dim)
    for vectors in (users, pins):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))
    torch.testing.assert_close(users, made.model(rows)[rows["length"].cumsum(0) - 1])


@pytest.mark.parametrize("part", ["content", "action", "surface", "duration", "time", "place"])
def test_a_part_that_is_left_out_is_not_heard(part):
    rows = tensors(batch())
    other = tensors(batch(seed=5))
    swapped = {
        "content": {"content": rows["content"].flip(0)},
        "action": {"action": 4 - rows["action"]},
        "surface": {"surface": 3 - rows["surface"]},
        "duration": {"duration_s": rows["duration_s"] + 5},
        "time": {"ts": rows["ts"] + torch.arange(len(rows["ts"])) * 3600.0},
        "place": {},
    }[part]
    assert other
    heard, deaf = objective().model, objective(changed(without=part)).model
    if part == "place":
        assert deaf.encoder.position.abs().sum() == 0
        assert not deaf.encoder.position.requires_grad
        return
    torch.testing.assert_close(deaf(rows), deaf(rows | swapped))
    assert not torch.allclose(heard(rows), heard(rows | swapped))


def expected_loss(config: PinnerFormerConfig, made, rows: dict[str, torch.Tensor]) -> float:
    """The loss as a loop over pairs and pool; counts are those of one batch, seen once."""
    negatives = config.negatives
    query, item = (x.detach().numpy() for x in made._pairs(rows))
    drawn = made.model.pins(rows["random:content"]).detach().numpy()
    ids = rows["key:pin"][rows["target"]].tolist()
    users, drawn_ids = rows["pair:user"].tolist(), rows["random:key:pin"].tolist()
    pool = [(v, i, u, 0) for v, i, u in zip(item, ids, users, strict=True)]
    pool = pool if negatives.pool != "random" else []
    if negatives.pool != "in_batch":
        pool += [(v, i, None, 1) for v, i in zip(drawn, drawn_ids, strict=True)]
    sources = [s for s in (0, 1) if any(p[3] == s for p in pool)]
    sizes = [sum(p[3] == s for p in pool) for s in (0, 1)]
    seen = [ids, drawn_ids]

    def log_q(pin: int, source: int) -> float:
        if negatives.q_mode == "mixture":
            return math.log(sum(sizes[s] * seen[s].count(pin) / len(seen[s]) for s in sources))
        total = sum(len(seen[s]) for s in sources)
        return math.log(max(seen[source].count(pin), 1) / total * len(pool))

    losses, weights = [], []
    for vector, pin, user, hit in zip(query, ids, users, item, strict=True):
        own = {
            "none": 0.0,
            "marginal": log_q(pin, 0) if negatives.positive_q == "marginal" else 0.0,
            "conditional": math.log(
                sum(pair == (pin, user) for pair in zip(ids, users, strict=True))
                / users.count(user)
            ),
        }[negatives.positive_q]
        correct = negatives.correct
        positive = float(vector @ hit) / 0.07 - correct * own
        total = math.exp(positive)
        for other, i, u, source in pool:
            if i != pin and u != user:
                total += math.exp(float(vector @ other) / 0.07 - (correct and log_q(i, source)))
        losses.append(math.log(total) - positive)
        weights.append(1 / users.count(user))
    return float(np.average(losses, weights=weights))


@pytest.mark.parametrize(
    ("pool", "correct", "q_mode", "positive_q"),
    [
        *itertools.product(
            ("in_batch", "mixed"), (True,), ("per_source", "mixture"), ("conditional",)
        ),
        *itertools.product(("random", "mixed"), (False,), ("per_source",), ("conditional",)),
        ("random", True, "per_source", "none"),
        ("mixed", True, "per_source", "marginal"),
    ],
)  # fmt: skip
def test_the_loss_equals_a_loop(pool, correct, q_mode, positive_q):
    config = changed(
        negatives__pool=pool,
        negatives__correct=correct,
        negatives__q_mode=q_mode,
        negatives__positive_q=positive_q,
        negatives__sketch_width=2**20,
    )
    made, rows = objective(config), tensors(batch())
    found = made(rows)["total"].item()
    assert found == pytest.approx(expected_loss(config, made, rows), rel=1e-4)


def test_every_parameter_learns_and_a_step_helps():
    made, rows = objective(), tensors(batch(users=12))
    first = made(rows)["total"]
    first.backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        made(rows)["total"].backward()
        optimizer.step()
    assert made(rows)["total"] < 0.6 * first


def test_nobody_costs_nothing():
    rows = {k: v[:0] for k, v in batch().items()}
    loss = objective()(tensors(rows))["total"]
    loss.backward()
    assert loss == 0


def test_a_day_is_read_as_it_lies_in_the_lake(world):
    day = sequences.reader(world, DAYS[2], DAYS, changed(max_len=50))
    order = Order(batch_rows=10, seed=4, random_pins=7)
    batches, again = list(day.batches(order)), list(day.batches(order))
    assert len(batches) > 1
    for one, other in zip(batches, again, strict=True):
        assert all(np.array_equal(one[k], other[k], equal_nan=True) for k in one)
    events = world.lake.read(world.spec.events_table(), DAYS[2])
    clicked = {
        (hashed, pin)
        for hashed, pin, action in zip(
            stable_hash(events["user_id"]).view(np.int64).tolist(),
            stable_hash(events["pin_id"]).view(np.int64).tolist(),
            events["action"].to_pylist(),
            strict=True,
        )
        if action != "impression"
    }
    for rows in batches:
        pairs = zip(
            rows["pair:user"].tolist(), rows["key:pin"][rows["target"]].tolist(), strict=True
        )
        assert set(pairs) <= clicked
        assert (rows["action"] > 1).all(), "impressions are no part of a sequence"
        assert rows["random:content"].shape == (7, 6)
        known = np.isin(rows["key:pin"], day.pins.hashes(np.arange(len(day.pins))).view(np.int64))
        assert known.all()
        assert rows["content"].any(axis=1).all()
    empty = day.empty()
    assert {k: (v.dtype, v.shape[1:]) for k, v in empty.items()} == {
        k: (v.dtype, v.shape[1:]) for k, v in batches[0].items()
    }
    assert not any(len(v) for v in empty.values())


def test_ranks_share_the_users_of_a_day(world):
    day = sequences.reader(world, DAYS[2], DAYS)
    parts = [
        {
            user
            for rows in day.batches(Order(batch_rows=8, shard=(rank, 2)))
            for user in rows["key:user"].tolist()
        }
        for rank in range(2)
    ]
    assert parts[0].isdisjoint(parts[1])
    whole = {u for rows in day.batches(Order(batch_rows=8)) for u in rows["key:user"].tolist()}
    assert parts[0] | parts[1] == whole


def test_users_are_embedded_with_all_they_did_until_the_day_ended(world):
    day = sequences.reader(world, DAYS[1], DAYS[:2], changed(max_len=3))
    acts = day.bucket(0)
    hashes = np.append(acts.timelines.user_U, np.uint64(3))
    users = day.entities["user"]
    rows = users.rows_of(hashes)
    assert rows.tolist()[-1] == len(users), "a user without actions is unknown"
    found = users.take(rows[:-1])
    ends = np.cumsum(found["length"]) - 1
    newest = [acts.ts_A[acts.offsets[i] : acts.offsets[i + 1]].max() for i in range(len(users))]
    assert (found["ts"][ends] * 1e6).round().astype(int).tolist() == newest
    assert found["length"].max() == 3
    with pytest.raises(ValueError, match="users of one bucket"):
        users.rows_of(np.array([3, 4], np.uint64))


def test_what_a_data_set_does_not_have_is_named():
    with pytest.raises(InputError, match=r"no content of Pins[\s\S]*called other"):
        sequence_inputs(spec(), changed(content="other"))
    with pytest.raises(InputError, match="are no actions of the data set"):
        sequence_inputs(spec(), changed(sampling__positives="click,teleport"))
    with pytest.raises(ValueError, match="without: expected some of"):
        changed(without="everything")
    with pytest.raises(ValueError, match="max_len: expected 1"):
        changed(max_len=5000)

"""Id tables: rows of ids, the loss against a plain loop, what a step moves, what a pass learns."""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import torch

from feature_store.contracts.errors import InputError
from feature_store.lake.buckets import stable_hash
from models.id_tables.config import IdTablesConfig
from models.id_tables.family import FAMILY
from models.id_tables.objective import IdTablesObjective
from models.nn.config import IdTableConfig, NegativesConfig
from models.nn.hashing import mix64, row_of
from models.nn.id_table import DEFAULT_ROW, IdTable
from models.training.config import TrainingConfig
from models.training.loop import Trainer
from tests.model_fixtures.pairs import TINY, batch, groups, keys, tensors
from tests.model_fixtures.world import spec


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Steps are so small that threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fmix64(state: int) -> int:
    """As published with MurmurHash3."""
    mask = 2**64 - 1
    state = ((state ^ (state >> 33)) * 0xFF51AFD7ED558CCD) & mask
    state = ((state ^ (state >> 33)) * 0xC4CEB9FE1A85EC53) & mask
    return state ^ (state >> 33)


def test_ids_are_mixed_as_published() -> None:
    hashed = stable_hash(pa.array([f"user{i}" for i in range(500)]))
    bits = np.concatenate([hashed, np.array([0, 1, 2**63, 2**64 - 1], np.uint64)])
    found = mix64(torch.from_numpy(bits.view(np.int64))).numpy().view(np.uint64)
    assert found.tolist() == [fmix64(b) for b in bits.tolist()]


@pytest.mark.parametrize("rows", [2, 7, 1001])
def test_rows_are_all_but_the_default_one_and_evenly_taken(rows: int) -> None:
    # Ids that have all lower bits in common, as the users of one shard have.
    key = torch.arange(20_000) * 1024
    first, second = row_of(key, rows), row_of(key, rows, salt=1)
    assert first.min() == 1
    assert first.max() == rows - 1
    taken = torch.bincount(first, minlength=rows)[1:].double()
    assert (taken - taken.mean()).abs().max() < 6 * taken.mean().sqrt() + 1
    if rows > 1000:
        same = (first == second).double().mean()
        assert same < 3 / rows, "another salt is another table"


def table(**options) -> IdTable:
    torch.manual_seed(0)
    return IdTable(IdTableConfig(rows=101, dim=4, **options))


def test_an_id_reads_the_default_row_until_it_was_counted_often_enough() -> None:
    made, key = table(min_count=3), keys("ada")
    for times in range(3):
        assert not made.known(key), f"after {times}"
        assert torch.equal(made(key)[0], made.weight[DEFAULT_ROW])
        made.count(key)
    assert made.known(key)
    assert torch.equal(made(key)[0], made.weight[made.rows_of(key)[0, 0]])
    assert made.counted(key) == 3
    assert torch.equal(made(keys("bob"))[0], made.weight[DEFAULT_ROW])


def test_two_hashes_are_the_sum_of_two_rows_and_count_less_too_much() -> None:
    once, twice = table(min_count=1), table(min_count=1, hashes=2)
    seen, others = keys(*(f"u{i}" for i in range(40))), keys(*(f"v{i}" for i in range(2000)))
    for made in (once, twice):
        made.count(seen)
        assert (made.counted(seen) >= 1).all(), "never less than the truth"
    rows = twice.rows_of(seen)
    torch.testing.assert_close(twice(seen), twice.weight[rows[0]] + twice.weight[rows[1]])
    wrong = [made.known(others).double().mean().item() for made in (once, twice)]
    assert wrong[0] == pytest.approx(1 - (1 - 1 / 100) ** 40, abs=0.06)
    assert wrong[1] == pytest.approx((1 - (1 - 1 / 100) ** 80) ** 2, abs=0.06)


def test_what_is_forgotten_is_nobodys_row_again() -> None:
    torch.manual_seed(0)
    # So many rows that nobody shares one with whom it is about.
    config = dataclasses.replace(TINY, hashes=2, min_count=1, user_rows=4099)
    made = IdTablesObjective(config)
    trained(made, [batch(12, random=6)])
    seen = torch.from_numpy(batch(12)["key:user"])
    gone, kept = seen[:1], seen[seen != seen[0]]
    before = made.embed("user", {"key:user": kept}).detach()
    left, rows = FAMILY.without(made.config, made.state_dict(), "user", gone.numpy())
    assert rows == 2
    assert FAMILY.without(made.config, left, "user", gone.numpy())[1] == 0
    made.load_state_dict(left)
    assert not made.table["user"].known(gone)
    assert torch.isfinite(made.embed("user", {"key:user": gone})).all()
    assert torch.equal(made.embed("user", {"key:user": kept}), before)


@pytest.mark.parametrize("pool", ["in_batch", "random", "mixed"])
def test_the_loss_is_that_of_a_plain_loop_with_exact_counts(pool: str) -> None:
    torch.manual_seed(3)
    negatives = NegativesConfig(pool=pool, sketch_width=2**16)
    config = IdTablesConfig(
        embedding_dim=4, user_rows=64, pin_rows=64, min_count=1, negatives=negatives
    )
    made, rows = IdTablesObjective(config), tensors(batch(12, random=6))
    found = made(rows)
    pins, users = by_hand(made, rows, pool)
    assert found["pins"].item() == pytest.approx(pins, rel=1e-5)
    assert found["users"].item() == pytest.approx(users, rel=1e-5)
    assert found["total"].item() == pytest.approx((pins + users) / 2, rel=1e-5)


def by_hand(made: IdTablesObjective, rows: dict, pool: str) -> tuple[float, float]:
    """Both losses, pair by pair, entry by entry."""
    user, pin, drawn = (rows[n].tolist() for n in ("key:user", "key:pin", "random:key:pin"))

    def vector(entity: str, key: int) -> torch.Tensor:
        return made.embed(entity, {f"key:{entity}": torch.tensor([key])})[0].detach().double()

    entries = []
    if pool != "random":
        entries += [(p, u, pin.count(p)) for u, p in zip(user, pin, strict=True)]
    if pool != "in_batch":
        entries += [(p, None, drawn.count(p)) for p in drawn]
    total = (len(pin) if pool != "random" else 0) + (len(drawn) if pool != "in_batch" else 0)
    weight = rows["weight"].tolist()
    pairs = list(zip(user, pin, strict=True))
    scale = 1 / 0.07

    def loss(query, key, own_q, others) -> float:
        hit = float(query @ key) * scale - own_q
        return math.log(sum(math.exp(x) for x in [hit, *others])) - hit

    pins = users = 0.0
    for (u, p), w in zip(pairs, weight, strict=True):
        query = vector("user", u)
        own = math.log(pairs.count((u, p)) / user.count(u))
        others = [
            float(query @ vector("pin", q)) * scale - math.log(c / total) - math.log(total)
            for q, of, c in entries
            if q != p and of != u
        ]
        pins += w * loss(query, vector("pin", p), own, others)
        query = vector("pin", p)
        own = math.log(pairs.count((u, p)) / pin.count(p))
        others = [
            float(query @ vector("user", v)) * scale
            - math.log(user.count(v) / len(user))
            - math.log(len(user))
            for v, of in pairs
            if v != u and of != p
        ]
        users += w * loss(query, vector("user", u), own, others)
    return pins / sum(weight), users / sum(weight)


def trained(made: IdTablesObjective, batches: list[dict], seed: int = 1, **how) -> Trainer:
    trainer = Trainer(
        made,
        TrainingConfig(prefetch_batches=0, checkpoint_steps=0),
        torch.device("cpu"),
        learning_rate=1e-3,
        empty={k: v[:0] for k, v in batches[0].items()},
    )
    trainer.train(batches, seed=(seed,), **how)
    return trainer


def test_a_step_moves_the_rows_of_its_ids_and_no_others() -> None:
    torch.manual_seed(0)
    made, rows = IdTablesObjective(TINY), batch(12, random=6)
    before = {e: made.table[e].weight.detach().clone() for e in ("user", "pin")}
    trained(made, [rows])
    read = {
        "user": torch.from_numpy(rows["key:user"]),
        "pin": torch.from_numpy(np.concatenate([rows["key:pin"], rows["random:key:pin"]])),
    }
    for entity, key in read.items():
        moved = (made.table[entity].weight != before[entity]).any(dim=1)
        known = made.table[entity].known(key)
        rows_read = made.table[entity].rows_of(key)[0][known]
        expected = torch.zeros_like(moved)
        expected[rows_read] = True
        expected[DEFAULT_ROW] = bool((~known).any())
        assert torch.equal(moved, expected), entity


def test_a_second_pass_counts_nobody_again() -> None:
    torch.manual_seed(0)
    made, rows = IdTablesObjective(TINY), batch(12, random=6)
    trained(made, [rows])
    counted = made.table["user"].count_R.clone()
    assert counted.sum() == 12
    trained(made, [rows], again=True)
    assert torch.equal(made.table["user"].count_R, counted)
    trained(made, [rows])
    assert torch.equal(made.table["user"].count_R, 2 * counted)


def test_a_new_day_keeps_the_rows_of_who_was_away() -> None:
    torch.manual_seed(0)
    made = IdTablesObjective(
        IdTablesConfig(embedding_dim=8, user_rows=4096, pin_rows=4096, min_count=1)
    )
    first, second = groups(64, users=("a", 20)), groups(64, users=("b", 20))
    trained(made, [first])
    away = torch.from_numpy(np.unique(first["key:user"]))
    before = made.embed("user", {"key:user": away}).detach()
    trained(made, [second], seed=2)
    assert torch.equal(made.embed("user", {"key:user": away}), before)
    assert made.table["user"].known(torch.from_numpy(second["key:user"])).all(), "new ids have rows"


def test_who_likes_the_same_comes_together() -> None:
    # Half of all drawn Pins are of the user's own group: nobody can do better than .75.
    later = [groups(400, users=("u", 40), seed=99)]
    found = []
    for days in (1, 16):
        torch.manual_seed(0)
        config = IdTablesConfig(
            embedding_dim=8, user_rows=512, pin_rows=512, min_count=2, learning_rate=0.2
        )
        past = [groups(256, users=("u", 40), seed=day) for day in range(days)]
        found.append(trained(IdTablesObjective(config), past).score(later)["positive"]["auc"])
    assert found[0] < 0.6 < 0.7 < found[1] < 0.76


def test_the_same_seed_makes_the_same_bits() -> None:
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        made = IdTablesObjective(TINY)
        trained(made, [batch(12, random=6, seed=s) for s in range(4)])
        found.append(made.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_what_makes_a_pair_is_declared() -> None:
    inputs = FAMILY.pairs(spec(), IdTablesConfig(weights="click=2, conversion=4, nothing=1"))
    assert (inputs.labels, inputs.actions) == ({"click": 2.0}, {"conversion": 4.0})
    with pytest.raises(InputError, match="nothing that the data set has"):
        FAMILY.pairs(spec(), IdTablesConfig(weights="kiss=1"))
    for wrong in ("click", "click=0", "click=many"):
        with pytest.raises(InputError, match="no positive number"):
            FAMILY.pairs(spec(), IdTablesConfig(weights=wrong))
    with pytest.raises(ValueError, match="hashes"):
        IdTablesConfig(hashes=3)
    with pytest.raises(ValueError, match="rows"):
        IdTablesConfig(pin_rows=1)

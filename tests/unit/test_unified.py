"""The unified ranker: routing, what rows may read, users once, parts that can be switched off."""

import dataclasses
import math
from collections import Counter

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from feature_store.contracts.datasets import DatasetSpec
from models.nn.cross import CrossNetwork
from models.rankers.unified.candidates import CandidateAttention, Grid
from models.rankers.unified.history import Projection
from models.rankers.unified.requests import Requests, TooManyUsers
from tests.model_fixtures import unified
from tests.model_fixtures.batches import take
from tests.model_fixtures.world import spec

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(3)


def _tree_rows(ranker):
    """How many rows each tree is asked about, as it runs."""
    asked: Counter[int] = Counter()
    for number, tree in enumerate(ranker.trees):
        tree.register_forward_pre_hook(
            lambda _, given, number=number: asked.update({number: len(given[0])})
        )
    return asked


def test_only_a_surfaces_own_tree_runs():
    ranker = unified.ranker()
    asked = _tree_rows(ranker)
    ranker(unified.batch(7))
    assert asked == {1: 4, 2: 3}
    asked.clear()
    ranker(unified.batch(5, surfaces=(2,)))
    assert asked == {2: 5}, "a surface that is missing from a batch costs nothing"
    asked.clear()
    ranker(unified.batch(3, surfaces=(0,)))
    assert asked == {0: 3}, "a new surface asks no other's tower"


def test_rows_of_a_surface_send_nothing_to_the_trees_of_others():
    trained = unified.objective()
    trained(unified.batch(6, surfaces=(2,)))["total"].backward()
    reached = {
        number: any(p.grad is not None and p.grad.abs().sum() > 0 for p in tree.parameters())
        for number, tree in enumerate(trained.model.trees)
    }
    assert reached == {0: False, 1: False, 2: True}
    assert trained.model.own.blocks["1"].table is None
    home = [p.grad for p in trained.model.own.blocks["1"].parameters()]
    assert all(g is None or not g.abs().sum() for g in home)


def test_a_row_never_reads_features_of_another_surface():
    ranker, rows = unified.ranker().eval(), unified.batch(6)
    before = ranker(rows)["logits"]
    home = rows["surface"] == 1
    # `query` is search's, `position` the home feed's.
    strange = rows | {
        "query": torch.where(home, 7, rows["query"]),
        "position": torch.where(home, rows["position"], 9.0),
    }
    assert torch.equal(before, ranker(strange)["logits"])
    own = rows | {"position": torch.where(home, 0.0, rows["position"])}
    after = ranker(own)["logits"]
    assert torch.equal(before[~home], after[~home])
    assert not torch.equal(before[home], after[home])


def test_a_new_surface_reads_the_base_rate():
    ranker, rows = unified.ranker().eval(), unified.batch(4, surfaces=(0,))
    with torch.no_grad():
        ranker.trees[0].bias_T.copy_(torch.tensor([-2.0, -3.0]))
    expected = torch.tensor([-2.0, -3.0]).expand(4, 2)
    torch.testing.assert_close(ranker(rows)["logits"], expected)


def test_the_order_of_rows_changes_nothing():
    ranker, rows = unified.ranker().eval(), unified.batch(6)
    turned = take(rows, torch.arange(5, -1, -1))
    torch.testing.assert_close(ranker(rows)["logits"].flip(0), ranker(turned)["logits"], **CLOSE)


@pytest.mark.parametrize("part", ["nothing", *unified.WITHOUT])
def test_users_once_equals_users_row_by_row_forward_and_backward(part):
    config = unified.WITHOUT.get(part, unified.SMALL)
    rows = unified.batch(9)
    at = torch.tensor([0, 0, 2, 1, 2, 2, 2, 0, 5])
    repeated, distinct = unified.of_users(rows, at)
    weight = torch.randn(9, 2)
    found = []
    for batch in (repeated, distinct):
        torch.manual_seed(0)
        ranker = unified.ranker(config)
        logits = ranker(batch)["logits"]
        (logits * weight).sum().backward()
        found.append((logits, {n: p.grad for n, p in ranker.named_parameters()}))
    (naive, wanted), (once, gradients) = found
    torch.testing.assert_close(naive, once, **CLOSE)
    for name, gradient in wanted.items():
        torch.testing.assert_close(gradient, gradients[name], msg=name, **CLOSE)


@pytest.mark.parametrize("part", unified.WITHOUT)
def test_without_any_part_eight_rows_are_learned_by_heart(part):
    trained, rows = unified.objective(unified.WITHOUT[part]), unified.batch(8)
    optimizer = torch.optim.Adam(trained.parameters(), lr=0.02)
    for _ in range(160):
        optimizer.zero_grad()
        trained(rows)["total"].backward()
        optimizer.step()
    assert ((trained.predict(rows) > 0) == (trained.targets(rows) > 0.5)).all()


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_any_number_of_rows_is_finite(rows):
    for config in (unified.SMALL, *unified.WITHOUT.values()):
        found = unified.ranker(config)(unified.batch(rows))["logits"]
        assert found.shape == (rows, 2)
        assert torch.isfinite(found).all()


def test_nobody_with_a_history_is_a_number():
    rows = unified.batch(3)
    empty = {n: torch.zeros_like(rows[n]) for n in ("seen_pins", "seen_actions")}
    assert torch.isfinite(unified.ranker()(rows | empty)["logits"]).all()


def test_a_projection_doubles_the_published_crosses():
    """DCNv2 (arXiv 2008.13535), equation 1, by hand for two layers; rank 3 of 3 is full rank."""
    weight = torch.tensor([[0.1, 0.2, 0.0], [0.0, -0.3, 0.5], [1.0, 0.0, 0.2]])
    config = unified.HISTORY
    projection = Projection(3, config)
    projection.cross = CrossNetwork(3, 2, rank=3)
    with torch.no_grad():
        for layer in projection.cross.layers:
            layer.down.copy_(weight.T[None])
            layer.up.copy_(torch.eye(3)[None])
            layer.bias.copy_(torch.tensor([0.01, -0.02, 0.03]))
        projection.linear.weight.copy_(torch.eye(3))
        projection.linear.bias.zero_()
    found = projection(torch.tensor([[1.0, -2.0, 0.5]]))
    torch.testing.assert_close(found, torch.tensor([[0.059, -6.881, 1.5415]]), **CLOSE)


def test_a_tree_equals_gates_towers_and_late_fusion_by_hand():
    tree = unified.ranker(unified.WITHOUT["crosses"]).trees[2]
    own = tree.towers.layers[0].weight.shape[1] - 4
    x, experts = torch.randn(5, tree.gates.linear.in_features), torch.randn(3, 5, 4)
    known = torch.randn(5, own)
    found = tree(x, experts, known)
    for task in range(2):
        logits = x @ tree.gates.linear.weight[3 * task : 3 * task + 3].T
        share = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
        made = sum(share[:, k : k + 1] * experts[k] for k in range(3))
        first, second = tree.towers.layers
        h = torch.cat([made, known], dim=1) @ first.weight[task] + first.bias[task]
        h = functional.leaky_relu(h, 0.2)
        want = (h @ second.weight[task] + second.bias[task]).squeeze(1) + tree.bias_T[task]
        torch.testing.assert_close(found[:, task], want, **CLOSE)


def test_candidates_find_what_a_loop_over_rows_finds():
    attention = CandidateAttention(3, 4, 2)
    x, elements = torch.randn(7, 3), torch.randn(3, 5, 4)
    valid = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 1, 0]]).bool()
    user = torch.tensor([1, 1, 0, 1, 2, 1, 1])
    found = attention(x, attention.remember(elements), valid, Grid.of(user, 3))
    for row in range(7):
        mine = elements[user[row]][valid[user[row]]]
        heads = []
        for head in (slice(0, 2), slice(2, 4)):
            q = attention.query(x[row])[head]
            scores = attention.key(mine)[:, head] @ q / math.sqrt(2)
            share = scores.exp() / scores.exp().sum()
            heads.append(share @ attention.value(mine)[:, head])
        torch.testing.assert_close(found[row], attention.project(torch.cat(heads)), **CLOSE)


@pytest.mark.parametrize("users", [1, 4, 50])
def test_a_grid_takes_rows_apart_and_puts_them_together(users):
    random = torch.Generator().manual_seed(users)
    # One user has most of the rows.
    some = torch.rand(64, generator=random) < 0.3
    user = torch.randint(0, users, (64,), generator=random) * some
    grid, x = Grid.of(user, users), torch.randn(64, 2)
    assert torch.equal(grid.leave(grid.enter(x)), x)
    assert math.prod(grid.shape) <= 2 * 64 + users
    of_line = grid.lines(torch.arange(users))
    assert torch.equal(of_line[grid.cell_B // grid.shape[1]], user)


def test_users_are_encoded_once_each():
    ranker, seen = unified.ranker(), []
    ranker.trunk.user.register_forward_hook(lambda _, __, out: seen.append(len(out)))
    rows = unified.batch(9)
    _, distinct = unified.of_users(rows, torch.tensor([0, 0, 2, 1, 2, 2, 2, 0, 5]))
    offered = unified.inputs()
    names = {f.name for f in (*offered.user, *offered.vectors) if f.scope == "user"}
    keys, row = torch.unique(distinct["row:user"], return_inverse=True)
    ranker(distinct | {n: rows[n][keys] for n in names} | {"row:user": row})
    assert seen == [4]


def test_the_weights_of_surfaces_are_roots():
    trained = unified.objective().train()
    rows = unified.batch(8, surfaces=(1, 1, 1, 2))
    trained(rows)
    weights = trained.balance(rows["surface"]).tolist()
    # Counted twice by now: 12 rows and 4.
    assert weights[0] == pytest.approx(12**-0.5)
    assert weights[3] == pytest.approx(4**-0.5)
    even = unified.objective(unified.WITHOUT["weights"]).train()
    assert even.balance(rows["surface"]).unique().tolist() == [1.0]


def test_gradient_norms_by_surface_are_those_of_autograd():
    trained, rows = unified.objective().train(), unified.batch(6)
    trained(rows)["total"].backward()
    told = trained.numbers()
    torch.manual_seed(3)
    again = unified.objective().train()
    found = again.model(rows)
    weight = again.balance(rows["surface"])
    loss = again._against(found["logits"], rows, weight)
    (gradient,) = torch.autograd.grad(loss, found["trunk"])
    for surface, name in enumerate(("home", "search"), 1):
        want = gradient[rows["surface"] == surface].norm().item()
        assert told[f"gradient_{name}"] == pytest.approx(want, rel=1e-5)
    assert told["gradient_other"] == 0


def test_a_teacher_pulls_and_is_no_part_of_the_ranker():
    config = dataclasses.replace(unified.SMALL, distillation=0.5)
    trained, rows = unified.objective(config), unified.batch(6)
    plain = trained(rows)
    assert "distilled" not in plain
    names = set(trained.state_dict())
    trained.teacher = lambda batch: torch.full((len(batch["ts"]), 2), 2.0)
    taught = trained(rows)
    logits = trained.model(rows)["logits"]
    want = (
        functional.binary_cross_entropy_with_logits(
            logits, torch.sigmoid(torch.full((6, 2), 2.0)), reduction="sum"
        )
        / 6
    )
    torch.testing.assert_close(taught["distilled"], want)
    torch.testing.assert_close(taught["total"], taught["supervised"] + 0.5 * taught["distilled"])
    assert set(trained.state_dict()) == names


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"nowhere": ("query",)}, "are no surfaces"),
        ({"home": ("topic",)}, "no context features"),
        ({"home": ("query",), "search": ("query",)}, "more than one surface"),
    ],
)
def test_features_of_a_surface_are_declared_once_and_exist(own, said):
    declared = spec().model_dump() | {"surface_features": own}
    with pytest.raises(ValidationError, match=said):
        DatasetSpec.model_validate(declared)


def _of_requests(rows, users):
    """Rows of a few users each, who agree on themselves."""
    at = torch.arange(rows) % users
    repeated, _ = unified.of_users(unified.batch(rows), at)
    return repeated | {"key:user": 100 - at}


@pytest.mark.parametrize("part", ["nothing", "candidate", "history"])
def test_requests_with_each_user_once_equal_row_by_row(part):
    ranker = unified.ranker(unified.WITHOUT.get(part, unified.SMALL))
    rows = _of_requests(12, 5)
    requests = Requests(unified.inputs(), 5)
    once = requests.once(rows)
    assert len(once["country"]) == 5
    torch.testing.assert_close(ranker(once)["logits"], ranker(rows)["logits"], **CLOSE)
    naive = torch.autograd.grad(ranker(rows)["logits"].square().sum(), ranker.trunk.parameters())
    found = torch.autograd.grad(ranker(once)["logits"].square().sum(), ranker.trunk.parameters())
    for want, got in zip(naive, found, strict=True):
        torch.testing.assert_close(want, got, **CLOSE)


def test_a_request_of_too_many_users_is_refused_or_split():
    rows, ranker = _of_requests(12, 5), unified.ranker().eval()
    requests = Requests(unified.inputs(), 2)
    with pytest.raises(TooManyUsers, match="too many users"):
        requests.once(rows)
    found = torch.full((12, 2), float("nan"))
    sizes = []
    for at, some in requests.split(rows):
        found[at] = ranker(some)["logits"]
        sizes.append(len(some["country"]))
    assert sizes == [2, 2, 1]
    torch.testing.assert_close(found, ranker(rows)["logits"], **CLOSE)

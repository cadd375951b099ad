"""What a ranker makes of a graph's vectors: against loops, by its pace, and within the ranker."""

import dataclasses

import pytest
import torch

from feature_store.contracts.errors import InputError
from models.rankers.parts.relations import RelationViews
from models.rankers.parts.sizes import RelationsConfig
from tests.model_fixtures import rankers

CONFIG = RelationsConfig(upstream="ctr", relations=3, heads=2)
NAMES = ("user_ctr_vector", "pin_ctr_vector")
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def views(config: RelationsConfig = CONFIG) -> RelationViews:
    torch.manual_seed(4)
    found = RelationViews(rankers.VECTORS, config)
    width = rankers.WIDTH
    found.begin(torch.randn(3, width, width), torch.randn(3, width))
    with torch.no_grad():
        found.delta_REE.normal_()
        found.delta_RE.normal_()
    return found


def test_it_is_a_loop_over_rows_relations_and_heads():
    found, batch = views(), rankers.batch(7)
    got = found(batch)
    matrices = found.base_REE + 0.1 * found.delta_REE
    moves = found.base_RE + 0.1 * found.delta_RE
    wq, wk, wv = found.attention.in_proj_weight.chunk(3)
    half = rankers.WIDTH // 2
    for row, (user, pin) in enumerate(zip(batch[NAMES[0]], batch[NAMES[1]], strict=True)):
        if not user.any() or not pin.any():
            assert got[row].tolist() == [0.0] * (rankers.WIDTH + 3) + [1.0]
            continue
        seen = [user @ m + v for m, v in zip(matrices, moves, strict=True)]
        query = wq @ (found.query.weight @ pin)
        heads = []
        for head in (slice(0, half), slice(half, None)):
            keys = torch.stack([(wk @ view)[head] for view in seen])
            share = torch.softmax(keys @ query[head] / half**0.5, dim=0)
            heads.append(share @ torch.stack([(wv @ view)[head] for view in seen]))
        attended = found.attention.out_proj(torch.cat(heads))
        far = [-(view - pin @ m).square().sum() for view, m in zip(seen, matrices, strict=True)]
        want = torch.cat([attended, torch.stack(far), torch.zeros(1)])
        torch.testing.assert_close(got[row], want, **CLOSE)


def test_users_and_pins_are_seen_once_each():
    found, batch = views(), rankers.batch(6)
    at = {"row:user": torch.tensor([0, 0, 4]), "row:pin": torch.tensor([1, 5, 4])}
    rows = {NAMES[0]: batch[NAMES[0]][at["row:user"]], NAMES[1]: batch[NAMES[1]][at["row:pin"]]}
    torch.testing.assert_close(found(batch | at), found(rows), **CLOSE)


@pytest.mark.parametrize("pace", [0.1, 1.0])
def test_matrices_move_at_a_part_of_the_rate(pace):
    found = views(dataclasses.replace(CONFIG, pace=pace))
    batch = rankers.batch(8)

    def of_matrices():
        return (found.base_REE + pace * found.delta_REE).detach().clone()

    before, query = of_matrices(), found.query.weight.detach().clone()
    optimizer = torch.optim.Adam(found.parameters(), lr=1e-2)
    found(batch).square().sum().backward()
    optimizer.step()
    # The first step of Adam is as long as the rate, whatever the gradient.
    torch.testing.assert_close(
        (of_matrices() - before).abs(), torch.full_like(before, 1e-2 * pace), atol=1e-5, rtol=1e-2
    )
    moved = (found.query.weight.detach() - query).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 1e-2), atol=1e-5, rtol=1e-2)


def test_a_ranker_has_it_where_it_is_asked_for_and_learns_it():
    plain = rankers.ranker(rankers.CTR)
    config = dataclasses.replace(rankers.CTR, relations=CONFIG)
    found = rankers.objective(config)
    assert plain.relations is None
    assert rankers.ranker(config, vectors=()).relations is None, "the arm without embeddings"
    batch = rankers.batch(8)
    found(batch)["total"].backward()
    part = found.model.relations
    for name, parameter in part.named_parameters():
        assert parameter.grad is not None, name
    for parameter in (part.delta_REE, part.delta_RE, part.query.weight):
        assert parameter.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"upstream": "graph"}, "user_graph_vector"), ({"heads": 4}, "4 heads divide")],
)
def test_vectors_that_do_not_fit_are_refused(changes, says):
    with pytest.raises(InputError, match="do not fit") as refused:
        RelationViews(rankers.VECTORS, dataclasses.replace(CONFIG, **changes))
    assert says in str(refused.value)
    with pytest.raises(ValueError, match="pace"):
        RelationsConfig(pace=0)

"""What a step on a graph learns, changes, and never touches."""

import math

import numpy as np
import pytest
import torch

from feature_store.contracts.errors import InputError
from models.transra.draw import Draw
from models.transra.graph import SIDES, Triples, make_graph
from models.transra.losses import log_sum_exp, margin_loss, self_adversarial_loss, softmax
from models.transra.ranking import rank
from models.transra.tables import NodeTable
from models.transra.training import GraphTrainer, new_model
from tests.model_fixtures.graphs import (
    PINS,
    RELATIONS,
    TYPES,
    USERS,
    blocks,
    config,
    model,
    random_graph,
)

ANCHORS = ("none", "identity", "prototype", "snapshot")


def test_negatives_have_the_type_of_what_they_stand_for() -> None:
    graph = random_graph()
    draw = Draw(graph, config().draw)
    for drawn in draw.batches(0, 0):
        for of_type, pool in drawn.pools.items():
            assert (graph.type_N[pool.node_P] == of_type).all()
            assert (drawn.node_U[pool.at_P] == pool.node_P).all()


def test_a_pass_draws_every_triple_once_and_is_the_same_again() -> None:
    graph = random_graph()
    draw = Draw(graph, config().draw)
    seen = []
    for drawn in draw.batches(3):
        counts = drawn.weight_GC > 0
        relation = np.broadcast_to(drawn.relation_G[:, None], counts.shape)
        ends = [drawn.node_U[drawn.ends(s)][counts] for s in SIDES]
        seen += zip(ends[0].tolist(), relation[counts].tolist(), ends[1].tolist(), strict=True)
    triples = graph.triples
    everything = zip(
        triples.head_K.tolist(), triples.relation_K.tolist(), triples.tail_K.tolist(), strict=True
    )
    assert sorted(seen) == sorted(everything)
    again = [d.node_U.tolist() for d in draw.batches(3)]
    assert again == [d.node_U.tolist() for d in draw.batches(3)]
    assert again != [d.node_U.tolist() for d in draw.batches(4)]


def test_rare_relations_are_drawn_more_often_than_they_occur() -> None:
    type_N = np.array([0] * USERS + [1] * PINS)
    random = np.random.default_rng(0)
    pairs = np.unique(
        np.stack([random.integers(0, USERS, 80), USERS + random.integers(0, PINS, 80)]), axis=1
    )
    relation = np.array([0] * (pairs.shape[1] - 1) + [1])
    graph = make_graph(TYPES, type_N, RELATIONS, Triples.of(pairs[0], relation, pairs[1]))
    draw = Draw(graph, config(draw__relation_power=0.75).draw)
    common, rare, none = draw.chunks.per_pass()
    assert common + rare == len(graph.triples)
    assert none == 0
    expected = len(graph.triples) / (1 + (len(graph.triples) - 1) ** 0.75)
    assert rare == pytest.approx(expected, abs=1)
    assert rare > 1
    assert sum((d.weight_GC > 0).sum() for d in draw.batches(0)) == len(graph.triples)


def test_an_empty_graph_has_no_batches() -> None:
    graph = make_graph(TYPES, np.zeros(3), RELATIONS, Triples.of(*np.empty((3, 0))))
    assert not list(Draw(graph, config().draw).batches(0))


@pytest.mark.parametrize("distance", [None, "squared", "euclidean", "manhattan"])
def test_the_product_and_its_gradients_are_those_of_autograd(distance: str | None) -> None:
    torch.manual_seed(0)
    question, candidate = (torch.randn(2, n, 6).double().requires_grad_() for n in (3, 5))
    masked = torch.tensor([0, 7, 29])
    scale = torch.tensor(1.7).double().requires_grad_()
    found = log_sum_exp(question, candidate, masked, distance=distance, scale=scale)
    if distance is None:
        score = question @ candidate.transpose(1, 2)
    else:
        difference = question[:, :, None] - candidate[:, None]
        score = {
            "squared": -difference.square().sum(-1),
            "euclidean": -difference.norm(dim=-1),
            "manhattan": -difference.abs().sum(-1),
        }[distance]
    flat = (score * scale).reshape(-1).index_fill(0, masked, -math.inf).view(score.shape)
    expected = flat.logsumexp(-1)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)
    weights = torch.randn(2, 3).double()
    leaves = (question, candidate, scale)
    mine = torch.autograd.grad((found * weights).sum(), leaves)
    theirs = torch.autograd.grad((expected * weights).sum(), leaves)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-8, rtol=1e-8)


def test_extremes_of_the_softmax_stay_finite() -> None:
    """Scores of 1e9, no negatives left, and what a masked question gives back."""
    question = torch.full((1, 2, 1), 1e9).requires_grad_()
    candidate = torch.tensor([[[1.0], [-1.0]]]).requires_grad_()
    one = torch.ones(())
    rest = log_sum_exp(question, candidate, torch.tensor([2, 3]), distance=None, scale=one)
    assert rest[0, 0].item() == pytest.approx(1e9)
    loss = softmax(torch.tensor([[1e9, 1.0]]), [rest])
    assert 0 <= loss[0, 0].item() <= math.log(2)
    assert loss[0, 1].item() == 0
    loss.sum().backward()
    assert torch.isfinite(question.grad).all()
    assert torch.isfinite(candidate.grad).all()


def test_losses_by_hand() -> None:
    hit, miss, counts = (
        torch.tensor([-1.0]),
        torch.tensor([[-1.5, -4.0, 9.0]]),
        torch.tensor([[1.0, 1.0, 0.0]]),
    )
    assert margin_loss(hit, miss, counts, 1.0).item() == pytest.approx((0.5 + 0) / 2)
    assert margin_loss(hit, miss, counts * 0, 1.0).item() == 0
    log_sigmoid = lambda x: -math.log1p(math.exp(-x))  # noqa: E731
    p = [math.exp(-1.5), math.exp(-4.0)]
    wrong = (p[0] * log_sigmoid(-2 + 1.5) + p[1] * log_sigmoid(-2 + 4.0)) / sum(p)
    expected = -log_sigmoid(2 - 1.0) - wrong
    assert self_adversarial_loss(hit, miss, counts, 2.0, 1.0).item() == pytest.approx(expected)
    rest = torch.tensor([math.log(math.exp(0.5) + math.exp(-1))])
    expected = math.log(math.exp(2) + math.exp(0.5) + math.exp(-1)) - 2
    assert softmax(torch.tensor([2.0]), [rest]).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_the_corrected_softmax_is_a_loop_over_candidates(power: float) -> None:
    """Every candidate, drawn or of the chunk, counts by how likely it is one."""
    graph = random_graph(1, triples=80)
    made = config(draw__in_batch=True, draw__negatives=5, draw__relation_power=power)
    found, draw = model(graph, made), Draw(graph, made.draw)
    drawn = next(draw.batches(0))
    node_U = torch.from_numpy(drawn.node_U)
    losses = found(drawn, found.table.gather(node_U))
    scale, total, weight = found.log_scale.exp().item(), 0.0, 0.0
    triples = graph.triples
    known = set(
        zip(
            triples.head_K.tolist(),
            triples.relation_K.tolist(),
            triples.tail_K.tolist(),
            strict=True,
        )
    )

    def score(head: int, relation: int, tail: int) -> float:
        vectors = [found.vectors(torch.tensor([n]))[None] for n in (head, tail)]
        return scale * found.score.triples(vectors[0], torch.tensor([relation]), vectors[1]).item()

    for chunk, relation in enumerate(drawn.relation_G.tolist()):
        rows = [c for c in range(8) if drawn.weight_GC[chunk, c] > 0]
        ends = {s: drawn.node_U[drawn.ends(s)[chunk]] for s in SIDES}
        for row in rows:
            triple = {s: int(ends[s][row]) for s in SIDES}
            for side in SIDES:
                pool = drawn.pools[graph.type_of(relation, side)]
                of_relation = triples.relation_K == relation

                def log_q(
                    node: int, side=side, pool=pool, of_relation=of_relation, rows=rows
                ) -> float:
                    share = (triples.ends(side)[of_relation] == node).mean()
                    return math.log(pool.share + (len(rows) - 1) * share)

                hit = score(triple["head"], relation, triple["tail"]) - log_q(triple[side])
                logits = [hit]
                for node in pool.node_P.tolist():
                    at = {**triple, side: node}
                    if (at["head"], relation, at["tail"]) not in known:
                        logits.append(score(at["head"], relation, at["tail"]) - log_q(node))
                for other in rows:
                    beside = {s: int(ends[s][other]) for s in SIDES}
                    if beside["head"] != triple["head"] and beside["tail"] != triple["tail"]:
                        at = {**triple, side: beside[side]}
                        logits.append(score(at["head"], relation, at["tail"]) - log_q(at[side]))
                total += float(drawn.weight_GC[chunk, row]) * (
                    torch.tensor(logits).logsumexp(0).item() - hit
                )
            weight += 2 * float(drawn.weight_GC[chunk, row])
    assert losses["fit"].item() == pytest.approx(total / weight, abs=1e-4)


def test_a_step_changes_the_rows_of_its_batch_alone_and_keeps_the_bound() -> None:
    torch.manual_seed(0)
    table = NodeTable(6, 4)
    before = table.vector_ND.clone()
    rows = torch.tensor([4, 1])
    found = table.gather(rows)
    (found * torch.tensor([[3.0], [-3.0]])).sum().backward()
    table.update(rows, found, rate=0.1, max_norm=1.0)
    untouched = torch.tensor([0, 2, 3, 5])
    assert torch.equal(table.vector_ND[untouched], before[untouched])
    assert table.squares_N.tolist() == [0, 9, 0, 0, 9, 0]
    # A row's step is rate / sqrt(mean square) * gradient; then its norm is 1 at most.
    moved = before[rows] - 0.1 / 3 * found.grad
    moved /= moved.norm(dim=1, keepdim=True).clamp(min=1)
    torch.testing.assert_close(table.vector_ND[rows], moved)
    assert table.vector_ND.norm(dim=1).max() <= 1 + 1e-6


@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("loss", ["softmax", "margin", "self_adversarial"])
def test_every_parameter_learns(anchor: str, loss: str) -> None:
    graph = random_graph()
    made = config("transr", anchor, loss__name=loss)
    found, draw = model(graph, made), Draw(graph, made.draw)
    drawn = next(draw.batches(0))
    found_UD = found.table.gather(torch.from_numpy(drawn.node_U))
    found(drawn, found_UD)["total"].backward()
    assert found_UD.grad.abs().max() > 0
    # The table's rows learn as those that were gathered.
    unused = {"table.vector_ND", *({"log_scale"} if loss != "softmax" else ())}
    for name, parameter in found.named_parameters():
        assert name in unused or (parameter.grad is not None and parameter.grad.abs().max() > 0), (
            name
        )


@pytest.mark.parametrize(
    ("score", "anchor"),
    [
        *(("transr", a) for a in ANCHORS),
        ("transe", "none"),
        ("twhin", "none"),
        ("rotate", "none"),
        ("complex", "none"),
    ],
)
def test_a_graph_of_blocks_is_learned(score: str, anchor: str) -> None:
    """Half of the clicks of a block say which the other half are."""
    graph = blocks()
    hidden = np.arange(len(graph.triples)) % 5 == 0
    learned = make_graph(
        graph.types, graph.type_N, graph.relations, graph.triples.take(np.flatnonzero(~hidden))
    )
    made = config(score, anchor, loss__scale=5.0, draw__negatives=12, learning_rate=0.01)
    trainer = GraphTrainer(new_model(learned, made, 0), learned, seed=0)
    asked = graph.triples.take(np.flatnonzero(hidden))
    before = rank(trainer.model, graph, asked, [learned.triples]).metrics()["mrr"]
    losses = [trainer.train(number).losses["total"] for number in range(25)]
    after = rank(trainer.model, graph, asked, [learned.triples]).metrics()["mrr"]
    assert losses[-1] < losses[0] / 2
    assert before < 0.35
    assert after > 0.8


def test_a_continued_training_ends_with_the_same_bits() -> None:
    graph = random_graph()
    whole = GraphTrainer(new_model(graph, config(), 0), graph, seed=0)
    for number in range(4):
        whole.train(number)
    first = GraphTrainer(new_model(graph, config(), 0), graph, seed=0)
    for number in range(2):
        first.train(number)
    second = GraphTrainer(new_model(graph, config(), 1), graph, seed=0)
    second.load(first.tensors())
    for number in range(2, 4):
        second.train(number)
    for name, value in whole.tensors().items():
        assert torch.equal(value, second.tensors()[name]), name


def test_the_snapshot_anchor_holds_old_nodes_and_no_new_ones() -> None:
    graph = random_graph()
    made = config("transr", "snapshot", score__anchor_weight=100.0)
    found = model(graph, made)
    with torch.no_grad():
        found.before_ND.copy_(found.table.vector_ND)
        found.known_before_N[:5] = True
    before = found.table.vector_ND.clone()
    trainer = GraphTrainer(found, graph, seed=0)
    for number in range(20):
        trainer.train(number)
    moved = (found.table.vector_ND - before).norm(dim=1)
    assert moved[:5].max() < moved[5:USERS].min()


def test_an_anchor_that_is_no_relation_is_refused() -> None:
    made = config("transr", "identity", score__anchor_relation="checkout")
    with pytest.raises(InputError, match="anchor relation is not in the graph"):
        new_model(random_graph(), made, 0)
    with pytest.raises(ValueError, match="anchor: expected none"):
        config("transe", "identity")

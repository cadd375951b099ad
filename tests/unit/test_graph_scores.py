"""Scores of triples: known answers, another library's, and what a change of basis may not do."""

import itertools
import json
from pathlib import Path

import pytest
import torch

from models.transra.config import DrawConfig, GraphConfig, ScoreConfig
from models.transra.graph import SIDES
from models.transra.scores import Score, compare_all, score_of
from tests.model_fixtures.graphs import config, model, random_graph

ROOT = Path(__file__).parents[1]
PYKEEN = json.loads((ROOT / "golden" / "graph" / "pykeen_scores.json").read_text())


def made(name: str, width: int, relations: int = 1, **score: object) -> Score:
    chosen = ScoreConfig(name=name, anchor="none", **score)  # type: ignore[arg-type]
    draw = DrawConfig(in_batch=False)
    return score_of(GraphConfig(score=chosen, draw=draw, embedding_dim=width), relations)


@pytest.mark.parametrize(
    ("distance", "expected"), [("squared", -2.6), ("euclidean", -1.61245), ("manhattan", -2.2)]
)
@pytest.mark.parametrize("clamp", [False, True])
def test_transr_gives_the_known_answer(distance: str, expected: float, clamp: bool) -> None:
    score = made("transr", 3, relation_dim=2, distance=distance, clamp_projections=clamp)
    matrix = torch.tensor([[1.0, 0.5], [0.0, 1.0], [0.5, -1.0]])
    with torch.no_grad():
        score.delta.copy_(matrix - score.get_buffer("identity_DE"))
        score.relation.copy_(torch.tensor([[0.2, -0.1]]))
    head, tail = torch.tensor([[[0.3, -0.2, 0.5]]]), torch.tensor([[[0.1, 0.4, -0.3]]])
    first = torch.tensor([0])
    torch.testing.assert_close(
        score.candidate(head, first), torch.tensor([[[0.55, -0.55]]]), atol=1e-6, rtol=0
    )
    assert score.triples(head, first, tail).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("which", PYKEEN["scores"])
def test_scores_are_those_of_pykeen(which: str) -> None:
    name, *how = which.split()
    head, tail = (torch.tensor(PYKEEN[side])[:, None] for side in SIDES)
    rows, _, width = head.shape
    options = {"distance": how[0], "clamp_projections": "clamped" in how} if how else {}
    score = made(name, width, rows, **options)
    with torch.no_grad():
        if name == "rotate":
            score.angle.copy_(torch.tensor(PYKEEN["angle"]))
        else:
            score.relation.copy_(torch.tensor(PYKEEN["relation"]))
        if name == "transr":
            score.delta.copy_(torch.tensor(PYKEEN["matrix"]) - torch.eye(width))
    found = score.triples(head, torch.arange(rows), tail)[:, 0]
    torch.testing.assert_close(found, torch.tensor(PYKEEN["scores"][which]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "distance"),
    [
        *itertools.product(("transe", "transr"), ("squared", "euclidean", "manhattan")),
        *itertools.product(("rotate",), ("squared", "euclidean")),
        *itertools.product(("twhin", "complex"), ("squared",)),
    ],
)
def test_both_sides_and_all_candidates_agree_with_single_triples(name: str, distance: str) -> None:
    """A loop over single triples is the oracle of matrices over candidates."""
    torch.manual_seed(1)
    score = made(name, 8, relations=3, distance=distance)
    with torch.no_grad():
        for parameter in score.parameters():
            parameter.normal_()
    node_PD, relation_G = torch.randn(5, 8), torch.tensor([2, 0, 2])
    given_GCD = torch.randn(3, 4, 8)
    for side in SIDES:
        question = score.question(given_GCD, relation_G, side)
        candidate = score.candidate(node_PD, relation_G)
        found = compare_all(question, candidate, score.distance)
        for chunk in range(3):
            for row in range(4):
                for place in range(5):
                    ends = [given_GCD[chunk, row], node_PD[place]]
                    head, tail = ends if side == "tail" else ends[::-1]
                    alone = score.triples(
                        head[None, None], relation_G[chunk : chunk + 1], tail[None, None]
                    )
                    assert found[chunk, row, place].item() == pytest.approx(
                        alone.item(), abs=1e-4
                    ), (side, chunk, row, place)


def test_twhin_is_head_plus_relation_times_tail() -> None:
    score = made("twhin", 2)
    with torch.no_grad():
        score.relation.copy_(torch.tensor([[1.0, -1.0]]))
    head, tail = torch.tensor([[[2.0, 3.0]]]), torch.tensor([[[5.0, 7.0]]])
    assert score.triples(head, torch.tensor([0]), tail).item() == (2 + 1) * 5 + (3 - 1) * 7


def test_without_a_change_of_the_matrices_transr_is_transe() -> None:
    transr, transe = made("transr", 8, 3), made("transe", 8, 3)
    with torch.no_grad():
        transe.relation.copy_(transr.relation)
    head, tail, which = torch.randn(3, 5, 8), torch.randn(3, 5, 8), torch.tensor([0, 1, 2])
    torch.testing.assert_close(
        transr.triples(head, which, tail), transe.triples(head, which, tail), atol=1e-6, rtol=1e-6
    )


@pytest.mark.parametrize("anchor", ["none", "identity"])
def test_only_an_anchored_space_cannot_be_changed_unseen(anchor: str) -> None:
    """Nodes times A, matrices times its inverse: TransR cannot tell, an anchor can."""
    graph = random_graph()
    found = model(graph, config("transr", anchor)).double()
    relation_K = torch.from_numpy(graph.triples.relation_K)

    def scores() -> torch.Tensor:
        ends = [found.table.vector_ND[torch.from_numpy(graph.triples.ends(s))] for s in SIDES]
        return found.score.triples(ends[0][:, None], relation_K, ends[1][:, None])[:, 0]

    before = scores()
    torch.manual_seed(2)
    change = torch.eye(8).double() + 0.4 * torch.randn(8, 8).double()
    with torch.no_grad():
        matrices = torch.linalg.inv(change) @ found.score.matrix(torch.arange(3))
        found.table.vector_ND.copy_(found.table.vector_ND @ change)
        found.score.delta.copy_(matrices - torch.eye(8).double())
    after = scores()
    if anchor == "none":
        torch.testing.assert_close(after, before, atol=1e-9, rtol=1e-9)
        return
    clicks = relation_K == 0
    assert (after - before)[clicks].abs().max() > 0.1
    torch.testing.assert_close(after[~clicks], before[~clicks], atol=1e-9, rtol=1e-9)


def test_the_anchor_stays_and_the_others_are_drawn_to_it() -> None:
    graph = random_graph()
    found = model(graph, config("transr", "identity"))
    torch.testing.assert_close(found.score.matrix(torch.tensor([0]))[0], torch.eye(8))
    delta = found.score.delta[1:]
    expected = found.config.score.anchor_weight * delta.square().sum()
    torch.testing.assert_close(found.score.penalty(), expected)
    found.score.penalty().backward()
    assert found.score.delta.grad[0].abs().max() == 0

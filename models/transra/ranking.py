"""Where the right answer stands among all candidates.

Filtered: other known answers are left out. Typed: candidates are nodes of the type that the
relation has there. Ties: the mean of the best and the worst place, so that a score that says the
same of everything has the MRR of chance.

Shapes: Q questions, P candidates, D width.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from models.transra.graph import SIDES, Graph, Ints, KnownAnswers, Side, Triples
from models.transra.model import GraphModel
from models.transra.scores import compare_all

HITS = (1, 3, 10)
_BATCH_ROWS = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """The rank of the right answer of each question.

    Attributes:
        rank_Q: from 1; halves where the answer ties with others.
        relation_Q: the relation of each question.
        side_Q: 0 where the head was asked for, 1 for the tail.
    """

    rank_Q: npt.NDArray[np.float64]
    relation_Q: Ints
    side_Q: Ints

    def metrics(self) -> dict[str, float]:
        """MRR and Hits@k over both sides."""
        if not len(self.rank_Q):
            return {"mrr": float("nan"), **{f"hits_at_{k}": float("nan") for k in HITS}}
        found = {f"hits_at_{k}": float((self.rank_Q <= k).mean()) for k in HITS}
        return {"mrr": float((1 / self.rank_Q).mean()), **found}

    def of_relation(self, relation: int) -> "Ranks":
        """Those of one relation."""
        mine = self.relation_Q == relation
        return Ranks(
            rank_Q=self.rank_Q[mine], relation_Q=self.relation_Q[mine], side_Q=self.side_Q[mine]
        )


@torch.no_grad()
def rank(
    model: GraphModel,
    graph: Graph,
    asked: Triples,
    known: Iterable[Triples],
    *,
    sampled: int = 0,
    seed: int = 0,
) -> Ranks:
    """Ask for both sides of triples.

    Args:
        known: all triples whose answers are left out; `asked` are among them or not.
        sampled: candidates that are drawn per relation and side, beside the answer; 0: all.

    Raises:
        ValueError: an answer is of another type than its relation has there.
    """
    model.eval()
    everything = [asked, *known]
    joined = Triples.of(
        *(np.concatenate([getattr(t, n) for t in everything]) for n in _COLUMNS),
    )
    answers = KnownAnswers(joined, len(graph), len(graph.relations))
    random = np.random.default_rng(seed)
    parts = [
        part
        for side in SIDES
        for part in _side(model, graph, asked, answers, (side, sampled, random))
    ]
    return Ranks(
        rank_Q=np.concatenate([p.rank_Q for p in parts] or [np.empty(0)]),
        relation_Q=np.concatenate([p.relation_Q for p in parts] or [np.empty(0, np.int64)]),
        side_Q=np.concatenate([p.side_Q for p in parts] or [np.empty(0, np.int64)]),
    )


_COLUMNS = ("head_K", "relation_K", "tail_K")


def _side(
    model: GraphModel,
    graph: Graph,
    asked: Triples,
    answers: KnownAnswers,
    how: tuple[Side, int, np.random.Generator],
) -> Iterator[Ranks]:
    """The ranks of one side: relation by relation where candidates differ, else all together."""
    side, sampled, random = how
    types_K = graph.types_of(side)[asked.relation_K]
    apart = model.score.projects or sampled
    groups_K = asked.relation_K if apart else types_K
    for group in np.unique(groups_K):
        rows = np.flatnonzero(groups_K == group)
        node_P = graph.of_type[int(types_K[rows[0]])]
        right = asked.ends(side)[rows]
        if sampled and sampled < len(node_P):
            drawn = random.choice(node_P, sampled, replace=False)
            node_P = np.union1d(drawn, right)
        relation = torch.tensor([int(asked.relation_K[rows[0]])])
        vector_PD = model.vectors(torch.from_numpy(node_P))
        candidate = model.score.candidate(vector_PD, relation)
        candidate = candidate[0] if candidate.dim() == 3 else candidate
        place = np.searchsorted(node_P, right)
        if (node_P[np.minimum(place, len(node_P) - 1)] != right).any():
            raise ValueError(f"an answer is no candidate of its relation, group {group}")
        for first in range(0, len(rows), _BATCH_ROWS):
            some = slice(first, first + _BATCH_ROWS)
            yield _ranked(
                model, asked.take(rows[some]), side, (candidate, node_P, place[some]), answers
            )


def _ranked(
    model: GraphModel,
    asked: Triples,
    side: Side,
    candidates: tuple[torch.Tensor, Ints, Ints],
    answers: KnownAnswers,
) -> Ranks:
    candidate_PE, node_P, place_Q = candidates
    given_Q = asked.ends("head" if side == "tail" else "tail")
    relation_Q = torch.from_numpy(asked.relation_K)
    vector_Q1D = model.vectors(torch.from_numpy(given_Q))[:, None]
    question_QE = model.score.question(vector_Q1D, relation_Q, side)[:, 0]
    score_QP = compare_all(question_QE, candidate_PE, model.score.distance)
    row_Q = torch.arange(len(place_Q))
    right_Q1 = score_QP[row_Q, torch.from_numpy(place_Q)][:, None]
    question, known = answers.among(given_Q, asked.relation_K, side, node_P)
    score_QP[torch.from_numpy(question), torch.from_numpy(known)] = -torch.inf
    score_QP[row_Q, torch.from_numpy(place_Q)] = -torch.inf
    # A score that is no number is not below anything: such a model ranks last, not first.
    better_Q = (~(score_QP <= right_Q1)).sum(1)
    equal_Q = (score_QP == right_Q1).sum(1)
    rank_Q = 1 + better_Q.double() + equal_Q.double() / 2
    return Ranks(
        rank_Q=rank_Q.numpy(),
        relation_Q=asked.relation_K,
        side_Q=np.full(len(place_Q), SIDES.index(side), np.int64),
    )

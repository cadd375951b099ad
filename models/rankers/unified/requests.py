"""Rows of requests with each user once: what a user is, is looked up and encoded once.

A batch that names its user on every row becomes one whose users are distinct (`row:user` says
whose each row is). Predictions stay those of the rows, and so do gradients: what reaches a user is
the sum over the user's rows.

Shapes: B rows, U users.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from feature_store.contracts.errors import ContractViolation
from models.protocol import Batch
from models.rankers.parts.inputs import RankingInputs


class TooManyUsers(ContractViolation):
    """A request has more users than its bound."""


class Requests:
    """Batches of requests, by the users that they are about.

    Rows of a user must agree on the user's features: they are those of the first of them.

    Args:
        limit: users of a batch, at most; memory and the time of a request follow it.

    Source: request-level broadcast of user embeddings in Pinterest's unified engagement model
    (2026).
    """

    def __init__(self, inputs: RankingInputs, limit: int) -> None:
        of_users = (f for f in inputs.vectors if f.scope == "user")
        self.names = tuple(f.name for f in (*inputs.user, *of_users))
        self.limit = limit

    def once(self, batch: Batch) -> dict[str, Tensor]:
        """The same rows with each user once.

        Raises:
            TooManyUsers: there are more of them than the limit; `split` takes them apart.
        """
        first_U, row_B = _distinct(batch["key:user"])
        if len(first_U) > self.limit:
            raise TooManyUsers(
                "a request is about too many users",
                where=f"{len(row_B)} rows",
                expected=f"{self.limit} users at most",
                found=f"{len(first_U)}",
                hint="split it, or raise the family's max_users",
            )
        return self._of(batch, first_U, row_B)

    def split(self, batch: Batch) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Batches of users within the limit, each with the rows that it has of the whole."""
        first_U, row_B = _distinct(batch["key:user"])
        for start in range(0, len(first_U), self.limit):
            some_u = first_U[start : start + self.limit]
            at_b = ((row_B >= start) & (row_B < start + self.limit)).nonzero().squeeze(1)
            rows = {n: x[at_b] for n, x in batch.items() if n not in self.names}
            rows |= {name: batch[name][some_u] for name in self.names}
            yield at_b, rows | {"row:user": row_B[at_b] - start}

    def _of(self, batch: Batch, first_U: Tensor, row_B: Tensor) -> dict[str, Tensor]:
        users = {name: batch[name][first_U] for name in self.names}
        return {**batch, **users, "row:user": row_B}


def _distinct(key_B: Tensor) -> tuple[Tensor, Tensor]:
    """The first row of each distinct key, in the order of the keys, and the key of each row."""
    keys_U, row_B = torch.unique(key_B, return_inverse=True)
    rows_B = torch.arange(len(key_B), device=key_B.device)
    first_U = torch.full_like(keys_U, len(key_B)).scatter_reduce_(0, row_B, rows_B, "amin")
    return first_U, row_B

"""Candidates ask the history of their user: attention of rows to elements, grouped by user.

Rows of a user lie side by side in a grid, so that a user's elements are read once for all of them
and are never copied to each row. A user with very many rows has several lines of the grid, so that
the grid is at most two cells per row, however uneven users are.

Shapes: B rows, U users, L lines of the grid, W cells of a line, T elements, D width of a row,
H width of an element, N heads.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Grid:
    """Where rows lie.

    Attributes:
        shape: L and W.
        user_L: whose line it is; None where there is one line of each user, in order.
        cell_B: the cell of each row; None where all cells are rows, in order.
    """

    shape: tuple[int, int]
    user_L: Tensor | None = None
    cell_B: Tensor | None = None

    @classmethod
    def even(cls, users: int, rows: int) -> "Grid":
        """As many rows for each user, side by side: nothing has to move."""
        return cls((users, rows))

    @classmethod
    def of(cls, user_B: Tensor, users: int) -> "Grid":
        """Rows of users in any order, of any number."""
        rows = len(user_B)
        width = max(-(-rows // max(users, 1)), 1)
        count_U = torch.bincount(user_B, minlength=users)
        lines_U = -(-count_U // width)
        order = torch.argsort(user_B, stable=True)
        sorted_B = user_B[order]
        place_B = torch.arange(rows, device=user_B.device) - (count_U.cumsum(0) - count_U)[sorted_B]
        first_B = (lines_U.cumsum(0) - lines_U)[sorted_B]
        cell_B = torch.empty_like(order)
        cell_B[order] = first_B * width + place_B
        user_L = torch.arange(users, device=user_B.device).repeat_interleave(lines_U)
        return cls((len(user_L), width), user_L, cell_B)

    def enter(self, x_BD: Tensor) -> Tensor:
        """Rows in the grid, x_LWD; zeros where there is none."""
        lines, width = self.shape
        if self.cell_B is not None:
            empty = x_BD.new_zeros(lines * width, x_BD.shape[1])
            x_BD = empty.index_copy(0, self.cell_B, x_BD)
        return x_BD.view(lines, width, x_BD.shape[1])

    def leave(self, x_LWD: Tensor) -> Tensor:
        """The rows of a grid, x_BD."""
        flat = x_LWD.flatten(0, 1)
        return flat if self.cell_B is None else flat.index_select(0, self.cell_B)

    def lines(self, x_U: Tensor) -> Tensor:
        """What belongs to each line's user."""
        return x_U if self.user_L is None else x_U.index_select(0, self.user_L)


class CandidateAttention(nn.Module):
    """What each row's candidate finds in the history of its user.

    Args:
        dim: D, of what is known of a candidate.
        width: H.
        num_heads: N; must divide H.

    Source: the candidate in the sequence model of TransAct (Pinterest, transformer_user_action);
    attention of candidates to a sequence that is encoded once (PinFM, arXiv 2507.12704).
    Deviations: the candidate asks the encoded elements and is no part of each of them, so that a
    user is encoded once and not once per row.
    """

    def __init__(self, dim: int, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(dim, width)
        # No bias: a constant added to every key leaves the softmax unchanged.
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.project = nn.Linear(width, width)
        self.out_dim = width

    def remember(self, x_UTH: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values of encoded elements, once for each user."""
        return self.key(x_UTH), self.value(x_UTH)

    def forward(
        self, x_BD: Tensor, memory: tuple[Tensor, Tensor], valid_UT: Tensor, grid: Grid
    ) -> Tensor:
        """Map candidates x_BD to what they find, out_BH."""
        q_LNWh = self._heads(grid.enter(self.query(x_BD)))
        k_LNTh, v_LNTh = (self._heads(grid.lines(x_UTH)) for x_UTH in memory)
        mask_L11T = grid.lines(valid_UT)[:, None, None, :]
        with torch.autocast(x_BD.device.type, enabled=x_BD.is_cuda):
            found_LNWh = functional.scaled_dot_product_attention(
                q_LNWh.float(), k_LNTh.float(), v_LNTh.float(), mask_L11T
            )
        found_BH = grid.leave(found_LNWh.transpose(1, 2).flatten(2))
        out_BH: Tensor = self.project(found_BH)
        return out_BH

    def _heads(self, x_LTH: Tensor) -> Tensor:
        lines, elements, width = x_LTH.shape
        return x_LTH.view(lines, elements, self.num_heads, width // self.num_heads).transpose(1, 2)

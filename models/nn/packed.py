"""Sequences of different lengths without padding, for encoders that look back only.

Elements of all sequences follow one another, oldest first. A layer norm, a feed-forward block or a
projection works on one element at a time and needs nothing else; attention must know where a
sequence begins. Half of the positions of real sequences are padding, and nothing is computed there.

Shapes: U sequences, R elements of all of them together, T positions of a padded sequence, D width.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

# Sequences of a group are at least this share of its longest one.
_ALIKE = 0.75


class Attention(Protocol):
    """Self-attention within each row of qkv_BTX; X holds queries, keys and values."""

    def __call__(
        self, qkv_BTX: Tensor, valid_BT: Tensor | None = None, *, causal: bool = False
    ) -> Tensor:
        """The out_BTD."""
        ...


@dataclass(frozen=True, slots=True)
class Packed:
    """Where sequences lie that follow one another without padding.

    Attention is computed in groups of sequences of similar length, each padded to its own longest:
    a block-diagonal mask over everything would cost the square of R. A row that is padding repeats
    the sequence's newest element, which no older one can see.

    Attributes:
        lengths_U: elements of each sequence; may be 0.
        groups: of each group, the element at [sequence, position].
        back_R: where each element is found in the groups' outputs, flattened and concatenated.
    """

    lengths_U: Tensor
    groups: tuple[Tensor, ...]
    back_R: Tensor

    @classmethod
    def of(cls, lengths_U: Tensor) -> "Packed":
        """Group sequences by their lengths."""
        starts_U = lengths_U.cumsum(0) - lengths_U
        order = torch.argsort(lengths_U, descending=True, stable=True)
        ordered = lengths_U[order].tolist()
        back_R = torch.empty(int(lengths_U.sum()), dtype=torch.int64, device=lengths_U.device)
        groups, first, filled = [], 0, 0
        while first < len(ordered) and ordered[first]:
            longest = ordered[first]
            last = first
            while last < len(ordered) and ordered[last] >= max(_ALIKE * longest, 1):
                last += 1
            mine = order[first:last]
            position_T = torch.arange(longest, device=lengths_U.device)
            length_u1, start_u1 = lengths_U[mine, None], starts_U[mine, None]
            at_uT = start_u1 + torch.minimum(position_T, length_u1 - 1)
            real = (position_T < length_u1).flatten().nonzero().squeeze(1)
            back_R[at_uT.flatten()[real]] = filled + real
            groups.append(at_uT)
            first, filled = last, filled + at_uT.numel()
        return cls(lengths_U, tuple(groups), back_R)

    def __len__(self) -> int:
        return len(self.back_R)

    def sequence_of(self) -> Tensor:
        """Which sequence each of the R elements belongs to."""
        sequences_U = torch.arange(len(self.lengths_U), device=self.lengths_U.device)
        return sequences_U.repeat_interleave(self.lengths_U)

    def ages(self) -> Tensor:
        """How many newer elements the sequence of each of the R elements has: 0 is its newest."""
        end_U = self.lengths_U.cumsum(0)
        at_R = torch.arange(len(self), device=end_U.device)
        return end_U.repeat_interleave(self.lengths_U) - 1 - at_R

    def newest(self) -> Tensor:
        """The newest element of each sequence; no sequence may be empty."""
        return self.lengths_U.cumsum(0) - 1

    def enter(self, x_RD: Tensor) -> Tensor:
        """Elements in the order that layers see them in."""
        return x_RD

    def leave(self, x_RD: Tensor) -> Tensor:
        """The same, back."""
        return x_RD

    def attend(self, qkv_RX: Tensor, attention: Attention) -> Tensor:
        """Attention of every element to itself and the older ones of its sequence."""
        found = [attention(qkv_RX[at_uT], causal=True).flatten(0, 1) for at_uT in self.groups] or [
            attention(qkv_RX[None]).flatten(0, 1)
        ]
        return torch.cat(found).index_select(0, self.back_R)


@dataclass(frozen=True, slots=True)
class PaddedCausal:
    """The same sequences, each padded at its newer end: what packing is measured and tested by.

    Attributes:
        packed: where they lie without padding.
        width: T, of every sequence.
    """

    packed: Packed
    width: int

    def enter(self, x_RD: Tensor) -> Tensor:
        """The x_(U T)D, zero where there is padding."""
        flat = x_RD.new_zeros(len(self.packed.lengths_U) * self.width, x_RD.shape[1])
        return flat.index_copy(0, self._places(), x_RD)

    def leave(self, x_RD: Tensor) -> Tensor:
        """The elements that are no padding."""
        return x_RD.index_select(0, self._places())

    def attend(self, qkv_RX: Tensor, attention: Attention) -> Tensor:
        """Attention of every position to itself and the older ones of its sequence."""
        qkv_UTX = qkv_RX.view(len(self.packed.lengths_U), self.width, -1)
        return attention(qkv_UTX, causal=True).flatten(0, 1)

    def _places(self) -> Tensor:
        lengths_U = self.packed.lengths_U
        place_R = lengths_U.repeat_interleave(lengths_U) - 1 - self.packed.ages()
        return self.packed.sequence_of() * self.width + place_R

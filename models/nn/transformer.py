"""A pre-norm transformer encoder.

Shapes: B rows, T positions, D width, N heads, H width of a head, R positions of all rows together
that are not padding.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.nn.dropout import Dropout, dropout
from models.nn.packed import Attention, Packed, PaddedCausal


class Layout(Protocol):
    """Where sequences lie, and so what attends to what."""

    def attend(self, qkv_RX: Tensor, attention: Attention) -> Tensor:
        """The out_RD of every element."""
        ...


@dataclass(frozen=True, slots=True)
class Padding:
    """Sequences of different lengths, side by side without their padding.

    Only attention needs the padding back: everything else in an encoder works on one position at a
    time, and two thirds of the positions of real sequences are padding. Where it is left out,
    attention is computed class by class of sequences that are more than half as long as the longest
    of their class, each padded to that one.

    Attributes:
        valid_BT: the positions that exist.
        at_R: where they lie in the flattened B x T; None keeps all positions, padding too.
        classes: of each class, the element at [sequence, position], any where there is none, and
            which of them exist.
        back_R: where each element is found in the classes' outputs, flattened and concatenated.
    """

    valid_BT: Tensor
    at_R: Tensor | None
    classes: tuple[tuple[Tensor, Tensor], ...] = ()
    back_R: Tensor | None = None

    @classmethod
    def of(cls, valid_BT: Tensor, *, strip: bool) -> "Padding":
        """What lies where, given the positions that are not padding.

        The newest position of every row counts as valid, so that an empty sequence has a
        representation.

        Args:
            strip: cut after the last valid position of any row, and leave padding out. Its shapes
                depend on the values, which a GPU would have to wait for, and a compiler to know.
        """
        valid_BT = valid_BT.clone()
        valid_BT[:, 0] = True
        if not strip:
            return cls(valid_BT, None)
        positions_T = torch.arange(valid_BT.shape[1])
        longest = int((valid_BT * positions_T).amax()) + 1 if len(valid_BT) else 1
        valid_BT = valid_BT[:, :longest]
        at_R = valid_BT.flatten().nonzero().squeeze(1)
        return cls(valid_BT, at_R, *_length_classes(valid_BT))

    def places(self) -> Tensor:
        """The position of each of the R elements within its row."""
        rows, positions = self.valid_BT.shape
        positions_T = torch.arange(positions, device=self.valid_BT.device)
        return self.strip(positions_T.expand(rows, positions))

    def strip(self, x_BTx: Tensor) -> Tensor:
        """Map x_BTx, which may have further positions at the end of each row, to x_Rx."""
        flat = x_BTx[:, : self.valid_BT.shape[1]].flatten(0, 1)
        return flat if self.at_R is None else flat.index_select(0, self.at_R)

    def restore(self, x_RD: Tensor) -> Tensor:
        """Map x_RD to x_BTD, zero where padding was left out."""
        rows, positions = self.valid_BT.shape
        if self.at_R is not None:
            flat = x_RD.new_zeros(rows * positions, x_RD.shape[1])
            x_RD = flat.index_copy_(0, self.at_R, x_RD)
        return x_RD.view(rows, positions, x_RD.shape[1])

    def attend(self, qkv_RX: Tensor, attention: Attention) -> Tensor:
        """Attention of every position to all valid ones of its sequence."""
        if self.back_R is None:
            return self.strip(attention(self.restore(qkv_RX), self.valid_BT))
        found = [
            attention(
                qkv_RX.index_select(0, at_uT.flatten()).view(*at_uT.shape, -1), valid_uT
            ).flatten(0, 1)
            for at_uT, valid_uT in self.classes
        ]
        return torch.cat(found).index_select(0, self.back_R)


def _length_classes(
    valid_BT: Tensor,
) -> tuple[tuple[tuple[Tensor, Tensor], ...], Tensor | None]:
    """The classes of `Padding`, longest first, and where their outputs go; none for one class."""
    rows, positions = valid_BT.shape
    length_B = (valid_BT * torch.arange(1, positions + 1)).amax(dim=1)
    order = torch.argsort(length_B, descending=True, stable=True)
    negated_B = -length_B[order]
    if not rows or int(length_B.min()) > positions // 2:
        return (), None
    place_BT = (valid_BT.flatten().cumsum(0) - 1).clamp(min=0).view(rows, positions)
    back_R = torch.empty(int(valid_BT.sum()), dtype=torch.int64)
    classes, first, filled = [], 0, 0
    while first < rows:
        longest = -int(negated_B[first])
        last = int(torch.searchsorted(negated_B, -(longest // 2)))
        mine_u = order[first:last]
        at_uT, valid_uT = place_BT[mine_u, :longest], valid_BT[mine_u, :longest]
        real = valid_uT.flatten().nonzero().squeeze(1)
        back_R[at_uT.flatten()[real]] = filled + real
        classes.append((at_uT, valid_uT))
        first, filled = last, filled + at_uT.numel()
    return tuple(classes), back_R


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward block, each behind a LayerNorm and beside a shortcut.

    Args:
        dim: D.
        num_heads: N; must divide D.
        dropout: after both blocks, and inside the second.
        attention_dropout: on attention weights; None takes `dropout`. On a CPU attention with it is
            many times slower.

    Source: Vaswani et al. 2017; pre-norm order of Xiong et al. 2020; feed-forward width 4 D.
    Deviations: none.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        dropout: float = 0.0,
        attention_dropout: float | None = None,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads: expected a divisor of {dim}, found {num_heads}")
        self.num_heads, self.dropout = num_heads, dropout
        self.attention_dropout = dropout if attention_dropout is None else attention_dropout
        self.norm_attention, self.norm_feed = nn.LayerNorm(dim), nn.LayerNorm(dim)
        # No bias: a constant added to every key leaves the softmax, and so the loss, unchanged.
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.project = nn.Linear(dim, dim)
        self.feed = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), Dropout(dropout), nn.Linear(4 * dim, dim)
        )

    def forward(self, x: Tensor, layout: Layout | None = None) -> Tensor:
        """Encode x_BTD, or the x_RD of sequences that lie as a layout says; the shape stays."""
        x = x + self._attend(self.norm_attention(x), layout)
        fed = dropout(self.feed(self.norm_feed(x)), self.dropout, self.training)
        out: Tensor = x + fed
        return out

    def _attend(self, x: Tensor, layout: Layout | None) -> Tensor:
        qkv = self.qkv(x)
        out = self._attention(qkv) if layout is None else layout.attend(qkv, self._attention)
        return dropout(self.project(out), self.dropout, self.training)

    def _attention(
        self, qkv_BTX: Tensor, valid_BT: Tensor | None = None, *, causal: bool = False
    ) -> Tensor:
        rows, positions, width = qkv_BTX.shape
        shape = (rows, positions, 3, self.num_heads, width // (3 * self.num_heads))
        mask = None if valid_BT is None else valid_BT[:, None, None, :]
        share = self.attention_dropout if self.training else 0.0
        # On a CPU attention in bfloat16 is ten times slower than in float32.
        with torch.autocast(qkv_BTX.device.type, enabled=qkv_BTX.is_cuda):
            if not qkv_BTX.is_cuda:
                qkv_BTX = qkv_BTX.float()
            q_BNTH, k_BNTH, v_BNTH = qkv_BTX.view(shape).permute(2, 0, 3, 1, 4)
            out_BNTH = functional.scaled_dot_product_attention(
                q_BNTH, k_BNTH, v_BNTH, mask, dropout_p=share, is_causal=causal
            )
        return out_BNTH.transpose(1, 2).reshape(rows, positions, width // 3)


class CausalEncoder(nn.Module):
    """Encoder layers over whole sequences: every element sees itself and what is older.

    Every element has an output, that of the sequence which ends with it, so that one pass trains on
    every prefix.

    Args:
        dim: D.
        max_len: elements of a sequence at most; places are counted from the newest one.
        dropout: in the layers, and on their input. Attention weights have none.

    Source: Vaswani et al. 2017, pre-norm; the direction of PinnerFormer (arXiv 2205.04507), A.2,
    whose rows lie newest first and look at rows below them.
    Deviations: no dropout of attention weights; a last LayerNorm is left to the caller.
    """

    def __init__(
        self, dim: int, max_len: int, *, num_layers: int, num_heads: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.max_len, self.dropout = max_len, dropout
        self.position = nn.Parameter(torch.randn(max_len, dim) * 0.02)
        self.layers = nn.ModuleList(
            EncoderLayer(dim, num_heads, dropout=dropout, attention_dropout=0.0)
            for _ in range(num_layers)
        )

    def forward(self, x_RD: Tensor, packed: Packed, *, padded: bool = False) -> Tensor:
        """Encode the elements x_RD of sequences; the shape stays.

        Args:
            padded: also compute what is padding up to `max_len`, which no result depends on.
        """
        x_RD = x_RD + self.position.index_select(0, packed.ages())
        x_RD = dropout(x_RD, self.dropout, self.training)
        layout = PaddedCausal(packed, self.max_len) if padded else packed
        x_RD = layout.enter(x_RD)
        for layer in self.layers:
            x_RD = layer(x_RD, layout)
        return layout.leave(x_RD)


class SequenceEncoder(nn.Module):
    """Encoder layers over a padded sequence, reduced to one vector.

    out = [Linear(max over valid positions), the `latest` newest positions, flattened].

    Args:
        dim: D.
        max_len: T; position 0 is the newest element.
        num_layers, num_heads: of the encoder.
        latest: newest positions kept verbatim.

    Source: TransAct (Pinterest, transformer_user_action).
    Deviations: the candidate is not an input, since it would reach the user's embedding.
    """

    def __init__(
        self, dim: int, max_len: int, *, num_layers: int, num_heads: int, latest: int
    ) -> None:
        super().__init__()
        self.latest = min(latest, max_len)
        self.out_dim = dim * (1 + self.latest)
        self.position = nn.Parameter(torch.randn(max_len, dim) * 0.02)
        self.layers = nn.ModuleList(EncoderLayer(dim, num_heads) for _ in range(num_layers))
        self.norm = nn.LayerNorm(dim)
        self.summary = nn.Linear(dim, dim)

    def forward(self, x_RD: Tensor, padding: Padding) -> Tensor:
        """Reduce the elements x_RD of padded sequences to out_BO, O = (1 + latest) * D."""
        return self.reduce(self.encode(x_RD, padding), padding)

    def encode(self, x_RD: Tensor, padding: Padding) -> Tensor:
        """The encoded elements x_BTD, zero where padding was left out."""
        x_RD = x_RD + self.position.index_select(0, padding.places())
        for layer in self.layers:
            x_RD = layer(x_RD, padding)
        return padding.restore(self.norm(x_RD))

    def reduce(self, x_BTD: Tensor, padding: Padding) -> Tensor:
        """Reduce encoded elements to out_BO."""
        padded_BT1 = ~padding.valid_BT[:, :, None]
        top_BD = x_BTD.masked_fill(padded_BT1, torch.finfo(x_BTD.dtype).min).amax(dim=1)
        latest_BTD = x_BTD.masked_fill(padded_BT1, 0)[:, : self.latest]
        latest_BTD = functional.pad(latest_BTD, (0, 0, 0, self.latest - latest_BTD.shape[1]))
        return torch.cat([self.summary(top_BD), latest_BTD.flatten(1)], dim=-1)

"""A pre-norm transformer encoder.

Shapes: B rows, T positions, D width, N heads, H width of a head.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward block, each behind a LayerNorm and beside a shortcut.

    Args:
        dim: D.
        num_heads: N; must divide D.
        dropout: on attention weights and after both blocks.

    Source: Vaswani et al. 2017; pre-norm order of Xiong et al. 2020; feed-forward width 4 D.
    Deviations: none.
    """

    def __init__(self, dim: int, num_heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads: expected a divisor of {dim}, found {num_heads}")
        self.num_heads, self.dropout = num_heads, dropout
        self.norm_attention, self.norm_feed = nn.LayerNorm(dim), nn.LayerNorm(dim)
        # No bias: a constant added to every key leaves the softmax, and so the loss, unchanged.
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.project = nn.Linear(dim, dim)
        self.feed = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * dim, dim)
        )

    def forward(self, x_BTD: Tensor, valid_BT: Tensor | None = None) -> Tensor:
        """Encode x_BTD; positions where valid_BT is False are not attended to.

        Every row needs one valid position.
        """
        x_BTD = x_BTD + self._attend(self.norm_attention(x_BTD), valid_BT)
        out_BTD: Tensor = x_BTD + functional.dropout(
            self.feed(self.norm_feed(x_BTD)), self.dropout, self.training
        )
        return out_BTD

    def _attend(self, x_BTD: Tensor, valid_BT: Tensor | None) -> Tensor:
        rows, positions, dim = x_BTD.shape
        qkv = self.qkv(x_BTD).view(rows, positions, 3, self.num_heads, dim // self.num_heads)
        q_BNTH, k_BNTH, v_BNTH = qkv.permute(2, 0, 3, 1, 4)
        mask = None if valid_BT is None else valid_BT[:, None, None, :]
        out_BNTH = functional.scaled_dot_product_attention(
            q_BNTH, k_BNTH, v_BNTH, mask, dropout_p=self.dropout if self.training else 0.0
        )
        out_BTD = self.project(out_BNTH.transpose(1, 2).reshape(rows, positions, dim))
        return functional.dropout(out_BTD, self.dropout, self.training)


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

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        """Reduce x_BTD to out_BO, O = (1 + latest) * D.

        Position 0 always counts as valid, so that an empty sequence has a representation.
        """
        valid_BT = valid_BT.clone()
        valid_BT[:, 0] = True
        x_BTD = x_BTD + self.position[: x_BTD.shape[1]]
        for layer in self.layers:
            x_BTD = layer(x_BTD, valid_BT)
        x_BTD = self.norm(x_BTD)
        lowest = torch.finfo(x_BTD.dtype).min
        top_BD = x_BTD.masked_fill(~valid_BT[:, :, None], lowest).amax(dim=1)
        latest_BTD = (x_BTD * valid_BT[:, :, None])[:, : self.latest]
        return torch.cat([self.summary(top_BD), latest_BTD.flatten(1)], dim=-1)

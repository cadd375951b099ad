"""A causal transformer over item ids, whose scores are inner products with the item vectors.

Shapes: U users, R items of all sequences together, I items of the catalogue, D width, C candidates.
"""

from torch import Tensor, nn

from models.nn.packed import Packed
from models.nn.transformer import CausalEncoder
from models.sasrec.config import SasRecConfig


class SasRec(nn.Module):
    """Item ids in, a query for the next item out, at every position.

    Args:
        num_items: I; ids are 0 .. I - 1.

    Source: SASRec, Kang and McAuley 2018 (arXiv 1808.09781), section III.
    Deviations: keys and values are normalised like queries (pre-norm of Xiong et al. 2020), the
    feed-forward block is four times as wide with GELU, item vectors are not scaled by the square
    root of D but drawn with a deviation of its inverse, attention weights have no dropout, and no
    position is padding.
    """

    def __init__(self, num_items: int, config: SasRecConfig) -> None:
        super().__init__()
        self.num_items = num_items
        self.items = nn.Embedding(num_items, config.dim)
        nn.init.normal_(self.items.weight, std=config.dim**-0.5)
        self.encoder = CausalEncoder(
            config.dim,
            config.max_len,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            dropout=config.dropout,
        )
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, item_R: Tensor, length_U: Tensor, *, padded: bool = False) -> Tensor:
        """The query_RD of every position of sequences, oldest item first, one after the other."""
        packed = Packed.of(length_U)
        out_RD: Tensor = self.norm(self.encoder(self.items(item_R), packed, padded=padded))
        return out_RD

    def scores(self, item_R: Tensor, length_U: Tensor) -> Tensor:
        """The score_UI of every item to follow each sequence; none may be empty."""
        newest_UD = self(item_R, length_U)[length_U.cumsum(0) - 1]
        score_UI: Tensor = newest_UD.float() @ self.items.weight.T
        return score_UI

"""Sizes and losses of a next-item model. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

Loss = Literal["bce", "gbce", "softmax"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SasRecConfig:
    """A SASRec.

    Attributes:
        max_len: newest items of a sequence that are read.
        loss: `bce` against one uniform negative for each position, `gbce` against `negatives`
            shared by a batch, `softmax` over `negatives` shared by a batch.
        negatives: drawn uniformly with every batch.
        gbce_t: calibration of gBCE, from 0 (plain BCE) to 1.
    """

    dim: int = 128
    max_len: int = 200
    num_layers: int = 2
    num_heads: int = 2
    dropout: float = 0.2
    loss: Loss = "softmax"
    negatives: int = 512
    gbce_t: float = 0.75

"""The sequence model and the Pin model.

Shapes: U sequences, R elements of all of them, P Pins, C width of the content, H width inside, D
embedding width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from feature_store.contracts.sequences import SequenceInputs, names_in
from models.nn.packed import Packed
from models.nn.time_encoding import DAY_S, HOUR_S, TimeEncoding
from models.nn.transformer import CausalEncoder
from models.pinnerformer.config import PinnerFormerConfig
from models.protocol import Batch

_ABSOLUTE_S = (
    *(h * HOUR_S for h in (0.25, 0.5, 0.75, 1, 2, 4, 8, 16)),
    *(d * DAY_S for d in (1, 7, 28, 365)),
)
# 32 periods from a second to four weeks, each 1.60666 times the one before.
_RELATIVE_S = tuple((28 * DAY_S) ** (i / 31) for i in range(32))
_CODE_DIM = 16


class ActionElements(nn.Module):
    """Actions as vectors: content of the Pin, action, surface, duration, three times.

    Args:
        inputs: what the data set's actions are.

    Source: PinnerFormer (arXiv 2205.04507), section 3.1 and appendix A.1.
    Deviations: log(1 + t) for durations and times; action and surface have 16 dimensions each,
    which the publication does not say. The time since the newest action tells older rows how much
    later their sequence ends, as published.
    """

    def __init__(self, inputs: SequenceInputs, config: PinnerFormerConfig) -> None:
        super().__init__()
        self.without = names_in(config.without)
        self.action = nn.Embedding(inputs.actions + 1, _CODE_DIM)
        self.surface = nn.Embedding(inputs.surfaces + 1, _CODE_DIM)
        self.absolute, self.since, self.gap = (
            TimeEncoding(periods) for periods in (_ABSOLUTE_S, _RELATIVE_S, _RELATIVE_S)
        )
        times = self.absolute.out_dim + self.since.out_dim + self.gap.out_dim
        self.out_dim = inputs.content.dim + 2 * _CODE_DIM + 1 + times

    def forward(self, batch: Batch, packed: Packed) -> Tensor:
        """The x_RI of every element, I = `out_dim`."""
        ts_R = batch["ts"].double()
        newest_R = ts_R[(torch.arange(len(ts_R), device=ts_R.device) + packed.ages())]
        older_R = torch.cat([ts_R[:1], ts_R[:-1]])
        first_R = torch.zeros(len(ts_R), dtype=torch.bool, device=ts_R.device)
        first_R[(packed.lengths_U.cumsum(0) - packed.lengths_U)[packed.lengths_U > 0]] = True
        gap_R = (ts_R - older_R).masked_fill(first_R, 0.0)
        duration_R = torch.log1p(batch["duration_s"].nan_to_num(0.0))
        parts = {
            "content": batch["content"].index_select(0, batch["element"]),
            "action": self.action(batch["action"]),
            "surface": self.surface(batch["surface"]),
            "duration": duration_R[:, None],
            "time": torch.cat(
                [self.absolute(ts_R), self.since(newest_R - ts_R), self.gap(gap_R)], dim=1
            ),
        }
        kept = [x * 0 if name in self.without else x for name, x in parts.items()]
        return torch.cat(kept, dim=1)


class PinnerFormer(nn.Module):
    """A causal transformer over a user's actions, and an MLP over a Pin's content.

    Source: PinnerFormer (arXiv 2205.04507), section 3.2 and appendix A.2.
    Deviations: GELU, which the publication leaves open; elements lie oldest first, so that the mask
    is causal in the usual sense, and learned places are counted from the newest one.
    """

    def __init__(self, inputs: SequenceInputs, config: PinnerFormerConfig) -> None:
        super().__init__()
        width, out = config.dim, config.embedding_dim
        self.elements = ActionElements(inputs, config)
        self.enter = nn.Linear(self.elements.out_dim, width)
        self.encoder = CausalEncoder(
            width,
            config.max_len,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            dropout=config.dropout,
        )
        if "place" in names_in(config.without):
            self.encoder.position.requires_grad_(False).zero_()
        self.leave = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, out)
        )
        self.pin_model = nn.Sequential(
            nn.Linear(inputs.content.dim, config.pin_hidden),
            nn.GELU(),
            nn.Linear(config.pin_hidden, out),
        )

    def forward(self, batch: Batch, *, padded: bool = False) -> Tensor:
        """The embedding_RD of the sequence that ends with each element, of norm 1."""
        packed = Packed.of(batch["length"])
        x_RH = self.enter(self.elements(batch, packed))
        x_RH = self.encoder(x_RH, packed, padded=padded)
        return functional.normalize(self.leave(x_RH).float(), dim=-1)

    def users(self, batch: Batch) -> Tensor:
        """The embedding_UD of users: that of their newest element."""
        newest_UD: Tensor = self(batch)[batch["length"].cumsum(0) - 1]
        return newest_UD

    def pins(self, content_PC: Tensor) -> Tensor:
        """The embedding_PD of Pins, of norm 1."""
        return functional.normalize(self.pin_model(content_PC).float(), dim=-1)

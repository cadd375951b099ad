"""Deep hierarchical ensembles: layers of two interaction modules over tokens.

Shapes: B rows, M tokens in, L tokens out, D token width, H hidden width.
"""

import torch
from torch import Tensor, nn

from models.nn.config import DhenConfig, Interaction
from models.nn.masknet import ParallelMaskNet
from models.nn.mlp import MLP
from models.nn.transformer import EncoderLayer


class TokenMixer(nn.Module):
    """A linear map over the token axis.

    Source: DHEN (arXiv 2203.11014), equation 1, W_n.
    Deviations: none.
    """

    def __init__(self, in_tokens: int, out_tokens: int) -> None:
        super().__init__()
        self.mix = nn.Linear(in_tokens, out_tokens, bias=False)

    def forward(self, x_BMD: Tensor) -> Tensor:
        """Map x_BMD to out_BLD."""
        out_BLD: Tensor = self.mix(x_BMD.transpose(1, 2)).transpose(1, 2)
        return out_BLD


class LinearInteraction(nn.Module):
    """Mixes the tokens, and nothing else.

    Source: DHEN, section 3.2, linear module.
    Deviations: none.
    """

    def __init__(self, config: DhenConfig, in_tokens: int, out_tokens: int) -> None:
        super().__init__()
        self.mix = TokenMixer(in_tokens, out_tokens)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BMD: Tensor) -> Tensor:
        """Map x_BMD to out_BLD."""
        out_BLD: Tensor = self.dropout(self.mix(x_BMD))
        return out_BLD


class MlpInteraction(nn.Module):
    """Flattens the tokens and crosses them in an MLP.

    Source: DHEN, flat modules: a vector of width H projected to L * D and cut into tokens.
    Deviations: H = 4 L D, at most `max_hidden`.
    """

    def __init__(self, config: DhenConfig, in_tokens: int, out_tokens: int) -> None:
        super().__init__()
        out_dim = out_tokens * config.token_dim
        hidden = min(4 * out_dim, config.max_hidden)
        self.mlp = MLP(in_tokens * config.token_dim, (hidden,), out_dim, dropout=config.dropout)
        self.out_shape = (out_tokens, config.token_dim)

    def forward(self, x_BMD: Tensor) -> Tensor:
        """Map x_BMD to out_BLD."""
        out_BLD: Tensor = self.mlp(x_BMD.flatten(1)).unflatten(1, self.out_shape)
        return out_BLD


class MaskInteraction(nn.Module):
    """Flattens the tokens and crosses them in parallel mask blocks.

    Source: DHEN, flat modules, with MaskNet as the module (DERM, section 3.1).
    Deviations: the blocks share H = 4 L D (at most `max_hidden`) between them.
    """

    def __init__(self, config: DhenConfig, in_tokens: int, out_tokens: int) -> None:
        super().__init__()
        in_dim, out_dim = in_tokens * config.token_dim, out_tokens * config.token_dim
        block_dim = max(1, min(4 * out_dim, config.max_hidden) // config.mask_blocks)
        self.blocks = ParallelMaskNet(
            in_dim,
            block_dim,
            num_blocks=config.mask_blocks,
            ratio=config.mask_ratio,
            dropout=config.dropout,
        )
        self.project = nn.Linear(block_dim * config.mask_blocks, out_dim, bias=False)
        self.out_shape = (out_tokens, config.token_dim)

    def forward(self, x_BMD: Tensor) -> Tensor:
        """Map x_BMD to out_BLD."""
        out_BLD: Tensor = self.project(self.blocks(x_BMD.flatten(1))).unflatten(1, self.out_shape)
        return out_BLD


class TransformerInteraction(nn.Module):
    """Attention among the tokens, then a linear map over the token axis.

    Source: DHEN, self-attention module.
    Deviations: pre-norm; one head per 16 of width.
    """

    def __init__(self, config: DhenConfig, in_tokens: int, out_tokens: int) -> None:
        super().__init__()
        heads = max(1, config.token_dim // 16)
        self.encoder = EncoderLayer(config.token_dim, heads, dropout=config.dropout)
        self.mix = TokenMixer(in_tokens, out_tokens)

    def forward(self, x_BMD: Tensor) -> Tensor:
        """Map x_BMD to out_BLD."""
        out_BLD: Tensor = self.mix(self.encoder(x_BMD))
        return out_BLD


_INTERACTIONS: dict[Interaction, type[nn.Module]] = {
    "linear": LinearInteraction,
    "mask": MaskInteraction,
    "mlp": MlpInteraction,
    "transformer": TransformerInteraction,
}


class DhenLayer(nn.Module):
    """Y = LayerNorm(ensemble of interactions of X + shortcut of X).

    The shortcut is X itself where the token count stays, a linear map over the token axis where
    it changes.

    Source: DHEN, equation 1; two modules per layer as in DERM, section 3.1.
    Deviations: the default ensemble concatenates L / 2 tokens of each module, which keeps L and
    so the identity shortcut.
    """

    def __init__(
        self, config: DhenConfig, modules: tuple[Interaction, ...], in_tokens: int
    ) -> None:
        super().__init__()
        tokens = config.num_tokens
        share = tokens // len(modules) if config.ensemble == "concat" else tokens
        self.ensemble = config.ensemble
        self.interactions = nn.ModuleList(
            _INTERACTIONS[name](config, in_tokens, share) for name in modules
        )
        self.shortcut = nn.Identity() if in_tokens == tokens else TokenMixer(in_tokens, tokens)
        self.norm = nn.LayerNorm(config.token_dim)
        if config.ensemble == "weighted":
            self.weight = nn.Parameter(torch.zeros(len(modules)))

    def forward(self, x_BMD: Tensor) -> Tensor:
        """Map x_BMD to out_BLD."""
        parts = [interaction(x_BMD) for interaction in self.interactions]
        if self.ensemble == "concat":
            mixed_BLD = torch.cat(parts, dim=1)
        elif self.ensemble == "sum":
            mixed_BLD = torch.stack(parts).sum(dim=0)
        else:
            weight = torch.softmax(self.weight, dim=0)
            mixed_BLD = torch.einsum("k,kbld->bld", weight, torch.stack(parts))
        out_BLD: Tensor = self.norm(mixed_BLD + self.shortcut(x_BMD))
        return out_BLD


class DhenTower(nn.Module):
    """A stack of DHEN layers over M normalised tokens.

    Source: DHEN, section 3.1; DERM, figure 1.
    Deviations: none.
    """

    def __init__(self, config: DhenConfig, in_tokens: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.token_dim)
        counts = (in_tokens, *[config.num_tokens] * len(config.layers))
        self.layers = nn.ModuleList(
            DhenLayer(config, modules, m) for modules, m in zip(config.layers, counts, strict=False)
        )

    def forward(self, x_BMD: Tensor) -> Tensor:
        """Map x_BMD to out_BLD."""
        x_BMD = _narrowed(self.norm(x_BMD))
        for layer in self.layers:
            x_BMD = layer(x_BMD)
        return x_BMD


def _narrowed(x: Tensor) -> Tensor:
    """In the precision that autocast computes in, once and not by every module that reads it."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x

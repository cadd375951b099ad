"""The towers: one per entity, and the overall one on top.

Shapes: B rows, M tokens in, L tokens out, D token width, E = L * D embedding width, T tasks.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from feature_store.contracts.datasets import Feature, FeatureScope
from models.derm.config import DermConfig
from models.derm.features import ModelInputs
from models.nn.dhen import DhenTower
from models.nn.mlp import MLP
from models.nn.scopes import ContextTokens, ScopeTokens
from models.nn.tokens import ScalarToken
from models.protocol import Batch


class EntityTower(nn.Module):
    """Features of one entity to its embedding; no other feature can reach it.

    Source: DERM, section 3.1; embedding = L2-normalised flattened tokens.
    Deviations: none.
    """

    def __init__(
        self, features: tuple[Feature, ...], scope: FeatureScope, config: DermConfig
    ) -> None:
        super().__init__()
        self.tokens = ScopeTokens(features, scope, config.tokens)
        self.dhen = DhenTower(config.tower, self.tokens.num_tokens)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Map a batch to (embedding_BE of norm 1, tokens_BLD)."""
        tokens_BLD = self.dhen(self.tokens(batch))
        with torch.autocast(tokens_BLD.device.type, enabled=False):
            embedding_BE = functional.normalize(tokens_BLD.float().flatten(1), dim=-1)
        return embedding_BE, tokens_BLD


class OverallTower(nn.Module):
    """Both entities and the context to one logit per task.

    Source: DERM, section 3.1 and figure 1; the inner product as an input: InteractRank.
    Deviations: reads the normalised embeddings, cut into tokens, so that what the supervised loss
    shapes is what others will see (`overtower_input`).
    """

    def __init__(self, inputs: ModelInputs, config: DermConfig) -> None:
        super().__init__()
        self.config = config
        tower = config.tower
        self.context = ContextTokens(inputs.context, inputs.num_surfaces, config.tokens)
        self.dot = ScalarToken(tower.token_dim) if config.dot_product else None
        in_tokens = 2 * tower.num_tokens + self.context.num_tokens + config.dot_product
        self.dhen = DhenTower(tower, in_tokens)
        self.heads = nn.ModuleDict(
            {
                task: MLP(config.embedding_dim, config.head_hidden, 1, dropout=tower.dropout)
                for task in inputs.tasks
            }
        )

    @torch.no_grad()
    def start_head(self, task: str, logit: float) -> None:
        """Let the head of a task begin at a logit."""
        self.heads[task].get_submodule("output").get_parameter("bias").fill_(logit)

    def forward(
        self,
        batch: Batch,
        user: tuple[Tensor, Tensor],
        pin: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Map both entities' (embedding_BE, tokens_BLD) and the context to logits_BT."""
        tower = self.config.tower
        if self.config.overtower_input == "normalized":
            shape = (tower.num_tokens, tower.token_dim)
            parts = [user[0].view(-1, *shape), pin[0].view(-1, *shape)]
        else:
            parts = [user[1], pin[1]]
        parts.append(self.context(batch))
        if self.dot is not None:
            parts.append(self.dot((user[0] * pin[0]).sum(dim=1))[:, None])
        flat_BE = self.dhen(torch.cat(parts, dim=1)).flatten(1)
        return torch.cat([head(flat_BE) for head in self.heads.values()], dim=-1)

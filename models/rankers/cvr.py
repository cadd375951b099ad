"""The conversion ranker: tokens of features and vectors, DHEN layers, a head per task.

Shapes: B rows, U distinct users, Q of them that predict, L tokens of width D, T tasks.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from models.nn.dhen import DhenTower
from models.nn.distinct import of_rows
from models.nn.experts import ParallelMLP
from models.nn.sampled_softmax import Pool, Positives, SampledSoftmax
from models.nn.scopes import ContextTokens, ScopeTokens
from models.nn.tokens import SequenceToken
from models.protocol import Batch, FirstWindow
from models.rankers.config import CvrConfig
from models.rankers.parts.ids import IdTokens
from models.rankers.parts.inputs import RankingInputs
from models.rankers.parts.rates import base_logits
from models.rankers.parts.vectors import VectorTokens
from models.training.distributed import sum_over_ranks


class CvrRanker(nn.Module):
    """Conversions of a user and a Pin in a context, all tasks in one model.

    Source: DERM (arXiv 2509.04337), section 3.2; DHEN for conversions (arXiv 2504.08169).
    Deviations: none.
    """

    def __init__(self, inputs: RankingInputs, config: CvrConfig) -> None:
        super().__init__()
        self.inputs = inputs
        self.user = ScopeTokens(inputs.user, "user", config.tokens)
        self.pin = ScopeTokens(inputs.pin, "pin", config.tokens)
        self.context = ContextTokens(inputs.context, inputs.num_surfaces, config.tokens)
        width = config.dhen.token_dim
        self.vectors = VectorTokens(inputs.vectors, width) if inputs.vectors else None
        self.ids = IdTokens(config.ids, width) if config.ids.names else None
        tokens = (self.user, self.pin, self.context, self.vectors, self.ids)
        self.dhen = DhenTower(config.dhen, sum(t.num_tokens for t in tokens if t is not None))
        tasks = len(inputs.tasks)
        self.heads = ParallelMLP(tasks, (config.dhen.num_tokens * width, *config.head, 1))
        self.bias_T = nn.Parameter(torch.zeros(tasks))

    @torch.no_grad()
    def fit(self, window: FirstWindow) -> None:
        """Take over ranges, spreads and base rates; once, before the first step."""
        for tokens in (self.user, self.pin, self.context):
            tokens.fit(window.ranges, window.sample)
        self.bias_T.copy_(base_logits(window, self.inputs.tasks))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Map a batch to `logits` (logits_BT)."""
        parts = [
            of_rows(batch, "user", self.user(batch)),
            of_rows(batch, "pin", self.pin(batch)),
            self.context(batch),
        ]
        parts += [block(batch) for block in (self.vectors, self.ids) if block is not None]
        flat_BD = self.dhen(torch.cat(parts, dim=1)).flatten(1)
        return {"logits": self.heads(flat_BD).squeeze(-1).T.float() + self.bias_T}


class NextAction(nn.Module):
    """The newest action of a user, predicted from those before it.

    The sequence without its newest element is encoded as ever, and compared with the newest
    elements of all users of the batch: a softmax, corrected for how often an element occurs there.

    Args:
        ranker: its first encoder of a user's sequence is what learns.

    Source: DHEN for conversions (arXiv 2504.08169), auxiliary loss on the sequence.
    Deviations: one prediction for a user, of the newest action, since the encoder is not causal.
    """

    def __init__(self, ranker: CvrRanker, temperature: float) -> None:
        super().__init__()
        if not len(ranker.user.encoders):
            raise ValueError("next_action: expected a sequence among the user's features")
        token = cast("SequenceToken", ranker.user.encoders[0])
        if token.max_len < 2:
            raise ValueError(
                f"next_action: expected a sequence of 2 or more, found {token.max_len}"
            )
        self.names = tuple(f.name for f in ranker.user.sequences[0])
        width = token.element.out_features
        self.query = nn.Linear(width, width)
        self.softmax = SampledSoftmax(temperature)

    def forward(self, token: SequenceToken, batch: Batch) -> Tensor:
        """This rank's part of the mean loss over users that have two actions or more; else 0."""
        ids = [batch[name] for name in self.names]
        able_Q = (ids[0][:, 1] > 0).nonzero().squeeze(1)
        newest = [x_UT[able_Q, 0] for x_UT in ids]
        before = [x_UT[able_Q, 1:] for x_UT in ids]
        query_QD = nn.functional.normalize(self.query(token(before)), dim=-1)
        item_QD = nn.functional.normalize(_element(token, newest), dim=-1)
        same_QQ = newest[0][:, None] == newest[0]
        log_q_Q = same_QQ.sum(dim=1).float().log()
        user_Q = torch.arange(len(able_Q), device=able_Q.device)
        positives = Positives(
            query_RD=query_QD, item_RD=item_QD, item_id_R=newest[0], user_id_R=user_Q,
            log_q_R=log_q_Q,
        )  # fmt: skip
        pool = Pool(item_PD=item_QD, item_id_P=newest[0], user_id_P=user_Q, log_q_P=log_q_Q)
        loss_Q: Tensor = self.softmax(positives, pool)
        users = sum_over_ranks(loss_Q.new_tensor(float(len(loss_Q))))
        return loss_Q.sum() / users.clamp(min=1)


def _element(token: SequenceToken, ids: Sequence[Tensor]) -> Tensor:
    """The element_QD of one position of parallel sequences."""
    tables = zip(token.tables, ids, strict=True)
    found: Tensor = token.element(torch.cat([table(x_Q) for table, x_Q in tables], dim=-1))
    return found

"""What id tables are trained for: a pair's user and Pin near each other, all others further away.

Shapes: Q pairs of this rank, G pairs of all ranks, N drawn Pins of all ranks, D width.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from feature_store.contracts.base import ENTITIES, Entity
from models.id_tables.config import IdTablesConfig
from models.id_tables.sharded import ShardedIdTable
from models.nn.id_table import IdRows, IdTable
from models.nn.mixed_negatives import SamplingProbability
from models.nn.sampled_softmax import Positives, SampledSoftmax
from models.protocol import Batch, Metric, Objective, RowWise
from models.training.distributed import gather, gather_with_gradient, sum_over_ranks
from models.training.pair_metrics import PairMetrics

TASK = "positive"


class IdTablesObjective(Objective):
    """Two tables and a temperature; nothing else learns.

    Args:
        sharded: the rows of the tables lie with all ranks, and with none of them alone.

    Source: Multi-Faceted Large Embedding Tables (arXiv 2508.05700), the contrastive facet, as far
    as public: inner products of the tables' rows, pairs of a long history of engagement and
    conversions; several passes are safe for a model so small (arXiv 2508.18700).
    Deviations: loss, negatives, weights of the kinds of pairs and the passes are not public; they
    are PinnerFormer's corrected softmax over mixed negatives, and configuration.
    """

    def __init__(self, config: IdTablesConfig, *, sharded: bool = False) -> None:
        super().__init__()
        self.config, self._sharded = config, sharded
        made = ShardedIdTable if sharded else IdTable
        self.table = nn.ModuleDict({"user": made(config.user), "pin": made(config.pin)})
        self.softmax = SampledSoftmax(config.negatives.temperature, in_blocks=True)
        self.sampling = SamplingProbability(config.negatives)
        self.tasks, self.every_parameter_learns = (TASK,), True
        self.losses = ("total", "pins", "users") if config.both_ways else ("total", "pins")
        # Kept with the weights: a pass that was interrupted goes on as it began.
        self.register_buffer("again", torch.tensor(False))

    again: Tensor

    def tables(self) -> dict[str, RowWise]:
        """Both tables: a step moves the rows of its ids."""
        rate = self.config.learning_rate
        return {
            f"table.{e}.weight": RowWise(
                learning_rate=rate, sums=f"table.{e}.sum_R", sharded=self._sharded
            )
            for e in ENTITIES
        }

    def begin_day(self) -> None:
        """Let what was drawn on the days before weigh less than what the new one brings."""
        self.again.fill_(False)
        self.sampling.fade()

    def begin_again(self) -> None:
        """Pairs that were seen are seen again: ids are not counted a second time."""
        self.again.fill_(True)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """This rank's part of the losses; in training mode, what it sees is counted first."""
        pairs = _Pairs(batch)
        if self.training:
            self._count(pairs)
        vectors = {e: self._vectors(e, pairs.key[e]) for e in ENTITIES}
        losses = {"pins": self._pins(pairs, vectors, batch)}
        if self.config.both_ways:
            losses["users"] = self._users(pairs, vectors)
        weight_Q = batch["weight"]
        total = sum_over_ranks(weight_Q.sum()).clamp(min=1e-9)
        found = {name: (weight_Q * each_Q).sum() / total for name, each_Q in losses.items()}
        return {"total": torch.stack(list(found.values())).mean(), **found}

    def predict(self, batch: Batch) -> Tensor:
        """Logits [2 Q, 1]: of every pair, then of every user with a Pin drawn uniformly."""
        user_QD = self._vectors("user", batch["key:user"])
        pin_QD, drawn_QD = (
            self._vectors("pin", batch[name]) for name in ("key:pin", "drawn:key:pin")
        )
        scores = torch.cat([(user_QD * pin_QD).sum(1), (user_QD * drawn_QD).sum(1)])
        return (scores * self.softmax.scale())[:, None]

    def targets(self, batch: Batch) -> Tensor:
        """Ones, then zeros [2 Q, 1]."""
        ones_Q = torch.ones(len(batch["key:user"]), device=batch["key:user"].device)
        return torch.cat([ones_Q, 0 * ones_Q])[:, None]

    def metrics(self) -> dict[str, Metric]:
        """How well pairs are told from Pins drawn uniformly, and how precisely that is known."""
        return {TASK: PairMetrics()}

    def embed(self, entity: Entity, batch: Batch) -> Tensor:
        """The embedding_UD of entities, from their hashed ids."""
        return self._vectors(entity, batch[f"key:{entity}"])

    def numbers(self) -> dict[str, float]:
        """The temperature, and the share of rows that somebody has."""
        used = {e: self._table(e).count_R[1:] >= self.config.min_count for e in ENTITIES}
        shares = {f"rows_used_{e}": used_R.float().mean().item() for e, used_R in used.items()}
        return {"temperature": 1 / self.softmax.scale().item(), **shares}

    def _count(self, pairs: "_Pairs") -> None:
        self.sampling.count(pairs.everybody["pin"], pairs.everybody["user"], pairs.drawn_N)
        if not self.again:
            for entity, key_G in pairs.everybody.items():
                self._table(entity).count(key_G)

    def _table(self, entity: Entity) -> IdRows:
        return cast("IdRows", self.table[entity])

    def _vectors(self, entity: Entity, key_N: Tensor) -> Tensor:
        """The rows of ids at norm 1, [N, D]."""
        return functional.normalize(self._table(entity)(key_N).float(), dim=-1)

    def _pins(self, pairs: "_Pairs", vectors: dict[Entity, Tensor], batch: Batch) -> Tensor:
        """The loss_Q of finding each pair's Pin among the others of the pool."""
        key, everybody = pairs.key, pairs.everybody
        sizes = self.sampling.sizes(len(everybody["pin"]), len(pairs.drawn_N))
        positives = Positives(
            query_RD=vectors["user"],
            item_RD=vectors["pin"],
            item_id_R=key["pin"],
            user_id_R=key["user"],
            log_q_R=self.sampling.of_positives(key["pin"], key["user"], sizes),
        )
        drawn = None
        if self.config.negatives.pool != "in_batch":
            drawn_D = self._vectors("pin", batch["random:key:pin"])
            drawn = (gather_with_gradient(drawn_D), pairs.drawn_N)
        in_batch = (gather_with_gradient(vectors["pin"]), everybody["pin"], everybody["user"])
        loss_Q: Tensor = self.softmax(positives, self.sampling.pool(in_batch, drawn))
        return loss_Q

    def _users(self, pairs: "_Pairs", vectors: dict[Entity, Tensor]) -> Tensor:
        """The loss_Q of finding each pair's user among the users of the batch."""
        key, everybody = pairs.key, pairs.everybody
        pool = self.sampling.users(
            gather_with_gradient(vectors["user"]), everybody["user"], everybody["pin"]
        )
        positives = Positives(
            query_RD=vectors["pin"],
            item_RD=vectors["user"],
            item_id_R=key["user"],
            user_id_R=key["pin"],
            log_q_R=self.sampling.of_users(key["pin"], key["user"], len(pool.item_id_P)),
        )
        loss_Q: Tensor = self.softmax(positives, pool)
        return loss_Q


class _Pairs:
    """The hashed ids of a batch.

    Attributes:
        key, everybody: by entity, of the pairs of this rank and of all ranks.
        drawn_N: Pins drawn by all ranks.
    """

    def __init__(self, batch: Batch) -> None:
        self.key: dict[Entity, Tensor] = {e: batch[f"key:{e}"] for e in ENTITIES}
        self.everybody = {e: gather(key_Q) for e, key_Q in self.key.items()}
        self.drawn_N = gather(batch.get("random:key:pin", self.key["pin"][:0]))

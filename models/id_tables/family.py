"""Id tables as a family of upstreams: read pairs, embed users and Pins that have a row."""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from feature_store.contracts.base import Entity, Upstream
from feature_store.contracts.datasets import DatasetSpec, Feature
from feature_store.contracts.errors import InputError
from feature_store.contracts.sequences import PairInputs
from models.id_tables.config import ARCHITECTURE, IdTablesConfig
from models.id_tables.objective import IdTablesObjective
from models.id_tables.pairs import pair_inputs
from models.nn.id_table import IdRows
from models.protocol import FirstWindow, Objective
from models.training.checkpoint import Tensors


class IdTablesFamily:
    """See README.md beside this file."""

    version = ARCHITECTURE

    def objective(
        self,
        spec: DatasetSpec,
        upstream: Upstream,
        config: IdTablesConfig,
        pools: Iterable[Feature],
    ) -> IdTablesObjective:
        """The tables and their loss.

        Raises:
            InputError: the declaration reads pools, or nothing of the data set makes a pair.
        """
        if read := [pool.name for pool in pools]:
            raise InputError(
                "id tables read no pools",
                where=f"upstream {upstream}: pools",
                expected="none",
                found=" ".join(read),
            )
        pair_inputs(spec, config)
        return IdTablesObjective(config)

    def fit(self, objective: Objective, window: FirstWindow) -> None:
        """Nothing: an id has no range."""

    def random_pins(self, config: IdTablesConfig) -> int:
        """Those of the pool."""
        return config.negatives.random if config.negatives.pool != "in_batch" else 0

    def pairs(self, spec: DatasetSpec, config: IdTablesConfig) -> PairInputs:
        """What makes a pair."""
        return pair_inputs(spec, config)

    def without(
        self,
        config: IdTablesConfig,
        weights: Mapping[str, Tensor],
        entity: Entity,
        key_M: npt.NDArray[np.int64],
    ) -> tuple[Tensors, int]:
        """A snapshot's weights with zeros for rows of some users or Pins; how many were not zeros.

        What shares a row begins anew. The sketches of the softmax stay: sums over all ids that hash
        alike, which fade.
        """
        table = IdRows(config.user if entity == "user" else config.pin)
        row_R = torch.unique(table.rows_of(torch.from_numpy(key_M)))
        names = [f"table.{entity}.{part}" for part in ("weight", "count_R", "sum_R")]
        held = [weights[name][row_R].reshape(len(row_R), -1).any(dim=1) for name in names]
        erased = {name: weights[name].index_fill(0, row_R, 0) for name in names}
        return {**weights, **erased}, int(torch.stack(held).any(dim=0).sum())


FAMILY = IdTablesFamily()

"""Id tables as a family of upstreams: read pairs, embed users and Pins that have a row."""

from collections.abc import Iterable

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

    def erase(
        self,
        config: IdTablesConfig,
        tensors: dict[str, Tensor],
        entity: Entity,
        keys: npt.NDArray[np.int64],
    ) -> int:
        """Zero the rows of some ids in a snapshot's tensors; how many were not zeros before.

        A table's row, its counter and its optimizer's sum count as one each. What shares a row
        begins anew. The sketches of the softmax stay: numbers of all ids together, which fade.
        """
        table = IdRows(config.user if entity == "user" else config.pin)
        row_M = torch.unique(table.rows_of(torch.from_numpy(keys)))
        name = f"table.{entity}"
        erased = 0
        for part in (f"{name}.weight", f"{name}.count_R", f"row_sum/{name}.weight"):
            if (found := tensors.get(part)) is not None:
                erased += int((found[row_M] != 0).reshape(len(row_M), -1).any(dim=1).sum())
                tensors[part] = found.index_fill(0, row_M, 0)
        return erased


FAMILY = IdTablesFamily()

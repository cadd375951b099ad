"""Id tables as a family of upstreams: read pairs, embed users and Pins that have a row."""

from collections.abc import Iterable

from feature_store.contracts.base import Upstream
from feature_store.contracts.datasets import DatasetSpec, Feature
from feature_store.contracts.errors import InputError
from feature_store.contracts.sequences import PairInputs
from models.id_tables.config import ARCHITECTURE, IdTablesConfig
from models.id_tables.objective import IdTablesObjective
from models.id_tables.pairs import pair_inputs
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


FAMILY = IdTablesFamily()

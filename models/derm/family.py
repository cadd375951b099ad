"""DERM as a family of upstreams: reads rows of events, embeds users and Pins."""

from collections.abc import Iterable

from feature_store.contracts.base import Upstream
from feature_store.contracts.datasets import DatasetSpec, Feature
from models.derm.config import ARCHITECTURE, DermConfig
from models.derm.features import ModelInputs
from models.derm.losses import DermObjective
from models.derm.model import DermModel
from models.protocol import FirstWindow


class Derm:
    """See README.md beside this file."""

    version = ARCHITECTURE

    def objective(
        self, spec: DatasetSpec, upstream: Upstream, config: DermConfig, pools: Iterable[Feature]
    ) -> DermObjective:
        """The three towers and their losses."""
        return DermObjective(DermModel(ModelInputs.of(spec, upstream, pools), config))

    def fit(self, objective: DermObjective, window: FirstWindow) -> None:
        """Ranges of features, and base rates of tasks."""
        objective.model.fit(window)

    def random_pins(self, config: DermConfig) -> int:
        """Those of the loss."""
        return config.loss.random_negatives


FAMILY = Derm()

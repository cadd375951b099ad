"""PinnerFormer as a family of upstreams: reads timelines, embeds users and Pins."""

from collections.abc import Iterable

from feature_store.contracts.base import Upstream
from feature_store.contracts.datasets import DatasetSpec, Feature
from feature_store.contracts.errors import InputError
from feature_store.contracts.sequences import SequenceInputs
from models.pinnerformer.config import ARCHITECTURE, PinnerFormerConfig
from models.pinnerformer.inputs import sequence_inputs
from models.pinnerformer.model import PinnerFormer
from models.pinnerformer.objective import PinnerFormerObjective
from models.protocol import FirstWindow, Objective


class PinnerFormerFamily:
    """See README.md beside this file."""

    version = ARCHITECTURE

    def objective(
        self,
        spec: DatasetSpec,
        upstream: Upstream,
        config: PinnerFormerConfig,
        pools: Iterable[Feature],
    ) -> PinnerFormerObjective:
        """The sequence model, the Pin model and their loss.

        Raises:
            InputError: the declaration reads pools of other upstreams: an action has none.
        """
        if read := [pool.name for pool in pools]:
            raise InputError(
                "a sequence model reads no pools",
                where=f"upstream {upstream}: pools",
                expected="none",
                found=" ".join(read),
            )
        return PinnerFormerObjective(PinnerFormer(sequence_inputs(spec, config), config), config)

    def fit(self, objective: Objective, window: FirstWindow) -> None:
        """Nothing: contents, times and durations are taken as they are."""

    def random_pins(self, config: PinnerFormerConfig) -> int:
        """Those of the pool; their names are counted even where the pool has none of them."""
        return config.negatives.random if config.negatives.pool != "in_batch" else 0

    def sequences(self, spec: DatasetSpec, config: PinnerFormerConfig) -> SequenceInputs:
        """What is read of timelines."""
        return sequence_inputs(spec, config)


FAMILY = PinnerFormerFamily()

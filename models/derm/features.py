"""What a data set offers to one upstream model.

A batch maps names to tensors: features by their own name, `surface` and `ts` of the event,
`key:user` and `key:pin` (hashed ids, int64), and `label:<name>` (float32, NaN where masked). Where
it has `row:user` or `row:pin` (int64), the features of that entity stand once for each distinct
one, and `row:` says which of them an event is about. Pins drawn for the loss alone, another number
of rows, have `random:` before their names.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from feature_store.contracts.base import Upstream
from feature_store.contracts.datasets import DatasetSpec, Feature

RANDOM = "random:"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInputs:
    """What a data set offers to one upstream model.

    Attributes:
        user, pin, context: disjoint lists of features, one per tower.
        tasks: labels, the primary one first.
        positives: labels whose 1 makes a row a positive of the self-supervised loss.
        num_surfaces: values of `surface`.
    """

    upstream: Upstream
    user: tuple[Feature, ...]
    pin: tuple[Feature, ...]
    context: tuple[Feature, ...]
    tasks: tuple[str, ...]
    positives: tuple[str, ...]
    num_surfaces: int

    @classmethod
    def of(
        cls, spec: DatasetSpec, upstream: Upstream, pools: Iterable[Feature] = ()
    ) -> "ModelInputs":
        """The inputs that a data set declares, and those read from other upstreams' pools."""
        read = tuple(pools)
        labels = spec.labels_of(upstream)
        return cls(
            upstream=upstream,
            user=(*spec.inputs_of("user"), *(f for f in read if f.scope == "user")),
            pin=(*spec.inputs_of("pin"), *(f for f in read if f.scope == "pin")),
            context=spec.inputs_of("context"),
            tasks=tuple(x.name for x in labels),
            positives=tuple(x.name for x in labels if x.role != "auxiliary"),
            num_surfaces=len(spec.surfaces),
        )

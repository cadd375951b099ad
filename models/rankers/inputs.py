"""What a data set and the pools offer to a ranker."""

from collections.abc import Iterable
from dataclasses import dataclass

from feature_store.contracts.base import Upstream
from feature_store.contracts.datasets import DatasetSpec, Feature


@dataclass(frozen=True, kw_only=True, slots=True)
class RankingInputs:
    """The features, vectors and tasks of a ranker.

    Attributes:
        user, pin, context: features by what they belong to.
        vectors: what is read from pools; none for a ranker without embeddings.
        tasks: labels, the primary one first.
        num_surfaces: values of `surface`; 0 is one that was never seen.
    """

    user: tuple[Feature, ...]
    pin: tuple[Feature, ...]
    context: tuple[Feature, ...]
    vectors: tuple[Feature, ...]
    tasks: tuple[str, ...]
    num_surfaces: int

    @classmethod
    def of(
        cls, spec: DatasetSpec, labels_of: Upstream, vectors: Iterable[Feature]
    ) -> "RankingInputs":
        """The inputs that a data set declares, and vectors beside them.

        Args:
            labels_of: the upstream whose labels are the tasks.
        """
        return cls(
            user=spec.inputs_of("user"),
            pin=spec.inputs_of("pin"),
            context=spec.inputs_of("context"),
            vectors=tuple(vectors),
            tasks=tuple(x.name for x in spec.labels_of(labels_of)),
            num_surfaces=len(spec.surfaces),
        )

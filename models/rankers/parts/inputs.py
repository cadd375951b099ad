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
        surfaces: names of the values of `surface` from 1 on; 0 is one that was never seen.
        own: of each surface, in their order, the context features that it alone fills.
    """

    user: tuple[Feature, ...]
    pin: tuple[Feature, ...]
    context: tuple[Feature, ...]
    vectors: tuple[Feature, ...]
    tasks: tuple[str, ...]
    surfaces: tuple[str, ...]
    own: tuple[tuple[str, ...], ...] = ()

    @property
    def num_surfaces(self) -> int:
        """How many there are, beside 0."""
        return len(self.surfaces)

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
            surfaces=spec.surfaces,
            own=tuple(spec.surface_features.get(name, ()) for name in spec.surfaces),
        )

    def context_of(self, surface: int) -> tuple[Feature, ...]:
        """The context features that a surface alone fills; for 0 those that all share."""
        if surface:
            mine = self.own[surface - 1] if self.own else ()
            return tuple(f for f in self.context if f.name in mine)
        owned = {name for names in self.own for name in names}
        return tuple(f for f in self.context if f.name not in owned)

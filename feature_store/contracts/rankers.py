"""Rankers as data: what predicts for a pair, from features and from the vectors of upstreams."""

from collections.abc import Iterable
from typing import Literal, Self

from pydantic import Field, model_validator

from feature_store.contracts.base import Contract, Upstream
from feature_store.contracts.upstreams import ModelOption, UpstreamDeclaration

# A step's result is filed under the upstream or the ranker that it is for.
Ranker = Upstream
Join = Literal["day before", "same day"]


class RankerDeclaration(Contract):
    """One ranker.

    Attributes:
        name: of no upstream.
        family: the module of `models/rankers/` that knows how to train it.
        learns: the upstream whose labels are its tasks.
        pools: upstreams whose vectors it reads.
        join: the pools that a day joins with: those of the end of the day before, which is what
            serving would have had; or those of the same day, which have seen what happens on it: a
            leak, there to be measured.
        compared: train a second one beside it that reads no vectors; the difference of the two on
            a new day is what the embeddings are worth. It costs as much again.
        model: fields of the family's configuration that differ from the recipe's.
    """

    name: Ranker
    family: str = Field(default="ctr", pattern=r"^[a-z][a-z0-9_]*$")
    learns: Upstream
    pools: tuple[Upstream, ...]
    join: Join = "day before"
    compared: bool = True
    model: dict[str, ModelOption] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _makes_sense_alone(self) -> Self:
        if not self.pools or len(set(self.pools)) < len(self.pools):
            raise ValueError(f"ranker {self.name}: pools must be some, and each named once")
        return self

    @property
    def lag(self) -> int:
        """Days between the pools and the events they are joined with."""
        return 1 if self.join == "day before" else 0


def check_rankers(
    rankers: Iterable[RankerDeclaration],
    upstreams: Iterable[UpstreamDeclaration],
    taught: Iterable[Upstream],
) -> tuple[RankerDeclaration, ...]:
    """The rankers of a pipeline, when they fit its upstreams and its labels.

    Args:
        taught: the upstreams that labels are declared for.

    Raises:
        ValueError: a name is used twice, or what a ranker reads or learns is made by nobody.
    """
    declared, names = tuple(rankers), [u.name for u in upstreams]
    labelled = tuple(taught)
    own = [r.name for r in declared]
    if doubled := sorted({n for n in own if own.count(n) > 1 or n in names}):
        raise ValueError(f"rankers need names of their own: {' '.join(doubled)}")
    for ranker in declared:
        if unknown := sorted(set(ranker.pools) - set(names)):
            raise ValueError(
                f"ranker {ranker.name}: pools names {' '.join(unknown)}, "
                f"declared are {' '.join(names)}"
            )
        if ranker.learns not in labelled:
            raise ValueError(
                f"ranker {ranker.name}: learns {ranker.learns}, labels are those of "
                f"{' '.join(labelled)}"
            )
    return declared


def usual_rankers(
    upstreams: Iterable[UpstreamDeclaration], taught: Iterable[Upstream]
) -> tuple[RankerDeclaration, ...]:
    """A ranker for the labels of each upstream that has some, over all published pools."""
    published = tuple(u.name for u in upstreams if u.published)
    return tuple(
        RankerDeclaration(
            name=f"{name}_ranker",
            family="cvr" if name == "cvr" else "ctr",
            learns=name,
            pools=published,
        )
        for name in taught
    )

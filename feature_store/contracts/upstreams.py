"""Upstreams as data: what yields a vector per entity and day, and how those vectors are kept.

Everything after inference (dedup, merge, verify, index, publish, release, repair) is the same code
for every upstream and asks only this declaration. A data set declares its upstreams, or leaves it
at those that its labels name; a recipe may add to them.
"""

from collections.abc import Iterable
from typing import Literal, Self

from pydantic import Field, model_validator

from feature_store.contracts.base import ENTITIES, Contract, Entity, Upstream

Reads = Literal["rows", "timelines", "edges", "pairs"]
Heuristic = Literal["acc", "ma", "ap"]
ModelOption = bool | int | float | str


class UpstreamDeclaration(Contract):
    """One upstream.

    Attributes:
        family: the folder of `models/` that knows how to train it and how to embed with it, or the
            absolute path of a folder elsewhere.
        entities: what it embeds.
        reads: what it learns from: rows of events, timelines of users, edges of a graph, or pairs
            of a user and a Pin.
        history_days: days of events that are read to learn from a day or to embed it, the day
            itself among them; for timelines and pairs.
        learns_as: another upstream whose labels it learns; None: those declared for its own name.
        pools: upstreams whose pools it reads as features, as of the end of yesterday. They are
            merged before it can run on the next day, and are made of another day's snapshot.
        model: fields of the family's configuration that differ from the recipe's; a dot leads into
            a nested one: `{"tower.token_dim": 16}`.
        heuristic: how days are merged into the pool; None: as the recipe says.
        w: weight of yesterday's pool in the moving average; None: as the recipe says.
        inactive_days: days without an event after which an entity is pruned; None: the recipe's.
        every_days: it learns and embeds on every n-th day from the first published one; in between
            its vectors are carried over.
        passes: over the days of a training from scratch, at most: it ends with the one after which
            the newest day is predicted no better, and goes back to the one before.
        published: whether rankers read it. What is not published is merged and verified, for other
            upstreams.
    """

    name: Upstream
    family: str = Field(default="derm", pattern=r"^(/.*/)?[a-z][a-z0-9_]*$")
    entities: tuple[Entity, ...] = ENTITIES
    reads: Reads = "rows"
    history_days: int = Field(default=1, ge=1)
    learns_as: Upstream | None = None
    pools: tuple[Upstream, ...] = ()
    model: dict[str, ModelOption] = Field(default_factory=dict)
    heuristic: Heuristic | None = None
    w: float | None = Field(default=None, gt=0.0, lt=1.0)
    inactive_days: int | None = Field(default=None, ge=1)
    every_days: int = Field(default=1, ge=1)
    passes: int = Field(default=1, ge=1)
    published: bool = True

    @model_validator(mode="after")
    def _makes_sense_alone(self) -> Self:
        if not self.entities or len(set(self.entities)) < len(self.entities):
            raise ValueError(f"upstream {self.name}: entities must be some, and each named once")
        if self.published and set(self.entities) != set(ENTITIES):
            raise ValueError(
                f"upstream {self.name}: what is published embeds {' and '.join(ENTITIES)}, "
                f"entities are {' and '.join(self.entities)}: published = false, or both"
            )
        if self.reads in ("rows", "edges") and self.history_days > 1:
            raise ValueError(
                f"upstream {self.name}: history_days is for timelines and pairs; rows are those of "
                "the day, and its graph remembers the days before it"
            )
        if len(set(self.pools)) < len(self.pools):
            raise ValueError(f"upstream {self.name}: pools names an upstream twice")
        return self


def check_together(upstreams: Iterable[UpstreamDeclaration]) -> tuple[UpstreamDeclaration, ...]:
    """The upstreams of a pipeline, when they fit each other.

    An upstream may read the pool of yesterday of any other one, also of one that reads its own, and
    not of itself: its own past reaches it through its snapshot.

    Raises:
        ValueError: there is none, a name is used twice, or a pool is read that nobody makes.
    """
    declared = tuple(upstreams)
    names = [u.name for u in declared]
    if not names:
        raise ValueError("no upstream is declared")
    if doubled := sorted({n for n in names if names.count(n) > 1}):
        raise ValueError(f"upstreams are declared twice: {' '.join(doubled)}")
    if not any(u.published for u in declared):
        raise ValueError("no upstream is published: there would be nothing to release")
    for upstream in declared:
        if upstream.name in upstream.pools:
            raise ValueError(f"upstream {upstream.name}: pools names the upstream itself")
        if unknown := sorted(set(upstream.pools) - set(names)):
            raise ValueError(
                f"upstream {upstream.name}: pools names {' '.join(unknown)}, "
                f"declared are {' '.join(names)}"
            )
    return declared

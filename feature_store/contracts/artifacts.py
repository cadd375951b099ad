"""Names of what steps write, as types: who needs to know what an artifact is asks its reference.

A reference is the name that manifests record, and equals it. One without an upstream, or without
an entity, stands for all of them in the catalog: `Pool()` is every pool, `Pool(entity="pin")` those
of Pins, `Pool("ctr", "user")` one of them.

    Snapshot("ctr")         snapshot:ctr
    Pool("ctr", "user")     lake:embeddings/ctr/user/pool
    Counts("user")          lake:counts/user
    Rows("events")          lake:events
"""

import re
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, Self

from feature_store.contracts.base import Entity, Upstream

Begins = Literal["pipeline", "data", "training", "pools", "ranking"]

_LAKE = "lake:"
_UPSTREAM, _ENTITY, _RANKER = "{u}", "{e}", "{r}"


class Reference(str):
    """An artifact of a day, by the name that manifests record.

    Attributes:
        begins: the first day on which there is no yesterday's: of the pipeline; of the data; also
            where a space is trained from scratch; also where its pools start empty; of a ranker,
            and where its vectors are of another space.
        shared: other DAGs may wait for it.
        read_by: made for upstreams that read this, and no others; for all where it is empty.
        below_home: it lies below the home, so that what is gone is seen; else in a store.
        upstream, entity: whose it is; None where it is nobody's, or stands for all.
    """

    __slots__ = ("entity", "upstream")
    pattern: ClassVar[str] = ""
    begins: ClassVar[Begins] = "pipeline"
    shared: ClassVar[bool] = False
    read_by: ClassVar[str] = ""
    below_home: ClassVar[bool] = True
    upstream: Upstream | None
    entity: Entity | None

    @classmethod
    def _named(
        cls, name: str, upstream: Upstream | None = None, entity: Entity | None = None
    ) -> Self:
        made = str.__new__(cls, name)
        made.upstream, made.entity = upstream, entity
        return made

    @property
    def table(self) -> str:
        """The table of the lake that it is a partition of; empty when it is none."""
        return self.removeprefix(_LAKE) if self.startswith(_LAKE) else ""

    @property
    def per_upstream(self) -> bool:
        """Whether it stands for the artifacts of all upstreams."""
        return _UPSTREAM in self

    @property
    def per_entity(self) -> bool:
        """Whether it stands for the artifacts of all entities."""
        return _ENTITY in self

    @property
    def per_ranker(self) -> bool:
        """Whether it stands for the artifacts of all rankers."""
        return _RANKER in self

    def of_ranker(self, ranker: str) -> Self:
        """The artifact that it stands for, of a ranker."""
        return self._named(self.replace(_RANKER, ranker), ranker)

    def of(self, upstream: Upstream | None, entities: Sequence[Entity]) -> tuple[Self, ...]:
        """The artifacts that it stands for, of an upstream and of entities."""
        owner = upstream if self.per_upstream else self.upstream
        if not self.per_entity:
            return (self._bound(owner, self.entity),)
        return tuple(self._bound(owner, entity) for entity in entities)

    def _bound(self, upstream: Upstream | None, entity: Entity | None) -> Self:
        name = self.replace(_UPSTREAM, upstream or _UPSTREAM).replace(_ENTITY, entity or _ENTITY)
        return self._named(name, upstream, entity)

    def __reduce__(self) -> tuple[Callable[[str], "Reference"], tuple[str]]:
        return reference, (str(self),)


class _OfUpstream(Reference):
    """One for each upstream."""

    __slots__ = ()

    def __new__(cls, upstream: Upstream | None = None) -> Self:
        return cls._named(cls.pattern.replace(_UPSTREAM, upstream or _UPSTREAM), upstream)


class _OfBoth(Reference):
    """One for each upstream and entity."""

    __slots__ = ()

    def __new__(cls, upstream: Upstream | None = None, entity: Entity | None = None) -> Self:
        name = cls.pattern.replace(_UPSTREAM, upstream or _UPSTREAM)
        return cls._named(name.replace(_ENTITY, entity or _ENTITY), upstream, entity)


class Rows(Reference):
    """A table of the lake that belongs to no upstream, such as `users`.

    Without a name it stands for the tables that a data set has beside the three of every one.
    """

    __slots__ = ()

    def __new__(cls, table: str = "{t}") -> Self:
        """The reference of a table by name."""
        return cls._named(f"{_LAKE}{table}")


class Events(Rows):
    """What happened on the day."""

    __slots__ = ()
    shared = True

    def __new__(cls) -> Self:
        """There is one."""
        return cls._named(f"{_LAKE}events")


class Counts(Reference):
    """Impressions and positives of an entity, in the windows that end with the day."""

    __slots__ = ()
    pattern = "lake:counts/{e}"
    begins = "data"

    def __new__(cls, entity: Entity | None = None) -> Self:
        """Those of an entity, or of all."""
        return cls._named(cls.pattern.replace(_ENTITY, entity or _ENTITY), None, entity)


class Graph(Rows):
    """Who was related to what, as of the end of the day."""

    __slots__ = ()
    begins = "data"

    def __new__(cls) -> Self:
        """There is one."""
        return cls._named("lake:graph")


class Raw(_OfBoth):
    """Every embedding of the day."""

    __slots__ = ()
    pattern = "lake:embeddings/{u}/{e}/raw"


class NodeVectors(_OfUpstream):
    """The vectors of nodes of a graph that are neither users nor Pins."""

    __slots__ = ()
    pattern = "lake:nodes/{u}"
    read_by = "edges"


class Daily(_OfBoth):
    """The last embedding of the day per entity."""

    __slots__ = ()
    pattern = "lake:embeddings/{u}/{e}/daily"


class Pool(_OfBoth):
    """The smoothed embeddings of everybody who is active."""

    __slots__ = ()
    pattern = "lake:embeddings/{u}/{e}/pool"
    begins = "pools"
    shared = True


class Snapshot(_OfUpstream):
    """A trained model."""

    __slots__ = ()
    pattern = "snapshot:{u}"
    begins = "training"


class Verified(_OfUpstream):
    """The pools of an upstream are fit to be published."""

    __slots__ = ()
    pattern = "verified:{u}"


class Index(_OfUpstream):
    """The Pin index of an upstream."""

    __slots__ = ()
    pattern = "index:{u}"


class Users(_OfUpstream):
    """The users of an upstream in a slot of the online store."""

    __slots__ = ()
    pattern = "users:{u}"
    below_home = False


class _OfRanker(Reference):
    """One for each ranker; `upstream` is its name."""

    __slots__ = ()

    def __new__(cls, upstream: str | None = None) -> Self:
        return cls._named(cls.pattern.replace(_RANKER, upstream or _RANKER), upstream)


class Assembled(_OfRanker):
    """What a ranker's day is joined with."""

    __slots__ = ()
    pattern = "assembled:{r}"


class Evaluated(_OfRanker):
    """How often the logits of a day were right, said before it was learned."""

    __slots__ = ()
    pattern = "evaluated:{r}"


class RankerWeights(_OfRanker):
    """A trained ranker."""

    __slots__ = ()
    pattern = "ranker:{r}"
    begins = "ranking"


class Calibrated(_OfRanker):
    """From logits of a ranker to probabilities."""

    __slots__ = ()
    pattern = "calibrated:{r}"
    begins = "ranking"


class Exported(_OfRanker):
    """A ranker with its calibration, for whoever serves it."""

    __slots__ = ()
    pattern = "exported:{r}"


class Mark(Reference):
    """What is one of a kind on a day: `source`, `validated`, `audited`."""

    __slots__ = ()

    def __new__(cls, name: str) -> Self:
        """The reference of that name; `{u}` in it stands for every upstream."""
        return cls._named(name)


class ReleaseMark(Mark):
    """The pointer that readers follow."""

    __slots__ = ()
    shared = True

    def __new__(cls) -> Self:
        """There is one."""
        return cls._named("release")


# What a day is made from: the simulated world's files, or those of the user.
SOURCE = Mark("source")

_PATTERNS: tuple[type[_OfUpstream | _OfBoth | _OfRanker | Counts], ...] = (
    *(Raw, Daily, Pool, Counts),
    *(NodeVectors, Snapshot, Verified, Index, Users),
    *(Assembled, Evaluated, RankerWeights, Calibrated, Exported),
)
_READERS = tuple(
    (
        kind,
        re.compile(
            re.escape(kind.pattern)
            .replace(re.escape(_UPSTREAM), r"(?P<upstream>[^/:]+)")
            .replace(re.escape(_ENTITY), r"(?P<entity>[^/:]+)")
            .replace(re.escape(_RANKER), r"(?P<upstream>[^/:]+)")
        ),
    )
    for kind in _PATTERNS
)


def reference(name: str) -> Reference:
    """The reference that a recorded name is."""
    for kind, reader in _READERS:
        if found := reader.fullmatch(name):
            return kind(**found.groupdict())  # type: ignore[arg-type]
    for alone in (Events(), Graph(), ReleaseMark()):
        if name == alone:
            return alone
    return Rows(name.removeprefix(_LAKE)) if name.startswith(_LAKE) else Mark(name)


def in_lake(table: str) -> Reference:
    """The reference of a table of the lake."""
    return reference(f"{_LAKE}{table}")

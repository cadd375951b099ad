"""What every reader of a day has, whatever it reads: rows of events, timelines, edges or pairs."""

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy.typing as npt

from feature_store.contracts.base import Entity
from feature_store.reading.entities import Arrays
from feature_store.reading.examples import Order


class EntityReader(Protocol):
    """The users or Pins that a day knows.

    Attributes:
        embeds_unknown: whether those it does not know have an embedding all the same.
    """

    embeds_unknown: bool

    def __len__(self) -> int:
        """How many it knows; the row of any other."""
        ...

    def rows_of(self, hashes: npt.NDArray, ds: str = "") -> npt.NDArray:
        """The row of each hashed id."""
        ...

    def take(self, rows: npt.NDArray) -> Arrays:
        """What `Objective.embed` needs of chosen rows."""
        ...


class Reader(Protocol):
    """The batches of one day, the same every time, and the entities it knows."""

    @property
    def ds(self) -> str:
        """The day."""
        ...

    @property
    def entities(self) -> Mapping[Entity, EntityReader]:
        """Users and Pins as of the day."""
        ...

    def batches(self, order: Order) -> Iterator[Arrays]:
        """What is trained on, scored, or sampled."""
        ...

    def empty(self) -> Arrays:
        """A batch of no rows, with every name and type that a real one may have."""
        ...

    def middle_minute(self) -> int:
        """The minute of the day before which half of its targets became known."""
        ...

"""What is shown to whom, where and when: the rows that chances are asked for.

Legend: N exposures, R requests, C candidates of a request.
"""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import numpy.typing as npt

from simulator.population import Ints

Codes = npt.NDArray[np.int8]
NO_PIN = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Pages that users asked for on a day [R], by user and time; the number of each is its place.

    Attributes:
        ts: microseconds since the day's midnight.
        surface: index into `SURFACES`.
        topic: the topic of the user's mood, which nobody but the truth knows.
        query: the topic searched, -1 but on search.
        source: the Pin that others are related to, -1 but on related Pins.
        page: number within the visit, from 0.
        candidates_RC: ads that may be shown; -1 where one was drawn twice.
    """

    user: Ints
    ts: Ints
    surface: Codes
    topic: Ints
    query: Ints
    source: Ints
    page: Ints
    candidates_RC: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: npt.NDArray) -> Self:
        """The chosen requests; their numbers are no longer their places."""
        return type(self)(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposures:
    """Pins in slots of requests of one day [N].

    Attributes:
        request: number within the day; with `slot` and `pin` it names the luck of the row.
        slot: place on the page, from 0.
        position: place within the visit, from 0.
    """

    day: int
    request: Ints
    slot: Ints
    user: Ints
    pin: Ints
    surface: Codes
    topic: Ints
    query: Ints
    source: Ints
    position: Ints

    def __len__(self) -> int:
        return len(self.pin)

    @classmethod
    def of(
        cls, day: int, requests: Requests, request: Ints, slot: Ints, pin: Ints, *, page: int
    ) -> Self:
        """Pins shown in slots of requests.

        Args:
            request: number of each row's request, which is its place in `requests`.
            page: slots of a page.
        """
        return cls(
            day=day,
            request=request,
            slot=slot,
            user=requests.user[request],
            pin=pin,
            surface=requests.surface[request],
            topic=requests.topic[request],
            query=requests.query[request],
            source=requests.source[request],
            position=requests.page[request] * page + slot,
        )

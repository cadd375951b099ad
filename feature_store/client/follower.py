"""A ranker that follows what is live: its weights and its tables change together.

    client = TableClient(["unix:///run/derm/0.sock", "unix:///run/derm/1.sock"], timeout_s=0.01)
    follower = Follower(client, load=lambda version: load_weights(root / version / "dense"))
    scores = follower.rank({"users": user_ids, "pins": pin_ids}, score, meanwhile=encode)

Shapes: N ids of a request.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy.typing as npt

from feature_store.client.tables import TableClient
from feature_store.contracts.errors import StoreError
from feature_store.tables.fetching import Fetched, ServedVersion
from feature_store.tables.wire import VersionMissing

_ATTEMPTS = 4
Model = TypeVar("Model")
Early = TypeVar("Early")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Pair(Generic[Model]):
    """Dense weights and the version of the tables that they were trained with."""

    served: ServedVersion
    model: Model


class Follower(Generic[Model]):
    """A ranker's pair of dense weights and tables; both change at once, or neither.

    Args:
        load: makes the model of a version. It is slow; requests go on with the pair there is.
    """

    def __init__(self, client: TableClient, load: Callable[[str], Model]) -> None:
        self.client, self._load = client, load
        self._pair: Pair[Model] | None = None

    @property
    def pair(self) -> Pair[Model]:
        """What requests use now.

        Raises:
            StoreError: nothing is live, or no shard holds it.
        """
        if self._pair is None:
            self.refresh()
        if self._pair is None:
            raise StoreError("no version was adopted")
        return self._pair

    def refresh(self) -> bool:
        """Go over to what is live now; whether that changed anything.

        Raises:
            StoreError: no shard answers, or none holds what is live.
        """
        version = self.client.live()
        served = self.client.describe(version)
        if self._pair and self._pair.served.version == version:
            changed = self._pair.served.revision != served.revision
            self._pair = Pair(served, self._pair.model)
            return changed
        self._pair = Pair(served, self._load(version))
        self.client.counts.flips += 1
        return True

    def rank(
        self,
        ids: Mapping[str, npt.NDArray],
        finish: Callable[[Model, Early, Fetched], Result],
        *,
        meanwhile: Callable[[Model], Early],
    ) -> Result:
        """One request: rows travel while `meanwhile` works, then `finish` has both.

        A version that its shards no longer hold is given up for what is live, and everything is
        done again: nothing of the old one is used.

        Raises:
            VersionMissing: what is live is not on all shards.
            StoreError: a shard refused.
        """
        for attempt in range(_ATTEMPTS):
            pair = self.pair
            pending = self.client.start(pair.served, ids)
            early = meanwhile(pair.model)
            try:
                fetched = pending.join()
            except VersionMissing:
                if attempt == _ATTEMPTS - 1:
                    raise
                self.refresh()
                continue
            return finish(pair.model, early, fetched)
        raise AssertionError("the last attempt returns or raises")

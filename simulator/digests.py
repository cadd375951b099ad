"""What later days need of earlier ones: digests, made when asked for, kept in memory and on disk.

A digest is a pure function of configuration, seed and day, so keeping it changes the time a day
takes and nothing else.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

Arrays = Mapping[str, npt.NDArray]
Happened = TypeVar("Happened", contravariant=True)


class DayDigest(Protocol[Happened]):
    """A day, reduced."""

    @classmethod
    def of(cls, happened: Happened, /) -> Self:
        """Reduce what happened on a day."""

    @classmethod
    def made_of(cls, arrays: Arrays, /) -> Self:
        """The digest that has these arrays.

        Raises:
            KeyError: one is missing.
        """

    def arrays(self) -> dict[str, npt.NDArray]:
        """All that it is, by name."""


H = TypeVar("H")
D = TypeVar("D", bound=DayDigest)


class DigestStore(Generic[H, D]):
    """The digests of a world's days.

    Args:
        kind: their type.
        simulate: what happened on a day, by its number.
        folder: where they are kept between processes; None: nowhere.
        remembered: so many of them stay in memory.
    """

    def __init__(
        self, kind: type[D], simulate: Callable[[int], H], folder: Path | None, remembered: int
    ) -> None:
        self._kind, self._simulate = kind, simulate
        self._folder, self._remembered = folder, remembered
        self._recent: dict[int, D] = {}

    def simulate(self, day: int) -> H:
        """What happened on a day; its digest is kept on the way."""
        happened = self._simulate(day)
        self._keep(day, self._kind.of(happened))
        return happened

    def before(self, day: int, days: int) -> dict[int, D]:
        """The digests of so many days before a day, as far as there are any."""
        return {d: self._digest(d) for d in range(max(day - days, 0), day)}

    def _digest(self, day: int) -> D:
        if day not in self._recent:
            path = self._path(day)
            if path and (found := self._load(path)):
                self._recent[day] = found
            else:
                self.simulate(day)
        return self._recent[day]

    def _keep(self, day: int, digest: D) -> None:
        self._recent[day] = digest
        while len(self._recent) > self._remembered:
            self._recent.pop(min(self._recent))
        if path := self._path(day):
            _save(path, digest.arrays())

    def _load(self, path: Path) -> D | None:
        """Read back; None when the file is absent or damaged, since it can be made again."""
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                return self._kind.made_of(file)
        except (OSError, KeyError, ValueError, EOFError, BadZipFile):
            return None

    def _path(self, day: int) -> Path | None:
        return self._folder / f"day-{day:04d}.npz" if self._folder else None


def _save(path: Path, arrays: Arrays) -> None:
    """Write whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    np.savez(draft, allow_pickle=False, **arrays)
    draft.replace(path)

"""What earlier days leave behind: digests, and the look-ups over a window of them.

A day's features look back `history_days`, and a conversion that arrives today brings the features
its impression had then, so that the window reaches back twice as far. Each day is reduced once to
a small digest; digests are pure functions of configuration, seed and day, so keeping them on disk
changes the time a day takes and nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from simulator.behaviour import DayLog, simulate_day
from simulator.digests import Arrays, DigestStore
from simulator.outcomes import ACTIONS, DAY_US
from simulator.population import Floats, Ints, Population

_KEEP_IN_MEMORY = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """What later days need of one day.

    Attributes:
        engaged: rows of the day's log with an action stronger than an impression.
        converted: rows of the log whose impression was followed by a conversion, at any time.
        converted_row: row number of each in the day's log, which is part of its event id.
    """

    engaged: DayLog
    converted: DayLog
    converted_row: Ints

    @classmethod
    def of(cls, log: DayLog) -> Self:
        """Reduce a day."""
        converted = np.flatnonzero(log.conversion >= 0)
        return cls(
            engaged=log.take(log.action > 0),
            converted=log.take(converted),
            converted_row=converted,
        )

    def arrays(self) -> dict[str, npt.NDArray]:
        """All that it is, by name."""
        found: dict[str, npt.NDArray] = {"converted_row": self.converted_row}
        for name in _LOGS:
            log = getattr(self, name)
            found |= {f"{name}.{f.name}": getattr(log, f.name) for f in fields(DayLog)}
        return found

    @classmethod
    def made_of(cls, arrays: Arrays) -> Self:
        """The digest that has these arrays.

        Raises:
            KeyError: one is missing.
        """
        engaged, converted = (
            DayLog(**{f.name: arrays[f"{name}.{f.name}"] for f in fields(DayLog)}) for name in _LOGS
        )
        return cls(engaged=engaged, converted=converted, converted_row=arrays["converted_row"])


_LOGS = ("engaged", "converted")


def digests(population: Population, folder: Path | None) -> DigestStore[DayLog, Digest]:
    """The digests of a world."""
    return DigestStore(Digest, lambda day: simulate_day(population, day), folder, _KEEP_IN_MEMORY)


def history(population: Population, day: int, store: DigestStore[DayLog, Digest]) -> "History":
    """Everything that happened before a day, as far back as the day can ask."""
    return History(population, day, store.before(day, 2 * population.config.history_days))


class History:
    """Look-ups over the days before `day`.

    Attributes:
        engaged: rows [N] of the window with an action, ordered by user and time.
        engaged_day: the day [N] each belongs to.
        converted: rows of the impressions that converted.
        converted_day, converted_row: day of the impression, and its row in that day's log.
        heard_day: day on which the conversion arrives; it may lie ahead.
    """

    def __init__(self, population: Population, day: int, digests: dict[int, Digest]) -> None:
        self.population = population
        self.day = day
        self.first = day - population.config.history_days
        self._digests = digests
        engaged, engaged_day = _joined([(d, x.engaged) for d, x in digests.items()])
        order = np.lexsort((engaged.ts, engaged_day, engaged.user))
        self.engaged, self.engaged_day = engaged.take(order), engaged_day[order]
        self._join_conversions(digests)

    def _join_conversions(self, digests: dict[int, Digest]) -> None:
        logs = [(d, x.converted) for d, x in digests.items()]
        self.converted, self.converted_day = _joined(logs)
        rows = (x.converted_row for x in digests.values())
        self.converted_row = np.concatenate([np.empty(0, np.int64), *rows])
        self.heard_day = self.converted_day + self.converted.arrival // DAY_US

    def actions(self, entity: str, action: str, days: int) -> Ints:
        """Actions by entity number over the last `days` days."""
        chosen = (self.engaged.action == ACTIONS.index(action)) & (
            self.engaged_day >= self.day - days
        )
        size = len(getattr(self.population, f"{entity}s").born)
        return np.bincount(getattr(self.engaged, entity)[chosen], minlength=size)

    def engagements_with(self, group: str, log: DayLog, day: Ints) -> Ints:
        """How often each row's user had engaged with the row's group before the row's day.

        Args:
            group: `advertiser` or `interest`, of the row's Pin.
            day: the day [N] of each row of `log`.
        """
        past = self._group(group, self.engaged) * np.int64(4096) + self.engaged_day
        past = np.sort(past)
        now = self._group(group, log) * np.int64(4096)
        oldest = np.maximum(day - self.population.config.history_days, 0)
        count: Ints = np.searchsorted(past, now + day) - np.searchsorted(past, now + oldest)
        return count

    def affinity(self, log: DayLog, day: Ints, vectors_PD: Floats) -> Floats:
        """Cosine [N] of the row's Pin and the mean Pin its user had engaged with before its day.

        NaN for users without history.
        """
        pairs, inverse = np.unique(log.user * np.int64(4096) + day, return_inverse=True)
        user, until = pairs // 4096, pairs % 4096
        past = self.engaged.user * np.int64(4096) + self.engaged_day
        oldest = np.maximum(until - self.population.config.history_days, 0)
        first = np.searchsorted(past, user * 4096 + oldest)
        last = np.searchsorted(past, user * 4096 + until)
        mean = _segment_sums(vectors_PD, self.engaged.pin, first, last)
        length = np.sqrt(np.einsum("nd,nd->n", mean, mean))
        with np.errstate(invalid="ignore"):
            mean /= length[:, None]
        cosine = np.einsum("nd,nd->n", mean[inverse], vectors_PD[log.pin])
        return np.where(length[inverse] > 0, cosine, np.nan).astype("f4")

    def recent(self, user: Ints, of_user: Ints, longest: int) -> tuple[Ints, Ints]:
        """The last `longest` rows of each user.

        Args:
            user: users asked for [U].
            of_user: user of each row [N], ascending.

        Returns:
            List offsets [U + 1] and row numbers, oldest first.
        """
        first = np.searchsorted(of_user, user)
        last = np.searchsorted(of_user, user, side="right")
        first = np.maximum(first, last - longest)
        return ranges(first, last)

    def _group(self, group: str, log: DayLog) -> Ints:
        population = self.population
        if group == "advertiser":
            groups, of_row = population.config.advertisers, log.advertiser
        else:
            groups, of_row = population.config.taste.topics, population.pin_topics[log.pin, 0]
        return log.user * np.int64(groups) + of_row


def _joined(parts: Sequence[tuple[int, DayLog]]) -> tuple[DayLog, Ints]:
    logs = [log for _, log in parts] or [_EMPTY]
    joined = DayLog(
        **{f.name: np.concatenate([getattr(x, f.name) for x in logs]) for f in fields(DayLog)}
    )
    days = [np.full(len(log.user), day, np.int64) for day, log in parts]
    return joined, np.concatenate([np.empty(0, np.int64), *days])


def ranges(first: Ints, last: Ints) -> tuple[Ints, Ints]:
    """Offsets and concatenation of the ranges first[i] .. last[i]."""
    offsets = np.concatenate([[0], np.cumsum(last - first)])
    rows = np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], last - first)
    return offsets, rows


def _segment_sums(vectors_PD: Floats, index: Ints, first: Ints, last: Ints) -> Floats:
    """Sum of vectors_PD[index[first[i] : last[i]]] for each i."""
    offsets, rows = ranges(first, last)
    sums = np.zeros((len(first), vectors_PD.shape[1]), "f4")
    filled = np.flatnonzero(last > first)
    if len(filled):
        gathered = vectors_PD[index[rows]]
        sums[filled] = np.add.reduceat(gathered, offsets[:-1][filled], axis=0)
    return sums


_KINDS = {
    np.int64: ("user", "pin", "advertiser", "ts", "arrival"),
    np.int16: ("position",),
    np.int8: ("surface", "query", "action", "conversion", "attribution"),
    np.bool_: ("click", "good_click"),
    np.float32: ("duration", "p_click", "p_good_click", "p_conversion"),
}
_EMPTY = DayLog(**{n: np.array([], kind) for kind, names in _KINDS.items() for n in names})

"""What earlier days leave behind in a market: digests, and the look-ups over a window of them.

As in `simulator.history`: a digest is a pure function of configuration, seed and day, so keeping it
on disk changes the time a day takes and nothing else. Legend: N rows, U users, P Pins.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from simulator.digests import Arrays, DigestStore
from simulator.history import ranges
from simulator.market.behaviour import MarketDay, MarketLog, joined, simulate_market
from simulator.market.config import ACTIONS
from simulator.market.offsite import Offsite
from simulator.market.population import MarketPopulation
from simulator.outcomes import DAY_US, Codes
from simulator.population import Ints

_VISITED = 50  # pages of a user that its sequence keeps
_DAYS = np.int64(4096)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engaged:
    """Rows [N] with an action stronger than an impression, by user and time."""

    user: npt.NDArray[np.int32]
    pin: npt.NDArray[np.int32]
    action: Codes
    surface: Codes


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketDigest:
    """What later days need of one day.

    Attributes:
        converted: impressions that were followed by an attributed conversion, at any time.
        row: number of each of them in the day's log, which is part of its event id.
    """

    engaged: Engaged
    converted: MarketLog
    offsite: Offsite
    row: Ints

    @classmethod
    def of(cls, day: MarketDay) -> Self:
        """Reduce a day."""
        log, acted = day.log, np.flatnonzero(day.log.action)
        row = np.flatnonzero(log.conversion >= 0)
        return cls(
            engaged=Engaged(**{f.name: getattr(log, f.name)[acted] for f in fields(Engaged)}),
            converted=log.take(row),
            offsite=day.offsite,
            row=row,
        )

    def arrays(self) -> dict[str, npt.NDArray]:
        """All that it is, by name."""
        found: dict[str, npt.NDArray] = {"row": self.row}
        for part, kind in _PARTS.items():
            for f in fields(kind):
                found[f"{part}.{f.name}"] = getattr(getattr(self, part), f.name)
        return found

    @classmethod
    def made_of(cls, arrays: Arrays) -> Self:
        """The digest that has these arrays.

        Raises:
            KeyError: one is missing.
        """
        parts = {
            part: kind(**{f.name: arrays[f"{part}.{f.name}"] for f in fields(kind)})
            for part, kind in _PARTS.items()
        }
        return cls(row=arrays["row"], **parts)


_PARTS = {"engaged": Engaged, "converted": MarketLog, "offsite": Offsite}


def market_digests(
    world: MarketPopulation, folder: Path | None
) -> DigestStore[MarketDay, MarketDigest]:
    """The digests of a market."""
    remembered = world.config.history_days + 1
    return DigestStore(MarketDigest, lambda day: simulate_market(world, day), folder, remembered)


def market_history(
    world: MarketPopulation, day: int, store: DigestStore[MarketDay, MarketDigest]
) -> "MarketHistory":
    """Everything that happened before a day, as far back as the day can ask."""
    return MarketHistory(world, day, store.before(day, world.config.history_days))


class MarketHistory:
    """Look-ups over the days before `day`.

    Attributes:
        converted: impressions [N] that converted; `converted_day`, `converted_row`: the day of
            each, and its row in that day's log.
        heard_day: day on which the conversion arrives; it may lie ahead.
    """

    def __init__(self, world: MarketPopulation, day: int, digests: dict[int, MarketDigest]) -> None:
        self.world, self.day = world, day
        self._digests = digests
        late = {d: x for d, x in digests.items() if d >= day - world.config.conversion.click_days}
        self.converted = joined([x.converted for x in late.values()] or [_EMPTY])
        self.converted_day = np.repeat(
            np.array(list(late), np.int64), [len(x.row) for x in late.values()]
        )
        self.converted_row = np.concatenate(
            [np.empty(0, np.int64), *(x.row for x in late.values())]
        )
        self.heard_day = self.converted_day + self.converted.arrival // DAY_US

    def saves(self, entity: str) -> Ints:
        """Saves of the 30 days before the day, by number of the user or Pin."""
        total = np.zeros(len(getattr(self.world, f"{entity}s").born), np.int64)
        for day, digest in self._digests.items():
            if day >= self.day - 30:
                saved = digest.engaged.action == ACTIONS.index("save")
                ids = getattr(digest.engaged, entity)[saved]
                total += np.bincount(ids, minlength=len(total))
        return total

    def engagements(self, group_of_pin: Ints, user: Ints, pin: Ints, day: Ints) -> Ints:
        """How often each row's user had engaged with the row's group before the row's day.

        Args:
            group_of_pin: group [P] of each Pin; -1 for none, whose rows count 0.
            day: the day [N] of each row.
        """
        groups, back = np.int64(group_of_pin.max() + 1), self.world.config.context_days
        asked = np.zeros(len(self.world.users.born), np.bool_)
        asked[user] = True
        first = day.min(initial=self.day) - back
        past = [np.empty(0, np.int64)]
        for number, digest in self._digests.items():
            if number >= first:
                group = group_of_pin[digest.engaged.pin]
                chosen = asked[digest.engaged.user] & (group >= 0)
                key = digest.engaged.user[chosen] * groups + group[chosen]
                past.append(key * _DAYS + number)
        keys = np.sort(np.concatenate(past))
        now = (user * groups + group_of_pin[pin]) * _DAYS
        oldest = np.maximum(day - back, 0)
        count = np.searchsorted(keys, now + day) - np.searchsorted(keys, now + oldest)
        return np.where(group_of_pin[pin] >= 0, count, 0)

    def recent_engaged(self, user: Ints) -> tuple[Ints, Engaged]:
        """The newest actions of each user, oldest first: list offsets [U + 1] and rows."""
        found = self._newest("engaged", self.world.config.sequence_len)
        rows = {f.name: np.concatenate([getattr(x, f.name) for x in found]) for f in _ENGAGED}
        offsets, order = _by_user(user, rows["user"])
        return offsets, Engaged(**{name: values[order] for name, values in rows.items()})

    def recent_pages(self, user: Ints) -> tuple[Ints, Ints]:
        """Items whose pages each user saw last without an ad: list offsets [U + 1] and items."""
        found = self._newest("offsite", _VISITED)
        users, items = (np.concatenate([getattr(x, n) for x in found]) for n in ("user", "item"))
        offsets, order = _by_user(user, users)
        return offsets, items[order]

    def recent_sales(self, user: Ints) -> tuple[Ints, Ints]:
        """Advertisers of the conversions that each user's ads had, as heard of before the day.

        Oldest first: list offsets [U + 1] and advertisers.
        """
        heard = np.flatnonzero(self.heard_day < self.day)
        arrival = self.converted.arrival[heard] + self.converted_day[heard] * DAY_US
        heard = heard[np.argsort(arrival, kind="stable")]
        offsets, order = _by_user(user, self.converted.user[heard], _VISITED)
        return offsets, self.world.pin_advertiser[self.converted.pin[heard][order]]

    def _newest(self, part: str, longest: int) -> list[Any]:
        """Of each day, oldest first, the rows that are among the `longest` newest of their user."""
        kind = _PARTS[part]
        seen = np.zeros(len(self.world.users.born), np.int64)
        kept = [kind(**{f.name: np.empty(0, np.int32) for f in fields(kind)})]
        for day in sorted(self._digests, reverse=True):
            rows = getattr(self._digests[day], part)
            ends = np.searchsorted(rows.user, rows.user, side="right")
            newer = ends - 1 - np.arange(len(rows.user)) + seen[rows.user]
            chosen = newer < longest
            kept.append(kind(**{f.name: getattr(rows, f.name)[chosen] for f in fields(kind)}))
            seen += np.bincount(rows.user, minlength=len(seen))
        return kept[::-1]


def _by_user(user: Ints, of_row: npt.NDArray[np.int32], longest: int = 2**31) -> tuple[Ints, Ints]:
    """Offsets [U + 1] and row numbers of the last rows of chosen users, in their order."""
    order = np.argsort(of_row, kind="stable")
    ordered = of_row[order]
    first, last = (np.searchsorted(ordered, user, side=side) for side in ("left", "right"))
    offsets, at = ranges(np.maximum(first, last - longest), last)
    return offsets, order[at]


_ENGAGED = fields(Engaged)
_NO_ROWS: Any = np.empty(0, np.int64)
_EMPTY = MarketLog(**{f.name: _NO_ROWS for f in fields(MarketLog)})

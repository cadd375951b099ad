"""How the days of a home stand: what `derm status` says, before it is shown to anyone."""

import dataclasses
import datetime as dt
from dataclasses import dataclass

from feature_store.contracts.base import Upstream
from feature_store.contracts.rankers import Ranker
from jobs.engine.attempts import Attempt
from jobs.engine.findings import Finding
from jobs.engine.staleness import Standing
from jobs.engine.unfinished import Repair
from jobs.rendering.published import Published
from jobs.rendering.summary import DaySummary


def as_seen(standing: Standing, *, superseded: bool) -> Standing:
    """A step as it stands for whoever looks at the day.

    A gate was passed, and what readers once saw of an earlier day is not published again after a
    backfill, which publishes the newest day alone: neither is waiting to be done.
    """
    over = standing.step.stage == "gate" or (superseded and standing.step.stage == "publishing")
    if standing.state == "stale" and over:
        return dataclasses.replace(standing, state="past")
    return standing


@dataclass(frozen=True, kw_only=True, slots=True)
class DayStatus:
    """One day: its numbers, and how its steps stand.

    Attributes:
        superseded: readers see a newer day.
        bootstrap: the command that makes the day anew, when it began a space.
        closed: no day is built on it any more: a later one began a space.
        attempts: its steps that are at work, or ended badly.
    """

    summary: DaySummary
    standings: tuple[Standing, ...]
    superseded: bool
    bootstrap: str = ""
    closed: bool = False
    attempts: tuple[Attempt, ...] = ()

    @property
    def upstreams(self) -> tuple[Upstream, ...]:
        """The upstreams that its steps run for."""
        return tuple(dict.fromkeys(s.upstream for s in self.standings if s.upstream))

    @property
    def open_steps(self) -> tuple[Standing, ...]:
        """Steps that are missing or stale, in order; a report stops nobody."""
        passed = {"report"}
        passed |= {"publishing"} if self.superseded else set()
        passed |= {"gate"} if self.bootstrap else set()
        return tuple(
            s
            for s in self.standings
            if s.state in ("stale", "missing") and not self.closed and s.step.stage not in passed
        )

    @property
    def command(self) -> str:
        """The command that completes the day; empty when it is complete."""
        ds = self.summary.ds
        if not self.open_steps:
            return ""
        return self.bootstrap or f"derm run --from {ds} --to {ds}"


@dataclass(frozen=True, kw_only=True, slots=True)
class RankedDay:
    """One day of one ranker: its numbers, how its steps stand, and what did not finish."""

    summary: DaySummary
    standings: tuple[Standing, ...]
    attempts: tuple[Attempt, ...] = ()

    @property
    def open_steps(self) -> tuple[Standing, ...]:
        """Steps that are missing or stale, in order."""
        return tuple(s for s in self.standings if s.state != "done")


@dataclass(frozen=True, kw_only=True, slots=True)
class RankerStatus:
    """How one ranker stands; no day of embeddings waits for it.

    Attributes:
        export: the one that whoever serves it is pointed to; empty where there is none.
        days: the released days from the first one that it learned.
        newest: the newest released day; empty where there is none.
    """

    ranker: Ranker
    export: str
    days: tuple[RankedDay, ...]
    newest: str

    @property
    def due(self) -> tuple[RankedDay, ...]:
        """The days from the first one that does not hold; a ranker learns one after the other."""
        first = next((i for i, d in enumerate(self.days) if d.open_steps), len(self.days))
        return self.days[first:]

    @property
    def command(self) -> str:
        """The command that brings it up to the newest released day; empty where it is there."""
        if not self.newest or (self.days and not self.due):
            return ""
        return f"derm rank --ds {self.newest}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """Everything `derm status` says.

    Attributes:
        problem: why the release cannot be read; empty when it can, or when there is none.
        repair: the backfill or bootstrap that has begun and is not finished.
        now: the time that ages are relative to.
        findings: what is wrong now with the store, the disk, the steps at work, the day due.
        quarantined: rows that were refused on arrival, over all days.
        store: the online store that is used, without secrets.
        rankers: what learns from the released days.
    """

    published: Published | None
    problem: str
    repair: Repair | None
    days: tuple[DayStatus, ...]
    findings: tuple[Finding, ...]
    quarantined: int
    now: dt.datetime
    store: str = ""
    rankers: tuple[RankerStatus, ...] = ()

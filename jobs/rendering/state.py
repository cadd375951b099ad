"""How a home stands now, beside its finished days: what is at work, what failed, what was found.

Read from small files below the home with the standard library and pydantic alone, so that the page
in Airflow's UI, whose environment cannot read the lake, says the same as the command line.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from jobs.engine import attempts, findings
from jobs.engine.attempts import Attempt
from jobs.engine.findings import Probed
from jobs.paths import HomePaths
from jobs.rendering.published import Published, read_published


@dataclass(frozen=True, kw_only=True, slots=True)
class RepairShown:
    """A backfill or bootstrap that has begun and is not finished.

    Attributes:
        name: `backfill` or `bootstrap`.
        first, last: the days it recomputes.
        now: the step it is at, or stopped at.
    """

    name: str
    first: str
    last: str
    done: int
    steps: int
    now: str


@dataclass(frozen=True, kw_only=True, slots=True)
class HomeState:
    """What is published, the last look, and steps that run or did not finish."""

    published: Published | None = None
    probed: Probed | None = None
    attempts: tuple[Attempt, ...] = ()
    repair: RepairShown | None = None

    @property
    def failed(self) -> tuple[Attempt, ...]:
        """Attempts that ended badly, newest day first."""
        return tuple(a for a in reversed(self.attempts) if a.state != "running")

    def of_day(self, ds: str) -> Attempt | None:
        """What the first step of a day that did not finish is at, or ended with."""
        of_day = [a for a in self.attempts if a.ds == ds]
        return next((a for a in of_day if a.state != "running"), of_day[0] if of_day else None)


def read_state(root: Path) -> HomeState:
    """The state of a home.

    Raises:
        ManifestCorrupt: the current release cannot be read.
    """
    return HomeState(
        published=read_published(root),
        probed=findings.load(root),
        attempts=attempts.attempts(root),
        repair=_repair(root),
    )


def _repair(root: Path) -> RepairShown | None:
    """The record of an unfinished repair; who needs more of it loads `jobs.engine.unfinished`."""
    try:
        record = json.loads(HomePaths(root).backfill.read_text())
        plan, done = record["plan"], int(record["done"])
        at = plan["steps"][min(done, len(plan["steps"]) - 1)]
        return RepairShown(
            name="bootstrap" if plan["what"] == "space" else "backfill",
            first=plan["first"],
            last=plan["last"],
            done=done,
            steps=len(plan["steps"]),
            now=" ".join(filter(None, (at["ds"], at["step"], at["upstream"]))),
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None

"""One case: start the run, strike at a random moment, repeat the command, compare what is left."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import psutil

from jobs.engine import unfinished
from jobs.engine.manifests import ManifestStore
from tests.chaos import state, victims
from tests.chaos.lane import Lane, Run
from tests.pipelines import PIPELINE

# A run that was struck more often than this without ending well did not survive.
_ATTEMPTS = 4
_POLL_S = 0.02
# Who is there only where Spark is asked for: the days of a lane are small.
_OF_SPARK = ("jvm", "python worker")
_BEFORE = "before the first or after the last step"


@dataclass(frozen=True, kw_only=True)
class Blow:
    """Who is struck, and how long after it was first seen in a run that has begun."""

    victim: str
    after_s: float


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a case came to.

    Attributes:
        struck: per blow that fell: the victim, seconds after it was first seen, and the step that
            was under way.
        commands: how often the operator gave the command, the first time included.
        differing: what is not as after the undisturbed run; empty when the case survived.
    """

    number: int
    through: str
    run: Run
    struck: tuple[dict[str, object], ...]
    commands: int
    exit_codes: tuple[int, ...]
    differing: tuple[str, ...] = field(default=())
    seconds: float

    @property
    def survived(self) -> bool:
        """Whether the last command succeeded and left the bits of the undisturbed run."""
        return self.exit_codes[-1] == 0 and not self.differing


def play(
    lane: Lane, number: int, run: Run, blows: Sequence[Blow], expected: dict[str, str]
) -> Result:
    """Play a case from the prepared home to the comparison."""
    started = time.monotonic()
    lane.restore(run)
    struck: list[dict[str, object]] = []
    codes: list[int] = []
    left = list(blows)
    engine = "spark" if any(b.victim in _OF_SPARK for b in blows) else "auto"
    while len(codes) < _ATTEMPTS and (not codes or codes[-1] != 0):
        with lane.services(run):
            process = lane.start(*lane.command(run), DERM_ENGINE=engine)
            if left:
                struck += _strike(lane, run, left.pop(0), psutil.Process(process.pid))
            codes.append(process.wait())
    found = state.observe(lane.home) if codes[-1] == 0 else {}
    return Result(
        number=number,
        through=lane.through,
        run=run,
        struck=tuple(struck),
        commands=len(codes),
        exit_codes=tuple(codes),
        differing=tuple(state.differences(expected, found)) if codes[-1] == 0 else (),
        seconds=round(time.monotonic() - started, 1),
    )


def _strike(lane: Lane, run: Run, blow: Blow, command: psutil.Process) -> list[dict[str, object]]:
    """Wait for the moment and kill; nothing when the command ended before it came."""
    seen: float | None = None
    while command.is_running() and command.status() != psutil.STATUS_ZOMBIE:
        now = time.monotonic()
        candidates = victims.find(blow.victim, lane.home, command) if _begun(lane, run) else []
        if candidates and seen is None:
            seen = now
        if candidates and seen is not None and now - seen >= blow.after_s:
            during = under_way(lane, run)
            random.Random(blow.after_s).choice(candidates).kill()
            return [{"victim": blow.victim, "after_s": round(now - seen, 2), "during": during}]
        time.sleep(_POLL_S)
    return []


def _begun(lane: Lane, run: Run) -> bool:
    """Whether the run itself is under way: below Airflow its services start long before."""
    return lane.through == "process" or under_way(lane, run) not in (_BEFORE, "gate")


def under_way(lane: Lane, run: Run) -> str:
    """The first step that has not finished."""
    if run == "backfill":
        progress = unfinished.load(lane.home)
        if progress is None:
            return _BEFORE
        step = progress.plan.steps[min(progress.done, len(progress.plan.steps) - 1)]
        return " ".join(filter(None, (step.step, step.upstream)))
    done = {(m.step, m.upstream) for m in ManifestStore(lane.home / "manifests").of_day(lane.day)}
    wanted = [(s.name, u) for s in PIPELINE.steps for u in PIPELINE.upstreams_of(s)]
    missing = next((w for w in wanted if w not in done), None)
    return " ".join(filter(None, missing)) if missing else "after the last step"

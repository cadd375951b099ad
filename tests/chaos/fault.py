"""What is done to a little home, and what a case of it came to."""

import random
import shutil
from dataclasses import dataclass, field

from feature_store.contracts.base import shift_day
from tests.chaos import little
from tests.chaos.process import must
from tests.chaos.stage import Stage

LAST, NEXT = little.DAYS[-1], little.NEXT
_BEFORE = "gate,ingest,validate,train,infer,dedup,merge,count,verify,index,publish"
# The exit codes that the documentation gives: 1 failed, 2 wrong input, 3 a guard refused.
CODES = frozenset({0, 1, 2, 3})


@dataclass(frozen=True, kw_only=True)
class Action:
    """A command, and the state of the home that it begins from."""

    name: str
    words: tuple[str, ...]
    state: str = "published"


ACTIONS = (
    Action(name="run", words=("run", "--from", NEXT, "--to", NEXT)),
    Action(name="release", words=("release", "--ds", NEXT), state="unreleased"),
    Action(
        name="backfill",
        words=("backfill", "--from", little.DAYS[2], "--to", little.DAYS[3], "--yes"),
    ),
    Action(
        name="forget users",
        words=("forget", "--entity", "user", "--id", "member-003", "--id", "member-017"),
    ),
    Action(name="forget Pins", words=("forget", "--entity", "pin", "--id", "offer-005")),
    Action(name="retain", words=("retain",)),
    Action(name="rebucket", words=("rebucket",), state="wider"),
    Action(name="bootstrap", words=("bootstrap", "--ds", LAST, "--back", "1", "--yes")),
    Action(
        name="back inference",
        words=("infer", "--from", little.DAYS[2], "--to", LAST, "--force"),
    ),
    Action(name="rollback", words=("rollback",)),
    Action(name="restore", words=("restore",), state="lost"),
)
# What only reads: beside anything, it says the truth or waits.
READERS = (
    Action(name="verify", words=("verify",)),
    Action(name="audit", words=("audit", "--force")),
    Action(name="probe", words=("probe",)),
    Action(name="status", words=("status",)),
    Action(name="get", words=("get", "user", "member-001", "--upstream", "ctr")),
)


@dataclass(kw_only=True)
class Result:
    """One case.

    Attributes:
        kind, name: the family of faults, and which one.
        how: what was done, at which moment.
        wrong: why it did not survive; empty when it did.
        noticed: who noticed, where that is the question.
    """

    kind: str
    name: str
    seed: int
    how: str = ""
    noticed: str = ""
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def survived(self) -> bool:
        """Whether what is promised held."""
        return not self.wrong


def rng_of(*words: object) -> random.Random:
    """The random numbers of a case: the same for the same seed, whatever else is played."""
    return random.Random(" ".join(map(str, words)))


def prepare(stage: Stage) -> None:
    """Every state that a case begins from; those that are there are kept."""
    stage.prepare()
    if not (stage.folder / "unreleased").exists():
        stage.restore()
        must(stage.home, "run", "--from", NEXT, "--to", NEXT, "--steps", _BEFORE)
        stage.keep("unreleased")
    if not (stage.folder / "wider").exists():
        stage.restore()
        home = stage.home / "home.json"
        home.write_text(home.read_text().replace(".py:recipe", ".py:wider"))
        stage.keep("wider")
    if not (stage.folder / "lost").exists():
        stage.restore()
        for save in (stage.home / "services" / "redis").glob("*.rdb"):
            save.unlink()
        stage.kill_store()
        shutil.rmtree(stage.folder / "lost", ignore_errors=True)
        stage.keep("lost")
    stage.restore()


def day_before(ds: str) -> str:
    """The day before."""
    return shift_day(ds, -1)

"""A home that is struck again and again: prepared once, put back before every case.

Always at the same path, so that nothing it remembers of places is wrong after it was put back.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from feature_store.contracts.base import ENTITIES, shift_day
from feature_store.lake.lake import Lake
from jobs.engine.manifests import ManifestStore
from jobs.services import local
from jobs.settings import PROJECT, Settings
from tests.chaos.state import observe
from tests.pipelines import UPSTREAMS
from tests.spoilt import spoil

Through = Literal["process", "airflow"]
Run = Literal["daily", "backfill"]

HISTORY = "2025-03-01"
_DERM = [str(PROJECT / ".venv" / "bin" / "derm")]


@dataclass(frozen=True)
class Lane:
    """One home, its prepared states, and what its runs end with when nothing disturbs them.

    Attributes:
        days: how many are published before the daily run that is struck.
        environment: what commands are told beside the home, such as where the lake is.
    """

    folder: Path
    through: Through
    days: int = 2
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def home(self) -> Path:
        """Where every run happens."""
        return self.folder / "home"

    @property
    def lake(self) -> Lake:
        """Its tables."""
        return Lake(dict(self.environment).get("DERM_LAKE") or self.home / "lake")

    @property
    def day(self) -> str:
        """The day whose run is struck."""
        return shift_day(HISTORY, self.days + 1)

    @property
    def wrong(self) -> str:
        """The day whose embeddings are wrong before a backfill."""
        return shift_day(HISTORY, 1)

    def command(self, run: Run) -> tuple[str, ...]:
        """What an operator types, the first time and every time after."""
        if run == "backfill":
            asked = ("backfill", "--from", self.wrong, "--to", self.wrong, "--what", "embeddings")
            return (*asked, "--yes")
        if self.through == "airflow":
            return ("daily", "--days", str(self.days + 1))
        return ("run", "--from", self.day, "--to", self.day)

    def prepare(self) -> dict[Run, dict[str, str]]:
        """Make both prepared states; return what undisturbed runs from them end with.

        The undisturbed runs are single commands, whatever the lane goes through.
        """
        if (self.folder / "daily").exists():
            self.restore("daily")
        else:
            self._publish_days()
            self._keep("daily")
        self.derm("run", "--from", self.day, "--to", self.day)
        expected: dict[Run, dict[str, str]] = {"daily": observe(self.home)}
        self.spoil()
        self._keep("backfill")
        expected["backfill"] = self._repaired()
        return expected

    def _publish_days(self) -> None:
        self.begin()
        if self.through == "airflow":
            self.derm("daily", "--days", str(self.days))
        else:
            self.derm("run", "--from", self.wrong, "--to", shift_day(self.day, -1))

    def repair(self) -> dict[str, str]:
        """Spoil the day once more, repair it; what that ends with."""
        self.spoil()
        return self._repaired()

    def _repaired(self) -> dict[str, str]:
        self.derm(*self.command("backfill"), "--in-process")
        return observe(self.home)

    def begin(self) -> None:
        """Make the home, and the history that the first training reads."""
        self.derm("init", "--dataset", "simulated", "--days", "1")
        self.derm(
            "run", "--from", HISTORY, "--to", HISTORY, "--steps", "simulate,ingest,validate,count"
        )

    def restore(self, run: Run) -> None:
        """Put the home back to before the run."""
        local.stop(Settings(home=self.home))
        shutil.rmtree(self.home, ignore_errors=True)
        _copy(self.folder / run, self.home)

    @contextmanager
    def services(self, run: Run) -> Iterator[None]:
        """What an operator has up while the command runs."""
        up = self.through == "airflow" and run == "backfill"
        if up:
            self.derm("down")
            self.derm("up")
        try:
            yield
        finally:
            local.stop(Settings(home=self.home))

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        """Begin a command; its output goes to the log of the lane."""
        environment = {
            **os.environ,
            "DERM_HOME": str(self.home),
            "DERM_THREADS": "1",
            "PYTHONPATH": str(PROJECT),
            **dict(self.environment),
            **more,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("a") as log:
            log.write(f"\n== {time.strftime('%H:%M:%S')} derm {' '.join(arguments)}\n")
            log.flush()
            return subprocess.Popen(
                [*_DERM, *arguments],
                env=environment,
                cwd=PROJECT,
                stdout=log,
                stderr=log,
                text=True,
            )

    def derm(self, *arguments: str, **more: str) -> None:
        """Run a command that succeeds."""
        with self.start(*arguments, **more) as process:
            code = process.wait()
        assert code == 0, f"derm {' '.join(arguments)}: exit code {code}, see {self.log}"

    @property
    def log(self) -> Path:
        """What every command of the lane said."""
        return self.folder / "lane.log"

    def _keep(self, run: Run) -> None:
        local.stop(Settings(home=self.home))
        shutil.rmtree(self.folder / run, ignore_errors=True)
        _copy(self.home, self.folder / run)

    def spoil(self, **environment: str) -> None:
        """Give the wrong day wrong embeddings; every later day, and readers, get what follows."""
        lake, manifests = self.lake, ManifestStore(self.home / "manifests")
        for upstream in UPSTREAMS:
            outputs = tuple(spoil(lake, upstream, e, self.wrong) for e in ENTITIES)
            recorded = manifests.get("infer", self.wrong, upstream)
            assert recorded
            manifests.put(recorded.model_copy(update={"outputs": outputs}))
        merged = ("--from", self.wrong, "--to", self.day, "--steps", "dedup,merge,verify")
        self.derm("run", *merged, **environment)
        steps = "index,publish,release,audit,report"
        published = ("--from", self.day, "--to", self.day, "--steps", steps)
        self.derm("run", *published, **environment)


def _copy(source: Path, target: Path) -> None:
    # With owners and times: PostgreSQL's files may belong to a user of their own.
    subprocess.run(["/bin/cp", "-a", str(source), str(target)], check=True)

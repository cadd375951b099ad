"""A little home that faults are played on: prepared once, copied before every case.

The home is always at the same path, so that nothing it remembers of places is wrong after it was
put back. Reading it (`observe`) is done by copies, which may begin threads.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import little
from tests.chaos.process import Copy, in_copy, must
from tests.chaos.state import differences, observe


@dataclass(frozen=True)
class Stage:
    """One home and the states it can be put back to, below a folder."""

    folder: Path

    @property
    def home(self) -> Path:
        """Where every case happens."""
        return self.folder / "home"

    def prepare(self) -> None:
        """Publish the days, keep the state as `published`; nothing where that was done before."""
        if (self.folder / "published").exists():
            return
        shutil.rmtree(self.home, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        declaration = little.deliver(self.folder / "shop")
        recipe = f"{Path(little.__file__)}:recipe"
        must(self.home, "init", "--dataset", str(declaration), "--recipe", recipe)
        must(self.home, "run", "--from", little.HISTORY, "--to", little.DAYS[-1])
        self.keep("published")

    def keep(self, state: str) -> None:
        """Remember the home as it is."""
        self.stop()
        shutil.rmtree(self.folder / state, ignore_errors=True)
        _copy(self.home, self.folder / state)

    def restore(self, state: str = "published") -> None:
        """Put the home back."""
        self.kill_store()
        shutil.rmtree(self.home, ignore_errors=True)
        for log in self.folder.glob("said-*.log"):
            log.unlink()
        _copy(self.folder / state, self.home)

    def observe(self) -> dict[str, str]:
        """What the home holds and its readers see, as digests."""
        found: dict[str, str] = in_copy(lambda: observe(self.home))
        return found

    def differing(self, expected: dict[str, str]) -> list[str]:
        """What is not as expected."""
        return differences(expected, self.observe())

    def stop(self) -> None:
        """Stop the store in order."""
        must(self.home, "down")

    def store_pid(self) -> int:
        """The process of the embedded Redis; 0 when there is none."""
        record = self.home / "services" / "redis" / "server.json"
        with contextlib.suppress(OSError, ValueError):
            return int(json.loads(record.read_text()).get("pid") or 0)
        return 0

    def kill_store(self) -> None:
        """Kill the embedded Redis as a machine that dies would."""
        if pid := self.store_pid():
            with contextlib.suppress(OSError):
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                if name == "redis-server" and self._is_ours(pid):
                    os.kill(pid, signal.SIGKILL)

    def _is_ours(self, pid: int) -> bool:
        return Path(f"/proc/{pid}/cwd").readlink().is_relative_to(self.folder)


def traceback_in(copy: Copy) -> bool:
    """Whether a command ended in a traceback instead of a message."""
    return "Traceback (most recent call last)" in copy.said()


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["/bin/cp", "-a", str(source), str(target)], check=True)

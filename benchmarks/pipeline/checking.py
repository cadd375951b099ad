"""What it costs a day to hash the bytes it writes and compare those it reads: CPU seconds, by step.

    python -m benchmarks.pipeline.checking --recipe toy --days 3

Days of the simulated world run in this process, a step at a time, each as if it had a process of
its own: what another step has compared is compared again. CPU seconds are
those of this process, so that a busy machine does not change their ratio.
"""

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import harness
from feature_store.contracts.base import days_between, shift_day
from feature_store.index import build
from feature_store.lake import content
from jobs import cli
from jobs.engine import snapshots
from jobs.pipelines import catalog
from jobs.services import local
from jobs.settings import Home, Settings
from jobs.steps import audit

# What hashes: the module that calls it, its name there, and what it is for.
_HASHING = (
    (content, "check_bytes", "bytes"),
    (content.HashedStream, "write", "bytes"),
    (snapshots, "file_sha256", "bytes"),
    (build, "file_xxh3", "bytes"),
    (audit, "file_xxh3", "bytes"),
)


class Clock:
    """CPU seconds by step and purpose."""

    def __init__(self) -> None:
        self.spent: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self.step = ""

    def timed(self, function: Callable[..., Any], purpose: str) -> Callable[..., Any]:
        """The function, and its CPU seconds put down."""

        def call(*args: Any, **kwargs: Any) -> Any:
            begun = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.spent[self.step][purpose] += time.thread_time() - begun

        return call


def main() -> None:
    """Run the days, print the table of the last one."""
    parser = harness.arguments(__doc__, rounds=None)
    parser.add_argument("--recipe", default="toy")
    parser.add_argument("--days", type=int, default=3)
    args = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="derm-checking-")) / "home"
    os.environ.update(DERM_HOME=str(home), DERM_THREADS="1", DERM_ENGINE="local")
    must("init", "--dataset", "simulated", "--recipe", args.recipe, "--days", "1")
    declared, settings = Home.load(home), Settings.from_environment()
    first, last = declared.start_ds, shift_day(declared.start_ds, args.days - 1)
    history = "simulate,ingest,validate,count"
    must("run", "--from", declared.first_ds, "--to", declared.first_ds, "--steps", history)
    clock = Clock()
    for module, name, purpose in _HASHING:
        setattr(module, name, clock.timed(getattr(module, name), purpose))
    try:
        for ds in days_between(first, last):
            clock.spent.clear()
            for step in catalog.pipeline_of(declared).steps:
                content._check_once.cache_clear()
                clock.step, begun = step.name, time.process_time()
                must(step.name, "--ds", ds)
                clock.spent[step.name]["all"] = time.process_time() - begun
    finally:
        local.stop(settings)
    harness.report({"day": last, "steps": shares(clock.spent)}, args)


def shares(spent: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """CPU seconds of each step and of the day, and the share of it that hashes."""
    total: dict[str, float] = defaultdict(float)
    for step in spent.values():
        for name, seconds in step.items():
            total[name] += seconds
    found = {}
    for name, step in [*spent.items(), ("the day", total)]:
        hashing = step["bytes"]
        found[name] = {
            "cpu_s": round(step["all"], 3),
            "bytes_s": round(step["bytes"], 4),
            "share": round(hashing / step["all"], 4) if step["all"] else 0.0,
        }
    return found


def must(*arguments: str) -> None:
    """A command that succeeds."""
    if code := cli.main(arguments):
        raise SystemExit(f"derm {' '.join(arguments)}: exit code {code}")


if __name__ == "__main__":
    main()

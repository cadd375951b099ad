"""The `derm` command as a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

from jobs.settings import PROJECT
from tests.brief_recipe import BRIEF

_DERM = [sys.executable, "-c", "import sys; from jobs.cli import main; sys.exit(main())"]


def start(
    home: Path, *arguments: str, stdin: int | None = None, **environment: str
) -> subprocess.Popen[str]:
    """Begin a command on a home."""
    settings = {"DERM_HOME": str(home), "DERM_THREADS": "1"}
    return subprocess.Popen(
        [*_DERM, *arguments],
        env={**os.environ, **settings, **environment},
        cwd=PROJECT,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def derm(home: Path, *arguments: str, **environment: str) -> str:
    """Run a command that succeeds; what it printed."""
    process = start(home, *arguments, **environment)
    printed, said = process.communicate()
    assert process.returncode == 0, printed[-2000:] + said[-4000:]
    return printed


def refused(home: Path, code: int, *arguments: str) -> str:
    """Run a command that ends with an exit code; what it said."""
    process = start(home, *arguments)
    printed, said = process.communicate()
    assert process.returncode == code, printed[-2000:] + said[-4000:]
    return said


def begin(home: Path, recipe: str = BRIEF, **environment: str) -> None:
    """A home of the simulated world whose history, one day, is there: days may run after it."""
    first = "2025-03-01"
    derm(home, "init", "--dataset", "simulated", "--recipe", recipe, "--days", "1", **environment)
    steps = ("--steps", "simulate,ingest,validate,count")
    derm(home, "run", "--from", first, "--to", first, *steps, **environment)

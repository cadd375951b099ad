"""The `derm` command as a process of its own: begun, or a copy of a warm one.

A command that is only waited for is a copy of a process that has imported everything
(`tests/warm_copies.py`): that is most of its time. One that a test strikes, feeds or gives another
environment is begun anew.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from jobs.cli.warm import is_read_early
from jobs.settings import PROJECT
from tests.brief_recipe import BRIEF

_DERM = [sys.executable, "-c", "import sys; from jobs.cli import main; sys.exit(main())"]


def start(
    home: Path, *arguments: str, stdin: int | None = None, **environment: str
) -> subprocess.Popen[str]:
    """Begin a command on a home."""
    return subprocess.Popen(
        [*_DERM, *arguments],
        env=_environment(home, environment),
        cwd=PROJECT,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def derm(home: Path, *arguments: str, **environment: str) -> str:
    """Run a command that succeeds; what it printed."""
    code, printed, said = _done(home, *arguments, **environment)
    assert code == 0, printed[-2000:] + said[-4000:]
    return printed


def refused(home: Path, code: int, *arguments: str) -> str:
    """Run a command that ends with an exit code; what it said."""
    found, printed, said = _done(home, *arguments)
    assert found == code, printed[-2000:] + said[-4000:]
    return said


def begin(home: Path, recipe: str = BRIEF, **environment: str) -> None:
    """A home of the simulated world whose history, one day, is there: days may run after it."""
    first = "2025-03-01"
    derm(home, "init", "--dataset", "simulated", "--recipe", recipe, "--days", "1", **environment)
    steps = ("--steps", "simulate,ingest,validate,count")
    derm(home, "run", "--from", first, "--to", first, *steps, **environment)


def _environment(home: Path, others: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "DERM_HOME": str(home), "DERM_THREADS": "1", **others}


def _done(home: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit code of a command that ended, what it printed, what it said."""
    wanted = _environment(home, environment)
    warm = _Warm.of_this_process()
    if warm.is_of_another(wanted):
        process = start(home, *arguments, **environment)
        printed, said = process.communicate()
        return process.returncode, printed, said
    return warm.run(arguments, wanted)


class _Warm:
    """The process whose copies run commands, as long as its environment is that of the tests."""

    _one: "_Warm | None" = None

    def __init__(self) -> None:
        self.environment = {**os.environ, "DERM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm_copies"],
            env=self.environment,
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @classmethod
    def of_this_process(cls) -> "_Warm":
        """The one there is; a new one when it was ended, as after a test that failed."""
        if cls._one is None or cls._one._process.poll() is not None:
            cls._one = cls()
        return cls._one

    def is_of_another(self, environment: dict[str, str]) -> bool:
        """Whether what it has imported may have been told something else."""
        names = {n for n in environment.keys() | self.environment.keys() if is_read_early(n)}
        return any(environment.get(n) != self.environment.get(n) for n in names)

    def run(self, arguments: tuple[str, ...], environment: dict[str, str]) -> tuple[int, str, str]:
        """Run a command in a copy."""
        assert self._process.stdin
        assert self._process.stdout
        with tempfile.NamedTemporaryFile("r") as printed, tempfile.NamedTemporaryFile("r") as said:
            request = {
                "arguments": arguments,
                "environment": environment,
                "folder": str(PROJECT),
                "printed": printed.name,
                "said": said.name,
            }
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
            return code, printed.read(), said.read()

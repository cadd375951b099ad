"""The command line is a promise: what it offers changes only on purpose.

After a wanted change: UPDATE_GOLDEN=1 python -m pytest tests/architecture/test_cli_surface.py
"""

import json
import os
import shlex
import subprocess
import sys

import pytest

from jobs.cli import COMMANDS
from jobs.cli.reference import cli_surface, command_parser
from jobs.pipelines import catalog
from tests.architecture.sources import ROOT

_GOLDEN = ROOT / "tests" / "golden" / "cli.json"
_NAMES = [*(s.name for s in catalog.every_step()), *(c.name for c in COMMANDS)]


def test_surface_is_frozen() -> None:
    surface = json.dumps(cli_surface(), indent=2) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        _GOLDEN.write_text(surface)
    assert json.loads(surface) == json.loads(_GOLDEN.read_text())


def test_commands_are_named_once_and_in_order() -> None:
    assert len(set(_NAMES)) == len(_NAMES)
    others = [c.name for c in COMMANDS]
    assert others == sorted(others), "keep COMMANDS in alphabetical order"


@pytest.mark.parametrize("name", _NAMES)
def test_command_helps_with_an_example_that_parses(name: str) -> None:
    text = command_parser(name).format_help()
    example = text.partition("example: ")[2]
    assert example.startswith(f"derm {name}"), f"derm {name} --help has no example"
    command_parser(name).parse_args(shlex.split(example)[2:])


def test_every_argument_is_explained() -> None:
    silent = [
        f"derm {name} {argument['name']} has no help"
        for name, command in cli_surface().items()
        for argument in command["arguments"]
        if not argument["help"]
    ]
    assert not silent, "\n".join(silent)


def _derm(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from jobs.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_home_that_is_none_is_a_wrong_request(tmp_path) -> None:
    done = _derm("status", DERM_HOME=str(tmp_path))
    assert done.returncode == 2
    assert "is not a derm home" in done.stderr
    assert "derm init" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_is_readable_by_machines(tmp_path) -> None:
    done = _derm("status", "--json", DERM_HOME=str(tmp_path))
    error = json.loads(done.stdout)
    assert error["exit_code"] == done.returncode == 2
    assert error["error"]["where"].endswith("home.json")


def test_a_setting_that_cannot_be_is_named(tmp_path) -> None:
    done = _derm("status", DERM_HOME=str(tmp_path), DERM_DEVICE="abacus")
    assert done.returncode == 2
    assert "DERM_DEVICE" in done.stderr
    assert "found:    abacus" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["train"], ["train", "--ds", "2025-3-1"], ["train", "--ds", "2025-02-30"], ["nothing"], []],
)
def test_a_wrong_command_line_exits_with_two(arguments: list[str]) -> None:
    done = _derm(*arguments)
    assert done.returncode == 2
    assert "usage: derm" in done.stderr

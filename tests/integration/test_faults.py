"""One fault of each kind on a little home; tests/chaos/faults.py plays them by the hundred."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.settings import PROJECT
from tests.chaos.table import of_faults

pytestmark = [pytest.mark.integration, pytest.mark.redis]

PLAYED = {
    # Killed and finished, it ends in the release of one that was not disturbed.
    "forget Pins": "kill",
    "release": "kill",
    "forget users + retain": "pair",
    "pool, swapped": "tamper",
    "weights, flipped": "tamper",
    "FLUSHALL, in the middle of a day": "loss",
    "run, a year ahead": "clock",
}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """The cases, in a process of their own: it makes copies of itself, and has no threads."""
    folder = tmp_path_factory.mktemp("faults")
    results: Path = folder / "faults.jsonl"
    only = [word for name in PLAYED for word in ("--only", name)]
    command = [sys.executable, "-m", "tests.chaos.faults", *only, "--results", str(results)]
    done = subprocess.run(
        [*command, "--folder", str(folder / "stage")],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert results.exists(), done.stdout + done.stderr
    return {(case := json.loads(line))["name"]: case for line in results.read_text().splitlines()}


@pytest.mark.parametrize("name", PLAYED)
def test_what_is_promised_holds(played: dict[str, dict[str, object]], name: str) -> None:
    case = played[name]
    assert (case["kind"], case["wrong"]) == (PLAYED[name], [])


def test_the_tables_are_made_of_the_results(played: dict[str, dict[str, object]]) -> None:
    printed = of_faults(list(played.values()))
    assert f"**{len(PLAYED)}** | **{len(PLAYED)}**" in printed
    assert "| pool | verify, gate |" in printed

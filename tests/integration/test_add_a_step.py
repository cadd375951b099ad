"""The step that the how-to adds runs as it stands there, and everything follows from its entry."""

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from jobs.cli import build_parser, main
from jobs.engine.runner import open_context
from jobs.engine.staleness import standings
from jobs.pipelines import daily
from jobs.pipelines.catalog import pipeline_of
from jobs.pipelines.tasks import arrows
from jobs.settings import Home, Settings
from tests.architecture.sources import ROOT

_DAY = "2025-03-01"


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "howto" / "add_a_step.md").read_text()
    entry, code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    declared: dict = {}
    exec(entry, declared)  # noqa: S102 - the page is what is tested
    module = ModuleType("jobs.steps.seen")
    exec(code, module.__dict__)  # noqa: S102
    monkeypatch.setitem(sys.modules, "jobs.steps.seen", module)
    at = [s.name for s in daily.STEPS].index("train")
    monkeypatch.setattr(daily, "STEPS", (*daily.STEPS[:at], declared["STEP"], *daily.STEPS[at:]))


@pytest.mark.usefixtures("step")
def test_it_runs_is_skipped_and_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERM_HOME", str(tmp_path))
    assert main(["init", "--dataset", "simulated", "--days", "0"]) == 0
    build_parser("seen").parse_args(["seen", "--ds", _DAY])
    steps = ["--steps", "simulate,ingest,validate,seen"]
    assert main(["run", "--from", _DAY, "--to", _DAY, *steps]) == 0
    seen = json.loads((tmp_path / "seen" / f"{_DAY}.json").read_text())
    assert seen["user"] > 100
    assert ("validate", "seen") in arrows(pipeline_of(Home.load(tmp_path)))
    ctx = open_context(Settings(home=tmp_path), _DAY)
    assert {s.step.name: s.state for s in standings(ctx, [_DAY])}["seen"] == "done"
    assert main(["seen", "--ds", _DAY]) == 0

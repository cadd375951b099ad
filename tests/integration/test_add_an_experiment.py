"""The experiment that the how-to adds runs as it stands there, from nothing to its page."""

import json
import re
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT
from tests.data_fixtures import Home


def test_it_runs_and_shows_what_it_expects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "howto" / "add_an_experiment.md").read_text()
    [shown] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    file = tmp_path / "popular.py"
    file.write_text(shown)
    home, out = Home(tmp_path, monkeypatch, capsys), tmp_path / "out"
    command = ("experiment", str(file), "--seeds", "4", "--processes", "1", "--out", str(out))
    assert len(json.loads(home.derm(*command, "--dry-run", "--json").out)["missing"]) == 16
    found = json.loads(home.derm(*command, "--json").out)
    assert [h["outcome"] for h in found["hypotheses"]] == ["held"]
    rows = found["rows"]
    assert rows["yesterday again"]["hits"]["difference"]["mean"] == 0
    assert (
        0 < rows["any Pins"]["hits"]["level"]["mean"] < rows["yesterday"]["hits"]["level"]["mean"]
    )
    text = (out / "popular.md").read_text()
    assert "in 4 simulated worlds." in text
    assert "| yesterday again | 4 |" in text
    assert (out / "popular-hits.svg").read_text().startswith("<svg")

"""`derm experiment` with tiny sizes: every variant lives, runs are kept, the report follows."""

import json
from pathlib import Path

import pytest

from jobs.experiments.upstream import VARIANTS, Size, Variant, run
from tests.data_fixtures import Home

TINY = Size(window=1, days=2)
ARGUMENTS = ("experiment", "upstream", "--window", "1", "--days", "2", "--seeds", "1")


@pytest.fixture
def home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Home:
    return Home(tmp_path, monkeypatch, capsys)


def test_equal_seeds_give_equal_numbers_and_variants_differ() -> None:
    first, again = (run(VARIANTS[0], 3, "ctr", TINY) for _ in range(2))
    assert first == again
    assert len(first.days) == 2
    assert 0 < first.days[0]["auc"] < 1
    mixed = run(Variant(name="x", context_in_user_tower=True), 3, "ctr", TINY)
    assert mixed.days[0]["auc"] != first.days[0]["auc"]
    # Context changes within a day, the features of a user do not.
    assert mixed.days[1]["cosine_user"] != first.days[1]["cosine_user"]


def test_runs_are_kept_and_the_report_is_written(home: Home, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert home.derm(*ARGUMENTS, "--out", str(out), "--processes", "2").code == 0
    kept = (out / "upstream-ctr.json").read_text()
    assert {r["variant"] for r in json.loads(kept)["runs"]} == {v.name for v in VARIANTS}
    page = (out / "upstream-ctr.md").read_text()
    assert all(f"| {v.name} |" in page for v in VARIANTS)
    again = home.derm(*ARGUMENTS, "--out", str(out), "--json")
    assert (out / "upstream-ctr.json").read_text() == kept
    assert set(json.loads(again.out)) == {v.name for v in VARIANTS}
    other = home.derm(*ARGUMENTS[:-3], "3", "--seeds", "1", "--out", str(out))
    assert other.code == 2
    assert "of another size" in other.err


def test_numbers_that_make_no_sense_are_refused(home: Home) -> None:
    result = home.derm("experiment", "upstream", "--seeds", "0")
    assert result.code == 2
    assert "--seeds must be positive" in result.err

"""`derm experiment` with tiny sizes: variants live, runs are kept, the report follows."""

import json
from pathlib import Path

import pytest

from experiments import upstream
from experiments.references import REFERENCES
from experiments.upstream import BASELINE, Size, Variant, run
from tests.data_fixtures import Home

pytestmark = pytest.mark.integration

TINY = Size(window=1, days=2)
CHOSEN = ("lambda 0", "weekly retrain")
ARGUMENTS = (
    *("experiment", "upstream", "--window", "1", "--seeds", "1", "--processes", "2"),
    *("--variant", CHOSEN[0], "--variant", CHOSEN[1]),
)


@pytest.fixture
def home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Home:
    return Home(tmp_path, monkeypatch, capsys)


def test_equal_seeds_give_equal_numbers_and_variants_differ() -> None:
    (first, *references), again = (run(BASELINE, 3, "ctr", TINY) for _ in range(2))
    assert [first, *references] == again
    assert {r.variant for r in references} == set(REFERENCES)
    assert all(len(r.days) == len(first.days) for r in references)
    assert len(first.days) == 2
    assert 0 < first.days[0]["auc"] < 1
    (mixed,) = run(Variant(name="x", context_in_user_tower=True), 3, "ctr", TINY)
    assert mixed.days[0]["auc"] != first.days[0]["auc"]
    # Context changes within a day, the features of a user do not.
    assert mixed.days[1]["cosine_user"] != first.days[1]["cosine_user"]


def test_a_new_space_is_not_compared_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The window of a retraining ends with the day: its vectors are in the pools already."""
    monkeypatch.setattr(upstream, "_WEEK", 2)
    (weekly,) = run(Variant(name="x", regime="weekly"), 3, "ctr", TINY)
    between, anew = weekly.days
    assert between["cosine_user"] < 1
    assert not {"cosine_user", "cosine_pin"} & anew.keys()
    assert anew["effective_rank_user"] > 1


def test_runs_are_kept_and_the_report_is_written(home: Home, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sized = (*ARGUMENTS, "--out", str(out), "--days")
    assert home.derm(*sized, "2").code == 0
    kept = (out / "upstream-ctr.json").read_text()
    made = [r["variant"] for r in json.loads(kept)["runs"]]
    assert made == [*REFERENCES, "baseline", *CHOSEN]
    page = (out / "upstream-ctr.md").read_text()
    for name in ("baseline", *CHOSEN):
        assert f"| {name} |" in page
    again = home.derm(*sized, "2", "--json")
    assert (out / "upstream-ctr.json").read_text() == kept
    assert set(json.loads(again.out)) == {*REFERENCES, "baseline", *CHOSEN}
    other = home.derm(*sized, "3")
    assert other.code == 2
    assert "of another size" in other.err


def test_numbers_that_make_no_sense_are_refused(home: Home) -> None:
    result = home.derm("experiment", "upstream", "--seeds", "0")
    assert result.code == 2
    assert "--seeds must be positive" in result.err

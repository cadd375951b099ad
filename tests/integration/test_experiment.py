"""`derm experiment` with tiny sizes: variants live, runs are kept, the report follows."""

import json
from pathlib import Path

import pytest

from experiments import upstream_days
from experiments.harness.design import Metrics
from experiments.references import REFERENCES
from experiments.upstream import BASELINE
from experiments.upstream_days import Options, UpstreamVariant, live
from tests.data_fixtures import Home

pytestmark = pytest.mark.integration

TINY = Options(window=1, days=2)
CHOSEN = ("lambda 0", "weekly retrain")
ARGUMENTS = (
    *("experiment", "upstream", "--set", "window=1", "--seeds", "1", "--processes", "2"),
    *("--variant", CHOSEN[0], "--variant", CHOSEN[1]),
)


@pytest.fixture
def home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Home:
    return Home(tmp_path, monkeypatch, capsys)


def test_equal_seeds_give_equal_numbers_and_variants_differ() -> None:
    rows, again = (live(BASELINE, 3, TINY, references=True) for _ in range(2))
    assert rows == again
    assert set(rows) == {BASELINE.name, *REFERENCES}
    assert all(len(measured.rounds) == 2 for measured in rows.values())
    first = rows[BASELINE.name].rounds
    assert 0 < first[0]["auc"] < 1
    mixed = _lived(UpstreamVariant(name="x", context_in_user_tower=True))
    assert mixed[0]["auc"] != first[0]["auc"]
    # Context changes within a day, the features of a user do not.
    assert mixed[1]["cosine_user"] != first[1]["cosine_user"]


def test_a_new_space_is_not_compared_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The window of a retraining ends with the day: its vectors are in the pools already."""
    monkeypatch.setattr(upstream_days, "_WEEK", 2)
    between, anew = _lived(UpstreamVariant(name="x", regime="weekly"))
    assert between["cosine_user"] < 1
    assert not {"cosine_user", "cosine_pin"} & anew.keys()
    assert anew["effective_rank_user"] > 1


def test_runs_are_kept_and_the_report_is_written(home: Home, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sized = (*ARGUMENTS, "--out", str(out), "--set")
    assert home.derm(*sized, "days=2").code == 0
    kept = (out / "upstream-ctr.json").read_text()
    cells = json.loads(kept)["cells"]
    assert [c["variant"] for c in cells] == ["baseline", *CHOSEN]
    assert set(cells[0]["rows"]) == {"baseline", *REFERENCES}
    page = (out / "upstream-ctr.md").read_text()
    for name in ("baseline", *CHOSEN):
        assert f"| {name} |" in page
    again = home.derm(*sized, "days=2", "--json")
    assert (out / "upstream-ctr.json").read_text() == kept
    assert set(json.loads(again.out)["rows"]) == {*REFERENCES, "baseline", *CHOSEN}
    other = home.derm(*sized, "days=3")
    assert other.code == 2
    assert "of other settings" in other.err


def _lived(variant: UpstreamVariant) -> tuple[Metrics, ...]:
    return live(variant, 3, TINY, references=False)[variant.name].rounds

"""The report step over real manifests, a real lake, and the page it leaves behind."""

import html.parser
import json
import re
from pathlib import Path

import pytest

from feature_store.contracts.errors import ManifestCorrupt
from feature_store.contracts.tables import runs_table
from feature_store.lake.lake import Lake
from jobs.engine.manifests import ManifestStore
from jobs.engine.runner import open_context
from jobs.recipes import recipe
from jobs.rendering.page import render_page
from jobs.rendering.panels import sections
from jobs.rendering.published import read_published
from jobs.rendering.state import HomeState, read_state
from jobs.rendering.summary import DaySummary, phases
from jobs.settings import Settings
from jobs.steps import report
from tests.pipelines import UPSTREAMS
from tests.report_fixtures import finish_day, make_home, publish


@pytest.fixture
def home(tmp_path: Path) -> Path:
    make_home(tmp_path, days=3)
    return tmp_path


def _run(home: Path, ds: str):
    return report.run(open_context(Settings(home=home), ds))


def _summaries(home: Path) -> list[DaySummary]:
    store = ManifestStore(home / "manifests")
    return [DaySummary.of(ds, store.of_day(ds)) for ds in store.days()]


def _with_number(day: DaySummary, step: str, upstream: str, **metrics: float) -> DaySummary:
    key = (step, upstream)
    changed = day.steps[key].model_copy(update={"metrics": {**day.steps[key].metrics, **metrics}})
    return DaySummary.of(day.ds, {**day.steps, key: changed}.values())


def test_records_one_row_per_finished_step(home: Path) -> None:
    outcome = _run(home, "2025-03-02")
    rows = Lake(home / "lake").read(runs_table(), "2025-03-02").to_pylist()
    keys = [(r["step"], r["upstream"]) for r in rows]
    assert keys == sorted(set(keys))
    assert ("train", "cvr") in keys
    assert ("release", "") in keys
    assert "report" not in {step for step, _ in keys}
    assert [a.name for a in outcome.outputs] == ["lake:runs"]
    train = next(r for r in rows if (r["step"], r["upstream"]) == ("train", "ctr"))
    assert json.loads(train["metrics"])["auc"] == pytest.approx(0.729, abs=1e-3)
    assert train["started_at"].isoformat() == "2025-03-03T01:01:00+00:00"


def test_running_again_replaces_the_day_and_only_it(home: Path) -> None:
    first = _run(home, "2025-03-01").outputs[0]
    _run(home, "2025-03-02")
    again = _run(home, "2025-03-01").outputs[0]
    assert again.digest == first.digest
    assert Lake(home / "lake").days("runs") == ("2025-03-01", "2025-03-02")


def test_reads_back_what_was_recorded(home: Path) -> None:
    for ds in ("2025-03-01", "2025-03-02", "2025-03-03"):
        _run(home, ds)
    recorded = report.recorded_days(Lake(home / "lake"), last=2)
    expected = [d for d in _summaries(home) if d.ds != "2025-03-01"]
    assert [d.ds for d in recorded] == ["2025-03-02", "2025-03-03"]
    for found, want in zip(recorded, expected, strict=True):
        assert dict(found.steps) == {k: v for k, v in want.steps.items() if k[0] != "report"}


def test_day_as_json(home: Path) -> None:
    _run(home, "2025-03-03")
    record = json.loads((home / "report" / "2025-03-03.json").read_text())
    assert record["ds"] == "2025-03-03"
    assert record["released"] == "2025-03-04T01:30:00+00:00"
    steps = {(s["step"], s["upstream"]): s for s in record["steps"]}
    assert steps["index", "cvr"]["metrics"]["recall_at_10"] > 0.9
    assert steps["merge", "ctr"]["outputs"][0]["name"] == "lake:embeddings/ctr/user/pool"


class _Balanced(html.parser.HTMLParser):
    """Checks that every tag that was opened is closed, in order."""

    void = frozenset({"meta", "br", "link", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def test_page_is_well_formed_and_fetches_nothing(home: Path) -> None:
    _run(home, "2025-03-03")
    page = (home / "report" / "index.html").read_text()
    parser = _Balanced()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    assert not re.search(r"""(src|href|url)\s*[=(]""", page)
    for section in sections(recipe("toy")):
        for panel in section.panels:
            assert (f"<h3>{panel.title}</h3>" in page) == (not section.of_rankers)


def test_page_says_what_embeddings_are_worth(home: Path) -> None:
    days = _summaries(home)
    numbers = {"worth": 0.0123, "worth_low": -0.001, "worth_high": 0.0247, "auc": 0.7}
    numbers |= {"auc_with_good_click": 0.71, "worth_good_click": 0.0042}
    numbers |= {"worth_low_good_click": -0.0311, "auc_with_hide": None, "worth_hide": None}
    scored = (
        days[-1]
        .steps["train", "ctr"]
        .model_copy(update={"step": "evaluate", "upstream": "clicks", "metrics": numbers})
    )
    days[-1] = DaySummary.of(days[-1].ds, [*days[-1].steps.values(), scored])
    names = ("clicks", "never")
    page = render_page(days, UPSTREAMS, recipe("toy"), HomeState(), rankers=names)
    assert "+0.0123 AUC" in page
    assert "2025-03-03, 95 % between -0.0010 and +0.0247" in page
    assert "not scored yet, or not compared" in page
    assert re.search(
        r"<dt>good click</dt>\s*<dd>\+0.0042</dd>\s*<dd class=.moved.>-0.0311 \.\.", page
    )
    assert "<dt>hide</dt>" not in page, "a task of one class has no worth"
    assert "<h3>Worth of the embeddings</h3>" in page


def test_page_says_what_is_published(home: Path) -> None:
    page = render_page(_summaries(home), UPSTREAMS, recipe("toy"), read_state(home))
    assert "2025-03-03-9b2f40c1" in page
    assert "released, every bound kept" in page


def test_page_names_a_number_outside_its_bound(home: Path) -> None:
    days = _summaries(home)
    days[-1] = _with_number(days[-1], "train", "ctr", auc=0.6, auc_bound=0.679)
    days[-1] = _with_number(days[-1], "index", "cvr", recall_at_10=0.9)
    page = render_page(days, UPSTREAMS, recipe("toy"), HomeState())
    assert '<a class="run"' not in page
    assert "2 numbers outside their bounds" in page
    assert re.search(r'2025-03-03 <b class="head-u0">ctr</b> AUC: 0\.600, bound 0\.679', page)
    assert 'class="dot broken"' in page
    assert '<td class="bad">0.600</td>' in page


def test_the_bound_of_the_day_counts_and_not_that_of_a_day_of_many(home: Path) -> None:
    days = _summaries(home)
    small = {"cosine_user": 0.1, "cosine_bound_user": -0.4, "pool_user": 2, "pool_bound_user": -1.0}
    days[-1] = _with_number(days[-1], "verify", "ctr", **small)
    assert "released, every bound kept" in render_page(days, UPSTREAMS, recipe("toy"), HomeState())
    days[-1] = _with_number(days[-1], "verify", "ctr", pool_bound_user=3.0, cosine_bound_user=None)
    assert "2 numbers outside their bounds" in render_page(
        days, UPSTREAMS, recipe("toy"), HomeState()
    )


def test_a_day_that_ran_in_part_and_a_day_that_did_not_run(home: Path) -> None:
    finish_day(home, "2025-03-05", until="verify")
    page = render_page(_summaries(home), UPSTREAMS, recipe("toy"), read_state(home))
    assert "not released" in page
    assert "2025-03-04" in page  # the gap is shown, not skipped


def test_numbers_that_are_not_numbers_are_not_drawn(home: Path) -> None:
    day = _with_number(_summaries(home)[0], "train", "ctr", auc=float("nan"), ne=float("inf"))
    assert day.number("train", "auc", "ctr") is None
    assert day.number("train", "ne", "ctr") is None
    assert day.number("train", "snapshot_id", "ctr") is None
    assert day.number("train", "auc", "cvr") is not None
    assert "nan" not in render_page([day], UPSTREAMS, recipe("toy"), HomeState())


def test_text_from_manifests_is_escaped(home: Path) -> None:
    day = _summaries(home)[0]
    key = ("train", "ctr")
    changed = day.steps[key].model_copy(update={"metrics": {"space_id": "<script>x</script>"}})
    day = DaySummary.of(day.ds, {**day.steps, key: changed}.values())
    page = render_page([day], UPSTREAMS, recipe("toy"), HomeState())
    assert "<script>x" not in page
    assert "&lt;script&gt;x" in page


def test_phases_hold_every_step_once(home: Path) -> None:
    day = _summaries(home)[0]
    timed = [s for p in phases() for s in p.steps]
    assert {step for step, _ in day.steps} <= set(timed)
    assert len(set(timed)) == len(timed)
    total = sum(day.seconds_of_all(p.steps) for p in phases())
    assert total == pytest.approx(sum(m.duration_s for m in day.steps.values()))
    assert day.seconds(["train"], "ctr") == day.steps["train", "ctr"].duration_s
    assert all(day.seconds(["nothing"], u) is None for u in UPSTREAMS)


def test_nothing_published(tmp_path: Path) -> None:
    assert read_published(tmp_path) is None


def test_pointer_to_a_release_that_is_gone(tmp_path: Path) -> None:
    release = publish(tmp_path, "2025-03-01")
    (tmp_path / "releases" / f"{release.release_id}.json").write_text("{}")
    with pytest.raises(ManifestCorrupt, match="derm restore"):
        read_published(tmp_path)
    (tmp_path / "releases" / f"{release.release_id}.json").unlink()
    with pytest.raises(ManifestCorrupt, match=release.release_id):
        read_published(tmp_path)

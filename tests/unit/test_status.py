"""`derm status` over homes in every state an operator meets."""

import datetime as dt
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from rich.console import Console

from feature_store.contracts.errors import GuardFailed, InputError
from feature_store.contracts.manifests import Acceptance
from jobs.cli import main
from jobs.commands.status import read_status
from jobs.engine import attempts, unfinished
from jobs.engine.manifests import ManifestStore
from jobs.engine.runner import open_context
from jobs.pipelines import catalog
from jobs.rendering.terminal import print_status
from jobs.repair import plan
from jobs.repair.starting_points import Survey
from jobs.settings import Home, Settings
from tests.pipelines import DECLARED, UPSTREAMS
from tests.report_fixtures import finish_day, make_home, manifest_of, publish

_DERM = "import sys; from jobs.cli import main; sys.exit(main())"
NOW = dt.datetime(2025, 3, 9, 12, tzinfo=dt.UTC)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    make_home(tmp_path, days=3)
    return tmp_path


def _status(home: Path, days: int = 7):
    return read_status(Settings(home=home), days=days, now=NOW)


def _text(home: Path, **options: object) -> str:
    stream = io.StringIO()
    print_status(_status(home), Console(file=stream, width=160, **options))
    return stream.getvalue()


def _forget(home: Path, step: str, ds: str, upstream: str | None = None) -> None:
    ManifestStore(home / "manifests").remove(step, ds, upstream)


def _change(home: Path, step: str, ds: str, upstream: str | None = None) -> None:
    """Record the step again with other content, as a rerun on repaired data would."""
    store = ManifestStore(home / "manifests")
    manifest = store.get(step, ds, upstream)
    outputs = tuple(a.model_copy(update={"digest": "other"}) for a in manifest.outputs)
    store.put(manifest.model_copy(update={"outputs": outputs}))


def _open(home: Path) -> list[tuple[str, str, str | None, str]]:
    return [
        (d.summary.ds, s.step.name, s.upstream, s.state)
        for d in _status(home).days
        for s in d.open_steps
    ]


def test_complete_days(home: Path) -> None:
    status = _status(home)
    assert [d.command for d in status.days] == ["", "", ""]
    assert status.published.release.ds == "2025-03-03"
    assert "Next:" not in _text(home)


def test_a_day_that_stopped_in_the_middle(home: Path) -> None:
    finish_day(home, "2025-03-04", until="verify")
    day = _status(home).days[-1]
    assert day.open_steps[0].step.name == "verify"
    assert {s.state for s in day.open_steps} == {"missing"}
    assert day.command == "derm run --from 2025-03-04 --to 2025-03-04"
    text = _text(home)
    assert "verify ctr is missing" in text
    assert "Next: derm run --from 2025-03-04 --to 2025-03-04" in text


def test_repaired_data_makes_everything_after_it_stale(home: Path) -> None:
    _change(home, "ingest", "2025-03-02")
    found = _open(home)
    assert found[0] == ("2025-03-02", "validate", None, "stale")
    assert ("2025-03-02", "verify", "ctr", "stale") in found
    # Readers see a newer day: this one is not published again.
    assert ("2025-03-02", "release", None, "stale") not in found
    assert ("2025-03-03", "train", "cvr", "stale") in found
    assert ("2025-03-03", "release", None, "stale") in found
    assert not [f for f in found if f[0] == "2025-03-01"]
    # The data of the next day itself is untouched.
    assert not [f for f in found if f[:2] == ("2025-03-03", "ingest")]
    assert "Next: derm run --from 2025-03-02 --to 2025-03-03" in _text(home)


def test_what_readers_once_saw_of_a_repaired_day_is_past_and_not_stale(home: Path) -> None:
    _change(home, "verify", "2025-03-02", "ctr")
    states = {s.step.name: s.state for s in _status(home).days[1].standings if s.upstream != "cvr"}
    assert [states[n] for n in ("index", "publish", "release", "audit")] == ["past"] * 4
    assert "past" in _text(home)
    _change(home, "verify", "2025-03-03", "ctr")
    assert ("2025-03-03", "index", "ctr", "stale") in _open(home)


def test_what_a_person_decided_is_shown(home: Path) -> None:
    store = ManifestStore(home / "manifests")
    ingested = store.get("ingest", "2025-03-02", None)
    empty = {"no_events": "skipped: the [site] was down"}
    store.put(ingested.model_copy(update={"metrics": empty}))
    accepted = Acceptance(
        ds="2025-03-03", guard="verify.cosine_user", upstream="ctr", found=0.1, bound=0.2,
        least=True, reason="a new season", at="2025-03-04T08:00:00+00:00",
    )  # fmt: skip
    verified = store.get("verify", "2025-03-03", "ctr")
    store.put(verified.model_copy(update={"accepted": (accepted,)}))
    text = _text(home)
    assert "2025-03-02  no events: skipped: the [site] was down" in text
    assert "accepted verify.cosine_user ctr 0.1, bound 0.2: a new season" in text


def test_one_upstream_stands_apart_from_the_other(home: Path) -> None:
    _forget(home, "train", "2025-03-03", "cvr")
    found = _open(home)
    assert ("2025-03-03", "train", "cvr", "missing") in found
    assert ("2025-03-03", "infer", "cvr", "stale") in found
    assert not [f for f in found if f[2] == "ctr"]


def test_another_recipe_makes_its_steps_stale(home: Path) -> None:
    store = ManifestStore(home / "manifests")
    store.put(store.get("index", "2025-03-03", "ctr").model_copy(update={"recipe": "old"}))
    assert _open(home)[0] == ("2025-03-03", "index", "ctr", "stale")


def test_a_manifest_that_cannot_be_read_is_missing(home: Path) -> None:
    ManifestStore(home / "manifests").path("merge", "2025-03-03", "ctr").write_text("{")
    assert _open(home)[0] == ("2025-03-03", "merge", "ctr", "missing")


def test_only_the_newest_days(home: Path) -> None:
    assert [d.summary.ds for d in _status(home, days=2).days] == ["2025-03-02", "2025-03-03"]


def test_days_before_the_start_are_no_gap(tmp_path: Path) -> None:
    Home(dataset="simulated", recipe="toy", first_ds="2025-02-28", start_ds="2025-03-01").save(
        tmp_path
    )
    finish_day(tmp_path, "2025-02-28", until="train")
    store = ManifestStore(tmp_path / "manifests")
    store.put(manifest_of(store, catalog.step("count"), "2025-02-28", None))
    finish_day(tmp_path, "2025-03-01")
    assert [d.summary.ds for d in _status(tmp_path).days] == ["2025-03-01"]
    assert _open(tmp_path) == []


def test_an_empty_home(tmp_path: Path) -> None:
    Home(dataset="simulated", recipe="toy", first_ds="2025-03-01", start_ds="2025-03-01").save(
        tmp_path
    )
    text = _text(tmp_path)
    assert "nothing yet" in text
    assert "No day has run yet" in text


def test_age_is_relative_to_the_given_clock(home: Path) -> None:
    release = home / "releases" / "2025-03-03-9b2f40c1.json"
    made = (NOW - dt.timedelta(hours=30)).timestamp()
    os.utime(release, (made, made))
    assert "30.0 h old" in _text(home)


def test_a_broken_pointer_does_not_hide_the_days(home: Path) -> None:
    (home / "releases" / "current").write_text("gone\n")
    text = _text(home)
    assert "the current release cannot be read" in text
    assert "2025-03-02" in text


def test_a_repair_that_is_not_finished_comes_first(home: Path) -> None:
    _change(home, "ingest", "2025-03-02")
    ctx = open_context(Settings(home=home), "")
    made = plan.plan_repair(
        Survey(
            first_ds="2025-03-01",
            origin="2025-03-01",
            start="2025-03-01",
            last="2025-03-03",
            dataset="simulated",
            upstreams=DECLARED,
            pools={u: ctx.manifests.days() for u in UPSTREAMS},
            dailies={u: ctx.manifests.days() for u in UPSTREAMS},
            raws={u: ctx.manifests.days() for u in UPSTREAMS},
            snapshots={u: ctx.manifests.days() for u in UPSTREAMS},
            counted=ctx.manifests.days(),
            records={},
        ),
        ["2025-03-02"],
        "embeddings",
    )
    unfinished.save(home, unfinished.Repair(plan=made, done=3))
    first, second, *_ = (text := _text(home)).splitlines()
    assert first.startswith(f"A repair is not finished: 3 of {len(made.steps)} steps are done")
    assert second == f"If it does not run: {unfinished.command(made)}"
    assert "Next: derm run" not in text
    done = subprocess.run(
        [sys.executable, "-c", _DERM, "status", "--json"],
        env={**os.environ, "DERM_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)["repair"]
    assert (found["command"], found["done"]) == (unfinished.command(made), 3)


def test_quarantined_rows_are_counted(home: Path) -> None:
    rows = pa.table({"ds": ["2025-03-01", "2025-03-02", "2025-03-02"], "reason": ["late"] * 3})
    write_deltalake(str(home / "lake" / "quarantine"), rows, partition_by=["ds"])
    assert _status(home).quarantined == 3
    assert "3 rows in quarantine" in _text(home)


def test_missing_numbers_are_dashes(tmp_path: Path) -> None:
    Home(dataset="simulated", recipe="toy", first_ds="2025-03-01", start_ds="2025-03-01").save(
        tmp_path
    )
    finish_day(tmp_path, "2025-03-01", until="train")
    row = next(line for line in _text(tmp_path).splitlines() if "ctr  " in line and "–" in line)  # noqa: RUF001
    assert row.count("–") >= 9  # noqa: RUF001


def test_json_from_the_command_line(home: Path) -> None:
    publish(home, "2025-03-03")
    finish_day(home, "2025-03-04", until="merge")
    done = subprocess.run(
        [sys.executable, "-c", _DERM, "status", "--json", "--days", "2"],
        env={**os.environ, "DERM_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["repair"] is None
    assert found["published"]["ds"] == "2025-03-03"
    assert found["published"]["age_hours"] >= 0
    assert [d["ds"] for d in found["days"]] == ["2025-03-03", "2025-03-04"]
    assert found["days"][0]["complete"]
    assert found["days"][1]["first_open"] == {"step": "merge", "upstream": "ctr"}
    assert found["days"][1]["metrics"]["ctr"]["train"]["auc"] > 0.5


def test_no_color_is_respected(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[3" in _text(home, force_terminal=True, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in _text(home, force_terminal=True)


def test_a_refused_result_is_shown_with_number_bound_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_home(tmp_path, days=2)
    finish_day(tmp_path, "2025-03-03", until="verify")
    with (
        pytest.raises(GuardFailed),
        attempts.attempt(tmp_path, "verify", "2025-03-03", "ctr", limit_s=60),
    ):
        raise GuardFailed(
            "the ctr pool is not fit to be published",
            expected="cosine_user >= 0.2",
            found="cosine_user 0.1",
            hint="look at the day: derm validate --ds 2025-03-03 --force",
        )
    monkeypatch.setenv("DERM_HOME", str(tmp_path))
    assert main(["status"]) == 0
    said = capsys.readouterr().out
    assert "verify ctr refused" in said
    assert "cosine_user 0.1" in said
    assert "cosine_user >= 0.2" in said
    assert "derm validate --ds 2025-03-03" in said
    assert main(["status", "--json"]) == 0
    (day,) = (d for d in json.loads(capsys.readouterr().out)["days"] if d["attempts"])
    assert (day["ds"], day["attempts"][0]["state"]) == ("2025-03-03", "refused")


def test_a_day_whose_first_step_failed_is_shown_although_it_has_no_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_home(tmp_path, days=2)
    with (
        pytest.raises(InputError),
        attempts.attempt(tmp_path, "simulate", "2025-03-03", None, limit_s=60),
    ):
        raise InputError("a source file is cut off", where="events.parquet")
    monkeypatch.setenv("DERM_HOME", str(tmp_path))
    assert main(["status"]) == 0
    assert "simulate failed: a source file is cut off" in capsys.readouterr().out

"""What makes a result stale beside its inputs: the seed, the code, what became of its files.

One step of the small catalog makes data with the seed; every fact is seen through the runner.
"""

import sys
import threading
import time
from pathlib import Path
from types import ModuleType

import pytest

from feature_store.contracts.artifacts import Events, Mark
from feature_store.contracts.base import ENTITIES
from feature_store.contracts.errors import DamagedFile
from feature_store.contracts.manifests import Artifact
from jobs.cli import main
from jobs.engine.context import Outcome, RunContext
from jobs.engine.runner import StepResult, open_context, run_step, why_stale
from jobs.engine.staleness import standings
from jobs.engine.step_command import _line
from jobs.pipelines import daily
from jobs.pipelines.declarations import Read, Step
from jobs.settings import Home, Settings
from tests.aggregation_fixtures import SPEC, event_rows, random_day

DAY = "2025-03-01"
_COMMON = {"stage": "source", "task": "t", "failure": "It failed.", "remedy": "Run it again."}
_INGEST = Step(name="ingest", summary="events", outputs=(Events(),), **_COMMON)
_GROW = Step(
    name="grow",
    summary="make something of the events",
    inputs=(Read(Events()),),
    outputs=(Mark("validated"),),
    seeded=True,
    rounded=True,
    **_COMMON,
)


def _ingest(ctx: RunContext) -> Outcome:
    rows = event_rows(*(random_day(0, DAY, e, events=40) for e in ENTITIES))
    return Outcome(outputs=(ctx.lake.overwrite(SPEC.events_table(), DAY, rows),))


def _grow(ctx: RunContext) -> Outcome:
    path = ctx.root / "plant"
    path.write_text(f"{ctx.home.seed}")
    artifact = Artifact(name="validated", ds=DAY, digest=path.read_text(), uri="plant", size=1)
    return Outcome(outputs=(artifact,))


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(daily, "STEPS", (_INGEST, _GROW))
    for step, run in ((_INGEST, _ingest), (_GROW, _grow)):
        module = ModuleType(f"jobs.steps.{step.name}")
        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("jobs.engine.runner.dataset_spec", lambda *_: SPEC)
    Home(dataset="synthetic", recipe="toy", first_ds=DAY, start_ds=DAY).save(tmp_path)
    settings = Settings(home=tmp_path)
    for step in (_INGEST, _GROW):
        run_step(settings, step, DAY, None, force=False)
    return settings


def grow(settings: Settings) -> StepResult:
    return run_step(settings, _GROW, DAY, None, force=False)


def reason(settings: Settings, name: str = "grow") -> str:
    return {s.step.name: s.reason for s in standings(open_context(settings, DAY), [DAY])}[name]


def test_another_seed_makes_what_it_decides_again(settings: Settings) -> None:
    assert grow(settings).skipped
    home = Home.load(settings.home).model_copy(update={"seed": 1})
    (settings.home / "home.json").write_text(home.model_dump_json())
    assert reason(settings) == "the recipe or the seed changed since"
    assert reason(settings, "ingest") == ""
    assert grow(settings).manifest.outputs[0].digest == "1"


def test_a_result_of_another_machine_stands_and_says_so(settings: Settings) -> None:
    other = settings.model_copy(update={"threads": 3})
    result = grow(other)
    assert result.skipped
    assert _line(result) == f"{DAY} grow: up to date; made on threads 1 (now 3)"
    made_on = result.manifest.made_on
    assert made_on
    assert made_on.cpu
    assert {"derm", "numpy", "python", "torch"} <= set(made_on.libraries)


def test_other_code_makes_it_stale_until_somebody_says_it_is_harmless(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("jobs.engine.context", "jobs.commands.keep"):
        monkeypatch.setattr(f"{module}.code_digest", lambda step, *_: f"{step} of tomorrow")
    assert reason(settings).startswith("the code of the step changed since")
    monkeypatch.setenv("DERM_HOME", str(settings.home))
    assert main(["keep", "--reason", "only renamed", "--step", "grow"]) == 0
    assert "grow: 1 results of the code" in capsys.readouterr().out
    # It is still made from events that a stale step brought.
    assert reason(settings) == f"lake:events of {DAY} is itself stale or missing"
    assert main(["keep", "--reason", "only renamed"]) == 0
    assert reason(settings) == ""
    assert grow(settings).skipped
    capsys.readouterr()
    assert main(["keep", "--reason", "only renamed"]) == 0
    assert "every result is of the present code" in capsys.readouterr().out
    assert main(["keep", "--reason", " "]) == 2
    assert main(["keep", "--reason", "x", "--step", "reap"]) == 2


@pytest.mark.parametrize("tamper", ["delete", "cut", "other"])
def test_what_is_gone_or_of_others_is_not_up_to_date(tamper: str, settings: Settings) -> None:
    ctx = open_context(settings, DAY)
    (file,) = (Path(f) for f in ctx.lake.files("events", DAY))
    if tamper == "delete":
        file.unlink()
    elif tamper == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        rows = event_rows(*(random_day(1, DAY, e, events=40) for e in ENTITIES))
        ctx.lake.overwrite(SPEC.events_table(), DAY, rows)
        with pytest.raises(DamagedFile, match="is not what its step recorded") as caught:
            run_step(settings, _GROW, DAY, None, force=True)
        assert caught.value.hint == f"derm ingest --ds {DAY} --force"
    found = "written by something else" if tamper == "other" else "gone or cut short"
    assert found in reason(settings, "ingest")
    assert not run_step(settings, _INGEST, DAY, None, force=False).skipped
    assert reason(settings, "ingest") == ""
    assert grow(settings).skipped


def test_a_file_of_a_result_that_is_gone_is_made_again(settings: Settings) -> None:
    (settings.home / "plant").unlink()
    assert reason(settings) == "plant is gone"
    assert not grow(settings).skipped
    (settings.home / "plant").write_text("10")
    assert "plant has 2 bytes, and had 1" in reason(settings)


def test_what_retention_has_removed_is_not_missed(settings: Settings) -> None:
    ctx = open_context(settings, DAY)
    ctx.manifests.mark_dropped(lambda a: a.uri == "plant")
    (settings.home / "plant").unlink()
    manifest = ctx.manifests.get("grow", DAY, None)
    assert manifest
    assert why_stale(ctx, _GROW, manifest, manifest.inputs) == ""


def test_of_two_runs_of_a_step_the_second_waits_and_finds_it_done(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun, ended = threading.Event(), threading.Event()

    def slow(ctx: RunContext) -> Outcome:
        begun.set()
        assert ended.wait(30)
        return _grow(ctx)

    monkeypatch.setattr(sys.modules["jobs.steps.grow"], "run", slow)
    open_context(settings, DAY).manifests.remove("grow", DAY, None)
    results: list[StepResult] = []
    runs = [threading.Thread(target=lambda: results.append(grow(settings))) for _ in range(2)]
    caplog.set_level("INFO")
    runs[0].start()
    assert begun.wait(30)
    runs[1].start()
    while "waiting" not in caplog.text:
        time.sleep(0.01)
    ended.set()
    for run in runs:
        run.join()
    assert f"waiting: {DAY} grow is run (process " in caplog.text
    assert [r.skipped for r in results] == [False, True]
    assert list((settings.home / "services" / "steps").iterdir()) == []

"""The runner over a catalog of three small steps that read and write real files."""

import hashlib
import logging
import sys
from pathlib import Path
from types import ModuleType

import pytest

from feature_store.contracts.artifacts import SOURCE, Mark, ReleaseMark
from feature_store.contracts.errors import ContractViolation, GuardFailed, MissingInput
from feature_store.contracts.manifests import Artifact
from feature_store.lake.storage import Storage
from jobs.engine import runner
from jobs.engine.context import Outcome, RunContext
from jobs.engine.manifests import ManifestStore
from jobs.engine.runner import open_context, run_step
from jobs.engine.staleness import standings
from jobs.pipelines import catalog, daily
from jobs.pipelines.declarations import Read, Step
from jobs.settings import Home, Settings
from jobs.steps import gate
from tests.pipelines import PIPELINE

_COMMON = {"stage": "source", "failure": "It failed.", "remedy": "Run it again."}
_PLANT = Mark("plant:{u}")
_SOW = Step(name="sow", summary="write a seed", outputs=(SOURCE,), task="sow", **_COMMON)
_GROW = Step(
    name="grow",
    summary="add today's seed to yesterday's plant",
    inputs=(Read(SOURCE), Read(_PLANT, offset=-1, optional=True)),
    outputs=(_PLANT,),
    per_upstream=True,
    recipe_parts=("aggregation",),
    task="grow",
    **_COMMON,
)
_RELEASE = Step(
    name="harvest",
    summary="weigh both plants",
    inputs=(Read(_PLANT),),
    outputs=(ReleaseMark(),),
    task="harvest",
    **_COMMON,
)
_GATE = catalog.step("gate")

D1, D2, D3 = "2025-03-01", "2025-03-02", "2025-03-03"


def _write(ctx: RunContext, name: str, text: str) -> Artifact:
    path = ctx.root / "field" / ctx.ds / name.replace(":", "-")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Artifact(name=name, ds=ctx.ds, digest=digest, uri=str(path))


def _sow(ctx: RunContext) -> Outcome:
    seed = (ctx.root / "seeds" / ctx.ds).read_text()
    return Outcome(outputs=(_write(ctx, "source", seed),), metrics={"seeds": len(seed)})


def _grow(ctx: RunContext) -> Outcome:
    name = Mark(f"plant:{ctx.upstream}")
    before = ctx.previous(name)
    past = Path(before.uri).read_text() if before else ""
    if "rotten" in (seed := Path(ctx.artifact("source").uri).read_text()):
        raise GuardFailed("the seed is rotten")
    return Outcome(outputs=(_write(ctx, name, past + seed),), timings={"growing": 0.1})


def _harvest(ctx: RunContext) -> Outcome:
    plants = [Path(ctx.artifact(Mark(f"plant:{u}")).uri).read_text() for u in ("ctr", "cvr")]
    return Outcome(outputs=(_write(ctx, "release", "|".join(plants)),))


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home with seeds for three days, and the small catalog in place of the real one."""
    monkeypatch.setattr(daily, "STEPS", (_GATE, _SOW, _GROW, _RELEASE))
    for step, run in ((_SOW, _sow), (_GROW, _grow), (_RELEASE, _harvest)):
        module = ModuleType(f"jobs.steps.{step.name}")
        module.run = run
        monkeypatch.setitem(sys.modules, f"jobs.steps.{step.name}", module)
    Home(dataset="simulated", recipe="toy", first_ds=D1, start_ds=D1).save(tmp_path)
    (tmp_path / "seeds").mkdir()
    for ds, seed in ((D1, "a"), (D2, "b"), (D3, "c")):
        (tmp_path / "seeds" / ds).write_text(seed)
    return Settings(home=tmp_path)


def _day(settings: Settings, ds: str, *, force: bool = False) -> list[str]:
    """Run a day; the steps that were not skipped."""
    return [
        " ".join(filter(None, (step.name, upstream)))
        for step in daily.STEPS
        for upstream in PIPELINE.upstreams_of(step)
        if not run_step(settings, step, ds, upstream, force=force).skipped
    ]


def _released(settings: Settings, ds: str) -> str:
    manifest = ManifestStore(settings.home / "manifests").get("harvest", ds, None)
    return Path(manifest.output("release").uri).read_text()


def test_days_in_order_build_on_each_other(settings: Settings) -> None:
    for ds in (D1, D2, D3):
        assert _day(settings, ds) == ["gate", "sow", "grow ctr", "grow cvr", "harvest"]
    assert _released(settings, D3) == "abc|abc"


def test_a_manifest_records_inputs_outputs_numbers_and_times(settings: Settings) -> None:
    _day(settings, D1)
    _day(settings, D2)
    store = ManifestStore(settings.home / "manifests")
    grown = store.get("grow", D2, "cvr")
    assert [(a.name, a.ds) for a in grown.inputs] == [("source", D2), ("plant:cvr", D1)]
    assert [(a.name, a.ds) for a in grown.outputs] == [("plant:cvr", D2)]
    assert grown.timings == {"growing": 0.1}
    assert grown.duration_s >= 0
    assert grown.started_at <= grown.finished_at
    assert grown.started_at.endswith("+00:00")
    assert grown.recipe
    assert store.get("sow", D2, None).metrics == {"seeds": 1}


def test_what_is_current_is_skipped(settings: Settings) -> None:
    _day(settings, D1)
    assert _day(settings, D1) == ["gate"]  # a gate has no result that could be kept


def test_force_runs_again_and_changes_nothing(settings: Settings) -> None:
    _day(settings, D1)
    before = _released(settings, D1)
    assert len(_day(settings, D1, force=True)) == 5
    assert _released(settings, D1) == before
    assert _day(settings, D1) == ["gate"]


def test_a_repaired_day_is_recomputed_from_there_on(settings: Settings) -> None:
    for ds in (D1, D2, D3):
        _day(settings, ds)
    (settings.home / "seeds" / D2).write_text("B")
    run_step(settings, _SOW, D2, None, force=True)
    assert _day(settings, D1) == ["gate"]
    assert _day(settings, D2) == ["gate", "grow ctr", "grow cvr", "harvest"]
    assert _day(settings, D3) == ["gate", "grow ctr", "grow cvr", "harvest"]
    assert _released(settings, D3) == "aBc|aBc"


def test_a_rerun_with_equal_content_disturbs_nothing_after_it(settings: Settings) -> None:
    _day(settings, D1)
    run_step(settings, _SOW, D1, None, force=True)
    assert _day(settings, D1) == ["gate"]


def test_another_recipe_reruns_only_what_depends_on_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    _day(settings, D1)
    from jobs.recipes import Recipe

    whole = Recipe.digest
    monkeypatch.setattr(
        Recipe, "digest", lambda self, parts: whole(self, parts) + ("*" if parts else "")
    )
    assert _day(settings, D1) == ["gate", "grow ctr", "grow cvr"]


def test_a_missing_input_says_which_command_makes_it(settings: Settings) -> None:
    with pytest.raises(MissingInput) as caught:
        run_step(settings, _GROW, D1, "ctr", force=False)
    assert caught.value.hint == f"derm sow --ds {D1}"
    run_step(settings, _SOW, D1, None, force=False)
    with pytest.raises(MissingInput) as caught:
        run_step(settings, _RELEASE, D1, None, force=False)
    assert caught.value.hint == f"derm grow --ds {D1} --upstream ctr"


def test_after_days_that_never_ran_the_gate_names_the_first_step_that_is_missing(
    settings: Settings,
) -> None:
    with pytest.raises(MissingInput) as caught:
        run_step(settings, _GATE, D3, None, force=False)
    assert caught.value.hint == f"derm run --from {D1} --to {D2}"
    assert f"sow {D1}" in caught.value.found
    _day(settings, D1)
    run_step(settings, _SOW, D2, None, force=False)
    with pytest.raises(MissingInput) as caught:
        run_step(settings, _GATE, D3, None, force=False)
    assert caught.value.hint == f"derm run --from {D2} --to {D2}"
    assert f"grow ctr {D2}" in caught.value.found


def test_only_the_first_day_has_no_yesterday(settings: Settings) -> None:
    run_step(settings, _SOW, D2, None, force=False)
    with pytest.raises(MissingInput, match=f"plant:ctr of {D1} is not there"):
        run_step(settings, _GROW, D2, "ctr", force=False)


def test_a_failed_step_leaves_no_manifest(settings: Settings) -> None:
    (settings.home / "seeds" / D1).write_text("rotten")
    run_step(settings, _SOW, D1, None, force=False)
    with pytest.raises(GuardFailed):
        run_step(settings, _GROW, D1, "ctr", force=False)
    assert ManifestStore(settings.home / "manifests").get("grow", D1, "ctr") is None


def test_a_rerun_that_fails_forgets_the_result_it_may_have_replaced(settings: Settings) -> None:
    _day(settings, D1)
    (settings.home / "seeds" / D1).write_text("rotten")
    run_step(settings, _SOW, D1, None, force=True)
    with pytest.raises(GuardFailed):
        run_step(settings, _GROW, D1, "ctr", force=False)
    store = ManifestStore(settings.home / "manifests")
    assert store.get("grow", D1, "ctr") is None
    assert store.get("grow", D1, "cvr") is not None


@pytest.mark.parametrize(
    "outputs",
    [
        (),
        (Artifact(name="other", ds=D1, digest=""),),
        (Artifact(name="source", ds=D2, digest=""),),
        (Artifact(name="source", ds=D1, digest=""),) * 2,
    ],
)
def test_a_step_writes_what_it_declares(
    settings: Settings, outputs: tuple[Artifact, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["jobs.steps.sow"], "run", lambda _: Outcome(outputs=outputs))
    with pytest.raises(ContractViolation, match="step sow did not write"):
        run_step(settings, _SOW, D1, None, force=False)
    assert ManifestStore(settings.home / "manifests").get("sow", D1, None) is None


def test_steps_that_a_data_set_lacks_are_not_waited_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        catalog, "steps_for", lambda _: tuple(s for s in daily.STEPS if s.name != "sow")
    )
    found = runner.resolve_inputs(open_context(settings, D1, "ctr"), _GROW)
    assert found == ()


@pytest.mark.parametrize(
    ("step", "asked", "expected"),
    [
        (_SOW, None, (None,)),
        (_SOW, "ctr", (None,)),
        (_GROW, None, ("ctr", "cvr")),
        (_GROW, "cvr", ("cvr",)),
    ],
)
def test_upstreams_of_a_step(step: Step, asked: str | None, expected: tuple) -> None:
    assert tuple(PIPELINE.upstreams_of(step, asked)) == expected


def test_gate_opens_on_the_first_day_and_after_a_whole_one(settings: Settings) -> None:
    assert gate.run(open_context(settings, D1)).outputs == ()
    _day(settings, D1)
    assert gate.run(open_context(settings, D2)).outputs == ()


def test_gate_stays_shut_after_a_day_that_was_not_released(settings: Settings) -> None:
    run_step(settings, _SOW, D1, None, force=False)
    with pytest.raises(MissingInput, match="release of 2025-03-01"):
        gate.run(open_context(settings, D2))


def test_gate_stays_shut_when_yesterday_was_repaired_in_part(settings: Settings) -> None:
    _day(settings, D1)
    (settings.home / "seeds" / D1).write_text("A")
    run_step(settings, _SOW, D1, None, force=True)
    with pytest.raises(GuardFailed, match="grow ctr of 2025-03-01 is stale") as caught:
        gate.run(open_context(settings, D2))
    assert caught.value.hint == f"derm run --from {D1} --to {D1}"
    _day(settings, D1)
    gate.run(open_context(settings, D2))


def test_staleness_flows_along_the_steps_and_the_days(settings: Settings) -> None:
    for ds in (D1, D2):
        _day(settings, ds)
    (settings.home / "seeds" / D1).write_text("A")
    run_step(settings, _SOW, D1, None, force=True)
    found = {
        (s.ds, s.step.name, s.upstream): s.state
        for s in standings(open_context(settings, ""), [D1, D2])
        if s.step.name != "gate"
    }
    stale = {key for key, state in found.items() if state == "stale"}
    assert stale == {
        *((ds, "grow", u) for ds in (D1, D2) for u in ("ctr", "cvr")),
        *((ds, "harvest", None) for ds in (D1, D2)),
    }
    assert set(found.values()) == {"done", "stale"}


def test_a_context_knows_its_place(settings: Settings) -> None:
    ctx = open_context(settings, D2, "ctr")
    assert ctx.root == settings.home
    assert ctx.lake.root == Storage.of(settings.home / "lake")
    assert not ctx.is_first_day
    assert open_context(settings, D1).is_first_day
    assert isinstance(ctx.log, logging.Logger)
    assert open_context(settings, D1).previous(Mark("plant:ctr")) is None

"""Corrupt random days, backfill, and every later pool is the clean run's, bit for bit.

DERM_TEST_BACKFILLS says how many random choices are tried.
"""

import os
import random
import sys
import types
from pathlib import Path

import pytest

from feature_store.contracts.base import ENTITIES, days_between, shift_day
from feature_store.contracts.datasets import counts_name
from feature_store.contracts.errors import GuardFailed
from feature_store.contracts.manifests import Artifact
from feature_store.contracts.tables import pool_table
from feature_store.lake.schemas import arrow_schema
from feature_store.spark.tasks import run_here
from jobs.engine import unfinished
from jobs.engine.context import Outcome, RunContext
from jobs.engine.runner import open_context, resolve_inputs
from jobs.engine.staleness import standings
from jobs.pipelines import catalog
from jobs.recipes import Recipe
from jobs.repair import backfill, plan
from jobs.repair.starting_points import survey
from jobs.settings import Settings
from jobs.steps import gate
from jobs.steps.count import count_day
from tests.aggregation_fixtures import (
    FIRST,
    SPEC,
    commit_raw,
    context,
    declare_home,
    produced,
    random_day,
    run,
)
from tests.aggregation_fixtures import commit_events as commit_events_of
from tests.pipelines import UPSTREAMS

pytestmark = pytest.mark.spark
DAYS = days_between(FIRST, shift_day(FIRST, 4))
GARBAGE = 999


def infer(ctx: RunContext, seed: int = 0) -> Outcome:
    """Stands for inference: the embeddings of a day are a function of the day."""
    assert ctx.upstream
    return Outcome(
        outputs=tuple(
            commit_raw(
                ctx.lake, ctx.upstream, e, ctx.ds, random_day(seed, ctx.ds, e), buckets=2, dim=8
            )
            for e in ENTITIES
        )
    )


def stand_in(monkeypatch: pytest.MonkeyPatch, published: list[str]) -> None:
    """Stand-ins for the parts of the pipeline that a backfill only calls."""

    def step(name: str) -> types.ModuleType:
        def write(ctx: RunContext) -> Outcome:
            published.append(f"{name}/{ctx.ds}")
            artifact = f"{name}:{ctx.upstream}" if ctx.upstream else name
            names = {"publish": f"users:{ctx.upstream}", "report": "lake:runs", "audit": "audited"}
            made = Artifact(name=names.get(name, artifact), ds=ctx.ds, digest="x", dropped=True)
            return Outcome(outputs=(made,))

        module = types.ModuleType(f"jobs.steps.{name}")
        module.run = infer if name == "infer" else write  # type: ignore[attr-defined]
        return module

    monkeypatch.setattr(Recipe, "digest", lambda *_: "recipe")
    for name in ("infer", "index", "publish", "release", "audit", "report"):
        monkeypatch.setitem(sys.modules, f"jobs.steps.{name}", step(name))


def aggregate(settings: Settings, ds: str) -> None:
    for upstream in UPSTREAMS:
        run(settings, ds, "dedup", "merge", "verify", upstream=upstream)


def simulate(root: Path, settings: Settings, wrong: set[str] = frozenset()) -> None:
    """Run all days; inference of the wrong ones gave garbage."""
    for ds in DAYS:
        ctx = context(root, ds, None)
        events = commit_events_of(ctx.lake, ds, random_day(0, ds, "user"), random_day(0, ds, "pin"))
        produced(ctx, "ingest", events, *nobody(ctx))
        produced(ctx, "validate", Artifact(name="validated", ds=ds, digest="x"))
        produced(ctx, "count", *count_day(ctx, run_here).outputs)
        for upstream in UPSTREAMS:
            ctx = context(root, ds, upstream)
            produced(ctx, "train", Artifact(name=f"snapshot:{upstream}", ds=ds, digest="x"))
            produced(ctx, "infer", *infer(ctx, GARBAGE if ds in wrong else 0).outputs)
        aggregate(settings, ds)


def nobody(ctx: RunContext) -> list[Artifact]:
    """Nothing is known of the users and Pins of a day."""
    tables = (SPEC.users_table(), SPEC.pins_table())
    return [ctx.lake.overwrite(t, ctx.ds, arrow_schema(t).empty_table()) for t in tables]


def settle(settings: Settings) -> None:
    """Let every record follow from what is there, as if the runner had written it."""
    for ds in DAYS:
        for manifest in list(open_context(settings, ds).manifests.of_day(ds)):
            ctx = open_context(settings, ds, manifest.upstream)
            step = catalog.step(manifest.step)
            settled = {
                "inputs": resolve_inputs(ctx, step),
                "recipe": ctx.recipe_digest(step),
                "code": ctx.code_digest(step),
            }
            ctx.manifests.put(manifest.model_copy(update=settled))


def digests(root: Path) -> dict[tuple[str, str, str], str]:
    return {
        (u, e, ds): context(root, ds, u).artifact(f"lake:{pool_table(u, e).name}").digest
        for u in UPSTREAMS
        for e in ENTITIES
        for ds in DAYS
    }


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str, str], str]:
    simulate(tmp_path / "clean", declare_home(tmp_path / "clean", monkeypatch))
    return digests(tmp_path / "clean")


@pytest.mark.parametrize("seed", range(int(os.environ.get("DERM_TEST_BACKFILLS", "2"))))
def test_a_backfill_restores_every_later_pool(
    seed: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    clean: dict[tuple[str, str, str], str],
) -> None:
    published: list[str] = []
    stand_in(monkeypatch, published)
    root = tmp_path / "wrong"
    settings = declare_home(root, monkeypatch)
    rng = random.Random(seed)
    wrong = set(rng.sample(DAYS, rng.randint(1, len(DAYS))))
    simulate(root, settings, wrong)
    damaged = digests(root)
    assert {key for key in clean if damaged[key] != clean[key]} == {
        key for key in clean if key[2] >= min(wrong)
    }
    home = context(root, FIRST).home
    ctx = context(root, FIRST)
    made = plan.plan_repair(survey(home, ctx.lake, ctx.manifests), wrong, "embeddings")
    # Killed half-way, and called again.
    half = unfinished.Repair(plan=made)
    monkeypatch.setattr("jobs.repair.backfill.run_step", _killed_after(len(made.steps) // 2))
    with pytest.raises(KeyboardInterrupt):
        backfill.execute(settings, half, report=lambda _: None)
    assert published == []
    monkeypatch.setattr("jobs.repair.backfill.run_step", backfill_run_step)
    again = unfinished.load(root)
    assert again is not None
    assert again.done == len(made.steps) // 2
    backfill.execute(settings, again, report=lambda _: None)
    assert digests(root) == clean
    assert {entry.split("/")[1] for entry in published} == {DAYS[-1]}
    assert unfinished.load(root) is None


backfill_run_step = backfill.run_step


def _killed_after(steps: int):
    count = 0

    def run_or_die(*args: object, **kwargs: object):
        nonlocal count
        if count == steps:
            raise KeyboardInterrupt
        count += 1
        return backfill_run_step(*args, **kwargs)  # type: ignore[arg-type]

    return run_or_die


def test_models_that_are_kept_go_on_from_repaired_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published: list[str] = []
    stand_in(monkeypatch, published)
    settings = declare_home(tmp_path, monkeypatch)
    simulate(tmp_path, settings)
    settle(settings)
    wrong, last, ctx = DAYS[2], DAYS[-1], context(tmp_path, FIRST)
    counts = f"lake:{counts_name('user')}"
    before = {ds: context(tmp_path, ds).artifact(counts).digest for ds in DAYS}

    def ingest(ctx: RunContext) -> Outcome:
        events = commit_events_of(ctx.lake, ctx.ds, *(random_day(1, ctx.ds, e) for e in ENTITIES))
        return Outcome(outputs=(events, *nobody(ctx)))

    def validate(ctx: RunContext) -> Outcome:
        return Outcome(outputs=(Artifact(name="validated", ds=ctx.ds, digest="y"),))

    for function in (ingest, validate):
        module = types.ModuleType(f"jobs.steps.{function.__name__}")
        module.run = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
    made = plan.plan_repair(
        survey(ctx.home, ctx.lake, ctx.manifests), [wrong], "labels", retrain=False
    )
    backfill.execute(settings, unfinished.Repair(plan=made), report=lambda _: None)
    after = {ds: context(tmp_path, ds).artifact(counts).digest for ds in DAYS}
    assert [ds for ds in DAYS if after[ds] != before[ds]] == list(DAYS[2:])
    found = {(s.ds, s.step.name): s.state for s in standings(context(tmp_path, last), DAYS)}
    for ds in DAYS[2:]:
        states = {found[ds, name] for name in ("ingest", "train", "infer", "merge", "count")}
        assert states == {"done"}, ds
    gate.run(context(tmp_path, shift_day(last, 1), None))
    assert "train/" not in "".join(published)


def test_a_refused_result_publishes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published: list[str] = []
    stand_in(monkeypatch, published)
    settings = declare_home(tmp_path, monkeypatch)
    simulate(tmp_path, settings)
    ctx = context(tmp_path, FIRST)
    made = plan.plan_repair(survey(ctx.home, ctx.lake, ctx.manifests), [DAYS[3]], "embeddings")

    def refuse(*_: object) -> None:
        raise GuardFailed("the pool is not fit to be published")

    monkeypatch.setattr("jobs.steps.verify.hold", refuse)
    monkeypatch.setitem(
        sys.modules["jobs.steps.infer"].__dict__, "run", lambda ctx: infer(ctx, GARBAGE)
    )
    with pytest.raises(GuardFailed):
        backfill.execute(settings, unfinished.Repair(plan=made), report=lambda _: None)
    assert published == []

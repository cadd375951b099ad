"""A step wrote something wrong and recorded it, so every digest agrees: a repair makes it again.

Each fault is played as it would have happened: the step writes wrong rows, and every later step of
every later day runs on them. Nothing is stale then; only the plan says what is to be made again.
Steps that need a model or a store have deterministic stand-ins: a repair only calls them.
"""

import os
import shutil
import sys
import types
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from feature_store.contracts.base import ENTITIES, Entity, Upstream, days_between
from feature_store.contracts.digests import content_digest
from feature_store.contracts.errors import DermError
from feature_store.contracts.manifests import Artifact
from feature_store.contracts.tables import Table, daily_table, pool_table, raw_table
from feature_store.lake.lake import stage_file
from feature_store.lake.schemas import arrow_schema, pack, unpack
from feature_store.lake.staging import read_files
from jobs.engine import unfinished
from jobs.engine.context import Outcome, RunContext
from jobs.engine.runner import open_context, run_step
from jobs.engine.staleness import standings
from jobs.repair import backfill, outcome, plan
from jobs.repair.starting_points import survey
from jobs.settings import Settings
from jobs.steps import count, dedup, merge, verify
from tests.aggregation_fixtures import FIRST, SPEC, commit_raw, declare_home, event_rows, random_day
from tests.pipelines import UPSTREAMS

DAYS = days_between(FIRST, "2025-03-03")
MODES: tuple[tuple[unfinished.What, bool | None], ...] = (
    ("embeddings", None),
    ("embeddings", True),
    ("labels", None),
    ("features", False),
)
Run = Callable[[RunContext], Outcome]


def random_rows(ctx: RunContext, entity: Entity) -> pa.Table:
    return random_day(0, ctx.ds, entity, events=60, entities=30)


def ingest(ctx: RunContext) -> Outcome:
    events = event_rows(random_rows(ctx, "user"), random_rows(ctx, "pin"))
    tables = {SPEC.events_table(): events}
    tables |= {t: arrow_schema(t).empty_table() for t in (SPEC.users_table(), SPEC.pins_table())}
    return Outcome(outputs=tuple(ctx.lake.overwrite(t, ctx.ds, rows) for t, rows in tables.items()))


def infer(ctx: RunContext) -> Outcome:
    assert ctx.upstream
    return Outcome(
        outputs=tuple(
            commit_raw(
                ctx.lake, ctx.upstream, entity, ctx.ds, random_rows(ctx, entity), buckets=2, dim=8
            )
            for entity in ENTITIES
        )
    )


def known_by(name: str, *inputs: str, wrong: bool = False) -> Run:
    """A file that is known by what it was made from, as a slot is: a wrong one looks right."""

    def run(ctx: RunContext) -> Outcome:
        own, path = name.format(u=ctx.upstream), ctx.root / "made" / f"{ctx.ds}.{name[:3]}"
        made_from = [ctx.artifact(i.format(u=ctx.upstream)).digest for i in inputs]
        path = path.with_suffix(f"{path.suffix}.{ctx.upstream}")
        path.parent.mkdir(exist_ok=True)
        path.write_text("wrong" if wrong else " ".join(made_from))
        uri = path.relative_to(ctx.root).as_posix()
        digest = content_digest(*made_from)
        return Outcome(outputs=(Artifact(name=own, ds=ctx.ds, digest=digest, uri=uri),))

    return run


def mixed(run: Run, declare: Callable[[Upstream, Entity], Table]) -> Run:
    """A step that mixes a neighbour into every embedding it writes."""

    def wrong(ctx: RunContext) -> Outcome:
        run(ctx)
        assert ctx.upstream
        tables = [declare(ctx.upstream, entity) for entity in ENTITIES]
        return Outcome(outputs=tuple(rewritten(ctx, t, "embedding", _mix) for t in tables))

    return wrong


def doubled(ctx: RunContext) -> Outcome:
    """Counts whose first column is twice what it is."""
    count.run(ctx)
    tables = [SPEC.counts_table(entity) for entity in ENTITIES]
    return Outcome(outputs=tuple(rewritten(ctx, t, t.columns[1].name, _double) for t in tables))


def rewritten(
    ctx: RunContext, table: Table, column: str, change: Callable[[pa.ChunkedArray], pa.Array]
) -> Artifact:
    properties, staged = ctx.lake.properties(table.name), []
    for bucket, files in ctx.lake.bucket_files(table.name, ctx.ds).items():
        rows = read_files(files, table)
        at = rows.column_names.index(column)
        rows = rows.set_column(at, rows.schema.field(at), pa.chunked_array([change(rows[column])]))
        staged.append(stage_file(ctx.lake.root, table, ctx.ds, rows, bucket=bucket))
    return ctx.lake.commit(table, ctx.ds, staged, properties=properties)


def _mix(column: pa.ChunkedArray) -> pa.Array:
    vectors = unpack(column, 8)
    return pack((vectors + 0.5 * np.roll(vectors, 1, axis=0)).astype(np.float32))


def _double(column: pa.ChunkedArray) -> pa.Array:
    return pa.array(column.to_numpy() * 2, pa.int32())


def validate(ctx: RunContext) -> Outcome:
    digest = ctx.artifact("lake:events").digest
    return Outcome(outputs=(Artifact(name="validated", ds=ctx.ds, digest=digest),))


def report(ctx: RunContext) -> Outcome:
    return Outcome(outputs=(Artifact(name="lake:runs", ds=ctx.ds, digest="", dropped=True),))


def careless(ctx: RunContext) -> Outcome:
    """A verify that measures nothing."""
    return Outcome(outputs=verify.run(ctx).outputs, metrics={"pool_ratio_user": 1.0})


_USERS, _PINS = "lake:embeddings/{u}/user/pool", "lake:embeddings/{u}/pin/pool"
RIGHT: dict[str, Run] = {
    "ingest": ingest,
    "validate": validate,
    "train": known_by("snapshot:{u}", "lake:events"),
    "infer": infer,
    "dedup": dedup.run,
    "merge": merge.run,
    "count": count.run,
    "verify": verify.run,
    "index": known_by("index:{u}", _PINS),
    "publish": known_by("users:{u}", _USERS),
    "release": known_by("release", *(f"{k}:{u}" for k in ("index", "users") for u in UPSTREAMS)),
    "audit": known_by("audited", "release"),
    "report": report,
}
WRONG: dict[str, Run] = {
    "infer": mixed(infer, raw_table),
    "dedup": mixed(dedup.run, daily_table),
    "merge": mixed(merge.run, pool_table),
    "count": doubled,
    "verify": careless,
    "index": known_by("index:{u}", _PINS, wrong=True),
    "publish": known_by("users:{u}", _USERS, wrong=True),
}
# Every faulty step, for one day and for two, in every mode; without DERM_TEST_EVERY_FAULT in one
# mode each, taking turns.
_EVERY = [((fault, days), *mode) for fault in WRONG for days in (1, 2) for mode in MODES]
_TURNS = [_EVERY[4 * i + i % 4] for i in range(len(_EVERY) // 4)]
CASES = _EVERY if os.environ.get("DERM_TEST_EVERY_FAULT") else _TURNS


@pytest.fixture(scope="module")
def stage() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def clean(stage: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four published days without a fault."""
    root = tmp_path_factory.mktemp("clean")
    settings = declare_home(root, stage)
    play(stage)
    for ds in DAYS:
        run_day(settings, ds)
    return root


def play(stage: pytest.MonkeyPatch, faulty: str = "", on: Collection[str] = ()) -> None:
    """Put the steps on stage; one of them is faulty on some days."""

    def acting(name: str) -> Run:
        return lambda ctx: (WRONG if name == faulty and ctx.ds in on else RIGHT)[name](ctx)

    for name in RIGHT:
        module = types.ModuleType(f"jobs.steps.{name}")
        module.run = acting(name)  # type: ignore[attr-defined]
        stage.setitem(sys.modules, module.__name__, module)


def run_day(settings: Settings, ds: str, *, force: bool = False) -> None:
    pipeline = open_context(settings, ds).pipeline
    for step in pipeline.steps:
        if step.name in RIGHT:
            for upstream in pipeline.upstreams_of(step):
                run_step(settings, step, ds, upstream, force=force)


def state(root: Path) -> dict[str, object]:
    """All that is there: what the steps recorded, the lake itself, and the files."""
    ctx = open_context(Settings(home=root), FIRST)
    recorded = {
        f"{m.ds}/{m.step}/{m.upstream}": ({a.name: a.digest for a in m.outputs}, m.metrics)
        for ds in DAYS
        for m in ctx.manifests.of_day(ds)
    }
    lake = {f"{t}/{ds}": ctx.lake.artifact(t, ds).digest for t in ctx.lake.tables() for ds in DAYS}
    files = {p.name: p.read_text() for p in (root / "made").iterdir()}
    return {**recorded, **lake, **files}


def repair(settings: Settings, wrong: Collection[str], what: unfinished.What, retrain: bool | None):
    ctx = open_context(settings, FIRST)
    made = plan.plan_repair(survey(ctx.home, ctx.lake, ctx.manifests), wrong, what, retrain=retrain)
    return made, backfill.execute(settings, unfinished.Repair(plan=made), report=lambda _: None)


@pytest.fixture(scope="module")
def spoilt(
    request: pytest.FixtureRequest,
    clean: Path,
    stage: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, tuple[str, ...], Path]:
    """A home in which a step went wrong on some days, and every later step ran on that."""
    faulty, days = request.param
    root = tmp_path_factory.mktemp("spoilt") / "home"
    shutil.copytree(clean, root)
    # An index and a slot are made again for the day that readers see.
    wrong = DAYS[-days:] if faulty in ("index", "publish") else DAYS[1 : 1 + days]
    play(stage, faulty, wrong)
    for ds in days_between(wrong[0], DAYS[-1]):
        run_day(Settings(home=root), ds, force=True)
    play(stage)
    assert state(root) != state(clean)
    found = standings(open_context(Settings(home=root), ""), DAYS)
    assert {s.state for s in found if s.step.name in RIGHT} == {"done"}
    return faulty, wrong, root


@pytest.mark.parametrize(("spoilt", "what", "retrain"), CASES, indirect=["spoilt"])
def test_what_a_step_did_wrong_is_made_again(
    what: unfinished.What,
    retrain: bool | None,
    clean: Path,
    spoilt: tuple[str, tuple[str, ...], Path],
    tmp_path: Path,
) -> None:
    faulty, wrong, home = spoilt
    root = tmp_path / "home"
    shutil.copytree(home, root)
    made, record = repair(Settings(home=root), wrong, what, retrain)
    written = {(name, s.ds) for s in made.steps if not s.keep for name in s.writes}
    assert {(r.name, r.ds) for r in record.rewritten} == written
    if faulty == "count" and what == "embeddings":
        # Not in the plan, which says so, and not in the record of what was rewritten.
        assert "believed as they are: events, features, counts" in plan.render(made)
        assert not any("counts" in r.name for r in record.rewritten)
    else:
        assert seen(root) == seen(clean)
    assert unfinished.load(root) is None


def seen(root: Path) -> dict[str, object]:
    """The state of a home without what was published before the last day: nobody sees that."""
    past = [
        f"{ds}/{name}/" for ds in DAYS[:-1] for name in ("index", "publish", "release", "audit")
    ]
    past += [f"{ds}.{name}" for ds in DAYS[:-1] for name in ("ind", "use", "rel", "aud")]
    return {k: v for k, v in state(root).items() if not k.startswith(tuple(past))}


def test_finished_is_said_of_what_was_rewritten_and_of_what_differed(
    clean: Path, stage: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = tmp_path / "home"
    shutil.copytree(clean, root)
    settings = Settings(home=root)
    play(stage, "merge", DAYS[1:2])
    for ds in DAYS[1:]:
        run_day(settings, ds, force=True)
    play(stage)
    _, record = repair(settings, DAYS[1:2], "embeddings", None)
    assert outcome.newest(root) == record
    pools = {f"lake:{pool_table(u, e).name}" for u in UPSTREAMS for e in ENTITIES}
    assert {r.name for r in record.differing if r.name.startswith("lake:")} == pools
    said = outcome.render(record)
    assert said.startswith(f"finished: {len(record.rewritten)} results of 2 days rewritten")
    assert f"{'lake:' + pool_table('ctr', 'user').name:34} {DAYS[1]} {DAYS[2]}" in said
    _, again = repair(settings, DAYS[1:2], "embeddings", None)
    assert "none differs from what it was" in outcome.render(again)


def test_nothing_is_published_while_something_else_writes_to_what_is_repaired(
    clean: Path, stage: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = tmp_path / "home"
    shutil.copytree(clean, root)
    settings = Settings(home=root)

    def meddled(ctx: RunContext) -> Outcome:
        rewritten(ctx, pool_table("ctr", "user"), "embedding", _mix)
        return RIGHT["publish"](ctx)

    play(stage)
    stage.setattr(sys.modules["jobs.steps.publish"], "run", meddled)
    with pytest.raises(DermError, match="did not do what its plan says") as caught:
        repair(settings, DAYS[1:2], "embeddings", None)
    assert "was written by something else since" in caught.value.found
    assert unfinished.load(root) is not None

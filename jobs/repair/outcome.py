"""What a repair has done, held against its plan: "finished" is said only of what was rewritten."""

import datetime as dt
from collections.abc import Iterable
from pathlib import Path

from feature_store.contracts.atomic import write_atomic
from feature_store.contracts.base import Contract, Day
from feature_store.contracts.errors import DermError
from feature_store.contracts.manifests import Artifact
from jobs.engine import unfinished
from jobs.engine.manifests import ManifestStore
from jobs.engine.runner import open_context, resolve_inputs, why_stale
from jobs.engine.unfinished import PlannedStep
from jobs.paths import HomePaths
from jobs.pipelines import catalog
from jobs.settings import Settings


class Rewritten(Contract):
    """One artifact of one day that a repair made again.

    Attributes:
        before: digest that it had; empty when there was none on record.
    """

    name: str
    ds: Day
    before: str
    after: str


class Repaired(Contract):
    """The record of a finished repair, in `repairs/` below the home.

    Attributes:
        command: what was asked for.
    """

    command: str
    begun_at: str
    finished_at: str
    rewritten: tuple[Rewritten, ...]

    @property
    def differing(self) -> tuple[Rewritten, ...]:
        """What was not as it is now."""
        return tuple(r for r in self.rewritten if r.before != r.after)


def on_record(manifests: ManifestStore, steps: Iterable[PlannedStep]) -> tuple[Artifact, ...]:
    """What the planned steps have recorded so far."""
    found = (manifests.get(s.step, s.ds, s.upstream) for s in steps if not s.keep)
    return tuple(artifact for manifest in found if manifest for artifact in manifest.outputs)


def check(settings: Settings, progress: unfinished.Repair) -> None:
    """Compare the plan with what was run, and what was run with what is there.

    Raises:
        DermError: a step of the plan was not run by this repair, or what it made is not what is
            on record or in the lake, or does not follow from its inputs any more.
    """
    wrong = [
        f"{' '.join(filter(None, (s.ds, s.step, s.upstream)))}: {problem}"
        for s in progress.plan.steps[: progress.done]
        if not s.keep and (problem := _problem(settings, progress, s))
    ]
    if wrong:
        raise DermError(
            "the repair did not do what its plan says",
            where=str(unfinished.path(settings.home)),
            expected=f"{progress.done} steps of the plan recomputed, and what they made in place",
            found="; ".join(wrong),
            hint="something else wrote to the home meanwhile? remove the file, then: "
            + unfinished.command(progress.plan),
        )


def finish(settings: Settings, progress: unfinished.Repair) -> Repaired:
    """Check everything, write the record of the repair, and let the days go on.

    Raises:
        DermError: it is not what the plan says.
    """
    check(settings, progress)
    before = {(a.name, a.ds): a.digest for a in progress.before}
    after = {(a.name, a.ds): a.digest for made in progress.made.values() for a in made}
    record = Repaired(
        command=unfinished.command(progress.plan),
        begun_at=progress.begun_at,
        finished_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        rewritten=tuple(
            Rewritten(name=name, ds=ds, before=before.get((name, ds), ""), after=digest)
            for (name, ds), digest in after.items()
        ),
    )
    name = f"{record.begun_at.replace(':', '')}.json"
    write_atomic(folder(settings.home) / name, record.model_dump_json(indent=2) + "\n")
    unfinished.path(settings.home).unlink(missing_ok=True)
    return record


def folder(home: Path) -> Path:
    """Where the records of repairs are."""
    return HomePaths(home).repairs


def newest(home: Path) -> Repaired | None:
    """The record of the repair that was begun last, None when there was none."""
    found = sorted(folder(home).glob("*.json"))
    return Repaired.model_validate_json(found[-1].read_text()) if found else None


def render(record: Repaired) -> str:
    """What was rewritten and what of it differs, for people."""
    days = sorted({r.ds for r in record.rewritten})
    done = f"{len(record.rewritten)} results of {len(days)} days rewritten, {days[-1]} published"
    names = dict.fromkeys(r.name for r in record.differing)
    rows = (
        f"  {name:34} {' '.join(r.ds for r in record.differing if r.name == name)}"
        for name in names
    )
    compared = "these differ from what they were:" if names else "none differs from what it was"
    return "\n".join([f"finished: {done}", compared, *rows])


def _problem(settings: Settings, progress: unfinished.Repair, planned: PlannedStep) -> str:
    """What is wrong with a step that should have run; empty when nothing is."""
    ctx = open_context(settings, planned.ds, planned.upstream)
    step = catalog.step(planned.step)
    manifest = ctx.manifests.get(planned.step, planned.ds, planned.upstream)
    made = progress.made.get(unfinished.key(planned))
    if made is None or manifest is None:
        return "was not run" if made is None else "is not on record"
    if manifest.outputs != made:
        return "was run again by somebody else"
    return why_stale(ctx, step, manifest, resolve_inputs(ctx, step, manifest.inputs))

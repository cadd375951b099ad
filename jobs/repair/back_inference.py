"""`derm infer`: embed one day with its own snapshot, or a window of days with a newer one.

Back inference fills past days with what the model knows now: after a repair, or before a new
space is published. What it writes follows from a later day's snapshot, its manifests say so, and
they stay current as long as that snapshot does. Dedup and everything after it are then stale:
`derm status` names the next command. `derm infer --ds DAY --force` returns to the day's own one.
"""

import argparse
from pathlib import Path

from feature_store.contracts.artifacts import Snapshot
from feature_store.contracts.base import Upstream, days_between
from feature_store.contracts.errors import InputError, MissingInput, SpaceMismatch
from feature_store.contracts.manifests import Artifact, StepManifest
from jobs.console import day
from jobs.engine import locks, step_command, unfinished
from jobs.engine.context import RunContext
from jobs.engine.runner import StepResult, open_context, record, resolve_inputs
from jobs.engine.snapshots import SnapshotStore
from jobs.pipelines import catalog
from jobs.settings import Home, Settings
from jobs.steps.infer import embed_day

LATEST = "latest"


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of a window, beside those of a step."""
    window = parser.add_argument_group("back inference, instead of --ds")
    window.add_argument("--from", dest="first", type=day, metavar="DAY", help="first day")
    window.add_argument("--to", dest="last", type=day, metavar="DAY", help="last day")
    window.add_argument(
        "--snapshot",
        metavar="ID|latest",
        help="the snapshot to embed with, not older than the days; default: latest",
    )


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Embed one day, or a window.

    Raises:
        InputError: neither one day nor a window is named, or the snapshot does not fit the window.
        GuardFailed: a repair of these days is not finished.
    """
    if args.ds and not (args.first or args.last or args.snapshot):
        return step_command.main(args, settings)
    if args.ds or not (args.first and args.last):
        raise InputError(
            "derm infer needs days",
            expected="--ds DAY, or --from DAY --to DAY",
            found="both" if args.ds else "neither",
        )
    days = days_between(args.first, args.last)
    if not days:
        raise InputError(
            "the window ends before it begins",
            expected=f"--to {args.first} or later",
            found=args.last,
        )
    with locks.alone(settings.home, "derm infer"):
        unfinished.refuse(settings.home, args.last)
        pipeline = catalog.pipeline_of(Home.load(settings.home))
        for upstream in (args.upstream,) if args.upstream else pipeline.names:
            snapshot = find_snapshot(settings, upstream, args.snapshot or LATEST, args.last)
            for ds in days:
                ctx = open_context(settings, ds, upstream)
                _check_space(ctx, snapshot)
                manifest = back_infer(ctx, snapshot)
                step_command.show(StepResult(manifest=manifest, skipped=False), as_json=args.json)
    return 0


def back_infer(ctx: RunContext, snapshot: Artifact) -> StepManifest:
    """Embed a day with a later day's snapshot, and record that it was.

    Raises:
        MissingInput: a table of the day is not there.
    """
    step = catalog.step("infer")
    inputs = resolve_inputs(ctx, step, (snapshot,))
    return record(ctx, step, inputs, lambda: embed_day(ctx, snapshot))


def find_snapshot(settings: Settings, upstream: Upstream, wanted: str, last: str) -> Artifact:
    """The snapshot called `wanted`, or the latest one.

    Raises:
        MissingInput: no train step recorded it.
        InputError: it is older than the last day it is to embed.
    """
    manifests = open_context(settings, last, upstream).manifests
    name = Snapshot(upstream)
    for ds in reversed(manifests.days()):
        trained = manifests.get("train", ds, upstream)
        if trained is None:
            continue
        found = trained.output(name)
        if wanted not in (LATEST, Path(found.uri).name):
            continue
        if found.ds < last:
            raise InputError(
                f"snapshot {Path(found.uri).name} is older than the days it is to embed",
                expected=f"a snapshot of {last} or later",
                found=f"one of {found.ds}",
                hint=f"end the window on {found.ds}",
            )
        return found
    raise MissingInput(
        f"there is no snapshot {wanted} of {upstream}",
        where=str(settings.paths.snapshots(upstream)),
        expected="one that `derm train` has recorded",
        found="none",
    )


def _check_space(ctx: RunContext, snapshot: Artifact) -> None:
    """Refuse a snapshot of another space than the one the day was embedded in.

    Raises:
        SpaceMismatch: naming both.
    """
    store = SnapshotStore(ctx.root, ctx.own_upstream)
    embedded = ctx.manifests.get("infer", ctx.ds, ctx.upstream)
    used = [a for a in embedded.inputs if a.name == snapshot.name] if embedded else []
    own = store.of(used[0] if used else ctx.artifact(snapshot.reference)).space_id
    other = store.of(snapshot).space_id
    if own != other:
        raise SpaceMismatch(
            f"{ctx.ds} would get embeddings of another space",
            where=f"snapshot {Path(snapshot.uri).name}",
            expected=own,
            found=other,
            hint="derm bootstrap begins a new space, and publishes it side by side",
        )

"""`derm backfill`: repair days in order and publish once at the end.

Runs in Airflow where this home's Airflow is up, so that it is seen and stopped where people look;
in this process otherwise. The plan and how far it has come are in `backfill.json` below the home:
killed anywhere, the same command continues. It has the pipeline to itself while it runs, no day
begins before it has finished, and retention removes nothing that it still needs.
"""

import argparse
import datetime as dt
import logging
from collections.abc import Callable, Iterator

from feature_store.contracts.artifacts import ReleaseMark, Snapshot
from feature_store.contracts.errors import InputError
from jobs.console import out
from jobs.engine import locks, spaces, unfinished
from jobs.engine.manifests import ManifestStore
from jobs.engine.runner import StepResult, keep_result, open_context, run_step
from jobs.engine.step_command import show
from jobs.pipelines import catalog
from jobs.repair import backfill_run, outcome, plan
from jobs.services import airflow
from jobs.settings import Settings

log = logging.getLogger("derm")

# What a day holds before anything of yesterday enters it.
_INDEPENDENT = ("simulate", "ingest", "validate")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm backfill`."""
    plan.configure(parser)
    configure_execution(parser)
    parser.add_argument(
        "--approval",
        action="store_true",
        help="wait in Airflow until somebody has approved the plan there, instead of asking here",
    )


def configure_execution(parser: argparse.ArgumentParser) -> None:
    """Add how a plan is executed."""
    parser.add_argument("--dry-run", action="store_true", help="show the plan, do nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--in-process", action="store_true", help="not through Airflow, even where it is up"
    )


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Show the plan, ask, execute it or continue it."""
    return show_and_run(args, settings, _begun_or_new)


def show_and_run(
    args: argparse.Namespace,
    settings: Settings,
    begun_or_new: Callable[[argparse.Namespace, Settings], unfinished.Repair],
) -> int:
    """Show a plan, ask, and execute it: in Airflow where it is up, in this process otherwise."""
    settings = settings.model_copy(update={"home": settings.home.resolve()})
    progress = begun_or_new(args, settings)
    out(progress.plan.model_dump_json() if args.json else plan.render(progress.plan))
    if args.dry_run:
        return 0
    approval = getattr(args, "approval", False)
    in_airflow = not args.in_process and airflow.is_running(settings)
    if approval and not in_airflow:
        raise InputError(
            "an approval is given in Airflow's UI",
            expected="Airflow of this home running, and no --in-process",
            found="no Airflow",
            hint="derm up, then the same again; or leave --approval out, and answer here",
        )
    if not args.yes and not approval and not _agreed(progress):
        out("nothing was changed")
        return 0
    if in_airflow:
        return backfill_run.follow(settings, progress, approval=approval)
    with locks.alone(settings.home, unfinished.command(progress.plan)):
        # Whoever had the home meanwhile may have changed what the plan was made from.
        progress = begun_or_new(args, settings)
        record = execute(settings, progress, report=lambda result: show(result, as_json=args.json))
    out(record.model_dump_json() if args.json else outcome.render(record))
    return 0


def execute(
    settings: Settings, progress: unfinished.Repair, *, report: Callable[[StepResult], None]
) -> outcome.Repaired:
    """Run the steps that are not done yet; the first error stops, and the same call continues.

    Returns:
        What was rewritten.

    Raises:
        DermError: a step failed or a guard refused its result, and nothing was published; or what
            was done is not what the plan says.
    """
    steps = progress.plan.steps
    progress = _begun(settings, progress)
    unfinished.save(settings.home, progress)
    if progress.plan.what == "space":
        spaces.begin(settings.home, trained=progress.plan.last, pooled=progress.plan.first)
    for ds in _reopen(ManifestStore(settings.paths.manifests), after=progress.plan.last):
        log.warning("%s was under way: once this is finished it runs again, from its gate", ds)
    for number in range(progress.done, len(steps)):
        planned = steps[number]
        if ReleaseMark() in planned.writes:
            # Not published before it is known that all of it was made again.
            outcome.check(settings, progress)
        result = _run(settings, planned, progress.begun_at)
        report(result)
        made = {} if planned.keep else {unfinished.key(planned): result.manifest.outputs}
        progress = progress.model_copy(
            update={"done": number + 1, "made": {**progress.made, **made}}
        )
        unfinished.save(settings.home, progress)
    return outcome.finish(settings, progress)


def _begun(settings: Settings, progress: unfinished.Repair) -> unfinished.Repair:
    """The progress of a repair that has begun: when, and what was on record before."""
    if progress.begun_at:
        return progress
    manifests = ManifestStore(settings.paths.manifests)
    now = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds")
    before = outcome.on_record(manifests, progress.plan.steps)
    return progress.model_copy(update={"begun_at": now, "before": before})


def _run(settings: Settings, planned: unfinished.PlannedStep, repair: str) -> StepResult:
    step = catalog.step(planned.step)
    if planned.keep:
        return keep_result(settings, step, planned.ds, planned.upstream)
    if planned.snapshot_of is None:
        return run_step(settings, step, planned.ds, planned.upstream, force=True, repair=repair)
    from jobs.repair.back_inference import (
        back_infer,  # brings torch, which most commands here never need
    )

    ctx = open_context(settings, planned.ds, planned.upstream)
    later = open_context(settings, planned.snapshot_of, planned.upstream)
    snapshot = later.artifact(Snapshot(planned.upstream))
    return StepResult(manifest=back_infer(ctx, snapshot), skipped=False)


def _begun_or_new(args: argparse.Namespace, settings: Settings) -> unfinished.Repair:
    """The backfill that was begun, if it is the one that is asked for; else a new one.

    Raises:
        InputError: another one was begun.
    """
    progress = unfinished.load(settings.home)
    if progress is None:
        return unfinished.Repair(plan=plan.from_arguments(args, settings))
    planned = progress.plan
    retrain = planned.retrain if args.retrain is None else args.retrain
    asked = (plan.days_of(args), args.what, retrain)
    if asked == (planned.corrupted, planned.what, planned.retrain):
        return progress
    found = f"derm backfill --from {args.first} --to {args.last} --what {args.what}"
    raise unfinished.another_has_begun(settings, planned, found)


def _reopen(manifests: ManifestStore, *, after: str) -> Iterator[str]:
    """Let days that were under way begin again: what they made rests on what is now recomputed."""
    for ds in manifests.days():
        resting = [m for m in manifests.of_day(ds) if m.step not in _INDEPENDENT]
        if ds > after and resting:
            for manifest in resting:
                manifests.remove(manifest.step, ds, manifest.upstream)
            yield ds


def _agreed(progress: unfinished.Repair) -> bool:
    left = len(progress.plan.steps) - progress.done
    question = f"Run {left} steps? Readers keep what is published until the end. [y/N] "
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError as error:
        raise InputError(
            "nobody answered", expected="y or n on the terminal", found="no input", hint="--yes"
        ) from error

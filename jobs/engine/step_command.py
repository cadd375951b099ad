"""`derm <step>`: run one step of one day."""

import argparse

from feature_store.contracts.manifests import StepManifest
from jobs.console import out
from jobs.engine import locks
from jobs.engine.runner import StepResult, run_step
from jobs.pipelines import catalog, tasks
from jobs.settings import Home, Settings


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Run the step for the upstreams asked for."""
    pipeline = catalog.pipeline_of(Home.load(settings.home))
    asked = getattr(args, "upstream", None)
    from_its_gate = args.step.name == tasks.FIRST
    with locks.together(settings.home, args.ds, from_its_gate=from_its_gate):
        for upstream in pipeline.upstreams_of(args.step, asked):
            result = run_step(settings, args.step, args.ds, upstream, force=args.force)
            show(result, as_json=args.json)
    return 0


def show(result: StepResult, *, as_json: bool) -> None:
    """Print what a step did: a line for people, or its manifest."""
    out(result.manifest.model_dump_json() if as_json else _line(result))


def _line(result: StepResult) -> str:
    manifest: StepManifest = result.manifest
    name = " ".join(filter(None, (manifest.ds, manifest.step, manifest.upstream)))
    if result.skipped:
        return f"{name}: up to date" + (f"; made on {result.elsewhere}" if result.elsewhere else "")
    numbers = "  ".join(f"{k}={_number(v)}" for k, v in manifest.metrics.items())
    return f"{name}: done in {manifest.duration_s:.1f} s  {numbers}".rstrip()


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

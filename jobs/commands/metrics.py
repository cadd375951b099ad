"""`derm metrics`: the newest numbers of the pipeline as Prometheus text."""

import argparse
import json
from pathlib import Path

from jobs.console import out
from jobs.engine.runner import open_context
from jobs.rendering.exposition import (
    MetricSample,
    exposition,
    newest_manifests,
    samples,
    write_exposition,
)
from jobs.rendering.state import read_state
from jobs.settings import Settings
from jobs.steps import probing


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm metrics`."""
    parser.add_argument("--output", type=Path, help="write this file, whole, instead of printing")


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Look at the store, the disk and the steps at work, then print or write the newest numbers."""
    probing.record(open_context(settings, ""))
    newest = list(newest_manifests(settings.home))
    if args.json:
        text = json.dumps([_as_dict(s) for m in newest for s in samples(m)])
    else:
        text = exposition(newest, read_state(settings.home))
    if args.output:
        write_exposition(args.output, text)
    else:
        out(text.rstrip("\n"))
    return 0


def _as_dict(sample: MetricSample) -> dict[str, str | float]:
    return {field: getattr(sample, field) for field in sample.__slots__}

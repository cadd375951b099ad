"""`derm validate`: check a day, or show what each of its features tells."""

import argparse
import json
import math
from collections.abc import Iterable, Sequence

from jobs.console import out
from jobs.datasets.feature_audit import FeatureReport, as_json, audit_features
from jobs.engine import step_command
from jobs.engine.runner import open_context
from jobs.pipelines import catalog
from jobs.settings import Home, Settings

NEEDS_DAY = True


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm validate`."""
    parser.add_argument(
        "--audit",
        action="store_true",
        help="change nothing; show the AUC that each feature has alone on every label, and on "
        "whether a row is late, doubled or backfilled",
    )


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Check the day, or audit its features.

    Raises:
        MissingInput: the day, or the counts of the day before it, are not in the lake.
    """
    if not args.audit:
        return step_command.main(args, settings)
    ctx = open_context(settings, args.ds)
    pipeline = catalog.pipeline_of(Home.load(settings.home))
    found = {
        name: audit_features(ctx.lake, ctx.spec, args.ds, name, ctx.counting)
        for name in pipeline.names
        if ctx.spec.labels_of(name)
    }
    if args.json:
        reports = {name: [as_json(r) for r in rows] for name, rows in found.items()}
        out(json.dumps({"ds": args.ds, "upstreams": reports}))
        return 0
    for name, rows in found.items():
        out(f"{args.ds} {name}: AUC of each feature alone; - where rows of a kind are missing\n")
        out(_table(rows))
    return 0


def _table(reports: Sequence[FeatureReport]) -> str:
    """The features as a table in Markdown, those that tell most first."""
    labels, special = tuple(reports[0].labels), tuple(reports[0].special)
    ordered = sorted(reports, key=lambda r: (-_most(r.labels.values()), r.name))
    lines = [
        _row(("feature", "scope", *labels, *special)),
        _row(("---",) * 2 + ("---:",) * (len(labels) + len(special))),
    ]
    for r in ordered:
        values = (*(r.labels[n] for n in labels), *(r.special[n] for n in special))
        lines.append(_row((r.name, r.scope, *map(_shown, values))))
    return "\n".join(lines) + "\n"


def _most(values: Iterable[float]) -> float:
    return max((abs(v - 0.5) for v in values if not math.isnan(v)), default=0.0)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}".removeprefix("0")

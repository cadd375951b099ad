"""Report: record the finished day in `runs`, and draw the last weeks as one page.

Reads the manifests of the day and the table `runs`. Writes the day's partition of `runs` (one row
per finished step), and `report/index.html`, `report/<ds>.json` and `metrics/derm.prom` below the
home. A report is a record of what ran and when, so unlike every other step its content differs
between two runs of a day.
"""

import dataclasses
import datetime as dt
import json
from collections.abc import Sequence

import pyarrow as pa

from feature_store.contracts.atomic import write_atomic
from feature_store.contracts.manifests import StepManifest
from feature_store.contracts.tables import runs_table
from feature_store.lake.lake import Lake, sort_rows
from feature_store.lake.schemas import arrow_schema
from jobs.engine import attempts
from jobs.engine.attempts import Attempt
from jobs.engine.context import Outcome, RunContext
from jobs.rendering.exposition import write_metrics
from jobs.rendering.page import day_record, render_page
from jobs.rendering.state import read_state
from jobs.rendering.summary import DaySummary

_DAYS_SHOWN = 60


def run(ctx: RunContext) -> Outcome:
    """Record the day, then draw every recorded day."""
    # The report cannot describe its own run: that has not finished.
    finished = [m for m in ctx.manifests.of_day(ctx.ds) if m.step != "report"]
    artifact = ctx.lake.overwrite(runs_table(), ctx.ds, _rows(finished))
    days = recorded_days(ctx.lake, last=_DAYS_SHOWN)
    state = dataclasses.replace(read_state(ctx.root), attempts=_others(ctx))
    folder = ctx.paths.report
    rankers = [r.name for r in ctx.pipeline.rankers]
    page = render_page(days, ctx.pipeline.names, ctx.recipe, state, rankers=rankers)
    write_atomic(folder / "index.html", page)
    today = DaySummary.of(ctx.ds, finished)
    write_atomic(folder / f"{ctx.ds}.json", json.dumps(day_record(today), indent=2) + "\n")
    write_metrics(ctx.root)
    ctx.log.info("report %s", folder / "index.html")
    return Outcome(outputs=(artifact,), metrics={"steps": len(finished), "days": len(days)})


def _others(ctx: RunContext) -> tuple[Attempt, ...]:
    """Attempts that are at work or ended badly, but for this one."""
    me = ("report", ctx.ds)
    return tuple(a for a in attempts.attempts(ctx.root) if (a.step, a.ds) != me)


def recorded_days(lake: Lake, *, last: int) -> tuple[DaySummary, ...]:
    """The newest recorded days of `runs`, oldest first."""
    table = runs_table()
    return tuple(
        DaySummary.of(ds, _manifests(lake.read(table, ds, columns=["manifest"])))
        for ds in lake.days(table.name)[-last:]
    )


def _manifests(rows: pa.Table) -> list[StepManifest]:
    return [StepManifest.model_validate_json(m) for m in rows["manifest"].to_pylist()]


def _rows(manifests: Sequence[StepManifest]) -> pa.Table:
    rows = [
        {
            "step": m.step,
            "upstream": m.upstream or "",
            "started_at": dt.datetime.fromisoformat(m.started_at),
            "finished_at": dt.datetime.fromisoformat(m.finished_at),
            "duration_s": m.duration_s,
            "metrics": json.dumps(m.metrics, sort_keys=True),
            "manifest": m.model_dump_json(),
        }
        for m in manifests
    ]
    return sort_rows(pa.Table.from_pylist(rows, arrow_schema(runs_table())), runs_table().key)

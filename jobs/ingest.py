"""Bring one day of the data set into the lake: typed, checked, ordered.

Reads the source of the day through the data set's adapter. Writes the day's partitions of events
(by time), users and pins (by id). Everything that can refuse the day happens before the first
write: a refused day leaves the lake as it was.
"""

import pyarrow as pa

from feature_store.contracts.datasets import DatasetSpec
from feature_store.contracts.tables import Table
from feature_store.lake import sort_rows
from jobs.adapters.base import DayTables
from jobs.checks import Problems, check_day, conform, day_tables
from jobs.context import Outcome, RunContext
from jobs.datasets import open_adapter


def run(ctx: RunContext) -> Outcome:
    """Ingest the day.

    Raises:
        MissingInput: source files are missing.
        ContractViolation: a table breaks its declaration; all broken rules are listed.
    """
    adapter = open_adapter(ctx.home.dataset, ctx.home.source, ctx.root, ctx.recipe.simulation)
    typed = typed_tables(ctx.spec, ctx.ds, adapter.read_day(ctx.ds))
    outputs = tuple(
        ctx.lake.overwrite(table, ctx.ds, typed[table.name]) for table in day_tables(ctx.spec)
    )
    return Outcome(outputs=outputs, metrics={a.name.removeprefix("lake:"): a.rows for a in outputs})


def typed_tables(spec: DatasetSpec, ds: str, day: DayTables) -> dict[str, pa.Table]:
    """The three tables of a day in their declared types and order.

    Raises:
        ContractViolation: a table breaks its declaration; all broken rules are listed.
    """
    problems = Problems(ds)
    typed: dict[str, pa.Table] = {}
    for table in day_tables(spec):
        rows = conform(table, getattr(day, table.name), spec, problems)
        if rows is not None:
            typed[table.name] = sort_rows(rows, _order(table)).combine_chunks()
    check_day(spec, typed, problems)
    problems.refuse(f"repair the source, then: derm ingest --ds {ds}")
    return typed


def _order(table: Table) -> tuple[str, ...]:
    return ("ts", *table.key) if table.name == "events" else table.key

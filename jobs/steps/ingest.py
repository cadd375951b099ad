"""Bring one day of the data set into the lake: typed, checked, ordered.

Reads the source of the day through the data set's adapter. Writes the day's partitions of events
(in the order in which they became known), users and pins (by id), and of further tables that the
data set declares (by key). Rows of earlier days go to their
own day while it is open, else to quarantine, and so do late labels whose impression is not in the
lake. Everything that can refuse the day happens before the first write: a refused day leaves the
lake as it was.
"""

import functools

import pyarrow as pa

from feature_store.contracts.base import shift_day
from feature_store.contracts.datasets import DatasetSpec
from feature_store.contracts.errors import MissingInput
from feature_store.contracts.manifests import Metrics
from feature_store.contracts.tables import Table
from feature_store.lake.filing import in_filing_order
from feature_store.lake.lake import sort_rows
from feature_store.lake.late import (
    Delivery,
    accepted_before,
    of_day,
    put_late,
    split_late,
    with_late,
)
from feature_store.lake.schemas import arrow_schema
from jobs.datasets.base import DayTables
from jobs.datasets.checks import (
    Problems,
    check_known,
    check_rows,
    check_tables,
    conform,
    day_tables,
)
from jobs.datasets.late_labels import has_impression
from jobs.datasets.registry import open_adapter
from jobs.engine import skips
from jobs.engine.context import Outcome, RunContext
from jobs.engine.runner import run_step
from jobs.engine.skips import Skip
from jobs.pipelines import catalog


def run(ctx: RunContext) -> Outcome:
    """Ingest the day.

    Raises:
        MissingInput: source files are missing.
        ContractViolation: a table breaks its declaration; all broken rules are listed.
    """
    skip = skips.load(ctx.root, ctx.ds)
    tables, delivery = _sorted_out(ctx, _nothing(ctx.spec) if skip else _read(ctx), skip)
    put_late(ctx.lake, ctx.spec.events_table(), ctx.ds, delivery)
    outputs = tuple(
        ctx.lake.overwrite(table, ctx.ds, tables[table.name]) for table in day_tables(ctx.spec)
    )
    for ds in delivery.reopened:
        if ctx.manifests.get("ingest", ds, None):
            run_step(ctx.settings, catalog.step("ingest"), ds, None, force=True)
    rows = {a.table: a.rows for a in outputs}
    late = {"late": len(delivery.late), "quarantined": len(delivery.refused)}
    metrics: Metrics = {**rows, **late}
    if not rows["events"]:
        metrics["no_events"] = f"skipped: {skip.reason}" if skip else "carried over"
    return Outcome(outputs=outputs, metrics=metrics)


def _read(ctx: RunContext) -> DayTables:
    """What the source holds of the day."""
    home = ctx.home
    adapter = open_adapter(home.dataset, home.source, ctx.root, ctx.recipe.world(home.dataset))
    try:
        return adapter.read_day(ctx.ds)
    except MissingInput as error:
        error.hint = f"{error.hint}; if the day will never come: {skips.command(ctx.ds)}"
        raise


def _nothing(spec: DatasetSpec) -> DayTables:
    """A day of which there is nothing to read."""
    return DayTables.of({t.name: arrow_schema(t).empty_table() for t in day_tables(spec)})


def conformed(spec: DatasetSpec, day: DayTables, problems: Problems) -> dict[str, pa.Table]:
    """The tables of a day in their declared types; without those that do not have them."""
    typed = {t.name: conform(t, day.table(t.name), spec, problems) for t in day_tables(spec)}
    return {name: rows for name, rows in typed.items() if rows is not None}


def checked(
    spec: DatasetSpec,
    tables: dict[str, pa.Table],
    problems: Problems,
    *,
    may_be_empty: bool = False,
) -> dict[str, pa.Table]:
    """The tables of a day in their declared order.

    Args:
        may_be_empty: a day without events is one.

    Raises:
        ContractViolation: a table breaks its declaration; all broken rules are listed.
    """
    ordered = {
        t.name: _ordered(t, tables[t.name]).combine_chunks()
        for t in day_tables(spec)
        if t.name in tables
    }
    check_tables(spec, ordered, problems, may_be_empty=may_be_empty)
    hint = f"repair the source, then: derm ingest --ds {problems.ds}"
    if "events" in ordered and not len(ordered["events"]):
        hint += (
            f"; if nothing happened on that day: {skips.command(problems.ds)}, "
            'or, where such days are normal, empty_days = "carry" in the declaration'
        )
    problems.refuse(hint)
    return ordered


def _sorted_out(
    ctx: RunContext, day: DayTables, skip: Skip | None
) -> tuple[dict[str, pa.Table], Delivery]:
    """The day's tables, with rows that later deliveries brought; and what this one brought."""
    problems, events = Problems(ctx.ds, day.names), ctx.spec.events_table()
    tables = conformed(ctx.spec, day, problems)
    delivered = tables.get(events.name, arrow_schema(events).empty_table())
    accepted = accepted_before(ctx.lake, events, ctx.ds)
    delivery = split_late(delivered, ctx.ds, functools.partial(_is_open, ctx), accepted)
    delivery = delivery.without_unknown(
        lambda rows: has_impression(ctx.lake, ctx.spec, rows, problems)
    )
    _check_late(ctx, delivery, problems)
    if events.name in tables:
        tables[events.name] = with_late(ctx.lake, events, ctx.ds, delivery.on_time)
    may_be_empty = skip is not None or ctx.spec.empty_days == "carry"
    if may_be_empty and events.name in tables and not len(tables[events.name]):
        tables |= _of_yesterday(ctx, tables)
    return checked(ctx.spec, tables, problems, may_be_empty=may_be_empty), delivery


def _of_yesterday(ctx: RunContext, tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """Users and Pins as they were, where a day without events says nothing of them."""
    before = shift_day(ctx.ds, -1)
    return {
        table.name: ctx.lake.read(table, before)
        for table in (ctx.spec.users_table(), ctx.spec.pins_table())
        if table.name in tables
        and not len(tables[table.name])
        and before in ctx.lake.days(table.name)
    }


def _check_late(ctx: RunContext, delivery: Delivery, problems: Problems) -> None:
    """Late rows obey the rules of events, those of a day in the lake know its users and Pins."""
    late = pa.concat_tables([delivery.late, delivery.refused.drop_columns("reason")])
    check_rows(ctx.spec, ctx.spec.events_table(), late, problems)
    for ds in delivery.reopened:
        if ctx.manifests.get("ingest", ds, None):
            rows = of_day(delivery.late, ds)
            for table in (ctx.spec.users_table(), ctx.spec.pins_table()):
                check_known(rows, table, ctx.lake.read(table, ds, columns=table.key), problems)


def _is_open(ctx: RunContext, ds: str) -> bool:
    """Whether the pipeline knows a day and has not validated it."""
    return ds >= ctx.home.first_ds and ctx.manifests.get("validate", ds, None) is None


def _ordered(table: Table, rows: pa.Table) -> pa.Table:
    return in_filing_order(rows) if table.name == "events" else sort_rows(rows, table.key)

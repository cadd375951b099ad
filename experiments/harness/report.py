"""The report of an experiment: Markdown, a forest plot per table, and the numbers behind both."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from experiments.harness.design import Better, Design, Measure
from experiments.harness.results import Result
from experiments.harness.statistics import Interval
from experiments.harness.tables import Outcome, Row, Tables
from jobs.rendering.forest import Whisker, forest_plot

_WISH = {"up": "more is better", "down": "less is better", None: "neither is better"}
_EXPECTED = {"up": "higher", "down": "lower", "open": "no difference"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Texts by file name, the table for a terminal, and the numbers for machines."""

    files: dict[str, str]
    summary: str
    numbers: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Table:
    """The rows of one measure on one data set, and the name of its picture."""

    measure: Measure
    data: str
    rows: list[Row]
    picture: str


def render(design: Design, results: list[Result], seeds: int, *, plan: str) -> Report:
    """The report over the first `seeds` seeds; what has not run yet is left out.

    Args:
        plan: digest of the whole plan, of which the design may be a part.
    """
    numbers = Tables(design, results, seeds)
    tables = [
        _Table(
            measure=measure,
            data=data,
            rows=numbers.rows(measure, data),
            picture="-".join((design.name, *_only_of_many(design, data), measure.name)) + ".svg",
        )
        for measure in design.measures
        for data in design.data
    ]
    outcomes = numbers.outcomes()
    lines = [f"# {design.title}", "", design.introduction.replace("{seeds}", str(seeds)).strip()]
    if outcomes:
        lines += ["", *_expectations(design, outcomes, results, plan)]
    lines += ["", "## Differences to the baseline", ""]
    for table in tables:
        lines += _section(design, table)
    text = "\n".join([*lines, *_findings(tables)]) + "\n"
    plots = {table.picture: _plot(table) for table in tables}
    return Report(
        files={f"{design.name}.md": text, **plots},
        summary="\n".join(_differences(design, tables[0])),
        numbers=_numbers(design, tables, outcomes),
    )


def _only_of_many(design: Design, data: str) -> tuple[str, ...]:
    return (data,) if len(design.data) > 1 else ()


def _numbers(design: Design, tables: list[_Table], outcomes: list[Outcome]) -> dict[str, Any]:
    """By data set where there are several, then by row and measure."""
    by_data: dict[str, dict[str, dict[str, Any]]] = {data: {} for data in design.data}
    for table in tables:
        for row in table.rows:
            by_data[table.data].setdefault(row.name, {})[table.measure.name] = {
                "level": asdict(row.level),
                "difference": asdict(row.difference),
                "seeds": row.seeds,
            }
    rows = by_data if len(design.data) > 1 else by_data[design.data[0]]
    told = [
        {**asdict(o.hypothesis), "data": o.data, **asdict(o.difference), "outcome": o.word}
        for o in outcomes
    ]
    return {"rows": rows, "hypotheses": told}


def _expectations(
    design: Design, outcomes: list[Outcome], results: list[Result], plan: str
) -> Iterable[str]:
    """What was expected, and what came; the digest says that nobody changed their mind."""
    yield "## Expected beforehand"
    yield ""
    yield (
        f"Baseline, measures and hypotheses were fixed before anything ran (digest `{plan}`); "
        "p is Holm's over all of them."
    )
    if late := {r.key for r in results if r.plan != plan}:
        yield ""
        yield f"**{len(late)} cells were made under another plan than this one.**"
    yield ""
    yield "| expected | data | measure | | difference, 95 % interval | p | |"
    yield "|---|---|---|---|---|---|---|"
    for outcome in outcomes:
        told = outcome.hypothesis
        against = f"{told.variant} against {told.against or design.baseline.name}"
        word = outcome.word if outcome.word == "held" else f"**{outcome.word}**"
        yield (
            f"| {told.says} | {outcome.data} | {told.measure} | {against}: "
            f"{_EXPECTED[told.expected]} | {_span(outcome.difference, '+')} | "
            f"{outcome.difference.p:.2g} | {word} |"
        )


def _section(design: Design, table: _Table) -> list[str]:
    name, meaning = table.measure.name, table.measure.meaning
    heading = f"### {': '.join((name, *_only_of_many(design, table.data)))}"
    said = f"{meaning[0].upper()}{meaning[1:]}; {_WISH[table.measure.better]}."
    sources = {row.published.source: None for row in table.rows if row.published}
    quoted = [f"Published: {'; '.join(sources)}.", ""] if sources else []
    picture = f"![{name}]({table.picture})"
    return [heading, "", said, "", *_differences(design, table), "", *quoted, picture, ""]


def _differences(design: Design, table: _Table) -> list[str]:
    quoted = any(row.published for row in table.rows)
    drawn = "worlds" if design.drawn == "worlds" else "seeds"
    heads = ["variant", drawn, "level, 95 % interval", *(["published"] if quoted else [])]
    lines = [f"| {' | '.join((*heads, 'difference, 95 % interval'))} | |"]
    lines.append("|---" * (len(heads) + 2) + "|")
    for row in table.rows:
        cells = [f"*{row.name}*" if row.kind == "reference" else row.name, str(row.seeds)]
        cells.append(_span(row.level, ""))
        if quoted:
            cells.append(f"{row.published.value:g}" if row.published else "")
        cells.append("" if row.kind == "baseline" else _span(row.difference, "+"))
        lines.append(f"| {' | '.join((*cells, _word(row)))} |")
    return lines


def _span(x: Interval, sign: str) -> str:
    if np.isnan(x.low):
        return f"{x.mean:{sign}.4f}"
    return f"{x.mean:{sign}.4f} ({x.low:{sign}.4f} .. {x.high:{sign}.4f})"


def _word(row: Row) -> str:
    """What a row shows: nothing is said of what it is read against."""
    if row.kind in ("reference", "baseline"):
        return ""
    if row.kind == "placebo":
        return "placebo" if row.difference.verdict == "open" else "**placebo, and differs**"
    return _verdict(row.difference, row.measure.better)


def _verdict(difference: Interval, better: Better) -> str:
    if difference.verdict == "open":
        return "open"
    if better is None:
        return "higher" if difference.verdict == "up" else "lower"
    return "better" if difference.verdict == better else "**worse**"


def _findings(tables: list[_Table]) -> list[str]:
    """What was decided, variant by variant, in words that follow from the numbers alone."""
    lines = ["## What was decided", ""]
    several = len({t.data for t in tables}) > 1
    found: dict[str, list[str]] = {}
    for row in (r for t in tables for r in t.rows if r.kind in ("variant", "placebo")):
        words = found.setdefault(row.name, [])
        if row.difference.verdict != "open":
            word = _verdict(row.difference, row.measure.better).strip("*")
            where = f" on {row.data}" if several else ""
            words.append(f"{row.measure.name} {word}{where} ({row.difference.mean:+.4f})")
    lines += [f"- **{name}**: {'; '.join(words) or 'nothing'}." for name, words in found.items()]
    return lines


def _plot(table: _Table) -> str:
    return forest_plot(
        table.measure.meaning,
        [
            Whisker(
                label=row.name,
                mean=row.difference.mean,
                low=row.difference.low,
                high=row.difference.high,
                decided=row.difference.verdict != "open",
            )
            for row in table.rows
            if row.kind in ("variant", "placebo")
        ],
    )

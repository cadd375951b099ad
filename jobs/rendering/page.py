"""The report as one HTML page: no script from elsewhere, no font, no picture to fetch."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from feature_store.contracts.base import ENTITIES, Upstream, days_between
from feature_store.contracts.rankers import Ranker
from jobs.recipes import Recipe
from jobs.rendering.charts import Rule, Series, line_chart, stacked_bars
from jobs.rendering.numbers import DASH, LEAST_SPAN, show, show_change
from jobs.rendering.panels import Panel, sections
from jobs.rendering.state import HomeState
from jobs.rendering.summary import DaySummary, phases
from jobs.rendering.verdict import notices, verdict

_COLOURS = 6
_MOVEMENT = ("updated", "new", "carried")
_HEADLINES = (
    "auc",
    "coverage_rows_user",
    "coverage_rows_pin",
    "cosine_user",
    "cosine_pin",
    "recall_at_10",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Breach:
    """A number outside its bound."""

    ds: str
    upstream: Upstream
    title: str
    found: str
    bound: str


def render_page(
    days: Sequence[DaySummary],
    upstreams: Sequence[Upstream],
    recipe: Recipe,
    state: HomeState,
    runs: Mapping[str, str] = MappingProxyType({}),
    now: dt.datetime | None = None,
    *,
    rankers: Sequence[Ranker] = (),
) -> str:
    """The page over the given days (at least one, oldest first); days between them are gaps.

    Args:
        state: what is published, and how the home stands beside its finished days.
        runs: addresses of the runs of days, which then link to them; for a page beside Airflow.
        now: the present, for a page that is drawn when it is opened.
        rankers: what learns from the released vectors.
    """
    days = _with_gaps(days)
    shown = [(s, rankers if s.of_rankers else upstreams) for s in sections(recipe)]
    shown = [(s, names) for s, names in shown if names]
    panels = [p for s, _ in shown for p in s.panels]
    breaches = [
        b for s, names in shown for p in s.panels for u in names for b in _breaches(p, days, u)
    ]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(show=show, show_change=show_change, dash=DASH, upstreams=upstreams)
    environment.globals["colour"] = partial(_colour, (*upstreams, *rankers))
    headlines = {p.metric: p for p in panels if p.metric in _HEADLINES}
    return environment.get_template("report.html").render(
        days=days,
        newest=days[-1],
        published=state.published,
        verdict=verdict(days[-1], sum(b.ds == days[-1].ds for b in breaches), state, now),
        notices=notices(state),
        ended={day.ds: state.of_day(day.ds) for day in days},
        runs=runs,
        breaches=sorted(breaches, key=lambda b: (b.ds, b.upstream), reverse=True),
        notes=[(day.ds, note) for day in reversed(days) for note in day.notes],
        broken={(b.ds, b.upstream, b.title) for b in breaches},
        headlines=[headlines[m] for m in _HEADLINES],
        cards={u: [_card(headlines[m], days, u) for m in _HEADLINES] for u in upstreams},
        sections=[
            (s, names, [(p, _chart(p, days, names, (*upstreams, *rankers))) for p in s.panels])
            for s, names in shown
        ],
        worth=[_worth(days, ranker) for ranker in rankers],
        movement=[(u, e, _movement(days, u, e)) for e in ENTITIES for u in upstreams],
        durations=_durations(days),
        phases=phases(),
        total_seconds=_total_seconds,
    )


def day_record(day: DaySummary) -> dict[str, Any]:
    """One day as JSON: metrics and seconds by step and upstream, and what was released."""
    return {
        "ds": day.ds,
        "released": day.released.finished_at if day.released else None,
        "steps": [
            {
                "step": m.step,
                "upstream": m.upstream,
                "duration_s": m.duration_s,
                "metrics": m.metrics,
                "outputs": [a.model_dump() for a in m.outputs],
            }
            for _, m in sorted(day.steps.items(), key=lambda item: item[1].started_at)
        ],
    }


def _with_gaps(days: Sequence[DaySummary]) -> list[DaySummary]:
    known = {d.ds: d for d in days}
    return [known.get(ds) or DaySummary.of(ds, ()) for ds in days_between(days[0].ds, days[-1].ds)]


def _values(panel: Panel, days: Sequence[DaySummary], upstream: Upstream) -> list[float | None]:
    return [d.number(panel.step, panel.metric, upstream) for d in days]


def _bounds(panel: Panel, days: Sequence[DaySummary], upstream: Upstream) -> list[float | None]:
    """The lowest value the guard lets pass, day by day."""
    recorded = [d.number(panel.step, panel.bound_metric, upstream) for d in days]
    return [panel.lowest if bound is None else bound for bound in recorded]


def _breaches(panel: Panel, days: Sequence[DaySummary], upstream: Upstream) -> list[Breach]:
    values = _values(panel, days, upstream)
    return [
        Breach(
            ds=day.ds,
            upstream=upstream,
            title=panel.title,
            found=show(value, panel.kind),
            bound=show(bound, panel.kind),
        )
        for day, value, bound in zip(days, values, _bounds(panel, days, upstream), strict=True)
        if value is not None and bound is not None and value < bound
    ]


def _card(panel: Panel, days: Sequence[DaySummary], upstream: Upstream) -> dict[str, Any]:
    """The newest value of a number, and how far it moved since the recorded day before."""
    values = _values(panel, days, upstream)
    earlier = [v for v in values[:-1] if v is not None]
    now = values[-1]
    moved = now - earlier[-1] if now is not None and earlier else None
    return {"panel": panel, "now": now, "moved": moved}


def _worth(days: Sequence[DaySummary], ranker: Ranker) -> dict[str, Any]:
    """What the embeddings are worth to a ranker on the newest day that it was scored on."""
    for day in reversed(days):
        found = _worth_of(day, ranker, "")
        if found["worth"] is not None:
            tasks = [_worth_of(day, ranker, task) for task in _compared(day, ranker)]
            measured = [task for task in tasks if task["worth"] is not None]
            return {"ranker": ranker, "ds": day.ds, **found, "tasks": measured}
    return {"ranker": ranker, "ds": ""}


def _worth_of(day: DaySummary, ranker: Ranker, task: str) -> dict[str, Any]:
    """The numbers of one task; of the primary one without a name."""
    names = ("worth", "worth_low", "worth_high", "auc_with", "auc_without")
    suffix = f"_{task}" if task else ""
    found = {name: day.number("evaluate", f"{name}{suffix}", ranker) for name in names}
    return {"task": task, **found}


def _compared(day: DaySummary, ranker: Ranker) -> list[str]:
    """The tasks, beside the primary one, that were scored with embeddings and without."""
    prefix, manifest = "auc_with_", day.steps.get(("evaluate", ranker))
    metrics = manifest.metrics if manifest else {}
    return [name.removeprefix(prefix) for name in metrics if name.startswith(prefix)]


def _chart(
    panel: Panel,
    days: Sequence[DaySummary],
    upstreams: Sequence[Upstream],
    everybody: Sequence[Upstream],
) -> Markup:
    by_upstream = {u: tuple(_values(panel, days, u)) for u in upstreams}
    colours = {u: _colour(everybody, u) for u in upstreams}
    rules = []
    if panel.lowest is not None:
        rules.append(Rule(value=panel.lowest, css="bound", label="bound"))
    if panel.reference is not None:
        rules.append(Rule(value=panel.reference, css="reference", label=""))
    falling = [
        Series(name=u, css=colours[u], values=tuple(_bounds(panel, days, u)))
        for u in upstreams
        if panel.draws_bound
    ]
    broken = frozenset((b.upstream, b.ds) for u in upstreams for b in _breaches(panel, days, u))
    return line_chart(
        [d.ds for d in days],
        [Series(name=u, css=colours[u], values=v) for u, v in by_upstream.items()],
        partial(show, kind=panel.kind),
        title=f"{panel.title} by day",
        rules=rules,
        bounds=falling,
        broken=broken,
        least_span=LEAST_SPAN[panel.kind],
    )


def _colour(upstreams: Sequence[Upstream], upstream: Upstream) -> str:
    """The CSS class of an upstream's lines; colours return after the sixth."""
    return f"u{list(upstreams).index(upstream) % _COLOURS}"


def _movement(days: Sequence[DaySummary], upstream: Upstream, entity: str) -> Markup:
    """Shares of the pool that were updated, new and carried over; pruned ones hang below."""

    def layer(name: str) -> Series:
        values = tuple(d.number("verify", f"{name}_{entity}", upstream) for d in days)
        return Series(name=name, css=name, values=values)

    return stacked_bars(
        [d.ds for d in days],
        [layer(name) for name in _MOVEMENT],
        lambda v: show(abs(v) if v is not None else None, "share"),
        below=[layer("pruned")],
        title=f"Movement of {entity}s of {upstream} by day",
    )


def _durations(days: Sequence[DaySummary]) -> Markup:
    layers = [
        Series(
            name=phase.name,
            css=f"phase-{i}",
            values=tuple(d.seconds_of_all(phase.steps) or None for d in days),
        )
        for i, phase in enumerate(phases())
    ]
    return stacked_bars(
        [d.ds for d in days],
        layers,
        partial(show, kind="seconds"),
        title="Seconds by phase and day",
        size=(1240.0, 220.0),
    )


def _total_seconds(day: DaySummary) -> float | None:
    return sum(m.duration_s for m in day.steps.values()) or None

"""Small charts as inline SVG: axes, lines with gaps, guard lines, stacked bars.

Colours are CSS classes, so one drawing serves light and dark pages. Every day carries a tooltip.
Coordinates are SVG user units; a day without a value is a gap, never a zero.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 50.0, 10.0, 22.0
_TICKS = 4

Format = Callable[[float | None], str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """Values by day under one name; `css` is the class that colours it."""

    name: str
    css: str
    values: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """A horizontal mark: a guard's bound (css `bound`) or a reference value (css `reference`)."""

    value: float
    css: str
    label: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Frame:
    """The plotting area of one chart: days to x, values to y."""

    days: tuple[str, ...]
    low: float
    high: float
    width: float
    height: float

    def x(self, index: int) -> float:
        inner = self.width - _LEFT - _RIGHT
        return _LEFT + inner * (index + 0.5) / max(len(self.days), 1)

    def y(self, value: float) -> float:
        inner = self.height - _TOP - _BOTTOM
        return self.height - _BOTTOM - inner * (value - self.low) / (self.high - self.low)

    @property
    def step(self) -> float:
        return (self.width - _LEFT - _RIGHT) / max(len(self.days), 1)


def line_chart(
    days: Sequence[str],
    series: Sequence[Series],
    fmt: Format,
    *,
    title: str,
    rules: Sequence[Rule] = (),
    bounds: Sequence[Series] = (),
    broken: frozenset[tuple[str, str]] = frozenset(),
    least_span: float = 0.0,
    size: tuple[float, float] = (300.0, 150.0),
) -> Markup:
    """A line per series, marked with its last value.

    Args:
        rules: constant marks; one that is far from the data is named at the edge instead, so that
            a distant bound does not flatten the lines.
        bounds: bounds that differ by day, drawn as thin dashed lines.
        broken: (series name, day) of the values that broke a guard.
        least_span: the value axis covers at least this much.
    """
    values = [v for s in (*series, *bounds) for v in s.values if v is not None]
    if not values:
        return _empty(title, size)
    near, far = _split(rules, values)
    low, high = _domain([*values, *(r.value for r in near)], least_span)
    frame = _Frame(days=tuple(days), low=low, high=high, width=size[0], height=size[1])
    parts = [_axes(frame, fmt)]
    parts += [_rule(frame, r) for r in near]
    parts += [_edge_note(frame, r, fmt) for r in far]
    parts += [_path(frame, s, "limit") for s in bounds]
    parts += [_path(frame, s, "line") + _dots(frame, s, broken) for s in series]
    parts += _last_values(frame, series, fmt)
    parts += _tooltips(frame, series, fmt)
    return _svg(parts, title, size)


def stacked_bars(
    days: Sequence[str],
    above: Sequence[Series],
    fmt: Format,
    *,
    title: str,
    below: Sequence[Series] = (),
    size: tuple[float, float] = (300.0, 150.0),
) -> Markup:
    """A bar per day, its parts stacked upwards; `below` hang under the zero line."""
    if not any(v for s in (*above, *below) for v in s.values):
        return _empty(title, size)
    high = max(_totals(above), default=0.0)
    low = -max(_totals(below), default=0.0)
    frame = _Frame(days=tuple(days), low=low, high=high or 1e-9, width=size[0], height=size[1])
    parts = [_axes(frame, fmt)]
    for index in range(len(days)):
        parts += _stack(frame, index, above, sign=1) + _stack(frame, index, below, sign=-1)
    parts += _tooltips(frame, (*above, *below), fmt)
    return _svg(parts, title, size)


def ticks(low: float, high: float) -> list[float]:
    """Round values inside [low, high], about four of them.

    >>> ticks(0.0, 1.0)
    [0.0, 0.5, 1.0]
    """
    raw = (high - low) / _TICKS
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _domain(values: Sequence[float], least_span: float) -> tuple[float, float]:
    """The value axis: the values and some air, never below zero when no value is."""
    low, high = min(values), max(values)
    size = max(abs(low), abs(high))
    if high - low > 1e-9 * size and size > 1e-9:
        span = max(least_span, high - low)
    else:  # nothing moves: any width will do
        span = max(least_span, 0.1 * size if size > 1e-9 else 1.0)
    pad = (span - (high - low)) / 2 + span * 0.12
    bottom = low - pad if low < 0 else max(low - pad, 0.0)
    return bottom, high + pad


def _split(rules: Sequence[Rule], values: Sequence[float]) -> tuple[list[Rule], list[Rule]]:
    """Rules that fit into the picture, and those that would flatten it."""
    low, high = min(values), max(values)
    reach = max(3 * (high - low), abs(high) * 0.05)
    near = [r for r in rules if low - reach <= r.value <= high + reach]
    return near, [r for r in rules if r not in near]


def _totals(series: Sequence[Series]) -> list[float]:
    return [sum(v or 0.0 for v in day) for day in zip(*(s.values for s in series), strict=True)]


def _axes(frame: _Frame, fmt: Format) -> str:
    right = frame.width - _RIGHT
    parts = []
    for value in ticks(frame.low, frame.high):
        y = frame.y(value)
        css = "zero" if value == 0 else "grid"
        parts.append(f'<line class="{css}" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 6}" y="{y + 3:.1f}" text-anchor="end">'
            f"{escape(fmt(value))}</text>"
        )
    base = frame.height - 6
    parts += [
        f'<text class="tick" x="{frame.x(index):.1f}" y="{base}" text-anchor="middle">'
        f"{escape(frame.days[index][5:])}</text>"
        for index in _labelled(len(frame.days))
    ]
    return "".join(parts)


def _labelled(count: int) -> list[int]:
    """Indices of the days that get a label: the last one, and evenly spaced ones before it."""
    stride = max(1, math.ceil(count / 5))
    return list(range(count - 1, -1, -stride))


def _rule(frame: _Frame, rule: Rule) -> str:
    y = frame.y(rule.value)
    right = frame.width - _RIGHT
    return (
        f'<line class="{rule.css}" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="{rule.css}-label" x="{_LEFT + 3}" y="{y - 3:.1f}">'
        f"{escape(rule.label)}</text>"
    )


def _edge_note(frame: _Frame, rule: Rule, fmt: Format) -> str:
    under = rule.value < frame.low
    y = frame.height - _BOTTOM - 4 if under else _TOP + 8
    arrow = "↓" if under else "↑"
    return (
        f'<text class="{rule.css}-label" x="{_LEFT + 3}" y="{y}">'
        f"{escape(rule.label)} {escape(fmt(rule.value))} {arrow}</text>"
    )


def _path(frame: _Frame, series: Series, kind: str) -> str:
    commands, pen = [], "M"
    for index, value in enumerate(series.values):
        if value is None:
            pen = "M"
            continue
        commands.append(f"{pen}{frame.x(index):.1f} {frame.y(value):.1f}")
        pen = "L"
    return f'<path class="{kind} {series.css}" d="{"".join(commands)}"/>' if commands else ""


def _dots(frame: _Frame, series: Series, broken: frozenset[tuple[str, str]]) -> str:
    crowded = len(frame.days) > 31
    parts = []
    for index, value in enumerate(series.values):
        if value is None:
            continue
        bad = (series.name, frame.days[index]) in broken
        if crowded and not bad and _has_neighbour(series.values, index):
            continue
        css, radius = ("broken", 4.5) if bad else (series.css, 2.4)
        x, y = frame.x(index), frame.y(value)
        parts.append(f'<circle class="dot {css}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>')
    return "".join(parts)


def _has_neighbour(values: Sequence[float | None], index: int) -> bool:
    around = (*values[max(index - 1, 0) : index], *values[index + 1 : index + 2])
    return any(v is not None for v in around)


def _last_values(frame: _Frame, series: Sequence[Series], fmt: Format) -> list[str]:
    """The last value of each line in its colour, moved apart where two would overlap."""
    ends: list[tuple[float, str, str]] = []
    for s in series:
        known = [v for v in s.values if v is not None]
        if known:
            ends.append((frame.y(known[-1]), s.css, fmt(known[-1])))
    x, lowest, parts = frame.width - _RIGHT + 6, -math.inf, []
    for y, css, label in sorted(ends):
        lowest = max(y, lowest + 12)
        parts.append(
            f'<text class="last {css}" x="{x}" y="{lowest + 4:.1f}">{escape(label)}</text>'
        )
    return parts


def _stack(frame: _Frame, index: int, layers: Sequence[Series], *, sign: int) -> list[str]:
    width = min(frame.step * 0.72, 10.0 + frame.width / 24)
    x, base, parts = frame.x(index) - width / 2, 0.0, []
    for layer in layers:
        value = layer.values[index]
        if not value:
            continue
        top = base + sign * value
        upper, lower = frame.y(max(base, top)), frame.y(min(base, top))
        parts.append(
            f'<rect class="bar {layer.css}" x="{x:.1f}" y="{upper:.1f}" width="{width:.1f}" '
            f'height="{max(lower - upper, 0.5):.1f}"/>'
        )
        base = top
    return parts


def _tooltips(frame: _Frame, series: Sequence[Series], fmt: Format) -> list[str]:
    inner = frame.height - _TOP - _BOTTOM
    parts = []
    for index, ds in enumerate(frame.days):
        lines = [ds, *(f"{s.name}  {fmt(s.values[index])}" for s in series)]
        x = frame.x(index) - frame.step / 2
        parts.append(
            f'<rect class="hit" x="{x:.1f}" y="{_TOP}" width="{frame.step:.1f}" '
            f'height="{inner:.1f}"><title>{escape(chr(10).join(lines))}</title></rect>'
        )
    return parts


def _empty(title: str, size: tuple[float, float]) -> Markup:
    text = (
        f'<text class="empty" x="{size[0] / 2}" y="{size[1] / 2}" text-anchor="middle">'
        "not measured</text>"
    )
    return _svg([text], title, size)


def _svg(parts: Sequence[str], title: str, size: tuple[float, float]) -> Markup:
    # Every piece of text in `parts` went through escape().
    return Markup(  # noqa: S704
        f'<svg class="chart" viewBox="0 0 {size[0]:g} {size[1]:g}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )

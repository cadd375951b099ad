"""A forest plot as a picture of its own: differences with their intervals around zero."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"
 height="{height}" font-family="sans-serif" font-size="12">
<rect width="{width}" height="{height}" fill="#fff"/>"""
_MIDDLE = 'text-anchor="middle" fill="#555"'


@dataclass(frozen=True, kw_only=True, slots=True)
class Whisker:
    """One line of the plot; without an interval, which is NaN, nothing is drawn.

    Attributes:
        decided: whether it stands out.
    """

    label: str
    mean: float
    low: float
    high: float
    decided: bool


def forest_plot(title: str, rows: Sequence[Whisker]) -> str:
    """Differences as dots with their intervals, one line per row, around a line at zero."""
    width, left, right, step, top = 640, 170, 20, 26, 44
    height = top + step * len(rows) + 30
    rows = [r for r in rows if not math.isnan(r.low)]
    edge = max((abs(x) for r in rows for x in (r.low, r.high)), default=0.0)
    edge = (edge or 1.0) * 1.1

    def x(value: float) -> float:
        return left + (value + edge) / (2 * edge) * (width - left - right)

    zero = x(0)
    parts = [
        _SVG.format(width=width, height=height),
        f'<text x="12" y="20" font-size="13" font-weight="bold">{escape(title)}</text>',
        f'<line x1="{zero}" x2="{zero}" y1="{top - 8}" y2="{height - 26}" stroke="#999"/>',
    ]
    parts += [
        f'<text x="{x(tick):.1f}" y="{height - 8}" {_MIDDLE}>{tick:+.4f}</text>'
        for tick in (-edge / 1.1, 0.0, edge / 1.1)
    ]
    for number, row in enumerate(rows):
        y = top + step * (number + 0.5)
        color = "#1f5fa8" if row.decided else "#888"
        line = f'x1="{x(row.low):.1f}" x2="{x(row.high):.1f}" y1="{y}" y2="{y}" stroke="{color}"'
        parts += [
            f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{escape(row.label)}</text>',
            f'<line {line} stroke-width="2"/>',
            f'<circle cx="{x(row.mean):.1f}" cy="{y}" r="4" fill="{color}"/>',
        ]
    return "\n".join([*parts, "</svg>", ""])

"""Numbers as people read them: three digits, a unit, and a dash for what was not measured."""

from collections.abc import Callable
from typing import Literal

Kind = Literal["ratio", "cosine", "share", "count", "seconds", "bytes", "plain", "difference"]

DASH = "\N{EN DASH}"
# Axes are at least this wide, so that noise in the last digit does not look like news.
LEAST_SPAN: dict[Kind, float] = {
    "ratio": 0.02,
    "cosine": 0.002,
    "share": 0.02,
    "count": 4.0,
    "seconds": 1.0,
    "bytes": 1024.0,
    "plain": 0.5,
    "difference": 0.005,
}
_THOUSANDS = ("", " k", " M", " G", " T")


def show(value: float | None, kind: Kind) -> str:
    """A number in the fewest characters that still say it.

    >>> show(0.78125, "ratio"), show(0.05, "share"), show(1_240_000, "count")
    ('0.781', '5.0 %', '1.24 M')
    """
    return DASH if value is None else _SHOW[kind](value)


def show_change(value: float, kind: Kind) -> str:
    """A difference with its sign; points of a percentage for shares.

    >>> show_change(0.012, "share"), show_change(-0.00004, "ratio"), show_change(-0.1, "ratio")
    ('+1.2 pp', '+0.000', '-0.100')
    """
    if kind == "share":
        return f"{round(100 * value, 1) + 0.0:+.1f} pp"
    digits = 4 if kind == "cosine" else 3
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def _scaled(value: float, base: int, suffixes: tuple[str, ...]) -> str:
    power = 0
    # 999.5 would be shown as 1000: it belongs to the next suffix.
    while abs(value) >= base * 0.9995 and power < len(suffixes) - 1:
        value, power = value / base, power + 1
    if power == 0 and value == int(value):
        return f"{int(value)}{suffixes[0]}"
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f}{suffixes[power]}"


def _seconds(value: float) -> str:
    if value < 60:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    minutes, seconds = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} m {seconds:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} m"


def _share(value: float) -> str:
    percent = 100 * value
    return f"{percent:.0f} %" if percent in (0.0, 100.0) else f"{percent:.1f} %"


_SHOW: dict[Kind, Callable[[float], str]] = {
    "ratio": lambda v: f"{v:.3f}",
    # A pool moves in the fourth digit: most of it is carried over unchanged.
    "cosine": lambda v: f"{v:.4f}",
    "share": _share,
    "count": lambda v: _scaled(v, 1000, _THOUSANDS),
    "seconds": _seconds,
    "bytes": lambda v: _scaled(v, 1024, (" B", " KiB", " MiB", " GiB", " TiB")),
    "plain": lambda v: f"{v:.3g}",
    "difference": lambda v: f"{round(v, 4) + 0.0:+.4f}",
}

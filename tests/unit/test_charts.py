"""Charts as numbers: where things are drawn, and that what was not measured is not drawn."""

import itertools
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.contracts.base import days_between
from jobs.rendering.charts import Rule, Series, line_chart, stacked_bars, ticks
from jobs.rendering.numbers import DASH, show, show_change

DAYS = days_between("2025-03-01", "2025-03-05")


def _fmt(value: float | None) -> str:
    return show(value, "plain")


def _parse(drawn: str) -> ET.Element:
    return ET.fromstring(drawn)  # noqa: S314 - our own drawing


def _line(*values: float | None, **options: object) -> ET.Element:
    series = [Series(name="ctr", css="ctr", values=values)]
    return _parse(line_chart(DAYS[: len(values)], series, _fmt, title="t", **options))


def _bars(above: list[Series], below: list[Series]) -> list[ET.Element]:
    drawn = _parse(stacked_bars(DAYS[:2], above, _fmt, title="t", below=below))
    return [e for e in drawn.iter("rect") if "bar" in e.get("class", "")]


def _series(css: str, *values: float | None) -> Series:
    return Series(name=css, css=css, values=values)


def test_a_missing_day_is_a_gap_and_not_a_zero() -> None:
    drawn = _line(1.0, 2.0, None, 2.0, 3.0)
    path = next(e for e in drawn.iter("path")).get("d")
    assert re.findall("[ML]", path) == ["M", "L", "M", "L"]
    assert len(list(drawn.iter("circle"))) == 4


def test_higher_values_are_drawn_higher() -> None:
    heights = [float(c.get("cy")) for c in _line(1.0, 2.0, 3.0).iter("circle")]
    assert heights == sorted(heights, reverse=True)


def test_every_day_has_a_tooltip_with_its_value() -> None:
    titles = [e.text for e in _line(1.0, None).iter("title")]
    assert titles == ["2025-03-01\nctr  1", f"2025-03-02\nctr  {DASH}"]


def test_a_near_bound_is_a_line_and_a_far_one_is_named_at_the_edge() -> None:
    near = _line(0.9, 0.8, rules=[Rule(value=0.75, css="bound", label="bound")])
    far = _line(0.9, 0.8, rules=[Rule(value=-9.0, css="bound", label="bound")])
    assert [e for e in near.iter("line") if e.get("class") == "bound"]
    assert not [e for e in far.iter("line") if e.get("class") == "bound"]
    assert any("-9 ↓" in (e.text or "") for e in far.iter("text"))


def test_a_broken_value_is_marked() -> None:
    drawn = _line(1.0, 2.0, broken=frozenset({("ctr", "2025-03-02")}))
    assert ["broken" in c.get("class") for c in drawn.iter("circle")] == [False, True]


def test_last_values_do_not_overlap() -> None:
    series = [_series("ctr", 1.0, 5.0), _series("cvr", 9.0, 5.0)]
    drawn = _parse(line_chart(DAYS[:2], series, _fmt, title="t"))
    ends = sorted(float(e.get("y")) for e in drawn.iter("text") if "last" in e.get("class"))
    assert ends[1] - ends[0] >= 11.9


@pytest.mark.parametrize("values", [(), (None, None)])
def test_nothing_measured_is_said(values: tuple[None, ...]) -> None:
    assert [e.text for e in _line(*values).iter("text")] == ["not measured"]


def test_bars_stack_up_and_hang_down_by_their_values() -> None:
    bars = _bars([_series("a", 1.0, None), _series("b", 3.0, 2.0)], [_series("c", 0.5, 0.0)])
    sizes = {(b.get("class"), b.get("x")): float(b.get("height")) for b in bars}
    first = {css.split()[1]: h for (css, x), h in sizes.items() if x == bars[0].get("x")}
    assert first["b"] == pytest.approx(3 * first["a"], rel=0.01)
    assert first["c"] == pytest.approx(first["a"] / 2, rel=0.02)
    assert len(bars) == 4  # nothing is drawn for None or zero


def test_text_is_escaped() -> None:
    series = [Series(name="<&>", css="ctr", values=(1.0,))]
    drawn = line_chart(DAYS[:1], series, lambda _: "<b>", title="a<b")
    assert "<b>" not in drawn
    _parse(drawn)


def test_noise_is_not_blown_up() -> None:
    def spread(**options: float) -> float:
        heights = [float(c.get("cy")) for c in _line(0.9998, 0.9999, **options).iter("circle")]
        return heights[0] - heights[1]

    assert spread() > 80
    assert spread(least_span=0.002) < 6


def test_an_axis_of_counts_does_not_go_below_zero() -> None:
    drawn = _line(0.0, 0.0, least_span=4.0)
    labels = [e.text for e in drawn.iter("text") if e.get("class") == "tick"]
    assert not [x for x in labels if x and x.startswith("-")]


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [(0.012, "share", "+1.2 pp"), (-0.00004, "ratio", "+0.000"), (-0.1, "ratio", "-0.100"),
     (-0.00004, "cosine", "+0.0000"), (0.0004, "cosine", "+0.0004"), (-0.0001, "share", "+0.0 pp")],
)  # fmt: skip
def test_changes_have_a_sign_and_no_minus_zero(value: float, kind: str, text: str) -> None:
    assert show_change(value, kind) == text


@given(
    low=st.floats(-1e9, 1e9),
    width=st.floats(1e-3, 1e9),
)
def test_ticks_are_inside_few_and_evenly_spaced(low: float, width: float) -> None:
    high = low + width
    found = ticks(low, high)
    slack = 1e-6 * max(abs(low), abs(high), width)
    assert 1 <= len(found) <= 6
    assert all(low - slack <= t <= high + slack for t in found)
    gaps = [b - a for a, b in itertools.pairwise(found)]
    assert gaps == pytest.approx([gaps[0]] * len(gaps), rel=1e-3) if gaps else True


@given(values=st.lists(st.one_of(st.none(), st.floats(-1e12, 1e12)), min_size=1, max_size=5))
def test_every_line_stays_inside_its_frame(values: list[float | None]) -> None:
    for circle in _line(*values).iter("circle"):
        assert 0 <= float(circle.get("cx")) <= 300
        assert 0 <= float(circle.get("cy")) <= 150


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (None, "count", DASH),
        (0.0, "count", "0"),
        (999.0, "count", "999"),
        (999.9, "count", "1.00 k"),
        (12_345.0, "count", "12.3 k"),
        (1e15, "count", "1000 T"),
        (-2_500.0, "count", "-2.50 k"),
        (512.0, "bytes", "512 B"),
        (1536.0, "bytes", "1.50 KiB"),
        (0.4, "seconds", "0.4 s"),
        (59.6, "seconds", "60 s"),
        (61.0, "seconds", "1 m 01 s"),
        (3725.0, "seconds", "1 h 02 m"),
        (1.0, "share", "100 %"),
        (0.876, "share", "87.6 %"),
        (0.98765, "ratio", "0.988"),
    ],
)
def test_numbers_as_people_read_them(value: float | None, kind: str, text: str) -> None:
    assert show(value, kind) == text

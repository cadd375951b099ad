"""From results to the numbers of a report: levels, differences, hypotheses.

Shapes: S seeds, D rounds of a seed.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from experiments.harness.design import Design, Hypothesis, Measure, Published
from experiments.harness.results import Result
from experiments.harness.statistics import Interval, Rows, Statistic, holm, interval, over_users

Kind = Literal["reference", "baseline", "variant", "placebo"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row of one table: its level, and its paired difference to the baseline."""

    name: str
    kind: Kind
    data: str
    measure: Measure
    level: Interval
    difference: Interval
    seeds: int
    published: Published | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of a hypothesis on one data set; p is Holm's over all of them."""

    hypothesis: Hypothesis
    data: str
    difference: Interval

    @property
    def word(self) -> str:
        """Whether it held: `held`, `not shown` or `contradicted`."""
        found, expected = self.difference.verdict, self.hypothesis.expected
        if found == expected:
            return "held"
        return "not shown" if found == "open" else "contradicted"


class Tables:
    """The numbers of a design over some seeds; what has not run yet is left out."""

    def __init__(self, design: Design, results: list[Result], seeds: int) -> None:
        self.design, self._seeds = design, seeds
        self._found = {(r.row, r.data, r.seed): r.measured for r in results}
        self._kinds: dict[str, Kind] = dict.fromkeys(design.references, "reference")
        for variant in design.variants:
            self._kinds[variant.name] = "placebo" if variant.placebo else "variant"
        self._kinds[design.baseline.name] = "baseline"

    def rows(self, measure: Measure, data: str) -> list[Row]:
        """One table: rows that have the measure; differences of variants corrected together."""
        base = self.design.baseline.name
        names = [n for n in self._kinds if n == base or self._has(n, measure, data)]
        paired = {n: self._difference(n, base, measure, data) for n in names}
        tested = [n for n in names if self._kinds[n] == "variant"]
        paired |= zip(tested, holm([paired[n] for n in tested]), strict=True)
        return [
            Row(
                name=n,
                kind=self._kinds[n],
                data=data,
                measure=measure,
                level=self._level(n, measure, data),
                difference=paired[n],
                seeds=int((~np.isnan(self._matrix(n, measure, data)).all(axis=1)).sum()),
                published=self._published(n, measure),
            )
            for n in names
        ]

    def outcomes(self) -> list[Outcome]:
        """What became of the hypotheses, all corrected together."""
        measures = {m.name: m for m in self.design.measures}
        asked = [(h, data) for data in self.design.data for h in self.design.hypotheses]
        base = self.design.baseline.name
        found = [
            self._difference(h.variant, h.against or base, measures[h.measure], data)
            for h, data in asked
        ]
        return [
            Outcome(hypothesis=h, data=data, difference=x)
            for (h, data), x in zip(asked, holm(found), strict=True)
        ]

    def _level(self, name: str, measure: Measure, data: str) -> Interval:
        if statistic := self._statistic(measure):
            rows = [mine for _, mine in self._users(name, data)]
            return over_users(statistic, [(mine, None) for mine in rows])
        return interval(self._matrix(name, measure, data))

    def _difference(self, name: str, other: str, measure: Measure, data: str) -> Interval:
        if name == other:
            return interval(np.zeros((self._seeds, 1)))
        if statistic := self._statistic(measure):
            theirs = dict(self._users(other, data))
            ours = self._users(name, data)
            return over_users(statistic, [(mine, theirs[s]) for s, mine in ours if s in theirs])
        return interval(self._matrix(name, measure, data) - self._matrix(other, measure, data))

    def _statistic(self, measure: Measure) -> Statistic | None:
        return measure.statistic if self.design.drawn == "users" else None

    def _users(self, name: str, data: str) -> list[tuple[int, Rows]]:
        """By seed the rows of users that a row of the table has."""
        found = [(s, self._found.get((name, data, s))) for s in range(self._seeds)]
        return [(s, x.rows) for s, x in found if x is not None and x.rows is not None]

    def _has(self, name: str, measure: Measure, data: str) -> bool:
        if self._statistic(measure) and self._users(name, data):
            return True
        return not np.isnan(self._matrix(name, measure, data)).all()

    def _matrix(self, name: str, measure: Measure, data: str) -> npt.NDArray[np.float64]:
        """Values [S, D]; NaN where a seed or a round has none."""
        values = np.full((self._seeds, self.design.rounds), np.nan)
        for seed in range(self._seeds):
            if measured := self._found.get((name, data, seed)):
                found = [metrics.get(measure.name, np.nan) for metrics in measured.rounds]
                values[seed, : len(found)] = found
        return values

    def _published(self, name: str, measure: Measure) -> Published | None:
        told = (p for p in self.design.published if (p.variant, p.measure) == (name, measure.name))
        return next(told, None)

"""What an experiment is: what is compared, what is measured, what is expected beforehand.

A module that is an experiment has two things: `Options`, a frozen dataclass whose fields may be set
on the command line, and `design(options)`, which returns a `Design`. The rest follows.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from experiments.harness.statistics import Rows, Statistic
from feature_store.contracts.digests import content_digest

Better = Literal["up", "down"] | None
Metrics = Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One way of doing it; an experiment adds fields of its own, which decide a cell.

    Attributes:
        name: of its row in every table.
        placebo: nothing can come of it, such as vectors shuffled over users; a difference that is
            found all the same accuses the measurement.
    """

    name: str
    placebo: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """One table of the report.

    Attributes:
        meaning: what it is, beginning with a small letter.
        better: which way; None where neither is.
        statistic: the measure from rows of users; needed where users are what is drawn.
    """

    name: str
    meaning: str
    better: Better = None
    statistic: Statistic | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Hypothesis:
    """What is expected before anything has run.

    Attributes:
        says: a sentence.
        expected: the sign of the difference of the measure; `open` where none should show.
        against: what the variant is compared with; the baseline where empty.
    """

    says: str
    variant: str
    measure: str
    expected: Literal["up", "down", "open"]
    against: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A number that somebody else printed, on their data: it stands beside ours, not against it."""

    variant: str
    measure: str
    value: float
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What one row measured in one cell.

    Attributes:
        rounds: metrics by name, one after another (the days of a world); they count as one number.
        rows: columns by name, `user` among them (int64): what the statistics of measures read.
    """

    rounds: tuple[Metrics, ...]
    rows: Rows | None = None

    @classmethod
    def once(cls, metrics: Metrics, rows: Rows | None = None) -> "Measured":
        """Metrics that are measured a single time."""
        return cls(rounds=(metrics,), rows=rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A variant on a data set with a seed: what runs at once, and is kept when it has run."""

    data: str
    variant: Variant
    seed: int

    def __str__(self) -> str:
        return f"{self.variant.name} on {self.data}, seed {self.seed}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Design:
    """An experiment: data sets x variants x seeds.

    Attributes:
        name: of its files.
        introduction: Markdown, below the title; `{seeds}` becomes their number.
        run: makes a cell. What it hands back goes by the name of the row: the variant's, and with
            the baseline's cell those of `references`, what numbers are read against.
        variants: the baseline is the first one.
        settings: what decides every cell beside data set, variant and seed; a frozen dataclass.
        drawn: what another sample would have other ones of. `worlds`: each seed is a world of its
            own, intervals are Student's t over seeds. `users`: the data are given, their users are
            resampled, and seeds are averaged.
        rounds: how many a cell has.
    """

    name: str
    title: str
    introduction: str
    run: Callable[[Cell], Mapping[str, Measured]]
    variants: tuple[Variant, ...]
    measures: tuple[Measure, ...]
    settings: Any
    references: tuple[str, ...] = ()
    data: tuple[str, ...] = ("simulated",)
    drawn: Literal["worlds", "users"] = "worlds"
    hypotheses: tuple[Hypothesis, ...] = ()
    published: tuple[Published, ...] = ()
    rounds: int = 1

    def __post_init__(self) -> None:
        rows = [*self.references, *(v.name for v in self.variants)]
        measures = [m.name for m in self.measures]
        for names in (rows, measures, self.data):
            if not names or len(set(names)) < len(names):
                raise ValueError(f"{self.name}: expected names that differ, found {list(names)}")
        asked = [(h.variant, h.measure) for h in self.hypotheses]
        for row, measure in (*asked, *((p.variant, p.measure) for p in self.published)):
            if row not in rows or measure not in measures:
                raise ValueError(f"{self.name}: no such row or measure: {row}, {measure}")
        if self.drawn == "users" and not any(m.statistic for m in self.measures):
            raise ValueError(f"{self.name}: no measure has a statistic of users' rows")

    @property
    def baseline(self) -> Variant:
        """What the others are compared with."""
        return self.variants[0]

    def cells(self, seeds: int) -> Iterator[Cell]:
        """Every cell, those that share data and seed one after another."""
        for name in self.data:
            for seed in range(seeds):
                for variant in self.variants:
                    yield Cell(data=name, variant=variant, seed=seed)

    def key(self, cell: Cell) -> str:
        """Digest of all that decides a cell, the code apart."""
        return content_digest(
            self.name, _text(self.settings), cell.data, _text(cell.variant), str(cell.seed)
        )

    def plan(self) -> str:
        """Digest of what was said before: baseline, measures and hypotheses."""
        said = [self.name, _text(self.baseline)]
        said += [f"{m.name} {m.better}" for m in self.measures]
        said += [_text(h) for h in self.hypotheses]
        return content_digest(*said)

    def chosen(self, *, variants: tuple[str, ...], data: tuple[str, ...]) -> "Design":
        """The baseline and some of the variants on some data; hypotheses on others wait."""
        rows = {*self.references, self.baseline.name, *variants}
        return dataclasses.replace(
            self,
            variants=tuple(v for v in self.variants if v.name in rows),
            data=tuple(name for name in self.data if name in data),
            hypotheses=tuple(
                h for h in self.hypotheses if {h.variant, h.against or h.variant} <= rows
            ),
            published=tuple(p for p in self.published if p.variant in rows),
        )


def _text(value: Any) -> str:
    return json.dumps(dataclasses.asdict(value), sort_keys=True)

"""A user's own data set: a TOML declaration says which columns mean what (docs/howto)."""

import json
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator, Field, ValidationError, model_validator

from feature_store.contracts.base import Contract, Day, Entity, day_number
from feature_store.contracts.bounds import Bounds
from feature_store.contracts.datasets import (
    DatasetSpec,
    EmptyDays,
    Feature,
    FeatureKind,
    FeatureScope,
)
from feature_store.contracts.datasets import Label as DeclaredLabel
from feature_store.contracts.digests import content_digest, file_sha256
from feature_store.contracts.errors import InputError
from feature_store.contracts.upstreams import UpstreamDeclaration
from feature_store.lake.filing import never_late
from jobs.datasets.base import DayTables, read_parquet, tables_digest
from jobs.datasets.checks import Problems
from jobs.datasets.readiness import Readiness
from jobs.datasets.rolling import DAY_US


def _check_parquet(path: str) -> str:
    if Path(path).suffix not in (".parquet", ".pq"):
        raise ValueError(
            f"expected the path of a Parquet file (*.parquet), found {path!r}; a CSV becomes one "
            "by pyarrow.csv.read_csv and pyarrow.parquet.write_table"
        )
    return path


ParquetPath = Annotated[str, AfterValidator(_check_parquet)]


class EventSource(Contract):
    """Where events are, and which of their columns are which.

    Attributes:
        path: relative to the source folder; `{ds}` stands for the day. Without it, one file holds
            all days, and a day's rows are chosen by time.
        surface, action: columns; without one, every row has the first declared value.
        arrived_at, impression_id: columns that are null but on late labels; without them no label
            is late.
    """

    path: ParquetPath
    event_id: str
    user_id: str
    pin_id: str
    ts: str
    surface: str | None = None
    action: str | None = None
    duration_s: str | None = None
    arrived_at: str | None = None
    impression_id: str | None = None


class SnapshotSource(Contract):
    """Where the features of users or Pins are; `{ds}` in the path stands for the day."""

    path: ParquetPath
    id: str


class LabelSource(DeclaredLabel):
    """A label and the column it is read from; without one, the column has the label's name."""

    column: str | None = None


class FeatureSource(Contract):
    """A feature and the column it is read from; without one, the column has its name."""

    name: str
    scope: FeatureScope
    kind: FeatureKind
    meaning: str
    column: str | None = None
    cardinality: int = 1024
    dim: int = 0
    max_len: int = 0
    ids_of: Entity | None = None
    group: str = ""


class Declaration(Contract):
    """A data set in a file of its user."""

    name: str
    description: str = ""
    first_day: Day
    history_days: int = Field(default=7, ge=0)
    surfaces: tuple[str, ...] = ("all",)
    actions: tuple[str, ...] = ("impression",)
    attribution_days: int = 0
    daily_rows: tuple[int, int] = (1, 2**62)
    freshness_hours: int = 24
    events: EventSource
    users: SnapshotSource
    pins: SnapshotSource
    labels: tuple[LabelSource, ...]
    features: tuple[FeatureSource, ...]
    upstreams: tuple[UpstreamDeclaration, ...] = ()
    label_rates: dict[str, tuple[float, float]] = Field(default_factory=dict)
    surface_features: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    guards: Bounds = Bounds()
    empty_days: EmptyDays = "refuse"
    ready: Readiness | None = None

    @model_validator(mode="after")
    def _names_one_label_column(self) -> Self:
        columns = {(x.name, x.column or x.name) for x in self.labels}
        if len(columns) > len({name for name, _ in columns}):
            raise ValueError("a label that two upstreams learn must name one column")
        return self

    @model_validator(mode="after")
    def _counts_the_events_of_a_day(self) -> Self:
        if self.ready and self.ready.min_events and "{ds}" not in self.events.path:
            raise ValueError(
                "ready.min_events needs a file of events for each day: {ds} in its path"
            )
        return self

    @model_validator(mode="after")
    def _says_which_labels_are_late(self) -> Self:
        columns = (self.events.arrived_at, self.events.impression_id)
        if any((c is None) != (self.attribution_days == 0) for c in columns):
            raise ValueError(
                "attribution_days > 0 means that labels may arrive late, and needs the columns"
                " events.arrived_at and events.impression_id; without it there are none"
            )
        return self

    def spec(self) -> DatasetSpec:
        """The data set it declares."""
        return DatasetSpec(
            labels=tuple(DeclaredLabel(**x.model_dump(exclude={"column"})) for x in self.labels),
            features=tuple(Feature(**x.model_dump(exclude={"column"})) for x in self.features),
            **{
                name: getattr(self, name)
                for name in (
                    *(
                        "name",
                        "description",
                        "surfaces",
                        "actions",
                        "attribution_days",
                        "upstreams",
                    ),
                    *("daily_rows", "freshness_hours", "label_rates", "guards", "empty_days"),
                    "surface_features",
                )
            },
        )


@dataclass(frozen=True, kw_only=True)
class DeclaredAdapter:
    """The data set that the file `path` declares, read from below `folder`."""

    path: Path
    folder: Path

    @cached_property
    def declaration(self) -> Declaration:
        """The file's content.

        Raises:
            InputError: it is no TOML, or it breaks the declaration's rules.
        """
        try:
            content = tomllib.loads(self.path.read_text())
            declaration = Declaration.model_validate_json(json.dumps(content, default=str))
            declaration.spec()
        except (tomllib.TOMLDecodeError, ValidationError, OSError, UnicodeDecodeError) as error:
            raise InputError(
                "the declaration of a data set is wrong",
                where=str(self.path),
                found=str(error),
                hint="docs/howto/own_dataset.md explains every key",
            ) from error
        return declaration

    @property
    def history_days(self) -> int:
        """As declared."""
        return self.declaration.history_days

    @property
    def spec(self) -> DatasetSpec:
        """The declaration of its tables."""
        return self.declaration.spec()

    def first_day(self) -> str:
        """As declared."""
        return self.declaration.first_day

    def last_day(self) -> None:
        """Days keep arriving."""
        return

    def read_day(self, ds: str) -> DayTables:
        """The tables of a day, columns under their declared names.

        Raises:
            ContractViolation: a file is missing or damaged, or lacks a column.
        """
        declared = self.declaration
        names = {
            "events": self._event_columns(),
            "users": self._columns("user"),
            "pins": self._columns("pin"),
        }
        problems = Problems(ds, names)
        tables = {
            name: self._read(name, getattr(declared, name).path, columns, problems)
            for name, columns in names.items()
        }
        problems.refuse(f"repair the source or its declaration {self.path}")
        events = self._completed(tables["events"])
        if "{ds}" not in declared.events.path:
            events = _of_day(events, ds)
        return DayTables(events=events, users=tables["users"], pins=tables["pins"], names=names)

    def files(self, ds: str) -> tuple[Path, ...]:
        """The files that are named after the day, and the file of all events.

        Users or Pins in one file for all days are as they are when a day is ingested: where such a
        file grows every day, that must not make yesterday stale.
        """
        declared = self.declaration
        shared = (declared.users.path, declared.pins.path)
        paths = (declared.events.path, *(p for p in shared if "{ds}" in p))
        return tuple(self.folder / p.replace("{ds}", ds) for p in paths)

    def fingerprint(self, ds: str) -> str:
        """Digest of the files of the day; of one file of all events, of the day's rows.

        Raises:
            ContractViolation: the events cannot be read.
        """
        events, *others = self.files(ds)
        if "{ds}" in self.declaration.events.path:
            return content_digest(*(file_sha256(path) for path in (events, *others)))
        rows = tables_digest(self.read_day(ds).events)
        return content_digest(rows, *(file_sha256(path) for path in others))

    def _event_columns(self) -> dict[str, str]:
        """Declared name -> column of the source."""
        source = self.declaration.events.model_dump(exclude={"path"})
        columns = {name: column for name, column in source.items() if column is not None}
        columns |= {x.name: x.column or x.name for x in self.declaration.labels}
        return columns | self._features("context")

    def _columns(self, scope: Literal["user", "pin"]) -> dict[str, str]:
        source = self.declaration.users if scope == "user" else self.declaration.pins
        return {f"{scope}_id": source.id} | self._features(scope)

    def _features(self, scope: FeatureScope) -> dict[str, str]:
        return {f.name: f.column or f.name for f in self.declaration.features if f.scope == scope}

    def _read(self, table: str, path: str, columns: dict[str, str], problems: Problems) -> pa.Table:
        file = self.folder / path.replace("{ds}", problems.ds)
        data = read_parquet(file, problems, table=table)
        if not data.num_columns:
            return data
        absent = [name for name, column in columns.items() if column not in data.column_names]
        for name in absent:
            problems.add(table, name, rule="the column", found=f"not in {file}")
        if absent:
            return data
        return pa.table({name: data[column] for name, column in columns.items()})

    def _completed(self, events: pa.Table) -> pa.Table:
        declared = self.declaration
        for name, value in (
            ("surface", declared.surfaces[0]),
            ("action", declared.actions[0]),
            ("duration_s", None),
        ):
            if name not in events.column_names:
                kind = pa.float32() if value is None else pa.string()
                column = pa.array([value] * len(events), kind)
                events = events.append_column(name, column)
        return events if declared.events.arrived_at else never_late(events)


def _of_day(events: pa.Table, ds: str) -> pa.Table:
    """The rows filed under a day; all when a time is of a wrong type, which is noted later."""
    kinds = (events.schema.field(c).type for c in ("ts", "arrived_at"))
    if any(not pa.types.is_timestamp(kind) or kind.tz is None for kind in kinds):
        return events
    start = pa.scalar(day_number(ds) * DAY_US, pa.timestamp("us", tz="UTC"))
    end = pa.scalar((day_number(ds) + 1) * DAY_US, pa.timestamp("us", tz="UTC"))
    arrived, shown = (events[c].cast(start.type, safe=False) for c in ("arrived_at", "ts"))
    times = pc.coalesce(arrived, shown)
    return events.filter(pc.and_(pc.greater_equal(times, start), pc.less(times, end)))

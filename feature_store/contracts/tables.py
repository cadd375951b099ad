"""Tables as data: one declaration, from which schemas, checks and docs are derived."""

import json
from typing import Literal, Self

from pydantic import model_validator

from feature_store.contracts.base import Contract, Entity, Upstream

Dtype = Literal[
    "string",
    "bool",
    "int8",
    "int32",
    "int64",
    "float32",
    "float64",
    "timestamp",
    "binary",
    "list<string>",
    "list<float32>",
    "list<int64>",
    "list<timestamp>",
]

_DELTA_PRIMITIVE = {
    "string": "string",
    "bool": "boolean",
    "int8": "byte",
    "int32": "integer",
    "int64": "long",
    "float32": "float",
    "float64": "double",
    "timestamp": "timestamp",
    "binary": "binary",
}


# Ids become keys of a store, lines of files and names in messages: what nobody can see is no part
# of one, and their length is bounded. Colons, slashes, blanks inside and every script are.
ID_BYTES = 256
ID_RULE = (
    f"an id of at most {ID_BYTES} bytes (UTF-8), without control, format or line-separating "
    "characters, and without a blank at either end"
)


class Column(Contract):
    """One column.

    Attributes:
        values: the closed set of allowed values, when there is one (strings only).
        minimum: smallest allowed value, when there is one (numbers only).
        is_id: its values obey the rule of ids (`ID_RULE`), which a source is held to.
    """

    name: str
    dtype: Dtype
    meaning: str
    nullable: bool = False
    values: tuple[str, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    is_id: bool = False


class Table(Contract):
    """A Delta table: `grain` says in one sentence what a row is; `key` is unique within a day.

    `ds` (and `bucket`, for embedding tables) are partition columns: they live in the folder names
    and the Delta log, not in the files.
    """

    name: str
    grain: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    partition_by: tuple[Literal["ds", "bucket"], ...] = ("ds",)

    @model_validator(mode="after")
    def _names_are_consistent(self) -> Self:
        names = [c.name for c in self.columns]
        if len(set(names)) != len(names):
            raise ValueError(f"table {self.name}: duplicate column names in {names}")
        if missing := [k for k in self.key if k not in names]:
            raise ValueError(f"table {self.name}: key columns {missing} are not declared")
        if clash := {"ds", "bucket"} & set(names):
            raise ValueError(f"table {self.name}: {sorted(clash)} are partition columns")
        return self

    @property
    def bucketed(self) -> bool:
        """Whether the table is split by `bucket` inside a day."""
        return "bucket" in self.partition_by

    @property
    def bucket_key(self) -> str:
        """The column by which a bucketed table is split: the first id of its key."""
        return next((name for name in self.key if name.endswith("_id")), self.key[0])

    def column(self, name: str) -> Column:
        """The declaration of one column.

        Raises:
            KeyError: there is no such column.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"table {self.name} has no column {name!r}")

    def delta_schema_json(self) -> str:
        """The schema, partition columns included, in the JSON that Delta and Spark share."""
        fields = [_delta_field(c) for c in self.columns]
        if "ds" in self.partition_by:
            fields.append(_field("ds", "string", nullable=False))
        if self.bucketed:
            fields.append(_field("bucket", "integer", nullable=False))
        return json.dumps({"type": "struct", "fields": fields})


def _field(name: str, dtype: object, *, nullable: bool) -> dict[str, object]:
    return {"name": name, "type": dtype, "nullable": nullable, "metadata": {}}


def _delta_field(column: Column) -> dict[str, object]:
    if column.dtype.startswith("list<"):
        element = _DELTA_PRIMITIVE[column.dtype[5:-1]]
        array = {"type": "array", "elementType": element, "containsNull": False}
        return _field(column.name, array, nullable=column.nullable)
    return _field(column.name, _DELTA_PRIMITIVE[column.dtype], nullable=column.nullable)


def raw_table(upstream: Upstream, entity: Entity) -> Table:
    """Embeddings as inferred: one row per event in which the entity occurs."""
    return Table(
        name=f"embeddings/{upstream}/{entity}/raw",
        grain=f"one {entity} embedding of the {upstream} upstream per inferred impression",
        key=("entity_id", "event_id"),
        partition_by=("ds", "bucket"),
        columns=(
            Column(name="entity_id", dtype="string", meaning=f"{entity} id"),
            Column(name="event_id", dtype="string", meaning="the event; breaks ties of ts"),
            Column(name="ts", dtype="timestamp", meaning="time of the event, UTC"),
            _EMBEDDING,
            Column(name="snapshot_id", dtype="string", meaning="model snapshot that made it"),
            _SPACE,
        ),
    )


def daily_table(upstream: Upstream, entity: Entity) -> Table:
    """The last embedding of the day per entity."""
    return Table(
        name=f"embeddings/{upstream}/{entity}/daily",
        grain=f"one row per {entity} seen on the day: its last embedding by (ts, event_id)",
        key=("entity_id",),
        partition_by=("ds", "bucket"),
        columns=(
            Column(name="entity_id", dtype="string", meaning=f"{entity} id"),
            Column(name="ts", dtype="timestamp", meaning="time of the event kept, UTC"),
            _EMBEDDING,
            Column(name="events", dtype="int32", meaning="raw rows of the entity that day"),
            Column(
                name="intraday_cosine",
                dtype="float32",
                nullable=True,
                meaning="cosine of the first and last embedding of the day; null for one row",
            ),
            Column(name="snapshot_id", dtype="string", meaning="model snapshot that made it"),
            _SPACE,
        ),
    )


def pool_table(upstream: Upstream, entity: Entity) -> Table:
    """The aggregated embeddings that are published."""
    return Table(
        name=f"embeddings/{upstream}/{entity}/pool",
        grain=f"one row per {entity} active in the retention window, as of the end of the day",
        key=("entity_id",),
        partition_by=("ds", "bucket"),
        columns=(
            Column(name="entity_id", dtype="string", meaning=f"{entity} id"),
            _EMBEDDING,
            Column(name="last_daily", dtype="string", meaning="day of the last daily embedding"),
            Column(name="last_active", dtype="string", meaning="day of the last event"),
            Column(name="updates", dtype="int32", meaning="daily embeddings merged so far"),
            Column(
                name="previous_daily",
                dtype="binary",
                nullable=True,
                meaning="the last daily embedding, kept by the AP heuristic only",
            ),
            _SPACE,
        ),
    )


def runs_table() -> Table:
    """What ran: the memory of the pipeline, from which reports and dashboards are drawn."""
    return Table(
        name="runs",
        grain="one finished step of the day, per upstream where the step has one",
        key=("step", "upstream"),
        columns=(
            Column(name="step", dtype="string", meaning="name of the step"),
            Column(name="upstream", dtype="string", meaning="ctr, cvr, or empty for both at once"),
            Column(name="started_at", dtype="timestamp", meaning="when it began, UTC"),
            Column(name="finished_at", dtype="timestamp", meaning="when it ended, UTC"),
            Column(name="duration_s", dtype="float64", meaning="seconds it took", minimum=0),
            Column(name="metrics", dtype="string", meaning="what it measured, as JSON"),
            Column(name="manifest", dtype="string", meaning="its whole manifest, as JSON"),
        ),
    )


_EMBEDDING = Column(
    name="embedding",
    dtype="binary",
    meaning="packed little-endian vector; table properties derm.dtype and derm.dim",
)
_SPACE = Column(name="space_id", dtype="string", meaning="embedding space the vector lives in")

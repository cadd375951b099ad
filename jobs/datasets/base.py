"""What a data set's adapter is, and how it reads files without trusting them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from feature_store.contracts.datasets import DatasetSpec
from jobs.datasets.checks import Problems

_NOTHING = pa.table({})
_OF_EVERY_DATA_SET = ("events", "users", "pins")


@dataclass(frozen=True, slots=True, kw_only=True)
class DayTables:
    """A day of a data set before it is typed; columns beyond the declared ones are dropped.

    Attributes:
        more: further tables that the data set declares, by name.
        names: by table, the columns of the files that declared columns were read from, where they
            have other names.
    """

    events: pa.Table
    users: pa.Table
    pins: pa.Table
    more: Mapping[str, pa.Table] = field(default_factory=dict)
    names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, tables: Mapping[str, pa.Table]) -> Self:
        """The tables of a day by name."""
        more = {n: t for n, t in tables.items() if n not in _OF_EVERY_DATA_SET}
        return cls(**{n: tables[n] for n in _OF_EVERY_DATA_SET}, more=more)

    def table(self, name: str) -> pa.Table:
        """The table called `name`; without columns where the source has none."""
        return getattr(self, name) if name in _OF_EVERY_DATA_SET else self.more.get(name, _NOTHING)


class Adapter(Protocol):
    """One data set."""

    @property
    def history_days(self) -> int:
        """Days from the first day of the data to the first that is published, by default."""

    @property
    def spec(self) -> DatasetSpec:
        """The declaration of its tables."""

    def first_day(self) -> str:
        """The first day of the data worth starting from.

        Raises:
            InputError: the source is missing or cannot be read.
        """

    def last_day(self) -> str | None:
        """The last day there will ever be data of; None where days keep arriving."""

    def read_day(self, ds: str) -> DayTables:
        """The tables of a day, features as of its start.

        Raises:
            ContractViolation: source files are missing, damaged or of another shape.
        """

    def files(self, ds: str) -> tuple[Path, ...]:
        """The files that say what a day holds; a change of any other concerns later days alone."""

    def fingerprint(self, ds: str) -> str:
        """Digest of what those files hold of the day.

        Raises:
            ContractViolation: they cannot be read.
        """


def tables_digest(*tables: pa.Table) -> str:
    """Digest of tables as they were read, whatever their types."""
    state = xxhash.xxh3_128()
    for table in tables:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        state.update(sink.getvalue())
    return state.hexdigest()


def read_parquet(
    path: Path,
    problems: Problems,
    columns: Mapping[str, str] | None = None,
    *,
    table: str = "",
) -> pa.Table:
    """Read a source file, or note in `problems` why it cannot be read.

    Args:
        table: what it is called in messages; by default as the file is.
        columns: name -> kind (`string`, `integer`, `number`) the file must have; None reads all.

    Returns:
        The columns asked for; a table without columns when a problem was noted.
    """
    table = table or path.stem
    if not path.is_file():
        problems.add(table, rule="a source file", found=f"no file {path}", missing=True)
        return _NOTHING
    try:
        names = pq.read_schema(path).names
        if doubled := sorted({n for n in names if names.count(n) > 1}):
            problems.add(table, " ".join(doubled), rule="one column of a name", found=str(path))
            return _NOTHING
        # Only files that were written with checksums have any to verify.
        data = pq.read_table(path, partitioning=None, page_checksum_verification=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        problems.add(table, rule="a readable Parquet file", found=f"{path}: {reason}")
        return _NOTHING
    if columns is None:
        return data
    before = len(problems.found)
    for name, kind in columns.items():
        if name not in data.column_names:
            problems.add(table, name, rule="the column", found=f"not in {path}")
        elif not _is_kind(data.schema.field(name).type, kind):
            found = f"{data.schema.field(name).type} in {path}"
            problems.add(table, name, rule=f"type {kind}", found=found)
    return data.select(list(columns)) if len(problems.found) == before else _NOTHING


def _is_kind(found: pa.DataType, kind: str) -> bool:
    if kind == "string":
        return bool(pa.types.is_string(found) or pa.types.is_large_string(found))
    if kind == "integer":
        return bool(pa.types.is_integer(found))
    return bool(pa.types.is_integer(found) or pa.types.is_floating(found))

"""What is compared before a commit: the transaction API of deltalake checks nothing."""

import json
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake import Schema as DeltaSchema

from feature_store.contracts.errors import ContractViolation
from feature_store.contracts.tables import Table
from feature_store.lake.schemas import arrow_schema
from feature_store.lake.staging import StagedFile
from feature_store.lake.storage import Storage, locate


def check_staged(
    root: Storage,
    table: Table,
    ds: str,
    staged: Sequence[StagedFile],
    properties: Mapping[str, str],
) -> None:
    """Whether staged files belong to a day of a table.

    Raises:
        ContractViolation: one does not, or the layout of a table in buckets was not given.
    """
    expected = arrow_schema(table)
    if table.bucketed and (missing := {"dtype", "dim", "buckets"} - set(properties)):
        raise ContractViolation(
            f"table {table.name} is bucketed, and its layout was not given",
            expected="properties dtype, dim, buckets",
            found=f"without {' '.join(sorted(missing))}",
        )
    buckets = range(int(properties["buckets"])) if table.bucketed else (None,)
    for file in staged:
        path = root.uri(table.name, file.path)
        found = _schema_of(path) if root.exists(path) else None
        fits = file.ds == ds and file.bucket in buckets
        if found is None or not fits or not found.equals(expected):
            raise ContractViolation(
                f"staged file does not belong to {table.name} of {ds}",
                where=path,
                expected=f"day {ds}, a bucket of {buckets}, schema {expected.to_string()}",
                found=f"day {file.ds}, bucket {file.bucket}, schema "
                + (found.to_string() if found else "none: no such file"),
            )


def check_table(path: str, table: Table, handle: DeltaTable, properties: Mapping[str, str]) -> None:
    """Whether a table on disk is the one that is declared.

    Raises:
        ContractViolation: it has another schema, or was created with other properties.
    """
    declared = DeltaSchema.from_json(table.delta_schema_json())
    if json.loads(handle.schema().to_json()) != json.loads(declared.to_json()):
        raise ContractViolation(
            f"table {table.name} on disk has another schema than its declaration",
            where=path,
            expected=declared.to_json(),
            found=handle.schema().to_json(),
            hint="the data set or the software changed: use a new DERM_HOME or migrate",
        )
    for key, value in properties.items():
        found = handle.metadata().configuration.get(f"derm.{key}")
        if found != value:
            raise ContractViolation(
                f"table {table.name} was created with another {key}",
                where=path,
                expected=value,
                found=str(found),
            )


def _schema_of(uri: str) -> pa.Schema:
    filesystem, path = locate(uri)
    return pq.read_schema(path, filesystem=filesystem)

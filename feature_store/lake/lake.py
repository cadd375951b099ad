"""Delta tables by name and day: read a partition, overwrite a partition, and nothing else.

Writing has two halves, so that any process can do the first one: `stage_file` writes a Parquet
file below the table's root, where no reader looks for it; `Lake.commit` makes the staged files of
a partition visible in one transaction. The transaction API of deltalake checks nothing, so
schemas and files are compared here before a commit. A file that was staged is never deleted here,
not even after a failed commit, which may have landed: vacuum removes what no version refers to.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from deltalake.transaction import AddAction

from feature_store.contracts.artifacts import in_lake
from feature_store.contracts.errors import CommitConflict, MissingInput
from feature_store.contracts.manifests import Artifact
from feature_store.contracts.tables import Table
from feature_store.lake import content
from feature_store.lake.commit_checks import check_staged, check_table
from feature_store.lake.layout import Layout
from feature_store.lake.schemas import arrow_schema
from feature_store.lake.staging import (
    StagedFile,
    combined_digest,
    read_files,
    rows_digest,
    sort_rows,
    stage_file,
)
from feature_store.lake.storage import Storage, check_file, locate

if TYPE_CHECKING:
    import pyarrow.dataset as pads

__all__ = ["Lake", "StagedFile", "rows_digest", "sort_rows", "stage_file"]

_CHECKPOINT_INTERVAL = "10"


class Lake:
    """The tables below one root: a folder, or `s3://bucket/prefix`."""

    def __init__(self, root: Path | str | Storage) -> None:
        self.root = Storage.of(root)
        # Handles by folder and inode, which another table of the same name does not have.
        self._handles: dict[tuple[str, int], DeltaTable] = {}
        # The live files of a table, and the version they are of.
        self._listed: dict[str, tuple[str, int, pa.Table]] = {}

    def path(self, name: str) -> str:
        """The address of a table."""
        return self.root.uri(name)

    def tables(self) -> tuple[str, ...]:
        """Names of the tables there are, sorted."""
        return self.root.tables()

    def open(self, name: str) -> DeltaTable:
        """A handle on a table as it is now.

        Raises:
            MissingInput: the table does not exist.
        """
        path = self.path(name)
        key = (path, self.root.inode(f"{path}/_delta_log"))
        try:
            if known := self._handles.get(key):
                known.update_incremental()  # a tenth of the time of opening it again
                return known
            self._handles[key] = DeltaTable(path, storage_options=self.root.delta_options)
            return self._handles[key]
        except TableNotFoundError as error:
            raise MissingInput(
                f"table {name} does not exist",
                where=self.path(name),
                hint="no step has written it yet, or the lake is elsewhere: DERM_LAKE says where",
            ) from error

    def close(self, name: str) -> None:
        """Know nothing of a table any more: its folder was moved or removed."""
        path = self.path(name)
        self._handles = {key: handle for key, handle in self._handles.items() if key[0] != path}
        self._listed.pop(name, None)

    def exists(self, name: str) -> bool:
        """Whether the table has been created."""
        return DeltaTable.is_deltatable(self.path(name), self.root.delta_options)

    def days(self, name: str) -> tuple[str, ...]:
        """The days of a table, oldest first; empty when it does not exist."""
        if not self.exists(name):
            return ()
        return tuple(sorted({p["ds"] for p in self.open(name).partitions()}))

    def properties(self, name: str) -> dict[str, str]:
        """The `derm.*` properties given at creation, without their prefix."""
        configuration = self.open(name).metadata().configuration
        return {k[5:]: v for k, v in configuration.items() if k.startswith("derm.")}

    def layout(self, name: str) -> Layout:
        """How the packed values of a bucketed table are laid out.

        Raises:
            MissingInput: the table does not exist.
            ContractViolation: it was created without a layout.
        """
        return Layout.of_properties(self.properties(name), self.path(name))

    def files(self, name: str, ds: str, *, bucket: int | None = None) -> tuple[str, ...]:
        """Absolute paths of a day's files, sorted.

        Raises:
            MissingInput: the table or the day is not there.
        """
        filters = [("ds", "=", ds)]
        if bucket is not None:
            filters.append(("bucket", "=", str(bucket)))
        uris = self.open(name).file_uris(file_pruning_predicate=filters)
        if not uris and ds not in self.days(name):
            raise self._no_day(name, ds)
        # A space in the root comes back as %20, which no file system knows.
        return tuple(sorted(self.root.uri(name, uri[uri.rindex("/ds=") + 1 :]) for uri in uris))

    def bucket_files(self, name: str, ds: str) -> dict[int, tuple[str, ...]]:
        """Absolute paths of a day's files by bucket, every bucket of the table included.

        Raises:
            MissingInput: the table or the day is not there.
        """
        handle = self.open(name)
        buckets = int(handle.metadata().configuration["derm.buckets"])
        by_bucket: dict[int, list[str]] = {b: [] for b in range(buckets)}
        for file in self._files_of(handle, name, ds):
            by_bucket[int(file["partition.bucket"])].append(self.root.uri(name, file["path"]))
        return {b: tuple(sorted(files)) for b, files in by_bucket.items()}

    def artifact(self, name: str, ds: str) -> Artifact:
        """What a day holds now, from the log alone.

        Raises:
            MissingInput: the table or the day is not there.
            ContractViolation: another program wrote a file of it.
        """
        files = self._files_of(self.open(name), name, ds)
        parts = [
            (f.get("partition.bucket"), f["num_records"], content.digests_of(f["path"]).rows)
            for f in files
        ]
        return Artifact(
            name=in_lake(name),
            ds=ds,
            digest=combined_digest(parts),
            rows=sum(f["num_records"] for f in files),
            size=sum(f["size_bytes"] for f in files),
            uri=self.path(name),
        )

    def absent(self, name: str, ds: str) -> tuple[str, ...]:
        """Addresses of a day's files that are gone, or of another size than the log says.

        Raises:
            MissingInput: the table or the day is not there.
        """
        files = self._files_of(self.open(name), name, ds)
        there = self.root.sizes(self.root.uri(name, f"ds={ds}"))
        sizes = {self.root.uri(name, f["path"]): f["size_bytes"] for f in files}
        return tuple(sorted(uri for uri, size in sizes.items() if there.get(uri) != size))

    def _files_of(self, handle: DeltaTable, name: str, ds: str) -> list[dict[str, Any]]:
        """The live files of a day as the log describes them."""
        version = (str(handle.metadata().id), handle.version())
        if self._listed.get(name, ())[:2] != version:
            actions = pa.table(handle.get_add_actions(flatten=True))
            wanted = ["path", "size_bytes", "num_records", "partition.ds", "partition.bucket"]
            actions = actions.select([c for c in wanted if c in actions.column_names])
            self._listed[name] = (*version, actions)
        actions = self._listed[name][2]
        files: list[dict[str, Any]] = actions.filter(pc.field("partition.ds") == ds).to_pylist()
        if not files:
            raise self._no_day(name, ds)
        return files

    def _no_day(self, name: str, ds: str) -> MissingInput:
        return MissingInput(
            f"table {name} has no day {ds}",
            where=self.path(name),
            expected=f"a partition ds={ds}",
            found=f"days {' '.join(self.days(name)[-5:]) or 'none'}",
        )

    def read(
        self,
        table: Table,
        ds: str,
        *,
        columns: Sequence[str] | None = None,
        bucket: int | None = None,
    ) -> pa.Table:
        """All rows of a day (or of one bucket of it), in file order."""
        files = self.files(table.name, ds, bucket=bucket)
        return read_files(files, table, columns).combine_chunks()

    def dataset(self, table: Table, days: Iterable[str]) -> "pads.Dataset":
        """The files of several days as one lazily read Arrow dataset."""
        import pyarrow.dataset as pads  # loads pandas: most commands read no dataset

        files = [f for ds in days for f in self.files(table.name, ds)]
        filesystem, _ = locate(self.root.root)
        paths = [locate(f)[1] for f in files]
        for file in files:
            check_file(file)
        return pads.dataset(
            paths, schema=arrow_schema(table), format="parquet", filesystem=filesystem
        )

    def overwrite(
        self, table: Table, ds: str, data: pa.Table, *, properties: dict[str, str] | None = None
    ) -> Artifact:
        """Replace one day of an unbucketed table."""
        staged = [stage_file(self.root, table, ds, data)]
        return self.commit(table, ds, staged, properties=properties)

    def commit(
        self,
        table: Table,
        ds: str,
        staged: Sequence[StagedFile],
        *,
        properties: dict[str, str] | None = None,
    ) -> Artifact:
        """Make staged files the content of one day, in one transaction.

        Args:
            properties: `derm.*` table properties, set at creation and compared afterwards;
                bucketed tables need `dtype`, `dim` and `buckets`.

        Raises:
            ContractViolation: a staged file is missing, of another day, or does not fit the table.
            CommitConflict: another writer committed first; the staged files stay invisible.
        """
        check_staged(self.root, table, ds, staged, properties or {})
        self._create(table, properties or {})
        handle = self.open(table.name)
        check_table(self.path(table.name), table, handle, properties or {})
        self._transact(table, handle, ds, staged, [("ds", "=", ds)])
        parts = [(f.bucket, f.rows, f.digest) for f in staged]
        return Artifact(
            name=in_lake(table.name),
            ds=ds,
            digest=combined_digest(parts),
            rows=sum(f.rows for f in staged),
            size=sum(f.size for f in staged),
            uri=self.path(table.name),
        )

    def replace_bucket(self, table: Table, ds: str, staged: StagedFile) -> Artifact:
        """Make a staged file the content of one bucket of a day; the others stay as they are.

        Raises:
            ContractViolation: the file does not fit the table.
            CommitConflict: another writer committed first.
        """
        handle = self.open(table.name)
        check_staged(self.root, table, ds, [staged], self.properties(table.name))
        where = [("ds", "=", ds), ("bucket", "=", str(staged.bucket))]
        self._transact(table, handle, ds, [staged], where)
        return self.artifact(table.name, ds)

    def _transact(
        self,
        table: Table,
        handle: DeltaTable,
        ds: str,
        staged: Sequence[StagedFile],
        where: list[tuple[str, str, Any]],
    ) -> None:
        """Replace what lies under `where`, or fail: a strict compare-and-swap on the log.

        Raises:
            CommitConflict: another writer committed first.
        """
        app = f"{table.name}/{ds}"
        commit = CommitProperties(
            custom_metadata={"derm.ds": ds},
            max_commit_retries=0,
            app_transactions=[Transaction(app, (handle.transaction_version(app) or 0) + 1)],
        )
        try:
            handle.create_write_transaction(
                [_add_action(table, f) for f in staged],
                "overwrite",
                handle.schema(),
                partition_by=list(table.partition_by),
                partition_filters=where,
                commit_properties=commit,
            )
        except CommitFailedError as error:
            raise CommitConflict(
                f"another writer changed {table.name} while {ds} was being committed",
                where=self.path(table.name),
                expected="one writer per table",
                found=str(error),
                hint="run the step again once the other writer has finished",
            ) from error

    def _create(self, table: Table, properties: dict[str, str]) -> None:
        if self.exists(table.name):
            return
        if not self.root.is_remote:
            Path(self.path(table.name)).mkdir(parents=True, exist_ok=True)
        DeltaTable.create(
            self.path(table.name),
            DeltaSchema.from_json(table.delta_schema_json()),
            mode="ignore",
            partition_by=list(table.partition_by),
            configuration={
                "delta.checkpointInterval": _CHECKPOINT_INTERVAL,
                **{f"derm.{k}": v for k, v in properties.items()},
            },
            raise_if_key_not_exists=False,
            storage_options=self.root.delta_options,
        )


def _add_action(table: Table, file: StagedFile) -> AddAction:
    values: dict[str, str | None] = {"ds": file.ds}
    if table.bucketed:
        values["bucket"] = str(file.bucket)
    return AddAction(file.path, file.size, values, file.modified_ms, True, file.stats)

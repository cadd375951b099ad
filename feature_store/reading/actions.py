"""What users did, over many days, divided by user into files that fit into memory.

Timelines and edges are read from these files, one at a time: events lie by day in the lake, and
whoever wants a user's actions together must bring them together once. Late labels are no actions.

Columns of a file: `user` and `pin` (hashed ids), `ts` (microseconds), `tie` (hashed event id),
`action` and `surface` (1 + position in the data set's declaration), `duration_s`, `day` (since
1970-01-01).
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_store.contracts.datasets import DatasetSpec
from feature_store.lake.buckets import bucket_of, stable_hash
from feature_store.lake.filing import day_numbers, impressions
from feature_store.lake.lake import Lake
from feature_store.reading.encoding import codes, floats
from feature_store.reading.examples import read_share

Columns = dict[str, npt.NDArray]

_CHUNK_ROWS = 65_536
_READ = ("user_id", "pin_id", "event_id", "ts", "arrived_at", "action", "surface", "duration_s")
SCHEMA = pa.schema(
    [
        ("user", pa.uint64()),
        ("pin", pa.uint64()),
        ("ts", pa.int64()),
        ("tie", pa.uint64()),
        ("action", pa.int32()),
        ("surface", pa.int32()),
        ("duration_s", pa.float32()),
        ("day", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Actions:
    """The actions of some days, divided by user.

    Attributes:
        dropped: actions of a type or a surface that the data set does not declare.
    """

    folder: Path
    buckets: int
    dropped: int

    def columns(self, bucket: int) -> Columns:
        """All actions of the users of one bucket, in no order."""
        with pa.ipc.open_stream(_path(self.folder, bucket)) as reader:
            rows = reader.read_all()
        return {name: rows[name].to_numpy() for name in SCHEMA.names}

    def buckets_of(self, shard: tuple[int, int]) -> range:
        """The buckets that one rank of several reads."""
        rank, ranks = shard
        return range(rank, self.buckets, ranks)


@contextmanager
def actions(
    lake: Lake, spec: DatasetSpec, days: Iterable[str], scratch: Path, *, buckets: int = 64
) -> Iterator[Actions]:
    """Divide the actions of some days; the files are gone afterwards.

    Args:
        scratch: a folder with room for about 48 bytes per action.
        buckets: files; one of them, read whole, must fit into memory.

    Raises:
        MissingInput: a day is not in the lake.
    """
    if buckets < 1:
        raise ValueError(f"buckets: expected >= 1, found {buckets}")
    with TemporaryDirectory(prefix="actions-", dir=scratch) as folder:
        dropped = _divide(lake, spec, tuple(days), Path(folder), buckets)
        yield Actions(Path(folder), buckets, dropped)


def _divide(
    lake: Lake, spec: DatasetSpec, days: tuple[str, ...], folder: Path, buckets: int
) -> int:
    """Write every action into the file of its user; how many were dropped."""
    dropped = 0
    with ExitStack() as stack:
        writers = [
            stack.enter_context(pa.ipc.new_stream(_path(folder, b), SCHEMA)) for b in range(buckets)
        ]
        for ds in days:
            dataset = lake.dataset(spec.events_table(), [ds])
            for read in read_share(dataset, list(_READ), _CHUNK_ROWS):
                rows = impressions(read)
                columns = _encode(spec, rows)
                known = (columns["action"] > 0) & (columns["surface"] > 0)
                dropped += int((~known).sum())
                bucket = bucket_of(rows.column("user_id"), buckets)[known]
                batch = pa.RecordBatch.from_arrays(
                    [pa.array(columns[name][known]) for name in SCHEMA.names], schema=SCHEMA
                )
                order = np.argsort(bucket, kind="stable")
                ends = np.searchsorted(bucket[order], np.arange(buckets + 1))
                for b in np.unique(bucket):
                    writers[b].write_batch(batch.take(pa.array(order[ends[b] : ends[b + 1]])))
    return dropped


def _encode(spec: DatasetSpec, rows: pa.RecordBatch) -> Columns:
    return {
        "user": stable_hash(rows.column("user_id")),
        "pin": stable_hash(rows.column("pin_id")),
        "ts": rows.column("ts").cast(pa.int64()).to_numpy(),
        "tie": stable_hash(rows.column("event_id")),
        "action": codes(rows.column("action"), spec.actions),
        "surface": codes(rows.column("surface"), spec.surfaces),
        "duration_s": floats(rows.column("duration_s")),
        "day": day_numbers(rows.column("ts")),
    }


def _path(folder: Path, bucket: int) -> Path:
    return folder / f"{bucket}.arrow"

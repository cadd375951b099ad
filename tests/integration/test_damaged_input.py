"""Source files damaged at random: a day is refused whole with the cause named, or it is whole.

DERM_TEST_DAMAGE says how many examples of each kind of damage are tried.
"""

import contextlib
import datetime as dt
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from feature_store.lake.lake import Lake
from jobs.cli import main
from jobs.engine.manifests import ManifestStore
from jobs.services.redis import embedded_url
from tests.brief_recipe import BRIEF

GOOD, BAD = "2025-03-01", "2025-03-02"
TABLES = ("events", "users", "pins")
OTHER_TYPES = {
    pa.string(): "x",
    pa.binary(): b"x",
    pa.int8(): 1,
    pa.int64(): 1,
    pa.float64(): 0.5,
    pa.bool_(): True,
    pa.timestamp("us"): dt.datetime(2025, 3, 2, 12),  # noqa: DTZ001  (no zone is the damage)
    pa.date32(): dt.date(2025, 3, 2),
    pa.list_(pa.string()): ["x"],
    pa.decimal128(9, 2): Decimal("0.5"),
}

examples = settings(
    max_examples=int(os.environ.get("DERM_TEST_DAMAGE", "8")), deadline=None, derandomize=True
)
tables = st.sampled_from(TABLES)
seeds = st.integers(0, 2**32 - 1)


@dataclass(frozen=True)
class Delivery:
    """A home whose second day is delivered again and again.

    Attributes:
        whole: digests of the day's tables as they were delivered undamaged.
    """

    path: Path
    whole: dict[str, str]

    def source(self, table: str) -> Path:
        return self.path / "source" / "simulated" / f"ds={BAD}" / f"{table}.parquet"

    def state(self) -> dict[str, object]:
        lake = Lake(self.path / "lake")
        return {
            name: (lake.open(name).version(), lake.root.files(lake.path(name), ".parquet"))
            for name in TABLES
        }

    def content(self) -> dict[str, str]:
        lake = Lake(self.path / "lake")
        return {name: lake.artifact(name, BAD).digest for name in TABLES}

    def ingest(self, table: str, damage: Callable[[Path], None]) -> tuple[int, str]:
        """Ingest the day with one table damaged, which is as it was afterwards."""
        path = self.source(table)
        whole = path.read_bytes()
        manifests = ManifestStore(self.path / "manifests")
        manifests.remove("ingest", BAD, None)
        said = io.StringIO()
        try:
            damage(path)
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                code = main(["ingest", "--ds", BAD])
        finally:
            path.write_bytes(whole)
        assert (manifests.get("ingest", BAD, None) is not None) == (code == 0)
        return code, said.getvalue()


@pytest.fixture(scope="module")
def delivery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delivery]:
    path = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DERM_HOME", str(path))
        assert main(["init", "--dataset", "simulated", "--recipe", BRIEF]) == 0
        for ds in (GOOD, BAD):
            assert main(["simulate", "--ds", ds]) == 0
            assert main(["ingest", "--ds", ds]) == 0
        lake = Lake(path / "lake")
        yield Delivery(path, {name: lake.artifact(name, BAD).digest for name in TABLES})
    assert embedded_url(path) is None


def refused(delivery: Delivery, table: str, damage: Callable[[Path], None]) -> str:
    """What is said of a day that must be refused; nothing of it may be left."""
    before = delivery.state()
    code, said = delivery.ingest(table, damage)
    assert code == 2, said
    assert table in said
    assert BAD in said
    assert "hint:" in said
    assert delivery.state() == before
    return said


def rewritten(how: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        pq.write_table(how(pq.read_table(path, partitioning=None)), path)

    return damage


@examples
@given(table=tables, seed=seeds)
def test_a_file_that_was_cut_off_is_refused(delivery: Delivery, table: str, seed: int) -> None:
    def cut(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: np.random.default_rng(seed).integers(len(content))])

    assert "a readable Parquet file" in refused(delivery, table, cut)


@examples
@given(table=tables, seed=seeds, count=st.integers(1, 64))
def test_flipped_bytes_change_nothing_that_is_ingested(
    delivery: Delivery, table: str, seed: int, count: int
) -> None:
    """The pages of the file carry checksums; statistics and names of its writer do not matter."""

    def flip(path: Path) -> None:
        content = np.frombuffer(path.read_bytes(), np.uint8).copy()
        rng = np.random.default_rng(seed)
        content[rng.integers(len(content), size=count)] ^= rng.integers(
            1, 256, size=count, dtype=np.uint8
        )
        path.write_bytes(content.tobytes())

    before = delivery.state()
    code, said = delivery.ingest(table, flip)
    event("accepted" if code == 0 else "refused")
    if code == 0:
        assert delivery.content() == delivery.whole
        return
    assert code == 2, said
    assert table in said
    assert delivery.state() == before


@examples
@given(table=tables, seed=seeds)
def test_a_dropped_column_is_named(delivery: Delivery, table: str, seed: int) -> None:
    names = pq.read_schema(delivery.source(table)).names
    name = names[seed % len(names)]
    said = refused(delivery, table, rewritten(lambda rows: rows.drop([name])))
    assert f"{table}.{name}" in said


@examples
@given(table=tables, seed=seeds, kind=st.sampled_from(list(OTHER_TYPES)))
def test_another_type_is_named_or_says_the_same(
    delivery: Delivery, table: str, seed: int, kind: pa.DataType
) -> None:
    names = pq.read_schema(delivery.source(table)).names
    index = seed % len(names)

    def retype(rows: pa.Table) -> pa.Table:
        try:
            column = rows.column(index).cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            # A whole number may stand for a string: an id is one in many sources.
            other = pa.float64() if pa.types.is_integer(kind) else kind
            column = pa.array([OTHER_TYPES[other]] * rows.num_rows, other)
        return rows.set_column(index, names[index], column)

    before = delivery.state()
    code, said = delivery.ingest(table, rewritten(retype))
    event("accepted" if code == 0 else "refused")
    if code == 0:
        assert delivery.content() == delivery.whole
        return
    assert code == 2, said
    assert f"{table}.{names[index]}" in said
    assert delivery.state() == before


@examples
@given(table=tables, seed=seeds, count=st.integers(1, 20))
def test_doubled_rows_are_counted(delivery: Delivery, table: str, seed: int, count: int) -> None:
    def double(rows: pa.Table) -> pa.Table:
        chosen = np.random.default_rng(seed).choice(rows.num_rows, count, replace=False)
        return pa.concat_tables([rows, rows.take(pa.array(chosen))])

    said = refused(delivery, table, rewritten(double))
    assert "unique keys" in said
    assert f"{count} of" in said


@examples
@given(table=tables, seed=seeds)
def test_the_order_of_rows_and_columns_does_not_matter(
    delivery: Delivery, table: str, seed: int
) -> None:
    def shuffle(rows: pa.Table) -> pa.Table:
        rng = np.random.default_rng(seed)
        names = list(rng.permutation(rows.column_names))
        return rows.select(names).take(pa.array(rng.permutation(rows.num_rows)))

    code, said = delivery.ingest(table, rewritten(shuffle))
    assert code == 0, said
    assert delivery.content() == delivery.whole

"""Packing and unpacking vectors: exact, without copies, and strict about widths."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from feature_store.contracts.errors import ContractViolation
from feature_store.contracts.tables import pool_table, raw_table, runs_table
from feature_store.lake.schemas import arrow_schema, arrow_type, pack, unpack

_VECTORS = st.sampled_from(["<f4", "<f2", "<i1"]).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))
)


@given(vectors=_VECTORS)
def test_round_trip_is_exact(vectors: np.ndarray) -> None:
    column = pack(vectors)
    assert column.type == pa.binary()
    column.validate(full=True)
    back = unpack(column, vectors.shape[1], vectors.dtype.str)
    assert back.tobytes() == vectors.tobytes()
    assert back.shape == vectors.shape


@given(vectors=_VECTORS, data=st.data())
def test_slices_chunks_and_takes_keep_their_rows(vectors: np.ndarray, data: st.DataObject) -> None:
    rows, dim = vectors.shape
    cut = data.draw(st.integers(0, rows))
    order = data.draw(st.permutations(range(rows)))
    column, dtype = pack(vectors), vectors.dtype.str
    assert unpack(column.slice(cut), dim, dtype).tobytes() == vectors[cut:].tobytes()
    chunks = pa.chunked_array([column.slice(0, cut), column.slice(cut)])
    assert unpack(chunks, dim, dtype).tobytes() == vectors.tobytes()
    assert unpack(column.take(order), dim, dtype).tobytes() == vectors[order].tobytes()


def test_a_value_is_the_little_endian_bytes_of_its_vector() -> None:
    column = pack(np.array([[1.0, -2.0]], "<f4"))
    assert column[0].as_py() == bytes.fromhex("0000803f000000c0")


def test_nothing_is_copied() -> None:
    vectors = np.arange(12, dtype="<f4").reshape(4, 3)
    column = pack(vectors)
    assert column.buffers()[2].address == vectors.ctypes.data
    assert np.shares_memory(unpack(column, 3), vectors)


def test_a_transposed_array_is_packed_by_rows() -> None:
    vectors = np.arange(6, dtype="<f4").reshape(2, 3).T
    assert unpack(pack(vectors), 2).tolist() == vectors.tolist()


@pytest.mark.parametrize(
    "values",
    [[b"1234", None], [b"1234", b"123"], [b"12345678"], [b""], [b"12345678", b"", b"1234"]],
)
def test_another_width_or_a_null_is_refused(values: list[bytes | None]) -> None:
    with pytest.raises(ContractViolation, match="wrong width") as caught:
        unpack(pa.array(values, pa.binary()), 1)
    assert "4 bytes (1 x float32)" in caught.value.expected


def test_a_null_that_keeps_its_width_is_refused() -> None:
    column = pa.Array.from_buffers(
        pa.binary(),
        2,
        [
            pa.py_buffer(b"\x01"),
            pa.py_buffer(np.array([0, 4, 8], np.int32)),
            pa.py_buffer(b"x" * 8),
        ],
    )
    assert column.null_count == 1
    with pytest.raises(ContractViolation, match="wrong width"):
        unpack(column, 1)


def test_no_rows() -> None:
    assert unpack(pa.array([], pa.binary()), 5).shape == (0, 5)
    assert unpack(pack(np.empty((0, 5), "<f4")), 5).shape == (0, 5)


def test_more_than_two_gigabytes_is_refused_before_anything_is_copied() -> None:
    huge = np.broadcast_to(np.zeros((1, 1), "<f4"), (2**20, 600))
    with pytest.raises(ValueError, match="use more buckets"):
        pack(huge)


@pytest.mark.parametrize(
    "table",
    [pool_table("ctr", "user"), raw_table("cvr", "pin"), runs_table()],
    ids=lambda t: t.name,
)
def test_files_hold_the_declared_columns_without_the_partition(table) -> None:
    schema = arrow_schema(table)
    assert schema.names == [c.name for c in table.columns]
    assert [f.nullable for f in schema] == [c.nullable for c in table.columns]


def test_list_elements_are_never_null() -> None:
    assert not arrow_type("list<string>").value_field.nullable
    assert arrow_type("timestamp") == pa.timestamp("us", tz="UTC")

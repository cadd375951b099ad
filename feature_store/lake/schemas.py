"""Arrow projections of the table declarations, and the packed vectors inside them."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_store.contracts.errors import ContractViolation
from feature_store.contracts.tables import Table

_ARROW: dict[str, pa.DataType] = {
    "string": pa.string(),
    "bool": pa.bool_(),
    "int8": pa.int8(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "binary": pa.binary(),
}


def arrow_type(dtype: str) -> pa.DataType:
    """The Arrow type of a declared dtype."""
    if dtype.startswith("list<"):
        return pa.list_(pa.field("element", _ARROW[dtype[5:-1]], nullable=False))
    return _ARROW[dtype]


def arrow_schema(table: Table) -> pa.Schema:
    """The Arrow schema of a table's files: its columns, without the partition columns."""
    return pa.schema([pa.field(c.name, arrow_type(c.dtype), c.nullable) for c in table.columns])


def count_matrix(rows: pa.Table | pa.RecordBatch, number: int) -> npt.NDArray[np.int32]:
    """The counts [rows, windows, number] of rows of a counts table; the first column is the id."""
    columns = [column.to_numpy() for column in rows.columns[1:]]
    shape = (len(rows), len(columns) // number, number)
    return np.stack(columns, axis=1).astype(np.int32).reshape(shape)


def unpack(column: pa.Array | pa.ChunkedArray, dim: int, dtype: str = "<f4") -> npt.NDArray:
    """View a BINARY column of packed vectors as an array [rows, dim], without copying.

    Raises:
        ContractViolation: a value is null or has another width.
    """
    array = one_array(column)
    width = dim * np.dtype(dtype).itemsize
    rows = len(array)
    offsets = np.frombuffer(array.buffers()[1], np.int32)[array.offset : array.offset + rows + 1]
    if array.null_count or (rows and not np.array_equal(np.diff(offsets), np.full(rows, width))):
        raise ContractViolation(
            "a packed vector has the wrong width",
            expected=f"{width} bytes ({dim} x {np.dtype(dtype).name}) in every row, no nulls",
            found=f"{array.null_count} nulls, widths {np.unique(np.diff(offsets))[:5].tolist()}",
        )
    if rows == 0:
        return np.empty((0, dim), dtype)
    data = np.frombuffer(array.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    return data.view(dtype).reshape(rows, dim)


def vector_array(vectors: npt.NDArray[np.float32]) -> pa.Array:
    """Vectors [rows, dim] as an Arrow column of fixed-size lists, without copying them."""
    values = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(values, vectors.shape[1])


def one_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column as one array; copied only when it has several chunks."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def pack(vectors: npt.NDArray) -> pa.Array:
    """Wrap an array [rows, dim] as a BINARY column, without copying when it is C-contiguous.

    Raises:
        ValueError: the vectors need more than 2 GiB, the limit of one Arrow binary array.
    """
    rows, width = vectors.shape[0], vectors.shape[1] * vectors.itemsize
    if rows * width > np.iinfo(np.int32).max:
        raise ValueError(f"{rows} vectors of {width} bytes exceed 2 GiB: use more buckets")
    vectors = np.ascontiguousarray(vectors)
    offsets = np.arange(rows + 1, dtype=np.int32) * np.int32(width)
    return pa.Array.from_buffers(
        pa.binary(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(vectors)]
    )

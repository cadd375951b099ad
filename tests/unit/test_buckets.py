"""Buckets against FNV-1a written again in plain Python, and against published test vectors."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.lake.buckets import bucket_of, stable_hash

_MASK = 2**64 - 1


def fnv1a(data: bytes) -> int:
    """Source: Fowler, Noll, Vo; 64 bit."""
    state = 0xCBF29CE484222325
    for byte in data:
        state = ((state ^ byte) * 0x100000001B3) & _MASK
    return state


def fmix64(state: int) -> int:
    """Source: MurmurHash3, the finaliser."""
    state = ((state ^ (state >> 33)) * 0xFF51AFD7ED558CCD) & _MASK
    state = ((state ^ (state >> 33)) * 0xC4CEB9FE1A85EC53) & _MASK
    return state ^ (state >> 33)


@pytest.mark.parametrize(
    ("text", "value"),
    [(b"", 0xCBF29CE484222325), (b"a", 0xAF63DC4C8601EC8C), (b"foobar", 0x85944171F73967E8)],
)
def test_the_oracle_gives_the_published_vectors(text: bytes, value: int) -> None:
    assert fnv1a(text) == value


@given(ids=st.lists(st.text(max_size=40), max_size=30))
def test_hash_equals_the_oracle(ids: list[str]) -> None:
    found = stable_hash(pa.array(ids, pa.string()))
    assert found.tolist() == [fmix64(fnv1a(i.encode())) for i in ids]


@given(
    ids=st.lists(st.text(max_size=12), min_size=1, max_size=30),
    cut=st.integers(0, 29),
    buckets=st.integers(1, 1024),
)
def test_buckets_do_not_depend_on_slices_chunks_or_neighbours(
    ids: list[str], cut: int, buckets: int
) -> None:
    whole = pa.array(ids, pa.string())
    expected = bucket_of(whole, buckets).tolist()
    assert all(0 <= b < buckets for b in expected)
    assert bucket_of(whole.slice(cut), buckets).tolist() == expected[cut:]
    chunked = pa.chunked_array([whole.slice(0, cut), whole.slice(cut)])
    assert bucket_of(chunked, buckets).tolist() == expected
    assert [bucket_of(pa.array([i]), buckets)[0] for i in ids] == expected


@pytest.mark.parametrize("dtype", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])  # fmt: skip # noqa: E501
def test_any_arrow_string_type_hashes_alike(dtype: pa.DataType) -> None:
    ids = ["u1", "ü", "", "a longer id than the others"]
    plain = stable_hash(pa.array(ids, pa.string())).tolist()
    assert stable_hash(pa.array(ids, pa.string()).cast(dtype)).tolist() == plain


def test_golden_buckets() -> None:
    """A change here would send every entity of every lake to another file."""
    ids = pa.array(["u0", "u1", "u2", "pin-77", "9223372036854775807", "ünïcödé"])
    assert bucket_of(ids, 8).tolist() == [fmix64(fnv1a(i.encode())) % 8 for i in ids.to_pylist()]
    assert bucket_of(ids, 1024).tolist() == [903, 689, 70, 421, 12, 286]


def test_sequential_ids_spread_evenly() -> None:
    buckets = bucket_of(pa.array([f"u{i}" for i in range(16_000)]), 16)
    counts = [int((buckets == b).sum()) for b in range(16)]
    # Chi-squared of 15 degrees of freedom; 37.7 is its 99.9 % point. The ids are fixed.
    assert sum((c - 1000) ** 2 / 1000 for c in counts) < 37.7


def test_nothing_in_nothing_out() -> None:
    assert bucket_of(pa.array([], pa.string()), 8).tolist() == []

"""Conversions between float32 and float16 have the bits of NumPy's casts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from feature_store.embeddings.halves import to_half, to_single

EVERY_HALF = np.arange(2**16, dtype=np.uint16).view(np.float16)
FINITE = EVERY_HALF[np.isfinite(EVERY_HALF)]


def cast(vectors: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return vectors.astype(np.float16)


def assert_same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


def test_every_finite_half_widens_exactly():
    assert_same_bits(to_single(FINITE.reshape(-1, 8)), FINITE.reshape(-1, 8).astype(np.float32))


def test_halves_that_lie_apart_widen_exactly():
    rows = np.zeros(100, np.dtype([("head", "<u2"), ("vector", "<f2", (5,))]))
    rows["vector"] = FINITE[20_000:20_500].reshape(100, 5)
    assert_same_bits(to_single(rows["vector"]), rows["vector"].astype(np.float32))


def test_every_half_and_every_tie_between_two_rounds_as_numpy_does():
    singles = np.sort(FINITE.astype(np.float32))
    middles = (singles[1:] + singles[:-1]) / 2
    near = [np.nextafter(middles, np.float32(limit)) for limit in (-np.inf, np.inf)]
    vectors = np.concatenate([singles, middles, *near, [65520, 1e38, np.inf, -1e30]])
    vectors = np.resize(vectors.astype(np.float32), (len(vectors) // 7, 7))
    assert_same_bits(to_half(vectors), cast(vectors))


@given(arrays.arrays(np.float32, st.tuples(st.integers(0, 9), st.integers(0, 9))))
def test_any_numbers_round_as_numpy_does(vectors):
    found, expected = to_half(vectors), cast(vectors)
    assert_same_bits(np.nan_to_num(found), np.nan_to_num(expected))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))


@pytest.mark.parametrize("dim", [1, 3, 256, 40_000])
def test_many_rows_read_only_as_arrow_has_them(dim):
    vectors = np.random.default_rng(dim).standard_normal((500, dim), np.float32)
    view = np.frombuffer(vectors.tobytes(), np.float32).reshape(500, dim)
    assert_same_bits(to_half(view), cast(vectors))

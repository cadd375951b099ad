"""The online format, byte for byte: what docs/specs/online_format.md promises other languages."""

import numpy as np
import pytest

from feature_store.contracts.base import day_number
from feature_store.contracts.errors import ContractViolation, StoreError
from feature_store.online.codec import (
    ValueFormat,
    day_of,
    release_key,
    slot_key,
    space_tag,
    users_prefix,
)

HALF = ValueFormat(dtype="float16", dim=3)
SINGLE = ValueFormat(dtype="float32", dim=2)
DAY = np.array([day_number("2025-03-01")], np.uint16)


def test_golden_value_float16():
    value = HALF.encode(np.array([[1.0, -2.0, 0.1]], np.float32), DAY)
    # version 1, dtype 1, '<', 0 | dim 3 | day 20148 | 1.0, -2.0, 0.1
    assert value.tobytes().hex() == "01013c000300b44e003c00c0662e"


def test_golden_value_float32():
    value = SINGLE.encode(np.array([[1.0, -2.0]], np.float32), DAY)
    assert value.tobytes().hex() == "01023c000200b44e0000803f000000c0"


def test_golden_keys():
    prefix = users_prefix("ctr", "2025-02-28-first", "a")
    assert space_tag("2025-02-28-first") == "8b52672d"
    assert prefix == "derm:ctr:8b52672d:a:"
    assert slot_key(prefix) == "derm:slot:ctr:8b52672d:a"
    assert release_key("2025-03-01-0f0f0f0f") == "derm:release:2025-03-01-0f0f0f0f"


def test_decode_returns_what_was_encoded_and_zeros_for_the_absent():
    vectors = np.array([[0.5, -0.25, 4.0], [1.0, 2.0, 3.0]], np.float32)
    values = HALF.encode(vectors, np.array([1, 65535], np.uint16))
    found = HALF.decode([values[0].tobytes(), None, values[1].tobytes()])
    np.testing.assert_array_equal(found[0], [vectors[0], [0, 0, 0], vectors[1]])
    np.testing.assert_array_equal(found[1], [True, False, True])
    np.testing.assert_array_equal(found[2], [1, 0, 65535])


def test_decode_of_nothing_is_empty():
    vectors, found, days = HALF.decode([])
    assert vectors.shape == (0, 3)
    assert len(found) == len(days) == 0


@pytest.mark.parametrize("bad", [b"\x02\x01\x3c\x00\x03\x00" + bytes(8), b"short"])
def test_decode_refuses_another_format(bad):
    with pytest.raises(StoreError, match="another format"):
        HALF.decode([None, bad])


def test_values_of_two_widths_that_sum_up_are_refused():
    width = HALF.width
    with pytest.raises(StoreError, match="another format"):
        HALF.decode([bytes(width - 1), bytes(width + 1)])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 7e4])
def test_encode_refuses_what_is_not_finite_in_float16(bad):
    vectors = np.ones((4, 3), np.float32)
    vectors[2, 1] = bad
    with pytest.raises(ContractViolation, match="not finite") as refused:
        HALF.encode(vectors, np.zeros(4, np.uint16))
    assert "the first at row 2" in refused.value.found


def test_days_count_from_the_epoch():
    assert (day_number("1970-01-02"), day_of(1)) == (1, "1970-01-02")
    assert day_of(day_number("2149-06-06")) == "2149-06-06"

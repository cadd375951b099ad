"""Rows of 4 and 8 bits: known bytes, torch's bytes, small errors, rows that are refused."""

import numpy as np
import numpy.typing as npt
import pytest
import torch

from feature_store.contracts.errors import ContractViolation, InputError
from feature_store.tables.kernels import KERNELS, kernel
from feature_store.tables.rowwise import RowFormat

_ROWS, _DIM = 2000, 32
_INT4 = RowFormat(bits=4, dim=_DIM)
_KNOWN = [
    ([-1, -0.5, 0, 0.25, 0.5, 1, 0.1, -0.9], "40 98 fb 18 44 30 00 bc"),
    (list(range(16)), "10 32 54 76 98 ba dc fe 00 3c 00 00"),
    ([1e-9, 2e-9, 3e-9, 4e-9], "00 00 00 3c 00 00"),
]


def _hard_rows() -> npt.NDArray[np.float32]:
    """10,000 rows: ordinary ones, alike ones, nearly alike ones, ties, tiny and large ones."""
    rng = np.random.default_rng(7)
    normal = rng.normal(size=(_ROWS, _DIM))
    alike = np.repeat(rng.normal(size=(_ROWS, 1)), _DIM, 1)
    nearly = alike * (1 + 1e-7 * rng.integers(-3, 4, (_ROWS, _DIM)))
    scales = normal * 10.0 ** rng.integers(-45, 4, (_ROWS, 1))
    quarter = _ROWS // 4
    mixed = [
        rng.integers(-8, 8, (quarter, _DIM)) / 2.0,
        rng.normal(size=(quarter, _DIM)) * 6e-8,
        rng.uniform(-65_000, 65_000, (quarter, _DIM)),
        np.where(rng.random((quarter, _DIM)) < 0.9, 0.0, normal[:quarter]),
    ]
    return np.concatenate([normal, alike, nearly, scales, *mixed]).astype(np.float32)


@pytest.mark.parametrize(("row", "expected"), _KNOWN)
def test_known_bytes(row: list[float], expected: str) -> None:
    form = RowFormat(bits=4, dim=len(row))
    assert form.encode(np.array([row])).tobytes() == bytes.fromhex(expected)


def test_the_known_row_of_sixteen_comes_back_exactly() -> None:
    form, row = RowFormat(bits=4, dim=16), np.arange(16, dtype=np.float32)[None]
    assert (form.decode(form.encode(row)) == row).all()


def test_the_bytes_are_those_of_torch() -> None:
    rows = _hard_rows()
    assert len(rows) == 10_000
    theirs = torch.ops.quantized.embedding_bag_4bit_prepack(torch.from_numpy(rows)).numpy()
    assert (_INT4.encode(rows) == theirs).all()


def test_a_bias_of_zero_has_no_sign() -> None:
    """Torch's depends on which zero its vector unit came across; the value is the same."""
    rows = np.random.default_rng(0).choice([0.0, -0.0, 1.0], (500, _DIM)).astype(np.float32)
    ours = _INT4.encode(rows)
    theirs = torch.ops.quantized.embedding_bag_4bit_prepack(torch.from_numpy(rows)).numpy().copy()
    theirs[:, -1] &= 0x7F
    assert (ours == theirs).all()


@pytest.mark.parametrize(("bits", "error"), [(4, 0.077), (8, 0.0045)])
def test_error_of_gaussian_rows(bits: int, error: float) -> None:
    rows = np.random.default_rng(0).normal(size=(20_000, _DIM)).astype(np.float32)
    form = RowFormat(bits=bits, dim=_DIM)
    off = np.linalg.norm(form.decode(form.encode(rows)) - rows, axis=1)
    assert np.median(off / np.linalg.norm(rows, axis=1)) == pytest.approx(error, rel=0.03)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_value_is_off_by_half_a_step_or_by_rounding(bits: int) -> None:
    form, rows = RowFormat(bits=bits, dim=_DIM), _hard_rows()
    packed = form.encode(rows)
    scale = np.abs(packed[:, -4:-2].copy().view(np.float16).astype(np.float32))
    rounding = np.abs(rows).max(axis=1, keepdims=True) * 2.0**-9 + form.levels * 2.0**-24
    off = np.abs(form.decode(packed) - rows)
    assert (off <= np.where(scale == 1, 0.5, scale / 2) + rounding).all()
    # Rows of one value, whose scale is rounding alone.
    assert (off[2000:4000] <= np.abs(rows[2000:4000]) * 2.0**-10).all()


def test_bytes_of_a_row() -> None:
    assert [RowFormat(bits=4, dim=d).row_bytes for d in (16, 32, 64)] == [12, 20, 36]
    assert RowFormat(bits=8, dim=32).row_bytes == 36


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -70_000.0])
def test_a_row_that_float16_cannot_hold_is_refused_by_its_number(value: float) -> None:
    rows = np.zeros((3000, _DIM), np.float32)
    rows[2345, 3] = value
    with pytest.raises(ContractViolation, match="user 12345"):
        _INT4.encode(rows, where="user", first=10_000)


@pytest.mark.parametrize(("bits", "dim"), [(4, 31), (2, 32), (4, 0)])
def test_a_format_that_cannot_be(bits: int, dim: int) -> None:
    with pytest.raises(ContractViolation, match=f"{bits} bits, width {dim}"):
        RowFormat(bits=bits, dim=dim)


@pytest.mark.parametrize("shape", [(3, 16), (32,)])
def test_rows_of_another_width_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ContractViolation, match="another width"):
        _INT4.encode(np.zeros(shape, np.float32))


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("bits", [4, 8])
def test_kernels_agree_with_decoding_everything(name: str, bits: int) -> None:
    form, rng = RowFormat(bits=bits, dim=_DIM), np.random.default_rng(1)
    packed = form.encode(rng.normal(size=(5000, _DIM)))
    packed.flags.writeable = False  # as a mapped file is
    rows = rng.integers(0, 5000, 3001)
    found = KERNELS[name](form, packed, rows)
    assert found.shape == (3001, _DIM)
    assert np.allclose(found, form.decode(packed)[rows], rtol=1e-6, atol=1e-6)
    assert KERNELS[name](form, packed, rows[:0]).shape == (0, _DIM)


def test_a_kernel_that_is_not_there() -> None:
    assert kernel() is KERNELS["torch"]
    with pytest.raises(InputError, match="abacus"):
        kernel("abacus")

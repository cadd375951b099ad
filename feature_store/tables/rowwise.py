"""Rows of float32 as 4-bit or 8-bit codes, each with a float16 scale and bias, byte for byte.

The bytes are those of docs/specs/id_tables.md, and of torch's 4-bit prepack.
Source: Guan et al., "Post-Training 4-bit Quantization on Embedding Tables" (2019); the layout of
FBGEMM's fused rows.
Deviations: a row that is not finite, or does not fit float16, is refused instead of written; a
least value of -0 counts as 0 (torch takes whichever zero its vector unit came across).
Shapes: N rows, D values of a row, W bytes of a row (D * bits / 8 + 4).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_store.contracts.errors import ContractViolation

_PARAMETERS = 4  # bytes of a row's scale and bias
# So many rows are worked on at once: their float32 values stay in a core's own cache.
_BLOCK = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class RowFormat:
    """How the rows of one table are packed.

    Args:
        bits: of a code, 4 or 8.
        dim: values of a row; even when codes share bytes.

    Raises:
        ContractViolation: no such format.
    """

    bits: int
    dim: int

    def __post_init__(self) -> None:
        if self.bits not in (4, 8) or self.dim < 1 or self.dim * self.bits % 8:
            raise ContractViolation(
                "rows cannot be packed like this",
                expected="4 or 8 bits, a width of at least 1, even with 4 bits",
                found=f"{self.bits} bits, width {self.dim}",
            )

    @property
    def levels(self) -> int:
        """The largest code."""
        return (1 << self.bits) - 1

    @property
    def code_bytes(self) -> int:
        """Bytes of a row's codes."""
        return self.dim * self.bits // 8

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.code_bytes + _PARAMETERS

    def encode(
        self, rows_ND: npt.NDArray, *, where: str = "", first: int = 0
    ) -> npt.NDArray[np.uint8]:
        """Pack rows.

        Args:
            rows_ND: any float dtype.
            where: the table, for what is said of a bad row.
            first: the number of the first row, likewise.

        Returns:
            Bytes [N, W].

        Raises:
            ContractViolation: the rows have another width, a value is not finite, or a bias or a
                scale does not fit float16.
        """
        self._check_width(rows_ND, where)
        packed_NW = np.empty((len(rows_ND), self.row_bytes), np.uint8)
        for start in range(0, len(rows_ND), _BLOCK):
            block = np.ascontiguousarray(rows_ND[start : start + _BLOCK], np.float32)
            self._encode_block(block, packed_NW[start : start + _BLOCK], where, first + start)
        return packed_NW

    def decode(
        self, packed_NW: npt.NDArray[np.uint8], out: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        """Values [N, D] of packed rows, into `out` when it is given."""
        values_ND = np.empty((len(packed_NW), self.dim), np.float32) if out is None else out
        for start in range(0, len(packed_NW), _BLOCK):
            self._decode_block(packed_NW[start : start + _BLOCK], values_ND[start : start + _BLOCK])
        return values_ND

    def _encode_block(
        self,
        rows_ND: npt.NDArray[np.float32],
        out_NW: npt.NDArray[np.uint8],
        where: str,
        first: int,
    ) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            bias_N = (rows_ND.min(axis=1) + np.float32(0)).astype(np.float16)
            least_N = bias_N.astype(np.float32)
            range_N = rows_ND.max(axis=1) - least_N
            scale_N = (range_N / np.float32(self.levels)).astype(np.float16)
        _check_finite(bias_N, scale_N, rows_ND, where, first)
        scale_N[(range_N == 0) | (scale_N == 0)] = 1
        inverse_N = np.float32(1) / scale_N.astype(np.float32)
        codes_ND = rows_ND - least_N[:, None]
        codes_ND *= inverse_N[:, None]
        np.rint(codes_ND, out=codes_ND)
        np.clip(codes_ND, 0, self.levels, out=codes_ND)
        whole_ND = codes_ND.astype(np.uint8)
        if self.bits == 4:
            whole_ND = whole_ND[:, ::2] | whole_ND[:, 1::2] << 4
        out_NW[:, : self.code_bytes] = whole_ND
        parameters = np.stack([scale_N, bias_N], axis=1).astype("<f2", copy=False)
        out_NW[:, self.code_bytes :] = parameters.view(np.uint8)

    def _decode_block(
        self, packed_NW: npt.NDArray[np.uint8], out_ND: npt.NDArray[np.float32]
    ) -> None:
        codes = packed_NW[:, : self.code_bytes]
        if self.bits == 4:
            # A byte with two codes becomes two bytes with one each: the whole row at once.
            pairs = codes.astype("<u2")
            pairs |= pairs << 4
            pairs &= 0x0F0F
            codes = pairs.view(np.uint8)
        parameters = packed_NW[:, self.code_bytes :].copy().view("<f2").astype(np.float32)
        np.copyto(out_ND, codes)
        out_ND *= parameters[:, :1]
        out_ND += parameters[:, 1:]

    def _check_width(self, rows_ND: npt.NDArray, where: str) -> None:
        if rows_ND.ndim != 2 or rows_ND.shape[1] != self.dim:
            raise ContractViolation(
                "rows have another width than their table",
                where=where,
                expected=f"[N, {self.dim}]",
                found=str(list(rows_ND.shape)),
            )


def _check_finite(
    bias_N: npt.NDArray, scale_N: npt.NDArray, rows_ND: npt.NDArray, where: str, first: int
) -> None:
    # A row with a NaN has a NaN for its least and its largest value.
    whole = np.isfinite(bias_N) & np.isfinite(scale_N)
    if whole.all():
        return
    bad = np.flatnonzero(~whole)
    row = int(bad[0])
    raise ContractViolation(
        "rows cannot be written with a float16 scale and bias",
        where=f"{where or 'row'} {first + row}",
        expected="finite values whose least lies within 65504",
        found=f"{len(bad)} bad rows here, the first from {rows_ND[row].min()} to "
        f"{rows_ND[row].max()}",
        hint="a training that diverged: look at its losses; nothing was written",
    )

"""How packed values of a bucketed table are laid out: asked of the lake, told to a new table."""

from dataclasses import dataclass

import numpy as np

from feature_store.contracts.errors import ContractViolation


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Width, type and buckets of a table's packed values: the same in raw, daily and pool."""

    dim: int
    buckets: int
    dtype: str = "float32"

    @classmethod
    def of_properties(cls, properties: dict[str, str], where: str) -> "Layout":
        """The layout that a table was created with.

        Args:
            properties: those of the table, without the prefix `derm.`.
            where: its address, for the error.

        Raises:
            ContractViolation: it was created without one.
        """
        try:
            dim, buckets = int(properties["dim"]), int(properties["buckets"])
            return cls(dim=dim, buckets=buckets, dtype=properties["dtype"])
        except KeyError as error:
            raise ContractViolation(
                "a table does not say how it is laid out",
                where=where,
                expected="table properties derm.dtype, derm.dim and derm.buckets",
                found=f"derm.{' derm.'.join(properties)}" if properties else "none",
            ) from error

    @property
    def packed(self) -> str:
        """The type of a packed value, little-endian, as NumPy writes it: `<f4`."""
        return np.dtype(self.dtype).newbyteorder("<").str

    def check(self, found: "Layout", name: str) -> None:
        """Compare the layout of a table with this one, which the recipe asks for.

        Raises:
            ContractViolation: they differ.
        """
        if found != self:
            raise ContractViolation(
                f"{name} is laid out differently from the recipe",
                expected=str(self),
                found=str(found),
                hint="derm rebucket",
            )

    def properties(self) -> dict[str, str]:
        """Table properties of a table of this layout."""
        return {"dtype": self.dtype, "dim": str(self.dim), "buckets": str(self.buckets)}

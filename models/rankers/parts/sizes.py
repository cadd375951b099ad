"""Sizes of parts that several rankers may have. Imports no torch: recipes are read without it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class RelationsConfig:
    """What a ranker makes of a graph's vectors, beside reading them.

    Attributes:
        upstream: whose pools hold them; empty: nothing is made.
        relations: spaces in which user and Pin are compared.
        heads: of the attention over them.
        pace: by which matrices and translations learn slower than everything else.
    """

    upstream: str = ""
    relations: int = 8
    heads: int = 4
    pace: float = 0.1

    def __post_init__(self) -> None:
        for name in ("relations", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected >= 1, found {getattr(self, name)}")
        if not 0 < self.pace <= 1:
            raise ValueError(f"pace: expected above 0, up to 1, found {self.pace}")

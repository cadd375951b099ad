"""What id tables are made of. Imports no torch: recipes are read without it."""

from dataclasses import dataclass, field

from models.nn.config import IdTableConfig, NegativesConfig

# Changes with the architecture: weights of another one cannot be continued.
ARCHITECTURE = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class IdTablesConfig:
    """A table of users, a table of Pins, and how pairs teach them.

    Attributes:
        embedding_dim: D, of both.
        user_rows, pin_rows: of the tables, the default row among them.
        hashes, min_count: see `IdTableConfig`.
        learning_rate: of row-wise Adagrad.
        weights: labels and actions that make a pair of a user and a Pin, and what each weighs;
            those that the data set does not have say nothing.
        both_ways: Pins are asked for their users too, among the users of the batch.
    """

    embedding_dim: int = 32
    user_rows: int = 2**16
    pin_rows: int = 2**16
    hashes: int = 1
    min_count: int = 5
    learning_rate: float = 0.05
    weights: str = "save=1, click=1, conversion=4"
    both_ways: bool = True
    negatives: NegativesConfig = field(default_factory=NegativesConfig)

    def __post_init__(self) -> None:
        for rows in (self.user_rows, self.pin_rows):
            self._table(rows)

    @property
    def user(self) -> IdTableConfig:
        """The table of users."""
        return self._table(self.user_rows)

    @property
    def pin(self) -> IdTableConfig:
        """The table of Pins."""
        return self._table(self.pin_rows)

    def _table(self, rows: int) -> IdTableConfig:
        return IdTableConfig(
            rows=rows, dim=self.embedding_dim, hashes=self.hashes, min_count=self.min_count
        )


DEFAULT = IdTablesConfig()
READS = "pairs"

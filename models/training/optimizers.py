"""The optimizers of an objective as one: AdamW, and row-wise Adagrad where it declares tables."""

from collections.abc import Mapping

from torch import Tensor

from models.protocol import Objective
from models.training.checkpoint import Tensors
from models.training.config import TrainingConfig
from models.training.optimizer import FlatAdamW
from models.training.row_wise import RowWiseAdagrad


class Optimizers:
    """Steps, saves and loads all of them together.

    Args:
        learning_rate: of AdamW; tables have their own.

    Raises:
        ValueError: the objective declares a table that is no parameter [rows, width] of it.
    """

    def __init__(
        self, objective: Objective, config: TrainingConfig, *, learning_rate: float
    ) -> None:
        tables = objective.tables()
        shapes = {name: p.dim() for name, p in objective.named_parameters()}
        if wrong := [name for name in tables if shapes.get(name) != 2]:
            expected = sorted(name for name, dims in shapes.items() if dims == 2)
            raise ValueError(f"tables: expected some of {expected}, found {wrong}")
        self._dense = FlatAdamW(
            objective,
            learning_rate=learning_rate,
            weight_decay=config.weight_decay,
            max_norm=config.max_grad_norm,
            apart=tables,
        )
        self._tables = RowWiseAdagrad(objective, tables)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Use another rate from now on, for all but tables."""
        self._dense.set_learning_rate(learning_rate)

    def zero_grad(self) -> None:
        """Forget the gradients of the last step."""
        self._dense.zero_grad()
        self._tables.zero_grad()

    def step(self) -> None:
        """Apply the gradients."""
        self._dense.step()
        self._tables.step()

    def tensors(self) -> Tensors:
        """The state of all on the CPU, named `<kind>/<parameter>`."""
        return self._dense.tensors() | self._tables.tensors()

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a saved state; parameters without one start afresh."""
        self._dense.load(tensors)
        self._tables.load(tensors)

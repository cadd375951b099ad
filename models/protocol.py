"""What the loop, the steps and the experiments know of a model; a family says the rest.

A family is a folder of `models/`: `config.py` (sizes, without torch: `DEFAULT`, which knows its
`embedding_dim`, and `READS`), `family.py` (a `Family` called `FAMILY`), and whatever it is made of.
Nobody outside a family's folder imports it; the registry finds it by name.

Shapes: B rows, U distinct entities, T tasks, E embedding width.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from feature_store.contracts.base import Entity, Upstream
from feature_store.contracts.datasets import DatasetSpec, Feature
from feature_store.contracts.edges import EdgeInputs
from feature_store.contracts.sequences import PairInputs, SequenceInputs
from feature_store.reading.numbered import NumberedGraph
from models.nn.tokens import NumericRange

Batch = Mapping[str, Tensor]


class Metric(Protocol):
    """A streaming metric of one task; rows that are scored come with their user."""

    def update(self, predicted_B: Tensor, label_B: Tensor, batch: Batch) -> None:
        """Count scored rows of a batch; those with a NaN label are left out."""
        ...

    def result(self) -> dict[str, float | None]:
        """The numbers by name, None where undefined; the same on every rank."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class RowWise:
    """How a table is trained whose rows are looked up, and most of which no step touches.

    Attributes:
        learning_rate: of row-wise Adagrad, which slows down by itself.
        epsilon: keeps the first step of a row finite.
        by_frequency: a row that was read n times learns log(n + 1) / log(n_max + 1) as fast, n_max
            that of the row that was read most.
        sharded: the rows lie with several ranks, and the gradient of a rank's rows is already that
            of all ranks; otherwise every rank has all rows.
        max_norm: of a row, held after every step that moves it; 0 sets no bound.
        sums: a buffer [rows] of the objective for the optimizer's state, where the objective has to
            keep it beside the rows; the optimizer keeps it otherwise.
    """

    learning_rate: float = 0.05
    epsilon: float = 1e-8
    by_frequency: bool = False
    sharded: bool = False
    max_norm: float = 0.0
    sums: str = ""


class Objective(nn.Module):
    """What the loop trains. Its weights and buffers are the snapshot.

    Attributes:
        tasks: what is scored, the primary one first; none where nothing is predicted for a pair.
            A task may be anything that its metric can measure: a label, a number, an order.
        losses: names that `forward` may yield, `total` first.
        every_parameter_learns: whether each step gives every parameter a gradient.

    Source: none, it is this project's own seam.
    Deviations: none.
    """

    tasks: tuple[str, ...]
    losses: tuple[str, ...]
    every_parameter_learns: bool

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """This rank's part of each loss; the parts of all ranks add up."""
        raise NotImplementedError

    def tables(self) -> Mapping[str, RowWise]:
        """Names of parameters [rows, width] that are trained row by row, and how.

        A step moves only rows with a gradient; ranks exchange these rows alone. The gradient may be
        sparse. All other parameters are AdamW's.
        """
        return {}

    def meet(self, graph: NumberedGraph) -> None:
        """The graph of a day, before anything is learned from it: rows for nodes that are new.

        Asked where an upstream reads edges.
        """
        raise NotImplementedError

    def begin_day(self) -> None:
        """A new day of data begins; what was counted before may be made to weigh less."""

    def begin_again(self) -> None:
        """Days that were gone through begin once more; what was counted is not counted again."""

    def predict(self, batch: Batch) -> Tensor:
        """What it predicts of every row for every task, [B, T]."""
        raise NotImplementedError

    def targets(self, batch: Batch) -> Tensor:
        """What `predict` should have said, [B, T]; NaN where it is not known."""
        raise NotImplementedError

    def metrics(self) -> dict[str, Metric]:
        """A new metric for every task."""
        raise NotImplementedError

    def embed(self, entity: Entity, batch: Batch) -> Tensor:
        """The embedding_UE of distinct entities, of norm 1; needs only their own features."""
        raise NotImplementedError

    def numbers(self) -> dict[str, float]:
        """Numbers of its own that belong into a day's metrics."""
        return {}


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstWindow:
    """What the first window says about the data; fixed for the life of a space.

    Attributes:
        ranges: of every numeric feature.
        base_rates: share of positives of every label, masked rows apart.
        sample: rows that show how far the numeric features spread.
    """

    ranges: Mapping[str, NumericRange]
    base_rates: Mapping[str, float]
    sample: Batch


class Family(Protocol):
    """A way to make embeddings: from declarations to something that can be trained.

    Attributes:
        version: changes with the architecture; weights of another one cannot be continued.
    """

    version: int

    def objective(
        self, spec: DatasetSpec, upstream: Upstream, config: Any, pools: Iterable[Feature]
    ) -> Objective:
        """A new one, with weights drawn from torch's generator.

        Args:
            config: of the type of the family's `config.DEFAULT`.
            pools: features that are read from other upstreams' pools.
        """
        ...

    def fit(self, objective: Objective, window: FirstWindow) -> None:
        """Take over what the first window says; once, before the first step."""
        ...

    def random_pins(self, config: Any) -> int:
        """Pins of the day that are drawn beside every batch of a training."""
        ...

    def sequences(self, spec: DatasetSpec, config: Any) -> SequenceInputs:
        """What is read of timelines; asked of families that read them."""
        ...

    def pairs(self, spec: DatasetSpec, config: Any) -> PairInputs:
        """What makes a pair; asked of families that read pairs."""
        ...

    def edges(self, spec: DatasetSpec, config: Any) -> EdgeInputs:
        """What is read of the graph of a day; asked of families that read edges."""
        ...

    def without(
        self,
        config: Any,
        weights: Mapping[str, Tensor],
        entity: Entity,
        key_M: npt.NDArray[np.int64],
    ) -> tuple[dict[str, Tensor], int]:
        """A snapshot's weights without what they hold of some users or Pins.

        Asked of families that read edges or pairs: theirs have a row for each of them.

        Args:
            key_M: hashed ids.

        Returns:
            The weights, and how many rows were taken out; 0 where there was none of them.
        """
        ...

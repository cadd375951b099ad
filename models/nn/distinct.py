"""Distinct entities of a batch, and the rows they belong to.

Shapes: B rows, U distinct entities.
"""

from collections.abc import Mapping

from torch import Tensor

from feature_store.contracts.base import Entity


def of_rows(batch: Mapping[str, Tensor], entity: Entity, x_U: Tensor) -> Tensor:
    """What belongs to the entity of each row, x_B, of what belongs to each distinct one."""
    at_B = batch.get(f"row:{entity}")
    return x_U if at_B is None else x_U.index_select(0, at_B)

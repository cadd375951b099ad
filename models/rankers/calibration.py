"""From logits to probabilities: a scale and a shift for each surface, near those of yesterday.

Shapes: T tasks, S surfaces (0: one that was never seen), C bins of the logit, B rows.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.training.checkpoint import read_tensors, write_tensors

Floats = npt.NDArray[np.float64]
Method = Literal["platt", "temperature"]

BINS = 2**11
_LOGIT_BOUND = 16.0
_STEPS = 30
_MIN_WEIGHT = 1e-3
_NAME = "calibration_TS2"


class LogitCounts:
    """Positives and negatives by task, surface and bin of the logit: all that calibration needs.

    A label that arrives late adds a positive and takes back the negative that its impression was
    counted as.

    Args:
        surfaces: S - 1, those that are declared.
    """

    def __init__(self, tasks: int, surfaces: int) -> None:
        self.counts_TS2C = torch.zeros(tasks, surfaces + 1, 2, BINS, dtype=torch.float64)

    def update(self, logit_BT: Tensor, label_BT: Tensor, surface_B: Tensor, late_B: Tensor) -> None:
        """Count scored rows; labels that are NaN are left out."""
        scaled_BT = (logit_BT.double() + _LOGIT_BOUND) * (BINS / (2 * _LOGIT_BOUND))
        bin_BT = scaled_BT.long().clamp(0, BINS - 1)
        for task, counts_S2C in enumerate(self.counts_TS2C):
            known_B = ~torch.isnan(label_BT[:, task])
            label_B, late = label_BT[known_B, task].long(), late_B[known_B]
            at_B = surface_B[known_B].long() * 2 * BINS + bin_BT[known_B, task]
            flat, one = counts_S2C.view(-1), torch.ones(1, dtype=torch.float64)
            flat.index_add_(0, at_B + label_B * BINS, one.expand(len(at_B)))
            taken = at_B[late & (label_B == 1)]
            flat.index_add_(0, taken, -one.expand(len(taken)))


def fit(
    counts_TS2C: Floats, before_TS2: Floats, prior_rows: int, method: Method = "platt"
) -> Floats:
    """The scale and the shift of each task and surface, [T, S, 2].

    Those of surface 0 are of all surfaces together. Where a day has few rows, or labels of one
    class, they stay near those of the day before.

    Args:
        before_TS2: of the day before; scale 1 and shift 0 where there is none.
        prior_rows: rows that the day before weighs.
        method: `platt` fits both; `temperature` fits the scale, and the shift stays what it was.

    Source: Platt scaling, with a prior (Platt 1999); temperature scaling (Guo et al. 2017); by
    surface as in Pinterest's unified model.
    """
    counts_TS2C = counts_TS2C.copy()
    counts_TS2C[:, 0] = counts_TS2C.sum(axis=1)
    found = np.empty_like(before_TS2)
    for task, (counts_S2C, before_S2) in enumerate(zip(counts_TS2C, before_TS2, strict=True)):
        for surface, (counts_2C, before_2) in enumerate(zip(counts_S2C, before_S2, strict=True)):
            found[task, surface] = _newton(counts_2C, before_2, prior_rows, method)
    return found


def untouched(tasks: int, surfaces: int) -> Floats:
    """The calibration [T, S, 2] that leaves logits as they are."""
    return np.broadcast_to([1.0, 0.0], (tasks, surfaces + 1, 2)).copy()


def apply(calibration_TS2: Tensor, logit_BT: Tensor, surface_B: Tensor) -> Tensor:
    """The probabilities_BT of logits."""
    by_row_BT2 = calibration_TS2[:, surface_B.long()].transpose(0, 1)
    return torch.sigmoid(by_row_BT2[..., 0] * logit_BT + by_row_BT2[..., 1])


def ratio(counts_S2C: Floats, calibration_S2: Floats) -> float | None:
    """Predicted by observed positives of one task; None where there is none."""
    positives = counts_S2C[:, 1].sum()
    scaled_SC = calibration_S2[:, :1] * _logits() + calibration_S2[:, 1:]
    predicted = (counts_S2C.sum(axis=1) / (1 + np.exp(-scaled_SC))).sum()
    return float(predicted / positives) if positives > 0 else None


def ratios(counts_S2C: Floats, calibration_S2: Floats) -> list[tuple[float | None, float]]:
    """Predicted by observed positives of one task on each surface, and how many were observed."""
    return [
        (ratio(counts_S2C[s : s + 1], calibration_S2[s : s + 1]), float(counts_S2C[s, 1].sum()))
        for s in range(len(counts_S2C))
    ]


def write(path: Path, calibration_TS2: Floats) -> None:
    """Write a calibration as a safetensors file."""
    write_tensors(path, {_NAME: torch.from_numpy(calibration_TS2)})


def read(path: Path) -> Floats:
    """The calibration in a file."""
    found: Floats = read_tensors(path)[0][_NAME].double().numpy()
    return found


def _newton(counts_2C: Floats, before_2: Floats, prior_rows: int, method: Method) -> Floats:
    """Minimise the cross-entropy of binned logits, and the distance to `before_2`."""
    rows_C, x_C = counts_2C.sum(axis=0), _logits()
    rows = rows_C.sum()
    if rows <= 0:
        return before_2
    a, b = before_2
    rate = (rows_C / (1 + np.exp(-np.clip(a * x_C + b, -50, 50)))).sum() / rows
    weight = max(prior_rows * rate * (1 - rate), _MIN_WEIGHT)
    for _ in range(_STEPS):
        p_C = 1 / (1 + np.exp(-np.clip(a * x_C + b, -50, 50)))
        miss_C, spread_C = rows_C * p_C - counts_2C[1], rows_C * p_C * (1 - p_C)
        gradient = np.array([(miss_C * x_C).sum(), miss_C.sum()])
        gradient += weight * (np.array([a, b]) - before_2)
        mixed = (spread_C * x_C).sum()
        hessian = np.array([[(spread_C * x_C**2).sum(), mixed], [mixed, spread_C.sum()]])
        hessian += weight * np.eye(2)
        if method == "platt":
            step = np.linalg.solve(hessian, gradient)
        else:
            step = np.array([gradient[0] / hessian[0, 0], 0.0])
        step *= min(1.0, 1.0 / max(np.abs(step).max(), 1e-12))
        a, b = a - step[0], b - step[1]
        if np.abs(step).max() < 1e-10:
            break
    return np.array([a, b])


def _logits() -> Floats:
    """The middle of each bin [C]."""
    return (np.arange(BINS, dtype=np.float64) + 0.5) * (2 * _LOGIT_BOUND / BINS) - _LOGIT_BOUND

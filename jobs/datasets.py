"""Data sets by name."""

from pathlib import Path

from feature_store.contracts.datasets import DatasetSpec
from feature_store.contracts.errors import InputError
from jobs.adapters.base import Adapter
from jobs.adapters.simulated import SimulatedAdapter
from simulator import config as worlds

SIMULATED = "simulated"
REAL: dict[str, type[Adapter]] = {}


def dataset_spec(
    dataset: str, source: str, simulation: worlds.WorldConfig | None = None
) -> DatasetSpec:
    """The declaration of a data set.

    Args:
        simulation: the simulated world's configuration; None is the toy world.

    Raises:
        InputError: no data set has that name, or its declaration is wrong.
    """
    if dataset == SIMULATED:
        folder = Path(source)
        return SimulatedAdapter(folder=folder, simulation=simulation or worlds.toy()).spec
    raise _unknown(dataset)


def open_adapter(dataset: str, source: str, root: Path, simulation: worlds.WorldConfig) -> Adapter:
    """The adapter that reads a data set.

    Args:
        root: the home; the simulated world's files are below it.

    Raises:
        InputError: no data set has that name, or its source is missing.
    """
    if dataset == SIMULATED:
        return SimulatedAdapter(folder=simulated_folder(root), simulation=simulation)
    raise _unknown(dataset)


def simulated_folder(root: Path) -> Path:
    """Where `derm simulate` writes below a home."""
    return root / "source" / SIMULATED


def _unknown(dataset: str) -> InputError:
    return InputError("unknown data set", expected=SIMULATED, found=dataset)

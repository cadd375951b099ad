"""Data sets by name."""

from collections.abc import Callable
from pathlib import Path

from feature_store.contracts.datasets import DatasetSpec
from feature_store.contracts.errors import InputError
from jobs.adapters.base import Adapter, source_folder
from jobs.adapters.declared import DeclaredAdapter
from jobs.adapters.kuairand import KuaiRandAdapter
from jobs.adapters.movielens import MovieLensAdapter
from jobs.adapters.simulated import SimulatedAdapter
from jobs.adapters.trivago import TrivagoAdapter
from simulator import config as worlds

SIMULATED = "simulated"
REAL: dict[str, Callable[..., Adapter]] = {
    "kuairand": KuaiRandAdapter,
    "movielens": MovieLensAdapter,
    "trivago": TrivagoAdapter,
}


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
    if dataset in REAL:
        return REAL[dataset](folder=Path(source)).spec
    return DeclaredAdapter(path=_declaration(dataset), folder=Path(source)).spec


def open_adapter(dataset: str, source: str, root: Path, simulation: worlds.WorldConfig) -> Adapter:
    """The adapter that reads a data set.

    Args:
        root: the home; the simulated world's files are below it.

    Raises:
        InputError: no data set has that name, or its source is missing.
    """
    if dataset == SIMULATED:
        return SimulatedAdapter(folder=simulated_folder(root), simulation=simulation)
    if dataset in REAL:
        return REAL[dataset](folder=source_folder(dataset, source))
    path = _declaration(dataset)
    return DeclaredAdapter(path=path, folder=Path(source) if source else path.parent)


def simulated_folder(root: Path) -> Path:
    """Where `derm simulate` writes below a home."""
    return root / "source" / SIMULATED


def _declaration(dataset: str) -> Path:
    path = Path(dataset)
    if path.suffix != ".toml" or not path.is_file():
        known = " | ".join((SIMULATED, *REAL))
        raise InputError(
            "unknown data set",
            expected=f"{known} | the path of a declaration (*.toml)",
            found=dataset,
        )
    return path

"""Data sets by name. An adapter's module is imported when its data set is asked for."""

import importlib
from collections.abc import Sequence
from pathlib import Path

from feature_store.contracts.datasets import DatasetSpec
from feature_store.contracts.errors import InputError
from feature_store.contracts.upstreams import UpstreamDeclaration
from jobs.datasets.base import Adapter
from jobs.paths import HomePaths
from simulator.market.config import WORLDS, Simulation
from simulator.market.worlds import smallest

REAL = ("kuairand", "movielens", "trivago")


def dataset_spec(
    dataset: str,
    source: str,
    simulation: Simulation | None = None,
    upstreams: Sequence[UpstreamDeclaration] = (),
) -> DatasetSpec:
    """The declaration of a data set.

    Args:
        simulation: a simulated world's configuration; None is the smallest that there is.
        upstreams: beside those that it declares, or in their place.

    Raises:
        InputError: no data set has that name, its declaration is wrong, or upstreams do not fit it.
    """
    spec = _adapter(dataset, Path(source), simulation or smallest(dataset)).spec
    try:
        return spec.with_upstreams(upstreams) if upstreams else spec
    except ValueError as error:
        raise InputError(
            "these upstreams do not fit the data set", where=dataset, found=str(error)
        ) from error


def open_adapter(dataset: str, source: str, root: Path, simulation: Simulation) -> Adapter:
    """The adapter that reads a data set.

    Args:
        source: folder of the files; a declared data set's are beside its declaration by default.
        root: the home; a simulated world's files are below it.

    Raises:
        InputError: no data set has that name, or its source is missing.
    """
    if dataset in WORLDS:
        return _adapter(dataset, simulated_folder(root), simulation)
    folder = Path(source) if source or dataset in REAL else Path(dataset).parent
    adapter = _adapter(dataset, folder, simulation)
    if not folder.is_dir() or (dataset in REAL and not source):
        raise InputError(
            f"data set {dataset} needs its files",
            expected="a folder with the files of the data set",
            found=source or "no source",
            hint=f"derm init --dataset {dataset} --source DIR",
        )
    return adapter


def simulated_folder(root: Path) -> Path:
    """Where `derm simulate` writes below a home."""
    return HomePaths(root).source / "simulated"


def _adapter(dataset: str, folder: Path, simulation: Simulation) -> Adapter:
    if dataset in WORLDS:
        from jobs.datasets.simulated import open_world

        return open_world(dataset, folder, simulation)
    if dataset in REAL:
        module = importlib.import_module(f"jobs.datasets.{dataset}")
        adapter: Adapter = module.open_folder(folder)
        return adapter
    if Path(dataset).suffix == ".toml":
        from jobs.datasets.declared import DeclaredAdapter

        return DeclaredAdapter(path=Path(dataset), folder=folder)
    raise InputError(
        "unknown data set",
        expected=" | ".join((*WORLDS, *REAL, "the path of a declaration (*.toml)")),
        found=dataset,
    )

"""What is told of a training while it runs, and who may listen: TensorBoard and MLflow.

A watcher is told numbers that were computed anyway: whoever listens, the bits are the same. Rows,
not steps, are what numbers are drawn over: they mean the same in a resumed attempt, on any number
of processes and for any size of a batch.
"""

import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from feature_store.contracts.errors import InputError

Numbers = Mapping[str, float | None]


class Watcher:
    """Listens, and does nothing; others override what they want to hear."""

    def begin(self, what: str, rows: int) -> None:
        """A pass begins.

        Args:
            what: which day and which part of it.
            rows: how many it reads, at most.
        """

    def step(self, rows: int, losses: Mapping[str, float]) -> None:
        """A step was taken.

        Args:
            rows: trained on so far, passes before this one included.
            losses: of this step, over all ranks.
        """

    def end(self) -> None:
        """The pass has ended."""

    def close(self, numbers: Numbers) -> None:
        """The training has ended; what is recorded of it."""


class Several(Watcher):
    """Tells everybody, in order."""

    def __init__(self, watchers: Iterable[Watcher]) -> None:
        self._watchers = tuple(watchers)

    def begin(self, what: str, rows: int) -> None:
        """Tell everybody."""
        for watcher in self._watchers:
            watcher.begin(what, rows)

    def step(self, rows: int, losses: Mapping[str, float]) -> None:
        """Tell everybody."""
        for watcher in self._watchers:
            watcher.step(rows, losses)

    def end(self) -> None:
        """Tell everybody."""
        for watcher in self._watchers:
            watcher.end()

    def close(self, numbers: Numbers) -> None:
        """Tell everybody."""
        for watcher in self._watchers:
            watcher.close(numbers)


class TensorBoard(Watcher):
    """Writes every step's losses, and the day's numbers at the end, as event files.

    Args:
        folder: of this training.

    Raises:
        InputError: tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        module = _installed("torch.utils.tensorboard", "tensorboard")
        self._writer = module.SummaryWriter(str(folder))
        self._rows = 0

    def step(self, rows: int, losses: Mapping[str, float]) -> None:
        """Write the losses of a step."""
        self._rows = rows
        for name, value in losses.items():
            self._writer.add_scalar(f"loss/{name}", value, rows)

    def close(self, numbers: Numbers) -> None:
        """Write the numbers of the day, and close the file."""
        for name, value in _finite(numbers).items():
            self._writer.add_scalar(f"day/{name}", value, self._rows)
        self._writer.close()


class MlFlow(Watcher):
    """Records a run: losses in parcels of a hundred steps, the day's numbers at the end.

    Args:
        uri: of the tracking server, or of its database.
        experiment: what runs are gathered under; made when it is not there.
        run: its name.

    Raises:
        InputError: mlflow is not installed.
    """

    def __init__(self, uri: str, experiment: str, run: str) -> None:
        self._entities = _installed("mlflow.entities", "mlflow")
        self._client = _installed("mlflow.tracking", "mlflow").MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name(experiment)
        known = found.experiment_id if found else self._client.create_experiment(experiment)
        self._run = self._client.create_run(known, run_name=run).info.run_id
        self._waiting: list[Any] = []
        self._rows = 0

    def step(self, rows: int, losses: Mapping[str, float]) -> None:
        """Keep the losses of a step until there are enough to send."""
        self._rows = rows
        self._keep({f"loss.{name}": value for name, value in losses.items()})
        if len(self._waiting) >= _PARCEL * len(losses):
            self._send()

    def close(self, numbers: Numbers) -> None:
        """Send what is left, and end the run."""
        self._keep({f"day.{name}": value for name, value in _finite(numbers).items()})
        self._send()
        self._client.set_terminated(self._run)

    def _keep(self, numbers: Mapping[str, float]) -> None:
        # MLflow draws over its own clock where it is not told otherwise; rows are ours.
        self._waiting += [
            self._entities.Metric(name, value, 0, self._rows) for name, value in numbers.items()
        ]

    def _send(self) -> None:
        self._client.log_batch(self._run, metrics=self._waiting)
        self._waiting = []


_PARCEL = 100


def _finite(numbers: Numbers) -> dict[str, float]:
    return {name: float(x) for name, x in numbers.items() if isinstance(x, int | float)}


def _installed(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"trainings are to be tracked with {package}, which is not installed",
            where="DERM_TRACK",
            found=str(error),
            hint=f"pip install 'derm[{package}]', or leave {package} out of DERM_TRACK",
        ) from error

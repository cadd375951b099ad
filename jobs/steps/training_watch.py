"""Who is told how a training gets on: the terminal always, others by `DERM_TRACK`."""

from collections.abc import Mapping
from contextlib import ExitStack
from logging import Logger

from feature_store.contracts.errors import InputError
from jobs.engine.context import RunContext
from jobs.progress import RowProgress
from models.training.watchers import MlFlow, Several, TensorBoard, Watcher


def watcher_of(ctx: RunContext, run: str) -> Watcher:
    """The watchers of one training; those that keep files keep them below the home.

    Args:
        run: what the training goes by: the id of its snapshot.

    Raises:
        InputError: what is to track it is not installed, or MLflow's place is not said.
    """
    chosen: list[Watcher] = [Terminal(f"train {ctx.ds} {ctx.own_upstream}", ctx.log)]
    folder = ctx.paths.tracking.absolute()
    for name in filter(None, ctx.settings.track.split(",")):
        if name == "tensorboard":
            chosen.append(TensorBoard(folder / name / ctx.own_upstream / run))
        else:
            chosen.append(MlFlow(_server(ctx), f"derm {ctx.own_upstream}", run))
    return Several(chosen)


class Terminal(Watcher):
    """A bar on a terminal, a line every few seconds in a log."""

    def __init__(self, label: str, log: Logger) -> None:
        self._label, self._log = label, log
        self._open = ExitStack()
        self._progress: RowProgress | None = None
        self._before = self._seen = 0

    def begin(self, what: str, rows: int) -> None:
        """Begin a bar."""
        progress = RowProgress(rows, f"{self._label}: {what}", self._log)
        self._progress = self._open.enter_context(progress)
        self._before = self._seen

    def step(self, rows: int, losses: Mapping[str, float]) -> None:  # noqa: ARG002 - rows alone
        """Move it."""
        if self._progress:
            self._progress.add(rows - self._seen)
        self._seen = rows

    def end(self) -> None:
        """End it."""
        self._open.close()
        self._progress = None


def _server(ctx: RunContext) -> str:
    if not ctx.settings.mlflow_uri:
        raise InputError(
            "trainings are to be tracked with mlflow, and nobody says where",
            where="DERM_TRACK",
            expected="DERM_MLFLOW_URI",
            found="empty",
            hint="DERM_MLFLOW_URI=http://HOST:5000, or sqlite:////FOLDER/mlflow.db",
        )
    return ctx.settings.mlflow_uri

"""Whoever follows a training hears every step of it, and changes nothing."""

import logging
import sys
from pathlib import Path

import pytest
import torch

from feature_store.contracts.errors import InputError
from jobs.engine.snapshots import MODEL, SnapshotStore
from jobs.steps import training_run
from jobs.steps.training_watch import Terminal, watcher_of
from models.training.watchers import MlFlow, Several, TensorBoard, Watcher
from tests.model_fixtures.world import FIRST, World, small_recipe


class Recording(Watcher):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple] = []

    def begin(self, what, rows):
        self.told.append(("begin", what, rows))

    def step(self, rows, losses):
        self.told.append(("step", rows, losses))

    def end(self):
        self.told.append(("end",))

    def close(self, numbers):
        self.told.append(("close", numbers))

    def of(self, kind):
        """What was told of one kind."""
        return [told[1:] for told in self.told if told[0] == kind]


class Stopping(Recording):
    """Ends the training at its fifth step."""

    def step(self, rows, losses):
        super().step(rows, losses)
        if len(self.of("step")) == 5:
            raise KeyboardInterrupt


def test_every_step_is_told_and_the_bits_stay(tmp_path: Path, monkeypatch) -> None:
    weights, heard = [], Recording()
    for name, watcher in (("heard", heard), ("silent", Watcher())):
        monkeypatch.setattr(training_run, "watcher_of", lambda *_, w=watcher: w)
        world = World(tmp_path / name)
        world.add_day(FIRST)
        store = SnapshotStore(world.root, "ctr")
        weights.append(store.read(store.of(world.train(FIRST).outputs[0]), MODEL))
    assert all(torch.equal(weights[0][name], tensor) for name, tensor in weights[1].items())
    steps, [(numbers,)] = heard.of("step"), heard.of("close")
    rows = [row for row, _ in steps]
    assert rows == sorted(set(rows))
    assert rows[-1] == numbers["rows"] == 400
    assert {"auc", "loss", "effective_rank_user"} <= numbers.keys()
    assert heard.of("begin") == [(f"{FIRST} first", 400), (f"{FIRST} second", 400)]
    assert len(heard.of("end")) == 2
    assert all(set(losses) == {"total", "supervised", "self_supervised"} for _, losses in steps)


def test_a_resumed_training_is_told_from_where_it_was(tmp_path: Path, monkeypatch) -> None:
    world, first, second = (
        World(tmp_path, small_recipe(checkpoint_steps=2)),
        Stopping(),
        Recording(),
    )
    world.add_day(FIRST)
    monkeypatch.setattr(training_run, "watcher_of", lambda *_: first)
    with pytest.raises(KeyboardInterrupt):
        world.train(FIRST)
    monkeypatch.setattr(training_run, "watcher_of", lambda *_: second)
    world.train(FIRST)
    # The checkpoint is of the fourth step.
    assert second.of("step")[0] == first.of("step")[4]
    assert second.of("step")[-1][0] == 400


def test_several_are_told_in_order() -> None:
    first, second = Recording(), Recording()
    both = Several((first, second))
    both.begin("day", 3)
    both.step(1, {"total": 0.5})
    both.end()
    both.close({"auc": None})
    assert first.told == second.told
    assert [told[0] for told in first.told] == ["begin", "step", "end", "close"]


def test_the_terminal_shows_how_far_it_is(caplog, monkeypatch) -> None:
    monkeypatch.setattr("jobs.progress._LOG_EVERY_S", 0.0)
    log = logging.getLogger("watched")
    with caplog.at_level(logging.INFO, "watched"):
        terminal = Terminal("train", log)
        terminal.begin("the day", 10)
        terminal.step(4, {"total": 1.0})
        terminal.step(10, {"total": 1.0})
        terminal.end()
    assert "train: the day: 4 of 10 rows" in caplog.text
    assert "train: the day: 10 of 10 rows" in caplog.text


@pytest.mark.parametrize(
    ("make", "package"),
    [
        (lambda folder: TensorBoard(folder), "tensorboard"),
        (lambda folder: MlFlow(folder.as_uri(), "derm", "run"), "mlflow"),
    ],
)
def test_what_is_not_installed_is_named(tmp_path, monkeypatch, make, package) -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] in (package, "mlflow")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"derm\[{package}\]"):
        make(tmp_path)


def test_tensorboard_shows_what_was_told(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _tell(TensorBoard(tmp_path))
    found = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in found.Scalars("loss/total")] == [(64, 0.5), (128, 0.25)]
    assert [(e.step, e.value) for e in found.Scalars("day/auc")] == [(128, 0.75)]
    assert "day/nothing" not in found.Tags()["scalars"]


def test_mlflow_wants_to_know_where(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("DERM_TRACK", "mlflow")
    world = World(tmp_path)
    world.add_day(FIRST)
    with pytest.raises(InputError, match="DERM_MLFLOW_URI"):
        watcher_of(world.context(FIRST, "ctr"), "run")


def test_mlflow_has_what_was_told(tmp_path: Path, monkeypatch) -> None:
    # A folder serves for a test; for more MLflow wants a database.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    tracking = pytest.importorskip("mlflow.tracking")
    for name in ("first", "second"):
        _tell(MlFlow(tmp_path.as_uri(), "derm ctr", name))
    client = tracking.MlflowClient(tracking_uri=tmp_path.as_uri())
    experiment = client.get_experiment_by_name("derm ctr").experiment_id
    runs = client.search_runs([experiment])
    assert {run.info.run_name for run in runs} == {"first", "second"}
    assert {run.info.status for run in runs} == {"FINISHED"}
    history = client.get_metric_history(runs[0].info.run_id, "loss.total")
    assert [(m.step, m.value) for m in history] == [(64, 0.5), (128, 0.25)]
    assert runs[0].data.metrics["day.auc"] == 0.75


def _tell(watcher: Watcher) -> None:
    watcher.begin("day", 128)
    watcher.step(64, {"total": 0.5})
    watcher.step(128, {"total": 0.25})
    watcher.end()
    watcher.close({"auc": 0.75, "nothing": None})

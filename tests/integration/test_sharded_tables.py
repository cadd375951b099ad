"""Tables over several ranks: as on one, read by any number of them, and a death is an error."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from feature_store.contracts.errors import ManifestCorrupt
from models.id_tables.sharded import read_shard
from models.training.checkpoint import read_tensors
from tests.model_fixtures.shards import CONFIG, NAMES, STEPS, play, trained


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Steps are so small that threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    play(folder)
    return folder


def test_four_and_two_ranks_learn_what_one_learns(played: Path) -> None:
    one, losses = trained(0, 1, sharded=False)
    alone, alone_losses = trained(0, 1, sharded=True)
    assert alone_losses == pytest.approx(losses, rel=1e-5)
    expected = dict(one.objective.named_parameters())
    assert len(losses) == STEPS
    for name, found in alone.objective.named_parameters():
        torch.testing.assert_close(found, expected[name], rtol=1e-5, atol=1e-5)
    for ranks in (2, 4):
        found = json.loads((played / f"losses-{ranks}").read_text())
        assert found == pytest.approx(losses, rel=1e-5)
        for name, table in read_tensors(played / f"whole-{ranks}")[0].items():
            torch.testing.assert_close(table, expected[name].detach(), rtol=1e-5, atol=1e-5)


def test_shards_of_four_are_read_by_two_and_those_by_three_byte_for_byte(played: Path) -> None:
    whole = read_tensors(played / "whole-4")[0]
    for name, rows in zip(NAMES, (CONFIG.user_rows, CONFIG.pin_rows), strict=True):
        files = sorted(path.name for path in (played / "copy-3").glob(f"{name}-*"))
        assert files == [f"{name}-{rank}of3.safetensors" for rank in range(3)]
        for folder in ("of-4", "copy-2", "copy-3"):
            # One process reads all shards.
            found = read_shard(played / folder, name, rows)
            assert found.numpy().tobytes() == whole[name].numpy().tobytes(), folder


def test_a_rank_that_dies_is_an_error(played: Path) -> None:
    told = json.loads((played / "lost").read_text())
    assert told["error"]
    assert told["seconds"] < 45, "before any time-out"


def test_shards_that_do_not_fit_together_are_refused(played: Path, tmp_path: Path) -> None:
    name, rows = NAMES[0], CONFIG.user_rows
    with pytest.raises(ManifestCorrupt, match="one number of ranks"):
        read_shard(tmp_path, name, rows)
    for path in (played / "of-4").glob(f"{name}-*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ManifestCorrupt, match="other rows"):
        read_shard(tmp_path, name, rows + 1)
    extra = tmp_path / f"{name}-0of2.safetensors"
    extra.write_bytes((played / "of-4" / f"{name}-0of4.safetensors").read_bytes())
    with pytest.raises(ManifestCorrupt, match="one number of ranks"):
        read_shard(tmp_path, name, rows)
    extra.unlink()
    (tmp_path / f"{name}-3of4.safetensors").unlink()
    with pytest.raises(ManifestCorrupt, match="one number of ranks"):
        read_shard(tmp_path, name, rows)

"""What tests of the data side share: a tiny world, a home that holds it, and the real data."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from jobs.cli import main
from simulator.config import WorldConfig
from tests import brief_recipe

REPOSITORY = Path(__file__).parents[1]
FIRST = "2025-03-01"
FOLDERS = {
    "kuairand": "kuairand27k_like_hate_subset",
    "movielens": "movielens_100k",
    "trivago": "trivago_recsys19_sample",
}


def tiny_world(**changes: object) -> WorldConfig:
    """The world of the brief recipe, changed."""
    return replace(brief_recipe.WORLD, **changes)  # type: ignore[arg-type]


def real_data(dataset: str) -> Path:
    """The folder of a real data set; the test is skipped where it is absent."""
    root = Path(os.environ.get("DERM_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    folder = root / FOLDERS[dataset]
    if not folder.is_dir():
        pytest.skip(f"{dataset} is not at {folder}: set DERM_TEST_DATA to the folder that holds it")
    return folder


@dataclass(frozen=True)
class Result:
    """What a command did."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Home:
    """A home and the `derm` command in it, run in this process."""

    path: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str] | None = None

    def must(self, *argv: str) -> None:
        """Run a command that succeeds."""
        self.monkeypatch.setenv("DERM_HOME", str(self.path))
        assert main(argv) == 0

    def derm(self, *argv: str) -> Result:
        """Run a command."""
        self.monkeypatch.setenv("DERM_HOME", str(self.path))
        assert self.capsys
        self.capsys.readouterr()
        code = main(argv)
        captured = self.capsys.readouterr()
        return Result(code, captured.out, captured.err)

"""The harness of experiments, with experiments of a few lines that neither simulate nor train."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from experiments.harness.design import (
    Design,
    Hypothesis,
    Measure,
    Measured,
    Published,
    Variant,
)
from experiments.harness.registry import EXPERIMENTS, Chosen, load
from experiments.harness.report import render
from experiments.harness.results import Results
from experiments.harness.statistics import auc_of, mean_of, over_users
from feature_store.contracts.errors import InputError
from tests.architecture.sources import ROOT
from tests.data_fixtures import Home

COINS = """
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.harness.design import Design, Hypothesis, Measure, Measured, Variant


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    flips: int = 400
    folder: str = ""
    slow: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Coin(Variant):
    chance: float = 0.5


def design(options):
    def run(cell):
        folder = Path(options.folder)
        (folder / f"ran-{cell.variant.name}-{cell.seed}-{os.getpid()}").touch()
        while options.slow and cell.seed:
            time.sleep(0.1)
        if (folder / "broken").exists() and cell.seed == 2:
            raise RuntimeError("a coin stood on its edge")
        if (folder / "killed").exists() and cell.seed == 2:
            os.kill(os.getpid(), 9)
        random = np.random.default_rng((cell.seed, round(100 * cell.variant.chance)))
        heads = random.random(options.flips) < cell.variant.chance
        return {cell.variant.name: Measured.once({"heads": heads.mean()})}

    return Design(
        name="coins",
        title="Coins",
        introduction="{seeds} throws.",
        run=run,
        variants=(Coin(name="fair"), Coin(name="bent", chance=0.7), Coin(name="p", placebo=True)),
        measures=(Measure(name="heads", meaning="share of heads", better="up"),),
        settings=options,
        hypotheses=(
            Hypothesis(says="bent shows", variant="bent", measure="heads", expected="up"),
            Hypothesis(says="and less", variant="bent", measure="heads", expected="down"),
        ),
    )
"""


@pytest.fixture
def coins(tmp_path: Path) -> Path:
    path = tmp_path / "coins.py"
    path.write_text(COINS)
    return path


@pytest.fixture
def home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Home:
    return Home(tmp_path, monkeypatch, capsys)


def _arguments(coins: Path, *more: str) -> tuple[str, ...]:
    folder = coins.parent
    sized = ("--seeds", "4", "--out", str(folder / "out"), "--set", f"folder={folder}")
    return ("experiment", str(coins), *sized, *more)


def _ran(coins: Path) -> list[str]:
    return sorted(p.name.rpartition("-")[0] for p in coins.parent.glob("ran-*"))


def test_processes_give_what_one_process_gives_and_keep_to_their_worlds(
    home: Home, coins: Path
) -> None:
    assert home.derm(*_arguments(coins, "--processes", "2")).code == 0
    worlds_of = {tuple(p.name.split("-")[2:]) for p in coins.parent.glob("ran-*")}
    # Four worlds, each in one process; the last one may be shared by who has nothing else to do.
    assert 4 <= len(worlds_of) <= 5
    kept = (coins.parent / "out" / "coins.json").read_text()
    (coins.parent / "out" / "coins.json").unlink()
    assert home.derm(*_arguments(coins, "--processes", "1")).code == 0
    assert (coins.parent / "out" / "coins.json").read_text() == kept
    page = (coins.parent / "out" / "coins.md").read_text()
    assert "4 throws." in page
    assert "| bent shows | simulated | heads |" in page
    assert page.count("| held |") == 1
    assert "**contradicted**" in page
    assert "| placebo |" in page


@pytest.mark.parametrize(("flag", "said"), [("broken", "stood on its edge"), ("killed", "-9")])
def test_what_a_cell_breaks_is_said_and_the_rest_is_kept(
    home: Home, coins: Path, flag: str, said: str
) -> None:
    (coins.parent / flag).touch()
    failed = home.derm(*_arguments(coins, "--processes", "2"))
    assert failed.code == 1
    assert said in failed.err
    assert "seed 2" in failed.err
    kept = json.loads((coins.parent / "out" / "coins.json").read_text())["cells"]
    assert {c["seed"] for c in kept} & {0, 1}
    (coins.parent / flag).unlink()
    for path in coins.parent.glob("ran-*"):
        path.unlink()
    assert home.derm(*_arguments(coins, "--processes", "2")).code == 0
    # What had finished was not run again.
    assert len(_ran(coins)) == 12 - len(kept)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_command_that_is_ended_leaves_no_process_behind(coins: Path, how: int) -> None:
    code = "import sys; from jobs.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, *_arguments(coins, "--processes", "2")]
    with subprocess.Popen(
        [*command, "--set", "slow=true"],
        cwd=ROOT,
        env={**os.environ, "DERM_HOME": str(coins.parent)},
        stderr=subprocess.PIPE,
    ) as run:
        _until(lambda: any(name.endswith("-1") for name in _ran(coins)))
        _until((coins.parent / "out" / "coins.json").exists)
        children = psutil.Process(run.pid).children(recursive=True)
        assert len(children) >= 2
        run.send_signal(how)
        run.wait(30)
        _until(lambda: not any(_lives(child) for child in children))
    kept = json.loads((coins.parent / "out" / "coins.json").read_text())["cells"]
    assert {c["seed"] for c in kept} == {0}


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _until(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_cannot_be_is_refused_with_what_can(home: Home, coins: Path) -> None:
    for more, said in (
        (("--seeds", "0"), "--seeds must be positive"),
        (("--set", "flops=1"), "flips | folder | slow"),
        (("--set", "flips=many"), "int"),
        (("--set", "flips"), "OPTION=VALUE"),
        (("--variant", "round"), "fair | bent | p"),
        (("--data", "mars"), "simulated"),
    ):
        result = home.derm(*_arguments(coins, *more))
        assert result.code == 2
        assert said in result.err
    result = home.derm("experiment", "nothing")
    assert result.code == 2
    assert "upstream | FILE.py" in result.err
    broken = coins.with_name("broken.py")
    for text, said in (("1 / 0", "ZeroDivisionError"), ("Options = int", "no design")):
        broken.write_text(text)
        result = home.derm("experiment", str(broken))
        assert result.code == 2
        assert said in result.err


def test_without_a_name_it_says_which_there_are(home: Home) -> None:
    assert "upstream: ways to build" in home.derm("experiment").out
    assert set(json.loads(home.derm("experiment", "--json").out)) == set(EXPERIMENTS)


def test_a_dry_run_says_the_plan_and_runs_nothing(home: Home, coins: Path) -> None:
    said = json.loads(home.derm(*_arguments(coins, "--dry-run", "--json")).out)
    assert (said["cells"], len(said["missing"])) == (12, 12)
    assert said["hypotheses"] == ["bent shows", "and less"]
    assert said["plan"] == load(Chosen(name=str(coins))).plan()
    assert _ran(coins) == []


def test_two_commands_do_not_write_the_same_results(coins: Path) -> None:
    design = load(Chosen(name=str(coins)))
    first, second = (Results(coins.parent, design) for _ in range(2))
    with first.alone(), pytest.raises(InputError, match="another command runs"), second.alone():
        pass
    with second.alone():
        pass


def _design(**other: object) -> Design:
    said: dict[str, object] = {
        "name": "d",
        "title": "D",
        "introduction": "",
        "run": lambda _: {},
        "variants": (Variant(name="a"), Variant(name="b")),
        "measures": (Measure(name="m", meaning="mean", better="up", statistic=mean_of("x")),),
        "settings": Hypothesis(says="", variant="", measure="", expected="up"),
        "drawn": "users",
    }
    return Design(**(said | other))  # type: ignore[arg-type]


def _results(folder: Path, design: Design, gain: float) -> Results:
    results, random = Results(folder, design), np.random.default_rng(0)
    user = np.repeat(np.arange(200), 3)
    common = random.normal(0, 1, 200)[user]
    for cell in design.cells(2):
        x = common + random.normal(0, 0.1, len(user)) + gain * (cell.variant.name == "b")
        rows = {"user": user, "x": x}
        results.add(cell, {cell.variant.name: Measured.once({"m": x.mean()}, rows)})
    return results


@pytest.mark.parametrize(("gain", "word"), [(0.05, "better"), (0.0, "open"), (-0.05, "**worse**")])
def test_differences_are_paired_by_user(tmp_path: Path, gain: float, word: str) -> None:
    """What users differ by is ten times what variants do; pairing takes it out."""
    design = _design(published=(Published(variant="b", measure="m", value=0.5, source="A. Body"),))
    results = Results(tmp_path, _results(tmp_path, design, gain).design)
    cells = list(design.cells(2))
    assert results.missing(cells) == []
    page = render(design, results.of(cells), 2, plan=design.plan()).files["d.md"]
    [row] = [line for line in page.splitlines() if line.startswith("| b |")]
    assert row.endswith(f"| {word} |")
    assert "| 0.5 |" in row
    assert "Published: A. Body." in page


def test_rows_that_are_gone_are_made_again(tmp_path: Path) -> None:
    design = _design()
    _results(tmp_path, design, 0.0)
    next((tmp_path / "d-rows").iterdir()).unlink()
    assert len(Results(tmp_path, design).missing(design.cells(2))) == 1


def test_a_variant_that_changed_is_run_again_and_replaces_what_it_was(tmp_path: Path) -> None:
    design = _design()
    _results(tmp_path, design, 0.0)
    other = _design(variants=(design.baseline, Variant(name="b", placebo=True)))
    results = Results(tmp_path, other)
    missing = results.missing(other.cells(2))
    assert [c.variant.name for c in missing] == ["b", "b"]
    for cell in missing:
        results.add(cell, {"b": Measured.once({"m": 1.0})})
    kept = json.loads((tmp_path / "d.json").read_text())["cells"]
    assert [(c["seed"], c["variant"]) for c in kept] == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]


def test_cells_of_another_plan_are_told(tmp_path: Path) -> None:
    told = Hypothesis(says="b is more", variant="b", measure="m", expected="up")
    design, later = _design(), _design(hypotheses=(told,))
    _results(tmp_path, design, 0.05)
    results, cells = Results(tmp_path, later), list(later.cells(2))
    assert results.missing(cells) == []
    page = render(later, results.of(cells), 2, plan=later.plan()).files["d.md"]
    assert "**4 cells were made under another plan than this one.**" in page


@pytest.mark.parametrize(
    "wrong",
    [
        {"variants": (Variant(name="a"), Variant(name="a"))},
        {"published": (Published(variant="c", measure="m", value=1.0, source=""),)},
        {"measures": (Measure(name="m", meaning=""),)},
    ],
)
def test_a_design_that_contradicts_itself_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"^d: "):
        _design(**wrong)


def test_weighted_statistics_are_those_of_repeated_rows() -> None:
    random = np.random.default_rng(1)
    score, label = random.integers(0, 20, 300).astype(float), random.integers(0, 2, 300) * 1.0
    label[:10] = np.nan
    weight = random.integers(0, 4, 300)
    rows = {"user": np.arange(300), "score": score, "label": label}
    again = {name: np.repeat(column, weight) for name, column in rows.items()}
    for statistic in (auc_of("score", "label"), mean_of("label")):
        expected = statistic(again)(np.ones(weight.sum()))
        assert statistic(rows)(weight.astype(float)) == pytest.approx(expected)
    known = ~np.isnan(label)
    above = score[known & (label == 1)][:, None] - score[known & (label == 0)]
    wins = (above > 0).mean() + (above == 0).mean() / 2
    assert auc_of("score", "label")(rows)(np.ones(300)) == pytest.approx(wins)


def test_intervals_over_users_hold_the_truth_as_often_as_they_promise() -> None:
    random, held, trials = np.random.default_rng(2), 0, 150
    for _ in range(trials):
        user = np.repeat(np.arange(120), 4)
        x = random.normal(0, 1, 120)[user] + random.normal(0, 1, len(user))
        found = over_users(mean_of("x"), [({"user": user, "x": x}, None)], resamples=200)
        held += found.low <= 0 <= found.high
    assert 0.88 <= held / trials <= 0.99

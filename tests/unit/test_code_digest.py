"""What changes the digest of a step's code, and what does not."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.engine import code, kept
from jobs.engine.code import code_digest, modules_of

_STEP = '''"""Doc."""

from models.weights import WEIGHT


def run():
    """Run."""
    return WEIGHT
'''
_WEIGHTS = """def late():
    from models.deep import y
    return y
WEIGHT = 0.8
"""


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    root = tmp_path / "sources"
    files = {
        "jobs/steps/merge.py": _STEP,
        "jobs/steps/dedup.py": "from jobs.engine.context import x\nimport numpy\n",
        "jobs/steps/ingest.py": "from jobs.datasets.registry import open_adapter\n",
        "jobs/datasets/registry.py": "import importlib\n",
        "jobs/datasets/kuairand.py": "SEPARATOR = ','\n",
        "jobs/engine/context.py": "x = 1\n",
        "models/weights.py": _WEIGHTS,
        "models/deep.py": "y = 1\n",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(code, "_ROOT", root)
    forget()
    yield root
    forget()


def forget() -> None:
    """What a new process does not know."""
    code.code_digest.cache_clear()
    code._file_of.cache_clear()


def digests(home: Path) -> dict[str, str]:
    forget()
    return {s: code_digest(s, "kuairand", home) for s in ("merge", "dedup", "ingest")}


def changed(sources: Path, home: Path, name: str, old: str, new: str) -> set[str]:
    before, path = digests(home), sources / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    after = digests(home)
    return {step for step in before if before[step] != after[step]}


@pytest.mark.parametrize(
    ("name", "old", "new", "steps"),
    [
        ("jobs/steps/merge.py", "return WEIGHT", "return -WEIGHT", {"merge"}),
        ("models/weights.py", "0.8", "0.5", {"merge"}),
        ("models/deep.py", "y = 1", "y = 2", {"merge"}),
        ("jobs/datasets/kuairand.py", "','", "';'", {"ingest"}),
        ("jobs/engine/context.py", "x = 1", "x = 2", set()),
        ("jobs/steps/merge.py", "Run.", "Run it.", set()),
        ("models/weights.py", "WEIGHT = 0.8", "WEIGHT  = 0.8  # of yesterday", set()),
    ],
)
def test_a_change_reaches_the_steps_that_import_it(
    name: str, old: str, new: str, steps: set[str], sources: Path, tmp_path: Path
) -> None:
    assert changed(sources, tmp_path, name, old, new) == steps


def test_what_was_parsed_is_remembered_and_parsed_again_when_it_changes(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = digests(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(code.ast, "parse", lambda *_: pytest.fail("parsed again"))
        assert digests(tmp_path) == first
    (tmp_path / "services" / "code.json").write_text("{")
    assert digests(tmp_path) == first
    assert set(modules_of("merge", "kuairand", tmp_path)) == {
        "jobs.steps.merge",
        "models.weights",
        "models.deep",
    }


def test_the_digest_of_a_real_step_is_cheap(tmp_path: Path) -> None:
    forget()
    code_digest("train", "simulated", tmp_path)
    forget()
    started = time.process_time()
    code_digest("train", "simulated", tmp_path)
    assert time.process_time() - started < 0.05


def test_results_stand_over_a_chain_of_harmless_changes(tmp_path: Path) -> None:
    def link(was: str, now: str) -> kept.Kept:
        return kept.Kept(step="merge", was=was, now=now, reason="renamed", at="2025-03-01")

    kept.add(tmp_path, (link("a", "b"),))
    kept.add(tmp_path, (link("b", "c"),))
    assert kept.stands(tmp_path, "merge", "a", "c")
    assert not kept.stands(tmp_path, "merge", "c", "a")
    assert not kept.stands(tmp_path, "dedup", "a", "c")


def test_the_code_of_a_family_decides_what_its_upstreams_learn(tmp_path: Path) -> None:
    forget()
    for step in ("train", "infer"):
        assert "models.derm.towers" in modules_of(step, "simulated", tmp_path, "derm")
    assert "models.derm.towers" not in modules_of("merge", "simulated", tmp_path, "derm")
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.py").write_text("DEFAULT = 1\n")
    (folder / "family.py").write_text("from models.nn.cross import CrossNet\n")
    found = modules_of("train", "simulated", tmp_path, str(folder))
    assert {"models.nn.cross", str(folder / "config.py")} <= found.keys()
    before = code_digest("train", "simulated", tmp_path, str(folder))
    (folder / "config.py").write_text("DEFAULT = 2\n")
    forget()
    assert code_digest("train", "simulated", tmp_path, str(folder)) != before

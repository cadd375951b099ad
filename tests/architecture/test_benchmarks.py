"""Benchmarks are measured in one way: the harness, and nobody's own rounds or report."""

import ast
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT, imported, python_files, relative, tree

_FILES = [p for p in python_files("benchmarks") if p.parent != ROOT / "benchmarks"]
_PROGRAMS = [
    p for p in _FILES if "harness.arguments" in p.read_text() or "ArgumentParser(" in p.read_text()
]


@pytest.mark.parametrize("path", _PROGRAMS, ids=relative)
def test_a_benchmark_is_measured_by_the_harness(path: Path) -> None:
    calls = {ast.unparse(n.func) for n in ast.walk(tree(path)) if isinstance(n, ast.Call)}
    assert {"harness.arguments", "harness.report"} <= calls
    assert "statistics" not in imported(path), "medians are the harness's"
    assert "argparse.ArgumentParser" not in calls


def test_every_benchmark_is_in_a_folder_of_its_subject() -> None:
    above = {p.name for p in (ROOT / "benchmarks").glob("*.py")}
    assert above == {"__init__.py", "harness.py"}
    assert _PROGRAMS

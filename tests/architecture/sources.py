"""The source files of the project, for the tests that read them instead of running them."""

import ast
import functools
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("jobs", "models", "feature_store", "simulator", "experiments")
_NOT_OURS = {"build", "__pycache__"}


@functools.cache
def _files() -> tuple[Path, ...]:
    """Every file of the project, sorted; environments, caches and homes are not entered."""
    found: list[Path] = []
    for folder, below, names in os.walk(ROOT):
        below[:] = [b for b in below if b == ".ci" or not (b.startswith(".") or b in _NOT_OURS)]
        paths = [Path(folder, name) for name in names]
        found += [p for p in paths if not p.is_symlink()]
    return tuple(sorted(found))


def python_files(*folders: str) -> list[Path]:
    """Python files below the folders (of the whole project, when none is named), sorted."""
    starts = [ROOT / f for f in folders] or [ROOT]
    return [p for p in _files() if p.suffix == ".py" and any(map(p.is_relative_to, starts))]


def text_files() -> list[Path]:
    """Every text file that is part of the project, data and lock files apart."""
    suffixes = {".py", ".md", ".toml", ".yml", ".yaml", ".cfg", ".html", ".sh", ".in", ".json"}
    plain = {"Makefile", "run", "Dockerfile"}
    return [
        p
        for p in _files()
        if (p.suffix in suffixes or p.name in plain) and not p.name.startswith(".")
    ]


@functools.cache
def tree(path: Path) -> ast.Module:
    """The parsed module."""
    return ast.parse(path.read_text(), filename=str(path))


@functools.cache
def imported(path: Path) -> frozenset[str]:
    """Full names of every module a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def classes(*folders: str) -> Iterator[tuple[Path, ast.ClassDef]]:
    """Every class of the folders, with its file."""
    for path in python_files(*folders):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                yield path, node


def base_names(node: ast.ClassDef) -> set[str]:
    """Last components of a class's bases: `nn.Module` is `Module`."""
    return {ast.unparse(b).partition("[")[0].rpartition(".")[2] for b in node.bases}


def relative(path: Path) -> str:
    """A path as people of the project write it."""
    return path.relative_to(ROOT).as_posix()

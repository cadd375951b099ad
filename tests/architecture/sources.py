"""The source files of the project, for the tests that read them instead of running them."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("jobs", "models", "feature_store", "simulator", "experiments")
_NOT_OURS = {".venv", ".venv-airflow", ".venv-s3", ".git", "build", "__pycache__", ".derm"}


def python_files(*folders: str) -> list[Path]:
    """Python files below the folders (of the whole project, when none is named), sorted."""
    starts = [ROOT / f for f in folders] or [ROOT]
    found = {p for start in starts for p in start.rglob("*.py")}
    return sorted(p for p in found if not _NOT_OURS & set(p.relative_to(ROOT).parts))


def text_files() -> list[Path]:
    """Every text file that is part of the project, data and lock files apart."""
    suffixes = {".py", ".md", ".toml", ".yml", ".yaml", ".cfg", ".html", ".sh", ".in", ".json"}
    found = [p for p in ROOT.rglob("*") if p.is_file() and not p.is_symlink()]
    plain = {"Makefile", "run", "Dockerfile"}
    return sorted(
        p
        for p in found
        if (p.suffix in suffixes or p.name in plain)
        and not _NOT_OURS & set(p.relative_to(ROOT).parts)
        and not any(part.startswith(".") and part != ".ci" for part in p.relative_to(ROOT).parts)
    )


@functools.cache
def tree(path: Path) -> ast.Module:
    """The parsed module."""
    return ast.parse(path.read_text(), filename=str(path))


def imported(path: Path) -> set[str]:
    """Full names of every module a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


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

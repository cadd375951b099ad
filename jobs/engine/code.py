"""Which of our code decides what a step writes, as one digest per step.

The step's module and all that it imports of ours, found in the sources: comments, docstrings and
layout do not count. Left out is the machinery: it moves bytes, names things and talks to people,
and what it hands to a step (recipe, seed, inputs) has digests of its own.
`tests/architecture/test_code_digests.py` keeps arithmetic out of it.
"""

import ast
import functools
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from feature_store.contracts.atomic import write_atomic
from feature_store.contracts.base import Contract
from feature_store.contracts.digests import content_digest
from jobs.paths import HomePaths

OURS = ("feature_store", "jobs", "models", "simulator")
MACHINERY = (
    *("jobs.cli", "jobs.commands", "jobs.console", "jobs.engine", "jobs.pipelines"),
    *("jobs.paths", "jobs.progress", "jobs.recipes", "jobs.rendering", "jobs.repair"),
    *("jobs.scheduling", "jobs.services", "jobs.settings", "jobs.steps.probing", "jobs.upkeep"),
    *("feature_store.contracts.errors", "feature_store.client"),
)
_ROOT = Path(__file__).parents[2]


class _Module(Contract):
    """What is known of one file.

    Attributes:
        stamp: its modification time in nanoseconds and its size: what is known holds while it does.
        imports: modules of ours that it imports.
    """

    stamp: tuple[int, int]
    digest: str
    imports: tuple[str, ...]


class _Known(Contract):
    """What a home remembers of our files, so that nothing is parsed twice.

    Attributes:
        python: what parsed them; syntax trees are those of a version.
    """

    python: str
    modules: dict[str, _Module]


@functools.lru_cache(maxsize=256)
def code_digest(step: str, dataset: str, home: Path, family: str = "") -> str:
    """Digest of the code that decides what a step writes.

    Args:
        dataset: that of the home; its adapter is imported by name.
        home: remembers what was parsed.
        family: that of the upstream; a step that knows families imports it by name.
    """
    found = modules_of(step, dataset, home, family)
    return content_digest(*(f"{name}={found[name]}" for name in sorted(found)))


def modules_of(step: str, dataset: str, home: Path, family: str = "") -> dict[str, str]:
    """The modules whose code decides what a step writes, each with a digest of its own.

    Files of a family that is a folder of one's own go by their paths.
    """
    known = _load(HomePaths(home).code)
    parsed: dict[str, _Module] = {}
    found: dict[str, str] = {}
    wanted = [f"jobs.steps.{step}"]
    while wanted:
        name = wanted.pop()
        if name == "jobs.datasets.registry" and dataset.isidentifier():
            wanted.append(f"jobs.datasets.{dataset}")
        if name == "models.registry" and family:
            wanted.extend(_family(family))
        path = _file_of(name)
        if name in found or path is None:
            continue
        parsed[name] = _look(path, known.get(name))
        found[name] = parsed[name].digest
        wanted.extend(parsed[name].imports)
    if any(known.get(name) != module for name, module in parsed.items()):
        record = _Known(python=sys.version, modules={**known, **parsed})
        write_atomic(HomePaths(home).code, record.model_dump_json() + "\n")
    return found


def _family(name: str) -> list[str]:
    """What the registry imports of a family: its module by name, or the files of its folder."""
    if name.isidentifier():
        return [f"models.{name}.family"]
    return [str(path) for path in sorted(Path(name).glob("*.py"))]


def _load(path: Path) -> dict[str, _Module]:
    try:
        known = _Known.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return {}
    return known.modules if known.python == sys.version else {}


def _look(path: Path, known: _Module | None) -> _Module:
    """What a file says; parsed only when it has changed."""
    status = path.stat()
    stamp = (status.st_mtime_ns, status.st_size)
    if known and known.stamp == stamp:
        return known
    tree = ast.parse(path.read_bytes())
    imports = tuple(sorted({m for name in _imported(tree) if (m := _module_of(name))}))
    digest = hashlib.sha256(ast.dump(_without_docstrings(tree)).encode()).hexdigest()[:32]
    return _Module(stamp=stamp, digest=digest, imports=imports)


def _imported(tree: ast.AST) -> Iterator[str]:
    """Every dotted name that a file imports, also within functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # What is imported from a package may be a module of it.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _module_of(name: str) -> str:
    """The module of ours that a dotted name lies in; empty when it is none, or machinery."""
    while name.partition(".")[0] in OURS:
        if _file_of(name):
            return "" if _is_machinery(name) else name
        name = name.rpartition(".")[0]
    return ""


def _is_machinery(name: str) -> bool:
    return any(name == m or name.startswith(f"{m}.") for m in MACHINERY)


@functools.cache
def _file_of(name: str) -> Path | None:
    """The file of a module, or of a path; None when there is none."""
    if name.endswith(".py"):
        return Path(name)
    base = _ROOT.joinpath(*name.split("."))
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(tree):
        if isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return tree

"""The floors of the house: a room imports rooms of floors below its own, and nothing else of ours.

A room is a folder; modules at the root of a package are a room named after it. Imports inside
functions count: they are arrows like any other.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.sources import PACKAGES, ROOT, python_files, relative, tree

# From the top. Rooms of one floor do not know each other.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("dags",),
    ("experiments/id_tables", "experiments/ranking"),
    ("experiments",),
    ("experiments/graph", "experiments/next_item"),
    ("experiments/harness", "experiments/playing"),
    ("jobs/cli",),
    ("jobs/commands",),
    ("jobs/repair", "jobs/upkeep"),
    ("jobs/scheduling",),
    ("jobs/steps",),
    ("jobs/ranking", "jobs/rendering", "jobs/services"),
    ("jobs/engine",),
    ("jobs/pipelines", "jobs/datasets"),
    ("jobs",),
    ("models/derm",),
    ("models/rankers/unified",),
    ("models/rankers/parts",),
    ("models/training",),
    ("models", "simulator/market"),
    ("models/nn", "simulator"),
    ("feature_store/client",),
    ("feature_store/reading", "feature_store/spark"),
    ("feature_store/online",),
    ("feature_store/online/stores", "feature_store/embeddings", "feature_store/index"),
    ("feature_store/tables",),
    ("feature_store/lake",),
    ("feature_store",),
    ("feature_store/contracts",),
)


def arrows() -> dict[tuple[str, str], set[str]]:
    """Which room imports which, and in which lines of code."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for path in python_files(*PACKAGES, "dags"):
        here = path.parent.relative_to(ROOT).as_posix()
        for name, line in _imports(path):
            there = _room_of(name)
            if there and there != here:
                found[here, there].add(f"{relative(path)}:{line} imports {name}")
    return dict(found)


def floor_of(room: str) -> int:
    """The number of a room's floor, the lowest is 0; a family of models without a floor of its own
    stands beside `derm`.

    Raises:
        KeyError: the room has no floor.
    """
    for number, rooms in enumerate(reversed(FLOORS)):
        if room in rooms:
            return number
    if room.startswith("models/"):
        return floor_of("models/derm")
    raise KeyError(f"{room} has no floor: name it in tests/architecture/floors.py")


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def _room_of(name: str) -> str | None:
    """The folder that a dotted name's module lies in; None when it is not ours."""
    parts = name.split(".")
    if parts[0] not in PACKAGES:
        return None
    while not ROOT.joinpath(*parts).is_dir():
        parts.pop()
    return "/".join(parts)

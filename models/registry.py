"""Families of models by name, or by the folder they are in; imported when they are asked for."""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from feature_store.contracts.digests import content_digest
from feature_store.contracts.errors import InputError

_FILES = ("config.py", "family.py")


def family(name: str) -> Any:
    """The `models.protocol.Family` of a name. Imports torch.

    Args:
        name: a folder of `models/`, or the absolute path of one elsewhere.

    Raises:
        InputError: there is none, or it cannot be imported.
    """
    return _import(name, "family", "FAMILY")


def default_config(name: str) -> Any:
    """The sizes that a family has unless a recipe says otherwise. Imports no torch.

    Raises:
        InputError: there is no such family, or it cannot be imported.
    """
    return _import(name, "config", "DEFAULT")


def reads(name: str) -> str:
    """What a family learns from: rows, timelines, edges or pairs. Imports no torch.

    Raises:
        InputError: there is no such family, or it cannot be imported.
    """
    found: str = _import(name, "config", "READS")
    return found


def names() -> tuple[str, ...]:
    """The families there are."""
    return tuple(sorted(p.parent.name for p in Path(__file__).parent.glob("*/family.py")))


def _import(name: str, module: str, wanted: str) -> Any:
    """What a module of a family calls by a name."""
    package = f"models.{name}" if name in names() else _own_package(name)
    try:
        return getattr(importlib.import_module(f"{package}.{module}"), wanted)
    except Exception as error:
        if name in names():
            raise
        raise InputError(
            "a family of one's own cannot be imported",
            where=str(Path(name) / f"{module}.py"),
            expected=f"a module with {wanted}",
            found=f"{type(error).__name__}: {error}",
        ) from error


def _own_package(name: str) -> str:
    """The package that a folder elsewhere is imported as; its modules find each other by a dot."""
    folder = Path(name)
    if not folder.is_absolute() or not all((folder / file).is_file() for file in _FILES):
        raise InputError(
            "there is no such family of models",
            expected=f"{' | '.join(names())} | a folder with {' and '.join(_FILES)}",
            found=name,
        )
    package = f"family_{content_digest(name)}_{folder.name}"
    if package not in sys.modules:
        made = ModuleType(package, "A family of models outside of the project.")
        made.__path__ = [name]
        sys.modules[package] = made
    return package

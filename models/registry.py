"""Families of models by name; a family's folder is imported when it is asked for."""

import importlib
from pathlib import Path
from typing import Any

from feature_store.contracts.errors import InputError


def family(name: str) -> Any:
    """The `models.protocol.Family` of a name. Imports torch.

    Raises:
        InputError: there is none.
    """
    _check(name)
    return importlib.import_module(f"models.{name}.family").FAMILY


def default_config(name: str) -> Any:
    """The sizes that a family has unless a recipe says otherwise. Imports no torch.

    Raises:
        InputError: there is no such family.
    """
    _check(name)
    return importlib.import_module(f"models.{name}.config").DEFAULT


def reads(name: str) -> str:
    """What a family learns from: rows, timelines or edges. Imports no torch.

    Raises:
        InputError: there is no such family.
    """
    _check(name)
    found: str = importlib.import_module(f"models.{name}.config").READS
    return found


def names() -> tuple[str, ...]:
    """The families there are."""
    return tuple(sorted(p.parent.name for p in Path(__file__).parent.glob("*/family.py")))


def _check(name: str) -> None:
    if name not in names():
        raise InputError(
            "there is no such family of models", expected=" | ".join(names()), found=name
        )

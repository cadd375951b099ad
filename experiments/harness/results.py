"""What cells measured, on disk as it comes: an interrupted experiment goes on where it stopped.

`<name>.json` holds a line per cell; what users' rows a cell has lie beside it as arrays.
"""

import dataclasses
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from experiments.harness.design import Cell, Design, Measured
from experiments.harness.statistics import Rows
from feature_store.contracts.atomic import write_atomic
from feature_store.contracts.digests import content_digest
from feature_store.contracts.errors import ContractViolation, InputError

_DIGITS = 6
_FIELDS = ("key", "plan", "data", "variant", "seed", "arrays", "rows")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One row of one cell.

    Attributes:
        plan: digest of what had been said when the cell was made.
    """

    key: str
    plan: str
    row: str
    data: str
    seed: int
    measured: Measured


class Results:
    """The results of one experiment in one folder.

    Raises:
        InputError: those that are there are of other settings.
        ContractViolation: they cannot be read back.
    """

    def __init__(self, folder: Path, design: Design) -> None:
        self.design = design
        self._file = folder / f"{design.name}.json"
        self._arrays = folder / f"{design.name}-rows"
        self._cells: dict[str, dict[str, Any]] = {}
        if self._file.exists():
            self._cells = {cell["key"]: cell for cell in self._load()}

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Write here alone.

        Raises:
            InputError: another command does.
        """
        self._file.parent.mkdir(parents=True, exist_ok=True)
        path = self._file.with_name(f".{self._file.name}.lock")
        with path.open("w") as lock:
            if not _locked(lock, path):
                raise InputError(
                    "another command runs this experiment",
                    where=str(self._file),
                    hint="wait for it, or name another --out",
                )
            try:
                yield
            finally:
                path.unlink()

    def missing(self, cells: Iterable[Cell]) -> list[Cell]:
        """Those of the cells that have no result yet."""
        return [cell for cell in cells if not self._has(self.design.key(cell))]

    def add(self, cell: Cell, rows: dict[str, Measured]) -> None:
        """Keep what a cell measured; what another version of its variant measured goes."""
        key = self.design.key(cell)
        where = {"data": cell.data, "variant": cell.variant.name, "seed": cell.seed}
        stale = [k for k, kept in self._cells.items() if where.items() <= kept.items()]
        for other in stale:
            del self._cells[other]
        for name, measured in rows.items():
            if measured.rows is not None:
                self._write_rows(key, name, measured.rows)
        self._cells[key] = {
            "key": key,
            "plan": self.design.plan(),
            **where,
            "arrays": [name for name, measured in rows.items() if measured.rows is not None],
            "rows": {name: _rounded(measured) for name, measured in rows.items()},
        }
        self._save()

    def of(self, cells: Iterable[Cell]) -> list[Result]:
        """The rows of those of the cells that have a result."""
        keys = [self.design.key(cell) for cell in cells]
        return [row for key in keys if key in self._cells for row in self._rows(self._cells[key])]

    def _rows(self, kept: dict[str, Any]) -> Iterator[Result]:
        shared = {name: kept[name] for name in ("key", "plan", "data", "seed")}
        for name, rounds in kept["rows"].items():
            rows = self._read_rows(kept["key"], name) if name in kept["arrays"] else None
            yield Result(**shared, row=name, measured=Measured(rounds=tuple(rounds), rows=rows))

    def _has(self, key: str) -> bool:
        kept = self._cells.get(key)
        return kept is not None and all(self._array(key, n).exists() for n in kept["arrays"])

    def _load(self) -> list[dict[str, Any]]:
        try:
            saved = json.loads(self._file.read_text())
            found = saved["settings"]
            cells = [{name: cell[name] for name in _FIELDS} for cell in saved["cells"]]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ContractViolation(
                "the results of an experiment cannot be read back",
                where=str(self._file),
                expected="what `derm experiment` wrote",
                found=repr(error),
                hint="remove the file; its cells will be run again",
            ) from error
        if found != self._settings():
            raise InputError(
                "the results that are there are of other settings",
                where=str(self._file),
                expected=json.dumps(self._settings()),
                found=json.dumps(found),
                hint="name another --out",
            )
        return cells

    def _save(self) -> None:
        """In an order that does not depend on who finished first."""
        names = [v.name for v in self.design.variants]

        def place(cell: dict[str, Any]) -> tuple[str, int, int, str]:
            name = cell["variant"]
            at = names.index(name) if name in names else len(names)
            return (cell["data"], cell["seed"], at, name)

        lines = ",\n".join(json.dumps(c) for c in sorted(self._cells.values(), key=place))
        settings = json.dumps(self._settings())
        write_atomic(self._file, f'{{"settings": {settings}, "cells": [\n{lines}\n]}}\n')

    def _settings(self) -> dict[str, Any]:
        # Through JSON, which knows no tuples.
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self.design.settings)))
        return plain

    def _array(self, key: str, row: str) -> Path:
        return self._arrays / f"{key}-{content_digest(row)}.npz"

    def _write_rows(self, key: str, row: str, rows: Rows) -> None:
        path = self._array(key, row)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.draft")
        with draft.open("wb") as file:
            np.savez(file, allow_pickle=False, **rows)
        draft.replace(path)

    def _read_rows(self, key: str, row: str) -> Rows:
        with np.load(self._array(key, row), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}


def _locked(lock: TextIO, path: Path) -> bool:
    """Lock an open file, unless somebody has it; who had it before removes it on leaving."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return path.stat().st_ino == os.fstat(lock.fileno()).st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


def _rounded(measured: Measured) -> list[dict[str, float]]:
    return [{n: round(float(v), _DIGITS) for n, v in m.items()} for m in measured.rounds]

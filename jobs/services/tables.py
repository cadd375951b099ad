"""The shards of the id tables: where they listen, how they are started, and what is published."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feature_store.client.tables import TableClient
from feature_store.contracts.errors import InputError, MissingInput, StoreError
from feature_store.tables.address import Address
from feature_store.tables.ledger import FileLedger, Pointer
from feature_store.tables.manifest import known_versions, read_version
from feature_store.tables.publishing import Publication
from feature_store.tables.wire import Code, ShardRefused
from jobs.services import processes
from jobs.settings import Settings

_RESEND_S = 0.05
_START_S = 60.0


@dataclass(frozen=True, slots=True)
class Served:
    """How a publication ended.

    Attributes:
        silent: shards that have not said that they heard of it; they find it in the ledger.
        seconds: from the first message to the last answer.
    """

    pointer: Pointer
    silent: tuple[int, ...]
    seconds: float


def shards_of(settings: Settings) -> int:
    """How many shards the tables of this home have: those of what is live, else of any version.

    Raises:
        MissingInput: there is no version.
    """
    if settings.table_shards:
        return len(settings.table_shards.split(","))
    root = settings.paths.tables
    pointer, known = FileLedger(root).pointer(), known_versions(root)
    if not pointer and not known:
        raise MissingInput(
            "there are no tables to serve",
            where=str(root),
            hint="a version is written by feature_store.tables.writer, as docs/serving_tables.md "
            "shows",
        )
    return read_version(root, pointer.version if pointer else known[-1]).shards


def addresses(settings: Settings, shards: int) -> list[Address]:
    """Where the shards listen: as DERM_TABLE_SHARDS says, or at sockets below the home.

    Raises:
        InputError: it names another number of them.
    """
    if not settings.table_shards:
        folder = settings.paths.table_sockets.absolute()
        return [Address(path=folder / f"{shard}.sock") for shard in range(shards)]
    named = [Address.parse(a.strip()) for a in settings.table_shards.split(",")]
    if len(named) != shards:
        raise InputError(
            "DERM_TABLE_SHARDS names another number of shards than the version has",
            expected=str(shards),
            found=str(len(named)),
        )
    return named


def open_tables(settings: Settings, shards: int) -> TableClient:
    """A client of the shards that may publish."""
    token = settings.table_token.get_secret_value()
    return TableClient(addresses(settings, shards), token=token)


def start_shards(settings: Settings, shards: int) -> list[dict[str, Any]]:
    """Start a process for each shard that does not answer, and wait until all do; what they say.

    Raises:
        StoreError: one does not start.
    """
    client = open_tables(settings, shards)
    paths, end = settings.paths, time.monotonic() + _START_S
    for shard, status in enumerate(client.statuses()):
        if isinstance(status, StoreError):
            command = [str(settings.bin), "tables", "serve", "--shard", str(shard)]
            processes.spawn(
                [*command, "--shards", str(shards)],
                home=settings.home.absolute(),
                env={**os.environ, "DERM_HOME": str(settings.home.absolute())},
                log=paths.table_sockets / f"{shard}.log",
            )
    try:
        while True:
            found = client.statuses()
            said = [s for s in found if isinstance(s, dict)]
            if len(said) == shards:
                return said
            if time.monotonic() > end:
                silent = next(s for s in found if isinstance(s, StoreError))
                raise StoreError(
                    "a shard does not start",
                    where=str(paths.table_sockets),
                    found=str(silent),
                    hint="its log is beside its socket",
                )
            time.sleep(_RESEND_S)
    finally:
        client.close()


def publish(
    root: Path,
    client: TableClient,
    version: str,
    *,
    within_s: float,
    said: Callable[[str], None] = lambda _: None,
) -> Served:
    """Make a version live on every shard, or leave everything as it is.

    Args:
        within_s: until when every shard must have read it.
        said: is told of each phase.

    Raises:
        InputError: the version is not there, or of another number of shards.
        StoreError: a shard cannot read it, does not answer in time, or a newer publication began.
    """
    manifest = read_version(root, version)
    if manifest.shards != client.shards:
        raise InputError(
            f"version {version} is of another number of shards than run",
            expected=f"{client.shards}",
            found=str(manifest.shards),
            hint="write it for as many as run, or start as many as it has",
        )
    ledger, started = FileLedger(root), time.monotonic()
    publication = Publication(ledger.begin(version), client.shards)
    problems: dict[int, str] = {}
    phase = ""
    while publication.phase not in ("done", "failed"):
        if phase != publication.phase:
            phase = publication.phase
            said(f"{phase} {version}")
        _tell(publication, client, problems)
        if publication.phase == "ready":
            publication.flip(ledger)
        elif time.monotonic() - started > within_s:
            if publication.phase == "live":
                break
            silent = min(publication.waiting)
            problem = problems.get(silent, "it has not read the version in time")
            publication.give_up(problem, silent)
        elif publication.phase != "done":
            time.sleep(_RESEND_S)
    if publication.pointer is None:
        _tell(publication, client, problems)
        where = f" by shard {publication.failed_on}" if publication.failed_on >= 0 else ""
        raise StoreError(
            f"version {version} was not published: it was refused{where}",
            where=str(root),
            found=publication.error,
            hint="what was live is live; repair the cause and publish again",
        )
    seconds = time.monotonic() - started
    return Served(publication.pointer, tuple(sorted(publication.waiting)), seconds)


def roll_back(
    root: Path, client: TableClient, *, within_s: float, said: Callable[[str], None]
) -> Served:
    """Make the version before the live one live again.

    Raises:
        MissingInput: there is none.
        StoreError: as `publish`.
    """
    pointer = FileLedger(root).pointer()
    if pointer is None or pointer.previous is None:
        raise MissingInput(
            "there is no version to roll back to",
            where=str(root),
            found=f"live: {pointer.version if pointer else 'nothing'}",
            hint="publish another one: derm tables publish VERSION",
        )
    return publish(root, client, pointer.previous, within_s=within_s, said=said)


def await_revisions(
    root: Path, client: TableClient, versions: Sequence[str], within_s: float
) -> None:
    """Wait until no shard serves what was forgotten in these versions.

    Raises:
        StoreError: one still does, or does not answer.
    """
    wanted = {version: read_version(root, version).revision for version in versions}
    end = time.monotonic() + within_s
    while behind := [
        line
        for shard, status in enumerate(client.statuses())
        for line in _behind(shard, status, wanted)
    ]:
        if time.monotonic() > end:
            raise StoreError(
                "a shard may still serve rows that were forgotten",
                found=behind[0],
                hint="restart that shard, which reads the new files; then run the command again",
            )
        time.sleep(_RESEND_S)


def _behind(
    shard: int, status: dict[str, Any] | StoreError, wanted: Mapping[str, int]
) -> Iterator[str]:
    """Versions of which a shard serves older files than there are."""
    if isinstance(status, StoreError):
        yield f"shard {shard} does not say what it serves: {status.found}"
        return
    for version, revision in wanted.items():
        served = status["versions"].get(version, {}).get("revision", -1)
        if 0 <= served < revision:
            yield f"shard {shard} serves revision {served} of {version}"


def _tell(publication: Publication, client: TableClient, problems: dict[int, str]) -> None:
    """Send what every shard has to hear now, and take the answers in."""
    for shard, told in publication.messages().items():
        try:
            publication.answered(shard, client.control(shard, told))
        except ShardRefused as error:
            if error.code is Code.FORBIDDEN:
                raise
            problems[shard] = str(error)
        except StoreError as error:
            problems[shard] = str(error)

"""Results that stand although the code that made them has changed since: `kept.json` of the home.

A change of code makes results stale. Where its author says that what the code writes is the same,
`derm keep` records that, with the reason, and lineage goes on over the change.
"""

import json
from pathlib import Path

from pydantic import ValidationError

from feature_store.contracts.atomic import write_atomic
from feature_store.contracts.base import Contract
from feature_store.contracts.errors import ManifestCorrupt
from jobs.paths import HomePaths


class Kept(Contract):
    """Results of one version of a step stand for those of another.

    Attributes:
        was, now: digests of the code of the step.
        at: when that was declared.
    """

    step: str
    was: str
    now: str
    reason: str
    at: str


class _Record(Contract):
    kept: tuple[Kept, ...] = ()


def load(home: Path) -> tuple[Kept, ...]:
    """What was declared so far.

    Raises:
        ManifestCorrupt: the record cannot be read.
    """
    path = HomePaths(home).kept
    if not path.exists():
        return ()
    try:
        return _Record.model_validate_json(path.read_text()).kept
    except (ValidationError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ManifestCorrupt(
            "what was kept over changes of the code cannot be read",
            where=str(path),
            found=str(error),
            hint="remove the file; results of older code are stale then, until derm keep",
        ) from error


def add(home: Path, kept: tuple[Kept, ...]) -> None:
    """Record more of them."""
    record = _Record(kept=(*load(home), *kept))
    write_atomic(HomePaths(home).kept, record.model_dump_json(indent=2) + "\n")


def stands(home: Path, step: str, was: str, now: str) -> bool:
    """Whether results of the code `was` stand for those of `now`, over any number of changes."""
    if was == now:
        return True
    links = [(k.was, k.now) for k in load(home) if k.step == step]
    reached, found = {was}, {was}
    while found:
        found = {after for before, after in links if before in found} - reached
        reached |= found
    return now in reached

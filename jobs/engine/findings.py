"""What the last look at the home and its online store found, in `probe.json`.

`derm probe` and the audit write it; page, status and metrics show it, also in Airflow's
environment, which cannot read the lake.
"""

import datetime as dt
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from feature_store.contracts.atomic import write_atomic
from feature_store.contracts.base import Contract
from jobs.paths import HomePaths

Kind = Literal["store", "disk", "step", "paused", "late"]
# In the order in which somebody should turn to them.
KINDS: tuple[Kind, ...] = ("store", "disk", "step", "paused", "late")


class Finding(Contract):
    """Something that is wrong now, and what to do about it.

    Attributes:
        since: when it was first found.
    """

    kind: Kind
    what: str
    where: str = ""
    expected: str = ""
    found: str = ""
    hint: str = ""
    since: str = ""


class StoreNumbers(Contract):
    """What was asked of the online store.

    Attributes:
        keys: keys of the whole store.
        least_keys: the users of the current release, which are among them.
        compared, missing, different: sampled users against the lake.
    """

    release_id: str
    keys: int = 0
    least_keys: int = 0
    compared: int = 0
    missing: int = 0
    different: int = 0


class Probed(Contract):
    """One look.

    Attributes:
        store: None when nothing is published, or the store did not answer.
        disk_free, disk_needed: bytes below the home; needed are three days' worth.
        paused: whether the daily DAG is; None where that cannot be asked.
    """

    at: str
    store: StoreNumbers | None = None
    disk_free: int = 0
    disk_needed: int = 0
    paused: bool | None = None
    findings: tuple[Finding, ...] = ()

    def age_s(self, now: dt.datetime) -> float:
        """Seconds since the look."""
        return (now - dt.datetime.fromisoformat(self.at)).total_seconds()

    def of(self, kind: Kind) -> Finding | None:
        """What was found of a kind."""
        return next((f for f in self.findings if f.kind == kind), None)


def load(root: Path) -> Probed | None:
    """The last look; None when there was none, or its record is from another version."""
    try:
        return Probed.model_validate_json(HomePaths(root).probe.read_bytes())
    except (OSError, ValidationError):
        return None


def save(root: Path, probed: Probed) -> None:
    """Record a look; what was found before already keeps the time it was found first."""
    before = load(root)
    kept = {f.kind: f.since for f in before.findings} if before else {}
    dated = tuple(
        f.model_copy(update={"since": kept.get(f.kind, probed.at)}) for f in probed.findings
    )
    record = probed.model_copy(update={"findings": dated})
    write_atomic(HomePaths(root).probe, record.model_dump_json(indent=2) + "\n")

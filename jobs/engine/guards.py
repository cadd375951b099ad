"""Guards: numbers with bounds, and what a person has let pass for one day.

A guard compares what a step measured with a bound. What breaks it stops the day, unless `derm
accept` has recorded that somebody looked at this number: then the step says so in its manifest.
Acceptances are in `accepted/<ds>.json` below the home.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from feature_store.contracts.atomic import write_atomic
from feature_store.contracts.base import ENTITIES, Upstream
from feature_store.contracts.bounds import Check
from feature_store.contracts.datasets import DatasetSpec
from feature_store.contracts.errors import Broken, GuardFailed, ManifestCorrupt
from feature_store.contracts.manifests import Acceptance
from jobs.paths import HomePaths

_ACCEPTANCES = TypeAdapter(tuple[Acceptance, ...])
_POOL = ("coverage_rows", "coverage_entities", "cosine", "cosine_updated", "effective_rank")


def names(spec: DatasetSpec) -> tuple[str, ...]:
    """Every guard of a data set that a person may overrule."""
    return (
        *("validate.daily_rows", "validate.freshness_hours"),
        *(f"validate.rate_{label}" for label in spec.label_rates),
        *(("validate.late_auc",) if spec.attribution_days else ()),
        "train.auc",
        *(f"train.effective_rank_{e}" for e in ENTITIES),
        *(f"verify.{number}_{e}" for number in (*_POOL, "pool") for e in ENTITIES),
        "index.recall_at_10",
        "evaluate.auc",
        *(f"evaluate.auc_on_{surface}" for surface in spec.surfaces),
        "calibrate.calibration_off",
    )


def hold(
    root: Path, step: str, ds: str, upstream: Upstream | None, checks: Iterable[Check], what: str
) -> tuple[Acceptance, ...]:
    """Hold numbers against their bounds.

    Args:
        what: what is refused when one is broken.

    Returns:
        The acceptances without which the numbers would have been refused.

    Raises:
        GuardFailed: it names every number that broke its bound, and that nobody accepted.
    """
    broken = [broken_by(step, check) for check in checks if check.breaks]
    granted = {b.guard: accepted(root, ds, upstream, b.guard) for b in broken}
    used = tuple(a for b in broken if (a := granted[b.guard]) and a.covers(b.found))
    covered = {a.guard for a in used}
    if left := [b for b in broken if b.guard not in covered]:
        raise refusal(left, step, ds, upstream, what)
    return used


def broken_by(step: str, check: Check) -> Broken:
    """What a check that breaks says."""
    found, bound = check.found, check.bound
    if found is None or bound is None:
        raise ValueError(f"{check.number}: nothing was compared")
    return Broken(guard=f"{step}.{check.number}", found=found, bound=bound, least=check.least)


def refusal(
    broken: Sequence[Broken], step: str, ds: str, upstream: Upstream | None, what: str
) -> GuardFailed:
    """What is said when numbers break their bounds; one that is not finite stays refused."""
    acceptable = [b for b in broken if math.isfinite(b.found)]
    hint = "find the cause first; readers keep what is published"
    if acceptable:
        hint += f"; if the day is right: {command(ds, acceptable[0].guard)}"
    return GuardFailed(
        what,
        where=f"{step} {upstream} {ds}" if upstream else f"{step} {ds}",
        expected="every number inside its bound (recipe.guards, or [guards] of the declaration)",
        found="; ".join(map(str, broken)),
        hint=hint,
        broken=acceptable,
    )


def command(ds: str, guard: str) -> str:
    """The command that accepts what a guard refused."""
    return f'derm accept --ds {ds} --guard {guard} --reason "..."'


def accepted(root: Path, ds: str, upstream: Upstream | None, guard: str) -> Acceptance | None:
    """What a person accepted of a guard on a day, None when nobody did."""
    mine = (a for a in acceptances(root, ds) if (a.guard, a.upstream) == (guard, upstream))
    return next(mine, None)


def acceptances(root: Path, ds: str) -> tuple[Acceptance, ...]:
    """Everything that was accepted of a day.

    Raises:
        ManifestCorrupt: the record cannot be read back.
    """
    path = _path(root, ds)
    if not path.exists():
        return ()
    try:
        return _ACCEPTANCES.validate_json(path.read_bytes())
    except ValidationError as error:
        raise ManifestCorrupt(
            "what was accepted of a day cannot be read",
            where=str(path),
            found=str(error),
            hint="remove the file, run the day again, and accept again what it refuses",
        ) from error


def accept(root: Path, new: Sequence[Acceptance]) -> None:
    """Record acceptances of one day, in place of earlier ones of the same guard and upstream."""
    ds = new[0].ds
    keys = {(a.guard, a.upstream) for a in new}
    kept = [a for a in acceptances(root, ds) if (a.guard, a.upstream) not in keys]
    text = _ACCEPTANCES.dump_json((*kept, *new), indent=2).decode()
    write_atomic(_path(root, ds), text + "\n")


def _path(root: Path, ds: str) -> Path:
    return HomePaths(root).accepted(ds)

"""`derm keep`: let results stand that were made before a harmless change of the code."""

import argparse
import datetime as dt
import json

from feature_store.contracts.errors import InputError
from jobs.console import out
from jobs.engine import kept, locks
from jobs.engine.code import code_digest
from jobs.engine.manifests import ManifestStore
from jobs.pipelines import catalog
from jobs.settings import Home, Settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm keep`."""
    parser.add_argument("--reason", required=True, help="why it is harmless, and who says so")
    parser.add_argument(
        "--step", dest="steps", action="append", help="repeatable; default: every step"
    )


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Record that results of earlier code stand, and say of which.

    Raises:
        InputError: a step is not known, or there is no reason.
    """
    home = Home.load(settings.home)
    names = [step.name for step in catalog.pipeline_of(home).steps if step.outputs]
    chosen = args.steps or names
    if unknown := [name for name in chosen if name not in names]:
        raise InputError("unknown steps", expected=" ".join(names), found=" ".join(unknown))
    if not args.reason.strip():
        raise InputError("a change is harmless for a reason", expected="--reason TEXT", found="''")
    with locks.alone(settings.home, "derm keep"):
        found = _earlier(settings, home, chosen)
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        declared = tuple(
            kept.Kept(
                step=step,
                was=was,
                now=present,
                reason=args.reason.strip(),
                at=now,
            )
            for step, was, present in found
        )
        if declared:
            kept.add(settings.home, declared)
    if args.json:
        out(json.dumps([k.model_dump() for k in declared]))
        return 0
    for (step, was, _), days in found.items():
        out(f"{step}: {days} results of the code {was} stand")
    if not found:
        out("every result is of the present code, or stands already")
    return 0


def _earlier(settings: Settings, home: Home, steps: list[str]) -> dict[tuple[str, str, str], int]:
    """How many results do not stand yet, by step, earlier version of it, and present one."""
    manifests = ManifestStore(settings.paths.manifests)
    families: dict[str | None, str] = {u.name: u.family for u in home.upstreams}
    found: dict[tuple[str, str, str], int] = {}
    for ds in manifests.days():
        for manifest in manifests.of_day(ds):
            if manifest.step not in steps:
                continue
            family = families.get(manifest.upstream, "")
            now = code_digest(manifest.step, home.dataset, settings.home, family)
            if not kept.stands(settings.home, manifest.step, manifest.code, now):
                key = (manifest.step, manifest.code, now)
                found[key] = found.get(key, 0) + 1
    return found

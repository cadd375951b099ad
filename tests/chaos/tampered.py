"""Every kind of file of a home, deleted, cut, changed, swapped: who notices, what repairs it.

Asked in this order, each on the damaged home: `derm verify`, `derm search` as a reader of the
index, and the next day. A day that succeeds must be the day of an undamaged home, bit for bit. What
`verify` names as the repair is then typed, and must bring back every bit.
"""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.chaos.fault import NEXT, Result, rng_of
from tests.chaos.process import Copy, derm, must
from tests.chaos.stage import Stage, traceback_in
from tests.chaos.state import differences

# A pattern of each kind; the newest file is damaged, and the oldest is what it is swapped with.
KINDS = {
    "events": "lake/events/ds=*/*.parquet",
    "users": "lake/users/ds=*/*.parquet",
    "Pins": "lake/pins/ds=*/*.parquet",
    "quarantine": "lake/quarantine/ds=*/*.parquet",
    "counts": "lake/counts/user/ds=*/bucket=0/*.parquet",
    "raw embeddings": "lake/embeddings/ctr/user/raw/ds=*/bucket=0/*.parquet",
    "daily embeddings": "lake/embeddings/ctr/user/daily/ds=*/bucket=0/*.parquet",
    "pool": "lake/embeddings/ctr/user/pool/ds=*/bucket=0/*.parquet",
    "finished steps": "lake/runs/ds=*/*.parquet",
    "log of a table": "lake/embeddings/ctr/user/pool/_delta_log/*.json",
    "weights": "snapshots/ctr/*/model.safetensors",
    "optimizer": "snapshots/ctr/*/optimizer.safetensors",
    "record of a snapshot": "snapshots/ctr/*/manifest.json",
    "graph of Pins": "index/ctr/*/graph.faiss",
    "ids of Pins": "index/ctr/*/ids.npy",
    "filter of Pins": "index/ctr/*/where_*.npy",
    "record of an index": "index/ctr/*/index.json",
    "release": "releases/*.json",
    "pointer of a home": "releases/current",
    "record of the store": "releases/store",
    "manifest of a step": "manifests/*/merge.ctr.json",
    "record of a source": "sources/*.json",
    "home.json": "home.json",
    "save of the store": "services/redis/users.rdb",
    "password of the store": "services/redis/password",
    "numbers of a day": "report/*.json",
    "page": "report/index.html",
    "metrics": "metrics/derm.prom",
    "last look": "probe.json",
}
# What is made again from the rest, and read by people alone: nothing is built on it.
PICTURES = ("numbers of a day", "page", "metrics", "last look")
_DAY = ("run", "--from", NEXT, "--to", NEXT)
_SEARCH = ("search", "--user", "member-001", "-k", "3", "--upstream", "ctr")


def delete(file: Path, _: Path) -> None:
    """The file is gone."""
    file.unlink()


def cut(file: Path, _: Path) -> None:
    """Its last bytes are gone."""
    file.write_bytes(file.read_bytes()[: -min(7, file.stat().st_size)])


def flip(file: Path, _: Path) -> None:
    """A bit in the middle is another one; of a document a digit, so that it can still be read."""
    data = bytearray(file.read_bytes())
    digits = [at for at, byte in enumerate(data) if 48 <= byte < 57]
    text = file.suffix in (".json", ".html", ".prom", "")
    at = digits[len(digits) // 2] if text and digits else len(data) // 2
    data[at] ^= 1
    file.write_bytes(bytes(data))


def swap(file: Path, other: Path) -> None:
    """Two files of the kind have changed places."""
    held = file.read_bytes()
    file.write_bytes(other.read_bytes())
    other.write_bytes(held)


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "deleted": delete,
    "cut": cut,
    "flipped": flip,
    "swapped": swap,
}


def cases(stage: Stage, seed: int, each: int) -> Iterator[tuple[str, int, Callable[[], Result]]]:
    """Each kind of file, damaged in each way; another seed takes another file of the kind."""
    expected: dict[str, dict[str, str]] = {}
    for number in range(each):
        for kind, pattern in KINDS.items():
            for way in WAYS:
                if way == "swapped" and "*" not in pattern:
                    continue

                def play(kind: str = kind, way: str = way, number: int = number) -> Result:
                    return _play(stage, kind, way, seed + number, expected)

                yield f"{kind}, {way}", seed + number, play


def _play(
    stage: Stage, kind: str, way: str, seed: int, expected: dict[str, dict[str, str]]
) -> Result:
    if not expected:
        stage.restore()
        expected["before"] = stage.observe()
        must(stage.home, *_DAY)
        expected["after"] = stage.observe()
    result = Result(kind="tamper", name=f"{kind}, {way}", seed=seed)
    result.how = _damage(stage, kind, way, seed)
    looked = derm(stage.home, "verify", "--json")
    found = _damages(looked)
    searched = derm(stage.home, *_SEARCH)
    day = derm(stage.home, *_DAY)
    noticed = {
        "verify": looked.code != 0,
        "search": searched.code != 0,
        _step_of(day): day.code != 0,
    }
    result.noticed = ", ".join(name for name, yes in noticed.items() if yes) or "nobody"
    for copy in (looked, searched, day):
        if traceback_in(copy):
            result.wrong.append(f"traceback: {copy.said()[-500:]}")
    if day.code == 0 and kind == "save of the store":
        # What the store has lost, a look tells; the next release has the day's users, not more.
        noticed["probe"] = derm(stage.home, "probe").code != 0
        result.noticed = ", ".join(name for name, yes in noticed.items() if yes) or "nobody"
        copies = [derm(stage.home, "restore")] if noticed["probe"] else []
        result.wrong += [f"not restored: {c.said()[-300:]}" for c in copies if c.code]
    if day.code == 0:
        built = differences(expected["after"], stage.observe())
        new = [name for name in built if NEXT in name or name.startswith(("key ", "index "))]
        result.wrong += [f"built on it: {name}" for name in new[:10]]
        if not any(noticed.values()) and built:
            result.wrong.append(f"nobody noticed: {built[:5]}")
    if found and not result.wrong:
        _repair(stage, kind, way, result, found, expected["before"])
    return result


def _repair(
    stage: Stage,
    kind: str,
    way: str,
    result: Result,
    found: list[dict[str, str]],
    expected: dict[str, str],
) -> None:
    """Type what verify names; every bit must be back."""
    _damage(stage, kind, way, result.seed)
    repairs = list(dict.fromkeys(damage["repair"] for damage in found))
    if foreign := [r for r in repairs if not r.startswith("derm ")]:
        result.wrong.append(f"no command repairs it: {foreign}")
        return
    copies = [derm(stage.home, *shlex.split(repair)[1:]) for repair in repairs]
    for number, copy in enumerate(copies):
        # One may need what a later one repairs: its message says so, and it is typed again.
        if copy.code:
            copies[number] = derm(stage.home, *shlex.split(repairs[number])[1:])
    again = derm(stage.home, "verify", "--json")
    if again.code != 0:
        said = [copy.said()[-300:] for copy in copies if copy.code]
        result.wrong.append(f"not repaired: {[d['found'] for d in _damages(again)]} {said}")
        return
    result.wrong += [f"after the repair: {name}" for name in stage.differing(expected)[:10]]
    result.how += "; repaired by " + " && ".join(dict.fromkeys(d["repair"] for d in found))


def _damage(stage: Stage, kind: str, way: str, seed: int) -> str:
    stage.restore()
    files = sorted(stage.home.glob(KINDS[kind]))
    # The first seed takes the newest file, which the next day reads; others take any.
    file = files[-1] if seed == 1 else rng_of("tamper", kind, way, seed).choice(files)
    other = next((f for f in files if f != file), file)
    WAYS[way](file, other)
    return file.relative_to(stage.home).as_posix()


def _damages(copy: Copy) -> list[dict[str, str]]:
    """What verify listed; none where it ended with an error of its own."""
    text = copy.said()
    start = text.find("{")
    try:
        found = json.JSONDecoder().raw_decode(text[start:])[0].get("damaged", [])
    except (ValueError, AttributeError):
        return []
    return list(found)


def _step_of(day: Copy) -> str:
    """Which step of the day ended with an error, or what the command said before any."""
    if day.code == 0:
        return ""
    named = re.search(r"step:\s+(\w+)", day.said())
    return named[1] if named else "derm run"

"""What a home says of itself, damaged: a message that names the file, or as if it was not there."""

from pathlib import Path

import pytest

from feature_store.contracts.errors import DermError, ManifestCorrupt
from jobs.engine import attempts, findings, guards, kept, skips, spaces, unfinished
from jobs.engine.manifests import ManifestStore
from jobs.settings import Home
from jobs.upkeep.forget import load_begun

DS = "2025-03-08"
DAMAGE = [b"", b"{", b"[]", b"\xff\xfe\x00", b'{"ds": 1}']
DECIDING = {
    "home.json": Home.load,
    "backfill.json": unfinished.load,
    "spaces.json": spaces.load,
    "kept.json": kept.load,
    f"skipped/{DS}.json": lambda root: skips.load(root, DS),
    f"accepted/{DS}.json": lambda root: guards.acceptances(root, DS),
    "forgotten/begun.json": lambda root: load_begun(unfinished.deletion_path(root)),
    f"manifests/{DS}/merge.ctr.json": lambda root: ManifestStore(root / "manifests").get(
        "merge", DS, "ctr"
    ),
}
# Pictures of how things stand, and what is only looked up to be faster.
SHOWN = {
    "probe.json": (findings.load, None),
    f"attempts/{DS}/train.ctr.json": (attempts.attempts, ()),
}


def spoil(root: Path, name: str, damage: bytes) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(damage)
    return path


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", DECIDING)
def test_what_decides_is_refused_by_its_name(tmp_path: Path, name: str, damage: bytes) -> None:
    path = spoil(tmp_path, name, damage)
    if (name, damage) == (f"accepted/{DS}.json", b"[]"):
        assert DECIDING[name](tmp_path) == ()  # type: ignore[operator]
        return
    with pytest.raises(ManifestCorrupt) as caught:
        DECIDING[name](tmp_path)  # type: ignore[operator]
    assert caught.value.where == str(path)
    assert isinstance(caught.value, DermError)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", SHOWN)
def test_what_is_only_shown_is_not_there(tmp_path: Path, name: str, damage: bytes) -> None:
    read, nothing = SHOWN[name]
    spoil(tmp_path, name, damage)
    assert read(tmp_path) == nothing  # type: ignore[operator]

"""Every kind of file of a home, deleted, cut, changed and swapped: `derm verify` names each."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.services.redis import stop_redis
from tests.data_fixtures import Home
from tests.derm_process import begin, derm

pytestmark = [pytest.mark.integration, pytest.mark.redis]

DAYS = ("2025-03-02", "2025-03-03")
# One file of each kind; every kind has two.
KINDS = {
    "raw": "lake/embeddings/ctr/user/raw/ds=*/bucket=0/*.parquet",
    "pool": "lake/embeddings/ctr/pin/pool/ds=*/bucket=0/*.parquet",
    "events": "lake/events/ds=*/*.parquet",
    "counts": "lake/counts/user/ds=*/bucket=0/*.parquet",
    "weights": "snapshots/ctr/*/model.safetensors",
    "snapshot": "snapshots/ctr/*/manifest.json",
    "graph": "index/ctr/*/graph.faiss",
    "index": "index/ctr/*/index.json",
    "release": "releases/*.json",
    "manifest": "manifests/*/merge.ctr.json",
    "source": "source/simulated/ds=*/events.parquet",
}


def delete(file: Path, _: Path) -> None:
    file.unlink()


def cut(file: Path, _: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def flip(file: Path, _: Path) -> None:
    data = bytearray(file.read_bytes())
    # A digit of a document becomes another one, which is still a document.
    digits = [at for at, byte in enumerate(data) if 48 <= byte < 57]
    at = digits[len(digits) // 2] if file.suffix == ".json" else len(data) // 2
    data[at] ^= 1
    file.write_bytes(bytes(data))


def swap(file: Path, other: Path) -> None:
    held = file.read_bytes()
    file.write_bytes(other.read_bytes())
    other.write_bytes(held)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two published days."""
    home = tmp_path_factory.mktemp("tampering") / "home"
    begin(home)
    derm(home, "run", "--from", DAYS[0], "--to", DAYS[1])
    stop_redis(home)
    assert json.loads(derm(home, "verify", "--json"))["damaged"] == []
    return home


@pytest.mark.parametrize("tamper", [delete, cut, flip, swap])
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_tampered_with_is_named_with_its_repair(
    kind: str,
    tamper: Callable[[Path, Path], None],
    clean: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home = tmp_path / "home"
    shutil.copytree(clean, home, copy_function=shutil.copy2)
    file, other, *_ = sorted(home.glob(KINDS[kind]))
    tamper(file, other)
    result = Home(home, monkeypatch, capsys).derm("verify", "--json")
    found = json.loads(result.out)["damaged"]
    if (kind, tamper) == ("manifest", delete):
        # A step without a record never finished: status says so.
        assert "merge" in Home(home, monkeypatch, capsys).derm("status").out
        return
    assert result.code == 1
    assert found
    assert all(damage["repair"].startswith("derm ") for damage in found)

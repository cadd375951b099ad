"""A backfill as a process of its own: killed again and again, and never beside a day.

The tests of this file are chapters of one story and run in order, on one home.
"""

import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from feature_store.contracts.base import ENTITIES
from feature_store.contracts.tables import daily_table, pool_table, raw_table
from feature_store.lake.lake import Lake
from jobs.engine import locks, unfinished
from jobs.engine.manifests import ManifestStore
from jobs.services.redis import stop_redis
from tests.derm_process import begin, derm, start
from tests.pipelines import UPSTREAMS
from tests.spoilt import spoil

pytestmark = [pytest.mark.integration, pytest.mark.spark, pytest.mark.redis]

DAYS, NEXT = ("2025-03-02", "2025-03-03", "2025-03-04"), "2025-03-05"
WRONG = DAYS[1]
_DATA = "simulate,ingest,validate"
_BACKFILL = ("backfill", "--from", WRONG, "--to", WRONG, "--what", "embeddings", "--yes")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Three published days, and their digests before one of them was spoilt."""
    folder = tmp_path_factory.mktemp("backfill")
    begin(folder)
    derm(folder, "run", "--from", DAYS[0], "--to", DAYS[-1])
    yield folder
    stop_redis(folder)


@pytest.fixture(scope="module")
def clean(home: Path) -> dict[str, str]:
    return digests(home)


def test_a_spoilt_day_spoils_the_days_after_it(home: Path, clean: dict[str, str]) -> None:
    lake = Lake(home / "lake")
    manifests = ManifestStore(home / "manifests")
    for upstream in UPSTREAMS:
        outputs = tuple(spoil(lake, upstream, e, WRONG) for e in ENTITIES)
        recorded = manifests.get("infer", WRONG, upstream)
        assert recorded
        manifests.put(recorded.model_copy(update={"outputs": outputs}))
    derm(home, "run", "--from", WRONG, "--to", DAYS[-1], "--steps", "dedup,merge")
    spoilt = {key for key, digest in digests(home).items() if clean[key] != digest}
    assert {key.split("/")[0] for key in spoilt} == set(DAYS[1:])


def test_killed_anywhere_the_same_command_finishes_it(home: Path, clean: dict[str, str]) -> None:
    moments = random.Random(6)
    for _ in range(4):
        process = start(home, *_BACKFILL)
        await_progress(home, process)
        time.sleep(moments.uniform(0.0, 6.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert unfinished.load(home) is not None
    # Also a day that was past its gate when the repair was killed.
    for words in (("gate", "--ds", NEXT), ("run", "--from", NEXT, "--to", NEXT, "--steps", _DATA)):
        refused = start(home, *words)
        said = refused.communicate()[1]
        assert "a backfill has begun and is not finished" in said
        assert " ".join(_BACKFILL[:-1]) in said
        assert refused.returncode == 3
    assert list(ManifestStore(home / "manifests").of_day(NEXT)) == []
    derm(home, *_BACKFILL)
    assert digests(home) == clean
    assert unfinished.load(home) is None
    assert "Next:" not in derm(home, "status")
    derm(home, "gate", "--ds", NEXT)


def test_a_backfill_begins_when_no_step_runs_and_no_step_begins_before_it_ended(home: Path) -> None:
    with locks.together(home, NEXT):
        repair = start(home, *_BACKFILL)
        assert repair.stderr
        assert "waiting: steps of a day are running" in repair.stderr.readline()
        assert unfinished.load(home) is None
    await_progress(home, repair)
    day = start(home, "run", "--from", NEXT, "--to", NEXT, "--steps", "gate,simulate,ingest")
    under_way = start(home, "validate", "--ds", NEXT)
    assert "then run the day again from its gate" in under_way.communicate()[1]
    assert under_way.returncode == 3
    assert repair.wait() == 0
    repair.communicate()
    said = day.communicate()[1]
    assert day.returncode == 0, said
    assert "waiting: derm backfill" in said
    manifests = ManifestStore(home / "manifests")
    ended = max(m.finished_at for ds in DAYS for m in manifests.of_day(ds))
    assert min(m.started_at for m in manifests.of_day(NEXT)) >= ended


def test_a_day_that_was_under_way_begins_again(home: Path) -> None:
    manifests = ManifestStore(home / "manifests")
    derm(
        home, "run", "--from", NEXT, "--to", NEXT, "--steps", "validate,train", "--upstream", "ctr"
    )
    repair = start(home, *_BACKFILL)
    assert f"{NEXT} was under way" in repair.communicate()[1]
    assert repair.returncode == 0
    assert {m.step for m in manifests.of_day(NEXT)} == {"simulate", "ingest", "validate"}


def digests(home: Path) -> dict[str, str]:
    lake = Lake(home / "lake")
    return {
        f"{ds}/{declare.__name__}/{u}/{e}": lake.artifact(declare(u, e).name, ds).digest
        for ds in DAYS
        for declare in (raw_table, daily_table, pool_table)
        for u in UPSTREAMS
        for e in ENTITIES
    }


def await_progress(home: Path, process: subprocess.Popen[str]) -> None:
    while unfinished.load(home) is None:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)

"""Steps share a home, a repair has it alone: shown with real processes."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from feature_store.contracts.errors import GuardFailed, InputError
from jobs.engine import locks, unfinished
from jobs.settings import Home

DAY = "2025-03-05"

# Writes a line when it has the home, keeps it until a line arrives, and says so when it lets go.
_HOLDER = """
import sys
from pathlib import Path
from jobs.engine import locks
home, kind = Path(sys.argv[1]), sys.argv[2]
if kind == "alone":
    hold = locks.alone(home, "derm repair")
else:
    hold = locks.together(home, "2025-03-05", from_its_gate=kind == "from its gate")
with hold:
    print("holds", flush=True)
    sys.stdin.readline()
"""


class Holder:
    """A process that holds a home until it is told, or killed."""

    def __init__(self, home: Path, kind: str) -> None:
        command = [sys.executable, "-c", _HOLDER, str(home), kind]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def await_hold(self) -> None:
        assert self.process.stdout
        assert self.process.stdout.readline() == "holds\n"

    def let_go(self) -> None:
        self.process.communicate("\n")

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def start(home: Path, kind: str) -> subprocess.Popen[str]:
    """A process that asks for a home, and says on standard error that it waits."""
    code = _HOLDER.replace(
        "from jobs", "import logging\nlogging.basicConfig(level=20)\nfrom jobs", 1
    )
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code, str(home), kind]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def begin_repair(home: Path) -> None:
    """Leave the record of a repair of 3 March that is not finished."""
    ds = "2025-03-03"
    step = unfinished.PlannedStep(
        step="infer", ds=ds, upstream="ctr", writes=(), rows=0, seconds=0.0
    )
    made = unfinished.BackfillPlan(
        corrupted=(ds,),
        what="embeddings",
        retrain=False,
        base="2025-03-02",
        first=ds,
        last="2025-03-04",
        steps=(step,),
    )
    unfinished.save(home, unfinished.Repair(plan=made))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = Home(dataset="simulated", recipe="toy", first_ds="2025-03-01", start_ds="2025-03-01")
    made.save(tmp_path)
    return tmp_path


def test_steps_share_a_home(home: Path) -> None:
    holders = [Holder(home, "together") for _ in range(3)]
    for holder in holders:
        holder.await_hold()
    for holder in holders:
        holder.let_go()


@pytest.mark.parametrize("kinds", [("alone", "together"), ("together", "alone"), ("alone",) * 2])
def test_a_repair_and_a_step_never_overlap(home: Path, kinds: tuple[str, str]) -> None:
    first = Holder(home, kinds[0])
    first.await_hold()
    marks = home / "marks"
    code = _HOLDER.replace('print("holds", flush=True)', f"Path({str(marks)!r}).touch()")
    code = code.replace("sys.stdin.readline()", "pass")
    second = subprocess.Popen([sys.executable, "-c", code, str(home), kinds[1]])
    time.sleep(2.0)
    assert second.poll() is None, "it did not wait"
    assert not marks.exists()
    first.let_go()
    assert second.wait() == 0
    assert marks.exists()


def test_whoever_is_killed_lets_go(home: Path) -> None:
    holder = Holder(home, "alone")
    holder.await_hold()
    holder.kill()
    with locks.together(home, DAY):
        pass


def test_what_a_killed_repair_left_half_done_is_not_built_on(home: Path) -> None:
    repair = Holder(home, "alone")
    repair.await_hold()
    waiting = start(home, "from its gate")
    begin_repair(home)
    repair.kill()
    said = waiting.communicate()[1]
    assert waiting.returncode != 0
    assert "a backfill has begun and is not finished" in said
    command = "derm backfill --from 2025-03-03 --to 2025-03-03 --what embeddings --no-retrain"
    with pytest.raises(GuardFailed, match=command), locks.together(home, DAY):
        pass
    with locks.together(home, "2025-03-02"):
        pass
    unfinished.path(home).unlink()
    with locks.together(home, DAY):
        pass


def test_a_day_under_way_gives_up_when_a_repair_has_begun(home: Path) -> None:
    repair = Holder(home, "alone")
    repair.await_hold()
    waiting = {kind: start(home, kind) for kind in ("together", "from its gate")}
    for process in waiting.values():
        assert process.stderr
        assert "waiting: derm repair" in process.stderr.readline()
    begin_repair(home)
    assert "clear every task of its run" in waiting["together"].communicate()[1]
    assert waiting["together"].returncode != 0
    assert waiting["from its gate"].poll() is None
    unfinished.path(home).unlink()
    repair.let_go()
    assert waiting["from its gate"].communicate("\n")[0] == "holds\n"


def test_whoever_waits_is_told_for_whom(home: Path) -> None:
    holder = Holder(home, "alone")
    holder.await_hold()
    waiting = start(home, "together")
    assert waiting.stderr
    said = waiting.stderr.readline()
    assert f"waiting: derm repair has the pipeline alone (process {holder.process.pid})" in said
    holder.let_go()
    assert waiting.communicate("\n")[0] == "holds\n"


def test_what_is_no_home_is_not_made_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a derm home"), locks.together(tmp_path, DAY):
        pass
    assert list(tmp_path.iterdir()) == []

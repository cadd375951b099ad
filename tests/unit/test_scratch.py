"""What a step spills goes with it; what a killed one has spilt goes with the next."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.engine.scratch import scratch_folder, sweep
from jobs.settings import PROJECT

_SPILL = """
import sys, time
from pathlib import Path
from jobs.engine.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1]), "infer") as folder:
    (folder / "user-0.arrow").write_text("u42")
    print(folder, flush=True)
    time.sleep(600)
"""


def test_an_error_takes_the_folder_with_it(tmp_path: Path) -> None:
    def spill() -> None:
        with scratch_folder(tmp_path, "count") as folder:
            (folder / "part").write_text("u42")
            raise ValueError("a step failed")

    with pytest.raises(ValueError, match="failed"):
        spill()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_the_next_step_removes_what_a_killed_one_left_and_no_living_ones(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _SPILL, str(tmp_path)]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    folder = Path(process.stdout.readline().strip())
    with scratch_folder(tmp_path, "count"):
        assert (folder / "user-0.arrow").exists()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (folder / "user-0.arrow").exists()
    with scratch_folder(tmp_path, "count") as mine:
        assert sorted((tmp_path / "scratch").iterdir()) == [mine]
        assert sweep(tmp_path / "scratch") == 0

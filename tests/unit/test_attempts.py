"""What a step leaves behind that did not finish: running, killed, failed or refused."""

import datetime as dt
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from feature_store.contracts.errors import GuardFailed, InputError
from jobs.engine import attempts
from jobs.settings import PROJECT

DS = "2025-03-08"


def fail_with(root, error):
    with (
        pytest.raises(type(error)),
        attempts.attempt(root, "train", DS, "ctr", limit_s=60),
    ):
        raise error
    (left,) = attempts.of_day(root, DS)
    return left


def test_while_it_runs_it_is_running_and_afterwards_nothing_is_left(tmp_path):
    with attempts.attempt(tmp_path, "gate", DS, None, limit_s=60):
        (now,) = attempts.attempts(tmp_path)
        assert (now.state, now.name, now.pid) == ("running", "gate", os.getpid())
        later = dt.datetime.fromisoformat(now.started_at) + dt.timedelta(seconds=90)
        assert now.seconds(later) == 90
    assert attempts.attempts(tmp_path) == ()


def test_a_refused_result_keeps_its_number_and_its_bound(tmp_path):
    refused = GuardFailed("the AUC fell too far", expected="auc >= 0.7", found="auc 0.6")
    refused.broken = (SimpleNamespace(guard="train.auc", found=0.6, bound=0.7, least=True),)
    left = fail_with(tmp_path, refused)
    assert left.state == "refused"
    assert left.reason == "the AUC fell too far; found auc 0.6; expected auc >= 0.7"
    (bound,) = left.broken
    assert (bound.guard, bound.found, bound.bound) == ("train.auc", 0.6, 0.7)


def test_an_error_names_the_step_and_the_day_it_happened_in(tmp_path):
    error = InputError("a file is missing", where="events.parquet")
    left = fail_with(tmp_path, error)
    assert (left.state, left.where) == ("failed", "events.parquet")
    assert f"  step:     train ctr of {DS}\n" in str(error)


def test_what_nobody_expected_is_said_by_its_last_line(tmp_path):
    assert fail_with(tmp_path, OSError(28, "No space left on device")).reason == (
        "OSError: [Errno 28] No space left on device"
    )
    assert "stopped" in fail_with(tmp_path, SystemExit(143)).reason


def test_the_next_attempt_that_succeeds_clears_it(tmp_path):
    fail_with(tmp_path, InputError("no"))
    with attempts.attempt(tmp_path, "train", DS, "ctr", limit_s=60):
        pass
    assert attempts.attempts(tmp_path) == ()


def test_one_that_is_killed_is_told_from_one_that_runs(tmp_path):
    script = (
        "import os, sys, pathlib\n"
        "from jobs.engine.attempts import attempt\n"
        f"with attempt(pathlib.Path(sys.argv[1]), 'train', '{DS}', 'ctr', limit_s=60):\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=PROJECT, check=False)
    (left,) = attempts.attempts(tmp_path)
    assert left.state == "killed"
    assert "killed" in left.reason

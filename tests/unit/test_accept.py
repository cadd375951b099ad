"""`derm accept`: one day, one guard, the number that was looked at, and nothing else."""

import json
from pathlib import Path

import pytest

from feature_store.contracts.base import Upstream
from feature_store.contracts.bounds import Check
from feature_store.contracts.errors import GuardFailed
from jobs.engine import attempts
from jobs.engine.guards import acceptances, hold
from tests.data_fixtures import Home

DS = "2025-03-08"
GUARD = "verify.cosine_user"
FOUND = 0.15


@pytest.fixture
def home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Home:
    home = Home(tmp_path / "home", monkeypatch, capsys)
    home.must("init", "--dataset", "simulated")
    return home


def verify(home: Home, upstream: Upstream, **numbers: float) -> list[str]:
    """What verify lets pass; the attempt is recorded as the runner does."""
    checks = [Check(number=n, found=v, bound=0.2) for n, v in numbers.items()]
    with attempts.attempt(home.path, "verify", DS, upstream, limit_s=60):
        used = hold(home.path, "verify", DS, upstream, checks, "the pool is not fit")
    return [a.guard for a in used]


def refused(home: Home, upstream: Upstream = "ctr", **numbers: float) -> GuardFailed:
    with pytest.raises(GuardFailed) as caught:
        verify(home, upstream, **numbers)
    return caught.value


def accept(home: Home, *more: str, guard: str = GUARD) -> int:
    result = home.derm("accept", "--ds", DS, "--guard", guard, "--reason", "a new season", *more)
    return result.code


def test_what_was_accepted_passes_and_says_so(home: Home) -> None:
    error = refused(home, cosine_user=FOUND)
    assert f"derm accept --ds {DS} --guard {GUARD}" in error.hint
    assert "cosine_user 0.15 < 0.2" in error.found
    result = home.derm("accept", "--ds", DS, "--guard", GUARD, "--reason", "a new season")
    assert result.code == 0
    assert f"next: derm run --from {DS} --to {DS}" in result.out
    assert verify(home, "ctr", cosine_user=FOUND) == [GUARD]
    (kept,) = acceptances(home.path, DS)
    assert (kept.reason, kept.found, kept.bound, kept.upstream) == (
        "a new season",
        0.15,
        0.2,
        "ctr",
    )
    assert verify(home, "ctr", cosine_user=0.9) == []


def test_it_is_for_that_number_that_guard_that_model_and_that_day(home: Home) -> None:
    refused(home, cosine_user=FOUND)
    assert accept(home) == 0
    refused(home, cosine_user=FOUND - 0.01)
    assert "cosine_pin" in refused(home, cosine_user=FOUND, cosine_pin=0.1).found
    refused(home, "cvr", cosine_user=FOUND)
    with pytest.raises(GuardFailed):
        hold(home.path, "verify", "2025-03-09", "ctr", [_low()], "the day after")


def _low() -> Check:
    return Check(number="cosine_user", found=FOUND, bound=0.2)


def test_both_models_are_accepted_unless_one_is_named(home: Home) -> None:
    for upstream in ("ctr", "cvr"):
        refused(home, upstream, cosine_user=FOUND)
    assert accept(home, "--upstream", "cvr") == 0
    assert [a.upstream for a in acceptances(home.path, DS)] == ["cvr"]
    refused(home, "ctr", cosine_user=FOUND)
    assert accept(home) == 0
    assert verify(home, "ctr", cosine_user=FOUND) == verify(home, "cvr", cosine_user=FOUND)


def test_a_number_that_is_none_is_never_accepted(home: Home) -> None:
    error = refused(home, cosine_user=float("nan"))
    assert error.broken == ()
    assert "derm accept" not in error.hint
    assert accept(home) == 2


def test_unknown_names_days_that_were_not_refused_and_no_reason(home: Home) -> None:
    unknown = home.derm("accept", "--ds", DS, "--guard", "verify.taste", "--reason", "x")
    assert unknown.code == 2
    assert "index.recall_at_10" in unknown.err
    assert accept(home) == 2
    refused(home, cosine_user=FOUND)
    assert accept(home, guard="train.auc") == 2
    assert home.derm("accept", "--ds", DS, "--guard", GUARD, "--reason", "  ").code == 2
    assert acceptances(home.path, DS) == ()


def test_for_machines(home: Home) -> None:
    refused(home, cosine_user=FOUND)
    args = ("accept", "--ds", DS, "--guard", GUARD, "--reason", "known", "--json")
    said = json.loads(home.derm(*args).out)
    assert said["accepted"][0]["found"] == FOUND
    assert said["next"] == f"derm run --from {DS} --to {DS}"

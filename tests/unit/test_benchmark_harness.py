"""The benchmarks' harness: who runs when, what counts, what is reported."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.harness import (
    Numbers,
    OutOfRace,
    against_floor,
    alternate,
    arguments,
    report,
    spread,
    summary,
    timed,
)


def _counting(log: list[str], name: str) -> Callable[[], Numbers]:
    def run() -> Numbers:
        log.append(name)
        return {"n": float(log.count(name))}

    return run


def test_contenders_take_turns_and_the_warm_up_is_not_counted() -> None:
    log: list[str] = []
    contenders = {name: _counting(log, name) for name in "ab"}
    found = alternate(contenders, 3, before=lambda: log.append("-"))
    assert "".join(log) == "-a-b" * 4
    assert found["a"] == [{"n": 2}, {"n": 3}, {"n": 4}]
    assert summary(found) == {"a": {"n": 3}, "b": {"n": 3}}
    assert spread(found["a"], "n") == 2


def test_who_cannot_go_on_is_reported_and_asked_no_more() -> None:
    asked = []

    def ends() -> Numbers:
        asked.append(1)
        raise OutOfRace({"out_of_memory": 1.0})

    found = alternate({"ends": ends, "other": timed(list)}, 2)
    assert len(asked) == 1
    assert summary(found)["ends"] == {"out_of_memory": 1.0}
    assert len(found["other"]) == 2


def test_seconds_include_what_the_work_left_running() -> None:
    order: list[str] = []
    numbers = timed(lambda: order.append("work"), settle=lambda: order.append("settle"))()
    assert order == ["work", "settle"]
    assert 0 <= numbers["wall_s"] < 5


def test_the_share_of_a_floor() -> None:
    found: dict[str, Numbers] = {"ours": {"cpu_s": 4.0}, "floor": {"cpu_s": 1.0}, "gone": {"x": 1}}
    shares = {n: v.get("share_of_floor") for n, v in against_floor(found).items()}
    assert shares == {"ours": 0.25, "floor": 1.0, "gone": None}


def test_a_report_is_printed_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "out.json"
    args = arguments("What.", rounds=2).parse_args(["--json", str(path)])
    report({"contenders": {"ours": {"wall_s": 1.0}}}, args)
    written = json.loads(path.read_text())
    assert json.loads(capsys.readouterr().out) == written
    assert written["rounds"] == 2
    assert written["contenders"]["ours"]["wall_s"] == 1.0
    assert written["machine"]["cores"] >= 1

"""Alerts reach a real HTTP server, sent by Airflow's own runners."""

import datetime as dt
import http.server
import json
import logging
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from feature_store.contracts.errors import DermError
from jobs.engine import findings
from jobs.pipelines import tasks
from jobs.scheduling import alerts
from jobs.scheduling.messages import Listener
from jobs.settings import PROJECT
from tests.airflow_fixtures import AIRFLOW_PYTHON, airflow_environment, make_home
from tests.pipelines import PIPELINE

needs_airflow = pytest.mark.skipif(
    not AIRFLOW_PYTHON.exists(), reason="Airflow is not installed: make .venv-airflow/.airflow"
)


_RUN = {"dag": "derm_daily", "run": "r", "command": "DERM_HOME=/h derm train --ds 2025-03-08"}
# What the command line prints, and what Airflow puts before it.
_REFUSED = """exit code 3
derm: snapshot 2025-03-08-ctr is refused: the AUC on the new day fell too far
  step:     train ctr of 2025-03-08
  where:    train 2025-03-08
  expected: auc >= 0.6512
  found:    auc 0.4301
  hint:     look at the day first: derm validate --ds 2025-03-08 --force; bounds: recipe.guards"""


class Receiver(http.server.ThreadingHTTPServer):
    """Keeps what was posted to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[dict[str, Any]] = []
        self.answer = 204

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook?token=secret"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Content-Type"] == "application/json"
        self.server.received.append(json.loads(body))
        self.send_response(self.server.answer)
        self.send_header("Location", f"{self.server.url}&again")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("task", ["ctr.train", "cvr.aggregate", "audit", "backfill", "retain"])
def test_an_alert_says_what_each_step_of_the_task_means(receiver: Receiver, task: str) -> None:
    document = alerts.task_failed(
        **_RUN, day="2025-03-08", task=task, error="x" * 5000, log_url="http://l"
    )
    alerts.send(document, receiver.url)
    (got,) = receiver.received
    assert got == document
    assert len(got["error"]) == 1000
    names = {"cvr.aggregate": ["dedup", "merge", "count"]}.get(task, [task.rpartition(".")[2]])
    assert [s["step"] for s in got["steps"]] == names
    assert all(s["meaning"] and s["remedy"] for s in got["steps"])


def test_an_alert_carries_the_step_the_message_the_repair_and_the_links() -> None:
    told = alerts.task_failed(
        **_RUN,
        day="2025-03-07",
        task="backfill",
        error=_REFUSED,
        log_url="http://host/base/dags/derm_backfill/runs/r/tasks/backfill?try_number=1",
    )
    assert told["step"] == "train ctr of 2025-03-08"
    assert told["day"] == "2025-03-08", "the day of the data, not that of the run"
    assert told["error"].endswith("the AUC on the new day fell too far")
    assert (told["expected"], told["found"]) == ("auc >= 0.6512", "auc 0.4301")
    assert told["repair"] == ["derm validate --ds 2025-03-08 --force"]
    assert told["runbook"] == "http://host/base/derm/docs/runbook.md#train"
    assert [s["step"] for s in told["steps"]] == ["train", "backfill"]


def test_without_a_command_in_the_hint_the_task_itself_is_named() -> None:
    told = alerts.task_failed(**_RUN, day="", task="ctr.train", error="exit code 1", log_url="")
    assert told["repair"] == [_RUN["command"]]


def test_to_accept_is_no_repair() -> None:
    hint = (
        "find the cause first; if the day is right: derm accept --ds 2025-03-08 --guard train.auc"
    )
    told = alerts.task_failed(
        **_RUN, day="", task="ctr.train", error=f"derm: refused\n  hint:     {hint}", log_url=""
    )
    assert told["repair"] == ["derm status --days 14"]
    assert told["hint"] == hint


def test_a_list_of_what_was_found_is_found_and_not_part_of_the_step() -> None:
    error = "derm: 1 problem\n  step:     ingest of 2025-03-08\n  found:\n    - events: cut off"
    told = alerts.task_failed(**_RUN, day="", task="ingest", error=error, log_url="")
    assert (told["step"], told["day"]) == ("ingest of 2025-03-08", "2025-03-08")
    assert told["found"] == "- events: cut off"


def test_a_task_that_ended_without_a_word_is_told_of_as_such() -> None:
    told = alerts.task_failed(**_RUN, day="", task="ctr.train", error="", log_url="")
    assert "without a word" in told["error"]


def test_what_derm_says_is_logged_at_its_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    listener = Listener(logging.getLogger("task"))
    said = ["12:00:00 INFO    epoch 1", "12:00:01 WARNING disk is slow", *_REFUSED.splitlines()[1:]]
    for line in (*said, "12:00:02 INFO    stopping"):
        listener.line(line + "\n")
    levels = [r.levelname for r in caplog.records]
    assert levels == ["INFO", "WARNING", *["ERROR"] * 6, "INFO"]
    message = listener.message()
    assert message
    assert (message.step, message.day) == ("train", "2025-03-08")
    assert message.commands == ("derm validate --ds 2025-03-08 --force",)


def test_a_traceback_is_an_error_and_its_last_line_the_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    listener = Listener(logging.getLogger("task"))
    for line in ("Traceback (most recent call last):", '  File "x.py", line 1', "OSError: full"):
        listener.line(line)
    assert {r.levelname for r in caplog.records} == {"ERROR"}
    message = listener.message()
    assert message
    assert message.what == "OSError: full"


def looked(*since: str) -> findings.Probed:
    found = [findings.Finding(kind="store", what="lost", since=s) for s in since]
    return findings.Probed(at="2025-03-09T12:00:00+00:00", findings=tuple(found))


@pytest.mark.parametrize(
    ("since", "told"),
    [
        (("2025-03-09T12:00:00+00:00",), True),
        (("2025-03-09T11:50:00+00:00",), False),
        (("2025-03-09T11:00:00+00:00",), True),
        (("2025-03-09T10:30:00+00:00",), False),
        # Another one is new.
        (("2025-03-09T10:30:00+00:00", "2025-03-09T12:00:00+00:00"), True),
    ],
)
def test_what_a_look_finds_is_told_when_new_and_once_an_hour(
    since: tuple[str, ...], told: bool
) -> None:
    now = dt.datetime(2025, 3, 9, 12, 0, 4, tzinfo=dt.UTC)
    assert alerts.is_news(looked(*since), now) == told


def test_without_a_webhook_an_alert_is_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    document = alerts.day_late(dag="derm_daily", run="r", day="2025-03-08", due="06:00")
    alerts.send(document, "")
    assert json.loads(caplog.messages[0]) == document


def test_a_refused_alert_is_an_error_that_keeps_the_secret(receiver: Receiver) -> None:
    receiver.answer = 403
    with pytest.raises(DermError, match="403") as refused:
        alerts.send({"event": "task_failed"}, receiver.url)
    assert "secret" not in str(refused.value)
    with pytest.raises(DermError, match="could not be sent"):
        alerts.send({"event": "task_failed"}, "http://127.0.0.1:1/hook?token=secret")


@pytest.mark.parametrize("answer", [301, 302, 303, 307, 308])
def test_a_webhook_that_names_another_place_has_not_taken_it(receiver: Receiver, answer) -> None:
    receiver.answer = answer
    with pytest.raises(DermError, match=str(answer)) as refused:
        alerts.send({"event": "task_failed"}, receiver.url)
    assert len(receiver.received) == 1
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    ["file:///etc/hostname", "data:,ok", "ftp://127.0.0.1/secret", "secret", "http://[secret/"],
)
def test_what_is_no_webhook_does_not_count_as_sent(url: str) -> None:
    with pytest.raises(DermError, match="could not be sent") as refused:
        alerts.send({"event": "task_failed"}, url)
    assert "secret" not in str(refused.value)


def test_the_runbook_is_named_for_every_step() -> None:
    named = set()
    for task in tasks.tasks(PIPELINE):
        document = alerts.task_failed(**_RUN, day="", task=task.key, error="", log_url="")
        named |= {s["runbook"] for s in document["steps"]}
    assert named == {f"docs/runbook.md#{step.name}" for step in PIPELINE.steps}


@pytest.fixture(scope="module")
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("airflow")
    command = [str(AIRFLOW_PYTHON), "-m", "airflow", "db", "migrate"]
    home = make_home(folder / "home")
    environment = airflow_environment(home, folder)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def run_by_airflow(airflow_home: Path, what: str, webhook: str, program: str = "/bin/false") -> str:
    # Whatever the command of a task is, `program` ends it: by default with exit code 1.
    environment = airflow_environment(
        airflow_home / "home", airflow_home, DERM_BIN=program, DERM_ALERT_WEBHOOK=webhook
    )
    script = str(PROJECT / "tests" / "alert_process.py")
    done = subprocess.run(
        [str(AIRFLOW_PYTHON), script, what, str(PROJECT / "dags")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.airflow
@needs_airflow
def test_a_task_that_failed_for_good(airflow_home: Path, receiver: Receiver) -> None:
    said = run_by_airflow(airflow_home, "failure", receiver.url)
    assert receiver.received, said
    (got,) = receiver.received
    assert (got["event"], got["dag"], got["task"]) == ("task_failed", "derm_backfill", "plan")
    assert "exit code 1" in got["error"]
    assert "derm_backfill" in got["log_url"]
    assert "backfill --from 2025-03-08" in got["repair"][0]
    assert "secret" not in said


@pytest.mark.airflow
@needs_airflow
def test_derms_own_message_reaches_the_alert_and_the_log_as_an_error(
    airflow_home: Path, receiver: Receiver
) -> None:
    """The real command, refused: nothing has run in this home, so nothing can be repaired."""
    program = str(PROJECT / ".venv" / "bin" / "derm")
    said = run_by_airflow(airflow_home, "failure", receiver.url, program=program)
    (got,) = receiver.received
    assert got["error"], said
    assert "exit code" not in got["error"]
    assert got["error"] in said
    assert re.search(rf"error.*{re.escape(got['error'])}", said), "at the level of an error"
    assert "Runbook: http" in said
    assert got["runbook"].endswith("/derm/docs/runbook.md#plan")
    assert got["hint"]


@pytest.mark.airflow
@needs_airflow
def test_a_day_that_is_late(airflow_home: Path, receiver: Receiver) -> None:
    said = run_by_airflow(airflow_home, "late", receiver.url)
    assert receiver.received, said
    (got,) = receiver.received
    assert (got["event"], got["day"]) == ("day_late", "2025-03-08")
    assert got["due"].startswith("2025-03-09T06:00")


@pytest.mark.airflow
@needs_airflow
def test_the_triggerer_tells_of_a_late_day_where_the_executor_cannot(
    airflow_home: Path, receiver: Receiver
) -> None:
    """Airflow 3.3 refuses a deadline's callback to every executor but those it names."""
    said = run_by_airflow(airflow_home, "late_by_triggerer", receiver.url)
    assert receiver.received, said
    assert receiver.received[0]["event"] == "day_late"
    assert receiver.received[0]["runbook"].endswith("runbook.md#dermnotpublished")


@pytest.mark.airflow
@needs_airflow
def test_history_that_is_caught_up_on_wakes_nobody(airflow_home: Path, receiver: Receiver) -> None:
    said = run_by_airflow(airflow_home, "history", receiver.url)
    assert "catching up" in said
    assert receiver.received == []


@pytest.mark.airflow
@needs_airflow
def test_clearing_a_failed_day_keeps_its_deadline(airflow_home: Path) -> None:
    # `ls gate --ds` ends with exit code 2, which is not tried again.
    said = run_by_airflow(airflow_home, "due", "", program="/bin/ls")
    assert "DUE 2025-03-09 06:00:00+00:00" in said, said

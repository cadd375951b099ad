"""A backfill in Airflow attaches to the run that does the same, and to no other."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from feature_store.contracts.errors import InputError
from jobs.cli import main
from jobs.engine import unfinished
from jobs.repair import backfill_run, plan
from jobs.services import airflow
from jobs.services.airflow_api import AirflowApi
from jobs.settings import Home, Settings
from tests.report_fixtures import make_home

FIRST, DAY = "2025-03-01", "2025-03-03"
REPAIR = {"first_day": DAY, "last_day": DAY, "what": "embeddings", "models": "keep"}


class Airflow(HTTPServer):
    """Answers as Airflow does, about one run that is queued until it is first asked how it is."""

    conf: dict[str, Any]
    triggered: list[dict[str, Any]]
    active = True


class _Handler(BaseHTTPRequestHandler):
    server: Airflow

    def do_GET(self) -> None:
        if self.path.endswith("monitor/health"):
            parts = ("metadatabase", "scheduler", "dag_processor")
            self._answer({part: {"status": "healthy"} for part in parts})
            return
        self._answer(
            {"dag_runs": [{"dag_run_id": "theirs", "conf": self.server.conf}]}
            if self.path.endswith("limit=1") and self.server.active
            else {"dag_runs": [], "state": "success"}
        )

    def do_PATCH(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.triggered.append(json.loads(body)["conf"])
        self._answer({"dag_run_id": "ours"})

    def _answer(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Airflow]:
    Home(dataset="simulated", recipe="toy", first_ds=FIRST, start_ds=FIRST).save(tmp_path)
    made = Airflow(("127.0.0.1", 0), _Handler)
    made.conf, made.triggered = REPAIR, []
    api = AirflowApi(
        url=f"http://127.0.0.1:{made.server_port}", user="admin", password="", token=""
    )
    monkeypatch.setattr(airflow, "connect", lambda _: api)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def progress(
    what: unfinished.What = "embeddings", ds: str = DAY, first: str = DAY
) -> unfinished.Repair:
    made = unfinished.BackfillPlan(
        corrupted=(ds,),
        what=what,
        retrain=what != "embeddings",
        base=None,
        first=first,
        last=ds,
        steps=(),
    )
    return unfinished.Repair(plan=made)


@pytest.mark.parametrize(
    ("asked", "conf"),
    [
        (progress(), REPAIR),
        # As the form of the UI leaves it.
        (progress(), REPAIR | {"models": "as needed"}),
        (progress("labels"), {"first_day": DAY, "last_day": DAY}),
        # Days before the home's first are none.
        (progress("space", first=FIRST), {"day": DAY, "days_back": 9}),
        (progress("space", first=FIRST), {"day": DAY}),
    ],
)
def test_the_same_is_followed(
    asked: unfinished.Repair,
    conf: dict[str, Any],
    server: Airflow,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.conf = conf
    assert backfill_run.follow(Settings(home=tmp_path), asked) == 0
    assert server.triggered == []
    assert "/runs/theirs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "conf"),
    [
        (progress(ds="2025-03-04"), REPAIR),
        (progress("labels"), REPAIR),
        (progress(), REPAIR | {"models": "retrain"}),
        (progress(), REPAIR | {"last_day": "2025-03-04"}),
        (progress("space", first=FIRST), {"day": DAY, "days_back": 1}),
        (progress("space", first=FIRST), {"day": "2025-03-04", "days_back": 3}),
    ],
)
def test_another_is_not_taken_for_it(
    asked: unfinished.Repair, conf: dict[str, Any], server: Airflow, tmp_path: Path
) -> None:
    server.conf = conf
    with pytest.raises(InputError, match="is at work on something else") as caught:
        backfill_run.follow(Settings(home=tmp_path), asked)
    assert unfinished.command(asked.plan) in caught.value.expected
    assert "/runs/theirs" in caught.value.where
    assert server.triggered == []


@pytest.mark.parametrize("asked", [progress(), progress("space", first=FIRST)])
def test_what_is_triggered_here_is_found_again(
    asked: unfinished.Repair, server: Airflow, tmp_path: Path
) -> None:
    server.active = False
    assert backfill_run.follow(Settings(home=tmp_path), asked) == 0
    server.active, server.conf = True, server.triggered[0]
    assert backfill_run.follow(Settings(home=tmp_path), asked) == 0
    assert len(server.triggered) == 1


def test_an_approval_is_asked_for_in_airflow(
    server: Airflow, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.active = False
    assert backfill_run.follow(Settings(home=tmp_path), progress(), approval=True) == 0
    assert server.triggered[0]["approval"] is True
    assert "/tasks/approve/required_actions" in capsys.readouterr().out.replace("\n", "")


def test_an_approval_without_airflow_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    make_home(home, days=2)
    monkeypatch.setenv("DERM_HOME", str(home))
    days = ["--from", "2025-03-02", "--to", "2025-03-02", "--what", "embeddings"]
    monkeypatch.setattr(plan, "from_arguments", lambda *_: progress().plan)
    assert main(["backfill", *days, "--approval"]) == 2
    assert "derm up" in capsys.readouterr().err

"""Embedding health in a real Airflow API server: closed without a login, the report with one."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from feature_store.contracts.errors import InputError
from jobs.engine import attempts, findings
from jobs.engine.findings import Finding, Probed
from jobs.scheduling import alerts
from jobs.services.airflow import ensure_password
from jobs.services.airflow_api import AirflowApi, Unreachable
from jobs.settings import PROJECT
from tests.airflow_fixtures import AIRFLOW_PYTHON, airflow_environment
from tests.report_fixtures import make_home

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.integration,
    pytest.mark.skipif(
        not AIRFLOW_PYTHON.exists(), reason="Airflow is not installed: make .venv-airflow/.airflow"
    ),
]
_CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
_UP_WITHIN_S = 120
RUNS = ("2025-03-11", "2025-03-12")
_BEGIN_DAYS = """
import datetime, sys
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from airflow.utils.types import DagRunType

with create_session() as session:
    session.add(DagBundleModel(name="bundle"))
    session.flush()
    session.add(DagModel(dag_id="derm_daily", bundle_name="bundle"))
    for ds in sys.argv[1:]:
        day = datetime.datetime.fromisoformat(ds).replace(tzinfo=datetime.UTC)
        end = day + datetime.timedelta(days=1)
        session.add(DagRun(dag_id="derm_daily", run_id=f"scheduled__{end.isoformat()}",
                           logical_date=day, data_interval=(day, end), run_after=end,
                           run_type=DagRunType.SCHEDULED, state="success"))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    make_home(folder, days=12)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AIRFLOW_HOME; the server's log is in it."""
    return tmp_path_factory.mktemp("airflow")


@pytest.fixture(scope="module")
def api(home: Path, folder: Path) -> Iterator[AirflowApi]:
    """A server with our plugin, and a login."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    ensure_password(folder)
    passwords = folder / "passwords.json"
    environment = airflow_environment(
        home,
        folder,
        AIRFLOW__API__PORT=port,
        AIRFLOW__API__BASE_URL=f"http://127.0.0.1:{port}",
        AIRFLOW__API_AUTH__JWT_SECRET=secrets.token_urlsafe(48),
        AIRFLOW__CORE__PLUGINS_FOLDER=str(PROJECT / "infra" / "airflow" / "plugins"),
        AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE=str(passwords),
    )
    command = [str(AIRFLOW_PYTHON), "-m", "airflow"]
    subprocess.run([*command, "db", "migrate"], env=environment, capture_output=True, check=True)
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([*command, "api-server"], env=environment, stdout=log, stderr=log)
    _begin_days(environment)
    try:
        yield _login(server, f"http://127.0.0.1:{port}", passwords, folder / "log")
    finally:
        server.terminate()
        server.wait()


def test_without_a_login_the_page_is_closed(api: AirflowApi) -> None:
    assert get(api, "/derm/health", token="")[0] == 401
    assert get(api, "/derm/health", token=api.token[::-1])[0] == 403
    # Nor does it tell what it is made of.
    assert get(api, "/derm/openapi.json", token="")[0] == 404


def test_the_server_does_not_print_the_password(api: AirflowApi, folder: Path) -> None:
    log = (folder / "log").read_text()
    assert "/auth/token" in log
    assert api.password not in log
    assert "Password for user" not in log


def test_with_a_login_it_is_the_report_as_it_stands(api: AirflowApi, home: Path) -> None:
    code, page = get(api, "/derm/health", token=api.token)
    assert code == 200
    assert "2025-03-12" in page
    assert page.count("<svg") > 25
    assert [ds for ds in RUNS if f">{ds}</a>" not in page] == []
    assert page.count('<a class="run"') == len(RUNS)
    current = home / "releases" / "current"
    kept = current.read_text()
    current.write_text("2025-03-09-absent\n")
    code, said = get(api, "/derm/health", token=api.token)
    current.write_text(kept)
    assert code == 503
    assert "derm restore" in said


def test_the_runbook_is_served_with_the_sections_that_alerts_link_to(api: AirflowApi) -> None:
    assert get(api, "/derm/docs/runbook.md", token="")[0] == 401
    code, page = get(api, "/derm/docs/runbook.md", token=api.token)
    assert code == 200
    for document in (
        alerts.task_failed(
            dag="derm_daily", run="r", day="", task="ctr.train", command="derm train",
            error="exit code 1", log_url=f"{api.url}/dags/derm_daily/runs/r/tasks/ctr.train",
        ),
        alerts.day_late(dag="d", run="r", day="", due="", base_url=api.url),
    ):  # fmt: skip
        address, _, section = document["runbook"].partition("#")
        assert address == f"{api.url}/derm/docs/runbook.md"
        assert f'id="{section}"' in page
    assert get(api, "/derm/docs/images/flow.svg", token=api.token)[0] == 200
    assert get(api, "/derm/docs/cluster.md", token=api.token)[0] == 200
    for outside in ("../README.md", "%2e%2e/README.md", "nothing.md", "images"):
        assert get(api, f"/derm/docs/{outside}", token=api.token)[0] == 404


def test_what_is_lost_failed_or_under_repair_is_said_first(api: AirflowApi, home: Path) -> None:
    def said() -> str:
        code, page = get(api, "/derm/health", token=api.token)
        assert code == 200
        return page

    assert "released, every bound kept" in said()
    lost = Finding(kind="store", what="the online store has lost users", hint="derm restore")
    findings.save(home, Probed(at="2025-03-13T12:00:00+00:00", findings=(lost,)))
    page = said()
    assert '<span class="pill bad">the online store has lost users</span>' in page
    assert "derm restore" in page
    (home / "probe.json").unlink()
    # The first step of the newest day failed: the day has no manifest at all.
    with (
        pytest.raises(InputError),
        attempts.attempt(home, "ingest", "2025-03-13", None, limit_s=60),
    ):
        raise InputError("a source file is cut off", where="events.parquet", hint="derm ingest")
    page = said()
    assert '<span class="pill bad">ingest failed</span>' in page
    assert page.index("2025-03-13") < page.index("2025-03-12")
    assert "a source file is cut off" in page
    (home / "attempts" / "2025-03-13" / "ingest.json").unlink()
    steps = [{"ds": "2025-03-10", "step": "merge", "upstream": "ctr"}] * 4
    plan = {"what": "labels", "first": "2025-03-09", "last": "2025-03-12", "steps": steps}
    (home / "backfill.json").write_text(json.dumps({"plan": plan, "done": 1}))
    page = said()
    assert '<span class="pill busy">backfill under way: 1 of 4 steps</span>' in page
    assert "at 2025-03-10 merge ctr" in page
    (home / "backfill.json").unlink()


@pytest.mark.browser
@pytest.mark.skipif(_CHROMIUM is None, reason="no Chromium on this machine")
def test_it_is_a_page_of_the_ui(api: AirflowApi) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        window = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        view = window.new_page(color_scheme="light", viewport={"width": 1440, "height": 900})
        view.goto(f"{api.url}/auth/login")
        view.fill("input[name=username]", api.user)
        view.fill("input[name=password]", api.password)
        view.click("button[type=submit]")
        view.wait_for_url(lambda url: "/auth/" not in url)
        view.goto(f"{api.url}/plugin/embeddings")
        frame = view.frame_locator("iframe")
        frame.locator("h1").wait_for()
        assert "2025-03-12" in frame.locator("h1").inner_text()
        assert frame.locator("svg.chart").count() > 25
        if os.environ.get("UPDATE_IMAGES"):
            view.wait_for_timeout(1000)
            view.screenshot(path=PROJECT / "docs" / "images" / "embedding_health.png")
        frame.locator("a.run", has_text="2025-03-11").click()
        run = "/dags/derm_daily/runs/scheduled__2025-03-12T00%3A00%3A00%2B00%3A00"
        view.wait_for_url(lambda url: urllib.parse.urlsplit(url).path == run)
        window.close()


def _begin_days(environment: dict[str, str]) -> None:
    """What the scheduler leaves in the database when it starts a day."""
    done = subprocess.run(
        [str(AIRFLOW_PYTHON), "-c", _BEGIN_DAYS, *RUNS],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def get(api: AirflowApi, path: str, *, token: str) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(api.url + path, headers=headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def _login(server: subprocess.Popen[bytes], url: str, passwords: Path, log: Path) -> AirflowApi:
    deadline = time.monotonic() + _UP_WITHIN_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            return AirflowApi.login(url, "admin", json.loads(passwords.read_text())["admin"])
        except (Unreachable, OSError, json.JSONDecodeError):
            time.sleep(0.3)
    raise AssertionError(log.read_text()[-4000:])

"""Each alert about something that goes on now can fire: it is played, and Prometheus reads it.

What `derm probe` writes while the trouble lasts goes through Prometheus' own evaluation of
infra/prometheus/alerts.yml (`promtool test rules`); before the trouble nothing fires.
"""

import datetime as dt
import http.server
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from feature_store.contracts.base import shift_day
from feature_store.contracts.errors import GuardFailed
from jobs.cli import main
from jobs.engine import attempts
from jobs.engine.findings import Probed
from jobs.engine.manifests import ManifestStore
from jobs.engine.runner import open_context
from jobs.services import airflow
from jobs.services.airflow_api import AirflowApi
from jobs.settings import PROJECT, Settings
from jobs.steps import probing
from tests.publishing_fixtures import START, World

RULES = PROJECT / "infra" / "prometheus" / "alerts.yml"
PROMTOOL = shutil.which("promtool")

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(PROMTOOL is None, reason="no promtool: apt-get install prometheus"),
]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("DERM_HOME", str(tmp_path))
    made = World(tmp_path, users=60, pins=12)
    made.grow(START)
    made.publish(START)
    yield made
    made.close()


def fired(world: World, folder: Path) -> list[str]:
    """Alerts that Prometheus raises from what the home exposes now, half an hour on."""
    return raised((world.root / "metrics" / "derm.prom").read_text(), folder)


def raised(text: str, folder: Path, *, after: str = "30m") -> list[str]:
    """Alerts that Prometheus raises from numbers that have stood still for so long."""
    series = [
        {"series": _series(s.name, s.labels), "values": f"{s.value}+0x1800"}
        for family in text_string_to_metric_families(text)
        for s in family.samples
    ]
    names = [r["alert"] for g in yaml.safe_load(RULES.read_text())["groups"] for r in g["rules"]]
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": series,
                "alert_rule_test": [
                    {"eval_time": after, "alertname": name, "exp_alerts": []} for name in names
                ],
            }
        ],
    }
    path = folder / "test.yml"
    path.write_text(yaml.safe_dump(test))
    assert PROMTOOL
    done = subprocess.run(
        [PROMTOOL, "test", "rules", str(path)], capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    assert "SUCCESS" in said or "FAILED" in said, said
    return [name for name in names if f"alertname: {name}," in said]


def _series(name: str, labels: dict[str, str]) -> str:
    """As PromQL writes it; strings of JSON are those of PromQL."""
    return name + "{" + ",".join(f"{k}={json.dumps(v)}" for k, v in labels.items()) + "}"


def now_fire(world: World, folder: Path) -> list[str]:
    # Prometheus' test begins in 1970: of the age of a number nothing can be told there.
    aged = {"DermNotPublished", "DermNobodyLooks"}
    return [name for name in fired(world, folder) if name not in aged]


def test_nothing_fires_while_all_is_well(world: World, tmp_path: Path) -> None:
    assert main(["probe"]) == 0
    assert now_fire(world, tmp_path) == []


def test_an_empty_store(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from redis import Redis

    from jobs.services.redis import ensure_redis

    Redis.from_url(ensure_redis(world.settings)).flushall()
    assert main(["probe"]) == 3
    assert "derm restore" in capsys.readouterr().err
    assert now_fire(world, tmp_path) == ["DermStoreLost"]
    assert main(["restore"]) == 0
    assert main(["probe"]) == 0
    assert now_fire(world, tmp_path) == []


def test_a_full_disk(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The newest day was so large that three of them do not fit below the home."""
    store = ManifestStore(world.root / "manifests")
    release = store.get("release", START, None)
    assert release
    huge = release.outputs[0].model_copy(update={"size": shutil.disk_usage(world.root).free})
    store.put(release.model_copy(update={"outputs": (huge,)}))
    assert main(["probe"]) == 3
    said = capsys.readouterr().err
    assert "the disk of the home is nearly full" in said
    assert "derm retain" in said
    assert now_fire(world, tmp_path) == ["DermDiskFull"]


def test_a_look_whose_own_record_finds_no_room_still_says_what_it_saw(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(probing.findings, "save", no_room)
    assert isinstance(probing.record(open_context(world.settings, "")), Probed)
    assert "could not be recorded" in caplog.text


_HANG = """
import pathlib, sys, time
from jobs.engine.attempts import attempt
with attempt(pathlib.Path(sys.argv[1]), "train", "2025-03-02", "ctr", limit_s=0.2):
    print("begun", flush=True)
    time.sleep(600)
"""


def test_a_step_that_hangs_and_then_one_that_was_killed(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-c", _HANG, str(world.root)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as step:
        assert step.stdout
        assert step.stdout.readline() == "begun\n"
        # Times are kept to the second.
        time.sleep(1.5)
        assert main(["probe"]) == 3
        said = capsys.readouterr().err
        assert "train ctr of 2025-03-02 is still running" in said
        assert f"kill {step.pid}" in said
        assert now_fire(world, tmp_path) == ["DermStepHangs"]
        step.kill()
    assert main(["probe"]) == 3
    assert "train ctr of 2025-03-02 was killed" in capsys.readouterr().err
    assert now_fire(world, tmp_path) == ["DermStepHangs"]


def test_a_result_that_a_guard_refused(world: World, tmp_path: Path) -> None:
    with (
        pytest.raises(GuardFailed),
        attempts.attempt(world.root, "verify", START, "ctr", limit_s=60),
    ):
        raise GuardFailed("not fit", expected="cosine_user >= 0.2", found="cosine_user 0.1")
    main(["probe"])
    assert now_fire(world, tmp_path) == ["DermRefused"]
    text = (world.root / "metrics" / "derm.prom").read_text()
    assert 'bound="cosine_user >= 0.2"' in text


class _Paused(http.server.BaseHTTPRequestHandler):
    """Airflow, as far as the question is whether a DAG is paused."""

    def do_GET(self) -> None:
        body = json.dumps({"is_paused": self.path.endswith("/dags/derm_daily")}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silent."""


def test_a_paused_dag_while_a_day_waits(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Paused)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    api = AirflowApi(url=f"http://127.0.0.1:{server.server_port}", user="", password="", token="")
    monkeypatch.setattr(airflow, "is_running", lambda _: True)
    monkeypatch.setattr(airflow, "connect", lambda _: api)
    try:
        ctx = open_context(world.settings, "")
        # The day was published as it ended, so the pipeline keeps up with the calendar.
        keep_up(world)
        ended = dt.datetime.fromisoformat(shift_day(START, 2)).replace(tzinfo=dt.UTC)
        kinds = [
            [f.kind for f in probing.look(ctx, ended + dt.timedelta(hours=h)).findings]
            for h in (0, 1, 7)
        ]
        assert kinds == [[], ["paused"], ["paused", "late"]]
        assert main(["probe"]) == 3
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    said = capsys.readouterr().err
    assert "derm_daily is paused, and 2025-03-02 waits" in said
    assert "also: 2025-03-02 is not published" in said
    assert now_fire(world, tmp_path) == ["DermPaused"]


def test_a_home_of_history_is_not_late(world: World) -> None:
    """Its days ended long before they were published; nobody is woken for the next one."""
    assert [f.kind for f in probing.look(open_context(world.settings, ""), now()).findings] == []
    assert Settings(home=world.root).last_ds == ""


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def keep_up(world: World) -> None:
    store = ManifestStore(world.root / "manifests")
    release = store.get("release", START, None)
    assert release
    finished = f"{shift_day(START, 1)}T01:00:00+00:00"
    store.put(release.model_copy(update={"finished_at": finished}))


def test_an_old_release_and_a_look_that_nobody_took(world: World, tmp_path: Path) -> None:
    """The two alerts that count from a time: their numbers stand still, and the clock goes on."""
    series = [
        {"series": "derm_release_day_end_timestamp", "values": "0x2400"},
        {"series": "derm_probe_timestamp", "values": "0x2400"},
    ]
    alerts = [("DermNobodyLooks", "30m", "2h"), ("DermNotPublished", "29h", "31h")]
    for name, before, after in alerts:
        for at, expected in ((before, False), (after, True)):
            path = tmp_path / "test.yml"
            rule = [{"eval_time": at, "alertname": name, "exp_alerts": []}]
            case = {"interval": "1m", "input_series": series, "alert_rule_test": rule}
            path.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "tests": [case]}))
            assert PROMTOOL
            done = subprocess.run(
                [PROMTOOL, "test", "rules", str(path)], capture_output=True, text=True, check=False
            )
            assert (f"alertname: {name}," in done.stdout + done.stderr) == expected, (name, at)


_RANKED = """
derm_release_day_end_timestamp 864000
derm_ranker_day_end_timestamp{upstream="behind"} 691200
derm_ranker_day_end_timestamp{upstream="there"} 864000
"""
_REFUSED = 'derm_refused_found{ds="2025-03-09",step="%s",upstream="x",guard="auc",bound="1"} 0.5\n'


@pytest.mark.parametrize(
    ("text", "after", "names"),
    [
        (_RANKED, "5h", []),
        (_RANKED, "7h", ["DermRankerBehind"]),
        (_RANKED.replace("691200", "777600"), "7h", []),
        (_REFUSED % "evaluate", "5m", ["DermRankerRefused"]),
        (_REFUSED % "train", "5m", ["DermRefused"]),
        ('derm_evaluate_worth_high{upstream="x"} -0.001\n', "25h", []),
        ('derm_evaluate_worth_high{upstream="x"} -0.001\n', "27h", ["DermEmbeddingsCost"]),
        ('derm_evaluate_worth_high{upstream="x"} 0.02\n', "27h", []),
    ],
)
def test_alerts_of_rankers_are_tickets_of_their_own(
    tmp_path: Path, text: str, after: str, names: list[str]
) -> None:
    """One day behind is how a ranker stands every morning; who ranks nothing hears nothing."""
    general = {"DermNotPublished", "DermNobodyLooks", "DermNumbersMissing"}
    found = raised(text, tmp_path, after=after)
    assert [name for name in found if name not in general] == names

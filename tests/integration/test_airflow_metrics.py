"""Airflow's own metrics reach a real StatsD socket and a real OpenTelemetry endpoint."""

import http.server
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from jobs.services.airflow import metrics_environment
from jobs.settings import Settings
from tests.airflow_fixtures import AIRFLOW_PYTHON, airflow_environment, make_home

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.skipif(
        not AIRFLOW_PYTHON.exists(), reason="Airflow is not installed: make .venv-airflow/.airflow"
    ),
]

# Airflow's own way to count something, as its scheduler does; what is buffered goes at exit.
_COUNT = "from airflow.sdk.observability.stats import Stats; Stats.incr('derm_probe', 7)"


def count(folder: Path, target: str) -> None:
    settings = Settings(home=folder, airflow_metrics=target)
    environment = airflow_environment(
        make_home(folder), folder, **metrics_environment(settings.airflow_metrics)
    )
    done = subprocess.run(
        [str(AIRFLOW_PYTHON), "-c", _COUNT],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_statsd(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        count(tmp_path, f"statsd://127.0.0.1:{receiver.getsockname()[1]}")
        while (packet := receiver.recv(4096)) != b"airflow.derm_probe:7|c":
            assert packet.startswith(b"airflow.")


class _Collector(http.server.ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[tuple[str, bytes]] = []


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Silent."""


def test_opentelemetry(tmp_path: Path) -> None:
    with _Collector() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        count(tmp_path, f"otlp://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()
    (path, body) = server.received[-1]
    assert path == "/v1/metrics"
    assert b"derm_probe" in body
    assert b"derm-airflow" in body


def test_elsewhere_nothing_is_sent() -> None:
    assert metrics_environment("") == {}
    for wrong in ("127.0.0.1:8125", "statsd://127.0.0.1", "udp://127.0.0.1:8125"):
        with pytest.raises(ValueError, match="airflow_metrics"):
            Settings(airflow_metrics=wrong)

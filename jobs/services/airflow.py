"""Airflow on this machine: its database, its three processes, their settings and secrets.

No triggerer runs (no task defers) and no log server (the UI reads the files). Everything listens
on loopback or on a unix socket. Static settings are in infra/airflow.cfg.
"""

import base64
import json
import os
import secrets
import socket
import subprocess
import time
import urllib.parse
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from feature_store.contracts.errors import DermError, InputError
from jobs.services import processes
from jobs.services.airflow_api import AirflowApi, Unreachable
from jobs.services.private import make_private, write_private
from jobs.settings import PROJECT, Settings

_COMPONENTS = ("api-server", "scheduler --skip-serve-logs", "dag-processor")
_HEALTHY_WITHIN_S = 600
_POOLS = {
    "gpu": "training and inference: tasks that share a GPU, or the cores in its place",
    "spark": "aggregation: tasks that hold a JVM",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """What an Airflow keeps from one start to the next. Readable by its owner only."""

    port: int
    jwt_secret: str
    secret_key: str
    fernet_key: str

    @classmethod
    def of(cls, folder: Path) -> Self:
        """The identity kept in `folder`, made when there is none; another port if that is taken."""
        path = folder / "identity.json"
        if path.exists():
            identity = cls(**json.loads(path.read_text()))
            if _is_free(identity.port):
                return identity
            identity = replace(identity, port=_free_port())
        else:
            identity = cls(
                port=_free_port(),
                jwt_secret=secrets.token_urlsafe(48),
                secret_key=secrets.token_urlsafe(48),
                fernet_key=base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            )
        write_private(path, json.dumps(asdict(identity)))
        return identity


def ensure_password(folder: Path) -> None:
    """Write the login of `admin` where Airflow looks for it, unless there is one.

    Airflow would make one up by itself, and print it into the log of its API server.
    """
    path = folder / "passwords.json"
    if path.exists():
        path.chmod(0o600)
    else:
        write_private(path, json.dumps({"admin": secrets.token_urlsafe(16)}))


def is_running(settings: Settings) -> bool:
    """Whether any process of this home's Airflow is alive."""
    return bool(processes.marked(settings.home))


def start(settings: Settings) -> AirflowApi:
    """Start PostgreSQL and Airflow for this home; return once Airflow is healthy.

    Raises:
        InputError: Airflow's environment is not there.
        DermError: a component did not start.
    """
    python = settings.airflow_env / "bin" / "python"
    if not python.exists():
        raise InputError(
            "Airflow is not installed", where=str(settings.airflow_env), hint="make .venv-airflow"
        )
    folder = make_private(settings.paths.airflow)
    # Above it PostgreSQL's own user may have to get to its data: what tells is closed by itself.
    logs = make_private(folder / "logs")
    ensure_password(folder)
    identity = Identity.of(folder)
    database = _run(
        [python, "-W", "ignore", "-m", "jobs.services.postgres", "start", folder / "postgres"]
    )
    env = environment(settings, identity, database)
    _run([python, "-m", "airflow", "db", "migrate"], env)
    _start_warm_process(settings, env, logs)
    for component in _COMPONENTS:
        name, *flags = component.split()
        processes.spawn(
            [str(python), "-m", "airflow", name, *flags],
            home=settings.home,
            env=env,
            log=logs / f"{name}.log",
        )
    return _healthy(settings)


def _start_warm_process(settings: Settings, env: dict[str, str], logs: Path) -> None:
    """Start what tasks are copies of. Without it they begin slower, and nothing else changes."""
    python = settings.bin.with_name("python")
    if python.exists():
        # Its copies show their own command in place of its arguments, which leave room for it.
        command = [str(python), "-m", "jobs.cli.warm", "-" * 200]
        processes.spawn(command, home=settings.home, env=env, log=logs / "warm.log")


def connect(settings: Settings) -> AirflowApi:
    """Log in to the Airflow of this home that is running.

    Raises:
        Unreachable: none is.
    """
    folder = settings.paths.airflow
    identity, passwords = folder / "identity.json", folder / "passwords.json"
    if not (identity.exists() and passwords.exists()):
        raise Unreachable("Airflow was never started", where=str(folder), hint="make up")
    port = json.loads(identity.read_text())["port"]
    password = json.loads(passwords.read_text())["admin"]
    return AirflowApi.login(f"http://127.0.0.1:{port}", "admin", password)


def stop(settings: Settings) -> None:
    """Stop Airflow, whatever its tasks are running, and PostgreSQL."""
    processes.stop(settings.home)
    python, data = (
        settings.airflow_env / "bin" / "python",
        settings.paths.postgres,
    )
    if not (data / "postmaster.pid").exists():
        return
    if python.exists():
        _run([python, "-W", "ignore", "-m", "jobs.services.postgres", "stop", data])
    else:
        processes.interrupt(data / "postmaster.pid", "postgres")


def environment(settings: Settings, identity: Identity, database: str) -> dict[str, str]:
    """Environment of Airflow's processes, and so of the tasks they start."""
    url = f"http://127.0.0.1:{identity.port}"
    folder = settings.paths.airflow
    return {
        **os.environ,
        "PYTHONPATH": str(PROJECT),
        "DERM_HOME": str(settings.home),
        "DERM_LAST_DS": settings.last_ds,
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW_CONFIG": str(PROJECT / "infra" / "airflow.cfg"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "infra" / "airflow" / "plugins"),
        "AIRFLOW__CORE__PARALLELISM": str(settings.task_slots),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(folder / "passwords.json"),
        "AIRFLOW__CORE__FERNET_KEY": identity.fernet_key,
        "AIRFLOW__API__PORT": str(identity.port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__SECRET_KEY": identity.secret_key,
        "AIRFLOW__API_AUTH__JWT_SECRET": identity.jwt_secret,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
        **metrics_environment(settings.airflow_metrics),
    }


def metrics_environment(target: str) -> dict[str, str]:
    """What makes Airflow send its own metrics to `statsd://host:port` or `otlp://host:port`."""
    if not target:
        return {}
    url = urllib.parse.urlsplit(target)
    if url.scheme == "statsd":
        return {
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": str(url.hostname),
            "AIRFLOW__METRICS__STATSD_PORT": str(url.port),
        }
    return {
        "AIRFLOW__METRICS__OTEL_ON": "True",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{url.netloc}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_SERVICE_NAME": "derm-airflow",
    }


def _healthy(settings: Settings) -> AirflowApi:
    """Wait until every component is healthy, then set up what the DAGs lean on."""
    deadline = time.monotonic() + _HEALTHY_WITHIN_S
    found = "no answer"
    while time.monotonic() < deadline:
        try:
            api = connect(settings)
            found = ", ".join(api.unhealthy())
            if not found:
                _size_pools(api, settings)
                return api
        except (Unreachable, json.JSONDecodeError) as error:
            found = str(error)
        time.sleep(0.5)
    raise DermError(
        f"Airflow is not healthy after {_HEALTHY_WITHIN_S} s",
        where=str(settings.paths.airflow / "logs"),
        expected="api-server, scheduler and dag-processor alive",
        found=found,
        hint="read the last lines of the logs there",
    )


def _size_pools(api: AirflowApi, settings: Settings) -> None:
    slots = {"gpu": settings.gpu_slots, "spark": settings.spark_slots}
    for name, description in _POOLS.items():
        api.set_pool(name, slots[name], description)


def _run(command: list[str | Path], env: dict[str, str] | None = None) -> str:
    """Run a program of Airflow's environment to its end; return what it printed."""
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, "PYTHONPATH": str(PROJECT)} if env is None else env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    if done.returncode:
        raise DermError(
            "a service could not be started or stopped",
            where=" ".join(map(str, command)),
            expected="exit code 0",
            found=f"exit code {done.returncode}\n{done.stderr[-2000:]}",
        )
    return done.stdout.strip()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""The services of docker-compose.yml as processes on loopback, kept up as containers would be.

python -m tests.cluster.native HOME      # until Ctrl-C
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from jobs.services import processes
from jobs.services.airflow_api import AirflowApi, Unreachable
from jobs.services.redis_program import server_program
from tests.cluster import objects, postgres
from tests.cluster.compose import Compose, Process

SERVICE = "DERM_TEST_SERVICE"

_READY_WITHIN_S = 180
_SUPERVISE_EVERY_S = 1.0


class Cluster:
    """Running services of one compose file.

    A service that dies is started again with everything it left behind ended, which is what
    `restart: unless-stopped` does to a container.
    """

    def __init__(self, compose: Compose) -> None:
        self.compose = compose
        self.logs = compose.folder / "logs"
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._declared = {p.name: p for p in compose.processes()}
        self._stopping = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)

    def start(self, before: Callable[[], None]) -> AirflowApi:
        """Start every service in the order of its dependencies; return once Airflow answers.

        Args:
            before: what an operator does in place of `worker-cpu`, with what compose starts for
                it: make the home.
        """
        for folder in (self.compose.home, self.compose.folder / "airflow", self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        self.compose.folder.chmod(0o711)  # PostgreSQL's own user has to get to its data
        first = self.compose.before("worker-cpu")
        later = [p for p in self._declared.values() if _service(p.name) not in first]
        for process in self._declared.values():
            if process not in later:
                self._bring_up(process)
        before()
        for process in later:
            self._bring_up(process)
        self._supervisor.start()
        return self._api()

    def _bring_up(self, process: Process) -> None:
        self._start(process)
        if process.once:
            code = self._running.pop(process.name).wait()
            assert code == 0, f"{process.name}: exit code {code}, see {self.logs}"
        elif self.compose.awaited(_service(process.name)):
            self.await_health(process.name)

    def stop(self) -> None:
        """End every process of every service."""
        self._stopping.set()
        if self._supervisor.is_alive():
            self._supervisor.join()
        processes.stop(self.compose.home)
        for process in self._running.values():
            # A server that renames itself hides its mark: Redis.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def kill(self, service: str) -> int:
        """Take a whole container away at once; how many processes that were."""
        mine = self.members(service)
        for process in mine:
            process.send_signal(signal.SIGKILL)
        return len(mine)

    def members(self, service: str) -> list[psutil.Process]:
        """The processes of one service."""
        found = [psutil.Process(self._running[service].pid)] if self._alive(service) else []
        for process in processes.marked(self.compose.home):
            try:
                if process.environ().get(SERVICE) == service and process not in found:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def _alive(self, service: str) -> bool:
        return service in self._running and self._running[service].poll() is None

    def await_health(self, service: str) -> None:
        """Wait until the health check of the compose file passes."""
        process, deadline = self._declared[service], time.monotonic() + _READY_WITHIN_S
        while True:
            check = objects.health(process) if service == "objects" else process.healthcheck
            done = subprocess.run(
                self._found(check, process.environment),
                env=self._environment(process),
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode == 0:
                return
            assert time.monotonic() < deadline, f"{service}: {done.stdout}{done.stderr}"
            time.sleep(0.3)

    def checked(self) -> list[str]:
        """The services that have a health check."""
        return [p.name for p in self._declared.values() if p.healthcheck]

    def _start(self, process: Process) -> None:
        command = process.command
        if process.name == "postgres":
            data = self.compose.folder / "postgres"
            command = postgres.command(process, data, self.compose.address("postgres"))
        if process.name.startswith("objects"):
            command = objects.command(process, self.compose.address("objects"))
        with (self.logs / f"{process.name}.log").open("ab") as log:
            self._running[process.name] = subprocess.Popen(
                self._found(command, process.environment),
                env=self._environment(process),
                cwd=self.compose.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _supervise(self) -> None:
        while not self._stopping.wait(_SUPERVISE_EVERY_S):
            for name, process in list(self._running.items()):
                if process.poll() is not None and not self._stopping.is_set():
                    self.kill(name)
                    self._start(self._declared[name])

    def _environment(self, process: Process) -> dict[str, str]:
        marks = {processes.MARK: str(self.compose.home), SERVICE: process.name, "SPT_NOENV": "1"}
        path = _path(process.environment)
        return {**_arithmetic(), **process.environment, **marks, "PATH": path}

    def _found(self, command: Sequence[str], env: Mapping[str, str]) -> list[str]:
        program = shutil.which(command[0], path=_path(env))
        assert program, f"{command[0]} is not on {_path(env)}"
        return [program, *command[1:]]

    def _api(self) -> AirflowApi:
        file = self.compose.folder / "airflow" / "passwords.json"
        deadline = time.monotonic() + _READY_WITHIN_S
        while True:
            try:
                api = AirflowApi.login(self.compose.url, "admin", _password(file))
                if not (sick := api.unhealthy()):
                    return api
            except Unreachable as error:
                sick = (repr(error),)
            assert time.monotonic() < deadline, f"Airflow is not healthy: {sick}, see {self.logs}"
            time.sleep(0.5)


def _arithmetic() -> dict[str, str]:
    """Which kernels this machine's programs compute with: last bits depend on them."""
    return {k: v for k, v in os.environ.items() if k.startswith(("OPENBLAS_", "MKL_", "NVPL_"))}


@contextmanager
def running(
    compose: Compose, before: Callable[[], None] = lambda: None
) -> Iterator[tuple[Cluster, AirflowApi]]:
    """The services for as long as the block lasts; this process finds their lake as they do."""
    cluster = Cluster(compose)
    told = {k: v for k, v in compose.lake_environment.items() if k.startswith("AWS_")}
    was = dict(os.environ)
    os.environ.update(told)
    try:
        yield cluster, cluster.start(before)
    finally:
        cluster.stop()
        for name in told:
            os.environ.pop(name)
        os.environ.update(was)


def _service(process: str) -> str:
    """The service that a process, which may be a replica, belongs to."""
    return process.partition(".")[0]


def _password(file: Path) -> str:
    return str(json.loads(file.read_text())["admin"])


def _path(environment: Mapping[str, str]) -> str:
    """The image's PATH, and this machine's folders of what the other images hold."""
    programs = [str(p) for p in (server_program().parent, postgres.programs())]
    return ":".join([environment.get("PATH", "/usr/bin:/bin"), *programs])


def main(home: str) -> int:
    """Keep the cluster of a home up until Ctrl-C."""
    folder = Path(tempfile.mkdtemp(prefix="derm-cluster-"))
    with running(Compose(Path(home).resolve(), folder)) as (cluster, api):
        sys.stdout.write(f"{api.url}  {api.user} / {api.password}, logs in {cluster.logs}\n")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))

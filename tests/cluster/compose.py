"""docker-compose.yml read as processes of this machine: the same commands, variables and ports.

Every service has a loopback address of its own in place of its network name, and folders of this
machine in place of the image's. What a container gives for nothing is added, and nothing else: see
`_isolated`.
"""

import random
import re
import runpy
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyspark
import yaml

from jobs.settings import PROJECT

COMPOSE = PROJECT / "docker-compose.yml"
DOCKERFILE = PROJECT / "infra" / "docker" / "Dockerfile"

# Other people's programs that the pipeline does not need in order to run.
LEFT_OUT = ("node-exporter", "prometheus", "alertmanager", "grafana")
# No machine is asked to have a GPU for this.
_EVERYWHERE = {"DERM_DEVICE": "cpu"}


@dataclass(frozen=True, kw_only=True)
class Process:
    """One container as a process: what it runs, with what around it, and how its health is seen."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    healthcheck: tuple[str, ...] = ()
    once: bool = False


@dataclass(frozen=True)
class Compose:
    """The compose file, with the places where it is to run.

    Attributes:
        home: in place of the volume `home`.
        folder: in place of the other volumes; the generated secrets are there too.
        extra: variables of the operator's own, given to every service of ours.
    """

    home: Path
    folder: Path
    extra: tuple[tuple[str, str], ...] = ()

    @cached_property
    def services(self) -> dict[str, Any]:
        """The services that run, as the file declares them."""
        every = yaml.safe_load(COMPOSE.read_text())["services"]
        return {name: s for name, s in every.items() if name not in LEFT_OUT}

    @cached_property
    def secrets(self) -> dict[str, str]:
        """What `make secrets` writes."""
        target = self.folder / ".env"
        target.parent.mkdir(parents=True, exist_ok=True)
        script = runpy.run_path(str(PROJECT / "infra" / "make_secrets.py"))
        assert script["main"](str(COMPOSE), str(target)) == 0
        return dict(line.split("=", 1) for line in target.read_text().splitlines())

    @cached_property
    def _net(self) -> str:
        # Another one for every folder: two of them may run at once, on the same ports.
        draw = random.Random(str(self.folder))
        return f"127.{draw.randint(16, 250)}.{draw.randint(0, 250)}"

    def address(self, service: str, replica: int = 0) -> str:
        """Loopback address of a service, or of one of its replicas."""
        return f"{self._net}.{10 * (1 + list(self.services).index(service)) + replica}"

    @property
    def store_url(self) -> str:
        """The online store, as the services are told."""
        return self._told("DERM_REDIS_URL")

    @property
    def lake_environment(self) -> dict[str, str]:
        """How the services are told where the lake is."""
        given = self.services["worker-cpu"]["environment"]
        wanted = ("DERM_LAKE", *(name for name in given if name.startswith("AWS_")))
        return {name: self._told(name) for name in wanted}

    @property
    def spark_environment(self) -> dict[str, str]:
        """How a command in place of `worker-cpu` finds Spark, and Spark finds it."""
        own = _around(self.address("worker-cpu"))["SPARK_LOCAL_IP"]
        told = {name: self._told(name) for name in ("DERM_ENGINE", "DERM_SPARK_MASTER")}
        return {**told, "SPARK_LOCAL_IP": own}

    def _told(self, variable: str) -> str:
        given = self.services["worker-cpu"]["environment"][variable]
        return self.translated(given, self.address("worker-cpu"))

    def before(self, service: str) -> set[str]:
        """The services that compose starts before it, because it needs them."""
        needs = set(self.services[service].get("depends_on", ()))
        return needs.union(*map(self.before, needs))

    def awaited(self, service: str) -> bool:
        """Whether another service starts only once this one is healthy."""
        every = [s.get("depends_on", {}).get(service, {}) for s in self.services.values()]
        return any(how.get("condition") == "service_healthy" for how in every)

    @property
    def url(self) -> str:
        """Where Airflow answers."""
        return f"http://{self.address('airflow-api-server')}:8080"

    def processes(self) -> list[Process]:
        """Every service, replicas apart, in an order in which they can be started."""
        found = [
            self._process(name, replica)
            for name, service in self.services.items()
            for replica in range(service.get("deploy", {}).get("replicas", 1))
        ]
        return sorted(found, key=lambda p: (self._depth(p.name.split(".")[0]), p.name))

    def _depth(self, name: str) -> int:
        needs = self.services[name].get("depends_on", ())
        return 1 + max((self._depth(n) for n in needs), default=0)

    def _process(self, name: str, replica: int) -> Process:
        service, address = self.services[name], self.address(name, replica)
        variables = {**self._image(), **service.get("environment", {})}
        environment = {k: self.translated(str(v), address) for k, v in variables.items()}
        if service["image"].startswith("derm:"):
            environment |= {**_EVERYWHERE, **dict(self.extra)}
        command = tuple(self.translated(w, address) for w in service.get("command", ()))
        health = service.get("healthcheck", {}).get("test", [])
        checked = [
            self.translated(word, address).replace("redis-cli ", f"redis-cli -h {address} ")
            for word in health[1:]
        ]
        return Process(
            name=f"{name}.{replica}" if replica else name,
            command=_isolated(name, command, address),
            environment={**environment, **_around(address)},
            healthcheck=tuple(["sh", "-c", *checked] if health[:1] == ["CMD-SHELL"] else checked),
            once=service.get("restart") == "no",
        )

    def translated(self, text: str, own: str) -> str:
        """Secrets filled in, network names as addresses, the image's folders as this machine's."""
        text = re.sub(r"\$\{(\w+):\?[^}]*\}", lambda m: self.secrets[m[1]], text)
        text = re.sub(r"\$\{(\w+):-([^}]*)\}", r"\2", text).replace("$$", "$")
        for name in sorted(self.services, key=len, reverse=True):
            text = re.sub(rf"(?<=[@/ ]){name}(?=[:/ ])", self.address(name), text)
        text = re.sub(r"0\.0\.0\.0|localhost", own, text)
        # The published port of the UI.
        text = text.replace("127.0.0.1:8080", f"{self.address('airflow-api-server')}:8080")
        for image, here in self._folders().items():
            text = text.replace(image, here)
        return text

    def _folders(self) -> dict[str, str]:
        return {
            "/opt/derm/.venv/lib/python3.11/site-packages/pyspark": str(
                Path(pyspark.__file__).parent
            ),
            "/opt/derm": str(PROJECT),
            "/var/lib/derm": str(self.home),
            "/tmp/spark-work": str(self.folder / "spark-work"),  # noqa: S108
            "/var/lib/airflow": str(self.folder / "airflow"),
        }

    def _image(self) -> dict[str, str]:
        """The variables that the image sets."""
        block = re.search(r"^ENV (.*?[^\\])$", DOCKERFILE.read_text(), re.DOTALL | re.MULTILINE)
        assert block
        return dict(w.split("=", 1) for w in block[1].replace("\\\n", " ").split())


def _isolated(name: str, command: tuple[str, ...], address: str) -> tuple[str, ...]:
    """A container has its network for itself: a server that listens everywhere listens here."""
    if name in ("broker", "store"):
        return (
            *command[:-1],
            command[-1].replace("redis-server -", f"redis-server - --bind {address}"),
        )
    return command


def _around(address: str) -> dict[str, str]:
    """What the name of the container, and the programs inside its image, are to others."""
    return {
        "HOSTNAME": socket.gethostname(),
        "SPARK_LOCAL_IP": address,
        "PGHOST": address,
        "HOME": str(Path.home()),
    }

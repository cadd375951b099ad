"""The cluster profile names only things that exist."""

import itertools
import json
import re
import runpy
import shlex
import stat
import subprocess
import zipfile
from pathlib import Path

import pyspark
import pytest
import yaml

from jobs.pipelines.daily import STEPS
from jobs.services.airflow import _POOLS
from jobs.settings import Settings
from tests.cluster.compose import Compose

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = (ROOT / "infra/docker/Dockerfile").read_text()
SERVICES = yaml.safe_load(COMPOSE.read_text())["services"]
OURS = {n: s for n, s in SERVICES.items() if s["image"].startswith("derm:")}
# Where the programs of other images listen unless they are told otherwise.
_DEFAULT_PORTS = {"postgres": {5432}, "broker": {6379}, "store": {6379}, "node-exporter": {9100}}
_DEFAULT_PORTS |= {"prometheus": {9090}, "grafana": {3000}, "objects": {9000}}
_DEFAULT_PORTS |= {"alertmanager": {9093}}
PROMETHEUS = ROOT / "infra/prometheus/prometheus.yml"


def test_every_image_is_pinned_to_a_patch_version() -> None:
    for name, service in SERVICES.items():
        # MinIO numbers its releases by the second they were made.
        version = r"(v?\d+\.\d+[\w.-]*|RELEASE\.[\dTZ-]+)"
        assert re.fullmatch(rf"[\w./-]+:{version}", service["image"]), name


def test_each_of_our_images_is_built_by_one_service_from_what_is_there() -> None:
    built = {n: s["build"] for n, s in SERVICES.items() if "build" in s}
    images = [SERVICES[name]["image"] for name in built]
    assert sorted(images) == sorted({s["image"] for s in OURS.values()})
    for how in built.values():
        assert (ROOT / how["context"]).resolve() == ROOT
        dockerfile = (ROOT / how["context"] / how["dockerfile"]).read_text()
        assert set(how.get("args", ())) <= set(re.findall(r"^ARG (\w+)", dockerfile, re.MULTILINE))
        assert "target" not in how
    # Only the GPU's image carries CUDA.
    for name, how in built.items():
        assert ("TORCH_EXTRA_INDEX" in how.get("args", ())) != SERVICES[name]["image"].endswith(
            "-gpu"
        )


def test_the_image_for_cpus_leaves_cuda_out() -> None:
    pattern = re.search(r'grep -vE "(\S+)"', DOCKERFILE)
    assert pattern
    script = f'grep -vE "{pattern[1]}" requirements/jobs.lock'
    kept = {
        index: subprocess.run(
            ["/bin/sh", "-c", script],
            env={"PATH": "/usr/bin:/bin", "TORCH_EXTRA_INDEX": index},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for index in ("", "https://index")
    }
    every = (ROOT / "requirements/jobs.lock").read_text().splitlines()
    assert kept[""] == every
    left_out = {line.split("==")[0] for line in set(every) - set(kept["https://index"])}
    assert {"triton", "cuda-toolkit", "nvidia-cublas"} <= left_out
    assert all(re.match(r"triton$|cuda-|nvidia-", name) for name in left_out)


def test_no_password_is_written_down() -> None:
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if re.search(r"(PASSWORD|SECRET|KEY|AUTH)$", variable) or "@" in str(value):
                assert "${" in value, (name, variable)


@pytest.mark.parametrize("name", SERVICES)
def test_no_command_or_health_check_has_a_secret_among_its_arguments(name: str) -> None:
    service = SERVICES[name]
    holding = {v for v, text in service.get("environment", {}).items() if "${" in str(text)}
    holding -= {"DERM_LAST_DS"}
    lines = [
        *service.get("entrypoint", []),
        *service.get("command", []),
        *service.get("healthcheck", {}).get("test", []),
    ]
    for line in lines:
        # What a shell hands over in a here-document is nobody's argument.
        arguments = re.sub(r"<<END\n.*?^END$", "", line, flags=re.DOTALL | re.MULTILINE)
        assert holding & set(re.findall(r"\w+", arguments)) == set(), line
        assert "${" not in arguments


@pytest.mark.parametrize("name", [n for n, s in SERVICES.items() if s["restart"] != "no"])
def test_a_service_that_stays_has_a_health_check(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] in ("CMD", "CMD-SHELL")
    assert {"interval", "timeout", "retries"} <= set(check)


def test_a_health_check_asks_a_port_on_which_its_own_service_listens() -> None:
    asked = {
        name: re.findall(r"localhost:(\d+)", " ".join(s["healthcheck"]["test"]))
        for name, s in SERVICES.items()
        if "healthcheck" in s
    }
    assert sum(map(len, asked.values())) >= 7
    for name, ports in asked.items():
        assert not ports or set(map(int, ports)) <= listens(name), name


@pytest.mark.parametrize("queue", ["cpu", "gpu"])
def test_a_worker_is_asked_by_its_own_name(queue: str) -> None:
    worker = SERVICES[f"worker-{queue}"]
    assert f"{queue}@%h" in worker["command"]
    assert f"{queue}@$$HOSTNAME" in worker["healthcheck"]["test"][1]


def test_alerts_reach_people() -> None:
    targets = yaml.safe_load(PROMETHEUS.read_text())["alerting"]["alertmanagers"]
    assert targets == [{"static_configs": [{"targets": ["alertmanager:9093"]}]}]
    service = SERVICES["alertmanager"]
    told = yaml.safe_load((ROOT / "infra/alertmanager/alertmanager.yml").read_text())
    receivers = {r["name"]: r for r in told["receivers"]}
    routes = [told["route"], *told["route"]["routes"]]
    assert {r["receiver"] for r in routes} == set(receivers)
    (webhook,) = receivers["people"]["webhook_configs"]
    assert f"cat > {webhook['url_file']} <<END\n$$DERM_ALERT_WEBHOOK\nEND" in service["command"][0]
    assert "--config.file=/etc/alertmanager/alertmanager.yml" in service["command"][0]
    assert "./infra/alertmanager:/etc/alertmanager:ro" in service["volumes"]
    assert "ports" not in service


def test_numbers_are_kept_as_long_as_the_dashboard_looks_back() -> None:
    """Kept for 15 days, by default, half of its 30 days would be empty."""
    (kept,) = re.findall(r"retention\.time=(\d+)d", " ".join(SERVICES["prometheus"]["command"]))
    dashboard = json.loads((ROOT / "infra/grafana/dashboards/derm.json").read_text())
    asked = re.fullmatch(r"now-(\d+)d", dashboard["time"]["from"])
    assert asked
    assert int(kept) >= int(asked[1])


def test_the_history_of_the_documentation_runs_with_what_compose_starts_for_it(
    tmp_path: Path,
) -> None:
    guide = (ROOT / "docs/cluster.md").read_text()
    call = re.search(r"docker compose run --rm ([\w-]+) derm run .*--steps (\S+)", guide)
    assert call
    assert set(call[2].split(",")) <= {s.name for s in STEPS}
    started = Compose(tmp_path / "home", tmp_path).before(call[1])
    assert {"objects", "objects-bucket", "spark-master", "spark-worker"} <= started


def test_ports_are_published_on_loopback_only() -> None:
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), (name, port)


@pytest.mark.parametrize("name", OURS)
def test_settings_that_a_service_sets_exist(name: str) -> None:
    known = {f"DERM_{field.upper()}" for field in Settings.model_fields} | {"DERM_BIN"}
    given = {v for v in OURS[name].get("environment", {}) if v.startswith("DERM_")}
    assert given <= known


def test_volumes_and_dependencies_are_declared() -> None:
    declared = yaml.safe_load(COMPOSE.read_text())["volumes"]
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in declared or (ROOT / source).exists(), (name, volume)
        assert set(service.get("depends_on", {})) <= set(SERVICES), name


def test_queues_are_those_of_the_catalog() -> None:
    commands = [shlex.join(s["command"]) for s in OURS.values()]
    served = {q for c in commands for q in re.findall(r"--queues (\w+)", c)}
    assert served == {"cpu", "gpu"}


def test_the_pools_that_tasks_ask_for_are_made() -> None:
    command = shlex.join(OURS["airflow-migrate"]["command"])
    assert set(re.findall(r"airflow pools set (\w+)", command)) == set(_POOLS)


def test_every_host_and_port_that_is_named_is_a_service_that_listens_there() -> None:
    named = [
        (host, int(port))
        for text in (COMPOSE.read_text(), PROMETHEUS.read_text())
        for host, port in re.findall(r"(?<=[@/\"])([a-z][a-z-]+):(\d{4,5})\b", text)
        if host != "localhost"
    ]
    assert len(named) >= 5
    for host, port in named:
        assert port in listens(host), f"{host}:{port}"


def test_published_ports_are_those_the_service_listens_on() -> None:
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            assert int(port.split(":")[-1]) in listens(name), (name, port)


def listens(service: str) -> set[int]:
    """Ports of a service: those its command names, else those of its program."""
    words = [word for part in SERVICES[service].get("command", []) for word in part.split()]
    flags = {"--port", "--webui-port"}
    given = {int(b) for a, b in itertools.pairwise(words) if a in flags}
    return given or _DEFAULT_PORTS[service]


def test_networks_dependencies_and_conditions_hold() -> None:
    networks = yaml.safe_load(COMPOSE.read_text())["networks"]
    for name, service in SERVICES.items():
        assert set(service["networks"]) <= set(networks), name
        needs = service.get("depends_on", {})
        for other, how in needs.items() if isinstance(needs, dict) else ():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], (name, other)
            else:
                assert SERVICES[other]["restart"] == "no", (name, other)


def test_paths_of_the_image_are_copied_into_it() -> None:
    copied = set(re.findall(r"^COPY [\w/.-]+ ([\w/.-]+)$", DOCKERFILE, re.MULTILINE))
    named = set(re.findall(r"/opt/derm/([\w/.-]+)", COMPOSE.read_text() + DOCKERFILE))
    for path in {p for p in named if not p.startswith(".venv")}:
        assert (ROOT / path).exists(), path
        assert any(f"{path}/".startswith(f"{c.rstrip('/')}/") for c in copied), path


def test_what_a_service_writes_is_a_volume_or_temporary() -> None:
    """The image's folders belong to root, its processes do not."""
    text = COMPOSE.read_text() + DOCKERFILE.split("USER derm")[1]
    written = re.findall(r"(?:DERM_HOME|AIRFLOW_HOME|SPARK_WORKER_DIR)[=:] *(/[\w/.-]+)", text)
    mounted = {v.split(":")[1] for s in OURS.values() for v in s.get("volumes", [])}
    assert len(written) >= 3
    for path in written:
        assert path in mounted or path.startswith("/tmp/"), path  # noqa: S108


def test_spark_programs_exist() -> None:
    text = COMPOSE.read_text()
    jars = Path(pyspark.__file__).parent / "jars"
    with zipfile.ZipFile(next(jars.glob("spark-core_*.jar"))) as core:
        names = set(core.namelist())
    classes = re.findall(r"spark-class\\?\" ([\w.]+)", text)
    assert len(classes) == 2
    for name in classes:
        assert f"{name.replace('.', '/')}.class" in names
    assert (Path(pyspark.__file__).parent / "bin" / "spark-class").exists()


@pytest.mark.parametrize("path", re.findall(r"^COPY ([\w/.-]+) ", DOCKERFILE, re.MULTILINE))
def test_the_image_copies_files_that_exist(path: str) -> None:
    assert (ROOT / path).exists()


def test_the_guide_to_kubernetes_names_every_variable_that_holds_a_secret() -> None:
    guide = (ROOT / "docs/kubernetes.md").read_text()
    listed = re.search(r"^`derm-urls` holds (.*?)`derm` holds", guide, re.DOTALL | re.MULTILINE)
    assert listed
    given = OURS["airflow-scheduler"]["environment"]
    secret = {v for v, text in given.items() if "${" in str(text)} - {"DERM_LAST_DS"}
    without = {v for v in secret if not v.startswith("AIRFLOW__CELERY__")}
    assert set(re.findall(r"`([A-Z][A-Z_]+)`", listed[1])) == without


def test_the_image_made_for_kubernetes_installs_as_root_and_runs_as_derm() -> None:
    guide = (ROOT / "docs/kubernetes.md").read_text()
    block = re.search(r"^FROM derm:.*?^```", guide, re.DOTALL | re.MULTILINE)
    assert block
    assert re.findall(r"^(USER \w+|RUN|COPY)", block[0], re.MULTILINE) == [
        "USER root",
        "RUN",
        "COPY",
        "COPY",
        "USER derm",
    ]


def test_secrets_cover_the_compose_file_and_are_kept(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "infra/make_secrets.py"))
    target = tmp_path / ".env"
    assert script["main"](str(COMPOSE), str(target)) == 0
    first = target.read_text()
    names = {line.split("=", 1)[0] for line in first.splitlines()}
    values = [line.split("=", 1)[1] for line in first.splitlines()]
    assert names == set(re.findall(r"\$\{(\w+):\?", COMPOSE.read_text()))
    assert len(set(values)) == len(values)
    assert all(len(v) == 44 for v in values)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    script["main"](str(COMPOSE), str(target))
    assert target.read_text() == first


def test_the_command_that_makes_secrets_exists_and_git_ignores_them() -> None:
    assert "infra/make_secrets.py docker-compose.yml .env" in (ROOT / "Makefile").read_text()
    assert "/.env" in (ROOT / ".gitignore").read_text().splitlines()

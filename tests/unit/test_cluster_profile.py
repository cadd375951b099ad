"""The cluster profile names only things that exist."""

import re
import runpy
import shlex
import stat
from pathlib import Path

import pytest
import yaml

from jobs.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = (ROOT / "infra/docker/Dockerfile").read_text()
SERVICES = yaml.safe_load(COMPOSE.read_text())["services"]
OURS = {n: s for n, s in SERVICES.items() if s["image"].startswith("derm:")}


def test_every_image_is_pinned_to_a_patch_version() -> None:
    for name, service in SERVICES.items():
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+[\w.-]*", service["image"]), name


def test_no_password_is_written_down() -> None:
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|FERNET|://\S*:\S*@", f"{variable} {value}"):
                assert "${" in value, (name, variable)


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


@pytest.mark.parametrize("path", re.findall(r"^COPY ([\w/.-]+) ", DOCKERFILE, re.MULTILINE))
def test_the_image_copies_files_that_exist(path: str) -> None:
    assert (ROOT / path).exists()


def test_secrets_cover_the_compose_file_and_are_kept(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "infra/make_secrets.py"))
    target = tmp_path / ".env"
    assert script["main"](str(COMPOSE), str(target)) == 0
    first = target.read_text()
    names = {line.split("=", 1)[0] for line in first.splitlines()}
    values = [line.split("=", 1)[1] for line in first.splitlines()]
    assert names == set(re.findall(r"\$\{(\w+)", COMPOSE.read_text()))
    assert len(set(values)) == len(values)
    assert all(len(v) == 44 for v in values)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    script["main"](str(COMPOSE), str(target))
    assert target.read_text() == first


def test_the_command_that_makes_secrets_exists_and_git_ignores_them() -> None:
    assert "infra/make_secrets.py docker-compose.yml .env" in (ROOT / "Makefile").read_text()
    assert "/.env" in (ROOT / ".gitignore").read_text().splitlines()

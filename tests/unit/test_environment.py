"""infra/environment.py: with uv or with pip, as pip is configured, CUDA where it is wanted."""

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from jobs.settings import PROJECT

SCRIPT = PROJECT / "infra" / "environment.py"
LOCK = "cuda-toolkit==13.0\nnumpy==2\nnvidia-cublas==13.1\ntiny==1.0\ntorch==2.13.0\ntriton==3.7\n"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("environment", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wheel(folder: Path, name: str, version: str) -> None:
    """A wheel of one empty module."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}.py", "")
        file.writestr(f"{info}/METADATA", metadata)
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")


@pytest.mark.parametrize(("build", "kept"), [("2.13.0+cpu", 3), ("2.13.0", 6)])
def test_cuda_is_left_out_where_torch_is_a_cpu_build(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: str, kept: int
) -> None:
    site = tmp_path / ".venv" / "lib" / "python3.11" / "site-packages"
    (site / f"torch-{build}.dist-info").mkdir(parents=True)
    (tmp_path / "jobs.lock").write_text(LOCK)
    monkeypatch.setattr(script, "_install", lambda *_: True)
    text = script._without_cuda(None, tmp_path / ".venv", tmp_path / "jobs.lock", tmp_path / "log")
    assert len(text.splitlines()) == kept
    assert "torch==2.13.0" in text


def test_uv_is_told_what_pip_is(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in os.environ if n.startswith("PIP_")]:
        monkeypatch.delenv(name)
    (tmp_path / "pip.conf").write_text("[global]\nextra-index-url = file:///a file:///b\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels")
    told = script._as_pip_is_told()
    assert {"--index=file:///a", "--index=file:///b", "--find-links=/wheels"} <= set(told)


def test_where_uv_fails_pip_does_it(tmp_path: Path) -> None:
    wheel(tmp_path, "tiny", "1.0")
    (tmp_path / "own.lock").write_text("tiny==1.0\n")
    failing = tmp_path / "bin" / "uv"
    failing.parent.mkdir()
    failing.write_text("#!/bin/sh\necho uv was asked >&2\nexit 1\n")
    failing.chmod(0o755)
    environment = {
        "PATH": f"{failing.parent}:/usr/bin:/bin",
        "PIP_FIND_LINKS": str(tmp_path),
        "PIP_NO_INDEX": "1",
    }
    for words in (["make", "env"], ["install", "env", "-r", str(tmp_path / "own.lock")]):
        subprocess.run(
            [sys.executable, str(SCRIPT), *words], cwd=tmp_path, env=environment, check=True
        )
    subprocess.run([str(tmp_path / "env" / "bin" / "python"), "-c", "import tiny"], check=True)
    assert "uv was asked" in (tmp_path / "env" / "install.log").read_text()

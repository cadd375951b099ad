"""Make a Python environment, or install into one, as fast as this machine allows.

    python infra/environment.py make .venv
    python infra/environment.py install .venv -r requirements/jobs.lock

With uv where it is on PATH, else with venv and pip. uv fetches and unpacks side by side, keeps what
it fetched for the next environment, and leaves bytecode to the first import. It is told what pip is
told (pip's configuration and variables). Where the torch that is to be had is a CPU build, CUDA's
libraries are left out: gigabytes that nothing would load.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_CUDA = re.compile(r"^(cuda|nvidia|triton)")
_PIP = ["--quiet", "--disable-pip-version-check", "--no-input"]


def main(action: str, folder: Path, arguments: list[str]) -> int:
    """Do it; what the tools say is kept in the folder, and shown when they fail."""
    uv = shutil.which("uv")
    if action == "make":
        shutil.rmtree(folder, ignore_errors=True)
        if not (uv and _run([uv, "venv", "--quiet", "--seed", "--python", sys.executable, folder])):
            return 0 if _run([sys.executable, "-m", "venv", "--clear", folder]) else 1
        return 0
    log = folder / "install.log"
    wanted = [Path(a) for a in arguments if a.endswith(".lock")]
    with tempfile.TemporaryDirectory() as scratch:
        for lock in wanted:
            chosen = Path(scratch) / lock.name
            chosen.write_text(_without_cuda(uv, folder, lock, log))
            arguments = [str(chosen) if a == str(lock) else a for a in arguments]
        done = _install(uv, folder, arguments, log)
    if not done:
        sys.stderr.write(log.read_text())
    return 0 if done else 1


def _without_cuda(uv: str | None, folder: Path, lock: Path, log: Path) -> str:
    """A lock's text, short of CUDA's libraries where torch is a CPU build; installs that torch."""
    text = lock.read_text()
    torch = re.search(r"^torch==\S+", text, re.MULTILINE)
    if torch is None or not _install(uv, folder, ["--no-deps", torch[0]], log):
        return text
    if not list(folder.glob("lib/python*/site-packages/torch-*+cpu.dist-info")):
        return text
    return "".join(line for line in text.splitlines(True) if not _CUDA.match(line))


def _install(uv: str | None, folder: Path, arguments: list[str], log: Path) -> bool:
    """Install with uv; where that fails, with pip."""
    python = folder / "bin" / "python"
    if uv and _run([uv, "pip", "install", "--python", python, *_as_pip_is_told(), *arguments], log):
        return True
    return _run([python, "-m", "pip", "install", *_PIP, *arguments], log)


def _as_pip_is_told() -> list[str]:
    """Where packages are, as pip's configuration says, in the words of uv."""
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    words = {"index-url": "--default-index", "extra-index-url": "--index"}
    words["find-links"] = "--find-links"
    found: dict[str, None] = {}
    for line in told.splitlines():
        name, _, value = line.partition("=")
        word = words.get(name.rpartition(".")[2])
        for place in ast.literal_eval(value).split() if word else ():
            found[f"{word}={place}"] = None
    # pip takes the best of all indexes; uv would take the first that has the package at all.
    return [*found, "--index-strategy=unsafe-best-match"]


def _run(command: list[str | Path], log: Path | None = None) -> bool:
    environment = dict(os.environ)
    if certificate := os.environ.get("PIP_CERT"):
        environment.setdefault("SSL_CERT_FILE", certificate)
    done = subprocess.run(
        [str(word) for word in command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if log:
        with log.open("a") as file:
            file.write(f"$ {' '.join(map(str, command))}\n{done.stdout}\n")
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))

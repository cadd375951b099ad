"""Files and folders that only their owner may read, from the moment they exist."""

import os
from pathlib import Path
from typing import BinaryIO


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

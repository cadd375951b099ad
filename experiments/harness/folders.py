"""Folders that go with what they belong to."""

import shutil
import tempfile
import weakref
from pathlib import Path


def folder_of(owner: object, prefix: str = "experiment-") -> Path:
    """A new folder, which is removed when its owner is."""
    path = Path(tempfile.mkdtemp(prefix=prefix))
    weakref.finalize(owner, shutil.rmtree, path, ignore_errors=True)
    return path

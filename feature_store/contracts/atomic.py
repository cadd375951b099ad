"""Files that are there whole, or as they were before."""

import os
from pathlib import Path


def write_atomic(path: Path, text: str) -> None:
    """Replace a file so that readers see the old or the new content, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    with draft.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)

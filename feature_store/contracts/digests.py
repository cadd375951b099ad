"""Ids that follow from their inputs."""

import hashlib
from pathlib import Path


def content_digest(*parts: str) -> str:
    """A short digest of strings; order and boundaries matter."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

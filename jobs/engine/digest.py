"""Ids that follow from their inputs."""

import hashlib


def content_digest(*parts: str) -> str:
    """A short digest of strings; order and boundaries matter."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]

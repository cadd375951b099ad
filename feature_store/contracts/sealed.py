"""Small JSON documents that know when somebody else has changed them.

A checksum is the last entry of the document, over all the others. One without a checksum is taken
as it is: it was written by hand, or came from where the store keeps it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from feature_store.contracts.errors import ManifestCorrupt

_KEY = "checksum"


def sealed(text: str) -> str:
    """A JSON document with a checksum."""
    document = json.loads(text)
    return json.dumps({**document, _KEY: _digest(document)}, indent=2, ensure_ascii=False) + "\n"


def unsealed(path: Path, *, hint: str = "") -> str:
    """What a file held before it was sealed.

    Raises:
        ManifestCorrupt: it was changed since.
        OSError, UnicodeDecodeError: it cannot be read.
    """
    text = path.read_text()
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        return text  # whoever knows what it should be says so
    if not isinstance(document, dict) or _KEY not in document:
        return text
    checksum = document.pop(_KEY)
    if checksum != (expected := _digest(document)):
        raise ManifestCorrupt(
            "a document is not the one that was written",
            where=str(path),
            expected=f"checksum {expected}",
            found=str(checksum),
            hint=hint,
        )
    return json.dumps(document)


def _digest(document: dict[str, Any]) -> str:
    ordered = json.dumps(document, sort_keys=True)
    return hashlib.sha256(ordered.encode()).hexdigest()[:32]

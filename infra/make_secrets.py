"""Write the cluster profile's passwords: every `${NAME:?...}` of docker-compose.yml, at random.

Existing values are kept, so that running it again never locks anyone out.

    python infra/make_secrets.py docker-compose.yml .env
"""

import base64
import os
import re
import secrets
import sys
from pathlib import Path

_REQUIRED = re.compile(r"\$\{(\w+):\?")


def required(compose: str) -> list[str]:
    """The variables a compose file refuses to start without, sorted."""
    return sorted(set(_REQUIRED.findall(compose)))


def complete(names: list[str], existing: dict[str, str]) -> dict[str, str]:
    """A value for each name: the existing one, or 256 random bits."""
    return {name: existing.get(name) or _generate() for name in names}


def _generate() -> str:
    # URL-safe base64 of 32 bytes: what Fernet wants, and safe inside connection URLs.
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def _read(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines() if path.exists() else []
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _write(path: Path, values: dict[str, str]) -> None:
    # Created with its final mode: there is no moment in which others could read it.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.writelines(f"{name}={value}\n" for name, value in values.items())
    path.chmod(0o600)


def main(compose: str, target: str) -> int:
    """Complete the secrets file, keeping what it holds."""
    path = Path(target)
    names = required(Path(compose).read_text())
    existing = _read(path)
    _write(path, {**existing, **complete(names, existing)})
    added = len(set(names) - set(existing))
    sys.stdout.write(f"{path}: {len(names)} secrets, {added} new\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))

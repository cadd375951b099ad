"""Which online store a home publishes to, in `releases/store`: host and database, no secrets.

A command in a shell that lacks DERM_REDIS_URL would start an embedded server, publish to it and
move `releases/current`, while the rankers go on reading the other store.
"""

import urllib.parse
from pathlib import Path

from feature_store.contracts.atomic import write_atomic
from feature_store.contracts.errors import InputError
from feature_store.online.codec import CURRENT_KEY
from feature_store.online.store import open_store
from jobs.paths import HomePaths
from jobs.settings import Settings

_EMBEDDED = "the embedded server"


def write(settings: Settings) -> None:
    """Record the store that this home has published to."""
    write_atomic(_path(settings.home), name(settings) + "\n")


def check(settings: Settings) -> None:
    """Compare the store that is configured with the one the home has published to, if it has.

    A store of another name that names the same release is the same one, or has taken its place.

    Raises:
        InputError: it is another store.
        StoreError: it has another name, and cannot be asked.
    """
    path = _path(settings.home)
    recorded = path.read_text().strip() if path.exists() else ""
    if not recorded or recorded == name(settings):
        return
    if url := settings.redis_url.get_secret_value():
        current = (path.parent / "current").read_text().strip()
        if open_store(url).get(CURRENT_KEY) == current.encode():
            return
    given = "DERM_REDIS_URL is" + (f" {name(settings)}" if url else " not set")
    wanted = "unset DERM_REDIS_URL" if recorded == _EMBEDDED else "set DERM_REDIS_URL to it"
    raise InputError(
        "this home publishes to another online store",
        where=str(path),
        expected=recorded,
        found=given,
        hint=f"{wanted}; to move on purpose: docs/publishing.md#another-store",
    )


def name(settings: Settings) -> str:
    """Scheme, host, port and path or database of the configured store."""
    configured = settings.redis_url.get_secret_value()
    if not configured:
        return _EMBEDDED
    url = urllib.parse.urlsplit(configured)
    host = f"{url.hostname or ''}" + (f":{url.port}" if url.port else "")
    database = urllib.parse.parse_qs(url.query).get("db")
    return f"{url.scheme}://{host}{url.path}" + (f"?db={database[0]}" if database else "")


def _path(home: Path) -> Path:
    return HomePaths(home).store_record

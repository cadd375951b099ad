"""The address of an online store, checked before anything is parsed out of it.

Where a URL is malformed nobody knows which part of it is the password: no part is ever shown.
"""

import re
import urllib.parse

from feature_store.contracts.errors import InputError

SCHEMES = ("redis", "rediss", "unix", "file")


def check_address(url: str) -> str:
    """Return `url` unchanged when it is the address of a store.

    Raises:
        InputError: it is not; the error says which rule it breaks, and nothing of what it holds.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES:
        raise _malformed("a URL that begins with " + ", ".join(f"{s}://" for s in SCHEMES))
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if scheme in ("redis", "rediss") and "@" in rest[len(authority) :]:
        # For every parser the password ended at that character, and the rest of it is a path.
        raise _malformed("/, ? and # of user and password written as %2F, %3F and %23")
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        raise _malformed("host or host:port after user and password") from None
    if scheme in ("redis", "rediss"):
        if not parts.hostname or port == 0:
            raise _malformed("a host, and a port from 1 to 65535")
        if parts.path.strip("/") and not parts.path.strip("/").isdecimal():
            raise _malformed("nothing behind the host but the number of a database")
    elif not parts.path or not (authority == "" or (scheme == "unix" and authority[-1] == "@")):
        raise _malformed(f"an absolute path: {scheme}:///a/path")
    return url


def _malformed(expected: str) -> InputError:
    return InputError(
        "the address of the online store is malformed",
        where="DERM_REDIS_URL",
        expected=expected,
        found="something else, which is not shown: it may hold a password",
        hint="redis://user:password@host:6379/0, rediss:// for TLS",
    )

"""An S3-compatible store in place of MinIO's image: a package in an environment of its own."""

import sys
import urllib.parse

from jobs.settings import PROJECT
from tests.cluster.compose import Process

MOTO = PROJECT / ".venv-s3" / "bin" / "moto_server"

_MAKE_BUCKET = """
import sys, pyarrow.fs as fs
store = fs.S3FileSystem(endpoint_override=sys.argv[1], access_key="derm", secret_key="any",
                        region="us-east-1", allow_bucket_creation=True)
store.create_dir(sys.argv[2])
"""
_ASK = "import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=5)"


def command(process: Process, address: str) -> tuple[str, ...]:
    """The server, or what makes its bucket, in place of the image's program."""
    if process.name == "objects":
        return (str(MOTO), "-H", address, "-p", "9000")
    place = urllib.parse.urlsplit(process.environment["MC_HOST_objects"])
    url, bucket = f"http://{place.hostname}:{place.port}", process.command[-1].split("/")[-1]
    return (sys.executable, "-c", _MAKE_BUCKET, url, bucket)


def health(process: Process) -> tuple[str, ...]:
    """In place of `mc ready`: does it answer?"""
    return (sys.executable, "-c", _ASK, f"http://{process.environment['PGHOST']}:9000")

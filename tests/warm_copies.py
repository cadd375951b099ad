"""A process that has imported what commands import, and runs each that it is told in a copy.

As the warm process of a home does it for Airflow (`jobs/cli/warm.py`), for tests, which need what
a command printed apart from what it logged. One line of JSON each way, on its input and output.
"""

import json
import os
import sys
import time
from typing import Any, NoReturn

from jobs.cli.warm import run_to_its_end
from tests.chaos.process import prepare


def main() -> None:
    """Run commands, one after the other, until nobody asks any more."""
    prepare()
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(request)
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _become(request: dict[str, Any]) -> NoReturn:
    code = 1
    try:
        os.setsid()
        for target, path in enumerate((os.devnull, request["printed"], request["said"])):
            os.dup2(os.open(path, os.O_RDWR), target)
        os.environ.clear()
        os.environ.update(request["environment"])
        time.tzset()
        os.chdir(request["folder"])
        sys.argv = ["derm", *request["arguments"]]
        code = run_to_its_end(sys.argv[1:])
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()

"""What every command shares: its lines, its days, the threads of the libraries behind it."""

import argparse
import contextlib
import os
import sys

from feature_store.contracts.base import check_day
from feature_store.contracts.errors import InputError
from jobs.settings import Settings

# What numerical libraries read when they are loaded.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def out(line: str) -> None:
    """One line of the command's result, on standard output."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def day(text: str) -> str:
    """An argument that is a day.

    Raises:
        argparse.ArgumentTypeError: it is not an ISO date.
    """
    try:
        return check_day(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def bind_threads() -> None:
    """Give numerical libraries the threads of DERM_THREADS, before any of them is loaded.

    They would take every core of the machine, and the last bits of a sum depend on how many.
    """
    with contextlib.suppress(InputError):  # the command says so
        threads = str(Settings.from_environment().threads or os.cpu_count() or 1)
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, threads))

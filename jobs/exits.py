"""How a command ends: whatever ends it becomes a message and an exit code, and no traceback.

The codes are part of the contract of the command line (docs/reference/cli.md).
"""

import atexit
import contextlib
import errno
import io
import os
import re
import select
import sys
import threading
import traceback
from pathlib import Path

from feature_store.contracts.errors import DermError

TOO_EARLY = 4  # nothing is wrong, and the same command later may do
INTERRUPTED = 130  # as shells report SIGINT
READER_LEFT = 141  # as shells report SIGPIPE

_PROJECT = Path(__file__).resolve().parents[1]
# Libraries keep the number of an operating system's error in their text only.
_NUMBER = re.compile(r"(?:os error|errno|code:) (\d+)", re.IGNORECASE)
_ADVICE = {
    errno.ENOSPC: ("the disk is full", "free space, then run the same command again"),
    errno.EDQUOT: ("the disk quota is used up", "free space, then run the same command again"),
    errno.EFBIG: ("a file may not grow further", "raise the limit: ulimit -f unlimited"),
    errno.EROFS: ("the file system is read-only", "mount it writable, or set another DERM_HOME"),
    errno.EACCES: ("a file may not be touched", "whose is it? derm runs as the home's owner"),
    errno.EPERM: ("a file may not be touched", "whose is it? derm runs as the home's owner"),
    errno.ENOENT: ("a file or a program is not there", ""),
    errno.EMFILE: ("too many files are open", "raise the limit: ulimit -n 4096"),
}
_LINES = 4


def explain(error: BaseException) -> DermError:
    """The error that says what ended a command."""
    if isinstance(error, DermError):
        return error
    number = error.errno if isinstance(error, OSError) and error.errno else _number_in(str(error))
    if number in _ADVICE:
        what, hint = _ADVICE[number]
        where = getattr(error, "filename", None) or _place(error)
        return DermError(what, where=str(where), found=_first_lines(error), hint=hint)
    return DermError(
        "an error that derm did not expect",
        where=_place(error),
        found=f"{type(error).__name__}: {_first_lines(error)}",
        hint="DERM_DEBUG=1 shows where it came from; nothing half done is taken for a result",
    )


def abandon_output() -> bool:
    """Whether standard output takes no more: its reader left, or its disk is full.

    Then what is still in its buffer is dropped, which Python would try to write when it ends.
    """
    try:
        sys.stdout.flush()
        gone = _has_no_reader(sys.stdout.fileno())
    except io.UnsupportedOperation:  # it is kept in memory
        return False
    except OSError:
        gone = True
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone


def finish() -> None:
    """Do what is due at the end of a process, short of taking the interpreter apart.

    That would take torch, Arrow and Delta most of a second, for memory that ends with the process.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()


def _has_no_reader(pipe: int) -> bool:
    poll = select.poll()
    poll.register(pipe, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _number_in(text: str) -> int:
    found = _NUMBER.search(text)
    return int(found[1]) if found else 0


def _first_lines(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    more = "" if len(lines) <= _LINES else f" ... ({len(lines)} lines)"
    return "\n            ".join(lines[:_LINES]) + more


def _place(error: BaseException) -> str:
    """The innermost line of this project that the error went through."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(_PROJECT) and ".venv" not in path.parts:
            return f"{path.relative_to(_PROJECT)}:{frame.lineno} in {frame.name}"
    return ""

"""Whom `derm forget` is asked to forget: ids exactly as they are written, and their number."""

import sys
from collections.abc import Sequence
from pathlib import Path

from feature_store.contracts.errors import InputError

# More than this many are deleted only by somebody who says how many they are.
UNCONFIRMED = 1000


def read_ids(given: Sequence[str], file: Path | None) -> list[str]:
    """The ids asked for, sorted, each once. A line is an id, whatever it holds, blanks included.

    Raises:
        InputError: nobody was named, or the file cannot be read.
    """
    lines: list[str] = []
    if file is not None:
        try:
            # Nothing but a line feed ends a line: others may be part of an id.
            lines = file.read_bytes().decode().split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                "the file of ids cannot be read",
                where=str(file),
                expected="UTF-8, an id on each line",
                found=str(error),
            ) from error
    ids = sorted({i for i in (*given, *lines) if i})
    if not ids:
        raise InputError("nobody to forget", expected="--id ID or --file FILE", found="no id")
    return ids


def confirm(count: int, here: int, confirmed: int | None) -> None:
    """Let nobody delete thousands by a slip: their number has to be said.

    Args:
        count: of different ids.
        here: how many of them the home knows.
        confirmed: what was said beforehand.

    Raises:
        InputError: no number was said, or another one.
    """
    if confirmed is None and count <= UNCONFIRMED:
        return
    if confirmed is None and sys.stdin.isatty():
        sys.stderr.write(f"{count} ids, {here} of them known here; how many shall be deleted? ")
        sys.stderr.flush()
        said = sys.stdin.readline().strip()
        confirmed = int(said) if said.isdecimal() else -1
    if confirmed != count:
        raise InputError(
            f"{count} ids would be deleted, {here} of them known here",
            expected=f"--confirm {count}",
            found="no number" if confirmed is None else str(confirmed),
            hint="nothing was changed",
        )

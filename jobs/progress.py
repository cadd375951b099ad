"""Progress of a long step: a bar on a terminal, a line every few seconds in a log."""

import logging
import sys
import threading
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

_LOG_EVERY_S = 10.0


class RowProgress:
    """Counts rows towards a total and says how fast they go and how long the rest takes."""

    def __init__(self, total: int, label: str, log: logging.Logger) -> None:
        self._total, self._label, self._log = max(total, 1), label, log
        self._done, self._started, self._logged = 0, time.monotonic(), time.monotonic()
        self._lock = threading.Lock()
        self._bar = (
            Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]} rows/s"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            if sys.stderr.isatty()
            else None
        )

    def add(self, rows: int) -> None:
        """Count rows that are done; any thread may."""
        with self._lock:
            self._done += rows
            self._show(self._done)

    def _show(self, done: int) -> None:
        now = time.monotonic()
        rate = done / max(now - self._started, 1e-3)
        if self._bar:
            self._bar.update(self._task, completed=done, rate=f"{rate:,.0f}")
        elif now - self._logged >= _LOG_EVERY_S:
            self._logged = now
            left = max(self._total - done, 0) / max(rate, 1e-3)
            self._log.info(
                "%s: %d of %d rows, %.0f rows/s, %.0f s left",
                self._label,
                done,
                self._total,
                rate,
                left,
            )

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task(self._label, total=self._total, rate="0")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

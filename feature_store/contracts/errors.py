"""Errors an operator can act on: what, where, expected, found, and the next step.

Exit codes are part of the command line's contract: 2 means that the input or the request was
wrong and nothing was changed; 3 that a guard refused a result; 1 that something else failed.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Broken:
    """A number outside its bound.

    Attributes:
        guard: `<step>.<number>`, the name by which a person may accept it for one day.
        least: whether the bound is the lowest that passes; else it is the highest.
    """

    guard: str
    found: float
    bound: float
    least: bool = True

    def __str__(self) -> str:
        number = self.guard.partition(".")[2]
        return f"{number} {self.found:.4g} {'<' if self.least else '>'} {self.bound:.4g}"


class DermError(Exception):
    """Base of every error this project raises on purpose.

    Args:
        what: one sentence that says what is wrong.
        where: table, day, column, file or key it was found at.
        expected: the rule.
        found: the offending value or counts.
        hint: a command or an action that helps.

    Attributes:
        step: the step and the day it happened in, which whoever runs steps fills in.
    """

    exit_code = 1
    step = ""

    def __init__(
        self, what: str, *, where: str = "", expected: str = "", found: str = "", hint: str = ""
    ) -> None:
        self.what, self.where, self.expected, self.found, self.hint = (
            what,
            where,
            expected,
            found,
            hint,
        )
        super().__init__(self._render())

    def __str__(self) -> str:
        return self._render()

    def _render(self) -> str:
        lines = [self.what]
        for label in ("step", "where", "expected", "found", "hint"):
            value = getattr(self, label)
            if value:
                lines.append(f"  {label + ':':10}{value}")
        return "\n".join(lines)


class InputError(DermError):
    """The request, a setting or the data that was handed in is wrong."""

    exit_code = 2


class ContractViolation(InputError):
    """A table breaks its declaration."""


class MissingInput(InputError):
    """A partition, snapshot or manifest that a step needs is not there."""


class ManifestCorrupt(InputError):
    """A manifest exists but cannot be trusted."""


class DamagedFile(InputError):
    """A file does not hold what was written: changed, cut short, or put in another's place."""


class GuardFailed(DermError):
    """A guard between two steps refused the result; what is published stays as it was.

    Args:
        broken: the numbers that a person may accept all the same (`derm accept`).
    """

    exit_code = 3

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        expected: str = "",
        found: str = "",
        hint: str = "",
        broken: Sequence[Broken] = (),
    ) -> None:
        super().__init__(what, where=where, expected=expected, found=found, hint=hint)
        self.broken = tuple(broken)


class SpaceMismatch(DermError):
    """Vectors of two embedding spaces were about to meet."""

    exit_code = 3


class CommitConflict(DermError):
    """Another writer changed the table first; nothing of this attempt is visible."""


class StoreError(DermError):
    """The online store or the index cannot do what was asked."""

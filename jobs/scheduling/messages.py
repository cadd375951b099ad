"""What a `derm` command says while Airflow runs it: each line at its level, and why it ended.

The command line prints an error as `derm: what`, followed by indented fields; a programming error
is a traceback. Both are errors in the log of the task, and the alert carries them.
"""

import logging
import re
from dataclasses import dataclass

_LOGGED = re.compile(r"\d\d:\d\d:\d\d (DEBUG|INFO|WARNING|ERROR|CRITICAL) ")
_FIELD = re.compile(r"  (step|where|expected|found|hint):(?: +(.*))?$")
_STEP = re.compile(r"\S+(?: \S+)? of (\d{4}-\d\d-\d\d)")
_COMMAND = re.compile(r"derm [a-z]+(?: --?[a-z-]+(?: [\w.:,/-]*\w)?)*")
_ACCEPT = "derm accept"
_BEGIN, _TRACE = "derm: ", "Traceback (most recent call last):"
_LEVELS = {"WARNING": logging.WARNING, "ERROR": logging.ERROR, "CRITICAL": logging.ERROR}


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """An error of `derm`, taken apart.

    Attributes:
        text: as it was printed.
        what: its first sentence.
        fields: `step`, `where`, `expected`, `found`, `hint`, as far as it has them.
    """

    text: str
    what: str
    fields: dict[str, str]

    @property
    def step(self) -> str:
        """The step that failed; empty when no step did."""
        return self.fields.get("step", "").partition(" ")[0]

    @property
    def day(self) -> str:
        """The day the step was about; empty when no step failed."""
        found = _STEP.fullmatch(self.fields.get("step", ""))
        return found[1] if found else ""

    @property
    def commands(self) -> tuple[str, ...]:
        """The commands its hint names; to accept what was refused repairs nothing."""
        named = _COMMAND.findall(self.fields.get("hint", ""))
        return tuple(c for c in named if not c.startswith(_ACCEPT))

    @property
    def refused(self) -> bool:
        """A guard refused a result, and a person could accept it."""
        return _ACCEPT in self.fields.get("hint", "")


class Listener:
    """Hears the output of a command line by line, and passes it on to a log.

    Attributes:
        log: anything with `log(level, format, *arguments)`.
    """

    def __init__(self, log: logging.Logger) -> None:
        self.log = log
        self._heard: list[str] = []
        self._listening = False

    def line(self, text: str) -> None:
        """Log one line, as an error where it is part of one."""
        text = text.rstrip("\r\n")
        if text.startswith(_BEGIN) or text == _TRACE:
            self._heard, self._listening = [], True
        elif self._listening and _LOGGED.match(text):
            self._listening = False
        if self._listening:
            self._heard.append(text)
            self.log.log(logging.ERROR, "%s", text)
            return
        level = _LOGGED.match(text)
        self.log.log(_LEVELS.get(level[1], logging.INFO) if level else logging.INFO, "%s", text)

    def message(self) -> Message | None:
        """The last error that was heard."""
        return parse("\n".join(self._heard)) if self._heard else None


def parse(text: str) -> Message | None:
    """Take apart what the command line printed; None where there is no error of `derm` in it."""
    _, begin, rest = text.rpartition(_BEGIN) if _BEGIN in text else ("", "", "")
    if not begin:
        lines = [line for line in text.splitlines() if line.strip()]
        return Message(text=text, what=lines[-1], fields={}) if lines else None
    what, *lines = rest.splitlines()
    fields: dict[str, str] = {}
    label = ""
    for line in lines:
        if field := _FIELD.match(line):
            label = field[1]
            fields[label] = field[2] or ""
        elif label:
            fields[label] = f"{fields[label]}\n{line.strip()}".strip()
        else:
            what += "\n" + line
    return Message(text=begin + rest, what=what, fields=fields)

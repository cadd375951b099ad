"""Every command that writes, killed at a random moment, and given again until it succeeds."""

import os
import signal
import time
from collections.abc import Callable, Iterator

from tests.chaos.fault import ACTIONS, CODES, Action, Result, rng_of
from tests.chaos.process import Copy, derm, start
from tests.chaos.stage import Stage, traceback_in

_ATTEMPTS = 4
_DRAWS = 5
_POLL_S = 0.002
Quiet = dict[str, tuple[float, dict[str, str]]]


def cases(stage: Stage, seed: int, each: int) -> Iterator[tuple[str, int, Callable[[], Result]]]:
    """So many kills of each command: a name, a seed, and what plays it."""
    quiet: Quiet = {}
    for number in range(each):
        for action in ACTIONS:

            def play(action: Action = action, number: int = number) -> Result:
                if action.name not in quiet:
                    quiet[action.name] = _undisturbed(stage, action)
                return _play(stage, action, seed + number, *quiet[action.name])

            yield action.name, seed + number, play


def _undisturbed(stage: Stage, action: Action) -> tuple[float, dict[str, str]]:
    """How long a command takes, and what it leaves."""
    stage.restore(action.state)
    begun = time.monotonic()
    copy = derm(stage.home, *action.words)
    seconds = time.monotonic() - begun
    assert copy.code == 0, copy.said()
    return seconds, stage.observe()


def _play(
    stage: Stage, action: Action, seed: int, seconds: float, expected: dict[str, str]
) -> Result:
    rng = rng_of("kill", action.name, seed)
    at = [rng.uniform(0.02, seconds)]
    if rng.random() < 0.3:
        at.append(rng.uniform(0.02, seconds))
    victim = "store" if rng.random() < 0.2 else "command"
    result = Result(kind="kill", name=action.name, seed=seed)
    for _ in range(_DRAWS):
        struck, copies = _attempts(stage, action, at, victim)
        if struck:
            break
        # It ended before the blow fell.
        at = [moment / 2 for moment in at]
    moments = ", ".join(f"{moment:.2f} s" for moment in struck) or "never"
    result.how = f"{victim} killed after {moments} of {seconds:.2f} s; {len(copies)} commands"
    last = copies[-1]
    if last.code != 0:
        result.wrong.append(f"exit code {last.code}: {last.said()[-600:]}")
    result.wrong += [f"traceback: {c.said()[-600:]}" for c in copies if traceback_in(c)]
    codes = {c.code for c in copies if c.code is not None and c.code >= 0}
    if codes - CODES:
        result.wrong.append(f"exit codes {sorted(codes - CODES)}")
    if not result.wrong:
        result.wrong = stage.differing(expected)[:10]
    return result


def _attempts(
    stage: Stage, action: Action, moments: list[float], victim: str
) -> tuple[list[float], list[Copy]]:
    """Give the command until it succeeds; when something was killed, and each attempt."""
    stage.restore(action.state)
    copies: list[Copy] = []
    struck: list[float] = []
    left = list(moments)
    while len(copies) < _ATTEMPTS and (not copies or copies[-1].code != 0):
        copy = start(stage.home, *action.words)
        copies.append(copy)
        if left and _strike(stage, copy, left[0], victim):
            struck.append(left.pop(0))
        copy.wait()
    return struck, copies


def _strike(stage: Stage, copy: Copy, after_s: float, victim: str) -> bool:
    until = time.monotonic() + after_s
    while time.monotonic() < until:
        if copy.ended():
            return False
        time.sleep(_POLL_S)
    if victim == "command":
        return copy.kill()
    if not (pid := stage.store_pid()) or copy.ended():
        return copy.kill()
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return copy.kill()
    return True

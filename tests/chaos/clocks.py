"""A machine whose clock is wrong: what is written is the same, because no result reads the time."""

from collections.abc import Callable, Iterator

from tests.chaos.fault import ACTIONS, Action, Result
from tests.chaos.process import derm
from tests.chaos.stage import Stage, traceback_in

_DAY_S = 86_400.0
SHIFTS = {
    "a day ahead": _DAY_S,
    "a day behind": -_DAY_S,
    "a year ahead": 365 * _DAY_S,
    "ten years behind": -3652 * _DAY_S,
}


def cases(stage: Stage, seed: int, each: int) -> Iterator[tuple[str, int, Callable[[], Result]]]:
    """Each command that writes under each clock; nothing here is drawn."""
    expected: dict[str, dict[str, str]] = {}
    for action in ACTIONS if each else ():
        for name, shift in SHIFTS.items():

            def play(action: Action = action, name: str = name, shift: float = shift) -> Result:
                return _play(stage, action, name, shift, seed, expected)

            yield f"{action.name}, {name}", seed, play


def _play(
    stage: Stage,
    action: Action,
    name: str,
    shift: float,
    seed: int,
    expected: dict[str, dict[str, str]],
) -> Result:
    result = Result(kind="clock", name=f"{action.name}, {name}", seed=seed)
    if action.name not in expected:
        stage.restore(action.state)
        copy = derm(stage.home, *action.words)
        assert copy.code == 0, copy.said()
        expected[action.name] = stage.observe()
    stage.restore(action.state)
    copy = derm(stage.home, *action.words, clock_s=shift)
    if copy.code != 0 or traceback_in(copy):
        result.wrong.append(f"exit code {copy.code}: {copy.said()[-600:]}")
        return result
    result.wrong = stage.differing(expected[action.name])[:10]
    return result

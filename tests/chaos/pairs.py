"""Every two commands at once: what is left is what one after the other leaves, in either order.

A command that is refused or ends with an error while the other runs is given again afterwards, as
an operator would. Commands that only read must end as they do alone, and change nothing.
"""

import itertools
import time
from collections.abc import Callable, Iterator

from tests.chaos.fault import ACTIONS, CODES, READERS, Action, Result, rng_of
from tests.chaos.process import Copy, derm, start
from tests.chaos.stage import Stage, traceback_in
from tests.chaos.state import differences

_STATES = ("wider", "lost", "unreleased", "published")
Left = dict[str, str]


def cases(stage: Stage, seed: int, each: int) -> Iterator[tuple[str, int, Callable[[], Result]]]:
    """Each pair so often, with another moment at which the second begins."""
    known: dict[tuple[str, ...], Left] = {}
    pairs = [
        *itertools.combinations_with_replacement(ACTIONS, 2),
        *itertools.product(ACTIONS, READERS),
    ]
    for number in range(each):
        for first, second in pairs:

            def play(a: Action = first, b: Action = second, number: int = number) -> Result:
                return _play(stage, a, b, seed + number, known)

            yield f"{first.name} + {second.name}", seed + number, play


def _play(
    stage: Stage, a: Action, b: Action, seed: int, known: dict[tuple[str, ...], Left]
) -> Result:
    rng = rng_of("pair", a.name, b.name, seed)
    if rng.random() < 0.5 and b not in READERS:
        a, b = b, a
    state = min((a.state, b.state), key=_STATES.index)
    after_s = rng.uniform(0, 0.8)
    result = Result(kind="pair", name=f"{a.name} + {b.name}", seed=seed)
    result.how = f"the second after {after_s:.2f} s"
    stage.restore(state)
    one = start(stage.home, *a.words)
    time.sleep(after_s)
    other = start(stage.home, *b.words)
    copies = [one, other]
    for copy in (one, other):
        try:
            copy.wait()
        except TimeoutError:
            result.wrong.append(f"hangs: {copy.said()[-400:]}")
    for action, copy in ((a, one), (b, other)):
        if copy.code != 0:
            copies.append(derm(stage.home, *action.words))
    result.how += f"; exit codes {[c.code for c in copies]}"
    result.wrong += _ends(copies)
    found = stage.observe()
    verified = derm(stage.home, "verify")
    if verified.code != 0:
        result.wrong.append(f"derm verify: {verified.said()[-400:]}")
    orders = ((a, b),) if b in READERS else ((a, b), (b, a))
    differing = [""]
    for order in orders:
        differing = differences(_in_turn(stage, state, order, known), found)
        if b in READERS:
            # That somebody looked is on record.
            differing = [name for name in differing if not name.endswith(" audit ")]
        if not differing:
            break
    result.wrong += differing[:10]
    return result


def _in_turn(
    stage: Stage, state: str, order: tuple[Action, Action], known: dict[tuple[str, ...], Left]
) -> Left:
    """What one command after the other leaves."""
    chosen = [action for action in order if action not in READERS]
    key = (state, *(action.name for action in chosen))
    if key not in known:
        stage.restore(state)
        codes = [derm(stage.home, *action.words).code for action in chosen]
        for action, code in zip(chosen, codes, strict=True):
            if code != 0:
                derm(stage.home, *action.words)
        known[key] = stage.observe()
    return known[key]


def _ends(copies: list[Copy]) -> list[str]:
    wrong = [f"traceback: {c.said()[-600:]}" for c in copies if traceback_in(c)]
    odd = [c for c in copies if c.code not in CODES]
    return wrong + [f"exit code {c.code}: {c.said()[-300:]}" for c in odd]

"""Two rankers on one market: what is true of them, and what an experiment would say.

True is what holds when an arm has all users and all budgets. An experiment gives each arm half of
the users; its arms spend from common budgets, so that the one which spends faster takes from the
other, or from halves of them. Legend: U users, Q quantities that are summed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from experiments.playing.auctions import Played, Ranker, play
from experiments.playing.tally import (
    METRICS,
    QUANTITIES,
    Array,
    Lift,
    by_user,
    drawn,
    estimated_lift,
    expected,
    level,
    true_lift,
)
from simulator.market.config import SURFACES
from simulator.market.truth import Predictions, Truth


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What a ranker brings when it has all users and all budgets.

    Attributes:
        sums_UQ: expected, over the days; `surfaces`: the same of each surface.
        drawn_UQ: as luck had it.
    """

    sums_UQ: Array
    surfaces: tuple[Array, ...]
    drawn_UQ: Array

    def level(self, metric: str, surface: str = "") -> float:
        """A metric, of all surfaces or of one."""
        return level(self.surfaces[SURFACES.index(surface)] if surface else self.sums_UQ, metric)


def rolled_out(truth: Truth, ranker: Ranker, days: Sequence[int], *, seed: int = 0) -> Arm:
    """Play days with a ranker for everybody."""
    random, users = np.random.default_rng((truth.world.seed, seed)), len(truth.world.users.born)
    total, lucky = _nothing(users), _nothing(users)
    surfaces = [_nothing(users) for _ in SURFACES]
    for day in days:
        played = play(truth, day, ranker(day))
        brought = expected(played)
        total += _summed(played, brought, users)
        lucky += _summed(played, drawn(played, random), users)
        for number, sums in enumerate(surfaces):
            sums += _summed(played, brought * (played.shown.surface == number)[:, None], users)
    there = present(truth, days)
    return Arm(
        sums_UQ=_once(total[there]),
        surfaces=tuple(_once(sums[there]) for sums in surfaces),
        drawn_UQ=_once(lucky[there]),
    )


def experimented(
    truth: Truth, control: Ranker, treatment: Ranker, days: Sequence[int], *, shared: bool
) -> dict[str, Lift]:
    """The lifts [by metric] that a split of users shows on average, free of outcomes' luck.

    Each half of the users is treated once, so that who is in which half cancels out.

    Args:
        shared: both arms spend from the same budgets; else each has half of every budget.
    """
    users, there = len(truth.world.users.born), present(truth, days)
    half = np.random.default_rng(truth.world.seed).random(users) < 0.5
    logs: dict[str, list[float]] = {metric: [] for metric in METRICS}
    for treated in (half, ~half):
        total = _nothing(users)
        for day in days:
            arms = control(day), treatment(day)
            for played in _split(truth, day, arms, treated, shared=shared):
                total += _summed(played, expected(played), users)
        for metric in METRICS:
            ours, theirs = (_once(total[there & chosen]) for chosen in (~treated, treated))
            found = true_lift(ours, theirs, metric)
            logs[metric].append(found.log)
    return {metric: Lift(log=float(np.mean(found))) for metric, found in logs.items()}


def present(truth: Truth, days: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Who asks for anything on some days, of all users that ever live: no ranker changes it."""
    there = np.zeros(len(truth.world.users.born), np.bool_)
    for day in days:
        there[truth.requests(day).user] = True
    return there


def estimated(control: Arm, treatment: Arm, *, seed: int = 0) -> dict[str, Lift]:
    """The lifts [by metric] that one experiment estimates: half of the users each, with luck."""
    treated = np.random.default_rng((seed, 1)).random(len(control.drawn_UQ)) < 0.5
    arms = control.drawn_UQ[~treated], treatment.drawn_UQ[treated]
    return {metric: estimated_lift(*arms, metric) for metric in METRICS}


def _split(
    truth: Truth,
    day: int,
    arms: tuple[Predictions, Predictions],
    treated: npt.NDArray[np.bool_],
    *,
    shared: bool,
) -> list[Played]:
    control, treatment = arms
    if not shared:
        return [
            play(truth, day, control, users=~treated, budget_share=0.5),
            play(truth, day, treatment, users=treated, budget_share=0.5),
        ]
    mine = treated[truth.requests(day).user][:, None]
    mixed = Predictions(
        click=np.where(mine, treatment.click, control.click),
        buys=np.where(mine, treatment.buys, control.buys),
    )
    return [play(truth, day, mixed)]


def _nothing(users: int) -> Array:
    return np.zeros((users, len(QUANTITIES)))


def _summed(played: Played, brought: Array, users: int) -> Array:
    return by_user(played.shown.user, brought, users)


def _once(sums_UQ: Array) -> Array:
    """Sums of users, each of whom counts once however many days there are."""
    sums_UQ[:, QUANTITIES.index("users")] = 1.0
    return sums_UQ

"""A simulated world and what two upstreams said of it day by day: what rankers are built over.

Both upstreams live as production does: a window from scratch, then a day after the other. Their
vectors are kept by day, so that every pool anybody might have made of them can be made.

Shapes: D days, N entities, E width of a vector.
"""

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np

from experiments import upstream_days
from experiments.quality import Vectors
from experiments.ranking.pools import Dailies
from experiments.upstream_days import Life, UpstreamVariant, World, world_of
from feature_store.contracts.base import ENTITIES, Entity, Upstream
from feature_store.contracts.digests import content_digest
from models.training.determinism import make_deterministic

UPSTREAMS: tuple[Upstream, ...] = ("ctr", "cvr")

Key = tuple[Upstream, Entity]


@dataclass(frozen=True, kw_only=True, slots=True)
class Days:
    """How a world's days are used.

    Attributes:
        recipe: of the world, the upstreams and the rankers.
        window: days that the upstreams learn from scratch.
        learn: days after them that rankers learn, while upstreams learn them too.
        measure: days after those: rankers are measured on them, and learn nothing any more.
        cache: folder in which the vectors of worlds are kept, for the next command that needs
            them; empty: nowhere. Decides nothing.
    """

    recipe: str = "toy"
    window: int = 4
    learn: int = 6
    measure: int = 2
    cache: str = ""

    def __post_init__(self) -> None:
        for name in ("window", "learn", "measure"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected >= 1, found {getattr(self, name)}")

    @property
    def deciding(self) -> Self:
        """What decides a result."""
        return dataclasses.replace(self, cache="")

    @property
    def days(self) -> "Days":
        """These alone, of options that hold more: worlds are shared by who asks for the same."""
        return Days(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Days)})

    @property
    def upstream(self) -> upstream_days.Options:
        """The days of an upstream."""
        after = self.learn + self.measure
        return upstream_days.Options(recipe=self.recipe, window=self.window, days=after)

    @property
    def learned(self) -> range:
        """The numbers of the days that rankers learn."""
        return range(self.window, self.window + self.learn)

    @property
    def measured(self) -> range:
        """The numbers of the days that rankers are measured on."""
        return range(self.learned.stop, self.learned.stop + self.measure)

    def day(self, number: int) -> str:
        """A day by its number."""
        return self.upstream.day(number)


@dataclass(frozen=True, slots=True)
class Embedded:
    """A world, and its vectors.

    Attributes:
        daily: what each day's model said of whom it saw on the day.
        back: the same of the days up to the last that rankers learn, all said by the model of that
            day: back inference. Days after it are as in `daily`.
    """

    world: World
    daily: dict[Key, Dailies]
    back: dict[Key, Dailies]


@lru_cache(maxsize=1)
def embedded(seed: int, days: Days) -> Embedded:
    """The world of a seed with its vectors; a process keeps the last one, for the next variant."""
    make_deterministic(threads=1)
    world = world_of(seed, days.upstream)
    path = Path(days.cache) / f"{content_digest(str(seed), str(days.deciding))}.npz"
    if days.cache and path.exists():
        with np.load(path) as kept:
            return Embedded(world, *_unpacked(dict(kept)))
    found = {u: _lived(world, u, days) for u in UPSTREAMS}
    daily = {(u, e): _dailies(said[e]) for u, (said, _) in found.items() for e in ENTITIES}
    back = {(u, e): _dailies(again[e]) for u, (_, again) in found.items() for e in ENTITIES}
    if days.cache:
        path.parent.mkdir(parents=True, exist_ok=True)
        packed: dict[str, Any] = {**_packed("daily", daily), **_packed("back", back)}
        np.savez(path, **packed)
    return Embedded(world, daily, back)


Said = dict[Entity, list[Vectors]]


def _lived(world: World, upstream: Upstream, days: Days) -> tuple[Said, Said]:
    """What an upstream says day by day; and what it says of days when rankers have learned them."""
    options = dataclasses.replace(days.upstream, upstream=upstream)
    life = Life(world, UpstreamVariant(name=upstream), options, references=False)
    numbers = range(days.measured.stop)
    shown = {n: life.impressions(days.day(n)) for n in numbers}
    said: Said = {e: [] for e in ENTITIES}
    again: Said = {e: [] for e in ENTITIES}
    life.begin(tuple(days.day(n) for n in range(days.window)))
    for number in numbers:
        if number >= days.window:
            life.train(days.day(number))
        today = life.vectors(shown[number])
        for entity in ENTITIES:
            said[entity].append(today[entity])
        if number == days.learned[-1]:
            for earlier in range(number + 1):
                told = life.vectors(shown[earlier])
                for entity in ENTITIES:
                    again[entity].append(told[entity])
    return said, {e: [*again[e], *said[e][len(again[e]) :]] for e in ENTITIES}


def _dailies(days: list[Vectors]) -> Dailies:
    key_N = np.unique(np.concatenate([day.key_N for day in days]))
    shape = len(days), len(key_N), days[0].vectors_NE.shape[1]
    vectors_DNE = np.full(shape, np.nan, np.float32)
    for number, day in enumerate(days):
        vectors_DNE[number, np.searchsorted(key_N, day.key_N)] = day.vectors_NE
    return Dailies(key_N, vectors_DNE)


def _packed(kind: str, found: dict[Key, Dailies]) -> dict[str, np.ndarray]:
    packed: dict[str, np.ndarray] = {}
    for (upstream, entity), dailies in found.items():
        name = f"{kind} {upstream} {entity}"
        packed |= {f"{name} keys": dailies.key_N, f"{name} vectors": dailies.vectors_DNE}
    return packed


def _unpacked(kept: dict[str, np.ndarray]) -> tuple[dict[Key, Dailies], dict[Key, Dailies]]:
    daily, back = (
        {
            (u, e): Dailies(kept[f"{kind} {u} {e} keys"], kept[f"{kind} {u} {e} vectors"])
            for u in UPSTREAMS
            for e in ENTITIES
        }
        for kind in ("daily", "back")
    )
    return daily, back

"""Time and messages of a simulation: what a seed decides happens in the order it decides."""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Weather:
    """How messages travel.

    Attributes:
        slow: share of messages that take up to `slow_s`.
        lost, twice: shares of messages that never come, or come again later.
    """

    slow: float = 0.0
    slow_s: float = 0.2
    lost: float = 0.0
    twice: float = 0.0


class Network:
    """A clock, and messages between nodes; each takes its own time, so they overtake each other."""

    def __init__(self, rng: random.Random, weather: Weather) -> None:
        self.rng, self.weather = rng, weather
        self.now = 0.0
        self.delivered = self.delayed = self.dropped = self.repeated = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, delay: float, action: Callable[[], None]) -> None:
        """Do something later."""
        self._count += 1
        heapq.heappush(self._events, (self.now + delay, self._count, action))

    def send(self, deliver: Callable[[], None]) -> None:
        """Deliver a message, late, twice or never, as the weather is."""
        rng, weather = self.rng, self.weather
        if rng.random() < weather.lost:
            self.dropped += 1
            return
        copies = 2 if rng.random() < weather.twice else 1
        self.repeated += copies - 1
        for _ in range(copies):
            delay = rng.uniform(0.0001, 0.002)
            if rng.random() < weather.slow:
                delay += rng.uniform(0.01, weather.slow_s)
                self.delayed += 1
            self.delivered += 1
            self.after(delay, deliver)

    def run(self, until: float) -> None:
        """Let time pass."""
        while self._events and self._events[0][0] <= until:
            self.now, _, action = heapq.heappop(self._events)
            action()
        self.now = until

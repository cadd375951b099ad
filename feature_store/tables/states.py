"""The life of a version on a shard.

LOADING: its files are read and compared. READY: whole, and already served to whoever asks for it.
LIVE: what the pointer names. DRAINING: what it named before; kept for requests under way and for a
rollback. GONE: no longer held; asked for, it is missing.
"""

from enum import StrEnum


class State(StrEnum):
    """Where a version is in its life."""

    LOADING = "loading"
    READY = "ready"
    LIVE = "live"
    DRAINING = "draining"
    GONE = "gone"


SERVED = frozenset({State.READY, State.LIVE, State.DRAINING})

_NEXT: dict[State, frozenset[State]] = {
    State.LOADING: frozenset({State.READY, State.GONE}),
    State.READY: frozenset({State.LIVE, State.DRAINING, State.GONE}),
    State.LIVE: frozenset({State.DRAINING}),
    State.DRAINING: frozenset({State.LIVE, State.GONE}),
    State.GONE: frozenset({State.LOADING}),
}


def follows(state: State, then: State) -> bool:
    """Whether a version may go from one state to another. What is live is never dropped at once."""
    return then in _NEXT[state]

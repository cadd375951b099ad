"""A publication, from its number to the last shard that heard of it: no socket, no clock.

Load the version on every shard; when all have read it and found it right, make it live in the
ledger; then tell them. Whoever runs it sends what `messages` says, again and again until nobody is
left, and hands in the answers: late, repeated or reordered ones do no harm.

A rollback is the publication of the version before, which shards still hold.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from feature_store.contracts.errors import GuardFailed, StoreError
from feature_store.tables.ledger import Intent, Ledger, Pointer
from feature_store.tables.states import SERVED, State

Phase = Literal["loading", "ready", "live", "done", "failed"]


@dataclass(slots=True)
class Publication:
    """One version on its way to being live.

    Args:
        intent: its number in the ledger.
        shards: how many have to hold it.
    """

    intent: Intent
    shards: int
    phase: Phase = "loading"
    pointer: Pointer | None = None
    error: str = ""
    failed_on: int = -1
    waiting: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.waiting = set(range(self.shards))

    def messages(self) -> dict[int, dict[str, Any]]:
        """What each shard that has not answered to it yet is told, by shard."""
        epoch, version = self.intent.epoch, self.intent.version
        told: dict[str, Any] = {"epoch": epoch, "version": version}
        if self.phase == "loading":
            told["do"] = "load"
        elif self.phase == "live" and self.pointer:
            told |= {"do": "live", "previous": self.pointer.previous}
        elif self.phase == "failed":
            told["do"] = "drop"
        else:
            return {}
        return dict.fromkeys(sorted(self.waiting), told)

    def answered(self, shard: int, answer: dict[str, Any]) -> None:
        """Take an answer in; one from before the shard heard of this publication says nothing."""
        if int(answer.get("epoch", 0)) < self.intent.epoch:
            return
        held = answer.get("versions", {}).get(self.intent.version, {})
        state = State(held.get("state", State.GONE))
        if self.phase == "loading":
            if state in SERVED:
                self.waiting.discard(shard)
                if not self.waiting:
                    self.phase = "ready"
            elif held.get("error"):
                self.give_up(str(held["error"]), shard)
        elif self.phase == "live" and state is State.LIVE:
            self.waiting.discard(shard)
            if not self.waiting:
                self.phase = "done"
        elif self.phase == "failed" and state is not State.LOADING:
            self.waiting.discard(shard)

    def flip(self, ledger: Ledger) -> Pointer:
        """Make the version live, once every shard has it. From here on it cannot fail any more.

        Raises:
            Superseded: a newer publication has begun; this one has failed.
            GuardFailed: it is not ready.
        """
        if self.phase != "ready":
            raise GuardFailed(
                f"version {self.intent.version} is not on every shard",
                found=f"missing on {' '.join(map(str, sorted(self.waiting)))}",
            )
        try:
            self.pointer = ledger.flip(self.intent)
        except StoreError as error:
            self.give_up(str(error), -1)
            raise
        self.phase, self.waiting = "live", set(range(self.shards))
        return self.pointer

    def give_up(self, error: str, shard: int) -> None:
        """End a publication that is not live; shards let go of what they read for it."""
        if self.phase in ("loading", "ready"):
            self.phase, self.error, self.failed_on = "failed", error, shard
            self.waiting = set(range(self.shards))
